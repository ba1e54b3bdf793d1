"""Serves any robot to one client of the network at a time: the robot's end of `remote_robot`.

The last line before the robot: a command is applied only if it is authentic, the newest, not too
old, and within the robot's limits. The motors' state, as the client is told it:

    off -> on          asked for by the client
    on -> damped       no command for 100 ms, a bad command, a frozen robot; stays until asked
                       for anew
    any -> off         asked for; the client said goodbye or was silent for 500 ms, but not in the
                       first second of damping, in which the robot falls; the server ends

With its motors off it waits 2 s for a silent client before the next one may come. Where the robot
refuses to be switched on, the client is told why and its session ends: the next one may try again.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
from motoric.control.command import MotorCommand
from motoric.control.limits import torque_scale
from motoric.hardware.network import channel
from motoric.hardware.network.channel import Channel, Message, named
from motoric.hardware.robot import (
    MotorsDamped,
    Robot,
    RobotError,
    RobotSpec,
    RobotState,
    command_problem,
)
from motoric.hardware.simulated import packets

PENDING = 16  # handshakes begun and not ended
PENDING_SECONDS = 2.0
LONGEST = 500  # bytes of a reason
FALLS = 1.0  # s after motors are damped in which no silence switches them off
BATCH = 256  # datagrams handled before the robot has its turn
STATUS = struct.Struct("<BI")  # motors, number of the activation they obey
STATE = struct.Struct("<dQdB")  # time, sequence, battery, number of temperatures
ACTIVATION = struct.Struct("<I")  # that a command is for


class Motors(IntEnum):
    OFF = 0
    ON = 1
    DAMPED = 2


@dataclass
class Session:
    """A client, from its OPEN to its end; counts of what was not applied and why."""

    channel: Channel
    address: Any
    began: float
    applied: int = 0
    stale: int = 0  # commands older than 100 ms
    passed_over: int = 0  # commands while the motors did not listen, or with a newer one behind
    limited: int = 0  # commands whose torque was scaled down

    def __str__(self) -> str:
        return (
            f"{self.applied} commands applied, {self.limited} of them limited in torque; dropped: "
            f"{self.stale} stale, {self.channel.late} late or repeated, {self.passed_over} passed "
            f"over, {self.channel.rejected} damaged"
        )


@dataclass
class Handshake:
    nonces: tuple[bytes, bytes]
    channel: Channel
    expires: float
    said: str = ""  # why it was refused


class StateWriter(packets.StateWriter):
    """All of a measurement: `STATE`, temperatures, and what the simulated robot's wire carries.

    Raises ValueError for a robot whose sensors don't fit a datagram.
    """

    def __init__(self, spec: RobotSpec) -> None:
        super().__init__(spec)
        most = STATE.size + 8 * len(spec.joints) + packets.most_bytes(spec)
        if most > channel.MOST_STATE:
            raise ValueError(
                f"{spec.name}: its sensors make a state of {most} bytes, the network carries "
                f"{channel.MOST_STATE} at most: smaller cameras, or fewer"
            )

    def payload(self, state: RobotState) -> bytes:
        warm = state.temperature.astype("<f8")
        head = STATE.pack(state.time, state.sequence, state.battery, len(warm))
        return head + warm.tobytes() + super().payload(state)


class StateReader:
    """The other end."""

    def __init__(self, spec: RobotSpec) -> None:
        self._states = packets.StateReader(spec)

    def read(self, payload: bytes) -> RobotState | None:
        """The state; None where a sensor has not been heard of yet. Raises ValueError where the
        size doesn't fit the robot."""
        if len(payload) < STATE.size:
            raise ValueError(f"state of {len(payload)} bytes")
        time, sequence, battery, count = STATE.unpack_from(payload)
        numbers = STATE.size + 8 * count
        warm = np.frombuffer(payload[STATE.size : numbers], "<f8")
        state = self._states.read(time, sequence, payload[numbers:])
        return None if state is None else replace(state, battery=battery, temperature=warm)


class RobotServer:
    """One robot behind a UDP port. `run` configures it and serves until told to stop.

    port: 0 lets the system choose; `address` then names it.
    key: of `channel.read_key`; without `key_file` only an address of this machine may be used.
    say: told in one line whenever something happens; clock: s, for tests
    Raises ValueError for options that can't be and for a robot whose sensors don't fit a datagram,
    RobotError where the port is taken.
    """

    def __init__(
        self,
        robot: Robot,
        host: str = "127.0.0.1",
        port: int = 0,
        key_file: str | None = None,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.robot, self.spec, self._say, self._clock = robot, robot.spec, say, clock
        self._states = StateWriter(robot.spec)
        self._key = channel.read_key(key_file)
        family, address = channel.resolve(host, port, key_file)
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._socket.bind(address)
        except OSError as error:
            self._socket.close()
            raise RobotError(f"can't listen on {named(address)}: {error.strerror}") from None
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self.motors, self.reason = Motors.OFF, ""
        self.session: Session | None = None
        self.rejected = 0  # datagrams of no session
        self._activation = 0
        self._handshakes: dict[tuple[Any, bytes], Handshake] = {}
        self._newest: tuple[Message, float] | None = None
        self._commanded_at: float | None = None  # None: not since the motors were switched on
        self._state: RobotState | None = None
        self._fresh = self._clock()
        self._spoke = self._damped_at = -math.inf
        self._count = 0
        self._zero, self._damping = np.zeros(len(self.spec.joints)), self.spec.blind_damping

    # -- life ---------------------------------------------------------------------------------

    def run(self, stopped: Callable[[], str | None]) -> None:
        """Serve until `stopped` gives a reason. Raises RobotError when the robot is lost.

        At the end, however it comes, the motors are off.
        """
        why = "the server failed"
        try:
            self.robot.configure()
            self._say(f"serving {self.spec.name} on {named(self.address)}")
            due = self._fresh = self._clock()
            while (end := stopped()) is None:
                select.select([self._socket], [], [], max(0.0, due - self._clock()))
                self._drain()
                now = self._clock()
                self.apply(now)
                if now >= due:
                    self.tick(now)
                    due = max(due + 1 / channel.RATE, now)
            why = f"the server was ended: {end}"
        except RobotError as error:
            why = f"the robot was lost: {error}"
            raise
        finally:
            self._off()
            self.robot.deactivate()  # whatever state it is in
            self._end(why)

    def close(self) -> None:
        self._socket.close()

    def _drain(self) -> None:
        for _ in range(BATCH):
            try:
                data, address = self._socket.recvfrom(channel.LARGEST)
            except BlockingIOError:
                return
            except OSError:  # an answer of ours that could not be delivered
                continue
            self.receive(data, address, self._clock())

    # -- what arrives -------------------------------------------------------------------------

    def receive(self, data: bytes, address: Any, now: float) -> None:
        """Handle a datagram, whatever it holds. Commands wait for `apply`."""
        session = self.session
        if session is not None and address == session.address:
            message = session.channel.unseal(data, now)
            if message is not None:
                self._obey(session, message, now)
            return
        if len(data) < channel.HEADER.size:
            self.rejected += 1
        elif data[5] == channel.HELLO:
            self._challenge(data, address, now)
        elif data[5] == channel.OPEN:
            self._open(data, address, now)
        else:
            self.rejected += 1

    def _challenge(self, data: bytes, address: Any, now: float) -> None:
        if len(data) != channel.HEADER.size + channel.HELLO_PAYLOAD + channel.CODE:
            self.rejected += 1
            return
        theirs = data[channel.HEADER.size : channel.HEADER.size + channel.NONCE]
        found = channel.unseal(channel.derive(self._key, "hello"), data)
        if found is None:
            self.rejected += 1
            self._refuse(theirs, address, "the key differs, or is missing", channel.read_key(None))
            return
        if found[0] != channel.VERSION:
            words = f"protocol version {channel.VERSION}, the client speaks {found[0]}"
            self._refuse(theirs, address, words, self._key)
            return
        waiting = self._handshakes
        for old in [k for k, h in waiting.items() if h.expires < now]:
            del waiting[old]
        if (address, theirs) not in waiting:
            while len(waiting) >= PENDING:
                del waiting[next(iter(waiting))]
            nonces = theirs, channel.nonce()
            waiting[address, theirs] = Handshake(
                nonces, Channel(self._key, nonces, server=True), now + PENDING_SECONDS
            )
        payload = b"".join((*waiting[address, theirs].nonces, channel.rates(self.robot)))
        packet = packets.Packet(channel.CHALLENGE, 0, now, payload)
        self._send(channel.seal(channel.derive(self._key, "challenge"), packet), address)

    def _open(self, data: bytes, address: Any, now: float) -> None:
        """Begin a session, or say why not."""
        for (where, _), handshake in self._handshakes.items():
            if where == address and handshake.expires >= now:
                message = handshake.channel.unseal(data, now)
                if message is not None and message.kind == channel.OPEN:
                    break
        else:
            self.rejected += 1
            return
        if not handshake.said:
            handshake.said = self._objection(message, now) or ""
        if handshake.said:
            self._refuse(handshake.nonces[0], address, handshake.said, self._key)
            return
        del self._handshakes[address, handshake.nonces[0]]
        self.session = Session(handshake.channel, address, now)
        self._states = StateWriter(self.spec)  # the new client knows no sensor yet
        self._activation, self.reason = 0, ""
        self._say(f"client {named(address)} connected")

    def _objection(self, message: Message, now: float) -> str | None:
        if self.session is not None:
            since = now - self.session.began
            return f"in use by {named(self.session.address)} for {since:.1f} s"
        try:
            theirs = json.loads(message.payload)
        except (ValueError, RecursionError):
            theirs = None
        return channel.difference(theirs, self.spec)

    def _refuse(self, theirs: bytes, address: Any, words: str, key: bytes) -> None:
        text = words.encode(errors="replace")[:LONGEST]
        packet = packets.Packet(channel.REFUSED, 0, self._clock(), theirs + text)
        self._send(channel.seal(channel.derive(key, "challenge"), packet), address)

    def _obey(self, session: Session, message: Message, now: float) -> None:
        if message.kind == channel.GOODBYE:
            self._off()
            self._end("the client said goodbye", tell=False)
            return
        if message.kind not in (packets.COMMAND, packets.ACTIVATE, packets.DEACTIVATE):
            return
        if len(message.payload) < ACTIVATION.size:
            session.channel.rejected += 1
            return
        (activation,) = ACTIVATION.unpack_from(message.payload)
        if message.kind == packets.DEACTIVATE:  # at any age: it is the safe way
            self._activation = max(self._activation, activation)
            self._off()
        elif message.stale:
            session.stale += 1
        elif message.kind == packets.ACTIVATE:
            if activation > self._activation:  # else a repetition
                self._activation = activation
                self._on()
        elif activation == self._activation and self.motors is Motors.ON:
            session.passed_over += self._newest is not None
            self._newest = message, now
        else:
            session.passed_over += 1

    # -- what is done -------------------------------------------------------------------------

    def apply(self, now: float) -> None:
        """Give the robot the newest command, if it stands every check."""
        if self._newest is None or self.session is None:
            return
        (message, came), self._newest = self._newest, None
        joints, payload = len(self.spec.joints), message.payload[ACTIVATION.size :]
        try:
            packet = packets.Packet(message.kind, message.sequence, message.time, payload)
            command = packets.decode_command(packet, joints)
            wrong = command_problem(command, self.spec)
        except ValueError as error:
            wrong, command = str(error).removeprefix("command: "), None
        state = self._state
        if command is None or wrong is not None:
            self._damp(f"command: {wrong}")
            return
        if state is None or now - self._fresh > channel.STALE:
            return  # the next tick says so
        with np.errstate(all="ignore"):
            scale = torque_scale(
                self.spec.limits, command.position, command.velocity, command.kp, command.kd,
                command.torque, state.position, state.velocity,
            )  # fmt: skip
        if not np.isfinite(scale).all():
            self._damp("command: its torque is not finite")
            return
        self.session.limited += bool((scale < 1 - 1e-9).any())
        self.session.applied += 1
        self._commanded_at = came
        self._write(
            command.position, command.velocity, command.kp * scale, command.kd * scale,
            command.torque * scale,
        )  # fmt: skip

    def tick(self, now: float) -> None:
        """Read the robot, watch the times, tell the client. Raises RobotError."""
        state, session = self.robot.read(), self.session
        new = self._state is None or (
            state.sequence != self._state.sequence and state.time > self._state.time
        )
        if new:
            self._state, self._fresh = state, now
        if self.motors is Motors.ON:
            if self._commanded_at is not None and now - self._commanded_at > channel.STALE:
                self._damp(f"no command for {now - self._commanded_at:.3f} s")
            elif now - self._fresh > channel.STALE:
                self._damp(f"the robot's state is {now - self._fresh:.3f} s old")
            elif not (np.isfinite(state.position).all() and np.isfinite(state.velocity).all()):
                self._damp("the robot's state is not finite")
        waits = self.motors is Motors.ON and self._commanded_at is None  # for the first command
        if self.motors is Motors.DAMPED or waits:
            self._brake()
        if session is None:
            return
        patience = channel.GONE_IDLE if self.motors is Motors.OFF else channel.GONE
        falls = self.motors is Motors.DAMPED and now - self._damped_at < FALLS
        if now - session.channel.heard > patience and not falls:
            self._off()
            self._end(f"the client is gone: silent for {now - session.channel.heard:.3f} s")
        elif new:
            try:
                payload = self._states.payload(state)
            except ValueError as error:  # a driver that does not give what its spec says
                raise RobotError(f"{self.spec.name}: {error}") from None
            self._tell(packets.STATE, payload, now)
        if self.motors is Motors.DAMPED or now - self._spoke >= channel.HEARTBEAT_EVERY:
            self._tell(channel.HEARTBEAT, self.reason.encode(), now)

    def _brake(self) -> None:
        """Command nothing but damping."""
        self._write(self._held(), self._zero, self._zero, self._damping, self._zero)

    def _held(self) -> np.ndarray:
        limits, state = self.spec.limits, self._state
        known = state is not None and np.isfinite(state.position).all()
        position = state.position if state is not None and known else self.spec.stand
        return np.clip(position, limits.lower, limits.upper)

    def _write(self, *values: np.ndarray) -> None:
        self._count += 1
        try:
            self.robot.write(MotorCommand(*values, time=self._clock(), sequence=self._count))
        except MotorsDamped as error:  # its own watchdog was first
            if self.motors is Motors.ON:
                self._damp(str(error))

    def _on(self) -> None:
        try:
            self.robot.activate()
        except RobotError as error:  # a low battery, a hot motor: the next client may try again
            self._newest, self.motors, self.reason = None, Motors.OFF, ""
            self.robot.deactivate()
            self._end(f"not switched on: {error}")
            return
        self.motors, self.reason = Motors.ON, ""
        self._commanded_at = self._newest = None
        self._fresh = self._clock()  # switching on may take its time
        self._say("motors on")

    def _damp(self, why: str) -> None:
        self.motors, self.reason, self._newest = Motors.DAMPED, f"damped: {why}", None
        self._damped_at = self._clock()
        self._brake()
        self._say(f"motors damped: {why}")

    def _off(self) -> None:
        self._newest = None
        if self.motors is not Motors.OFF:
            self.motors, self.reason = Motors.OFF, ""
            self.robot.deactivate()
            self._say("motors off")

    def _end(self, why: str, tell: bool = True) -> None:
        """The session is over."""
        if self.session is None:
            return
        if tell:
            for _ in range(3):  # one may be lost
                self._tell(channel.GOODBYE, why.encode(errors="replace")[:LONGEST], self._clock())
        self._say(f"client {named(self.session.address)}: {why}; {self.session}")
        self.session = None
        gc.collect()  # which the loop goes without

    def _tell(self, kind: int, payload: bytes, now: float) -> None:
        if self.session is None:
            return
        status = STATUS.pack(self.motors, self._activation)
        self._spoke = now
        self._send(self.session.channel.seal(kind, status + payload, now), self.session.address)

    def _send(self, data: bytes, address: Any) -> None:
        with contextlib.suppress(OSError):  # as good as lost on the way
            self._socket.sendto(data, address)
