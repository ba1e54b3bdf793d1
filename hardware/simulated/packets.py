"""The simulated robot's wire format: framed packets with a checksum, over TCP.

    magic "MTRC" | version u8 | kind u8 | payload bytes u16 | sequence u32 | time f64, s
    payload
    CRC-32 u32 of all of the above                                     (little-endian throughout)

HELLO carries JSON, STATE and COMMAND float64 arrays, FAULT (tests) JSON, the others nothing.
The sequence of DAMPED is that of the ACTIVATE it ends.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from motoric.control.command import MotorCommand
from motoric.hardware.robot import RobotState

MAGIC, VERSION = b"MTRC", 1
HELLO, STATE, COMMAND, ACTIVATE, DEACTIVATE, FAULT, DAMPED = range(1, 8)
HEADER, CRC = struct.Struct("<4sBBHId"), struct.Struct("<I")


@dataclass(frozen=True)
class Packet:
    kind: int
    sequence: int
    time: float
    payload: bytes


def frame(packet: Packet, magic: bytes = MAGIC, version: int = VERSION) -> bytes:
    """Header and payload, without the checksum."""
    head = HEADER.pack(
        magic, version, packet.kind, len(packet.payload), packet.sequence % 2**32, packet.time
    )
    return head + packet.payload


def encode(packet: Packet) -> bytes:
    body = frame(packet)
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
        buffer = self._buffer
        buffer += data
        packets = []
        while len(buffer) >= HEADER.size + CRC.size:
            magic, version, kind, size, sequence, time = HEADER.unpack_from(buffer)
            end = HEADER.size + size
            if magic != MAGIC or version != VERSION:
                self._skip()
            elif len(buffer) < end + CRC.size:
                break
            elif CRC.unpack_from(buffer, end)[0] != zlib.crc32(memoryview(buffer)[:end]):
                self._skip()
            else:
                packets.append(Packet(kind, sequence, time, bytes(buffer[HEADER.size : end])))
                del buffer[: end + CRC.size]
        return packets

    def _skip(self) -> None:
        self.damaged += 1
        at = self._buffer.find(MAGIC, 1)
        del self._buffer[: at if at > 0 else max(1, len(self._buffer) - len(MAGIC) + 1)]


def state_payload(state: RobotState) -> bytes:
    parts = (
        state.position, state.velocity, state.torque, state.orientation,
        state.angular_velocity, state.base_velocity, [state.base_height],
    )  # fmt: skip
    return np.concatenate(parts).astype("<f8").tobytes()


def encode_state(state: RobotState) -> bytes:
    return encode(Packet(STATE, state.sequence, state.time, state_payload(state)))


def decode_state(packet: Packet, joints: int) -> RobotState:
    """Raises ValueError where the size doesn't fit the joints."""
    values = np.frombuffer(packet.payload, "<f8")
    if len(values) != 3 * joints + 11:
        raise ValueError(f"state of {len(values)} numbers, expected {3 * joints + 11}")
    n = 3 * joints
    return RobotState(
        packet.time, packet.sequence, values[:joints], values[joints : 2 * joints],
        values[2 * joints : n], values[n : n + 4], values[n + 4 : n + 7], values[n + 7 : n + 10],
        float(values[-1]),
    )  # fmt: skip


def command_payload(command: MotorCommand) -> bytes:
    parts = (command.position, command.velocity, command.kp, command.kd, command.torque)
    return np.concatenate(parts).astype("<f8").tobytes()


def encode_command(command: MotorCommand) -> bytes:
    return encode(Packet(COMMAND, command.sequence, command.time, command_payload(command)))


def decode_command(packet: Packet, joints: int) -> MotorCommand:
    """Raises ValueError where the size doesn't fit the joints or a number is not finite."""
    values = np.frombuffer(packet.payload, "<f8")
    if len(values) != 5 * joints:
        raise ValueError(f"command of {len(values)} numbers, expected {5 * joints}")
    if not np.isfinite(values).all():
        raise ValueError("command: not finite")
    return MotorCommand(*values.reshape(5, joints), time=packet.time, sequence=packet.sequence)
