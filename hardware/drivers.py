"""The robots motoric knows, and the drivers they can be deployed through. A new one adds a line."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from motoric.hardware.b2 import B2
from motoric.hardware.g1 import G1
from motoric.hardware.go2 import GO2
from motoric.hardware.robot import Robot, RobotSpec

# by the name that bundles and logs use
ROBOTS: dict[str, RobotSpec] = {robot.name: robot for robot in (GO2, B2, G1)}

# by the name that configurations use:
# module and function (or class) that makes the robot; imported only where it is used
DRIVERS: dict[str, tuple[str, str]] = {
    "sim": ("motoric.hardware.sim_robot", "SimRobot"),
    "remote": ("motoric.hardware.remote_robot", "RemoteRobot"),
    "dynamixel": ("motoric.hardware.dynamixel", "DynamixelRobot"),
    "go2": ("motoric.hardware.unitree", "go2"),
    "b2": ("motoric.hardware.unitree", "b2"),
    "g1": ("motoric.hardware.unitree", "g1"),
}

# by the name that configurations use:
# module and class (or function) of its simulated counterpart on its own wire, see `simulated.py`
SIMULATED: dict[str, tuple[str, str]] = {
    "go2": ("motoric.hardware.unitree_server", "go2"),
    "b2": ("motoric.hardware.unitree_server", "b2"),
    "g1": ("motoric.hardware.unitree_server", "g1"),
    "dynamixel": ("motoric.hardware.simulated_chain", "SimulatedChain"),
}


def make_robot(driver: str, **options: Any) -> Robot:
    """A robot that is not yet connected. Raises ValueError for an unknown driver."""
    if driver not in DRIVERS:
        raise ValueError(f"driver {driver!r} is unknown, expected one of {', '.join(DRIVERS)}")
    module, name = DRIVERS[driver]
    make: Callable[..., Robot] = getattr(import_module(module), name)
    return make(**options)
