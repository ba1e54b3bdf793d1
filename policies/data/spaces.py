"""Spaces of observations and actions as JSON, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

TYPES = ("float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")


def to_json(space: spaces.Space) -> dict[str, Any]:
    """Raises ValueError for a kind of space that isn't kept."""
    if isinstance(space, spaces.Box):
        low, high = _bounds(space.low), _bounds(space.high)
        kept = {"shape": list(space.shape), "dtype": str(space.dtype), "low": low, "high": high}
        return {"kind": "box"} | kept
    if isinstance(space, spaces.Discrete):
        return {"kind": "discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "multi_discrete", "nvec": space.nvec.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "multi_binary", "shape": list(space.shape)}
    if isinstance(space, spaces.Dict):
        return {"kind": "dict", "of": {name: to_json(inner) for name, inner in space.items()}}
    raise ValueError(f"a {type(space).__name__} can't be kept in a data set")


def from_json(value: Any) -> spaces.Space:
    """Raises ValueError or KeyError for what `to_json` has not made."""
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is no space")
    kind = value["kind"]
    if kind == "box":
        dtype = np.dtype(_known(value["dtype"]))
        shape = tuple(int(n) for n in value["shape"])
        low, high = (_array(value[b], shape, dtype, s) for b, s in (("low", -1), ("high", 1)))
        return spaces.Box(low, high, shape, dtype.type)
    if kind == "discrete":
        return spaces.Discrete(int(value["n"]), start=int(value["start"]))
    if kind == "multi_discrete":
        return spaces.MultiDiscrete(np.array(value["nvec"], np.int64))
    if kind == "multi_binary":
        shape = [int(n) for n in value["shape"]]
        return spaces.MultiBinary(shape if len(shape) > 1 else shape[0])
    if kind == "dict":
        return spaces.Dict({str(name): from_json(inner) for name, inner in value["of"].items()})
    raise ValueError(f"{kind!r} is no kind of space")


def _known(name: Any) -> str:
    if name not in TYPES:
        raise ValueError(f"type {name!r}, expected one of {', '.join(TYPES)}")
    return name


def _bounds(values: np.ndarray) -> Any:
    """One number where all are the same, else a list; null where there is no bound."""
    flat = [v if np.isfinite(v) else None for v in values.ravel().tolist()]
    return flat[0] if len(set(flat)) == 1 else flat


def _array(bounds: Any, shape: tuple[int, ...], dtype: np.dtype, sign: int) -> np.ndarray:
    def number(bound: Any) -> Any:
        return sign * np.inf if bound is None else bound

    if not isinstance(bounds, list):
        return np.full(shape, number(bounds), dtype)
    return np.array([number(b) for b in bounds], dtype).reshape(shape)
