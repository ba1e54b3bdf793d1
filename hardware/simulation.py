"""One simulated robot: MuJoCo physics and motors that compute their own PD torque.

The motors follow the last command, clipped to their torque limits, and damp when none came for
100 ms, as a real robot's do. Whatever serves it to a client (a socket, DDS, ...) calls `step` in
real time.
"""

from __future__ import annotations

import mujoco
import numpy as np
from motoric.hardware.models import load_model
from motoric.hardware.robot import RobotCommand, RobotSpec, RobotState

TIMESTEP = 0.0025  # s
WATCHDOG = 0.1  # s without a command until the motors damp
DAMPING = 2.0  # N m s / rad


class Simulation:
    """One robot's physics and motors.

    Motors: off (no torque), damped, or following the last command.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self.spec = spec
        self.model = load_model(spec)
        self.model.opt.timestep = TIMESTEP
        self.data = mujoco.MjData(self.model)
        self.on = False
        self.command: RobotCommand | None = None
        self.commanded_at = -np.inf  # simulated time
        self.steps = 0
        height = 0.5 * spec.base_height
        self.data.qpos[:7] = [0, 0, height, 1, 0, 0, 0]
        self.data.qpos[7:] = spec.rest
        for _ in range(round(1.0 / TIMESTEP)):  # let it settle on the floor
            self.step()

    def step(self) -> None:
        """One time step of physics under the motors' present state."""
        model, zero = self.model, np.zeros(len(self.spec.joints))
        kp, kd, offset, target = zero, zero, zero, self.data.qpos[7:]
        command = self.command
        if self.on and command is not None and self.data.time - self.commanded_at <= WATCHDOG:
            kp, kd, target = command.kp, command.kd, command.position
            offset = command.kd * command.velocity + command.torque
        elif self.on:
            kd = np.full(len(zero), DAMPING)
        model.actuator_gainprm[:, 0] = kp
        model.actuator_biasprm[:, 0] = offset
        model.actuator_biasprm[:, 1] = -kp
        model.actuator_biasprm[:, 2] = -kd
        self.data.ctrl[:] = target
        mujoco.mj_step(model, self.data)
        self.steps += 1

    def take(self, command: RobotCommand) -> None:
        self.command, self.commanded_at = command, self.data.time

    def state(self) -> RobotState:
        """Measured now; base velocity in the base frame."""
        data = self.data
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, data.qpos[3:7])
        return RobotState(
            time=data.time,
            sequence=self.steps,
            position=data.qpos[7:].copy(),
            velocity=data.qvel[6:].copy(),
            torque=data.actuator_force.copy(),
            orientation=data.qpos[3:7].copy(),
            angular_velocity=data.qvel[3:6].copy(),
            base_velocity=rotation.reshape(3, 3).T @ data.qvel[:3],
            base_height=float(data.qpos[2]),
        )
