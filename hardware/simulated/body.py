"""One simulated robot: MuJoCo physics and motors that compute their own PD torque.

`pybullet_simulation.py` is the same robot in PyBullet, with the same attributes.

The motors follow the last command, clipped to their torque limits, and damp when none came for
100 ms, as a real robot's do. Whatever serves it to a client (a socket, DDS, ...) calls `step` in
real time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import mujoco
import numpy as np
from motoric.control.command import MotorCommand
from motoric.hardware.models import load_model
from motoric.hardware.robot import Array, RobotSpec, RobotState

TIMESTEP = 0.0025  # s
WATCHDOG = 0.1  # s without a command until the motors damp
LAG = 0.05  # s behind real time from which simulated time waits rather than races


def real_time(timestep: float) -> Iterator[None]:
    """Go on once every `timestep` s, without end."""
    due = time.monotonic()
    while True:
        yield
        due += timestep
        now = time.monotonic()
        if now - due > LAG:  # the machine was busy
            due = now
        elif due > now:
            time.sleep(due - now)


class Motors:
    """What the motors do: off (no torque), damped, or following the last command."""

    def __init__(self, spec: RobotSpec) -> None:
        self.spec = spec
        self.on = False
        self.command: MotorCommand | None = None
        self.commanded_at = -np.inf  # simulated time
        self.steps = 0

    @property
    def time(self) -> float:
        """Simulated, s."""
        raise NotImplementedError

    def take(self, command: MotorCommand) -> None:
        self.command, self.commanded_at = command, self.time

    @property
    def mode(self) -> str:
        """off, damped or commanded."""
        if not self.on:
            return "off"
        silent = self.command is None or self.time - self.commanded_at > WATCHDOG
        return "damped" if silent else "commanded"

    def law(self) -> tuple[Array, Array, Array, Array]:
        """kp, kd, target and offset [J] of the torque kp (target - q) - kd dq + offset."""
        zero, command, mode = np.zeros(len(self.spec.joints)), self.command, self.mode
        if mode == "off":
            return zero, zero, zero, zero
        if mode == "damped" or command is None:
            return zero, self.spec.damping, zero, zero
        offset = command.kd * command.velocity + command.torque
        return command.kp, command.kd, command.position, offset


class Body(Motors):
    """One robot's physics and motors."""

    def __init__(self, spec: RobotSpec, timestep: float = TIMESTEP) -> None:
        super().__init__(spec)
        self.model = load_model(spec)
        self.model.opt.timestep = timestep
        self.data = mujoco.MjData(self.model)
        # One that has no pose to lie in hangs on a rope.
        height = (1.1 if np.array_equal(spec.rest, spec.stand) else 0.5) * spec.base_height
        self.data.qpos[:7] = [0, 0, height, 1, 0, 0, 0]
        self.data.qpos[7:] = spec.rest
        for _ in range(round(1.0 / timestep)):  # let it settle on the floor
            self.step()

    @property
    def time(self) -> float:
        return self.data.time

    def step(self) -> None:
        """One time step of physics under the motors' present state."""
        model = self.model
        kp, kd, target, offset = self.law()
        model.actuator_gainprm[:, 0] = kp
        model.actuator_biasprm[:, 0] = offset
        model.actuator_biasprm[:, 1] = -kp
        model.actuator_biasprm[:, 2] = -kd
        self.data.ctrl[:] = target
        mujoco.mj_step(model, self.data)
        self.steps += 1

    def disturb(
        self,
        push: tuple[float, ...] = (0.0, 0.0, 0.0),
        roll: float = 0.0,
        lift: float = 0.0,
        joint: tuple[int, float] | None = None,
    ) -> None:
        """Kick the base (m/s), turn and lift it (rad, m), put a joint at an angle (rad)."""
        data = self.data
        data.qvel[:3] += push
        turn = np.array([np.cos(roll / 2), np.sin(roll / 2), 0, 0])
        mujoco.mju_mulQuat(data.qpos[3:7], data.qpos[3:7].copy(), turn)
        data.qpos[2] += lift
        if joint is not None:
            data.qpos[7 + joint[0]] = joint[1]

    def state(self) -> RobotState:
        """Measured now; base velocity in the base frame."""
        data = self.data
        return robot_state(data.time, self.steps, data.qpos, data.qvel, data.actuator_force)


def robot_state(time: float, steps: int, qpos: Array, qvel: Array, torque: Array) -> RobotState:
    """From MuJoCo's layout of positions and velocities."""
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, qpos[3:7])
    return RobotState(
        time=time,
        sequence=steps,
        position=qpos[7:].copy(),
        velocity=qvel[6:].copy(),
        torque=torque.copy(),
        orientation=qpos[3:7].copy(),
        angular_velocity=qvel[3:6].copy(),
        base_velocity=rotation.reshape(3, 3).T @ qvel[:3],
        base_height=float(qpos[2]),
    )
