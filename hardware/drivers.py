"""The robots motoric knows, and the drivers they can be deployed through; packages bring more."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from motoric.hardware.registry import Table
from motoric.hardware.robot import Robot, RobotSpec

# `RobotSpec`s, by the name that bundles and logs use
ROBOTS = Table("robot", "robots", package="motoric.hardware.specs", attribute="SPEC")

# What makes a `Robot` of its options, by the name that configurations use
DRIVERS = Table(
    "driver", "drivers", {
        "sim": "motoric.hardware.simulated.robot:SimRobot",
        "remote": "motoric.hardware.network.robot:RemoteRobot",
        "dynamixel": "motoric.hardware.dynamixel.robot:DynamixelRobot",
        "go2": "motoric.hardware.unitree.robot:go2",
        "b2": "motoric.hardware.unitree.robot:b2",
        "g1": "motoric.hardware.unitree.robot:g1",
    },
)  # fmt: skip

# What makes a `motoric.hardware.simulated.stand_in.StandIn` of a driver's options, by its name
STAND_INS = Table(
    "stand-in", "stand_ins", {
        "go2": "motoric.hardware.unitree.server:go2",
        "b2": "motoric.hardware.unitree.server:b2",
        "g1": "motoric.hardware.unitree.server:g1",
        "dynamixel": "motoric.hardware.dynamixel.stand_in:SimulatedChain",
    },
)  # fmt: skip


def make_robot(driver: str, **options: Any) -> Robot:
    """A robot that is not yet connected. Raises ValueError for an unknown driver."""
    return DRIVERS.find(driver)(**options)


def spec_of(robot: Any) -> RobotSpec:
    """Of a robot by its name, or by its configuration as in `configs/robot`: a mapping of `driver`
    and `options`, of which the driver is made and never connected. Raises ValueError naming the
    key."""
    if isinstance(robot, RobotSpec):
        return robot
    if dataclasses.is_dataclass(robot):  # `schema.Robot`, where one configuration takes in another
        robot = vars(robot)
    if not isinstance(robot, Mapping):
        if not isinstance(robot, str) or robot not in ROBOTS:
            raise ValueError(
                f"robot {robot!r} is unknown, expected one of {', '.join(ROBOTS)}, or a mapping of "
                "driver and options"
            )
        return ROBOTS[robot]
    for key in robot:
        if key not in ("name", "driver", "model", "options"):
            raise ValueError(f"robot.{key}: no such key, expected driver, model and options")
    driver, options = robot.get("driver"), robot.get("options", {})
    if not isinstance(driver, str) or driver not in DRIVERS:
        raise ValueError(f"robot.driver: {driver!r}, expected one of {', '.join(DRIVERS)}")
    if not isinstance(options, Mapping):
        raise ValueError(f"robot.options: {options!r}, expected the arguments of {driver}")
    if robot.get("model") is not None:
        options = {**options, "model": robot["model"]}
    try:
        return make_robot(driver, **options).spec
    except (ValueError, TypeError) as error:
        raise ValueError(f"robot.options: {error}") from None
