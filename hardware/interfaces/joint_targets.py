"""Joint targets around a robot's stand: what a walking policy, and many others, use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from motoric.control.command import MotorCommand, hold
from motoric.hardware.goals import Goal, Part
from motoric.hardware.interfaces.base import Interface, Memory, Metric, Observation, Tensor
from motoric.hardware.interfaces.metrics import METRICS
from motoric.hardware.interfaces.terms import Seen, Term, function_of, observation_size, observe
from motoric.hardware.measured import Array, Measured
from motoric.hardware.robot import RobotSpec


@dataclass(frozen=True)
class JointTargets(Interface):
    """Joint target = stand + action_scale * action, held at the robot's own gains.

    terms: what `observation` is made of; action_scale: rad per unit of action, [J]
    action_limit: of each number of the action, either way
    gait_frequency: of the gait clock, Hz; its phase starts at memory["phase"], cycles
    measures: names in `METRICS`
    """

    robot: RobotSpec
    rate: float
    terms: tuple[Term, ...]
    action_scale: tuple[float, ...]
    action_limit: float = 1.0
    goals: tuple[Part, ...] = ()
    gait_frequency: float = 0.0
    measures: tuple[str, ...] = ()

    name = "joint_targets"

    def __post_init__(self) -> None:
        if len(self.action_scale) != len(self.robot.joints):
            raise ValueError(
                f"action_scale: {len(self.action_scale)} numbers, {self.robot.name} has "
                f"{len(self.robot.joints)} joints"
            )
        for term in self.terms:
            function_of(term.name)
        for measure in self.measures:
            if measure not in METRICS:
                raise ValueError(f"metric {measure!r}: unknown, expected one of {list(METRICS)}")
        low, high = np.full(len(self.action_scale), -self.action_limit), self.action_limit
        object.__setattr__(self, "_low", low)
        object.__setattr__(self, "_high", low + 2 * high)
        object.__setattr__(self, "_scale", np.array(self.action_scale))

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return (Tensor("observation", (observation_size(self.terms),)),)

    @property
    def action_low(self) -> Array:
        return self._low  # type: ignore[attr-defined]

    @property
    def action_high(self) -> Array:
        return self._high  # type: ignore[attr-defined]

    @property
    def sensors(self) -> tuple[str, ...]:
        return tuple(t.name.partition(".")[2] for t in self.terms if t.name.startswith("sensor."))

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return tuple(METRICS[name][0] for name in self.measures)

    def begin(self, rows: int) -> Memory:
        return {"action": np.zeros((rows, len(self.action_scale))), "phase": np.zeros(rows)}

    def phase(self, measured: Measured, memory: Memory) -> Array:
        """Of the gait clock, in cycles, [N]."""
        return (memory["phase"] + self.gait_frequency * measured.time) % 1.0

    def observe(self, measured: Measured, goal: Goal, memory: Memory) -> Observation:
        seen = Seen(measured, goal, memory, self.robot, self.phase(measured, memory))
        return {"observation": observe(self.terms, seen)}

    def command(
        self, action: Array, measured: Measured, goal: Goal, memory: Memory
    ) -> tuple[MotorCommand, Memory]:
        action = np.minimum(np.maximum(action, self.action_low), self.action_high)
        robot, scale = self.robot, self._scale  # type: ignore[attr-defined]
        target = robot.stand + scale * action
        return hold(target, robot.kp, robot.kd), memory | {"action": action}

    def measure(self, measured: Measured, goal: Goal) -> dict[str, Array]:
        dt = 1.0 / self.rate
        return {name: METRICS[name][1](measured, goal, dt) for name in self.measures}
