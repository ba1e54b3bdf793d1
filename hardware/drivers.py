"""The robots motoric knows, and the drivers they can be deployed through. A new one adds a line."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from motoric.hardware.robot import Robot, RobotSpec
from motoric.hardware.specs.b2 import B2
from motoric.hardware.specs.g1 import G1
from motoric.hardware.specs.go2 import GO2

# by the name that bundles and logs use
ROBOTS: dict[str, RobotSpec] = {robot.name: robot for robot in (GO2, B2, G1)}

# by the name that configurations use:
# module and function (or class) that makes the robot; imported only where it is used
DRIVERS: dict[str, tuple[str, str]] = {
    "sim": ("motoric.hardware.simulated.robot", "SimRobot"),
    "remote": ("motoric.hardware.network.robot", "RemoteRobot"),
    "dynamixel": ("motoric.hardware.dynamixel.robot", "DynamixelRobot"),
    "go2": ("motoric.hardware.unitree.robot", "go2"),
    "b2": ("motoric.hardware.unitree.robot", "b2"),
    "g1": ("motoric.hardware.unitree.robot", "g1"),
}

# by the name that configurations use:
# module and class (or function) of its simulated counterpart on its own wire, see `simulated.py`
STAND_INS: dict[str, tuple[str, str]] = {
    "go2": ("motoric.hardware.unitree.server", "go2"),
    "b2": ("motoric.hardware.unitree.server", "b2"),
    "g1": ("motoric.hardware.unitree.server", "g1"),
    "dynamixel": ("motoric.hardware.dynamixel.stand_in", "SimulatedChain"),
}


def make_robot(driver: str, **options: Any) -> Robot:
    """A robot that is not yet connected. Raises ValueError for an unknown driver."""
    if driver not in DRIVERS:
        raise ValueError(f"driver {driver!r} is unknown, expected one of {', '.join(DRIVERS)}")
    module, name = DRIVERS[driver]
    make: Callable[..., Robot] = getattr(import_module(module), name)
    return make(**options)
