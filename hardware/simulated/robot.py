"""The Robot interface to a simulated robot that runs in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from motoric.control.command import MotorCommand
from motoric.hardware.drivers import ROBOTS, spec_of
from motoric.hardware.robot import MotorsDamped, Robot, RobotError, RobotSpec, RobotState
from motoric.hardware.simulated import packets
from motoric.hardware.specs.files import write_spec

ENGINES = ("mujoco", "pybullet")
CONNECT_SECONDS = 20.0  # starting Python, MuJoCo and the model on a busy machine


class SimRobot(Robot):
    """A simulated robot; `configure` starts its process, `close` ends it.

    robot: its name, of those in `ROBOTS` that have a model; or its configuration, a mapping of
        driver and options, whose spec names a model (its own driver is not connected)
    model: a user's own robot instead: its MJCF or URDF, and in `about` what that file
        leaves out, see `motoric.hardware.specs.from_model`
    engine: mujoco or pybullet; faults: obey `inject` (tests); record: file for what its motors did.
    damaged counts packets with a wrong checksum.

    Its motors damp when no command came for 0.1 s; once it has said so, `write` raises for any
    command with stiffness until it is activated again.
    """

    loop_rate = 500.0

    def __init__(
        self,
        robot: Any = "go2",
        faults: bool = False,
        engine: str = "mujoco",
        record: str | None = None,
        model: str | None = None,
        **about: Any,
    ) -> None:
        if engine not in ENGINES:
            raise ValueError(f"engine: {engine!r}, expected one of {', '.join(ENGINES)}")
        self.spec, self._faults = _simulated(robot, model, about), faults
        self.engine, self.record = engine, record
        self.process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._decoder, self._states = packets.Decoder(), packets.StateReader(self.spec)
        self._state: RobotState | None = None
        self._activation, self._damped = 0, False

    @property
    def damaged(self) -> int:
        return self._decoder.damaged

    def configure(self) -> None:
        if find_spec("mujoco") is None:
            raise RobotError("a simulated robot needs mujoco: pip install 'motoric[train]'")
        if self.engine == "pybullet" and find_spec("pybullet") is None:
            raise RobotError("engine=pybullet needs PyBullet: pip install 'motoric[pybullet]'")
        if self.record is not None and Path(self.record).exists():
            raise RobotError(f"record: {self.record} exists already")
        with tempfile.NamedTemporaryFile(suffix=".json", prefix="motoric-robot-") as file:
            name = self.spec.name
            if ROBOTS.get(name) is not self.spec:
                write_spec(self.spec, name := file.name)
            line = self._begin(name)
        if not line.startswith("port "):
            self.close()
            why = line.removeprefix("error ").strip() or "did not start"
            raise RobotError(f"simulated {self.spec.name}: {why}")
        deadline = time.monotonic() + CONNECT_SECONDS
        self._socket = socket.create_connection(("127.0.0.1", int(line.split()[1])), timeout=5.0)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        hello = None
        while self._state is None or hello is None:
            if time.monotonic() > deadline:
                self.close()
                raise RobotError(f"simulated {self.spec.name} is silent")
            for packet in self._receive():
                if packet.kind == packets.HELLO:
                    hello = json.loads(packet.payload)
                    self._check(hello)
            time.sleep(0.002)

    def _begin(self, name: str) -> str:
        """Start the process of a robot, by its name or the file of its spec; what it says first."""
        arguments = [
            sys.executable, "-m", "motoric.hardware.simulated.server", name,
            "--engine", self.engine,
        ]  # fmt: skip
        if self._faults:
            arguments.append("--faults")
        if self.record is not None:
            arguments += ["--record", self.record]
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], CONNECT_SECONDS)
        return self.process.stdout.readline().decode() if ready else ""

    def _check(self, hello: dict[str, Any]) -> None:
        for key, mine in (("robot", self.spec.name), ("joints", list(self.spec.joints))):
            if hello.get(key) != mine:
                self.close()
                raise RobotError(f"robot says {key} {hello.get(key)!r}, expected {mine!r}")

    def activate(self) -> None:
        self._activation, self._damped = self._activation + 1, False
        packet = packets.Packet(packets.ACTIVATE, self._activation, time.monotonic(), b"")
        self._send(packets.encode(packet))

    def read(self) -> RobotState:
        self._receive()
        if self._state is None:
            raise RobotError(f"simulated {self.spec.name}: no state yet, configure it first")
        return self._state

    def write(self, command: MotorCommand) -> None:
        if self._damped and not command.damps:
            raise MotorsDamped(
                f"simulated {self.spec.name}: no command for 0.1 s, its motors are damped; "
                "activate it"
            )
        self._send(packets.encode_command(command))

    def deactivate(self) -> None:
        # A robot that can't be reached damps by itself.
        with contextlib.suppress(RobotError):
            self._send(packets.encode(packets.Packet(packets.DEACTIVATE, 0, time.monotonic(), b"")))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self.process is not None:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.close()
            try:
                self.process.wait(2.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process.stdout.close()
            self.process = None

    def inject(self, **fault: Any) -> None:
        """Ask for a fault of `sim_server.Faults.apply`, or drop=True."""
        payload = json.dumps(fault).encode()
        self._send(packets.encode(packets.Packet(packets.FAULT, 0, time.monotonic(), payload)))

    def _receive(self) -> list[packets.Packet]:
        """All packets that have arrived; the newest state is kept."""
        if self._socket is None:
            raise RobotError(f"simulated {self.spec.name} is not connected")
        found = []
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                break
            except OSError as error:
                raise RobotError(f"simulated {self.spec.name}: {error.strerror}") from None
            if not data:
                raise RobotError(f"simulated {self.spec.name}: connection closed")
            found += self._decoder.feed(data)
        for packet in found:
            self._damped |= packet.kind == packets.DAMPED and packet.sequence == self._activation
        states = [packet for packet in found if packet.kind == packets.STATE]
        if not self.spec.sensors:
            states = states[-1:]
        for packet in states:  # each may bring a sensor that the next does not
            try:
                state = self._states.read(packet.time, packet.sequence, packet.payload)
            except ValueError as error:
                raise RobotError(f"simulated {self.spec.name}: {error}") from None
            self._state = self._state if state is None else state
        return found

    def _send(self, data: bytes) -> None:
        if self._socket is None:
            raise RobotError(f"simulated {self.spec.name} is not connected")
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            raise RobotError(f"simulated {self.spec.name} takes no commands") from None
        except OSError as error:
            raise RobotError(f"simulated {self.spec.name}: {error.strerror}") from None
        if sent != len(data):
            raise RobotError(f"simulated {self.spec.name} takes no commands")


def _simulated(robot: Any, model: str | None, about: dict[str, Any]) -> RobotSpec:
    """What is to be simulated. Raises ValueError naming the option."""
    if model is not None:
        from motoric.hardware.specs.from_model import spec_from_model

        known = list(inspect.signature(spec_from_model).parameters)[2:]
        for key in about:
            if key not in known:
                raise ValueError(f"{key}: no such option, expected one of {', '.join(known)}")
        return spec_from_model(Path(model).stem, model, **about)
    if about:
        raise ValueError(f"{next(iter(about))}: no such option without model")
    known = [name for name, spec in ROBOTS.items() if spec.model]
    named = not isinstance(robot, RobotSpec | Mapping) and not dataclasses.is_dataclass(robot)
    if named and robot not in known:
        raise ValueError(f"robot: {robot!r}, expected one of {', '.join(known)}")
    try:
        spec = spec_of(robot)
    except ValueError as error:
        raise ValueError(f"robot: {error}") from None
    if spec.model is None:
        raise ValueError(f"robot: {spec.name} has no model to simulate, name one as its model")
    return spec
