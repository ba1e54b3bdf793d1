"""A robot's spec as a JSON file: how a simulated robot is told in another process what it is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from motoric.hardware.fields import plain, read_fields
from motoric.hardware.robot import RobotSpec

LARGEST = 1 << 20  # bytes


def write_spec(spec: RobotSpec, path: str | Path) -> None:
    """The path of its model, where it is one, becomes absolute."""
    if spec.model is not None and Path(spec.model).name != spec.model:
        spec = dataclasses.replace(spec, model=str(Path(spec.model).resolve()))
    Path(path).write_text(json.dumps(plain(spec), indent=1))


def read_spec(path: str | Path) -> RobotSpec:
    """Raises ValueError naming the file, and what in it is wrong."""
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if len(data) > LARGEST:
        raise ValueError(f"{path}: more than {LARGEST} bytes, no spec of a robot is that large")
    try:
        return read_fields(RobotSpec, json.loads(data))
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply") from None
    except ValueError as error:  # not JSON, not text, or no spec
        raise ValueError(f"{path}: {error}") from None
