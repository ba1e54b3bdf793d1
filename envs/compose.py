"""From a scene to a MuJoCo model, by MjSpec."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from motoric.control.rotation import from_yaw
from motoric.envs.scene import Camera, Object, Scene, Sensor, Terrain
from motoric.hardware.models import load_spec
from numpy.typing import NDArray


def compose(scene: Scene) -> mujoco.MjModel:
    """Compiled; the motors hold joint targets at each robot's own gains. Raises ValueError."""
    spec = _robots(scene)
    for thing in scene.objects:
        _add_object(spec, thing)
    for marker in scene.markers:
        body = spec.worldbody.add_body(name=marker.name, mocap=True)
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[marker.radius, 0, 0], rgba=marker.rgba,
            contype=0, conaffinity=0,
        )  # fmt: skip
    if scene.terrain is not None:
        _add_terrain(spec, scene.terrain)
    for camera in scene.cameras:
        _add_camera(spec, camera)
    for sensor in scene.sensors:
        _add_sensor(spec, sensor)
    if scene.timestep is not None:
        spec.option.timestep = scene.timestep
    model = spec.compile()
    _shorten(model, scene)
    return model


def _shorten(model: mujoco.MjModel, scene: Scene) -> None:
    """Leave out what the scene's shortcuts say."""
    shortcuts = scene.shortcuts
    if shortcuts.sweeps:
        model.opt.solver = mujoco.mjtSolver.mjSOL_PGS
        model.opt.iterations = shortcuts.sweeps
    for placed in scene.robots:
        robot, prefix = placed.robot, placed.prefix
        if shortcuts.damping:
            dofs = [int(model.joint(prefix + joint).dofadr[0]) for joint in robot.joints]
            model.dof_damping[dofs], model.dof_frictionloss[dofs] = shortcuts.damping, 0.0
        if shortcuts.feet_only:
            root = model.body_rootid[model.joint(prefix + robot.joints[0]).bodyid[0]]
            solid = model.body_rootid[model.geom_bodyid] == root
            solid[[model.geom(prefix + foot).id for foot in robot.feet]] = False
            model.geom_contype[solid] = model.geom_conaffinity[solid] = 0


def _robots(scene: Scene) -> mujoco.MjSpec:
    if len(scene.robots) == 1 and not scene.robots[0].prefix:
        placed = scene.robots[0]
        spec = load_spec(placed.robot)
        if placed.robot.fixed:
            base = spec.worldbody.first_body()
            base.pos = np.asarray(base.pos) + placed.position
            if placed.yaw:
                base.quat = from_yaw(np.array(placed.yaw))
        return spec
    first = load_spec(scene.robots[0].robot)
    spec = mujoco.MjSpec()
    for name in ("timestep", "integrator", "cone", "iterations", "ls_iterations", "gravity"):
        setattr(spec.option, name, getattr(first.option, name))
    spec.compiler.autolimits, spec.compiler.degree = True, False
    _floor(spec)
    for placed in scene.robots:
        part = load_spec(placed.robot)
        for geom in list(part.worldbody.geoms):
            part.delete(geom)
        for light in list(part.worldbody.lights):
            part.delete(light)
        for key in list(part.keys):
            part.delete(key)
        frame = spec.worldbody.add_frame(pos=placed.position, quat=from_yaw(np.array(placed.yaw)))
        spec.attach(part, prefix=placed.prefix, frame=frame)
    return spec


def _floor(spec: mujoco.MjSpec) -> None:
    spec.worldbody.add_light(pos=[0, 0, 4], dir=[0, 0, -1])
    spec.worldbody.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 0.05], contype=1,
        conaffinity=0, friction=[0.8, 0.005, 0.0001], rgba=[0.82, 0.83, 0.85, 1],
    )  # fmt: skip


def _add_object(spec: mujoco.MjSpec, thing: Object) -> None:
    body = spec.worldbody.add_body(
        name=thing.name, pos=thing.position, quat=from_yaw(np.array(thing.yaw))
    )
    if thing.free:
        body.add_freejoint(name=thing.name)
    size = [*thing.size, 0.0, 0.0, 0.0][:3]
    body.add_geom(
        name=thing.name, type=getattr(mujoco.mjtGeom, f"mjGEOM_{thing.shape.upper()}"), size=size,
        mass=thing.mass, friction=[thing.friction, 0.005, 0.0001], rgba=thing.rgba,
        contype=1, conaffinity=1,
    )  # fmt: skip


def _add_terrain(spec: mujoco.MjSpec, terrain: Terrain) -> None:
    heights = np.array(terrain.heights, np.float64)
    low, span = heights.min(), max(float(np.ptp(heights)), 1e-6)
    spec.add_hfield(
        name="terrain", nrow=heights.shape[0], ncol=heights.shape[1],
        size=[terrain.size[0] / 2, terrain.size[1] / 2, span, 0.1],
        userdata=((heights - low) / span).ravel(),
    )  # fmt: skip
    floor = spec.geom("floor")
    floor.type, floor.hfieldname = mujoco.mjtGeom.mjGEOM_HFIELD, "terrain"
    floor.size, floor.pos = [0, 0, 0], [0, 0, low]


def _add_camera(spec: mujoco.MjSpec, camera: Camera) -> None:
    spec.worldbody.add_camera(
        name=camera.name, pos=camera.position, fovy=camera.fovy,
        quat=looking(camera.position, camera.target),
    )  # fmt: skip


def looking(position: Sequence[float], target: Sequence[float]) -> NDArray[np.float64]:
    """How a camera at `position` is turned that looks at `target`, upright; quaternion [4]."""
    back = np.subtract(position, target)
    right = np.cross([0.0, 0.0, 1.0], back)
    if np.linalg.norm(right) < 1e-6:  # it looks straight down
        right = np.array([1.0, 0.0, 0.0])
    axes = np.stack([right, np.cross(back, right), back], axis=1)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, (axes / np.linalg.norm(axes, axis=0)).ravel())
    return quaternion


def _add_sensor(spec: mujoco.MjSpec, sensor: Sensor) -> None:
    kinds, objects = mujoco.mjtSensor, mujoco.mjtObj
    kind = getattr(kinds, f"mjSENS_{sensor.kind.upper()}", None)
    thing = getattr(objects, f"mjOBJ_{sensor.object.upper()}", None)
    if kind is None or thing is None:
        raise ValueError(f"sensor {sensor.name}: no {sensor.kind!r} of a {sensor.object!r}")
    spec.add_sensor(name=sensor.name, type=kind, objtype=thing, objname=sensor.of)
