"""Dynamixel X series: registers, models and units, from ROBOTIS' e-manual.

Angles count 4096 to the turn, counter-clockwise, velocities 0.229 rev/min. Models with a current
sensor report it in `current_unit`; the others (XL430, XC430) know only a load estimated from
their PWM, in 0.1 % of the stall torque, and have no current control.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

RESOLUTION = 4096  # per turn
ANGLE = 2 * math.pi / RESOLUTION  # rad
SPEED = 0.229 * 2 * math.pi / 60  # rad/s
PWM_FULL = 885  # 100 %
WATCHDOG_UNIT = 0.02  # s
TURNS = 256  # either way, in multi-turn modes

CURRENT, VELOCITY, POSITION, EXTENDED, CURRENT_POSITION, PWM = 0, 1, 3, 4, 5, 16
MODES = {
    "position": POSITION,
    "extended_position": EXTENDED,
    "current_position": CURRENT_POSITION,
    "velocity": VELOCITY,
    "current": CURRENT,
}

HARDWARE_ERRORS = {
    0: "input voltage out of range", 2: "overheated", 3: "motor encoder failed",
    4: "electrical shock or too little power", 5: "overloaded",
}  # fmt: skip

BAUD_RATES = {
    9600: 0, 57600: 1, 115200: 2, 1_000_000: 3, 2_000_000: 4, 3_000_000: 5, 4_000_000: 6,
}  # fmt: skip


@dataclass(frozen=True)
class Register:
    """A value of the control table: where, how many bytes, whether negative, who may write it."""

    address: int
    size: int
    writable: bool = True
    signed: bool = False

    @property
    def stored(self) -> bool:
        """Kept without power (EEPROM); locked while torque is on."""
        return self.address < 64


REGISTERS = {
    "model_number": Register(0, 2, False),
    "model_information": Register(2, 4, False),
    "firmware_version": Register(6, 1, False),
    "id": Register(7, 1),
    "baud_rate": Register(8, 1),
    "return_delay_time": Register(9, 1),  # 2 us
    "drive_mode": Register(10, 1),
    "operating_mode": Register(11, 1),
    "secondary_id": Register(12, 1),
    "protocol_type": Register(13, 1),
    "homing_offset": Register(20, 4, signed=True),
    "moving_threshold": Register(24, 4),
    "temperature_limit": Register(31, 1),
    "max_voltage_limit": Register(32, 2),
    "min_voltage_limit": Register(34, 2),
    "pwm_limit": Register(36, 2),
    "current_limit": Register(38, 2),
    "velocity_limit": Register(44, 4),
    "max_position_limit": Register(48, 4),
    "min_position_limit": Register(52, 4),
    "startup_configuration": Register(60, 1),
    "shutdown": Register(63, 1),
    "torque_enable": Register(64, 1),
    "led": Register(65, 1),
    "status_return_level": Register(68, 1),
    "registered_instruction": Register(69, 1, False),
    "hardware_error_status": Register(70, 1, False),
    "velocity_i_gain": Register(76, 2),
    "velocity_p_gain": Register(78, 2),
    "position_d_gain": Register(80, 2),
    "position_i_gain": Register(82, 2),
    "position_p_gain": Register(84, 2),
    "feedforward_2nd_gain": Register(88, 2),
    "feedforward_1st_gain": Register(90, 2),
    "bus_watchdog": Register(98, 1, signed=True),
    "goal_pwm": Register(100, 2, signed=True),
    "goal_current": Register(102, 2, signed=True),
    "goal_velocity": Register(104, 4, signed=True),
    "profile_acceleration": Register(108, 4),
    "profile_velocity": Register(112, 4),
    "goal_position": Register(116, 4, signed=True),
    "realtime_tick": Register(120, 2, False),  # ms, 0 to 32767
    "moving": Register(122, 1, False),
    "moving_status": Register(123, 1, False),
    "present_pwm": Register(124, 2, False, True),
    "present_current": Register(126, 2, False, True),  # XL430, XC430: present load
    "present_velocity": Register(128, 4, False, True),
    "present_position": Register(132, 4, False, True),
    "velocity_trajectory": Register(136, 4, False, True),
    "position_trajectory": Register(140, 4, False, True),
    "present_input_voltage": Register(144, 2, False),  # 0.1 V
    "present_temperature": Register(146, 1, False),  # degrees Celsius
    "backup_ready": Register(147, 1, False),
}
# What is read at once: address and bytes
STATE = (REGISTERS["realtime_tick"].address, 16)  # tick … present position, with no gap
HEALTH = (REGISTERS["present_input_voltage"].address, 3)
WATCHDOG = (REGISTERS["bus_watchdog"].address, 1)
CURRENT_REGISTERS = ("current_limit", "goal_current")  # missing without a current sensor


@dataclass(frozen=True)
class Model:
    """One servo type, at its recommended voltage.

    stall_torque: N m; stall_current: A; speed: without load, rad/s; voltage: V
    current_unit: A per count, None without a current sensor; max_current, velocity_limit: counts
    gains: factory values of position P, I, D; firmware: the first that has a bus watchdog
    """

    name: str
    number: int
    stall_torque: float
    stall_current: float
    speed: float
    voltage: float
    voltage_limits: tuple[int, int]
    current_unit: float | None
    max_current: int
    velocity_limit: int
    max_velocity: int
    temperature_limit: int
    gains: tuple[int, int, int]
    firmware: int = 38

    @property
    def torque_constant(self) -> float:
        """N m per A. A straight line through the stall point: friction and gears make the real
        torque at small currents smaller."""
        return self.stall_torque / self.stall_current

    @property
    def torque_unit(self) -> float:
        """N m per count of present current (or load)."""
        if self.current_unit is None:
            return self.stall_torque / 1000
        return self.current_unit * self.torque_constant

    @property
    def modes(self) -> tuple[str, ...]:
        """Operating modes by name."""
        if self.current_unit is None:
            return tuple(m for m in MODES if m not in ("current", "current_position"))
        return tuple(MODES)


def _model(
    name: str, number: int, stall: tuple[float, float], rpm: float, voltage: float,
    limits: tuple[int, int], unit: float | None, max_current: int, velocity: tuple[int, int],
    temperature: int, gains: tuple[int, int, int], firmware: int = 38,
) -> Model:  # fmt: skip
    speed = rpm * 2 * math.pi / 60
    return Model(
        name, number, *stall, speed, voltage, limits, unit, max_current, *velocity, temperature,
        gains, firmware,
    )  # fmt: skip


# name, number, (stall N m, A), free rev/min, V, V limits, A per count, counts, velocity limit and
# its maximum, degrees Celsius, position gains
MODELS = {
    model.name: model
    for model in (
        _model("xl330-m077", 1190, (0.215, 1.47), 383, 5.0, (35, 70), 0.001, 1750, (1620, 2047),
               70, (400, 400, 0), 0),
        _model("xl330-m288", 1200, (0.52, 1.47), 103, 5.0, (35, 70), 0.001, 1750, (445, 2047),
               70, (400, 0, 0), 0),
        _model("xc330-t181", 1210, (0.76, 0.80), 104, 11.1, (55, 140), 0.001, 910, (510, 2047),
               70, (900, 0, 0), 0),
        _model("xc330-t288", 1220, (0.92, 0.80), 65, 11.1, (55, 140), 0.001, 910, (320, 2047),
               70, (900, 0, 0), 0),
        _model("xc330-m181", 1230, (0.60, 1.80), 129, 5.0, (35, 70), 0.001, 2352, (545, 2047),
               70, (1200, 0, 500), 0),
        _model("xc330-m288", 1240, (0.93, 1.80), 81, 5.0, (35, 70), 0.001, 2352, (350, 2047),
               70, (1100, 0, 500), 0),
        _model("xl430-w250", 1060, (1.4, 1.3), 57, 11.1, (60, 140), None, 0, (265, 1023),
               72, (640, 0, 4000)),
        _model("xc430-w150", 1070, (1.6, 1.4), 106, 12.0, (60, 160), None, 0, (460, 1023),
               80, (460, 0, 0)),
        _model("xc430-w240", 1080, (1.9, 1.4), 70, 12.0, (60, 160), None, 0, (306, 1023),
               80, (700, 0, 0)),
        _model("xm430-w210", 1030, (3.0, 2.3), 77, 12.0, (95, 160), 0.00269, 1193, (330, 1023),
               80, (800, 0, 0)),
        _model("xm430-w350", 1020, (4.1, 2.3), 46, 12.0, (95, 160), 0.00269, 1193, (200, 1023),
               80, (800, 0, 0)),
        _model("xm540-w150", 1130, (7.3, 4.4), 53, 12.0, (95, 160), 0.00269, 2047, (230, 1023),
               80, (800, 0, 0)),
        _model("xm540-w270", 1120, (10.6, 4.4), 30, 12.0, (95, 160), 0.00269, 2047, (128, 1023),
               80, (800, 0, 0)),
    )
}  # fmt: skip
NUMBERS = {model.number: model for model in MODELS.values()}


def to_bytes(register: Register, value: int) -> bytes:
    return int(value).to_bytes(register.size, "little", signed=register.signed)


def from_bytes(register: Register, data: bytes | bytearray | list[int]) -> int:
    return int.from_bytes(bytes(data), "little", signed=register.signed)
