"""What acts on a robot, but for the network: interface, memory, goal and clock of one policy."""

from __future__ import annotations

from typing import Any

import numpy as np
from motoric.control.command import MotorCommand
from motoric.hardware.goals import Goal
from motoric.hardware.interfaces.base import Interface, Observation
from motoric.hardware.measured import Measured, measured_by
from motoric.hardware.robot import RobotState
from numpy.typing import NDArray


class Agent:
    """One robot's side of a policy, as in training.

    goal: each part [1, k]; what is asked for now
    """

    def __init__(self, interface: Interface, goal: Goal) -> None:
        self.interface, self.goal = interface, goal
        self.period = 1.0 / interface.rate
        self._parts = interface.goals
        self._asked = goal
        self._rests = {p.name: p.rest for p in self._parts if p.halts}
        self._memory = interface.begin(1)
        self._began: float | None = None
        self._newest: tuple[RobotState, float, Measured] | None = None  # what was asked for last

    def ask(self, goal: Goal) -> None:
        """Ask for another goal, [1, k] each."""
        self.goal = self._asked = goal

    @property
    def moves(self) -> bool:
        """Whether it is asked for anything from which it must be halted."""
        return any((self._asked[name] != rest).any() for name, rest in self._rests.items())

    def halt(self, share: float) -> None:
        """Ask for this share of the way from what was asked for last to standing still."""
        share, asked = min(share, 1.0), self._asked
        eased = {n: asked[n] + share * (rest - asked[n]) for n, rest in self._rests.items()}
        self.goal = asked | eased

    def measured(self, state: RobotState, now: float) -> Measured:
        """A state read at `now` (s, monotonic), with the policy's clock; the first starts it."""
        if self._began is None:
            self._began = now
        newest = self._newest
        if newest is None or newest[0] is not state or newest[1] != now:
            self._newest = newest = state, now, measured_by(state, now - self._began)
        return newest[2]

    def observe(self, measured: Measured) -> Observation:
        """What the policy sees, each [1, ...]."""
        return self.interface.observe(measured, self.goal, self._memory)

    def command(self, action: NDArray[Any], measured: Measured) -> MotorCommand:
        """The command [J] of an action [A] that is carried out; memory goes on by it."""
        many, self._memory = self.interface.command(action[None], measured, self.goal, self._memory)
        return MotorCommand(
            many.position[0], many.velocity[0], many.kp[0], many.kd[0], many.torque[0]
        )

    def measure(self, measured: Measured) -> dict[str, float]:
        """The interface's metrics of this moment."""
        found = self.interface.measure(measured, self.goal)
        return {name: float(np.asarray(value)[0]) for name, value in found.items()}
