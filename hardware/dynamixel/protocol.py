"""Framing of Dynamixel protocol 2.0, for both ends of the wire.

    FF FF FD 00 | id u8 | length u16 | instruction u8 | parameters | CRC-16 u16   (little-endian)

length counts what follows it. FF FF FD inside instruction and parameters is followed by a stuffed
FD, so that it can't be taken for a header. The CRC (polynomial 0x8005, start 0, not reflected)
covers everything before it, stuffing included. A status packet's first parameter is its error.
"""

from __future__ import annotations

from dataclasses import dataclass

HEADER = b"\xff\xff\xfd\x00"
PATTERN, STUFFED = b"\xff\xff\xfd", b"\xff\xff\xfd\xfd"
BROADCAST, LAST_ID = 0xFE, 0xFC
LONGEST = 1024  # bytes after the length field; a longer packet is taken for damage

PING, READ, WRITE, REG_WRITE, ACTION, FACTORY_RESET, REBOOT = 1, 2, 3, 4, 5, 6, 8
CLEAR, STATUS = 0x10, 0x55
SYNC_READ, SYNC_WRITE, FAST_SYNC_READ, BULK_READ, BULK_WRITE = 0x82, 0x83, 0x8A, 0x92, 0x93

RESULT_FAIL, INSTRUCTION_ERROR, CRC_ERROR, DATA_RANGE, DATA_LENGTH, DATA_LIMIT, ACCESS = range(1, 8)
ALERT = 0x80  # bit of the error byte: see the register Hardware Error Status
ERRORS = {
    RESULT_FAIL: "the servo failed to do it",
    INSTRUCTION_ERROR: "instruction unknown",
    CRC_ERROR: "CRC wrong on arrival",
    DATA_RANGE: "value outside the register's range",
    DATA_LENGTH: "value shorter than the register",
    DATA_LIMIT: "value beyond a limit set in the servo",
    ACCESS: "register can't be accessed (read-only, unknown, or locked while torque is on)",
}


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte << 8
        for _ in range(8):
            value = (value << 1) ^ (0x8005 if value & 0x8000 else 0)
        table.append(value & 0xFFFF)
    return tuple(table)


_CRC = _table()


def crc16(data: bytes | bytearray, start: int = 0) -> int:
    """CRC-16/BUYPASS of the data, going on from `start`."""
    value = start
    for byte in data:
        value = ((value << 8) & 0xFFFF) ^ _CRC[(value >> 8) ^ byte]
    return value


def stuff(body: bytes) -> bytes:
    """Instruction and parameters as they are sent."""
    return body.replace(PATTERN, STUFFED)


def unstuff(body: bytes) -> bytes:
    """Instruction and parameters as they were before `stuff`."""
    return body.replace(STUFFED, PATTERN)


@dataclass(frozen=True)
class Packet:
    """parameters: of a status packet without its error, which is 0 in an instruction packet."""

    id: int
    instruction: int
    parameters: bytes = b""
    error: int = 0


def encode(packet: Packet) -> bytes:
    error = bytes([packet.error]) if packet.instruction == STATUS else b""
    body = stuff(bytes([packet.instruction]) + error + packet.parameters)
    frame = HEADER + bytes([packet.id]) + (len(body) + 2).to_bytes(2, "little") + body
    return frame + crc16(frame).to_bytes(2, "little")


class Decoder:
    """Packets from a byte stream; what is damaged is skipped up to the next header.

    damaged: packets whose CRC or length was wrong; skipped: bytes that belonged to none.
    `rejected` holds the ids that packets with a wrong CRC were addressed to, for a servo that
    reports it.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.damaged = self.skipped = 0
        self.rejected: list[int] = []

    def feed(self, data: bytes) -> list[Packet]:
        """Add received bytes; returns the packets completed by them."""
        buffer = self._buffer
        buffer += data
        packets = []
        while True:
            start = buffer.find(HEADER)
            if start < 0:  # a header may have begun in the last three bytes
                self._drop(max(0, len(buffer) - 3))
                break
            self._drop(start)
            if len(buffer) < 7:
                break
            size = int.from_bytes(buffer[5:7], "little")
            shortest = 4 if len(buffer) > 7 and buffer[7] == STATUS else 3
            if not shortest <= size <= LONGEST or buffer[4] in (0xFD, 0xFF):
                self.damaged += 1
                self._drop(len(HEADER))
                continue
            if len(buffer) < 7 + size:
                break
            frame = bytes(buffer[: 7 + size])
            if crc16(frame[:-2]) != int.from_bytes(frame[-2:], "little"):
                self.damaged += 1
                self.rejected.append(frame[4])
                self._drop(len(HEADER))
                continue
            del buffer[: 7 + size]
            body = unstuff(frame[7:-2])
            error = body[1] if body[0] == STATUS else 0
            packets.append(Packet(frame[4], body[0], body[2 if body[0] == STATUS else 1 :], error))
        return packets

    @property
    def pending(self) -> int:
        """Bytes of a packet that is not yet complete."""
        return len(self._buffer)

    def reset(self) -> None:
        """Forget an unfinished packet, after a pause on the wire."""
        self._drop(len(self._buffer))

    def _drop(self, count: int) -> None:
        self.skipped += count
        del self._buffer[:count]
