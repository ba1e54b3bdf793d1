"""An authenticated channel over UDP: what the two ends of a network robot share.

A datagram is a packet and an authentication code, HMAC-SHA256 cut to 16 bytes (little-endian):

    magic "MTRN" | version u8 | kind u8 | payload bytes u16 | sequence u32 | time f64, s
    payload
    code, 16 bytes, of all of the above

What a robot measures must fit one: one that has too many or too large cameras is refused. Two ends
that know the same key prove it to each other with fresh random numbers:

    HELLO      client -> server   nonce of the client
    CHALLENGE  client <- server   the same nonce, nonce of the server, `RATES`
    OPEN       client -> server   the robot the client expects (JSON)
    REFUSED    client <- server   nonce of the client, why not

From OPEN on, the codes' keys are made of the key and both nonces, one for each direction, so that
nothing recorded is of use: not in another session, not sent back, and not twice, for a receiver
takes only sequence numbers above the last.

The clocks of two machines are not compared. Each datagram carries the sender's own time, and the
newest time it has had from the receiver: now minus that echo, both on the receiver's clock, bounds
the age of what the datagram says.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import os
import secrets
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motoric.hardware.robot import Robot, RobotSpec
from motoric.hardware.simulated.packets import Packet

MAGIC, VERSION = b"MTRN", 3
HEADER = struct.Struct("<4sBBHId")
# STATE, COMMAND, ACTIVATE and DEACTIVATE as in `packets`
HELLO, CHALLENGE, OPEN, REFUSED, HEARTBEAT, GOODBYE = 1, 7, 8, 9, 10, 11
CODE = 16  # bytes of the authentication code
NONCE = 16  # bytes
HELLO_PAYLOAD = 256  # bytes, padded: no answer to a stranger is longer than the question
LARGEST = 65536  # bytes of a datagram
MOST_STATE = 65000  # bytes of a robot's state in one: UDP carries 65507 bytes
ECHO = struct.Struct("<d")
RATES = struct.Struct("<ff")  # Hz: commands the robot wants, and takes at most

RATE = 200.0  # Hz at which the robot is read, and wants commands at most
MOST_RATE = 500.0  # Hz, commands that may be sent if somebody insists
HEARTBEAT_EVERY = 0.02  # s
STALE = 0.1  # s, oldest command or state that is used
GONE = 0.5  # s of silence until the other end counts as gone
GONE_IDLE = 2.0  # s, while the motors are off: starting a policy may hold its process up


def read_key(path: str | Path | None) -> bytes:
    """The key of a file of 64 hexadecimal digits; without a file one that everybody knows.

    Raises ValueError, also where others may read the file.
    """
    if path is None:
        return hashlib.sha256(b"motoric: no key").digest()
    hint = f"make one with (umask 077; openssl rand -hex 32 > {path})"
    try:
        if os.name == "posix" and os.stat(path).st_mode & 0o077:
            raise ValueError(f"key_file: {path} may be read by others: chmod 600 {path}")
        text = Path(path).read_bytes().strip()
    except FileNotFoundError:
        raise ValueError(f"key_file: {path} does not exist, {hint}") from None
    except OSError as error:
        raise ValueError(f"key_file: {path}: {error.strerror}") from None
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ValueError(f"key_file: {path}: expected 64 hexadecimal digits, {hint}")
    return key


def resolve(host: str, port: int, key_file: str | Path | None) -> tuple[int, Any]:
    """Address family and address. Raises ValueError: unknown, or not this machine and no key."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    except (OSError, UnicodeError, OverflowError):
        raise ValueError(f"host: {host!r} is not known here") from None
    if key_file is None and not ipaddress.ip_address(str(address[0])).is_loopback:
        raise ValueError(f"key_file: missing, needed for {host}: it is not this machine")
    return family, address


def rates(robot: Robot) -> bytes:
    """What a robot wants, within what a network is good for."""
    return RATES.pack(
        min(robot.loop_rate or RATE, RATE), min(robot.most_rate or math.inf, MOST_RATE)
    )


def decode_rates(data: bytes) -> tuple[float, float]:
    """Commands wanted and taken at most, Hz. Raises ValueError for what can't be."""
    wanted, most = RATES.unpack(data) if len(data) == RATES.size else (math.nan, math.nan)
    if not 0 < wanted <= RATE or not 0 < most <= MOST_RATE:
        raise ValueError(f"it wants {wanted:g} commands a second, and takes {most:g} at most")
    return wanted, most


def named(address: Any) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def seal(key: bytes, packet: Packet, version: int = VERSION) -> bytes:
    """The datagram of a packet."""
    size, sequence = len(packet.payload), packet.sequence % 2**32
    body = HEADER.pack(MAGIC, version, packet.kind, size, sequence, packet.time) + packet.payload
    return body + hmac.digest(key, body, "sha256")[:CODE]


def unseal(key: bytes, data: bytes) -> tuple[int, Packet] | None:
    """Version and packet of a datagram; None where it is not one, or the key is another."""
    end = len(data) - CODE
    if end < HEADER.size:
        return None
    magic, version, kind, size, sequence, time = HEADER.unpack_from(data)
    if magic != MAGIC or HEADER.size + size != end:
        return None
    if not hmac.compare_digest(hmac.digest(key, data[:end], "sha256")[:CODE], data[end:]):
        return None
    return version, Packet(kind, sequence, time, data[HEADER.size : end])


def derive(key: bytes, purpose: str, *nonces: bytes) -> bytes:
    return hmac.digest(key, b"motoric " + purpose.encode() + b"".join(nonces), "sha256")


def nonce() -> bytes:
    return secrets.token_bytes(NONCE)


@dataclass(frozen=True)
class Message:
    """What came through a channel.

    sequence: of the sender's datagrams; time: s, on the sender's clock
    age: upper bound, s, by the receiver's clock; nan where the sender has heard nothing yet
    """

    kind: int
    sequence: int
    time: float
    age: float
    payload: bytes

    @property
    def stale(self) -> bool:
        return not 0.0 <= self.age <= STALE


class Channel:
    """One end of a session. Not safe for several threads at once.

    rejected: datagrams that were not authentic; late: old, repeated or out of order
    heard: when the last good one came, s; delay: s of its round trip or less, see `Message.age`
    """

    def __init__(self, key: bytes, nonces: tuple[bytes, bytes], server: bool) -> None:
        keys = derive(key, "to server", *nonces), derive(key, "to client", *nonces)
        self._receive_key, self._send_key = keys if server else keys[::-1]
        self._sent = self._received = 0
        self._echo = math.nan  # newest time of the other end
        self.rejected = self.late = 0
        self.heard = -math.inf
        self.delay = math.nan

    def seal(self, kind: int, payload: bytes, now: float) -> bytes:
        """The next datagram. Raises OverflowError after 2**32 of them."""
        self._sent += 1
        if self._sent >= 2**32:
            raise OverflowError("the session has used up its sequence numbers")
        return seal(self._send_key, Packet(kind, self._sent, now, ECHO.pack(self._echo) + payload))

    def unseal(self, data: bytes, now: float) -> Message | None:
        """What a datagram says; None where it is not to be used."""
        found = unseal(self._receive_key, data)
        if found is None or found[0] != VERSION or len(found[1].payload) < ECHO.size:
            self.rejected += 1
            return None
        packet = found[1]
        if packet.sequence <= self._received:
            self.late += 1
            return None
        self._received, self._echo, self.heard = packet.sequence, packet.time, now
        self.delay = now - ECHO.unpack_from(packet.payload)[0]
        return Message(
            packet.kind, packet.sequence, packet.time, self.delay, packet.payload[ECHO.size :]
        )


def describe(spec: RobotSpec) -> dict[str, Any]:
    """What both ends must agree on about a robot."""
    limits = spec.limits
    return {
        "robot": spec.name,
        "joints": list(spec.joints),
        "lower limit": limits.lower.tolist(),
        "upper limit": limits.upper.tolist(),
        "velocity limit": limits.velocity.tolist(),
        "torque limit": limits.torque.tolist(),
        "target rate limit": limits.target_rate.tolist(),
        "stand": spec.stand.tolist(),
        "rest": spec.rest.tolist(),
        "kp": spec.kp.tolist(),
        "kd": spec.kd.tolist(),
        "highest kp": spec.kp_max.tolist(),
        "highest kd": spec.kd_max.tolist(),
        "damping": spec.damping.tolist(),
        "sensors": "; ".join(f"{s.name} {s.dtype} {list(s.shape)}" for s in spec.sensors),
    }


def difference(theirs: Any, spec: RobotSpec) -> str | None:
    """The first thing in which another description differs from a robot, or None."""
    if not isinstance(theirs, dict):
        return "it does not say which robot it expects"
    for name, ours in describe(spec).items():
        other = theirs.get(name)
        if not isinstance(ours, list):
            if other != ours:
                return f"{name} is {ours!r}, the client expects {other!r}"
            continue
        if not isinstance(other, list) or len(other) != len(ours):
            many = len(other) if isinstance(other, list) else "no"
            return f"{name}: {len(ours)} values, the client expects {many}"
        for joint, a, b in zip(spec.joints, ours, other, strict=True):
            same = a == b if isinstance(a, str) else _near(a, b)
            if not same:
                return f"{name} of {joint} is {a!r}, the client expects {b!r}"
    return None


def _near(a: float, b: Any) -> bool:
    try:
        return isinstance(b, int | float) and math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
    except OverflowError:  # an integer no float can hold
        return False
