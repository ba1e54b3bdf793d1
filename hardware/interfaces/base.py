"""The seam between a policy and a robot: what it sees, and how its output becomes a command.

One pair of pure functions over N rows, `observe` and `command`, is used by the task it is trained
on, by evaluation, viewer and robot. It travels in the bundle by name and parameters. What it must
remember is its memory: named arrays, handed in and given back.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from motoric.control.command import MotorCommand
from motoric.control.filters import Filter
from motoric.hardware.fields import plain, read_fields
from motoric.hardware.goals import Goal, Part
from motoric.hardware.measured import Array, Measured
from motoric.hardware.robot import RobotSpec
from numpy.typing import NDArray

Memory = dict[str, NDArray[Any]]
Run = Callable[[str, Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]  # `Bundle.run`
Observation = dict[str, NDArray[Any]]  # by the names of `Interface.inputs`


@dataclass(frozen=True)
class Tensor:
    """An input or output of a network: shape without the batch axis, numpy's name of the type."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    TYPES: ClassVar[tuple[str, ...]] = (
        "float32", "float64", "float16", "uint8", "int8", "int16", "int32", "int64", "bool",
    )  # fmt: skip
    MOST: ClassVar[int] = 2**26  # numbers in one row

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= 200:
            raise ValueError(f"tensor {self.name[:20]!r}: expected a name of 1 to 200 characters")
        if self.dtype not in self.TYPES:
            raise ValueError(f"tensor {self.name}: type {self.dtype!r}, not of {self.TYPES}")
        size = math.prod(self.shape)
        if len(self.shape) > 8 or min(self.shape, default=1) < 1 or size > self.MOST:
            raise ValueError(f"tensor {self.name}: shape {self.shape} is not allowed")


@dataclass(frozen=True)
class Metric:
    """A number that says how well a step went; printed, logged and plotted under its name.

    unit: "" for none; over: how steps become an episode: mean, max, sum, last or any (0 or 1)
    text: a few words for tables
    """

    name: str
    unit: str
    over: str = "mean"
    text: str = ""

    OVER: ClassVar[tuple[str, ...]] = ("mean", "max", "sum", "last", "any")

    def __post_init__(self) -> None:
        if self.over not in self.OVER:
            raise ValueError(f"metric {self.name}: over {self.over!r}, not of {self.OVER}")

    def total(self, steps: Sequence[float] | Array) -> float:
        """Of the steps of an episode, [T]: NaN where there are none to take a mean, max or last
        of, or where one of them isn't known."""
        values = np.asarray(steps, np.float64)
        if self.over == "any":
            return float((values > 0).any())
        if self.over == "sum":
            return float(values.sum())
        if not len(values):
            return float("nan")
        if self.over == "last":
            return float(values[-1])
        return float(values.mean() if self.over == "mean" else values.max())


class Interface(ABC):
    """Subclasses are frozen dataclasses: `robot`, `rate`, and fields that JSON can hold.

    name: under which it is registered (`motoric.hardware.registry`)
    robot: that is commanded; rate: Hz at which actions are carried out
    goals: parts of the goal; inputs: what `observe` gives
    action_low, action_high [A]: bounds of the action; beyond them it is clipped
    sensors: names in `Measured.sensors` that it reads
    metrics: what `measure` gives
    """

    name: ClassVar[str]
    robot: RobotSpec
    rate: float

    @property
    def goals(self) -> tuple[Part, ...]:
        return ()

    @property
    @abstractmethod
    def inputs(self) -> tuple[Tensor, ...]: ...

    @property
    @abstractmethod
    def action_low(self) -> Array: ...

    @property
    @abstractmethod
    def action_high(self) -> Array: ...

    @property
    def sensors(self) -> tuple[str, ...]:
        return ()

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return ()

    def begin(self, rows: int) -> Memory:
        """Memory of N rows that begin; every array leads with N."""
        return {}

    @abstractmethod
    def observe(self, measured: Measured, goal: Goal, memory: Memory) -> Observation:
        """What the policy sees, each [N, ...]; may be asked any number of times."""

    @abstractmethod
    def command(
        self, action: Array, measured: Measured, goal: Goal, memory: Memory
    ) -> tuple[MotorCommand, Memory]:
        """The command of an action [N, A] that is carried out, and the memory after it.

        Called once for each action; a period without one leaves the memory as it is: what goes
        by time is computed from `measured.time`.
        """

    def filters(self, run: Run) -> tuple[Filter, ...]:
        """What stands between the policy's wish and the limits, on the robot and in training.

        run: a network of the bundle by name, where a filter needs one; for one thread at a time
        """
        return ()

    def measure(self, measured: Measured, goal: Goal) -> dict[str, Array]:
        """The metrics of a step, each [N]; NaN where they can't be known."""
        return {}

    def parameters(self) -> dict[str, Any]:
        """Its fields as JSON values, without robot and rate; `make` takes them back."""
        return {
            f.name: plain(getattr(self, f.name))
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if f.init and f.name not in ("robot", "rate")
        }

    @classmethod
    def make(cls, robot: RobotSpec, rate: float, parameters: dict[str, Any]) -> Self:
        """The interface of a bundle. Raises ValueError for what doesn't fit; a subclass whose
        fields are more than `motoric.hardware.fields` can read says here how to make them."""
        return read_fields(cls, parameters, given={"robot": robot, "rate": rate})
