"""What interfaces share whose observation is a list of terms: gait clock, goal, metrics."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from motoric.hardware.goals import Goal, Part
from motoric.hardware.interfaces.base import Interface, Memory, Metric, Observation, Tensor
from motoric.hardware.interfaces.metrics import METRICS
from motoric.hardware.interfaces.terms import Seen, Term, Terms
from motoric.hardware.measured import Array, Measured
from motoric.hardware.robot import RobotSpec


@dataclass(frozen=True)
class TermInterface(Interface):
    """Subclasses say what an action is: `action_high` and `command`; it is as far below zero.

    terms: what `observation` is made of
    gait_frequency: of the gait clock, Hz; its phase starts at memory["phase"], cycles
    measures: names in `METRICS`
    """

    robot: RobotSpec
    rate: float
    terms: tuple[Term, ...]
    goals: tuple[Part, ...] = field(default=(), kw_only=True)  # type: ignore[assignment]
    gait_frequency: float = field(default=0.0, kw_only=True)
    measures: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        for measure in self.measures:
            if measure not in METRICS:
                raise ValueError(f"metric {measure!r}: unknown, expected one of {list(METRICS)}")
        if not np.isfinite(self.gait_frequency):
            raise ValueError(f"gait_frequency: {self.gait_frequency}, expected a number of Hz")
        parts = {f"goal.{part.name}" for part in self.goals}
        needed = {t.name for t in self.terms if t.name.startswith("goal.")}
        needed |= {"goal.velocity"} if "velocity_error" in self.measures else set()
        for name in needed - parts:
            raise ValueError(
                f"{name}: needed, the goal has {', '.join(sorted(parts)) or 'no parts'}"
            )
        object.__setattr__(self, "_terms", Terms(self.terms))
        object.__setattr__(self, "_stand", self.robot.stand[None])

    def _check_joints(self, name: str, values: tuple[float, ...]) -> None:
        """Raise ValueError unless there is a number for each joint."""
        joints = len(self.robot.joints)
        if len(values) != joints:
            raise ValueError(
                f"{name}: {len(values)} numbers, {self.robot.name} has {joints} joints"
            )

    @property
    def action_low(self) -> Array:
        return -self.action_high

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return (Tensor("observation", (self._terms.size,)),)  # type: ignore[attr-defined]

    @property
    def sensors(self) -> tuple[str, ...]:
        names = (term.name.partition(".") for term in self.terms)
        return tuple(name for kind, _, name in names if kind == "sensor")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return tuple(METRICS[name][0] for name in self.measures)

    def begin(self, rows: int) -> Memory:
        return {"action": np.zeros((rows, len(self.action_low))), "phase": np.zeros(rows)}

    def phase(self, measured: Measured, memory: Memory) -> Array:
        """Of the gait clock, in cycles, [N]."""
        begun, time = memory["phase"], measured.time
        if len(time) == 1:  # plain numbers take a third of the time
            return np.array([(begun.item() + self.gait_frequency * time.item()) % 1.0])
        return (begun + self.gait_frequency * time) % 1.0

    def observe(self, measured: Measured, goal: Goal, memory: Memory) -> Observation:
        phase, stand = self.phase(measured, memory), self._stand  # type: ignore[attr-defined]
        seen = Seen(measured, goal, memory, stand, phase)
        return {"observation": self._terms.observe(seen)}  # type: ignore[attr-defined]

    def measure(self, measured: Measured, goal: Goal) -> dict[str, Array]:
        dt = 1.0 / self.rate
        return {name: METRICS[name][1](measured, goal, dt) for name in self.measures}
