"""Joint targets around a robot's stand: what a walking policy, and many others, use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from motoric.control.command import MotorCommand
from motoric.hardware.goals import Goal
from motoric.hardware.interfaces.base import Memory
from motoric.hardware.interfaces.term_interface import TermInterface
from motoric.hardware.measured import Array, Measured


@dataclass(frozen=True)
class JointTargets(TermInterface):
    """Joint target = stand + action_scale * action, held at the robot's own gains.

    action_scale: rad per unit of action, [J]; action_limit: of each number of the action, either
    way
    """

    action_scale: tuple[float, ...]
    action_limit: float = 1.0

    name = "joint_targets"

    def __post_init__(self) -> None:
        super().__post_init__()
        robot, joints = self.robot, len(self.robot.joints)
        self._check_joints("action_scale", self.action_scale)
        if not self.action_limit > 0:
            raise ValueError(f"action_limit: {self.action_limit}, expected a positive number")
        # As one row: arrays of one shape are computed faster than those that must be matched.
        high = np.full((1, joints), float(self.action_limit))
        object.__setattr__(self, "_low", -high)
        object.__setattr__(self, "_high", high)
        object.__setattr__(self, "_scale", np.array([self.action_scale]))
        object.__setattr__(self, "_held", Held(robot.kp, robot.kd))

    @property
    def action_low(self) -> Array:
        return self._low[0]  # type: ignore[attr-defined]

    @property
    def action_high(self) -> Array:
        return self._high[0]  # type: ignore[attr-defined]

    def command(
        self, action: Array, measured: Measured, goal: Goal, memory: Memory
    ) -> tuple[MotorCommand, Memory]:
        low, high, scale = self._low, self._high, self._scale  # type: ignore[attr-defined]
        action = np.asarray(action, np.float64)  # of one type, they are computed in a third
        action = np.minimum(np.maximum(action, low), high)
        target = self._stand + scale * action  # type: ignore[attr-defined]
        return self._held(target), memory | {"action": action}  # type: ignore[attr-defined]


class Held:
    """`control.command.hold` at the same gains again and again: what doesn't change of a command
    of N rows is made once, read-only."""

    def __init__(self, kp: Array, kd: Array) -> None:
        self._gains = kp, kd
        self._rows: dict[int, tuple[Array, Array, Array]] = {}

    def __call__(self, position: Array) -> MotorCommand:
        rows = len(position)
        if rows not in self._rows:
            zero, kp, kd = (np.broadcast_to(a, position.shape) for a in (0.0, *self._gains))
            self._rows = {rows: (zero, kp, kd)}
        zero, kp, kd = self._rows[rows]
        return MotorCommand(position, zero, kp, kd, zero)


INTERFACE = JointTargets
