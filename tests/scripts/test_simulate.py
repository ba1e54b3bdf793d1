"""`motoric simulate`: a process that serves, and others that use it over the real wire."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from motoric.control.command import MotorCommand
from motoric.control.loop import RateLoop
from motoric.hardware.drivers import DRIVERS, STAND_INS, make_robot
from motoric.hardware.dynamixel import stand_in as simulated_chain
from motoric.hardware.dynamixel.calibration import (
    Calibrated,
    load_calibration,
    save_calibration,
)
from motoric.hardware.dynamixel.robot import DynamixelRobot
from motoric.hardware.dynamixel.stand_in import SimulatedChain
from motoric.hardware.specs.b2 import B2
from motoric.hardware.specs.g1 import G1
from motoric.scripts.cli import main

from ..hardware.dynamixel.test_dynamixel import LATE, TARGET, options, write_arm_bundle
from ..hardware.dynamixel.test_dynamixel_timing import arm


class Process:
    """`motoric simulate …`; `deploy` is the command it prints."""

    def __init__(self, *arguments: str, cwd: Path):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "motoric.scripts.cli", "simulate", *arguments], cwd=cwd,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.says = self.process.stdout.readline()
        self.deploy = shlex.split(self.process.stdout.readline())
        if not self.deploy:
            raise AssertionError(self.process.communicate(timeout=10)[1])

    def end(self, number: int = signal.SIGTERM) -> str:
        self.process.send_signal(number)
        out, error = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, error
        return out


@pytest.fixture
def simulate(tmp_path):
    made = []

    def start(*arguments: str) -> Process:
        made.append(Process(*arguments, cwd=tmp_path))
        return made[-1]

    yield start
    for process in made:
        process.process.kill()
        process.process.communicate()


# What a program of ROBOTIS' SDK does, without anything of ours.
PROGRAM = r"""
import sys, time
import dynamixel_sdk as sdk

port, handler = sdk.PortHandler(sys.argv[1]), sdk.PacketHandler(2.0)
assert port.openPort() and port.setBaudRate(int(sys.argv[2]))
found, result = handler.broadcastPing(port)
assert result == sdk.COMM_SUCCESS, result
assert [found[id][0] for id in sorted(found)] == [1060, 1060, 1200, 1200, 1200, 1190], found
assert sorted(found) == [1, 2, 3, 4, 5, 6]
for id in found:
    assert handler.write1ByteTxRx(port, id, 64, 1) == (sdk.COMM_SUCCESS, 0)
goals = sdk.GroupSyncWrite(port, handler, 116, 4)
for id in found:
    goals.addParam(id, list((2048 + 50 * id).to_bytes(4, "little")))
assert goals.txPacket() == sdk.COMM_SUCCESS
state = sdk.GroupSyncRead(port, handler, 132, 4)
for id in found:
    state.addParam(id)
end = time.time() + 20
while True:
    if state.txRxPacket() == sdk.COMM_SUCCESS:
        off = [abs(state.getData(id, 132, 4) - 2048 - 50 * id) for id in found]
        if max(off) < 20:
            break
    assert time.time() < end, off
for id in found:
    assert handler.write1ByteTxRx(port, id, 64, 0) == (sdk.COMM_SUCCESS, 0)
print("there")
"""


def test_an_arm_for_the_vendors_sdk(simulate, tmp_path):
    served = simulate(
        "robot=x_arm6", "robot.options.baud=115200", "robot.options.rate=30", f"port={tmp_path}/arm"
    )
    assert served.says == (
        f"simulated x_arm6 on {tmp_path}/arm at 115200 baud, torque off (Ctrl-C ends)\n"
    )
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), f"{tmp_path}/arm", "115200"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "there\n", done.stderr
    assert {"robot.options.baud=115200", "robot.options.rate=30"} <= set(served.deploy)
    assert served.end(signal.SIGINT) == "simulated x_arm6: ended\n"
    assert not os.path.lexists(tmp_path / "arm")


def test_the_printed_command_deploys_on_the_arm(simulate, tmp_path):
    """`simulate` in one process, what it says to type in another, a line that loses bytes."""
    write_arm_bundle(tmp_path / "run/bundle/best", arm())
    served = simulate("robot=x_arm6", "lose=0.0001", "corrupt=0.0001", "robot.options.watchdog=0.5")
    port = re.search(r"on (/dev/pts/\d+) at 1000000 baud", served.says)
    assert port is not None
    command = [w.replace("runs/DIR", str(tmp_path / "run")) for w in served.deploy[1:]]
    assert f"robot.options.port={port[1]}" in command
    for _ in range(5):  # a machine too busy for a state every 0.1 s is a fault too
        done = subprocess.run(
            [sys.executable, "-m", "motoric.scripts.cli", *command, "duration=0.5"], text=True,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=100, cwd=tmp_path,
        )  # fmt: skip
        if not re.search(rf"fault +({LATE.pattern})", done.stdout):
            break
    assert done.returncode == 0, done.stdout + done.stderr
    assert "100 Hz" in done.stdout, "the bus's rate"
    assert "nan" not in done.stdout
    assert re.search(r"policy acted +0.5 s", done.stdout)
    calibration = Path(re.search(r"calibration=(\S+)", " ".join(command))[1])  # type: ignore[index]
    assert calibration.exists()
    from motoric.hardware.runtime.log import read_log

    (log, *_) = sorted((tmp_path / "run/logs").glob("*.mcap"), reverse=True)
    assert abs(read_log(log).position[:, 2]).max() > 0.8 * abs(TARGET[2])
    assert served.end() == "simulated x_arm6: ended\n"
    assert not calibration.exists(), "it leaves nothing behind"


def test_a_hand_calibrates_the_arm(tmp_path, monkeypatch):
    """It holds the zero pose, then moves joint after joint from end to end."""
    monkeypatch.setattr(simulated_chain, "HAND_SECONDS", 1.0)
    values = options() | {"calibration": str(tmp_path / "arm.json")}
    chain, stop = SimulatedChain(values, port=str(tmp_path / "arm"), hand=True), threading.Event()
    thread = threading.Thread(target=chain.run, args=(stop,), daemon=True)
    thread.start()
    robot = DynamixelRobot(**values | {"port": str(tmp_path / "arm")})
    until = []
    try:
        robot.calibrate(
            lambda: until.append(time.monotonic() + simulated_chain.HAND_WAITS + 6.5),
            lambda: time.monotonic() > until[0],
        )
        found = load_calibration(tmp_path / "arm.json", "x_arm6", robot.joints)
        assert [one.homing for one in found] == [2048] * 6
        # Another one, at the zero of this calibration, for nothing else is known of it.
        again = SimulatedChain(values)
        assert not any("calibration" in word for word in again.reach)
        again.close()
    finally:
        robot.close()
        stop.set()
        thread.join(5.0)
        chain.close()


@pytest.mark.parametrize(("stand", "direction"), [(0.0, 1), (0.4, -1)])
def test_the_arm_begins_at_rest(tmp_path, stand, direction):
    """By its calibration: where the driver finds it is where the configuration says it rests."""
    values = options() | {"calibration": str(tmp_path / "arm.json")}
    values["joints"]["elbow_flex"] |= {"stand": stand, "rest": -stand, "direction": direction}
    robot = DynamixelRobot(**values)
    save_calibration(tmp_path / "arm.json", "x_arm6", {
        j.name: Calibrated(j.id, j.model.name, 100 * j.id, j.direction, 100 * j.id - 2048,
                           100 * j.id + 2048)
        for j in robot.joints
    })  # fmt: skip
    chain, stop = SimulatedChain(values, port=str(tmp_path / "arm")), threading.Event()
    thread = threading.Thread(target=chain.run, args=(stop,), daemon=True)
    thread.start()
    robot.port = str(tmp_path / "arm")
    try:
        robot.configure()
        assert robot.read().position == pytest.approx(robot.spec.rest, abs=0.01)
    finally:
        robot.close()
        stop.set()
        thread.join(5.0)
        chain.close()


def test_a_go2_is_served_until_sigterm(simulate, domain):
    served = simulate("robot=go2", f"robot.options.domain={domain}", "lose=0.01")
    assert f"on lo, DDS domain {domain}: lying" in served.says
    assert served.deploy[-2:] == ["interface=lo", f"robot.options.domain={domain}"]
    assert served.end() == "simulated go2: ended\n"


@pytest.mark.parametrize("spec", [B2, G1], ids=lambda spec: spec.name)
def test_our_driver_moves_the_other_unitree_robots(simulate, domain, spec):
    """A B2 rises and a G1 stretches its joints out, hanging, to the pose they stand in."""
    served = simulate(f"robot={spec.name}", f"robot.options.domain={domain}")
    assert ("hanging on a rope" in served.says) == (spec is G1)
    robot = make_robot(spec.name, interface="lo", domain=domain)
    zero, kp = np.zeros(len(spec.joints)), spec.kp
    try:
        robot.configure()
        robot.activate()
        start = robot.read()
        begin = np.clip(start.position, spec.limits.lower, spec.limits.upper)
        end = time.monotonic() + 20.0
        for tick in RateLoop(200):
            state = robot.read()
            if np.abs(state.position - spec.stand).max() < 0.1 or time.monotonic() > end:
                break
            target = begin + min(tick / 300, 1.0) * (spec.stand - begin)
            robot.write(MotorCommand(target, zero, kp, spec.kd, zero, time.monotonic(), tick))
        assert np.abs(state.position - spec.stand).max() < 0.1
        assert state.battery == 95
        if spec is B2:
            assert state.base_height > start.base_height + 0.3
        robot.deactivate()
    finally:
        robot.close()
    served.end()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["robot=sim_go2"], "robot: 'sim_go2' has no simulated counterpart on a wire of its own, "),
        (["robot=remote_go2"], "expected one of b2, g1, go2, x_arm6"),
        (["robot=go2", "port=/tmp/x"], "port: /tmp/x, a simulated go2 takes interface, lose, corr"),
        (["robot=go2", "hand=true"], "hand: True, a simulated go2 takes interface"),
        (["robot=go2", "interface=nowhere0"], "interface: 'nowhere0' is not one of this machine"),
        (["robot=x_arm6", "interface=lo"], "interface: lo, a simulated x_arm6 takes port, lose, c"),
        (["robot=x_arm6", "viewer=web"], "viewer: 'web', x_arm6 has no model to show"),
        (["robot=x_arm6", "port=."], "port: . is there already, expected a path to make"),
        (["robot=x_arm6", "port=/nowhere/arm"], "port: /nowhere/arm: No such file or directory"),
        (["robot=x_arm6", "lose=1.5"], "lose: 1.5, expected at most 1"),
        (["robot=x_arm6", "robot.options.baud=9600"], "rate: 100 Hz, 6 servos at 9600 baud"),
        (["robot=x_arm6", "robot.options.calibration=bad.json"], "calibration bad.json can't be"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text("{")
    assert main(["simulate", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_every_simulated_robot_has_a_driver():
    assert set(STAND_INS) <= set(DRIVERS)
    assert set(options()) >= {"port", "baud", "calibration"}


def test_a_model_is_not_served_as_another_robot(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "motoric.scripts.cli", "simulate", "robot=go2",
         "robot.model=arm.urdf"],
        text=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert "robot.model: arm.urdf, a simulated go2 has its own" in done.stderr
    assert done.stderr.count("\n") == 1
