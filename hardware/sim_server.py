"""A simulated robot in its own process: MuJoCo in real time behind a TCP port of this machine.

It begins lying down with its motors off. The motors compute their own PD torque from the last
command, clipped to their limits, and damp when no command came for 100 ms. It ends when its
standard input closes, that is with the process that started it.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
import time
from typing import Any

import mujoco
import numpy as np
from motoric.hardware import packets
from motoric.hardware.go2 import GO2
from motoric.hardware.models import load_model
from motoric.hardware.robot import RobotCommand, RobotSpec, RobotState

ROBOTS = {GO2.name: GO2}
TIMESTEP = 0.0025  # s; every step is a measurement that is sent
WATCHDOG = 0.1  # s without a command until the motors damp
DAMPING = 2.0  # N m s / rad


class Simulation:
    """One robot's physics and motors.

    Motors: off (no torque), damped, or following the last command.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self.spec = spec
        self.model = load_model(spec)
        self.model.opt.timestep = TIMESTEP
        self.data = mujoco.MjData(self.model)
        self.on = False
        self.command: RobotCommand | None = None
        self.commanded_at = -np.inf  # simulated time
        self.steps = 0
        height = 0.5 * spec.base_height
        self.data.qpos[:7] = [0, 0, height, 1, 0, 0, 0]
        self.data.qpos[7:] = spec.rest
        for _ in range(round(1.0 / TIMESTEP)):  # let it settle on the floor
            self.step()

    def step(self) -> None:
        """One time step of physics under the motors' present state."""
        model, zero = self.model, np.zeros(len(self.spec.joints))
        kp, kd, offset, target = zero, zero, zero, self.data.qpos[7:]
        command = self.command
        if self.on and command is not None and self.data.time - self.commanded_at <= WATCHDOG:
            kp, kd, target = command.kp, command.kd, command.position
            offset = command.kd * command.velocity + command.torque
        elif self.on:
            kd = np.full(len(zero), DAMPING)
        model.actuator_gainprm[:, 0] = kp
        model.actuator_biasprm[:, 0] = offset
        model.actuator_biasprm[:, 1] = -kp
        model.actuator_biasprm[:, 2] = -kd
        self.data.ctrl[:] = target
        mujoco.mj_step(model, self.data)
        self.steps += 1

    def take(self, command: RobotCommand) -> None:
        self.command, self.commanded_at = command, self.data.time

    def state(self) -> RobotState:
        """Measured now; base velocity in the base frame."""
        data = self.data
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, data.qpos[3:7])
        return RobotState(
            time=data.time,
            sequence=self.steps,
            position=data.qpos[7:].copy(),
            velocity=data.qvel[6:].copy(),
            torque=data.actuator_force.copy(),
            orientation=data.qpos[3:7].copy(),
            angular_velocity=data.qvel[3:6].copy(),
            base_velocity=rotation.reshape(3, 3).T @ data.qvel[:3],
            base_height=float(data.qpos[2]),
        )


class Faults:
    """What tests may ask of the robot: see `apply`."""

    def __init__(self) -> None:
        self.frozen_until = -np.inf
        self.corrupt = 0.0
        self.rng = np.random.default_rng(0)

    def apply(self, wish: dict[str, Any], simulation: Simulation) -> None:
        """freeze: s the same measurement is repeated; corrupt: share of packets with a flipped
        byte; joint: [index, rad] puts a joint there; push: [x, y, z] m/s; tip: rad of roll."""
        data = simulation.data
        if "freeze" in wish:
            self.frozen_until = data.time + wish["freeze"]
        if "corrupt" in wish:
            self.corrupt = wish["corrupt"]
        if "joint" in wish:
            index, angle = wish["joint"]
            data.qpos[7 + index] = angle
        if "push" in wish:
            data.qvel[:3] += wish["push"]
        if "tip" in wish:
            turn = np.array([np.cos(wish["tip"] / 2), np.sin(wish["tip"] / 2), 0, 0])
            mujoco.mju_mulQuat(data.qpos[3:7], data.qpos[3:7].copy(), turn)
            data.qpos[2] += 0.3

    def damage(self, data: bytes) -> bytes:
        if self.rng.random() >= self.corrupt:
            return data
        changed = bytearray(data)
        changed[self.rng.integers(len(changed))] ^= 0x10
        return bytes(changed)


def serve(spec: RobotSpec, allow_faults: bool) -> None:
    """Print the port, then simulate; one client at a time."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    print(f"port {listener.getsockname()[1]}", flush=True)
    simulation, faults = Simulation(spec), Faults()
    hello = json.dumps({"robot": spec.name, "joints": spec.joints, "rate": 1 / TIMESTEP}).encode()
    client: socket.socket | None = None
    decoder, state = packets.Decoder(), simulation.state()
    due = time.monotonic()
    while True:
        if client is None:
            try:
                client, _ = listener.accept()
            except BlockingIOError:
                pass
            else:
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                decoder = packets.Decoder()
                client.send(packets.encode(packets.Packet(packets.HELLO, 0, 0.0, hello)))
        elif not _receive(client, decoder, simulation, faults if allow_faults else None):
            client.close()
            client = None
            simulation.on = False
        simulation.step()
        if simulation.data.time >= faults.frozen_until:
            state = simulation.state()
        if client is not None:
            try:
                client.send(faults.damage(packets.encode_state(state)))
            except BlockingIOError:
                pass  # the client doesn't read: this measurement is lost to it
            except OSError:
                client.close()
                client = None
                simulation.on = False
        due += TIMESTEP
        now = time.monotonic()
        if now - due > 0.05:  # the machine was busy: simulated time waits rather than races
            due = now
        elif due > now:
            time.sleep(due - now)


def _receive(
    client: socket.socket,
    decoder: packets.Decoder,
    simulation: Simulation,
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
                simulation.take(packets.decode_command(packet, len(simulation.spec.joints)))
            except ValueError:
                decoder.damaged += 1
        elif packet.kind == packets.ACTIVATE:
            simulation.on, simulation.command = True, None
        elif packet.kind == packets.DEACTIVATE:
            simulation.on = False
        elif packet.kind == packets.FAULT and faults is not None:
            wish = json.loads(packet.payload)
            if wish.get("drop"):
                return False
            faults.apply(wish, simulation)
    return True


def _end_with_parent() -> None:
    def wait() -> None:
        sys.stdin.buffer.read()
        import os

        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("robot", choices=sorted(ROBOTS))
    parser.add_argument("--faults", action="store_true", help="obey injected faults (tests)")
    arguments = parser.parse_args()
    import signal

    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C is the operator's, not the robot's
        signal.signal(number, signal.SIG_IGN)
    _end_with_parent()
    serve(ROBOTS[arguments.robot], arguments.faults)


if __name__ == "__main__":
    main()
