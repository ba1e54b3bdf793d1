"""Where each joint is on its servo: recorded by hand, kept in a file."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from motoric.hardware.dynamixel.joints import Joint
from motoric.hardware.dynamixel.models import ANGLE, MODES, RESOLUTION
from motoric.hardware.robot import RobotError

if TYPE_CHECKING:
    from motoric.hardware.dynamixel.bus import Bus

FORMAT = "motoric-calibration/1"
Show = Callable[[dict[str, tuple[float, float, float]]], None]


@dataclass(frozen=True)
class Calibrated:
    """Where a joint is on its servo: counts at zero, and at the ends of its range, one turn long
    or less; zero within the first turn."""

    id: int
    model: str
    homing: int
    direction: int
    lower: int
    upper: int


def save_calibration(path: Path, name: str, found: dict[str, Calibrated]) -> None:
    """Write a calibration in place of any older one; a crash leaves the old or the new."""
    joints = {joint: dataclasses.asdict(values) for joint, values in found.items()}
    text = json.dumps({"format": FORMAT, "robot": name, "joints": joints}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, new = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(new, 0o644)
        os.replace(new, path)
    except BaseException:
        Path(new).unlink(missing_ok=True)
        raise


def load_calibration(path: Path, name: str, joints: tuple[Joint, ...]) -> tuple[Calibrated, ...]:
    """Read a calibration and check it against the configured joints. Raises RobotError."""
    at = f"calibration {path}"
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise RobotError(f"{at} is missing: make it with motoric calibrate robot={name}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RobotError(f"{at} can't be read: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RobotError(f"{at}: not a calibration, expected format {FORMAT!r}")
    if content.get("robot") != name:
        raise RobotError(f"{at}: is of robot {content.get('robot')!r}, expected {name!r}")
    entries = content.get("joints")
    names = [joint.name for joint in joints]
    if not isinstance(entries, dict) or list(entries) != names:
        got = list(entries) if isinstance(entries, dict) else entries
        raise RobotError(f"{at}: joints {got}, expected {names}")
    result = []
    for joint in joints:
        entry, where = entries[joint.name], f"{at}: {joint.name}"
        keys = [field.name for field in dataclasses.fields(Calibrated)]
        if not isinstance(entry, dict) or sorted(entry) != sorted(keys):
            raise RobotError(f"{where}: expected the keys {', '.join(keys)}")
        for key in ("homing", "direction", "lower", "upper"):
            if isinstance(entry[key], bool) or not isinstance(entry[key], int):
                raise RobotError(f"{where}.{key}: {entry[key]!r}, expected a whole number")
        one = Calibrated(**entry)
        for key, value, want in (
            ("id", one.id, joint.id), ("model", one.model, joint.model.name),
            ("direction", one.direction, joint.direction),
        ):  # fmt: skip
            if value != want:
                raise RobotError(f"{where}.{key}: {value!r}, the configuration has {want!r}")
        problem = calibration_problem(joint, one)
        if problem is not None:
            raise RobotError(f"{where}: {problem}")
        result.append(one)
    return tuple(result)


def calibration_problem(joint: Joint, one: Calibrated) -> str | None:
    """What is wrong with a calibration, or None."""
    if not 0 <= one.homing < RESOLUTION:
        return f"homing {one.homing}, expected 0 to {RESOLUTION - 1}"
    if not 0 < one.upper - one.lower <= RESOLUTION:
        return f"range {one.lower} to {one.upper} counts, expected at most one turn"
    ends = sorted(one.direction * (end - one.homing) * ANGLE for end in (one.lower, one.upper))
    if joint.lower < ends[0] or joint.upper > ends[1]:
        return (
            f"moved from {ends[0]:.3f} to {ends[1]:.3f} rad, which does not reach its limits "
            f"{joint.lower:.3f} to {joint.upper:.3f}"
        )
    needed = [one.homing + one.direction * q / ANGLE for q in (joint.lower, joint.upper)]
    if joint.mode == "position" and not (min(needed) >= 0 and max(needed) <= RESOLUTION - 1):
        return "its limits cross the end of the servo's turn, choose mode extended_position"
    return None


def record_calibration(
    bus: Bus,
    joints: tuple[Joint, ...],
    ready: Callable[[], None],
    finished: Callable[[], bool],
    show: Show,
) -> dict[str, Calibrated]:
    """Zero and range of every joint, moved by hand with torque off.

    ready: returns when the chain stands in its zero pose; finished: whether every joint has been
    moved through its range; show: gets lowest, present and highest position so far, rad.
    Raises RobotError where a range is not that of the limits.
    """
    for joint in joints:  # counts go on over the end of a turn
        for name, value in (
            ("drive_mode", 0), ("operating_mode", MODES["extended_position"]),
            ("homing_offset", 0), ("startup_configuration", 0),
        ):  # fmt: skip
            bus.set(joint.id, name, value)
    ready()
    ids, sign = [joint.id for joint in joints], np.array([joint.direction for joint in joints])
    zero = np.array([bus.read(id, "present_position") for id in ids])
    low, high = zero.copy(), zero.copy()
    while True:
        last = finished()
        counts = np.array([bus.read(id, "present_position") for id in ids])
        low, high = np.minimum(low, counts), np.maximum(high, counts)
        ends = [sign * (c - zero) * ANGLE for c in (low, counts, high)]
        lowest, highest = np.minimum(ends[0], ends[2]), np.maximum(ends[0], ends[2])
        rows = zip(joints, lowest, ends[1], highest, strict=True)
        show({j.name: (float(a), float(b), float(c)) for j, a, b, c in rows})
        if last:
            break
        time.sleep(0.02)
    turns = zero // RESOLUTION * RESOLUTION
    found = {}
    for joint, homing, lower, upper in zip(
        joints, zero - turns, low - turns, high - turns, strict=True
    ):
        one = Calibrated(
            joint.id, joint.model.name, int(homing), joint.direction, int(lower), int(upper)
        )
        problem = calibration_problem(joint, one)
        if problem is not None:
            raise RobotError(f"{joint.label}: {problem}")
        found[joint.name] = one
    return found
