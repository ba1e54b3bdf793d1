"""Typed data classes from JSON values, and back: every field of the type its annotation says.

`read(kind, value, where)` builds a value of a type from what `json` gives; one line names the key,
the value and what would be right. Types: str, int, float, bool, X | None, tuples, dict[str, X],
arrays of numbers, Any, and data classes of these, whose `__post_init__` says what is in range.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

T = TypeVar("T")


def read(kind: Any, value: Any, where: str) -> Any:
    """A value of type `kind`. Raises ValueError beginning with `where`."""
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in get_args(kind):
            return None
        (kind,) = (k for k in get_args(kind) if k is not type(None))
        return read(kind, value, where)
    if origin is tuple:
        return _tuple(get_args(kind), value, where)
    if origin is dict:
        return {k: read(get_args(kind)[1], v, f"{where}.{k}") for k, v in _dict(value, where)}
    if origin is np.ndarray:
        return np.array(_tuple((float, ...), value, where))
    if dataclasses.is_dataclass(kind):
        return read_fields(kind, value, where)  # type: ignore[type-var]
    return _scalar(kind, value, where)


def read_fields(
    kind: type[T], value: Any, where: str = "", given: Mapping[str, Any] | None = None
) -> T:
    """A data class from a JSON object; `given` fields are taken as they are. Raises ValueError."""
    given = given or {}
    known = {key: value for key, value in _fields(kind).items() if key not in given}
    found, prefix = dict(given), f"{where}." if where else ""
    for key, item in _dict(value, where or kind.__name__):
        if key not in known:
            raise ValueError(f"{prefix}{_short(key)}: unknown, expected one of {', '.join(known)}")
        found[key] = read(known[key][0], item, prefix + key)
    for key, (_, needed) in known.items():
        if needed and key not in found:
            raise ValueError(f"{prefix}{key}: is missing")
    try:
        return kind(**found)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{where}: {error}" if where else str(error)) from None


def plain(value: Any) -> Any:
    """Data classes and arrays as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return value


@cache
def _fields(kind: type) -> dict[str, tuple[Any, bool]]:
    """Type of each field, and whether it has no default."""
    hints, none = get_type_hints(kind), dataclasses.MISSING
    return {
        f.name: (hints[f.name], f.default is none and f.default_factory is none)
        for f in dataclasses.fields(kind)
        if f.init
    }


def _tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{where}: {_short(value)}, expected a list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise ValueError(f"{where}: {len(value)} values, expected {len(kinds)}")
    pairs = zip(kinds, value, strict=True)
    return tuple(read(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(pairs))


def _dict(value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: {_short(value)}, expected an object")
    return value.items()


_NAMES = {str: "a text", int: "an integer", float: "a finite number", bool: "true or false"}


def _scalar(kind: type, value: Any, where: str) -> Any:
    allowed = (int, float) if kind is float else (kind,)
    if kind not in _NAMES:
        raise TypeError(f"{where}: no values of type {kind} in JSON")
    fits = isinstance(value, allowed) and (kind is bool) == isinstance(value, bool)
    if fits and kind is float:
        fits = abs(value) < 1e300 if isinstance(value, int) else math.isfinite(value)
    if not fits:
        raise ValueError(f"{where}: {_short(value)}, expected {_NAMES[kind]}")
    return kind(value)


def _short(value: Any) -> str:
    """For a message: a line of at most 60 characters."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) > 10**40:
        return "a huge number"
    text = repr(value if not isinstance(value, str) else value[:60])
    return text if len(text) <= 60 else f"{text[:57]}..."
