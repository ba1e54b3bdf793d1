"""The Robot interface to a robot on another machine, served there by `motoric serve`.

A thread of its own receives and keeps the connection alive; `read` and `write` never wait. Once
the connection is lost, or the server has damped the motors, every call says so until the robot is
configured (or, after damping, activated) again: nothing reconnects by itself.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motoric.control.command import MotorCommand
from motoric.hardware.drivers import spec_of
from motoric.hardware.network import channel
from motoric.hardware.network.channel import Channel, Message
from motoric.hardware.network.server import ACTIVATION, STATUS, Motors, StateReader
from motoric.hardware.robot import Robot, RobotError, RobotState
from motoric.hardware.simulated import packets

CONNECT_SECONDS = 5.0
SWITCH_SECONDS = 20.0  # longer than any driver takes: a Unitree lies down first, at most 15 s
AGAIN = 0.1  # s until a question is repeated


class RemoteRobot(Robot):
    """A robot behind a UDP port.

    host, port: of the server; key_file: the same key as the server's, may be left out on one and
    the same machine; robot: its name (a key of `ROBOTS`), or its own configuration: a mapping of
    `driver` and `options` as in `configs/robot`, from which the driver is made and never connected
    loop_rate, most_rate: as the server said when it was connected to
    stale: states dropped because they were more than 100 ms old; late: datagrams dropped because
    they were old, repeated or out of order; rejected: those that were damaged or not authentic
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 7230,
        key_file: str | Path | None = None,
        robot: str | Mapping[str, Any] = "go2",
    ) -> None:
        if not isinstance(port, int) or not 0 < port < 65536:
            raise ValueError(f"port: {port!r}, expected 1 to 65535")
        self.spec = spec_of(robot)
        self.host, self.port, self.key_file = host, port, key_file
        self.stale = 0
        self._socket: socket.socket | None = None
        self._channel: Channel | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()  # around the channel and what it brought
        self._changed = threading.Condition(self._lock)
        self._closing = False
        self._reset()

    def _reset(self) -> None:
        self._state: RobotState | None = None
        self._states = StateReader(self.spec)
        self._lost = self._damped = ""  # why
        self._motors, self._confirmed, self._activation = Motors.OFF, 0, 0
        self._spoke = 0.0
        self.loop_rate = self.most_rate = None

    @property
    def name(self) -> str:
        return f"{self.spec.name} at {self.host}:{self.port}"

    @property
    def late(self) -> int:
        return 0 if self._channel is None else self._channel.late

    @property
    def rejected(self) -> int:
        return 0 if self._channel is None else self._channel.rejected

    @property
    def delay(self) -> float:
        """Upper bound of the age of the newest message when it came, s."""
        return float("nan") if self._channel is None else self._channel.delay

    # -- the six methods ----------------------------------------------------------------------

    def configure(self) -> None:
        self.close()
        self._reset()
        self._closing = False
        try:
            key = channel.read_key(self.key_file)
            family, address = channel.resolve(self.host, self.port, self.key_file)
        except ValueError as error:
            raise RobotError(str(error)) from None
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.connect(address)
            self._shake_hands(key)
        except OSError as error:
            self.close()
            raise RobotError(f"{self.name}: {error.strerror or error}") from None
        except RobotError:
            self.close()
            raise
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        with self._lock:
            self._changed.wait_for(lambda: self._state or self._lost, CONNECT_SECONDS)
            problem = self._lost or ("" if self._state else f"{self.name} sends no state")
            if problem and self.stale:
                problem += f" less than {channel.STALE} s old, the newest is {self.delay:.3f} s"
        if problem:
            self.close()
            raise RobotError(problem)

    def activate(self) -> None:
        with self._lock:
            self._check_link(time.monotonic())
            self._activation += 1
            self._damped = ""
        if not self._until(packets.ACTIVATE, (Motors.ON, Motors.DAMPED), SWITCH_SECONDS):
            raise RobotError(self._lost or f"{self.name} does not switch its motors on")

    def read(self) -> RobotState:
        with self._lock:
            self._check(time.monotonic())
            assert self._state is not None
            return self._state

    def write(self, command: MotorCommand) -> None:
        with self._lock:
            self._check(time.monotonic())
            number = ACTIVATION.pack(self._activation)
            self._send(packets.COMMAND, number + packets.command_payload(command))

    def deactivate(self) -> None:
        # A server that can't be reached switches the motors off by itself.
        with contextlib.suppress(RobotError):
            if self._channel is not None and not self._lost:
                self._until(packets.DEACTIVATE, (Motors.OFF,), channel.GONE)

    def close(self) -> None:
        self._closing = True
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(2.0)
        with self._lock:
            if self._channel is not None and not self._lost:
                for _ in range(3):  # one may be lost
                    with contextlib.suppress(RobotError):
                        self._send(channel.GOODBYE, b"")
            if self._socket is not None:
                self._socket.close()
            self._socket, self._lost = None, self._lost or f"{self.name} is not connected"

    # -- the connection -----------------------------------------------------------------------

    def _shake_hands(self, key: bytes) -> None:
        """Prove and have proved the key, name the robot. Raises RobotError with the reason."""
        assert self._socket is not None
        asked, answered = channel.derive(key, "hello"), channel.derive(key, "challenge")
        stranger = channel.derive(channel.read_key(None), "challenge")
        mine = channel.nonce()
        hello = mine.ljust(channel.HELLO_PAYLOAD, b"\0")
        expected = json.dumps(channel.describe(self.spec)).encode()
        deadline, theirs, tries = time.monotonic() + CONNECT_SECONDS, None, 0
        while (now := time.monotonic()) < deadline:
            if tries == 10:  # the server has forgotten us
                theirs = None
            tries += 1
            if self._channel is None or theirs is None:
                question = channel.seal(asked, packets.Packet(channel.HELLO, 0, now, hello))
            else:
                question = self._channel.seal(channel.OPEN, expected, now)
            self._socket.send(question)
            until = now + AGAIN
            while (left := until - time.monotonic()) > 0:
                self._socket.settimeout(left)
                try:
                    data = self._socket.recv(channel.LARGEST)
                except TimeoutError:
                    break
                except ConnectionRefusedError:
                    raise RobotError(f"{self.name}: no server there") from None
                if self._channel is not None and theirs is not None:
                    message = self._channel.unseal(data, time.monotonic())
                    if message is not None:
                        self._take(message, time.monotonic())
                        return
                found = channel.unseal(answered, data)
                if found is None:
                    found = channel.unseal(stranger, data)
                    if found is None or found[1].kind != channel.REFUSED:
                        continue
                packet = found[1]
                if packet.payload[: channel.NONCE] != mine:
                    continue
                rest = packet.payload[channel.NONCE :]
                if packet.kind == channel.REFUSED:
                    raise RobotError(f"{self.name} refuses: {rest.decode(errors='replace')}")
                if packet.kind == channel.CHALLENGE:
                    try:
                        rates = channel.decode_rates(rest[channel.NONCE :])
                    except ValueError as error:
                        raise RobotError(f"{self.name}: {error}") from None
                    self.loop_rate, self.most_rate = rates
                    if rest[: channel.NONCE] != theirs:
                        theirs, tries = rest[: channel.NONCE], 0
                        self._channel = Channel(key, (mine, theirs), server=False)
                    until = 0.0  # on with OPEN
        raise RobotError(f"{self.name}: no answer in {CONNECT_SECONDS:.0f} s")

    def _listen(self) -> None:
        self.realtime.enter(above=-1)
        assert self._socket is not None
        self._socket.settimeout(channel.HEARTBEAT_EVERY / 2)
        while not self._closing:
            data = None
            try:
                data = self._socket.recv(channel.LARGEST)
            except TimeoutError:
                pass
            except ConnectionRefusedError:
                self._lose(f"{self.name}: the server has ended")
            except OSError as error:
                self._lose(f"{self.name}: {error.strerror or error}")
            now = time.monotonic()
            with self._lock:
                if self._lost:
                    return
                assert self._channel is not None
                message = None if data is None else self._channel.unseal(data, now)
                if message is not None:
                    self._take(message, now)
                if now - self._spoke >= channel.HEARTBEAT_EVERY and not self._closing:
                    with contextlib.suppress(RobotError):  # kept for the next call
                        self._send(channel.HEARTBEAT, b"")

    def _take(self, message: Message, now: float) -> None:
        """What the server says. Holds the lock, or there is no thread yet."""
        if len(message.payload) < STATUS.size:
            return
        motors, confirmed = STATUS.unpack_from(message.payload)
        payload = message.payload[STATUS.size :]
        with self._lock:
            if message.kind == channel.GOODBYE:
                self._lose(f"{self.name}: {payload.decode(errors='replace')}")
                return
            self._motors, self._confirmed = Motors(min(motors, Motors.DAMPED)), confirmed
            if message.kind == channel.HEARTBEAT:
                if self._motors is Motors.DAMPED and confirmed == self._activation:
                    self._damped = f"{self.name} {payload.decode(errors='replace')}"
            elif message.kind == packets.STATE:
                if message.stale:
                    self.stale += 1
                else:
                    try:
                        self._state = self._states.read(payload) or self._state
                    except ValueError as error:
                        self._lose(f"{self.name}: {error}")
            self._changed.notify_all()

    def _lose(self, why: str) -> None:
        with self._lock:
            self._lost = self._lost or why
            self._changed.notify_all()

    def _check_link(self, now: float) -> None:
        if self._channel is None or self._socket is None:
            raise RobotError(self._lost or f"{self.name} is not connected, configure it first")
        silent = now - self._channel.heard
        patience = channel.GONE_IDLE if self._motors is Motors.OFF else channel.GONE
        if not self._lost and silent > patience:
            self._lose(f"{self.name}: no word for {silent:.3f} s")
        if self._lost:
            raise RobotError(self._lost)

    def _check(self, now: float) -> None:
        self._check_link(now)
        if self._damped:
            raise RobotError(self._damped)

    def _until(self, kind: int, wanted: tuple[Motors, ...], seconds: float) -> bool:
        """Say it until the server confirms; False when it doesn't."""

        def done() -> bool:
            there = self._confirmed == self._activation and self._motors in wanted
            return bool(there or self._lost)

        deadline = time.monotonic() + seconds
        number = ACTIVATION.pack(self._activation)
        with self._lock:
            while time.monotonic() < deadline:
                self._send(kind, number)
                if self._changed.wait_for(done, AGAIN):
                    return not self._lost
        return False

    def _send(self, kind: int, payload: bytes) -> None:
        if self._socket is None or self._channel is None:
            raise RobotError(self._lost or f"{self.name} is not connected")
        self._spoke = now = time.monotonic()
        try:
            self._socket.send(self._channel.seal(kind, payload, now))
        except ConnectionRefusedError:
            self._lose(f"{self.name}: the server has ended")
            raise RobotError(self._lost) from None
        except (OSError, OverflowError) as error:
            self._lose(f"{self.name}: {error}")
            raise RobotError(self._lost) from None
