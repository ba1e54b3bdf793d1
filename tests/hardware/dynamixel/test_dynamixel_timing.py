"""What rate a chain holds: the arithmetic, against bytes on the wire and against the clock."""

from __future__ import annotations

import time
from pathlib import Path

import dynamixel_sdk as sdk
import numpy as np
import pytest
import yaml
from motoric.control.command import MotorCommand
from motoric.control.loop import RateLoop
from motoric.hardware.drivers import make_robot
from motoric.hardware.dynamixel import timing
from motoric.hardware.dynamixel.emulator import make_chain
from motoric.hardware.dynamixel.goals import GOAL_BYTES
from motoric.hardware.dynamixel.models import STATE
from motoric.hardware.dynamixel.robot import DynamixelRobot
from motoric.hardware.dynamixel.stand_in import SimulatedChain
from motoric.hardware.robot import RobotError
from motoric.hardware.runtime.deploy import ticks_per_action

from .test_dynamixel import options

BAUD = 1_000_000
MODES = ("position", "velocity", "current", "current_position", None)


def arm(mode: str | None = None, **changes) -> DynamixelRobot:
    robot = make_robot("dynamixel", **options(mode) | changes)
    assert isinstance(robot, DynamixelRobot)
    return robot


class Wire:
    """In the place of the SDK's port: keeps what is sent."""

    is_using = False

    def __init__(self):
        self.sent: list[bytes] = []

    def clearPort(self):
        pass

    def setPacketTimeout(self, length):
        pass

    def writePort(self, packet):
        self.sent.append(bytes(packet))
        return len(packet)


def frames(robot: DynamixelRobot) -> list[bytes]:
    """The goals and the question of a cycle, as the SDK makes them."""
    wire, handler = Wire(), sdk.PacketHandler(2.0)
    count, lengths = len(robot.joints), [GOAL_BYTES[j.mode] for j in robot.joints]
    if len(set(lengths)) == 1:
        group = sdk.GroupSyncWrite(wire, handler, 102, lengths[0])
        for joint in robot.joints:
            group.addParam(joint.id, [0] * lengths[0])
    else:
        group = sdk.GroupBulkWrite(wire, handler)
        for joint, length in zip(robot.joints, lengths, strict=True):
            group.addParam(joint.id, 102, length, [0] * length)
    group.txPacket()
    read = sdk.GroupSyncRead(wire, handler, *STATE)
    for joint in robot.joints:
        read.addParam(joint.id)
    read.txPacket()
    assert len(wire.sent) == 2
    assert len(wire.sent[1]) + count * (11 + STATE[1]) == timing.read_bytes(count, STATE[1])
    assert len(wire.sent[0]) == timing.write_bytes(lengths, len(set(lengths)) == 1)
    return wire.sent


@pytest.mark.parametrize("baud", [57600, BAUD, 4_000_000])
@pytest.mark.parametrize("mode", MODES)
def test_a_cycle_takes_as_long_as_the_arithmetic_says(mode, baud):
    """The SDK's own bytes, on the emulated wire with servos that take 50 us to answer."""
    robot = arm(mode, rate=1)
    chain = make_chain([(j.id, j.model.name) for j in robot.joints], baud, adapter=timing.ADAPTER)
    for servo in chain.servos:
        servo.values["return_delay_time"] = 25
    goals, question = frames(robot)
    assert not chain.receive(goals, 0.0, baud)
    answers = chain.receive(question, 0.0, baud)
    assert len(answers) == 6
    lengths = [GOAL_BYTES[j.mode] for j in robot.joints]
    expected = timing.write_seconds(lengths, len(set(lengths)) == 1, baud)
    expected += timing.read_seconds(6, STATE[1], baud) - 6 * timing.PARSE
    assert answers[-1][0] == pytest.approx(expected)
    most = timing.most_rate(robot.joints, baud)
    share = most * (expected + 6 * timing.PARSE)  # the rest is for temperatures and watchdogs
    assert (0.85 if baud == 57600 else 0.97) < share < 1


def test_the_loop_has_the_rate_of_the_configuration():
    robot = arm()
    assert robot.loop_rate == 100.0
    assert robot.most_rate == pytest.approx(212.6, abs=0.1)
    assert arm(baud=4_000_000).most_rate == pytest.approx(419.2, abs=0.1)
    assert arm("current").most_rate > robot.most_rate  # two bytes a goal instead of 18
    config = yaml.safe_load((Path(__file__).parents[3] / "configs/robot/x_arm6.yaml").read_text())
    assert config["options"]["rate"] <= robot.most_rate


def test_a_rate_that_the_bus_can_not_hold_is_refused():
    with pytest.raises(ValueError, match=r"rate: 100 Hz, 6 servos at 57600 baud .* 16 times"):
        arm(baud=57600)
    with pytest.raises(ValueError, match=r"rate: 250 Hz, 6 servos at 1000000 baud .* 213 times"):
        arm(rate=250)
    assert arm(baud=57600, rate=15).loop_rate == 15.0


@pytest.mark.parametrize(
    ("rate", "wished", "robot", "ratio"),
    [(50, None, 100.0, 2), (60, None, 100.0, 2), (50, None, 212.0, 4), (50, 200, 100.0, 4),
     (80, None, 200.0, 2), (50, 50, 100.0, 1)],
)  # fmt: skip
def test_the_loop_is_never_faster_than_the_link(rate, wished, robot, ratio):
    assert ticks_per_action(rate, wished, robot, 212.6) == ratio


def test_a_loop_or_a_policy_that_the_link_can_not_take_is_refused():
    with pytest.raises(ValueError, match="loop_rate: 250 Hz, the robot's link takes at most 213"):
        ticks_per_action(50, 250, 100.0, 212.6)
    with pytest.raises(ValueError, match="policy acts at 50 Hz, the robot's link takes at most 16"):
        ticks_per_action(50, None, 15.0, 16.2)


@pytest.fixture
def simulated(tmp_path):
    """A simulated arm behind a port, its adapter's 1 ms included, and its driver."""
    import threading

    made = []

    def start(**changes):
        values = options() | {"calibration": str(tmp_path / "none.json"), "watchdog": 0.5} | changes
        chain, stop = SimulatedChain(values, port=str(tmp_path / "port")), threading.Event()
        thread = threading.Thread(target=chain.run, args=(stop,), daemon=True)
        thread.start()
        reach = dict(word.removeprefix("robot.options.").split("=") for word in chain.reach)
        robot = DynamixelRobot(**values | reach)
        made.append((robot, chain, stop, thread))
        return robot

    yield start
    for robot, chain, stop, thread in made:
        robot.close()
        stop.set()
        thread.join(5.0)
        chain.close()


def held(robot: DynamixelRobot, rate: float, seconds: float) -> float:
    """States per tick of a loop that reads and commands at this rate."""
    zero, numbers = np.zeros(6), set()
    loop = RateLoop(rate, round(seconds * rate))
    for tick in loop:
        numbers.add(robot.read().sequence)
        command = MotorCommand(
            zero, zero, robot.spec.kp, robot.spec.kd, zero, time.monotonic(), tick
        )
        robot.write(command)
    return len(numbers) / loop.deadline


@pytest.mark.parametrize(("baud", "rate"), [(BAUD, 100), (57600, 16)])
def test_the_bus_holds_the_rate(simulated, baud, rate):
    """The loop finds a new state at each tick, but for those in which temperatures were read."""
    robot = simulated(baud=baud, rate=rate)
    robot.configure()
    robot.activate()
    best = 0.0
    for _ in range(6):  # a busy machine may need another go
        best = max(best, held(robot, rate, 1.0))
        if best > 0.85:
            break
    assert best > 0.85
    assert robot.misread < 30


def test_an_adapter_that_keeps_bytes_back_is_told_of(simulated, monkeypatch):
    monkeypatch.setattr("motoric.hardware.dynamixel.bus._adapter_latency", lambda name: 0.016)
    robot = simulated()
    with pytest.raises(
        RobotError, match=r"rate: 100 Hz, the adapter of .* for 16 ms, .* latency_t"
    ):
        robot.configure()
    assert robot.most_rate < 60
