"""What a policy sees, as named terms computed from measured arrays.

One function, `observe`, serves training (N = thousands), the viewer and the robot (N = 1): the
list of terms travels in the bundle, so the robot computes what the policy was trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from motoric.hardware.goals import Goal
from motoric.hardware.interfaces.base import Memory
from motoric.hardware.measured import Array, Measured
from numpy.typing import NDArray

MOST = 2**20  # numbers of an observation
STILL = 0.05  # m/s, rad/s; a smaller velocity goal asks for standing


@dataclass
class Seen:
    """What a term may be made of, N rows.

    stand: the robot's, rad, [1, J]; phase [N]: of the gait clock, in cycles
    """

    measured: Measured
    goal: Goal
    memory: Memory
    stand: Array
    phase: Array


@dataclass(frozen=True)
class Term:
    """A named slice of the observation: `size` numbers, multiplied by `scale`.

    name: one of `TERMS`, or `goal.PART` or `sensor.NAME` for those numbers as they are
    """

    name: str
    size: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.size <= MOST or not np.isfinite(self.scale):
            raise ValueError(
                f"observation term {self.name!r}: size {self.size}, scale {self.scale}"
            )


def _columns(rows: Array) -> Any:
    """The columns of [N, k]; a single row as plain numbers, whose arithmetic takes a tenth."""
    return rows[0].tolist() if len(rows) == 1 else rows.T


def _rows(columns: list[Any]) -> Array:
    """[N, k] from what was computed of columns."""
    if isinstance(columns[0], np.ndarray):
        return np.array(columns).T
    return np.array([columns])


def projected_gravity(orientation: Array) -> Array:
    """Unit vector of gravity in the base frame, [N, 3]; (0, 0, -1) when upright."""
    w, x, y, z = _columns(orientation)
    return _rows([2 * (w * y - x * z), -2 * (w * x + y * z), 2 * (x * x + y * y) - 1])


def is_moving(velocity: Array) -> NDArray[np.bool_]:
    """Whether a velocity goal asks for more than standing, [N]."""
    return np.atleast_1d(_is_moving(velocity))


def _is_moving(velocity: Array) -> Any:
    forward, left, turn = _columns(velocity)
    return (abs(forward) > STILL) | (abs(left) > STILL) | (abs(turn) > STILL)


def gait_clock(seen: Seen) -> Array:
    """Sine and cosine of the gait phase, zero when standing is asked for, [N, 2]."""
    phase = seen.phase.item() if len(seen.phase) == 1 else seen.phase
    angle, moving = 2 * np.pi * phase, _is_moving(seen.goal["velocity"])
    return _rows([np.sin(angle) * moving, np.cos(angle) * moving])


TERMS: dict[str, Callable[[Seen], Array]] = {
    "angular_velocity": lambda s: s.measured.angular_velocity,
    "projected_gravity": lambda s: projected_gravity(s.measured.orientation),
    "joint_position": lambda s: s.measured.position - s.stand,
    "joint_velocity": lambda s: s.measured.velocity,
    "joint_torque": lambda s: s.measured.torque,
    "action": lambda s: s.memory["action"],
    "gait_clock": gait_clock,
}


def observation_size(terms: tuple[Term, ...]) -> int:
    """Numbers of an observation made of these."""
    return sum(term.size for term in terms)


class Terms:
    """A list of terms, ready to be computed; size: of the observation."""

    def __init__(self, terms: tuple[Term, ...]) -> None:
        self._terms, self._functions = terms, [function_of(term.name) for term in terms]
        self.size = observation_size(terms)
        if not 0 < self.size <= MOST:
            raise ValueError(f"terms: {self.size} numbers, expected 1 to {MOST}")
        sizes = [term.size for term in terms]
        self._scales = np.repeat([float(term.scale) for term in terms], sizes)[None]
        self._fits = False

    def observe(self, seen: Seen) -> NDArray[np.float32]:
        """The observation [N, size]. Raises ValueError naming a term that doesn't fit."""
        parts = [function(seen) for function in self._functions]
        if not self._fits:  # a term's size doesn't change
            self._check(parts)
        return (np.concatenate(parts, axis=-1) * self._scales).astype(np.float32)

    def _check(self, parts: list[Array]) -> None:
        for term, part in zip(self._terms, parts, strict=True):
            if part.ndim != 2 or part.shape[1] != term.size:
                raise ValueError(
                    f"observation term {term.name!r}: size {part.shape[1:]}, expected {term.size}"
                )
        self._fits = True


def function_of(name: str) -> Callable[[Seen], Array]:
    """What computes a term. Raises ValueError for an unknown one."""
    kind, dot, key = name.partition(".")
    if dot and kind == "goal":
        return lambda seen: seen.goal[key]
    if dot and kind == "sensor":
        return lambda seen: np.asarray(seen.measured.sensors[key]).reshape(len(seen.phase), -1)
    if name not in TERMS:
        raise ValueError(
            f"observation term {name!r}: unknown, expected goal.PART, sensor.NAME or one of "
            f"{', '.join(TERMS)}"
        )
    return TERMS[name]
