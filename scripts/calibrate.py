"""Record zero and range of a chain of servos by hand: `motoric calibrate …`."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

from motoric.configs.commands import Calibrate
from motoric.hardware.drivers import make_robot
from motoric.hardware.dynamixel.robot import DynamixelRobot
from motoric.hardware.robot import RobotError
from motoric.scripts.config import UserError

Ranges = dict[str, tuple[float, float, float]]


def calibrate_robot(settings: Calibrate, say: Callable[[str], None] = print) -> Path:
    """Calibrate and return the file; with `seconds`, without asking."""
    try:
        robot = make_robot(settings.robot.driver, **settings.robot.options)
    except (ValueError, TypeError) as error:
        raise UserError(f"robot: {error}") from None
    if not isinstance(robot, DynamixelRobot):
        raise UserError(f"robot: {settings.robot.name!r} needs no calibration")
    terminal = sys.stdin is not None and sys.stdin.isatty()
    if settings.seconds is None and not terminal:
        raise UserError("seconds: missing, without a terminal to press Enter on give seconds=...")
    ranges: Ranges = {}
    until = 0.0

    def ready() -> None:
        nonlocal until
        if settings.seconds is None:
            say("Torque is off. Hold the arm in its zero pose (all joints 0 rad), press Enter.")
            sys.stdin.readline()
            say("Move every joint by hand from end to end, then press Enter.")
        else:
            say(f"This pose is zero. Move every joint from end to end, {settings.seconds:g} s.")
            until = time.monotonic() + settings.seconds

    def finished() -> bool:
        if settings.seconds is not None:
            return time.monotonic() >= until
        pressed = bool(select.select([sys.stdin], [], [], 0)[0])
        if pressed:
            sys.stdin.readline()
        return pressed

    shown = 0.0

    def show(now: Ranges) -> None:
        nonlocal shown
        ranges.update(now)
        if sys.stdout.isatty() and time.monotonic() - shown > 0.2:
            shown = time.monotonic()
            text = "  ".join(
                f"{name} {low:.2f}..{high:.2f}" for name, (low, _, high) in now.items()
            )
            print(f"\r{text}\033[K", end="", flush=True)

    try:
        path = robot.calibrate(ready, finished, show)
    except (RobotError, OSError) as error:
        raise UserError(f"{error}".split("\n")[0]) from None
    finally:
        if ranges and sys.stdout.isatty():
            print()
    for name, (low, _, high) in ranges.items():
        say(f"  {name:<15} {low:.3f} to {high:.3f} rad")
    say(f"calibration: {path}")
    return path


def run(settings: Calibrate, say: Callable[[str], None]) -> int:
    """`motoric calibrate`."""
    calibrate_robot(settings, say)
    return 0


if __name__ == "__main__":
    from motoric.scripts.cli import main

    sys.exit(main(["calibrate", *sys.argv[1:]]))
