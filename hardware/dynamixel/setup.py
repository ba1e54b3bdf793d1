"""From a port to servos that may be switched on: found, checked, and prepared; torque stays off."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from motoric.hardware.dynamixel.calibration import Calibrated
from motoric.hardware.dynamixel.goals import current_limit
from motoric.hardware.dynamixel.joints import Joint
from motoric.hardware.dynamixel.models import (
    ANGLE,
    HARDWARE_ERRORS,
    MODES,
    NUMBERS,
    RESOLUTION,
    SPEED,
)
from motoric.hardware.robot import RobotError

if TYPE_CHECKING:
    from motoric.hardware.dynamixel.bus import Bus


def find(bus: Bus, joints: tuple[Joint, ...]) -> None:
    """By ping alone: every servo answers, as the model it should be. Raises RobotError."""
    where = f"{bus.port.port_name} at {bus.port.baudrate} baud"
    numbers = {joint.id: bus.ping(joint.id, tries=2) for joint in joints}
    for id, number in numbers.items():
        if number is None and any(numbers.values()):  # a bad line, or a servo too few
            numbers[id] = bus.ping(id)
    there = [id for id, number in numbers.items() if number is not None]
    if not there:
        rate = bus.answering_rate(joints[0].id)
        hint = "check power and cable"
        if rate is not None:
            hint = f"servo {joints[0].id} answers at {rate}: set robot.options.baud={rate}"
        raise RobotError(f"no servo answers on {where}: {hint}")
    for joint in joints:
        number = numbers[joint.id]
        if number is None:
            found = ", ".join(map(str, there))
            raise RobotError(
                f"{joint.label} does not answer on {bus.port.port_name}; found: {found}"
            )
        if number != joint.model.number:
            known = NUMBERS.get(number)
            what = f"model {number}" if known is None else known.name
            raise RobotError(f"{joint.label} is a {what}, expected {joint.model.name}")


def check_firmware(bus: Bus, joints: tuple[Joint, ...]) -> None:
    """Raises RobotError for a servo that has no bus watchdog."""
    for joint in joints:
        firmware = bus.read(joint.id, "firmware_version")
        if firmware < joint.model.firmware:
            raise RobotError(
                f"{joint.label} has firmware {firmware}, expected {joint.model.firmware} or "
                "later: it has no bus watchdog"
            )


def refuse_errors(joint: Joint, status: int) -> None:
    """Raises RobotError for a Hardware Error Status that is not 0."""
    if status:
        words = [text for bit, text in HARDWARE_ERRORS.items() if status >> bit & 1]
        text = ", ".join(words) or f"hardware error {status}"
        raise RobotError(f"{joint.label}: {text}; it stays off until its power is cycled")


def prepare(bus: Bus, joint: Joint, one: Calibrated) -> None:
    """Everything the servo must hold before torque may come on."""
    model = joint.model
    wanted = {
        "drive_mode": 0,  # not reversed, torque not switched on by a goal
        "operating_mode": MODES[joint.mode],
        "startup_configuration": 0,
        "return_delay_time": 0,
        "homing_offset": 0,
        "velocity_limit": min(model.max_velocity, math.ceil(joint.velocity / SPEED)),
        "pwm_limit": joint.pwm_limit,
    }
    if model.current_unit is not None:
        wanted["current_limit"] = current_limit(joint)
    if joint.mode == "position":
        ends = [one.homing + one.direction * q / ANGLE for q in (joint.lower, joint.upper)]
        wanted["min_position_limit"] = math.floor(min(ends))
        wanted["max_position_limit"] = min(math.ceil(max(ends)), RESOLUTION - 1)
    for name, value in wanted.items():
        bus.set(joint.id, name, value)
