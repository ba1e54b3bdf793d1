"""What stands between a policy's wish and the motors: filters, in order, the limits always last.

A filter is a pure function over [..., J] arrays, the same in training (N rows) and in the safety
supervisor (one robot). It may only make a command more cautious, and says `Fault` where none is
cautious enough. The order: barrier, reflex, limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from motoric.control.command import MotorCommand
from motoric.control.limits import Array


class Fault(Exception):
    """No command is safe here; one line says why. The robot is damped."""


class State(Protocol):
    """What a filter may read of measurements, [..., J]; `motoric.hardware.robot.RobotState` and
    `motoric.hardware.measured.Measured` both have it. Sensors come as they are: unlike the rest
    they are neither copied nor checked before."""

    @property
    def position(self) -> Array: ...

    @property
    def velocity(self) -> Array: ...

    @property
    def torque(self) -> Array: ...

    @property
    def orientation(self) -> Array: ...

    @property
    def angular_velocity(self) -> Array: ...

    @property
    def sensors(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Context:
    """previous: the command sent last, of which a filter's own change must not jump; dt: s since
    then, at most one period of the policy."""

    previous: MotorCommand
    dt: float


class Filter(Protocol):
    """Called once a tick. `name` is used in faults and in the log; `deadline` is the time it may
    take, s: one that takes longer is a fault, as is one that raises or gives what is not finite.
    """

    name: str
    deadline: float

    def __call__(self, state: State, wish: MotorCommand, context: Context) -> MotorCommand: ...
