"""N robots in PyBullet, each in a world of its own: the second opinion before hardware.

The same robot as in MuJoCo (`hardware/simulated/pybullet_world.py`), the same motors, another
engine. Bullet integrates motor damping explicitly, so that each of a task's physics steps is made
of `INNER` smaller ones, the motors' torque renewed in each.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from motoric.control.command import QUANTITIES, MotorCommand, hold
from motoric.control.rotation import rotate_inverse
from motoric.envs.engine import Array, Physics, Start
from motoric.envs.scene import Scene
from motoric.hardware.measured import Measured
from motoric.hardware.simulated.pybullet_world import PyBulletWorld
from numpy.typing import NDArray

INNER = 2
MOST = 256  # worlds; each takes some 35 MB


class PyBulletSimulation:
    """A `Simulation` of one floating robot on a plane. One thread does all.

    Raises ValueError for a scene that is more than that.
    """

    agents = 1

    def __init__(self, scene: Scene, rows: int, num_threads: int = 0) -> None:
        robot = scene.robot
        if scene != Scene.of(robot, timestep=scene.timestep) or robot.fixed:
            raise ValueError(
                "engine: 'pybullet' has one floating robot on a plane, expected mujoco for more"
            )
        if rows > MOST:
            raise ValueError(
                f"num_envs: {rows}, expected at most {MOST} with engine=pybullet: "
                "each robot has a world of its own, of 35 MB"
            )
        self.robot, self.rows, self.model = robot, rows, scene.model
        timestep = self.model.opt.timestep / INNER
        try:
            self.worlds = [PyBulletWorld(robot, self.model, timestep) for _ in range(rows)]
        except ImportError as error:
            raise ValueError(str(error)) from None
        self._state = np.stack([world.save() for world in self.worlds])
        self._wrench = np.zeros((rows, 6))
        self._torque = np.zeros((rows, len(robot.joints)))
        self.command = hold(np.zeros_like(self._torque), robot.kp, robot.kd)
        self.friction, self.payload = np.zeros(rows), np.zeros(rows)
        self.armature, self.drag = np.ones(rows), np.ones(rows)
        self.strength, self.latency = np.ones(rows), np.zeros(rows, np.int64)

    @property
    def poses(self) -> Array:
        return np.stack([world.state()[0] for world in self.worlds])

    def reset(self, ids: NDArray[np.int64], start: Start, physics: Physics | None) -> None:
        """Put the robots `ids` [M] at their start, with physics of their own."""
        physics = Physics.nominal(len(ids)) if physics is None else physics
        self.friction[ids], self.payload[ids] = physics.friction, physics.payload
        self.strength[ids], self.latency[ids] = physics.strength, physics.latency
        self.armature[ids], self.drag[ids] = physics.armature, physics.drag
        due = np.zeros(self.rows, bool)
        due[ids] = True
        targets = self.command.position.copy()
        targets[ids] = start.position
        self._take(hold(targets, self.robot.kp, self.robot.kd), due)
        self._torque[ids], self._wrench[ids] = 0.0, 0.0
        qpos = np.concatenate([start.base_position, start.orientation, start.position], 1)
        qvel = np.concatenate([start.base_velocity, start.velocity], 1)
        for i, q, v in zip(ids, qpos, qvel, strict=True):
            self._set_physics(int(i))
            self.worlds[i].set_state(q, v)
            self._note(i)

    def _set_physics(self, i: int) -> None:
        self.worlds[i].set_physics(
            self.friction[i], self.payload[i], self.armature[i], self.drag[i]
        )

    def push(self, velocity: Array) -> None:
        """Add to the bases' velocity in the world, m/s, [N, 3]."""
        for i in np.flatnonzero(np.any(velocity, axis=1)):
            self.worlds[i].push(velocity[i])
            self._note(int(i))

    def wrench(self, body: str, wrench: Array) -> None:
        """Force N and torque N m in the world on the base, [N, 6], until set anew; a row
        that begins again is free of it."""
        base = self.model.body(int(self.model.jnt_bodyid[0])).name
        if body != base:
            raise ValueError(f"wrench: {body!r}, PyBullet's robots take it on their {base} only")
        self._wrench = np.array(wrench, np.float64)

    def step(self, command: MotorCommand, substeps: int) -> None:
        """Hold a command [N, J] for some physics steps; each arrives after its row's latency."""
        for substep in range(substeps):
            self._take(command, self.latency == substep)
            for _ in range(INNER):
                self._step()
        self._take(command, self.latency >= substeps)
        for i in range(self.rows):
            self._note(i)

    def _take(self, command: MotorCommand, due: NDArray[np.bool_]) -> None:
        """The command reaches the motors of the rows that are `due`."""
        if due.any():
            new = {
                q: np.where(due[:, None], getattr(command, q), getattr(self.command, q))
                for q in QUANTITIES
            }
            self.command = dataclasses.replace(self.command, **new)

    def _note(self, i: int) -> None:
        """Write a robot's state down, and load it: going on from it later rounds no otherwise."""
        self._state[i] = self.worlds[i].save()
        self.worlds[i].load(self._state[i])

    def _step(self) -> None:
        """One small step: torques from the joints as they are now, then physics."""
        command = self.command
        measured = np.array([world.joints() for world in self.worlds])
        position, velocity = measured[:, 0], measured[:, 1]
        torque = command.kp * (command.position - position) + command.torque
        torque = self.strength[:, None] * (torque + command.kd * (command.velocity - velocity))
        limit = self.strength[:, None] * self.robot.limits.torque
        self._torque = np.clip(torque, -limit, limit)
        for world, tau, wrench in zip(self.worlds, self._torque, self._wrench, strict=True):
            if wrench.any():
                world.wrench(wrench)
            world.step(tau)

    def measure(self) -> Measured:
        """The robots and their feet. Forces and torques are those of the last physics step."""
        states = [world.state() for world in self.worlds]
        feet = [world.feet() for world in self.worlds]
        qpos, qvel = np.array([s[0] for s in states]), np.array([s[1] for s in states])
        orientation = qpos[:, 3:7].copy()
        return Measured(
            time=np.zeros(self.rows),
            position=qpos[:, 7:].copy(),
            velocity=qvel[:, 6:].copy(),
            torque=self._torque.copy(),
            orientation=orientation,
            angular_velocity=qvel[:, 3:6].copy(),
            base_position=qpos[:, :3].copy(),
            base_velocity=rotate_inverse(orientation, qvel[:, :3]),
            sensors={
                "foot_height": np.array([f[0] for f in feet]),
                "foot_velocity": np.array([f[1] for f in feet]),
                "foot_force": np.array([f[2] for f in feet]),
            },
        )

    def save_state(self) -> dict[str, NDArray]:
        """Everything the next step depends on."""
        command = {f"command_{q}": getattr(self.command, q) for q in QUANTITIES}
        return {name: np.array(value) for name, value in (self._saved_arrays() | command).items()}

    def load_state(self, saved: dict[str, NDArray]) -> None:
        """Continue exactly where `save_state` was called."""
        for name, value in self._saved_arrays().items():
            value[...] = saved[name]
        quantities: list[Any] = [saved[f"command_{q}"].copy() for q in QUANTITIES]
        self.command = MotorCommand(*quantities)
        for i, world in enumerate(self.worlds):
            self._set_physics(i)
            world.load(self._state[i])

    def _saved_arrays(self) -> dict[str, NDArray]:
        return {
            "state": self._state,
            "torque": self._torque,
            "wrench": self._wrench,
            "friction": self.friction,
            "payload": self.payload,
            "strength": self.strength,
            "latency": self.latency,
            "armature": self.armature,
            "drag": self.drag,
        }


ENGINE = PyBulletSimulation
