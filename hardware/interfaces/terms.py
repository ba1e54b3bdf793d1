"""What a policy sees, as named terms computed from measured arrays.

One function, `observe`, serves training (N = thousands), the viewer and the robot (N = 1): the
list of terms travels in the bundle, so the robot computes what the policy was trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STILL = 0.05  # m/s, rad/s; a smaller velocity command asks for standing


@dataclass
class Measured:
    """Batched inputs of the observation terms; every array leads with N.

    orientation: base in the world, quaternion (w, x, y, z), [N, 4]
    angular_velocity: of the base, in the base frame, rad/s, [N, 3]
    position, velocity: joints, rad, rad/s, [N, J]
    stand: joint positions that count as zero, rad, [J]
    action: the last action of the policy, [N, A]
    command: what the operator wants: forward m/s, left m/s, turn left rad/s, [N, 3]
    phase: of the gait clock, in cycles, [N]
    """

    orientation: Array
    angular_velocity: Array
    position: Array
    velocity: Array
    stand: Array
    action: Array
    command: Array
    phase: Array


@dataclass(frozen=True)
class Term:
    """A named slice of the observation: `size` numbers, multiplied by `scale`."""

    name: str
    size: int
    scale: float = 1.0


def _columns(rows: Array) -> Any:
    """The columns of [N, k]; a single row as plain numbers, whose arithmetic takes a tenth."""
    return rows[0].tolist() if len(rows) == 1 else rows.T


def _rows(columns: list[Any]) -> Array:
    """[N, k] from what was computed of columns."""
    return np.array(columns).T.reshape(-1, len(columns))


def projected_gravity(orientation: Array) -> Array:
    """Unit vector of gravity in the base frame, [N, 3]; (0, 0, -1) when upright."""
    w, x, y, z = _columns(orientation)
    return _rows([2 * (w * y - x * z), -2 * (w * x + y * z), 2 * (x * x + y * y) - 1])


def is_moving(command: Array) -> NDArray[np.bool_]:
    """Whether a velocity command asks for more than standing, [N]."""
    return np.atleast_1d(_is_moving(command))


def _is_moving(command: Array) -> Any:
    forward, left, turn = _columns(command)
    return (abs(forward) > STILL) | (abs(left) > STILL) | (abs(turn) > STILL)


def gait_clock(measured: Measured) -> Array:
    """Sine and cosine of the gait phase, zero when standing is commanded, [N, 2]."""
    (phase,) = _columns(measured.phase[:, None])
    angle, moving = 2 * np.pi * phase, _is_moving(measured.command)
    return _rows([np.sin(angle) * moving, np.cos(angle) * moving])


TERMS: dict[str, Callable[[Measured], Array]] = {
    "angular_velocity": lambda m: m.angular_velocity,
    "projected_gravity": lambda m: projected_gravity(m.orientation),
    "joint_position": lambda m: m.position - m.stand,
    "joint_velocity": lambda m: m.velocity,
    "action": lambda m: m.action,
    "command": lambda m: m.command,
    "gait_clock": gait_clock,
}


def observation_size(terms: tuple[Term, ...]) -> int:
    return sum(term.size for term in terms)


def observe(terms: tuple[Term, ...], measured: Measured) -> NDArray[np.float32]:
    """The observation [N, sum of sizes]. Raises ValueError naming a term that doesn't fit."""
    functions, scales = _plan(terms)
    parts = []
    for term, function in zip(terms, functions, strict=True):
        value = function(measured)
        if value.shape[-1] != term.size:
            raise ValueError(
                f"observation term {term.name!r}: size {value.shape[-1]}, expected {term.size}"
            )
        parts.append(value)
    return (np.concatenate(parts, axis=-1) * scales).astype(np.float32)


@cache
def _plan(terms: tuple[Term, ...]) -> tuple[list[Callable[[Measured], Array]], Array]:
    """The function of each term, and what each number of the observation is multiplied by."""
    for term in terms:
        if term.name not in TERMS:
            raise ValueError(
                f"observation term {term.name!r}: unknown, expected one of {', '.join(TERMS)}"
            )
    scales = np.repeat([float(term.scale) for term in terms], [term.size for term in terms])
    return [TERMS[term.name] for term in terms], scales
