"""N robots in MuJoCo, stepped together on all cores by mjbatch."""

from __future__ import annotations

import numpy as np
from mjbatch import Batch
from motoric.envs.engine import Array, Motion, Physics, Pose, rotate_inverse
from motoric.hardware.models import load_model
from motoric.hardware.robot import RobotSpec
from numpy.typing import NDArray


class MujocoSimulation:
    """N copies of one floating-base robot whose motors hold joint targets."""

    def __init__(self, robot: RobotSpec, num_envs: int, num_threads: int = 0) -> None:
        self.robot = robot
        self.model = load_model(robot)
        self.batch = Batch(self.model, num_envs, num_threads)
        self.num_envs = num_envs
        self._state = self.batch.bind("state")
        self.qpos, self.qvel, self.ctrl = (self.batch.bind(f) for f in ("qpos", "qvel", "ctrl"))
        self._torque = self.batch.bind("actuator_force")
        self._site = self.batch.bind("site_xpos")
        sensor = self.batch.bind("sensordata")
        model = self.model
        self._foot_site = np.array([model.site(f).id for f in robot.feet])
        self._foot_radius = model.geom_size[[model.geom(f).id for f in robot.feet], 0]
        touch = [model.sensor(f"{f}_touch").adr[0] for f in robot.feet]
        speed = [model.sensor(f"{f}_velocity").adr[0] for f in robot.feet]
        self._touch = sensor[:, touch[0] : touch[0] + len(touch)]
        self._speed = sensor[:, speed[0] : speed[0] + 3 * len(speed)]
        self._foot_geom = np.array([model.geom(f).id for f in robot.feet])
        self._base = model.body("base").id
        self._friction = self.batch.expand("geom_friction")
        self._mass = self.batch.expand("body_mass")
        self._inertia = self.batch.expand("body_inertia")
        self._subtree = self.batch.expand("body_subtreemass")
        self._gain = self.batch.expand("actuator_gainprm")
        self._bias = self.batch.expand("actuator_biasprm")
        self._range = self.batch.expand("actuator_forcerange")
        self.latency = np.zeros(num_envs, np.int64)

    @property
    def mass(self) -> Array:
        return self._mass.sum(1)

    def reset(self, ids: NDArray[np.int64], pose: Pose, physics: Physics) -> None:
        """Put the robots `ids` [M] at a pose, with physics of their own."""
        model = self.model
        self._friction[ids[:, None], self._foot_geom, 0] = physics.friction[:, None]
        mass = model.body_mass[self._base] + physics.payload
        self._mass[ids, self._base] = mass
        self._subtree[ids[:, None], [0, self._base]] = (
            model.body_subtreemass[[0, self._base]] + physics.payload[:, None]
        )
        scale = mass / model.body_mass[self._base]
        self._inertia[ids, self._base] = model.body_inertia[self._base] * scale[:, None]
        strength = physics.strength[:, None]
        self._gain[ids, :, 0] = model.actuator_gainprm[:, 0] * strength
        self._bias[ids, :, 1] = model.actuator_biasprm[:, 1] * strength
        self._bias[ids, :, 2] = model.actuator_biasprm[:, 2] * strength
        self._range[ids] = model.actuator_forcerange * strength[:, :, None]
        self.latency[ids] = physics.latency
        self.batch.reset(ids)
        self.qpos[ids, :3] = pose.base_position
        self.qpos[ids, 3:7] = pose.orientation
        self.qpos[ids, 7:] = pose.position
        self.qvel[ids, :6] = pose.base_velocity
        self.qvel[ids, 6:] = pose.velocity
        self.ctrl[ids] = pose.position
        self.batch.forward(ids)

    def push(self, velocity: Array) -> None:
        """Add to the bases' velocity in the world, m/s, [N, 3]."""
        self.qvel[:, :3] += velocity

    def step(self, target: Array, substeps: int) -> None:
        """Hold joint targets [N, J] for some physics steps; each arrives after its latency."""
        start = 0
        for stop in [*np.unique(self.latency), substeps]:
            stop = min(int(stop), substeps)
            if stop > start:
                self.batch.step(nstep=stop - start)
                start = stop
            if stop < substeps:
                due = self.latency == stop
                self.ctrl[due] = target[due]
        late = self.latency >= substeps
        if late.any():
            self.ctrl[late] = target[late]

    def measure(self) -> Motion:
        """The robots' motion now. Feet and torques are those of the last physics step."""
        orientation = self.qpos[:, 3:7].copy()
        return Motion(
            base_position=self.qpos[:, :3].copy(),
            orientation=orientation,
            base_velocity=rotate_inverse(orientation, self.qvel[:, :3]),
            angular_velocity=self.qvel[:, 3:6].copy(),
            position=self.qpos[:, 7:].copy(),
            velocity=self.qvel[:, 6:].copy(),
            torque=self._torque.copy(),
            foot_height=self._site[:, self._foot_site, 2] - self._foot_radius,
            foot_velocity=self._speed.reshape(self.num_envs, -1, 3).copy(),
            foot_force=self._touch.copy(),
        )

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
            "latency": self.latency,
        }
