"""N robots in PyBullet, each in a world of its own: the second opinion before hardware.

The same robot as in MuJoCo (`hardware/simulated/pybullet_world.py`), the same motors, another
engine. Bullet integrates motor damping explicitly, so that each of a task's physics steps is made
of `INNER` smaller ones, the motors' torque renewed in each.
"""

from __future__ import annotations

import numpy as np
from motoric.envs.engine import Array, Motion, Physics, Pose, rotate_inverse
from motoric.hardware.models import load_model
from motoric.hardware.robot import RobotSpec
from motoric.hardware.simulated.pybullet_world import PyBulletWorld
from numpy.typing import NDArray

INNER = 2
MOST = 256  # worlds; each takes some 35 MB


class PyBulletSimulation:
    """N copies of one floating-base robot whose motors hold joint targets. One thread does all."""

    def __init__(self, robot: RobotSpec, num_envs: int, num_threads: int = 0) -> None:
        if num_envs > MOST:
            raise ValueError(
                f"num_envs: {num_envs}, expected at most {MOST} with engine=pybullet: "
                "each robot has a world of its own, of 35 MB"
            )
        self.robot, self.num_envs = robot, num_envs
        self.model = load_model(robot)
        timestep = self.model.opt.timestep / INNER
        try:
            self.worlds = [PyBulletWorld(robot, self.model, timestep) for _ in range(num_envs)]
        except ImportError as error:
            raise ValueError(str(error)) from None
        self._state = np.stack([world.save() for world in self.worlds])
        joints = len(robot.joints)
        self.ctrl, self._torque = np.zeros((num_envs, joints)), np.zeros((num_envs, joints))
        self.friction, self.payload = np.zeros(num_envs), np.zeros(num_envs)
        self.strength, self.latency = np.ones(num_envs), np.zeros(num_envs, np.int64)

    @property
    def qpos(self) -> Array:
        return np.stack([world.state()[0] for world in self.worlds])

    @property
    def mass(self) -> Array:
        return self.model.body_mass.sum() + self.payload

    def reset(self, ids: NDArray[np.int64], pose: Pose, physics: Physics) -> None:
        """Put the robots `ids` [M] at a pose, with physics of their own."""
        self.friction[ids], self.payload[ids] = physics.friction, physics.payload
        self.strength[ids], self.latency[ids] = physics.strength, physics.latency
        self.ctrl[ids] = pose.position
        self._torque[ids] = 0.0
        qpos = np.concatenate([pose.base_position, pose.orientation, pose.position], 1)
        qvel = np.concatenate([pose.base_velocity, pose.velocity], 1)
        for i, q, v in zip(ids, qpos, qvel, strict=True):
            self.worlds[i].set_physics(self.friction[i], self.payload[i])
            self.worlds[i].set_state(q, v)
            self._note(i)

    def push(self, velocity: Array) -> None:
        """Add to the bases' velocity in the world, m/s, [N, 3]."""
        for i in np.flatnonzero(np.any(velocity, axis=1)):
            self.worlds[i].push(velocity[i])
            self._note(int(i))

    def step(self, target: Array, substeps: int) -> None:
        """Hold joint targets [N, J] for some physics steps; each arrives after its latency."""
        for substep in range(substeps):
            due = self.latency == substep
            self.ctrl[due] = target[due]
            for _ in range(INNER):
                self._step()
        late = self.latency >= substeps
        self.ctrl[late] = target[late]
        for i in range(self.num_envs):
            self._note(i)

    def _note(self, i: int) -> None:
        """Write a robot's state down, and load it: going on from it later rounds no otherwise."""
        self._state[i] = self.worlds[i].save()
        self.worlds[i].load(self._state[i])

    def _step(self) -> None:
        """One small step: torques from the joints as they are now, then physics."""
        robot = self.robot
        measured = np.array([world.joints() for world in self.worlds])
        position, velocity = measured[:, 0], measured[:, 1]
        strength = self.strength[:, None]
        torque = strength * (robot.kp * (self.ctrl - position) - robot.kd * velocity)
        limit = strength * robot.limits.torque
        self._torque = np.clip(torque, -limit, limit)
        for world, tau in zip(self.worlds, self._torque, strict=True):
            world.step(tau)

    def measure(self) -> Motion:
        """The robots' motion now. Feet's forces and torques are those of the last physics step."""
        states = [world.state() for world in self.worlds]
        feet = [world.feet() for world in self.worlds]
        qpos, qvel = np.array([s[0] for s in states]), np.array([s[1] for s in states])
        orientation = qpos[:, 3:7].copy()
        return Motion(
            base_position=qpos[:, :3].copy(),
            orientation=orientation,
            base_velocity=rotate_inverse(orientation, qvel[:, :3]),
            angular_velocity=qvel[:, 3:6].copy(),
            position=qpos[:, 7:].copy(),
            velocity=qvel[:, 6:].copy(),
            torque=self._torque.copy(),
            foot_height=np.array([f[0] for f in feet]),
            foot_velocity=np.array([f[1] for f in feet]),
            foot_force=np.array([f[2] for f in feet]),
        )

    def save_state(self) -> dict[str, NDArray]:
        """Everything the next step depends on."""
        return {name: value.copy() for name, value in self._saved_arrays().items()}

    def load_state(self, saved: dict[str, NDArray]) -> None:
        """Continue exactly where `save_state` was called."""
        for name, value in self._saved_arrays().items():
            value[...] = saved[name]
        for i, world in enumerate(self.worlds):
            world.set_physics(self.friction[i], self.payload[i])
            world.load(self._state[i])

    def _saved_arrays(self) -> dict[str, NDArray]:
        return {
            "state": self._state,
            "ctrl": self.ctrl,
            "torque": self._torque,
            "friction": self.friction,
            "payload": self.payload,
            "strength": self.strength,
            "latency": self.latency,
        }
