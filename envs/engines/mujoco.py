"""N copies of a scene in MuJoCo, stepped together on all cores by mjbatch.

A row is a robot; where a scene has several, the rows of a world follow each other.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from mjbatch import Batch
from motoric.control.command import MotorCommand
from motoric.control.rotation import rotate_inverse
from motoric.envs.engine import Array, Physics, Start
from motoric.envs.scene import Scene
from motoric.hardware.measured import Measured
from motoric.hardware.models import joint_addresses
from motoric.hardware.robot import RobotSpec
from motoric.hardware.simulated.pictures import Pictures
from numpy.typing import NDArray


class MujocoSimulation:
    """A `Simulation` of a scene; its robots' motors follow motor commands.

    rows: robots in all, a multiple of the scene's
    """

    def __init__(self, scene: Scene, rows: int, num_threads: int = 0) -> None:
        self.scene, self.robot, self.rows = scene, scene.robot, rows
        self.agents = len(scene.robots)
        if rows % self.agents:
            raise ValueError(f"rows: {rows}, expected a multiple of {self.agents} robots")
        self.model = model = scene.model
        worlds = rows // self.agents
        self.batch = batch = Batch(model, worlds, num_threads)
        self._state = batch.bind("state")
        self.qpos, self.qvel, ctrl = (batch.bind(f) for f in ("qpos", "qvel", "ctrl"))
        torque, self._site = batch.bind("actuator_force"), batch.bind("site_xpos")
        self._xpos, self._xquat = batch.bind("xpos"), batch.bind("xquat")
        self._mocap = batch.bind("mocap_pos") if model.nmocap else None
        self._wrench = batch.bind("xfrc_applied")
        self._sensor = sensor = batch.bind("sensordata")
        prefixes = [placed.prefix for placed in scene.robots]
        self._parts = [_Part(model, p.robot, p.prefix, prefixes) for p in scene.robots]
        self._named = {
            model.sensor(i).name: sensor[:, adr : adr + dim]
            for i, (adr, dim) in enumerate(zip(model.sensor_adr, model.sensor_dim, strict=True))
        }
        self._friction = batch.expand("geom_friction")
        self._mass = batch.expand("body_mass")
        self._inertia = batch.expand("body_inertia")
        self._subtree = batch.expand("body_subtreemass")
        self._gain = batch.expand("actuator_gainprm")
        self._bias = batch.expand("actuator_biasprm")
        self._range = batch.expand("actuator_forcerange")
        # Rotor inertia, damping and friction: expanded where they are there to be changed.
        self._joints = {
            name: batch.expand(name)
            for name in ("dof_armature", "dof_damping", "dof_frictionloss")
            if getattr(model, name).any()
        }
        # Views by world, robot and joint: a scene's robots have their motors in order.
        motors = np.concatenate([part.motors for part in self._parts])
        if not np.array_equal(motors, np.arange(model.nu)):
            raise ValueError(f"scene: motors in the order {motors.tolist()} can't be rows")
        shape = (worlds, self.agents, len(self.robot.joints))
        self._world, self._which = np.divmod(np.arange(rows), self.agents)
        self.ctrl, self._torque = ctrl.reshape(shape), torque.reshape(shape)
        self._gains, self._biases = self._gain.reshape(*shape, -1), self._bias.reshape(*shape, -1)
        self._ranges = self._range.reshape(*shape, 2)
        self.latency, self.strength = np.zeros(rows, np.int64), np.ones(rows)
        self._foreign = np.zeros(rows, bool)  # rows whose gains are not the robot's own
        self._kp, self._kd = np.array(self.robot.kp), np.array(self.robot.kd)
        self._pictures: dict[tuple[int, int], Pictures] = {}
        self._data = mujoco.MjData(model)  # of the world that is rendered
        self._cameras = [s for s in self.robot.sensors if s.is_camera]

    @property
    def poses(self) -> Array:
        return self.qpos

    @property
    def mass(self) -> Array:
        """Of all that moves in each world, with payloads, kg, [N / agents]."""
        return self._mass.sum(1)

    def reset(self, ids: NDArray[np.int64], start: Start, physics: Physics | None) -> None:
        """Put the rows `ids` [M] at their start, with physics of their own; whole worlds."""
        if physics is None:
            physics = Physics.nominal(len(ids))
        worlds, which = np.divmod(ids, self.agents)
        self.batch.reset(np.unique(worlds))
        for number, part in enumerate(self._parts):
            mine = np.flatnonzero(which == number)
            if len(mine):
                self._begin(part, worlds[mine], mine, start, physics)
        self.latency[ids], self.strength[ids] = physics.latency, physics.strength
        kp, kd, none = (np.broadcast_to(x, start.position.shape) for x in (self._kp, self._kd, 0.0))
        self._set_laws(ids, _law(kp, kd, none, physics.strength))
        self._foreign[ids] = False
        limit = self.robot.limits.torque * physics.strength[:, None]
        self._ranges[worlds, which, :, 0], self._ranges[worlds, which, :, 1] = -limit, limit
        self._set_targets(ids, start.position)
        for name, pose in start.objects.items():
            self._put(name, worlds, pose)
        self.batch.forward(np.unique(worlds))

    def _begin(
        self, part: _Part, worlds: NDArray[np.int64], m: NDArray[np.int64], start: Start,
        physics: Physics,
    ) -> None:  # fmt: skip
        """One of the scene's robots in some worlds; m: which of the rows that start it is."""
        model, base = self.model, part.base
        if len(part.feet):
            self._friction[worlds[:, None], part.feet, 0] = physics.friction[m, None]
        payload = physics.payload[m]
        mass = model.body_mass[base] + payload
        self._mass[worlds, base] = mass
        self._subtree[worlds[:, None], [0, base]] = (
            model.body_subtreemass[[0, base]] + payload[:, None]
        )
        if model.body_mass[base] > 0:
            scale = mass / model.body_mass[base]
            self._inertia[worlds, base] = model.body_inertia[base] * scale[:, None]
        for name, values in self._joints.items():
            factor = physics.armature if name == "dof_armature" else physics.drag
            scale = np.broadcast_to(factor, len(physics.payload))[m, None]
            values[worlds[:, None], part.qvel] = getattr(model, name)[part.qvel] * scale
        if part.root is not None:
            q, v = part.root
            self.qpos[worlds, q : q + 3] = start.base_position[m]
            self.qpos[worlds, q + 3 : q + 7] = start.orientation[m]
            self.qvel[worlds, v : v + 6] = start.base_velocity[m]
        self.qpos[worlds[:, None], part.qpos] = start.position[m]
        self.qvel[worlds[:, None], part.qvel] = start.velocity[m]

    def _put(self, name: str, worlds: NDArray[np.int64], pose: Array) -> None:
        """A free object, or a marker, at a pose [M, 7]."""
        body = self.model.body(name)
        if self.model.body_mocapid[body.id] >= 0:
            assert self._mocap is not None
            self._mocap[worlds, self.model.body_mocapid[body.id]] = pose[:, :3]
            return
        address = int(self.model.jnt_qposadr[body.jntadr[0]])
        self.qpos[worlds, address : address + 7] = pose

    def push(self, velocity: Array) -> None:
        """Add to the bases' velocity in the world, m/s, [N, 3]; fixed ones stay."""
        for number, part in enumerate(self._parts):
            if part.root is not None:
                v = part.root[1]
                self.qvel[:, v : v + 3] += velocity[number :: self.agents]

    def wrench(self, body: str, wrench: Array) -> None:
        """Force N and torque N m in the world on a body of every row's robot, [N, 6], until set
        anew; a row that begins again is free of it."""
        for number, placed in enumerate(self.scene.robots):
            name = placed.prefix + body
            index = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_BODY, name)
            if index < 0:
                raise ValueError(f"wrench: {placed.robot.name} has no body {body!r}")
            self._wrench[:, index] = wrench[number :: self.agents]

    def step(self, command: MotorCommand, substeps: int) -> None:
        """Hold a command [N, J] for some physics steps; each arrives after its row's latency."""
        done = 0
        # All is made ready first: between steps of physics nothing is found in the caches.
        for stop, targets, laws in self._arrivals(command, substeps):
            if stop > done:
                self.batch.step(nstep=stop - done)
                done = stop
            self._set_targets(*targets)
            if laws is not None:
                self._set_laws(*laws)
        if done < substeps:
            self.batch.step(nstep=substeps - done)

    def _arrivals(
        self, command: MotorCommand, substeps: int
    ) -> list[tuple[int, tuple[NDArray, Array], tuple[NDArray, Array] | None]]:
        """After how many substeps a command reaches the motors: of which rows, with what targets,
        and with what law where it isn't, or was not, the one of the robot's own gains."""
        plain = _is_row(command.kp, self._kp) and _is_row(command.kd, self._kd)
        plain = plain and not (command.velocity.any() or command.torque.any())
        changed, law = self._foreign, np.zeros((0, 4))
        if not plain or self._foreign.any():
            offset = command.kd * command.velocity + command.torque
            other = (command.kp != self._kp) | (command.kd != self._kd) | (offset != 0.0)
            foreign = other.any(axis=1)
            changed, self._foreign = foreign | self._foreign, foreign
            law = _law(command.kp, command.kd, offset, self.strength)
        found = []
        latency = np.minimum(self.latency, substeps)
        for stop in np.flatnonzero(np.bincount(latency)):
            ids = np.flatnonzero(latency == stop)
            new = ids[changed[ids]]
            laws = (new, law[new]) if len(new) else None
            found.append((int(stop), (ids, command.position[ids]), laws))
        return found

    def _set_targets(self, ids: NDArray[np.int64], targets: Array) -> None:
        self.ctrl[self._world[ids], self._which[ids]] = targets

    def _set_laws(self, ids: NDArray[np.int64], law: Array) -> None:
        world, which = self._world[ids], self._which[ids]
        self._gains[world, which, :, 0] = law[..., 0]
        self._biases[world, which, :, :3] = law[..., 1:]

    def measure(self) -> Measured:
        """The robots, their feet and cameras where they have any, every sensor of the scene by
        name, and the pose of each free object. What sensors say, forces and torques are of the
        last physics step."""
        if self.agents == 1:
            return self._measure(self._parts[0])
        found = [self._measure(part) for part in self._parts]
        merge = lambda *arrays: np.stack(arrays, 1).reshape(self.rows, *arrays[0].shape[1:])  # noqa: E731
        fields = {
            name: merge(*(getattr(m, name) for m in found))
            for name in vars(found[0])
            if name != "sensors"
        }
        sensors = {name: merge(*(m.sensors[name] for m in found)) for name in found[0].sensors}
        return Measured(**fields, sensors=sensors)

    def _measure(self, part: _Part) -> Measured:
        qpos, qvel, worlds = self.qpos, self.qvel, len(self.qpos)
        if part.root is not None:
            q, v = part.root
            position, orientation = qpos[:, q : q + 3].copy(), qpos[:, q + 3 : q + 7].copy()
            velocity = rotate_inverse(orientation, qvel[:, v : v + 3])
            angular = qvel[:, v + 3 : v + 6].copy()
        else:
            position = self._xpos[:, part.base].copy()
            orientation = self._xquat[:, part.base].copy()
            velocity, angular = np.zeros((worlds, 3)), np.zeros((worlds, 3))
        sensors: dict[str, NDArray[Any]] = {}
        if len(part.feet):
            feet = len(part.feet)
            sensors["foot_height"] = self._site[:, part.foot_sites, 2] - part.foot_radius
            sensors["foot_velocity"] = self._sensor[:, part.speeds].reshape(worlds, feet, 3)
            sensors["foot_force"] = self._sensor[:, part.touches]
        for source, name in part.sensors:
            sensors[name] = self._named[source].copy()
        for camera in self._cameras:
            height, width, _ = camera.shape
            sensors[camera.name] = self.render(part.prefix + camera.name, height, width)
        for name in self._objects:
            body = self.model.body(name).id
            sensors[name] = np.concatenate([self._xpos[:, body], self._xquat[:, body]], axis=1)
        return Measured(
            time=np.zeros(worlds),
            position=qpos[:, part.qpos],
            velocity=qvel[:, part.qvel],
            torque=self._torque[:, self._parts.index(part)].copy(),
            orientation=orientation,
            angular_velocity=angular,
            base_position=position,
            base_velocity=velocity,
            sensors=sensors,
        )

    @property
    def _objects(self) -> list[str]:
        return [thing.name for thing in self.scene.objects if thing.free]

    def render(
        self, camera: str, height: int, width: int, worlds: NDArray[np.int64] | None = None
    ) -> NDArray[np.uint8]:
        """Pictures of a camera of the model, of some worlds (None: all), [M, height, width, 3]."""
        if (height, width) not in self._pictures:
            self._pictures[height, width] = Pictures(self.model, height, width)
        frames = []
        for world in np.arange(len(self.qpos)) if worlds is None else worlds:
            self._data.qpos[:] = self.qpos[world]
            if self._mocap is not None:
                self._data.mocap_pos[:] = self._mocap[world]
            mujoco.mj_kinematics(self.model, self._data)
            mujoco.mj_camlight(self.model, self._data)
            frames.append(self._pictures[height, width].take(self._data, camera))
        return np.stack(frames)

    def close(self) -> None:
        """Let go of what pictures need. Safe to call more than once."""
        for pictures in self._pictures.values():
            pictures.close()
        self._pictures.clear()

    def save_state(self) -> dict[str, NDArray]:
        """Everything the next step depends on."""
        return {name: np.array(value) for name, value in self._saved_arrays().items()}

    def load_state(self, saved: dict[str, NDArray]) -> None:
        """Continue exactly where `save_state` was called."""
        for name, value in self._saved_arrays().items():
            value[...] = saved[name]

    def _saved_arrays(self) -> dict[str, NDArray]:
        return {
            "state": self._state,
            "friction": self._friction,
            "mass": self._mass,
            "inertia": self._inertia,
            "subtree": self._subtree,
            "gain": self._gain,
            "bias": self._bias,
            "range": self._range,
            **self._joints,
            "latency": self.latency,
            "strength": self.strength,
            "foreign": self._foreign,
        }


class _Part:
    """Where one robot of a scene is in MuJoCo's arrays.

    root: address of a floating base in qpos and qvel; base: its body
    sensors: names in the model and as this robot's
    """

    def __init__(
        self, model: mujoco.MjModel, robot: RobotSpec, prefix: str, prefixes: list[str]
    ) -> None:
        self.prefix = prefix
        self.qpos, self.qvel = joint_addresses(model, robot, prefix)
        first = model.body(model.joint(prefix + robot.joints[0]).bodyid[0])
        root = int(model.body_rootid[first.id])
        free = [
            int(j) for j in range(model.njnt)
            if model.jnt_bodyid[j] == root and model.jnt_type[j] == mujoco.mjtJoint.mjJNT_FREE
        ]  # fmt: skip
        self.base, self.root = root, None
        if free:
            self.root = int(model.jnt_qposadr[free[0]]), int(model.jnt_dofadr[free[0]])
        feet = [prefix + foot for foot in robot.feet]
        self.feet = np.array([model.geom(f).id for f in feet], np.int64)
        self.foot_sites = np.array([model.site(f).id for f in feet], np.int64)
        self.foot_radius = model.geom_size[self.feet, 0]
        touches, speeds = [f"{f}_touch" for f in feet], [f"{f}_velocity" for f in feet]
        self.touches, self.speeds = (
            sensor_addresses(model, touches),
            sensor_addresses(model, speeds),
        )
        self.motors = np.array([
            i for name in robot.joints for i in range(model.nu)
            if model.actuator_trnid[i, 0] == model.joint(prefix + name).id
        ])  # fmt: skip
        own = {*touches, *speeds}
        names = [model.sensor(i).name for i in range(model.nsensor)]
        others = tuple(other for other in prefixes if other != prefix)
        self.sensors = [
            (n, n.removeprefix(prefix)) for n in names if n not in own and not n.startswith(others)
        ]


def sensor_addresses(model: mujoco.MjModel, names: list[str]) -> NDArray[np.int64]:
    """Where the numbers of some sensors are in sensordata, in their order."""
    ranges = [
        np.arange(s.adr[0], s.adr[0] + s.dim[0]) for s in (model.sensor(name) for name in names)
    ]
    return np.concatenate([*ranges, np.zeros(0, np.int64)]).astype(np.int64)


def _law(kp: Array, kd: Array, offset: Array, strength: Array) -> Array:
    """A motor's numbers in MuJoCo, [N, J, 4]: gain, and bias on 1, position and velocity."""
    law = np.empty((*kp.shape, 4))
    law[..., 0], law[..., 1] = kp, offset
    law[..., 2], law[..., 3] = -kp, -kd
    law *= strength[:, None, None]
    return law


def _is_row(value: Array, row: Array) -> bool:
    """Whether [N, J] is one row in memory for all, and this one."""
    return value.strides[0] == 0 and np.array_equal(value[0], row)


ENGINE = MujocoSimulation
