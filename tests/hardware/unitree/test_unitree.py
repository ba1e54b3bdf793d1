"""Unitree over DDS: bytes against the vendor's SDK, deployment, and faults on a real domain."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
from mcap.reader import NonSeekingReader
from motoric.control.command import MotorCommand
from motoric.hardware.drivers import ROBOTS, make_robot
from motoric.hardware.robot import RobotError
from motoric.hardware.runtime.bundle import Bundle
from motoric.hardware.runtime.deploy import deploy
from motoric.hardware.runtime.log import read_log
from motoric.hardware.specs.b2 import B2
from motoric.hardware.specs.g1 import G1
from motoric.hardware.specs.go2 import GO2
from motoric.hardware.unitree.dds import Dds
from motoric.hardware.unitree.robot import (
    B2_WIRE,
    G1_WIRE,
    GO2_WIRE,
    STALE,
    UnitreeRobot,
    decode_state,
    encode_command,
    messages,
    rpc,
)
from unitree_sdk2py.idl import default
from unitree_sdk2py.utils.crc import CRC

pytestmark = pytest.mark.usefixtures("quick")


class Simulated:
    """A simulated Go2 in a process of its own."""

    def __init__(self, domain: int, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "motoric.hardware.unitree.server", "go2", "--domain",
             str(domain), *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def close(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def simulated(domain):
    made = []

    def start(*options: str) -> Simulated:
        made.append(Simulated(domain, *options))
        return made[-1]

    yield start
    for server in made:
        server.close()


@pytest.fixture
def go2(domain):
    robot = make_robot("go2", interface="lo", domain=domain, hear_seconds=15.0)
    yield robot
    robot.close()


# -- messages ---------------------------------------------------------------------------------


def fill(message, rng):
    """Random numbers in every field of one of the SDK's messages."""

    def value(old, kind):
        if dataclasses.is_dataclass(old):
            return fill(old, rng)
        if isinstance(old, list):
            return [value(item, kind) for item in old]
        for name, bits in (("int8", 7), ("int16", 15), ("int32", 31)):
            if name in kind:
                return rng.randrange(2**bits)
        return float(np.float32(rng.gauss(0, 1)))

    for item in dataclasses.fields(message):
        setattr(message, item.name, value(getattr(message, item.name), repr(item.type)))
    return message


TYPES = {
    "unitree_go_msg_dds__LowCmd_": messages.GO.command,
    "unitree_go_msg_dds__LowState_": messages.GO.state,
    "unitree_hg_msg_dds__LowCmd_": messages.HG.command,
    "unitree_hg_msg_dds__LowState_": messages.HG.state,
    "unitree_go_msg_dds__SportModeState_": messages.SPORT_STATE,
    "unitree_hg_msg_dds__BmsState_": messages.HG_BMS,
}


@pytest.mark.parametrize("name", TYPES)
def test_bytes_and_checksum_are_those_of_the_sdk(name):
    rng, layout = random.Random(1), TYPES[name]
    for _ in range(5):
        theirs = fill(getattr(default, name)(), rng)
        data = bytes(theirs.serialize())
        ours = layout.decode(data)
        assert layout.encode(ours) == data
        if "Low" in name:
            assert messages.crc(ours) == CRC().Crc(theirs)


def test_checksum_of_an_empty_command():
    """Numbers the SDK's C library gives for messages of zeros."""
    assert messages.crc(messages.GO.command.new()) == CRC().Crc(
        default.unitree_go_msg_dds__LowCmd_()
    )
    words = np.zeros((), np.dtype([("a", "<u4"), ("crc", "<u4")]))
    words["a"] = 0x34333231  # "4321" as the algorithm reads it
    assert messages.crc(words) == crc_32_mpeg_2(b"4321")


def crc_32_mpeg_2(data: bytes) -> int:
    """By the definition, bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)
            value &= 0xFFFFFFFF
    return value


def test_short_or_foreign_bytes_are_refused():
    data = messages.GO.state.encode(messages.GO.state.new())
    for bad in (b"", data[:-1], b"\x00\x00" + data[2:]):
        with pytest.raises(ValueError, match="are not a message"):
            messages.GO.state.decode(bad)


SDK_LEGS = {"FR": 0, "FL": 3, "RR": 6, "RL": 9}  # first motor of each leg, by the SDK
PARTS = ("hip", "thigh", "calf")
G1_MOTORS = {
    "left_hip_pitch": 0,
    "left_ankle_roll": 5,
    "right_hip_pitch": 6,
    "waist_pitch": 14,
    "left_shoulder_pitch": 15,
    "right_shoulder_pitch": 22,
    "right_wrist_yaw": 28,
}


@pytest.mark.parametrize(("spec", "wire"), [(GO2, GO2_WIRE), (B2, B2_WIRE)])
def test_leg_motors_are_the_sdks(spec, wire):
    for joint, motor in zip(spec.joints, wire.motors, strict=True):
        leg, part, _ = joint.split("_")
        assert motor == SDK_LEGS[leg] + PARTS.index(part), joint


def test_g1_motors_are_the_sdks():
    assert len(G1.joints) == len(G1_WIRE.motors) == 29
    for name, motor in G1_MOTORS.items():
        assert G1_WIRE.motors[G1.joints.index(f"{name}_joint")] == motor


def numbers(rng, spec):
    return {n: rng.uniform(0.1, 1.0, len(spec.joints))
            for n in ("position", "velocity", "kp", "kd", "torque")}  # fmt: skip


@pytest.mark.parametrize(("spec", "wire"), [(GO2, GO2_WIRE), (B2, B2_WIRE), (G1, G1_WIRE)])
def test_a_command_reaches_its_motors(spec, wire):
    """Read with the SDK's class: every joint's numbers, modes, stop values and the checksum."""
    wish = numbers(np.random.default_rng(0), spec)
    wish["kp"][1] = wish["kd"][2] = 0.0
    kind = type(getattr(default, f"{wire.family.name}_msg_dds__LowCmd_")())
    sent = kind.deserialize(encode_command(wire, 5, **wish))
    assert sent.crc == CRC().Crc(sent)
    used = dict(zip(wire.motors, range(len(spec.joints)), strict=True))
    for index, motor in enumerate(sent.motor_cmd):
        joint = used.get(index)
        if joint is None:
            assert (motor.mode, motor.kp, motor.kd, motor.tau) == (0, 0, 0, 0)
            assert (motor.q, motor.dq) == (np.float32(2.146e9), 16000.0)
            continue
        assert motor.mode == 1
        wanted = {n: v[joint] for n, v in wish.items()}
        wanted["position"] = 2.146e9 if joint == 1 else wanted["position"]
        wanted["velocity"] = 16000.0 if joint == 2 else wanted["velocity"]
        seen = [motor.q, motor.dq, motor.kp, motor.kd, motor.tau]
        np.testing.assert_allclose(seen, list(wanted.values()), rtol=1e-6)
    if wire.family is messages.GO:
        assert list(sent.head) == [0xFE, 0xEF]
        assert sent.level_flag == 0xFF
    else:
        assert (sent.mode_pr, sent.mode_machine) == (0, 5)


@pytest.mark.parametrize(("spec", "wire"), [(GO2, GO2_WIRE), (B2, B2_WIRE), (G1, G1_WIRE)])
def test_the_driver_damps_as_the_robot_must_be(spec, wire):
    """Each joint with its own damping, within the torque limit up to full speed."""
    sent = wire.family.command.decode(UnitreeRobot(spec, wire)._damped())["motor_cmd"]
    kd = sent["kd"][np.array(wire.motors)]
    most = spec.limits.torque / spec.limits.velocity
    np.testing.assert_allclose(kd, np.minimum(spec.damping, most), rtol=1e-6)
    assert not sent["kp"].any()


@pytest.mark.parametrize(("spec", "wire"), [(GO2, GO2_WIRE), (G1, G1_WIRE)])
def test_a_state_is_read_in_our_order(spec, wire):
    theirs = fill(getattr(default, f"{wire.family.name}_msg_dds__LowState_")(), random.Random(2))
    state = decode_state(wire, wire.family.state.decode(bytes(theirs.serialize())))
    for joint, motor in enumerate(wire.motors):
        there = theirs.motor_state[motor]
        assert state.position[joint] == there.q
        assert state.velocity[joint] == there.dq
        assert state.torque[joint] == there.tau_est
        assert state.temperature[joint] == np.max(there.temperature)
    assert state.orientation.tolist() == theirs.imu_state.quaternion
    assert state.angular_velocity.tolist() == theirs.imu_state.gyroscope
    assert (state.sequence, state.time) == (theirs.tick, pytest.approx(theirs.tick / 1e3))


def test_specs_are_complete():
    for name in ("go2", "b2", "g1"):
        robot = make_robot(name)
        assert robot.spec is ROBOTS[name]
        limits = robot.spec.limits
        assert ((limits.lower <= robot.spec.stand) & (robot.spec.stand <= limits.upper)).all()
        with pytest.raises(RobotError, match="interface: missing"):
            robot.configure()


def test_the_motors_of_the_legs_mirror_in_the_g1():
    limits = G1.limits
    left = G1.joints.index("left_hip_roll_joint")
    right = G1.joints.index("right_hip_roll_joint")
    assert limits.lower[left] == -limits.upper[right]
    assert limits.upper[left] == -limits.lower[right]


# -- mistakes, each one line ------------------------------------------------------------------


def test_without_the_sdk_it_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cyclonedds", None)
    with pytest.raises(
        RobotError, match=r"cyclonedds is missing, pip install 'motoric\[unitree\]'"
    ):
        make_robot("go2", interface="lo").configure()


def test_wrong_interface_and_silence(domain):
    with pytest.raises(RobotError, match="interface: 'eth77' is not one of this machine"):
        make_robot("go2", interface="eth77").configure()
    with pytest.raises(RobotError, match=r"no go2 heard on lo .* within 1 s"):
        make_robot("go2", interface="lo", domain=domain, hear_seconds=1.0).configure()


class Talker:
    """States of some robot, from a thread of this process on a participant of its own."""

    def __init__(self, dds: Dds, wire, kinds, alive: int) -> None:
        command, state = kinds
        self.commands = dds.reader("rt/lowcmd", command)
        self._out = dds.writer("rt/lowstate", state)
        self._wire, self._alive, self._stop = wire, alive, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        tick = 0
        while not self._stop.wait(0.01):
            tick += 10
            message = self._wire.family.state.new()
            message["tick"], message["imu_state"]["quaternion"] = tick, (1, 0, 0, 0)
            message["motor_state"]["mode"][: self._alive] = 1
            if self._wire.family is messages.HG:
                message["mode_machine"] = 5
            self._out.write(messages.seal(self._wire.family.state, message))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize(
    ("alive", "words"),
    [
        (16, "has 16 motors, go2 has 12: motor 12 answers and should not exist"),
        (11, "has 11 motors, go2 has 12: motor 11 does not answer"),
    ],
)
def test_a_robot_with_other_motors_is_refused(domain, alive, words, monkeypatch):
    from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_, LowState_

    dds = Dds("lo", domain)
    monkeypatch.setattr("motoric.hardware.unitree.robot.Dds", lambda interface, domain: dds)
    talker = Talker(dds, GO2_WIRE, (LowCmd_, LowState_), alive)
    try:
        with pytest.raises(RobotError, match=words):
            make_robot("go2", interface="lo", domain=domain).configure()
    finally:
        talker.close()


def test_a_g1_is_heard_and_is_no_go2(domain, monkeypatch):
    from unitree_sdk2py.idl.unitree_hg.msg.dds_ import LowCmd_, LowState_

    dds = Dds("lo", domain)
    monkeypatch.setattr("motoric.hardware.unitree.robot.Dds", lambda interface, domain: dds)
    talker = Talker(dds, G1_WIRE, (LowCmd_, LowState_), 29)
    g1 = make_robot("g1", interface="lo", domain=domain)
    assert isinstance(g1, UnitreeRobot)
    try:
        g1.configure()
        assert g1.read().position.shape == (29,)
        assert g1._mode_machine == 5
        g1.close()
        with pytest.raises(RobotError, match="speaks 'unitree_hg', go2 speaks 'unitree_go'"):
            make_robot("go2", interface="lo", domain=domain, hear_seconds=1.0).configure()
    finally:
        g1.close()
        talker.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--battery", "12"), "battery at 12 %, at least 20 % expected"),
        (("--temperature", "95"), "FL_hip_joint at 95 degrees, at most 80 expected"),
    ],
)
def test_it_is_not_switched_on_unfit(simulated, go2, options, words):
    simulated(*options)
    go2.configure()
    with pytest.raises(RobotError, match=words):
        go2.activate()
    assert not go2._sending
    go2.deactivate()


def test_a_service_that_holds_on_is_one_error(simulated, go2, monkeypatch):
    monkeypatch.setattr("motoric.hardware.unitree.robot.RELEASE_SECONDS", 4.0)
    simulated("--wrong", "stuck")
    go2.configure()
    with pytest.raises(RobotError, match=r"service 'normal' can't be released .code 7008"):
        go2.activate()
    assert not go2._sending


# -- deployment, and faults -------------------------------------------------------------------


class Watch:
    """Calls `do` once, some ticks after the policy took over, and keeps the newest state."""

    def __init__(self, robot, do=None, at=300) -> None:
        self.robot, self.do, self.left, self.state = robot, do, at, None
        self._read, self._write = robot.read, robot.write
        robot.read, robot.write = self.read, self.write

    def read(self):
        self.state = self._read()
        return self.state

    def write(self, command: MotorCommand) -> None:
        if command.kp.max() > 0.99 * GO2.kp[0]:
            self.left -= 1
            if self.left == 0 and self.do is not None:
                self.do()
        self._write(command)


def run(bundle_folder, robot, tmp_path, duration):
    path = tmp_path / "log.mcap"
    report = deploy(Bundle.load(bundle_folder), robot, duration, [0.0] * 3, path, keys=False)
    return report, read_log(path)


def test_it_deploys_through_dds(bundle_folder, tmp_path, simulated, go2, urgent):
    simulated("--corrupt", "0.1")
    report, log = run(bundle_folder, go2, tmp_path, 1.0)
    assert report.fault is None
    assert report.ended == "finished"
    assert report.metrics["fell"] == 0
    active = np.array(log.status) == "active"
    assert log.base_height[active].min() > 0.2
    assert go2.damaged > 5
    assert not go2._sending
    assert urgent == {"_send"}
    with open(tmp_path / "log.mcap", "rb") as file:
        for _, channel, message in NonSeekingReader(file).iter_messages():
            if channel.topic == "/state":
                state = json.loads(message.data)
                assert state["battery"] == 95
                assert state["temperature"] == [35] * 12


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_a_lost_robot_ends_damped(bundle_folder, tmp_path, simulated, go2, name):
    server = simulated()
    Watch(go2, lambda: server.process.send_signal(getattr(signal, name)))
    report, log = run(bundle_folder, go2, tmp_path, 20.0)
    assert report.fault is not None
    assert "s old, at most 0.1 allowed" in report.fault
    assert not log.command.kp[log.status.index("fault") :].any()
    assert not go2._sending


def test_a_control_loop_that_stalls_is_damped_by_the_driver(simulated, go2):
    simulated()
    go2.configure()
    go2.activate()
    zero, begin = np.zeros(12), time.monotonic()
    tick = 0
    while time.monotonic() - begin < 2.0:
        share = min(1.0, time.monotonic() - begin)
        target = GO2.rest + share * (GO2.stand - GO2.rest)
        go2.write(MotorCommand(target, zero, GO2.kp, GO2.kd, zero, time.monotonic(), tick))
        tick += 1
        time.sleep(0.01)
    assert go2.read().base_height > 0.2
    time.sleep(3 * STALE)
    with pytest.raises(RobotError, match=r"no command for 0.1 s, its motors are damped"):
        go2.write(MotorCommand(target, zero, GO2.kp, GO2.kd, zero, time.monotonic(), tick))
    time.sleep(1.5)
    assert go2.read().base_height < 0.15
    go2.deactivate()
    go2.deactivate()


def test_what_is_not_a_number_is_not_sent(simulated, go2):
    simulated()
    go2.configure()
    zero = np.zeros(12)
    wish = MotorCommand(GO2.stand, zero, GO2.kp, GO2.kd, zero * np.nan, time.monotonic())
    with pytest.raises(RobotError, match="not active"):
        go2.write(wish)
    go2.activate()
    before = go2._bytes
    with pytest.raises(RobotError, match="command: torque nan of FL_hip_joint is not finite"):
        go2.write(wish)
    assert go2._bytes == before
    go2.deactivate()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"position": GO2.stand + np.eye(12)[2] * 9},
         "position 7.500 of FL_calf_joint is not allowed, expected -2.723 to -0.838"),
        ({"position": GO2.stand[:11]}, "position has shape (11,), expected (12,)"),
        ({"velocity": np.full(12, -31.0)}, "velocity -31.000 of FL_hip_joint is not allowed"),
        ({"torque": np.full(12, 300.0)},
         "torque 300.000 of FL_hip_joint is not allowed, expected -23.700 to 23.700"),
        ({"kp": np.full(12, -500.0)},
         "kp -500.000 of FL_hip_joint is not allowed, expected 0.000 to 40.000"),
        ({"kd": np.eye(12)[5] * -0.1}, "kd -0.100 of FR_calf_joint is not allowed"),
        ({"kp": np.full(12, np.inf)}, "kp inf of FL_hip_joint is not finite"),
    ],
)  # fmt: skip
def test_what_is_outside_the_limits_is_not_sent(changes, words):
    robot = UnitreeRobot(GO2, GO2_WIRE, "lo")
    sent = []
    robot._commands = types.SimpleNamespace(write=sent.append)  # type: ignore[assignment]
    robot._sending, robot._fresh = True, time.monotonic()
    zero = np.zeros(12)
    good = MotorCommand(GO2.limits.lower, zero, GO2.kp, GO2.kd, GO2.limits.torque)
    robot.write(good)
    assert len(sent) == 1, "the limits themselves are allowed"
    with pytest.raises(RobotError, match=re.escape(f"go2: command: {words}")):
        robot.write(dataclasses.replace(good, **changes))
    assert len(sent) == 1
    assert robot._bytes == sent[0], "the sending thread goes on with the last good one"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("min_battery", None, "None, expected a number from 0 to 100"),
        ("min_battery", "low", "'low', expected a number from 0 to 100"),
        ("min_battery", float("nan"), "nan, expected a number from 0 to 100"),
        ("min_battery", 101, "101, expected a number from 0 to 100"),
        ("max_temperature", None, "None, expected a number from 0 to 200"),
        ("max_temperature", float("inf"), "inf, expected a number from 0 to 200"),
        ("max_temperature", True, "True, expected a number from 0 to 200"),
        ("hear_seconds", float("nan"), "nan, expected a number from 0.1 to 600"),
        ("domain", None, "None, expected a whole number from 0 to 232"),
        ("domain", 0.5, "0.5, expected a whole number from 0 to 232"),
        ("domain", 233, "233, expected a whole number from 0 to 232"),
    ],
)
def test_an_option_that_is_no_number_is_one_line(option, value, words):
    with pytest.raises(ValueError, match=f"^{option}: {words}$"):
        make_robot("go2", interface="lo", **{option: value})
    make_robot("go2", interface="lo", min_battery=0, max_temperature=200)


def stand_up(go2) -> None:
    """By its motion service."""
    go2.configure()
    assert go2._sport_service.call(rpc.STAND_UP, {}, 10.0)[0] == 0
    deadline = time.monotonic() + 15
    while go2.read().base_height < 0.22 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert go2.read().base_height > 0.22


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("refuses", r"did not lie down \(code 3203\): \w+_calf_joint is 1\.\d+ rad from its rest; "
         "lay it down by hand"),
        ("treads", r"did not lie down \(code 0\): it does not come to rest within 2 s; lay it"),
    ],
)  # fmt: skip
def test_a_robot_that_does_not_lie_down_is_not_released(simulated, go2, monkeypatch, wrong, words):
    monkeypatch.setattr("motoric.hardware.unitree.robot.STILL_SECONDS", 2.0)
    simulated("--wrong", wrong)
    stand_up(go2)
    time.sleep(1.0)  # it has risen
    with pytest.raises(RobotError, match=words):
        go2.activate()
    code, data = go2._switcher.call(rpc.CHECK_MODE, {}, 10.0)
    assert (code, json.loads(data)["name"]) == (0, "normal"), "the service holds it"
    assert go2.read().base_height > 0.2
    assert not go2._sending


def test_a_service_that_refuses_to_lie_down_a_robot_that_lies_is_released(simulated, go2):
    simulated("--wrong", "refuses")
    go2.configure()
    go2.activate()
    assert go2._sending
    go2.deactivate()


def test_a_standing_robot_is_lain_down_before_it_is_released(simulated, go2):
    simulated()
    stand_up(go2)
    go2.activate()
    assert go2.read().base_height < 0.15
    go2.deactivate()
