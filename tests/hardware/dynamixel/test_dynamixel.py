"""The Dynamixel driver against emulated servos on a pseudo-terminal."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from motoric.control.command import MotorCommand, hold
from motoric.control.supervisor import Mode, Supervisor, Thresholds
from motoric.hardware.drivers import make_robot
from motoric.hardware.dynamixel import protocol
from motoric.hardware.dynamixel.calibration import Calibrated, save_calibration
from motoric.hardware.dynamixel.emulator import Emulator, make_chain
from motoric.hardware.dynamixel.models import ANGLE, REGISTERS
from motoric.hardware.dynamixel.robot import DynamixelRobot
from motoric.hardware.interfaces.joint_targets import JointTargets
from motoric.hardware.interfaces.terms import Term
from motoric.hardware.robot import RobotError
from motoric.hardware.runtime.bundle import Bundle
from motoric.hardware.runtime.deploy import deploy
from motoric.hardware.runtime.log import read_log
from motoric.scripts.cli import main

from ...conftest import linear, spec_for, write_policy

ROOT = Path(__file__).resolve().parents[3]
GOALS = {REGISTERS[n].address for n in ("goal_current", "goal_velocity", "goal_position")}
ZERO = 2048  # counts at joint position 0
MODES = [None, "position", "extended_position", "current_position", "velocity", "current"]
LATE = re.compile(r"state: .* s old, at most|policy late")  # faults of a machine too busy


def options(mode: str | None = None) -> dict:
    """The example arm's; with a mode, all joints in it (on servos that have it)."""
    values = yaml.safe_load((ROOT / "configs/robot/x_arm6.yaml").read_text())["options"]
    if mode is not None:
        values["mode"] = mode
        for joint in values["joints"].values():
            joint.pop("mode", None)
            if "current" in mode and joint["model"] == "xl430-w250":
                joint["model"] = "xm430-w350"
    return values


class Arm:
    """The example arm emulated, calibrated and with a driver."""

    def __init__(self, folder: Path, mode: str | None = None, corrupt=0.0, lose=0.0) -> None:
        self.options = options(mode)
        servos = [(j["id"], j["model"]) for j in self.options["joints"].values()]
        self.chain = make_chain(servos, corrupt=corrupt, lose=lose)
        self.emulator = Emulator(self.chain)
        self.options |= {
            "port": self.emulator.port, "calibration": str(folder / "arm.json"),
            "watchdog": 0.5,  # a busy machine may not run anything for 0.1 s
        }  # fmt: skip
        self.robot = DynamixelRobot(**self.options)
        save_calibration(Path(self.options["calibration"]), "x_arm6", self.calibration())

    def calibration(self) -> dict[str, Calibrated]:
        return {
            j.name: Calibrated(j.id, j.model.name, ZERO, 1, ZERO - 1800, ZERO + 1800)
            for j in self.robot.joints
        }

    def __enter__(self) -> Arm:
        self.emulator.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.robot.close()
        self.emulator.__exit__()

    def values(self, name: str) -> list[int]:
        with self.emulator.lock:
            return [servo.values[name] for servo in self.chain.servos]

    def angles(self) -> np.ndarray:
        with self.emulator.lock:
            return np.array([s.angle for s in self.chain.servos]) - ZERO * ANGLE

    def send(self, target, kp=1.0, kd=1.0, torque=None) -> None:
        spec = self.robot.spec
        zero = np.zeros(6)
        self.robot.write(
            MotorCommand(
                np.asarray(target, float), zero, kp * spec.kp, kd * spec.kd,
                zero if torque is None else torque, time.monotonic(),
            )
        )  # fmt: skip

    def hold(self, target, seconds=None, until=None, limit=20.0, **gains) -> bool:
        """Command a pose for some seconds, or until something holds."""
        end = time.monotonic() + (limit if seconds is None else seconds)
        while time.monotonic() < end:
            self.send(target, **gains)
            if until is not None and until():
                return True
            time.sleep(0.01)
        return until is None


@pytest.fixture
def arm(tmp_path):
    with Arm(tmp_path) as arm:
        yield arm


def wait(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("did not happen")


# -- what it does -----------------------------------------------------------------------------


def test_the_spec_needs_no_port():
    robot = make_robot("dynamixel", **options())
    assert robot.spec.name == "x_arm6"
    assert robot.spec.joints[:2] == ("shoulder_pan", "shoulder_lift")
    assert robot.spec.model == "x_arm6.xml"
    limits = robot.spec.limits
    for joint, torque in zip(robot.joints, limits.torque, strict=True):
        assert torque <= 0.5 * joint.model.stall_torque
    from motoric.hardware.models import load_model

    assert load_model(robot.spec).nu == 6
    with pytest.raises(ValueError, match="x_arm6: has no model"):
        load_model(dataclasses.replace(robot.spec, model=None))


TARGET = np.array([0.4, -0.3, 0.5, -0.5, 0.8, 0.6])


@pytest.mark.parametrize("mode", MODES)
def test_it_goes_where_it_is_told(tmp_path, mode):
    with Arm(tmp_path, mode) as arm:
        arm.robot.configure()
        assert not any(arm.values("torque_enable"))
        arm.robot.activate()
        assert all(arm.values("torque_enable"))
        wait(lambda: arm.values("bus_watchdog") == [25] * 6)
        near = 0.12 if mode == "current" else 0.05  # no integral: friction keeps it off
        assert arm.hold(TARGET, until=lambda: np.abs(arm.angles() - TARGET).max() < near)
        if mode != "current":  # whose loop a busy machine closes late
            arm.hold(TARGET, 0.3)
            state = arm.robot.read()
            np.testing.assert_allclose(state.position, arm.angles(), atol=0.05)
            np.testing.assert_allclose(state.orientation, [1, 0, 0, 0])
        arm.robot.deactivate()
        assert not any(arm.values("torque_enable"))
        arm.robot.deactivate()


def test_what_is_measured(arm):
    """Units, signs, time and sequence; slow readings."""
    arm.robot.configure()
    with arm.emulator.lock:
        for servo in arm.chain.servos:
            servo.angle, servo.velocity = (ZERO + 300) * ANGLE, 1.0
            servo.load = 0.5 * servo.model.stall_torque
    before = arm.robot.read()
    wait(lambda: arm.robot.read().sequence > before.sequence + 5)
    state = arm.robot.read()
    assert state.time > before.time
    assert (state.velocity > 0.3).all()
    assert (state.position > 300 * ANGLE).all()
    wait(lambda: np.isfinite(arm.robot.health.temperature).all())
    assert arm.robot.health.temperature.tolist() == [32.0] * 6
    assert arm.robot.health.voltage.tolist() == [11.1, 11.1, 5.0, 5.0, 5.0, 5.0]


def test_limits_in_the_servos(arm):
    arm.robot.configure()
    assert arm.values("operating_mode") == [4, 4, 5, 5, 5, 5]
    assert arm.values("return_delay_time") == [0] * 6
    assert arm.values("pwm_limit")[:2] == [442, 442]  # half the stall torque
    units = [j.model.torque_unit for j in arm.robot.joints[2:]]
    torques = np.array(arm.values("current_limit")[2:]) * units
    assert (torques <= arm.robot.spec.limits.torque[2:]).all()
    assert (torques > 0.95 * arm.robot.spec.limits.torque[2:]).all()
    with arm.emulator.lock:
        for servo in arm.chain.servos:
            servo.values["goal_pwm"] = 100  # of another program: it limits, too
    arm.robot.activate()
    assert arm.values("profile_velocity")[0] == 104  # 2.5 rad/s
    assert arm.values("goal_pwm") == arm.values("pwm_limit") == [442, 442, 885, 885, 885, 885]


@pytest.mark.parametrize("mode", MODES)
def test_a_blocked_joint_pulls_with_its_torque_limit(tmp_path, mode):
    """In every mode, with and without a current sensor."""
    with Arm(tmp_path, mode) as arm:
        most = np.zeros(6)
        for index, servo in enumerate(arm.chain.servos):

            def blocked(silence, servo=servo, index=index, step=servo.step, at=servo.angle):
                step(silence)
                most[index] = max(most[index], servo.torque)
                servo.angle, servo.velocity = at, 0.0

            servo.step = blocked
        arm.robot.configure()
        arm.robot.activate()
        limits = arm.robot.spec.limits
        assert arm.hold(limits.upper, until=lambda: (most > 0.9 * limits.torque).all()), most
        arm.hold(limits.upper, 0.2)
        assert (most <= 1.001 * limits.torque).all(), most / limits.torque


def test_a_target_is_no_faster_than_the_voltage_allows():
    """Half the stall torque leaves half the speed, but where the current is limited."""
    joint = {"id": 1, "model": "xm430-w350", "lower": -1, "upper": 1}
    rates = {}
    for mode in MODES[1:]:
        robot = DynamixelRobot("one", "/dev/null", {"a": joint}, "none.json", mode=mode)
        (rates[mode],) = robot.spec.limits.target_rate / robot.joints[0].model.speed
    assert rates == pytest.approx({
        "position": 0.25, "extended_position": 0.25, "velocity": 0.25, "current_position": 0.5,
        "current": 0.5,
    })  # fmt: skip


def test_the_example_arm_lies_before_torque_goes_off():
    """On the desk, from either end of all joints' ranges, within the time of lying down."""
    spec = make_robot("dynamixel", **options()).spec
    _, lift, elbow, wrist, _, _ = spec.rest
    assert lift < 0
    assert lift + elbow == wrist == 0  # forearm and hand are level
    for end in (spec.limits.lower, spec.limits.upper):
        supervisor = Supervisor(
            spec.limits, spec.stand, spec.rest, spec.kp, spec.kd, spec.damping, 0.02
        )
        zero, position, now = np.zeros(6), spec.stand, 0.0
        for tick in range(1000):
            now += 0.02
            state = SimpleNamespace(time=now, sequence=tick, position=position, velocity=zero,
                                    torque=zero, orientation=np.array([1.0, 0, 0, 0]),
                                    angular_velocity=np.zeros(3))  # fmt: skip
            if tick == 0:
                supervisor.start(now, state)
            if tick == 300:
                np.testing.assert_allclose(position, end)
                supervisor.stop("finished")
            sent = supervisor.update(now, state, hold(end, spec.kp, spec.kd))
            if supervisor.mode is Mode.OFF:
                break
            position = sent.position
        assert supervisor.mode is Mode.OFF, supervisor.reason
        np.testing.assert_allclose(position, spec.rest)


def test_position_mode_sets_position_limits(tmp_path):
    with Arm(tmp_path, "position") as arm:
        arm.robot.configure()
        low, high = arm.values("min_position_limit"), arm.values("max_position_limit")
        lower, upper = arm.robot.spec.limits.lower, arm.robot.spec.limits.upper
        np.testing.assert_allclose((np.array(low) - ZERO) * ANGLE, lower, atol=ANGLE)
        np.testing.assert_allclose((np.array(high) - ZERO) * ANGLE, upper, atol=ANGLE)


def test_stored_registers_are_written_once(arm):
    arm.robot.configure()
    arm.robot.close()
    with arm.emulator.lock:
        arm.chain.written.clear()
    arm.robot.configure()
    arm.robot.activate()
    with arm.emulator.lock:
        assert not [w for w in arm.chain.written if w.address < 64]


def test_direction_and_turns(tmp_path):
    """A joint that counts backwards, and one whose range crosses the end of a turn."""
    with Arm(tmp_path) as arm:
        values = options()
        values["joints"]["shoulder_pan"]["direction"] = -1
        arm.robot = DynamixelRobot(**values | {
            "port": arm.emulator.port, "calibration": arm.options["calibration"]
        })  # fmt: skip
        calibration = arm.calibration()
        calibration["shoulder_pan"] = Calibrated(1, "xl430-w250", ZERO, -1, 200, 3900)
        calibration["elbow_flex"] = Calibrated(3, "xl330-m288", 100, 1, -1500, 1500)
        save_calibration(Path(arm.options["calibration"]), "x_arm6", calibration)
        with arm.emulator.lock:
            arm.chain[1].angle = (ZERO + 400) * ANGLE
            arm.chain[3].angle = 3900 * ANGLE  # 296 counts below zero, seen after power-on
        arm.robot.configure()
        q = arm.robot.read().position
        assert q[0] == pytest.approx(-400 * ANGLE)
        assert q[2] == pytest.approx(-296 * ANGLE)
        arm.robot.activate()
        target = np.array([-0.2, 0, 0.3, 0, 0, 0])
        assert arm.hold(
            target, until=lambda: np.abs(arm.robot.read().position - target).max() < 0.05
        )
        with arm.emulator.lock:
            assert arm.chain[1].angle == pytest.approx(ZERO * ANGLE + 0.2, abs=0.1)
            assert arm.chain[3].angle == pytest.approx((4096 + 100) * ANGLE + 0.3, abs=0.1)


def test_damped_position_servos_resist_and_let_go(arm):
    """kp = 0 in a position mode: a pushed joint yields slowly and does not come back."""
    arm.robot.configure()
    arm.robot.activate()
    with arm.emulator.lock:
        arm.chain[3].load = 0.15  # N m
    began = time.monotonic()
    assert arm.hold(np.zeros(6), until=lambda: arm.angles()[2] > 0.3, kp=0.0)
    assert time.monotonic() - began > 0.15  # a shaft without torque takes 0.11 s
    with arm.emulator.lock:
        arm.chain[3].load = 0.0
    arm.hold(np.zeros(6), 0.3, kp=0.0)
    assert arm.angles()[2] > 0.25


def test_current_mode_is_the_pd_law(tmp_path):
    with Arm(tmp_path, "current") as arm:
        arm.robot.configure()
        arm.robot.activate()
        wish = np.array([0.3, -0.3, 0.05, -0.05, 0.05, -0.02])
        arm.hold(np.zeros(6), 0.1, kp=0.0, kd=0.0, torque=wish)
        sent = np.array(arm.values("goal_current")) * [
            j.model.torque_unit for j in arm.robot.joints
        ]
        np.testing.assert_allclose(sent, wish, atol=0.01)
        arm.hold(np.zeros(6), 0.1, kp=0.0, kd=0.0, torque=np.full(6, 99.0))
        sent = np.array(arm.values("goal_current")) * [
            j.model.torque_unit for j in arm.robot.joints
        ]
        assert (sent <= arm.robot.spec.limits.torque + 1e-9).all()
        # Beyond its limit it is not pushed further.
        upper, pushed = arm.robot.spec.limits.upper, np.full(6, 99.0)

        def beyond():
            return (arm.robot.read().position > upper).all()

        assert arm.hold(np.zeros(6), until=beyond, kp=0.0, kd=0.0, torque=pushed)
        arm.hold(np.zeros(6), 0.1, kp=0.0, kd=0.0, torque=pushed)
        assert max(arm.values("goal_current")) <= 0


def test_a_command_is_checked(arm):
    arm.robot.configure()
    arm.robot.activate()
    zero = np.zeros(6)
    bad = [
        (np.full(6, np.nan), zero, zero, "command position"),
        (zero, np.full(6, np.inf), zero, "command kp"),
        (np.zeros(5), zero, zero, "expected 6 finite numbers"),
        (zero, zero, np.full(6, -1.0), "negative gains"),
    ]
    for position, kp, kd, words in bad:
        with pytest.raises(RobotError, match=words):
            arm.robot.write(MotorCommand(position, zero, kp, kd, zero))
    arm.hold(np.full(6, 9.0), 0.3)
    goals = (np.array(arm.values("goal_position")) - ZERO) * ANGLE
    np.testing.assert_allclose(goals, arm.robot.spec.limits.upper, atol=2 * ANGLE)


def test_old_commands_are_not_followed(tmp_path):
    """The program hangs, its bus thread lives: the joints stop."""
    with Arm(tmp_path, "velocity") as arm:
        arm.robot.configure()
        arm.robot.activate()
        arm.hold(arm.robot.spec.limits.upper, 0.2)
        assert any(arm.values("goal_velocity"))
        wait(lambda: not any(arm.values("goal_velocity")))
        assert all(arm.values("torque_enable"))


# -- a bad line -------------------------------------------------------------------------------


def sent_goals(robot) -> set[tuple[int, int, bytes]]:
    """Keeps (id, address, bytes) of every goal the driver sends."""
    sent, decoder, port = set(), protocol.Decoder(), robot._bus.port
    original = port.writePort

    def record(packet):
        from motoric.hardware.dynamixel.emulator import _group_writes

        for p in decoder.feed(bytes(packet)):
            if p.instruction in (protocol.SYNC_WRITE, protocol.BULK_WRITE):
                sent.update(_group_writes(p.instruction, p.parameters))
        return original(packet)

    port.writePort = record
    return sent


@pytest.mark.parametrize(
    ("mode", "corrupt", "lose"),
    [(None, 0.0004, 0.0), ("current", 0.0, 0.0004), (None, 0.005, 0.005)],
    ids=["1 % of packets corrupted", "1 % of packets with a byte lost", "1 % of bytes"],
)
def test_no_wrong_command_and_no_wrong_state_on_a_bad_line(tmp_path, corrupt, lose, mode):
    with Arm(tmp_path, mode, corrupt, lose) as arm:
        answers: list[tuple[int, ...]] = []
        read = type(arm.chain.servos[0]).read

        def remember(servo, address, length, now):
            answer = read(servo, address, length, now)
            if length == 16:
                answers.append((servo.values["id"], servo.counts))
            return answer

        for servo in arm.chain.servos:
            servo.read = remember.__get__(servo)
        arm.chain.corrupt = arm.chain.lose = 0.0
        arm.robot.configure()
        sent = sent_goals(arm.robot)
        arm.robot.activate()
        with arm.emulator.lock:
            arm.chain.corrupt, arm.chain.lose = corrupt, lose
        states, gap, rng = {}, 0.0, np.random.default_rng(0)
        for _ in range(70):
            arm.send(TARGET + rng.uniform(-0.2, 0.2, 6))
            time.sleep(0.02)
            state = arm.robot._states.state
            states[state.sequence] = state
            gap = max(gap, time.monotonic() - state.time)
        arm.robot.deactivate()
        assert arm.robot.misread > 1
        with arm.emulator.lock:
            written = [w for w in arm.chain.written if w.address in GOALS]
            assert len(written) > 50
            wrong = [w for w in written if (w.id, w.address, w.data) not in sent]
            assert not wrong
            seen = {tuple(c for _, c in answers[i : i + 6]) for i in range(len(answers) - 5)
                    if [id for id, _ in answers[i : i + 6]] == [1, 2, 3, 4, 5, 6]}  # fmt: skip
        for state in states.values():
            assert tuple((np.round(state.position / ANGLE) + ZERO).astype(int)) in seen
        if corrupt + lose < 0.001:
            assert len(states) > 30
            np.testing.assert_allclose(arm.angles(), TARGET, atol=0.4)
        assert not any(arm.values("torque_enable"))


def test_an_answer_to_an_earlier_question_is_not_taken(arm):
    """Late by 20 ms: given up, and arriving as the answer to the next read."""
    arm.robot.configure()
    taken, read = [], arm.robot._read_state

    def remember():
        good = read()
        if good:
            taken.append(arm.robot._states.ticks)
        return good

    arm.robot._read_state = remember
    for _ in range(8):
        count, misread = len(taken), arm.robot.misread
        with arm.emulator.lock:
            arm.chain.hold = 0.02
        wait(lambda c=count, m=misread: len(taken) > c + 3 and arm.robot.misread > m)
    for before, after, ticks in taken:  # every answer was given between question and reading
        for servo, tick in zip(arm.chain.servos, ticks, strict=True):
            sampled = servo.started + tick / 1000
            sampled += round((before - sampled) / 32.768) * 32.768
            assert before - 0.005 <= sampled <= after + 0.005


def test_a_lost_link_is_an_error_after_a_while(arm):
    arm.robot.configure()
    with arm.emulator.lock:
        arm.chain.lose = 1.0
    began = time.monotonic()
    words = ""
    while not words and time.monotonic() < began + 10:
        try:
            sequence = arm.robot.read().sequence
        except RobotError as error:
            words = str(error)
        time.sleep(0.01)
    assert "x_arm6: no state from the servos for 0." in words
    assert time.monotonic() - began > 0.3
    assert sequence == arm.robot._states.sequence  # a repeated state kept its number
    with arm.emulator.lock:
        arm.chain.lose = 0.0
    wait(lambda: arm.robot._states.sequence > sequence)
    assert arm.robot.read().sequence > sequence


def test_an_unplugged_adapter_is_an_error(arm):
    arm.robot.configure()
    arm.robot.activate()
    arm.emulator.unplug()

    def gone():
        try:
            arm.robot.read()
        except RobotError as error:
            return f"x_arm6: port {arm.emulator.port} is gone" in str(error)
        return False

    wait(gone)
    arm.robot.deactivate()
    arm.robot.close()


def test_a_servo_that_shuts_down_is_an_error(arm):
    arm.robot.configure()
    arm.robot.activate()
    with arm.emulator.lock:
        arm.chain[3].fail(5)

    def said():
        try:
            arm.robot.read()
        except RobotError as error:
            return "joint elbow_flex (id 3): overloaded" in str(error)
        return False

    wait(said)
    arm.robot.close()
    assert not any(arm.values("torque_enable"))
    with pytest.raises(RobotError, match=r"elbow_flex \(id 3\): overloaded; it stays off until"):
        arm.robot.configure()


def test_a_servo_that_restarts_gives_no_more_states(arm):
    """Its torque is off and its limits are forgotten: the chain must be configured again."""
    arm.robot.configure()
    arm.robot.activate()
    wait(lambda: arm.values("bus_watchdog") == [25] * 6)
    with arm.emulator.lock:
        arm.chain[2].reboot(time.monotonic())
    sequence = arm.robot._states.sequence
    time.sleep(1.0)
    assert arm.robot._states.sequence <= sequence + 1
    with pytest.raises(RobotError, match="no state"):
        arm.robot.read()


def test_a_servo_stopped_by_its_watchdog_is_an_error(arm):
    """It takes no more goals: nobody must believe that it still follows."""
    arm.robot.configure()
    arm.robot.activate()
    wait(lambda: arm.values("bus_watchdog") == [25] * 6)
    with arm.emulator.lock:
        arm.chain[3].values["bus_watchdog"] = -1

    def said():
        try:
            arm.robot.read()
        except RobotError as error:
            return "joint elbow_flex (id 3) was stopped by its bus watchdog" in str(error)
        return False

    wait(said)


def test_a_lost_watchdog_setting_is_repeated(arm):
    arm.robot.configure()
    arm.robot.activate()
    with arm.emulator.lock:
        arm.chain[3].values["bus_watchdog"] = 0
    wait(lambda: arm.values("bus_watchdog") == [25] * 6)


# -- torque off -------------------------------------------------------------------------------

HOST = """
import signal, sys, time, json, numpy as np
from motoric.hardware.dynamixel.robot import DynamixelRobot
from motoric.control.command import MotorCommand
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs us with &
robot = DynamixelRobot(**json.loads(sys.argv[1]))
robot.configure(); robot.activate()
zero, spec = np.zeros(6), robot.spec
for tick in range(100000):
    robot.write(MotorCommand(spec.limits.upper, zero, spec.kp, spec.kd, zero))
    if tick == 5:
        print("moving", flush=True)
    if tick == 30 and sys.argv[2] == "exception":
        raise KeyError("a bug")
    if tick == 30 and sys.argv[2] == "exit":
        sys.exit(0)
    time.sleep(0.01)
"""


@pytest.mark.parametrize("how", ["exit", "exception", "SIGINT", "SIGTERM", "SIGKILL", "SIGSTOP"])
def test_the_end_of_the_program_stops_the_servos(tmp_path, how):
    with Arm(tmp_path, "velocity") as arm:
        host = subprocess.Popen(
            [sys.executable, "-c", HOST, json.dumps(arm.options), how], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert host.stdout is not None
            assert host.stderr is not None
            assert host.stdout.readline() == "moving\n", host.stderr.read()
            if how.startswith("SIG"):
                wait(lambda: any(arm.values("goal_velocity")))
                host.send_signal(getattr(signal, how))
            if how in ("SIGTERM", "SIGKILL", "SIGSTOP"):  # the bus watchdog's turn
                wait(lambda: arm.values("bus_watchdog") == [-1] * 6)
            else:
                host.wait(20)
                assert not any(arm.values("torque_enable"))
            wait(lambda: arm.values("moving") == [0] * 6 or _still(arm))
        finally:
            host.kill()
            host.wait()


def _still(arm) -> bool:
    with arm.emulator.lock:
        return max(abs(s.velocity) for s in arm.chain.servos) < 0.05


def test_torque_goes_off_on_a_bad_line(tmp_path):
    with Arm(tmp_path) as arm:
        arm.robot.configure()
        arm.robot.activate()
        with arm.emulator.lock:
            arm.chain.corrupt = arm.chain.lose = 0.005
        arm.robot.close()
        assert not any(arm.values("torque_enable"))


def test_a_failed_activation_leaves_torque_off(arm):
    arm.robot.configure()
    with arm.emulator.lock:
        arm.chain[6].values["hardware_error_status"] = 4  # it will refuse torque
        arm.robot._bus.handler.alerts.clear()
    with pytest.raises(RobotError):
        arm.robot.activate()
    assert not any(arm.values("torque_enable"))


# -- mistakes are one line --------------------------------------------------------------------


def refused(robot, words):
    with pytest.raises(RobotError) as error:
        robot.configure()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def remade(arm, **changes):
    robot = DynamixelRobot(**arm.options | changes)
    return robot


def test_a_wrong_model(arm):
    with arm.emulator.lock:
        arm.chain[4].values["model_number"] = 1190
    refused(arm.robot, "x_arm6: joint wrist_flex (id 4) is a xl330-m077, expected xl330-m288")


def test_a_missing_servo(arm):
    with arm.emulator.lock:
        arm.chain[3].values["id"] = 33
    refused(arm.robot, "joint elbow_flex (id 3) does not answer on /dev/pts/")


def test_a_wrong_baud_rate(arm):
    robot = remade(arm, baud=57600, rate=10)
    refused(robot, "servo 1 answers at 1000000: set robot.options.baud=1000000")


def test_no_servo_at_all(arm):
    with arm.emulator.lock:
        arm.chain.servos.clear()
    refused(arm.robot, "no servo answers on /dev/pts/")


def test_old_firmware(arm, monkeypatch):
    with arm.emulator.lock:
        arm.chain[1].values["firmware_version"] = 36
    refused(arm.robot, "joint shoulder_pan (id 1) has firmware 36, expected 38 or later")


def test_a_servo_that_was_left_silent_is_found(arm):
    """Status Return Level 0: it answers nothing but a ping."""
    with arm.emulator.lock:
        for servo in arm.chain.servos:
            servo.values["status_return_level"] = 0
    arm.robot.configure()
    assert arm.values("status_return_level") == [2] * 6


def test_no_such_port(arm):
    refused(remade(arm, port="/dev/nothing"), "port /dev/nothing can't be opened: No such file")


def test_a_port_in_use(arm):
    arm.robot.configure()
    refused(remade(arm), "can't be opened: another program has it open")


def test_out_of_range_it_is_not_switched_on(arm):
    with arm.emulator.lock:
        arm.chain[5].angle = (ZERO - 1790) * ANGLE
    arm.robot.configure()
    with pytest.raises(
        RobotError, match=r"wrist_roll \(id 5\) is at -2.75 rad, outside its limits"
    ):
        arm.robot.activate()
    assert not any(arm.values("torque_enable"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (None, "is missing: make it with motoric calibrate robot=x_arm6"),
        (b"{", "can't be read"),
        (b"[]", "not a calibration, expected format 'motoric-calibration/1'"),
        ({"robot": "other"}, "is of robot 'other', expected 'x_arm6'"),
        ({"id": 9}, "elbow_flex.id: 9, the configuration has 3"),
        ({"model": "xm540-w270"}, "elbow_flex.model: 'xm540-w270', the configuration has"),
        ({"direction": -1}, "elbow_flex.direction: -1, the configuration has 1"),
        ({"homing": 5000}, "elbow_flex: homing 5000, expected 0 to 4095"),
        ({"homing": 1.5}, "elbow_flex.homing: 1.5, expected a whole number"),
        ({"lower": 2000}, "elbow_flex: moved from -0.074 to 2.761 rad, which does not reach"),
        ({"upper": 99999}, "elbow_flex: range 248 to 99999 counts, expected at most one turn"),
        ({"extra": 1}, "elbow_flex: expected the keys id, model, homing"),
        ("joints", "joints ['elbow_flex'], expected ['shoulder_pan'"),
    ],
)
def test_a_bad_calibration(arm, change, words):
    path = Path(arm.options["calibration"])
    content = json.loads(path.read_text())
    if change is None:
        path.unlink()
    elif isinstance(change, bytes):
        path.write_bytes(change)
    else:
        if change == "joints":
            content["joints"] = {"elbow_flex": content["joints"]["elbow_flex"]}
        elif "robot" in change:
            content |= change
        else:
            content["joints"]["elbow_flex"] |= change
        path.write_text(json.dumps(content))
    refused(arm.robot, words)
    assert arm.values("led") == [0] * 6  # nothing was sent


def test_position_mode_does_not_cross_the_end_of_a_turn(tmp_path):
    with Arm(tmp_path, "position") as arm:
        calibration = arm.calibration()
        calibration["gripper"] = Calibrated(6, "xl330-m077", 4000, 1, 3000, 5500)
        save_calibration(Path(arm.options["calibration"]), "x_arm6", calibration)
        refused(arm.robot, "gripper: its limits cross the end of the servo's turn, choose mode")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("mode", "torque", "mode: 'torque', expected one of position, extended_position"),
        ("baud", 12345, "baud: 12345, expected one of 9600, 57600"),
        ("watchdog", 5.0, "watchdog: 5.0, expected 0.02 to 2.54"),
        ("joints.elbow_flex.id", 2, "joints.elbow_flex.id: 2 is taken"),
        ("joints.elbow_flex.id", "3", "joints.elbow_flex.id: '3', expected a number from 0 to"),
        ("joints.elbow_flex.modle", 2, "joints.elbow_flex.modle: no such key, expected one of"),
        ("joints.elbow_flex.model", "x", "joints.elbow_flex.model: 'x' is unknown, expected one"),
        ("joints.elbow_flex.lower", 2.0, "joints.elbow_flex: lower 2.0 and upper 1.6, expected"),
        ("joints.elbow_flex.torque", 9.0, "joints.elbow_flex.torque: 9.0, expected above 0, at"),
        ("joints.elbow_flex.kp", float("nan"), "joints.elbow_flex.kp: nan, expected a finite"),
        ("joints.elbow_flex.direction", 0, "joints.elbow_flex.direction: 0, expected 1 or -1"),
        ("joints.elbow_flex.stand", 3.0, "joints.elbow_flex.stand: 3.0, expected -1.6 to 1.6"),
        ("joints.shoulder_pan.mode", "current",
         "joints.shoulder_pan.mode: a xl430-w250 has no mode 'current', expected one of position"),
    ],
)  # fmt: skip
def test_a_bad_configuration(key, value, words):
    values = options()
    at = values
    *parents, last = key.split(".")
    for parent in parents:
        at = at[parent]
    at[last] = value
    with pytest.raises(ValueError) as error:  # noqa: PT011
        make_robot("dynamixel", **values)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_without_the_sdk_the_extra_is_named(arm, monkeypatch):
    monkeypatch.setitem(sys.modules, "motoric.hardware.dynamixel.bus", None)
    monkeypatch.setitem(sys.modules, "dynamixel_sdk", None)
    refused(arm.robot, "pip install 'motoric[dynamixel]'")


# -- calibration ------------------------------------------------------------------------------


def sweep(arm, share=1.0):
    """A hand that moves every joint from end to end."""
    for angle in np.concatenate([np.linspace(0, 1, 12), np.linspace(1, -1, 24), [0.0]]):
        with arm.emulator.lock:
            for joint, servo in zip(arm.robot.joints, arm.chain.servos, strict=True):
                most = max(abs(joint.lower), abs(joint.upper)) + 0.05
                servo.angle = (ZERO * ANGLE) + share * angle * most
                servo.velocity = 0.0
        yield angle


def test_calibration_by_hand(arm):
    path = Path(arm.options["calibration"])
    path.unlink()
    with arm.emulator.lock:
        arm.chain[1].values["operating_mode"] = 3
    hand, seen = sweep(arm), []
    found = arm.robot.calibrate(
        lambda: None, lambda: next(hand, None) is None, lambda ranges: seen.append(ranges)
    )
    assert found == path
    content = json.loads(path.read_text())
    assert content["joints"]["elbow_flex"]["homing"] == ZERO
    assert content["joints"]["elbow_flex"]["upper"] == pytest.approx(ZERO + 1.65 / ANGLE, abs=2)
    assert list(seen[-1]) == list(arm.robot.spec.joints)
    assert not any(arm.values("torque_enable"))
    assert not list(path.parent.glob(".arm*"))
    arm.robot.configure()
    np.testing.assert_allclose(arm.robot.read().position, 0.0, atol=0.01)


def test_a_range_that_was_not_moved_is_refused(arm):
    path = Path(arm.options["calibration"])
    before = path.read_bytes()
    hand = sweep(arm, 0.5)
    with pytest.raises(
        RobotError, match=r"shoulder_pan \(id 1\): moved from -0.9.* does not reach"
    ):
        arm.robot.calibrate(lambda: None, lambda: next(hand, None) is None)
    assert path.read_bytes() == before


def motoric(*arguments, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-m", "motoric.scripts.cli", *map(str, arguments)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ, **kwargs,
    )  # fmt: skip


def test_the_calibrate_command(arm):
    path = Path(arm.options["calibration"])
    path.unlink()
    process = motoric(
        "calibrate", "robot=x_arm6", f"robot.options.port={arm.emulator.port}",
        f"robot.options.calibration={path}", "seconds=3", stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    assert "This pose is zero" in process.stdout.readline()
    for _ in sweep(arm):
        time.sleep(0.05)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert f"calibration: {path}" in out
    assert json.loads(path.read_text())["joints"]["gripper"]["id"] == 6


def test_calibrate_is_for_servo_chains(capsys):
    assert main(["calibrate", "robot=sim_go2", "seconds=1"]) == 2
    assert capsys.readouterr().err == "motoric calibrate: robot: 'sim_go2' needs no calibration\n"


# -- the whole way ----------------------------------------------------------------------------

TERMS = (Term("joint_position", 6), Term("joint_velocity", 6, 0.05), Term("action", 6))


def write_arm_bundle(folder: Path, robot: DynamixelRobot, rate=50.0) -> None:
    """A policy that goes to TARGET."""
    interface = JointTargets(robot.spec, rate, TERMS, (1.0,) * 6)
    write_policy(folder, linear(np.zeros((18, 6)), TARGET), spec_for(interface))


@pytest.mark.parametrize(("mode", "corrupt"), [(None, 0.0004), ("current", 0.0)])
def test_a_bundle_moves_the_arm(tmp_path, monkeypatch, urgent, mode, corrupt):
    quick = functools.partial(
        Supervisor, thresholds=Thresholds(soft_start=1.0, lie_down=0.8, damp=0.4)
    )
    monkeypatch.setattr("motoric.hardware.runtime.deploy.Supervisor", quick)
    for attempt in range(4):  # a machine too busy for a state every 0.1 s is a fault too
        (folder := tmp_path / str(attempt)).mkdir()
        fault = move_the_arm(folder, mode, corrupt)
        if fault is None or not LATE.match(fault):
            break
    assert fault is None
    assert urgent == {"x_arm6"}


def move_the_arm(tmp_path, mode, corrupt):
    with Arm(tmp_path, mode, corrupt) as arm:
        write_arm_bundle(tmp_path / "bundle", arm.robot)
        report = deploy(Bundle.load(tmp_path / "bundle", arm.robot.spec), arm.robot, 1.0,
                        None, tmp_path / "log.mcap", keys=False)  # fmt: skip
        assert not any(arm.values("torque_enable"))
        if report.fault is not None:
            return report.fault
        assert report.ended == "finished"
        log = read_log(tmp_path / "log.mcap")
        highest = np.abs(log.position[np.array(log.status) == "active"]).max(axis=0)
        np.testing.assert_allclose(highest, np.abs(TARGET), atol=0.15)
        return None


def test_the_deploy_command(arm, tmp_path, capsys):
    """And its log: of a robot without a model, which `replay` can't show."""
    write_arm_bundle(tmp_path / "run/bundle/best", arm.robot)
    (tmp_path / "run/config.yaml").write_text("")
    process = motoric(
        "deploy", f"run={tmp_path / 'run'}", "robot=x_arm6", "duration=0.5",
        f"robot.options.port={arm.emulator.port}",
        f"robot.options.calibration={arm.options['calibration']}", "robot.options.model=null",
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, out + err
    assert "policy acted" in out
    assert not any(arm.values("torque_enable"))
    (log,) = (tmp_path / "run/logs").glob("*.mcap")
    assert f"log: {log}\n" in out
    assert main(["replay", str(log)]) == 2
    error = capsys.readouterr().err
    assert "log: robot 'x_arm6' has no model to show" in error
    assert "MCAP" in error
    assert error.count("\n") == 1


def test_the_supervisor_sees_a_silent_bus(arm):
    """Supervisor and robot in one loop: no new state for 0.1 s is its fault, and damping."""
    spec = arm.robot.spec
    supervisor = Supervisor(
        spec.limits, spec.stand, spec.rest, spec.kp, spec.kd, spec.damping, 0.02
    )
    arm.robot.configure()
    arm.robot.activate()
    supervisor.start(time.monotonic(), arm.robot.read())
    for tick in range(400):
        state = arm.robot.read()
        sent = supervisor.update(time.monotonic(), state, None)
        arm.robot.write(sent)
        if tick == 10:
            assert supervisor.mode is Mode.SOFT_START
            with arm.emulator.lock:
                arm.chain.lose = 1.0
        if supervisor.mode is Mode.FAULT:
            break
        time.sleep(0.02)
    assert "s old, at most 0.1 allowed" in supervisor.reason
    assert not sent.kp.any()
    with arm.emulator.lock:
        arm.chain.lose = 0.0
