"""The simulated robot's wire format: framed packets with checksums, over TCP.

    magic "MTRC" | version u8 | kind u8 | payload bytes u32 | sequence u32 | time f64, s
    CRC-32 u32 of these 22 bytes: a damaged length costs its packet, not the stream
    payload
    CRC-32 u32 of all of the above                                     (little-endian throughout)

HELLO carries JSON, STATE float64 arrays and sensors (`StateWriter`), COMMAND float64 arrays, FAULT
(tests) JSON, the others nothing. The sequence of DAMPED is that of the ACTIVATE it ends.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from motoric.control.command import QUANTITIES, MotorCommand
from motoric.hardware.robot import RobotSpec, RobotState, Sensor
from numpy.typing import NDArray

MAGIC, VERSION = b"MTRC", 2
HELLO, STATE, COMMAND, ACTIVATE, DEACTIVATE, FAULT, DAMPED = range(1, 8)
HEADER, CRC = struct.Struct("<4sBBIId"), struct.Struct("<I")
LARGEST = 16 * 2**20  # bytes of a payload
SENT = struct.Struct("<I")  # which sensors a state carries: a bit for each, in the spec's order
MOST_SENSORS = 32
WHOLE_EVERY = 20  # states, of which one carries all sensors, changed or not


@dataclass(frozen=True)
class Packet:
    kind: int
    sequence: int
    time: float
    payload: bytes


def encode(packet: Packet) -> bytes:
    head = HEADER.pack(
        MAGIC, VERSION, packet.kind, len(packet.payload), packet.sequence % 2**32, packet.time
    )
    body = head + CRC.pack(zlib.crc32(head)) + packet.payload
    return body + CRC.pack(zlib.crc32(body))


class Decoder:
    """Packets from a byte stream; what is damaged is skipped up to the next packet.

    damaged: how many times bytes had to be skipped.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.damaged = 0

    def feed(self, data: bytes) -> list[Packet]:
        """Add received bytes; returns the packets completed by them."""
        buffer, head = self._buffer, HEADER.size + CRC.size
        buffer += data
        packets = []
        while len(buffer) >= head:
            magic, version, kind, size, sequence, time = HEADER.unpack_from(buffer)
            end = head + size
            sound = CRC.unpack_from(buffer, HEADER.size)[0] == zlib.crc32(buffer[: HEADER.size])
            if not sound or magic != MAGIC or version != VERSION or size > LARGEST:
                self._skip()
            elif len(buffer) < end + CRC.size:
                break
            elif CRC.unpack_from(buffer, end)[0] != zlib.crc32(memoryview(buffer)[:end]):
                self._skip()
            else:
                packets.append(Packet(kind, sequence, time, bytes(buffer[head:end])))
                del buffer[: end + CRC.size]
        return packets

    def _skip(self) -> None:
        self.damaged += 1
        at = self._buffer.find(MAGIC, 1)
        del self._buffer[: at if at > 0 else max(1, len(self._buffer) - len(MAGIC) + 1)]


# -- states ---------------------------------------------------------------------------------------


class StateWriter:
    """States of one robot as payloads: joints and base, then the sensors that have a new value.

    A sensor's value is new where it is another array than that of the state before: a camera's
    image, far slower than the joints, is not sent again and again. One in WHOLE_EVERY states, and
    the first, carries all of them, for whoever missed one. Raises ValueError for a sensor whose
    value is missing or of another shape than the spec's.
    """

    def __init__(self, spec: RobotSpec) -> None:
        if len(spec.sensors) > MOST_SENSORS:
            raise ValueError(
                f"{spec.name}: {len(spec.sensors)} sensors, a state carries {MOST_SENSORS} at most"
            )
        self._sensors, self._count = spec.sensors, 0
        self._last: dict[str, Any] = {}

    def payload(self, state: RobotState) -> bytes:
        parts = (
            state.position, state.velocity, state.torque, state.orientation,
            state.angular_velocity, state.base_velocity, [state.base_height],
        )  # fmt: skip
        data = np.concatenate(parts).astype("<f8").tobytes()
        if not self._sensors:
            return data
        whole, bits, values = self._count % WHOLE_EVERY == 0, 0, []
        for index, sensor in enumerate(self._sensors):
            value = state.sensors.get(sensor.name)
            if whole or value is not self._last.get(sensor.name):
                bits |= 1 << index
                values.append(_sensor_bytes(sensor, value))
            self._last[sensor.name] = value
        self._count += 1
        return b"".join((data, SENT.pack(bits), *values))

    def encode(self, state: RobotState) -> bytes:
        """As a packet of the stream."""
        return encode(Packet(STATE, state.sequence, state.time, self.payload(state)))


class StateReader:
    """The other end: states whose sensors are the newest that came, in arrays nobody can write."""

    def __init__(self, spec: RobotSpec) -> None:
        self._joints, self._sensors = len(spec.joints), spec.sensors
        self._newest: dict[str, NDArray[Any]] = {}

    def read(self, time: float, sequence: int, payload: bytes) -> RobotState | None:
        """The state; None where a sensor has not been heard of yet. Raises ValueError where the
        size doesn't fit the robot."""
        n, numbers = 3 * self._joints, 3 * self._joints + 11
        if len(payload) < 8 * numbers or (not self._sensors and len(payload) > 8 * numbers):
            raise ValueError(f"state of {len(payload)} bytes, expected {8 * numbers}")
        values = np.frombuffer(payload, "<f8", numbers)
        if self._sensors:
            self._read_sensors(payload, 8 * numbers)
            if len(self._newest) < len(self._sensors):
                return None
        joints = self._joints
        return RobotState(
            time, sequence, values[:joints], values[joints : 2 * joints],
            values[2 * joints : n], values[n : n + 4], values[n + 4 : n + 7],
            values[n + 7 : n + 10], float(values[-1]), sensors=dict(self._newest),
        )  # fmt: skip

    def _read_sensors(self, payload: bytes, at: int) -> None:
        bits = SENT.unpack_from(payload, at)[0] if len(payload) >= at + SENT.size else 0
        came = [sensor for i, sensor in enumerate(self._sensors) if bits >> i & 1]
        expected = at + SENT.size + sum(sensor.bytes for sensor in came)
        if len(payload) != expected or bits >> len(self._sensors):
            raise ValueError(f"state of {len(payload)} bytes, expected {expected}")
        at += SENT.size
        for sensor in came:
            size = sensor.bytes // np.dtype(sensor.dtype).itemsize
            flat = np.frombuffer(payload, np.dtype(sensor.dtype).newbyteorder("<"), size, at)
            self._newest[sensor.name] = flat.reshape(sensor.shape)
            at += sensor.bytes


def most_bytes(spec: RobotSpec) -> int:
    """Of a state with all its sensors, at most."""
    sensors = sum(sensor.bytes for sensor in spec.sensors)
    return 8 * (3 * len(spec.joints) + 11) + (SENT.size + sensors if spec.sensors else 0)


def _sensor_bytes(sensor: Sensor, value: Any) -> bytes:
    array = None if value is None else np.asarray(value)
    if array is None or array.shape != sensor.shape or array.dtype != sensor.dtype:
        got = "missing" if array is None else f"{array.dtype} of shape {array.shape}"
        raise ValueError(
            f"sensor {sensor.name}: {got}, expected {sensor.dtype} of shape {sensor.shape}"
        )
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


# -- commands -------------------------------------------------------------------------------------


def command_payload(command: MotorCommand) -> bytes:
    return np.concatenate([getattr(command, q) for q in QUANTITIES]).astype("<f8").tobytes()


def encode_command(command: MotorCommand) -> bytes:
    return encode(Packet(COMMAND, command.sequence, command.time, command_payload(command)))


def decode_command(packet: Packet, joints: int) -> MotorCommand:
    """Raises ValueError where the size doesn't fit the joints or a number is not finite."""
    if len(packet.payload) != 40 * joints:
        raise ValueError(f"command of {len(packet.payload) / 8:g} numbers, expected {5 * joints}")
    values = np.frombuffer(packet.payload, "<f8")
    if not np.isfinite(values).all():
        raise ValueError("command: not finite")
    return MotorCommand(*values.reshape(5, joints), time=packet.time, sequence=packet.sequence)
