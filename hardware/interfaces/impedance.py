"""Joint impedance: the policy says where each joint is drawn, and how stiffly. For arms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from motoric.control.command import MotorCommand
from motoric.hardware.goals import Goal
from motoric.hardware.interfaces.base import Memory
from motoric.hardware.interfaces.term_interface import TermInterface
from motoric.hardware.measured import Array, Measured


@dataclass(frozen=True)
class Impedance(TermInterface):
    """An action a [2 J], from -1 to 1, sets an equilibrium and a stiffness for each joint:

        position = stand + action_scale * a[:J]
        s        = softest + (1 - softest) * (1 + a[J:]) / 2
        kp       = s * kp_max,    kd = sqrt(s) * kd_max

    Damping that is critical grows with the root of the stiffness: where kd_max is critical at
    kp_max, every stiffness is damped alike. `softest` keeps a joint from being let go of.

    action_scale: rad per unit of action, [J]; softest: share of kp_max at the lower end
    """

    action_scale: tuple[float, ...]
    softest: float = 0.05

    name = "impedance"

    def __post_init__(self) -> None:
        super().__post_init__()
        joints = len(self.robot.joints)
        self._check_joints("action_scale", self.action_scale)
        if not 0 < self.softest <= 1:
            raise ValueError(f"softest: {self.softest}, expected a share, more than 0")
        object.__setattr__(self, "_high", np.ones(2 * joints))
        object.__setattr__(self, "_scale", np.array(self.action_scale))

    @property
    def action_high(self) -> Array:
        return self._high  # type: ignore[attr-defined]

    def command(
        self, action: Array, measured: Measured, goal: Goal, memory: Memory
    ) -> tuple[MotorCommand, Memory]:
        action = np.minimum(np.maximum(action, self.action_low), self.action_high)
        offset, stiffness = np.split(action, 2, axis=-1)
        robot = self.robot
        target = robot.stand + self._scale * offset  # type: ignore[attr-defined]
        share = self.softest + (1 - self.softest) * 0.5 * (1 + stiffness)
        kp, kd, zero = share * robot.kp_max, np.sqrt(share) * robot.kd_max, np.zeros_like(target)
        return MotorCommand(target, zero, kp, kd, zero), memory | {"action": action}


INTERFACE = Impedance
