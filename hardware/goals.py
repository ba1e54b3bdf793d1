"""Goals: what a policy is asked for, as named arrays with bounds and units.

A goal is a dict of arrays, one per `Part`, each leading with N. Where it comes from (fixed,
keyboard, gamepad, file, network, text) is `motoric.hardware.sources`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Goal = dict[str, NDArray[Any]]

MOST = 2**16  # numbers of a part, bytes of a text
TEXT = "text"  # unit of a part that is typed: its array holds bytes of UTF-8, zero-filled


@dataclass(frozen=True)
class Part:
    """One named array of a goal.

    names: of its numbers, in order; units: of each; low, high: what the policy was trained for.
    A text has the unit `TEXT`, a single name, and `high` bytes at most.
    halts: a robot asked for `rest` stands still, so that it is eased there before it lies down
    """

    name: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    halts: bool = False

    def __post_init__(self) -> None:
        for key in ("names", "units", "low", "high"):
            object.__setattr__(self, key, tuple(getattr(self, key)))
        sizes = {len(self.names), len(self.units), len(self.low), len(self.high)}
        if sizes != {len(self.names)} or not self.names:
            raise ValueError(f"goal {self.name}: names, units, low and high differ in length")
        if max(len(self.names), self.high[0] if self.is_text else 0) > MOST:
            raise ValueError(f"goal {self.name}: has more than {MOST} numbers or bytes")
        for name, low, high in zip(self.names, self.low, self.high, strict=True):
            if not (np.isfinite([low, high]).all() and low <= high):
                raise ValueError(f"goal {self.name}: {name} from {low} to {high}")

    @property
    def is_text(self) -> bool:
        return self.units == (TEXT,)

    @property
    def shape(self) -> tuple[int, ...]:
        """Without N."""
        return (int(self.high[0]),) if self.is_text else (len(self.names),)

    @property
    def rest(self) -> NDArray[Any]:
        """As near to zero (nothing asked for, no text) as the policy was trained."""
        if self.is_text:
            return np.zeros(self.shape, np.uint8)
        return np.clip(0.0, self.low, self.high)

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value (numbers [k], or a str), or None."""
        if self.is_text:
            if not isinstance(value, str):
                return f"{self.name}: {value!r}, expected a text"
            size = len(value.encode(errors="replace"))
            return None if size <= self.high[0] else (
                f"{self.name}: {size} bytes, expected at most {self.high[0]:.0f}"
            )  # fmt: skip
        try:
            numbers = np.asarray(value)
        except ValueError:  # lists of different lengths
            numbers = np.asarray(None)
        if numbers.dtype.kind not in "fiu":
            return f"{self.name}: {value!r}, expected [{', '.join(self.names)}]"
        if numbers.shape != self.shape or not np.isfinite(numbers).all():
            return f"{self.name}: {value}, expected finite numbers [{', '.join(self.names)}]"
        for name, v, low, high in zip(self.names, numbers, self.low, self.high, strict=True):
            if not low <= v <= high:
                return f"{self.name}: {name} {v:g}, the policy was trained for {low:g} to {high:g}"
        return None

    def array(self, value: Any) -> NDArray[Any]:
        """A checked value as an array without N. Raises ValueError."""
        problem = self.problem(value)
        if problem is not None:
            raise ValueError(f"goal.{problem}")
        if self.is_text:
            text = np.frombuffer(value.encode(errors="replace"), np.uint8)
            return np.pad(text, (0, self.shape[0] - len(text)))
        return np.asarray(value, np.float64)


def text_of(value: NDArray[Any]) -> str:
    """The text in an array of a text part."""
    return bytes(np.asarray(value, np.uint8)).rstrip(b"\0").decode(errors="replace")


def at_rest(parts: tuple[Part, ...], rows: int) -> Goal:
    """Nothing asked for, of N rows."""
    return {p.name: np.repeat(p.rest[None], rows, axis=0) for p in parts}


def checked(parts: tuple[Part, ...], values: Any, rows: int = 1) -> Goal:
    """A user's goal for N rows: a mapping by part, or the value itself where there is one part.

    Parts that are left out are at rest. Raises ValueError naming the part, the value and what
    would be right.
    """
    if not isinstance(values, Mapping):
        if len(parts) != 1:
            names = ", ".join(p.name for p in parts) or "none"
            raise ValueError(f"goal: {values!r}, expected a mapping with the parts {names}")
        values = {parts[0].name: values}
    known = {p.name: p for p in parts}
    for name in values:
        if name not in known:
            raise ValueError(f"goal.{name}: no such part, expected {', '.join(known) or 'none'}")
    goal = at_rest(parts, rows)
    for name, value in values.items():
        goal[str(name)] = np.repeat(known[name].array(value)[None], rows, axis=0)
    return goal
