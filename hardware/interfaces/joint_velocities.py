"""Joint velocities: bases that drive, agents that glide, servos in velocity mode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from motoric.control.command import MotorCommand
from motoric.hardware.goals import Goal
from motoric.hardware.interfaces.base import Memory
from motoric.hardware.interfaces.term_interface import TermInterface
from motoric.hardware.measured import Array, Measured


@dataclass(frozen=True)
class JointVelocities(TermInterface):
    """Joint velocity = top_speed * action, from -1 to 1; the robot's kd does the rest, kp is 0.

    top_speed: rad/s (m/s of a slide), [J]
    """

    top_speed: tuple[float, ...]

    name = "joint_velocities"

    def __post_init__(self) -> None:
        super().__post_init__()
        joints, most = len(self.robot.joints), self.robot.limits.velocity
        speed = np.array(self.top_speed)
        if speed.shape != (joints,) or not ((speed > 0) & (speed <= most)).all():
            raise ValueError(f"top_speed: {self.top_speed}, expected up to {most.tolist()}")
        object.__setattr__(self, "_high", np.ones(joints))
        object.__setattr__(self, "_speed", speed)

    @property
    def action_high(self) -> Array:
        return self._high  # type: ignore[attr-defined]

    def command(
        self, action: Array, measured: Measured, goal: Goal, memory: Memory
    ) -> tuple[MotorCommand, Memory]:
        action = np.minimum(np.maximum(action, self.action_low), self.action_high)
        zero = np.zeros_like(action)
        kd = np.broadcast_to(self.robot.kd, action.shape)
        velocity = self._speed * action  # type: ignore[attr-defined]
        return MotorCommand(measured.position, velocity, zero, kd, zero), memory | {
            "action": action
        }


INTERFACE = JointVelocities
