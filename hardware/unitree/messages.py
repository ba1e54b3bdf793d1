"""Messages of Unitree's SDK2: their layout in memory and on the wire, and their checksum.

The structures are those of the SDK's IDL files. In memory a message is a numpy structure with C
alignment, over which the robot computes its checksum; on the wire it is CDR, which aligns every
number but no structure. Going through numpy instead of the SDK's generated classes takes
microseconds instead of a millisecond per message, at 500 messages a second.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

POSITION_STOP = 2.146e9  # PosStopF: no position control
VELOCITY_STOP = 16000.0  # VelStopF: no velocity control
SERVO, OFF = 0x01, 0x00  # modes of a motor
HEAD = (0xFE, 0xEF)
LOW_LEVEL = 0xFF  # level_flag


def _structure(*fields: tuple) -> np.dtype:
    return np.dtype(list(fields), align=True)


GO_IMU = _structure(
    ("quaternion", "<f4", 4), ("gyroscope", "<f4", 3), ("accelerometer", "<f4", 3),
    ("rpy", "<f4", 3), ("temperature", "u1"),
)  # fmt: skip
GO_MOTOR_CMD = _structure(
    ("mode", "u1"), ("q", "<f4"), ("dq", "<f4"), ("tau", "<f4"), ("kp", "<f4"), ("kd", "<f4"),
    ("reserve", "<u4", 3),
)  # fmt: skip
GO_MOTOR_STATE = _structure(
    ("mode", "u1"), ("q", "<f4"), ("dq", "<f4"), ("ddq", "<f4"), ("tau_est", "<f4"),
    ("q_raw", "<f4"), ("dq_raw", "<f4"), ("ddq_raw", "<f4"), ("temperature", "u1"),
    ("lost", "<u4"), ("reserve", "<u4", 2),
)  # fmt: skip
GO_BMS_STATE = _structure(
    ("version_high", "u1"), ("version_low", "u1"), ("status", "u1"), ("soc", "u1"),
    ("current", "<i4"), ("cycle", "<u2"), ("bq_ntc", "u1", 2), ("mcu_ntc", "u1", 2),
    ("cell_vol", "<u2", 15),
)  # fmt: skip
GO_HEADER = (
    ("head", "u1", 2), ("level_flag", "u1"), ("frame_reserve", "u1"), ("sn", "<u4", 2),
    ("version", "<u4", 2), ("bandwidth", "<u2"),
)  # fmt: skip
GO_LOW_CMD = _structure(
    *GO_HEADER, ("motor_cmd", GO_MOTOR_CMD, 20), ("bms_off", "u1"), ("bms_reserve", "u1", 3),
    ("wireless_remote", "u1", 40), ("led", "u1", 12), ("fan", "u1", 2), ("gpio", "u1"),
    ("reserve", "<u4"), ("crc", "<u4"),
)  # fmt: skip
GO_LOW_STATE = _structure(
    *GO_HEADER, ("imu_state", GO_IMU), ("motor_state", GO_MOTOR_STATE, 20),
    ("bms_state", GO_BMS_STATE), ("foot_force", "<i2", 4), ("foot_force_est", "<i2", 4),
    ("tick", "<u4"), ("wireless_remote", "u1", 40), ("bit_flag", "u1"), ("adc_reel", "<f4"),
    ("temperature_ntc1", "u1"), ("temperature_ntc2", "u1"), ("power_v", "<f4"),
    ("power_a", "<f4"), ("fan_frequency", "<u2", 4), ("reserve", "<u4"), ("crc", "<u4"),
)  # fmt: skip
GO_SPORT_STATE = _structure(
    ("sec", "<i4"), ("nanosec", "<u4"), ("error_code", "<u4"), ("imu_state", GO_IMU),
    ("mode", "u1"), ("progress", "<f4"), ("gait_type", "u1"), ("foot_raise_height", "<f4"),
    ("position", "<f4", 3), ("body_height", "<f4"), ("velocity", "<f4", 3), ("yaw_speed", "<f4"),
    ("range_obstacle", "<f4", 4), ("foot_force", "<i2", 4), ("foot_position_body", "<f4", 12),
    ("foot_speed_body", "<f4", 12), ("path_point", "<f4", (10, 7)),
)  # fmt: skip

HG_IMU = _structure(
    ("quaternion", "<f4", 4), ("gyroscope", "<f4", 3), ("accelerometer", "<f4", 3),
    ("rpy", "<f4", 3), ("temperature", "<i2"),
)  # fmt: skip
HG_MOTOR_CMD = _structure(
    ("mode", "u1"), ("q", "<f4"), ("dq", "<f4"), ("tau", "<f4"), ("kp", "<f4"), ("kd", "<f4"),
    ("reserve", "<u4"),
)  # fmt: skip
HG_MOTOR_STATE = _structure(
    ("mode", "u1"), ("q", "<f4"), ("dq", "<f4"), ("ddq", "<f4"), ("tau_est", "<f4"),
    ("temperature", "<i2", 2), ("vol", "<f4"), ("sensor", "<u4", 2), ("motorstate", "<u4"),
    ("reserve", "<u4", 4),
)  # fmt: skip
HG_LOW_CMD = _structure(
    ("mode_pr", "u1"), ("mode_machine", "u1"), ("motor_cmd", HG_MOTOR_CMD, 35),
    ("reserve", "<u4", 4), ("crc", "<u4"),
)  # fmt: skip
HG_LOW_STATE = _structure(
    ("version", "<u4", 2), ("mode_pr", "u1"), ("mode_machine", "u1"), ("tick", "<u4"),
    ("imu_state", HG_IMU), ("motor_state", HG_MOTOR_STATE, 35), ("wireless_remote", "u1", 40),
    ("reserve", "<u4", 4), ("crc", "<u4"),
)  # fmt: skip
HG_BMS_STATE = _structure(
    ("version_high", "u1"), ("version_low", "u1"), ("fn", "u1"), ("cell_vol", "<u2", 40),
    ("bmsvoltage", "<u4", 3), ("current", "<i4"), ("soc", "u1"), ("soh", "u1"),
    ("temperature", "<i2", 12), ("cycle", "<u2"), ("manufacturer_date", "<u2"),
    ("bmsstate", "<u4", 5), ("reserve", "<u4", 3),
)  # fmt: skip

_HEADER = b"\x00\x01\x00\x00"  # CDR, little-endian
_ACCEPTED = (b"\x00\x01", b"\x00\x07")  # XCDR version 2 differs for 8-byte numbers only


def _numbers(dtype: np.dtype, offset: int = 0) -> list[tuple[int, int]]:
    """(offset in memory, size) of every number of a structure, in order."""
    if dtype.subdtype is not None:
        item, shape = dtype.subdtype
        count = int(np.prod(shape))
        return [n for i in range(count) for n in _numbers(item, offset + i * item.itemsize)]
    if dtype.fields is None:
        return [(offset, dtype.itemsize)]
    members = sorted(dtype.fields.values(), key=lambda member: member[1])
    return [n for member in members for n in _numbers(member[0], offset + member[1])]


class Layout:
    """One message type: `dtype` in memory; `encode` and `decode` are its way over the wire."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype
        memory, wire, end = [], [], 0
        for offset, size in _numbers(dtype):
            end += -end % size
            memory += range(offset, offset + size)
            wire += range(end, end + size)
            end += size
        self._memory, self._wire, self._size = np.array(memory), np.array(wire), end

    def new(self) -> np.ndarray:
        """A message of zeros, shape ()."""
        return np.zeros((), self.dtype)

    def encode(self, message: np.ndarray) -> bytes:
        body = np.zeros(self._size, np.uint8)
        body[self._wire] = np.frombuffer(message.tobytes(), np.uint8)[self._memory]
        return _HEADER + body.tobytes()

    def decode(self, data: bytes) -> np.ndarray:
        """Raises ValueError for what is too short or not little-endian CDR."""
        if data[:2] not in _ACCEPTED or len(data) < 4 + self._size:
            raise ValueError(f"{len(data)} bytes are not a message of {4 + self._size}")
        buffer = np.zeros(self.dtype.itemsize, np.uint8)
        buffer[self._memory] = np.frombuffer(data, np.uint8)[4:][self._wire]
        return buffer.view(self.dtype).reshape(())


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def crc(message: np.ndarray) -> int:
    """Checksum of a message that ends in its field `crc`.

    CRC-32 without reflection (polynomial 0x04C11DB7, start 0xFFFFFFFF, no final inversion) over
    32-bit words, most significant bit first: zlib's CRC with the bits of words and result turned
    round. The SDK's own code loads a C library that exists for two architectures only.
    """
    words = np.frombuffer(message.tobytes(), "<u4")[:-1]
    turned = words.astype(">u4").tobytes().translate(_REVERSED)
    value = zlib.crc32(turned) ^ 0xFFFFFFFF
    return int(f"{value:032b}"[::-1], 2)


@dataclass(frozen=True)
class Family:
    """The messages of `rt/lowcmd` and `rt/lowstate` that some robots share.

    name: package of the IDL types; motors: in each message
    """

    name: str
    command: Layout
    state: Layout
    motors: int


GO = Family("unitree_go", Layout(GO_LOW_CMD), Layout(GO_LOW_STATE), 20)
HG = Family("unitree_hg", Layout(HG_LOW_CMD), Layout(HG_LOW_STATE), 35)
SPORT_STATE = Layout(GO_SPORT_STATE)
HG_BMS = Layout(HG_BMS_STATE)


def new_command(family: Family, mode_machine: int = 0) -> np.ndarray:
    """A low-level command that leaves every motor off.

    mode_machine: as the robot's state says (unitree_hg); joints are commanded in series (pitch
    and roll), not as the two motors of a parallel ankle.
    """
    message = family.command.new()
    if family is GO:
        message["head"], message["level_flag"] = HEAD, LOW_LEVEL
    else:
        message["mode_pr"], message["mode_machine"] = 0, mode_machine
    message["motor_cmd"]["q"] = POSITION_STOP
    message["motor_cmd"]["dq"] = VELOCITY_STOP
    return message


def seal(layout: Layout, message: np.ndarray) -> bytes:
    """Set the checksum, and encode."""
    message["crc"] = crc(message)
    return layout.encode(message)
