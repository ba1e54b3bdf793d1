"""The robots motoric knows, and the drivers they can be deployed through. A new one adds a line."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from motoric.hardware.go2 import GO2
from motoric.hardware.robot import Robot, RobotSpec

# by the name that bundles and logs use
ROBOTS: dict[str, RobotSpec] = {GO2.name: GO2}

# by the name that configurations use:
# module and function (or class) that makes the robot; imported only where it is used
DRIVERS: dict[str, tuple[str, str]] = {
    "sim_go2": ("motoric.hardware.sim_robot", "SimRobot"),
    "remote": ("motoric.hardware.remote_robot", "RemoteRobot"),
    "dynamixel": ("motoric.hardware.dynamixel", "DynamixelRobot"),
}


def make_robot(driver: str, **options: Any) -> Robot:
    """A robot that is not yet connected. Raises ValueError for an unknown driver."""
    if driver not in DRIVERS:
        raise ValueError(f"driver {driver!r} is unknown, expected one of {', '.join(DRIVERS)}")
    module, name = DRIVERS[driver]
    make: Callable[..., Robot] = getattr(import_module(module), name)
    return make(**options)
