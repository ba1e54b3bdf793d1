"""A simulated robot in its own process: physics in real time behind a TCP port of this machine.

It begins lying down with its motors off. The motors compute their own PD torque from the last
command, clipped to their limits, and damp when no command came for 100 ms or the client has gone.
After 150 ms they stay damped, and the client is told, until they are switched on anew: a policy
that comes back finds a robot that no longer moves. It ends when its standard input closes, that is
with the process that started it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from motoric.control.command import MotorCommand
from motoric.hardware.drivers import ROBOTS
from motoric.hardware.robot import RobotSpec
from motoric.hardware.simulated import packets
from motoric.hardware.simulated.body import LAG, TIMESTEP, WATCHDOG, Body, real_time
from motoric.hardware.simulated.recording import Recording
from motoric.hardware.specs.files import read_spec

if TYPE_CHECKING:
    from motoric.hardware.simulated.pybullet_body import PyBulletBody

    AnyBody = Body | PyBulletBody


LATCH = WATCHDOG + LAG  # simulated time may run that much ahead: at least WATCHDOG for the client


class Latch:
    """Between the client and the motors: after a silence they obey only a new activation."""

    def __init__(self, simulation: AnyBody) -> None:
        self._motors = simulation
        self.activation = 0  # the client's number of it
        self.closed, self.tell = False, False  # tell: the client shall hear of it

    def activate(self, number: int) -> None:
        self._motors.on, self._motors.command = True, None
        self.activation, self.closed, self.tell = number, False, False

    def lose(self) -> None:
        """The client has gone: damped, and the next one has to switch the motors on."""
        self._motors.command, self.closed, self.tell = None, True, False

    def take(self, command: MotorCommand) -> None:
        if self.closed:
            self.tell = True
        else:
            self._motors.take(command)

    def watch(self) -> None:
        """Once per step, after what came was taken."""
        motors = self._motors
        silent = motors.command is not None and motors.time - motors.commanded_at > LATCH
        if motors.on and silent and not self.closed:
            self.closed = self.tell = True


class Faults:
    """What tests may ask of the robot: see `apply`."""

    def __init__(self) -> None:
        self.frozen_until = -np.inf
        self.corrupt = 0.0
        self.rng = np.random.default_rng(0)

    def apply(self, wish: dict[str, Any], simulation: AnyBody) -> None:
        """freeze: s the same measurement is repeated; corrupt: share of packets with a flipped
        byte; joint: [index, rad] puts a joint there; push: [x, y, z] m/s; tip: rad of roll."""
        if "freeze" in wish:
            self.frozen_until = simulation.time + wish["freeze"]
        if "corrupt" in wish:
            self.corrupt = wish["corrupt"]
        if "joint" in wish:
            simulation.disturb(joint=wish["joint"])
        if "push" in wish:
            simulation.disturb(push=wish["push"])
        if "tip" in wish:
            simulation.disturb(roll=wish["tip"], lift=0.3)

    def damage(self, data: bytes) -> bytes:
        if self.rng.random() >= self.corrupt:
            return data
        changed = bytearray(data)
        changed[self.rng.integers(len(changed))] ^= 0x10
        return bytes(changed)


def simulate(spec: RobotSpec, engine: str) -> AnyBody:
    """The robot in an engine, lying on the floor with its motors off."""
    if engine == "mujoco":
        return Body(spec)
    from motoric.hardware.simulated.pybullet_body import PyBulletBody

    return PyBulletBody(spec)


def serve(
    spec: RobotSpec,
    allow_faults: bool,
    engine: str,
    record: str | None,
    stop: threading.Event,
) -> None:
    """Print the port, then simulate until `stop` is set; one client at a time."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    try:
        states = packets.StateWriter(spec)
        simulation, faults = simulate(spec, engine), Faults()
        simulation.state()  # the first picture of a camera takes long
    except Exception as error:  # a model that does not fit, no PyBullet, no way to draw
        print(f"error {' '.join(str(error).split()) or type(error).__name__}", flush=True)
        os._exit(1)  # at once: a thread waits for standard input
    print(f"port {listener.getsockname()[1]}", flush=True)
    latch = Latch(simulation)
    hello = json.dumps({"robot": spec.name, "joints": spec.joints, "rate": 1 / TIMESTEP}).encode()
    client: socket.socket | None = None
    decoder, state = packets.Decoder(), simulation.state()
    recording = None if record is None else Recording(record, simulation)
    for _ in real_time(TIMESTEP):
        if stop.is_set():
            break
        if client is None:
            try:
                client, _ = listener.accept()
            except BlockingIOError:
                pass
            else:
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                decoder, states = packets.Decoder(), packets.StateWriter(spec)
                client.send(packets.encode(packets.Packet(packets.HELLO, 0, 0.0, hello)))
        elif not _receive(client, decoder, simulation, latch, faults if allow_faults else None):
            client.close()
            client = None
            latch.lose()
        latch.watch()
        if recording is not None:
            recording.step()
        simulation.step()
        if simulation.time >= faults.frozen_until:
            state = simulation.state()
        if client is not None:
            try:
                if latch.tell:
                    number = latch.activation
                    client.send(packets.encode(packets.Packet(packets.DAMPED, number, 0.0, b"")))
                    latch.tell = False
                client.send(faults.damage(states.encode(state)))
            except BlockingIOError:
                pass  # the client doesn't read: this measurement is lost to it
            except OSError:
                client.close()
                client = None
                latch.lose()
    if recording is not None:
        recording.close()
    simulation.close()


def _receive(
    client: socket.socket,
    decoder: packets.Decoder,
    simulation: AnyBody,
    latch: Latch,
    faults: Faults | None,
) -> bool:
    """Act on what has arrived; False when the client has gone."""
    try:
        data = client.recv(65536)
    except BlockingIOError:
        return True
    except OSError:
        return False
    if not data:
        return False
    for packet in decoder.feed(data):
        if packet.kind == packets.COMMAND:
            try:
                latch.take(packets.decode_command(packet, len(simulation.spec.joints)))
            except ValueError:
                decoder.damaged += 1
        elif packet.kind == packets.ACTIVATE:
            latch.activate(packet.sequence)
        elif packet.kind == packets.DEACTIVATE:
            simulation.on = False
        elif packet.kind == packets.FAULT and faults is not None:
            wish = json.loads(packet.payload)
            if wish.get("drop"):
                return False
            faults.apply(wish, simulation)
    return True


def _end_with_parent() -> threading.Event:
    """Set when standard input closes; should the simulation hang, the process ends all the same."""
    stop = threading.Event()

    def wait() -> None:
        sys.stdin.buffer.read()
        stop.set()
        time.sleep(1.0)
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
    return stop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("robot", help=f"{', '.join(ROBOTS)}, or a JSON file of a spec")
    parser.add_argument("--faults", action="store_true", help="obey injected faults (tests)")
    parser.add_argument("--record", help="file for what the motors did")
    parser.add_argument("--engine", choices=("mujoco", "pybullet"), default="mujoco")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C is the operator's, not the robot's
        signal.signal(number, signal.SIG_IGN)
    stop = _end_with_parent()
    robot = arguments.robot
    try:
        spec = ROBOTS[robot] if robot in ROBOTS else read_spec(robot)
    except ValueError as error:
        parser.error(str(error))
    serve(spec, arguments.faults, arguments.engine, arguments.record, stop)


if __name__ == "__main__":
    main()
