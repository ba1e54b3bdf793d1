"""What a configuration is made of: fields with a default, a line for `--help`, and what is allowed.

A configuration is a dataclass whose fields are made by `doc`. One whose keys depend on each other
has a method `settle` too.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Range:
    """What a number (or each number of a list) may be; None: no bound."""

    least: float | None = None
    above: float | None = None
    most: float | None = None

    def problem(self, value: float) -> str | None:
        if not math.isfinite(value):
            return "expected a finite number"
        if self.least is not None and value < self.least:
            return f"expected at least {self.least}"
        if self.above is not None and value <= self.above:
            return f"expected more than {self.above}"
        if self.most is not None and value > self.most:
            return f"expected at most {self.most}"
        return None


SHARE = Range(least=0, most=1)
FACTOR = Range(above=0, most=1)
POSITIVE = Range(above=0)
COUNT = Range(least=1)
NOT_NEGATIVE = Range(least=0)


def doc(default: Any, text: str, allowed: Range | tuple[str | None, ...] | None = None) -> Any:
    """A field with a default, a line for `--help`, and what its value may be."""
    metadata = {"help": text, "allowed": allowed}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def check(config: Any, prefix: str = "") -> None:
    """Raise ValueError, naming the key, for a value that is not allowed.

    `settle` of a configuration is called once its own values are: it compares keys with each
    other, passes on what one means for another, and raises ValueError too.
    """
    fields = dataclasses.fields(config)
    for name in vars(config).keys() - {item.name for item in fields}:  # Hydra lets `++` add them
        raise ValueError(f"{prefix}{name}: no such key")
    for item in fields:
        key, value = prefix + item.name, getattr(config, item.name)
        allowed = item.metadata.get("allowed")
        if dataclasses.is_dataclass(value):
            check(value, f"{key}.")
        elif isinstance(allowed, tuple):
            if value not in allowed:
                names = ", ".join("null" if name is None else name for name in allowed)
                raise ValueError(f"{key}: {value!r}, expected one of {names}")
        else:
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, int | float) and not isinstance(number, bool):
                    problem = (allowed or Range()).problem(number)
                    if problem is not None:
                        raise ValueError(f"{key}: {value}, {problem}")
    if hasattr(config, "settle"):
        config.settle()
