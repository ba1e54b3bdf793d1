"""A scene: what is simulated, as data: robots, objects, terrain, cameras, sensors.

It is composed by MuJoCo's MjSpec. A single robot alone on its floor is the robot's model as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mujoco
import numpy as np
from motoric.control.rotation import from_yaw
from motoric.hardware.models import load_spec
from motoric.hardware.robot import RobotSpec

SHAPES = ("box", "sphere", "cylinder", "capsule")


@dataclass(frozen=True)
class Placed:
    """A robot of a scene. prefix: before the names of its parts, "" for a robot alone

    position: of a fixed base, m, in the world; yaw: rad. A floating base is put by `Start`.
    """

    robot: RobotSpec
    prefix: str = ""
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0


@dataclass(frozen=True)
class Object:
    """A solid thing. size: MuJoCo's half sizes of the shape, m; free: it moves; mass: kg

    friction: sliding; rgba: colour
    """

    name: str
    shape: str
    size: tuple[float, ...]
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    free: bool = False
    mass: float = 0.1
    friction: float = 1.0
    rgba: tuple[float, float, float, float] = (0.85, 0.45, 0.2, 1.0)

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"object {self.name}: {self.shape!r}, expected one of {SHAPES}")


@dataclass(frozen=True)
class Marker:
    """A spot that is drawn and touches nothing; it can be moved (`Simulation.place`)."""

    name: str
    radius: float = 0.02
    rgba: tuple[float, float, float, float] = (0.2, 0.7, 0.3, 0.6)


@dataclass(frozen=True)
class Terrain:
    """A height field in place of the floor: heights [rows, columns] in m over `size` (x, y) m."""

    heights: tuple[tuple[float, ...], ...]
    size: tuple[float, float]


@dataclass(frozen=True)
class Camera:
    """Looks from `position` at `target`, m in the world; fovy: degrees, upright; pixels: size."""

    name: str
    position: tuple[float, float, float]
    target: tuple[float, float, float]
    fovy: float = 45.0
    width: int = 64
    height: int = 64


@dataclass(frozen=True)
class Sensor:
    """A sensor of MuJoCo's: kind without `mjSENS_` ("force", "framepos", "touch", ...), of an
    object ("site", "body", "geom", "joint", ...) by its name in the scene."""

    name: str
    kind: str
    object: str
    of: str


@dataclass(frozen=True)
class Scene:
    """Robots first; `timestep`: of physics, s, None: the robot's model's."""

    robots: tuple[Placed, ...]
    objects: tuple[Object, ...] = ()
    markers: tuple[Marker, ...] = ()
    terrain: Terrain | None = None
    cameras: tuple[Camera, ...] = ()
    sensors: tuple[Sensor, ...] = ()
    timestep: float | None = None

    @classmethod
    def of(cls, robot: RobotSpec, **more: Any) -> Scene:
        """One robot on its floor."""
        return cls((Placed(robot),), **more)

    def __post_init__(self) -> None:
        if not self.robots:
            raise ValueError("scene: no robot in it")
        prefixes = [placed.prefix for placed in self.robots]
        if len(set(prefixes)) < len(prefixes):
            raise ValueError(f"scene: the robots' prefixes {prefixes} are not all different")
        if len({placed.robot.joints for placed in self.robots}) > 1:
            raise ValueError("scene: robots of different joints can't be rows of one simulation")

    @property
    def robot(self) -> RobotSpec:
        return self.robots[0].robot

    @cached_property
    def model(self) -> mujoco.MjModel:
        """Compiled; the motors hold joint targets at each robot's own gains."""
        spec = self._compose()
        for thing in self.objects:
            _add_object(spec, thing)
        for marker in self.markers:
            body = spec.worldbody.add_body(name=marker.name, mocap=True)
            body.add_geom(
                type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[marker.radius, 0, 0], rgba=marker.rgba,
                contype=0, conaffinity=0,
            )  # fmt: skip
        if self.terrain is not None:
            _add_terrain(spec, self.terrain)
        for camera in self.cameras:
            _add_camera(spec, camera)
        for sensor in self.sensors:
            _add_sensor(spec, sensor)
        if self.timestep is not None:
            spec.option.timestep = self.timestep
        return spec.compile()

    def _compose(self) -> mujoco.MjSpec:
        if len(self.robots) == 1 and not self.robots[0].prefix:
            placed = self.robots[0]
            spec = load_spec(placed.robot)
            if placed.robot.fixed:
                base = spec.worldbody.first_body()
                base.pos = np.asarray(base.pos) + placed.position
                if placed.yaw:
                    base.quat = from_yaw(np.array(placed.yaw))
            return spec
        first = load_spec(self.robots[0].robot)
        spec = mujoco.MjSpec()
        for name in ("timestep", "integrator", "cone", "iterations", "ls_iterations", "gravity"):
            setattr(spec.option, name, getattr(first.option, name))
        spec.compiler.autolimits, spec.compiler.degree = True, False
        _floor(spec)
        for placed in self.robots:
            part = load_spec(placed.robot)
            for geom in list(part.worldbody.geoms):
                part.delete(geom)
            for light in list(part.worldbody.lights):
                part.delete(light)
            for key in list(part.keys):
                part.delete(key)
            frame = spec.worldbody.add_frame(
                pos=placed.position, quat=from_yaw(np.array(placed.yaw))
            )
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
    forward = np.subtract(camera.target, camera.position)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    if np.linalg.norm(right) < 1e-6:  # it looks straight down
        right = np.array([0.0, -1.0, 0.0])
    up = np.cross(right, forward)
    axes = np.concatenate([right / np.linalg.norm(right), up / np.linalg.norm(up)])
    added = spec.worldbody.add_camera(name=camera.name, pos=camera.position, fovy=camera.fovy)
    added.alt.xyaxes = axes
    added.resolution = [camera.width, camera.height]


def _add_sensor(spec: mujoco.MjSpec, sensor: Sensor) -> None:
    kinds, objects = mujoco.mjtSensor, mujoco.mjtObj
    kind = getattr(kinds, f"mjSENS_{sensor.kind.upper()}", None)
    thing = getattr(objects, f"mjOBJ_{sensor.object.upper()}", None)
    if kind is None or thing is None:
        raise ValueError(f"sensor {sensor.name}: no {sensor.kind!r} of a {sensor.object!r}")
    spec.add_sensor(name=sensor.name, type=kind, objtype=thing, objname=sensor.of)
