"""From bundle to simulated robot in its own process; injected faults end in the safe state."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest
from motoric.control.command import MotorCommand
from motoric.control.supervisor import Supervisor
from motoric.hardware.drivers import make_robot
from motoric.hardware.goals import checked
from motoric.hardware.robot import Robot, RobotError, RobotState
from motoric.hardware.runtime import deploy as deployment
from motoric.hardware.runtime.agent import Agent
from motoric.hardware.runtime.bundle import Bundle, BundleError, read_spec
from motoric.hardware.runtime.deploy import deploy
from motoric.hardware.runtime.inference import Inline
from motoric.hardware.runtime.log import read_log
from motoric.hardware.runtime.policy import Policy
from motoric.hardware.runtime.rehearsal import Rehearsal
from motoric.hardware.runtime.timing import ticks_per_action
from motoric.hardware.simulated.robot import SimRobot
from motoric.hardware.sources import Fixed
from motoric.hardware.specs.go2 import GO2

from ...conftest import GO2_INTERFACE, go2_spec, write_policy

TIMED = 11  # inferences timed before anything moves
pytestmark = pytest.mark.usefixtures("quick")


class Watched(SimRobot):
    """A simulated robot that keeps what it was sent, and misbehaves at a given moment.

    at: actions after the policy took over; do: called once, with this robot
    """

    def __init__(self, at=25, do=None):
        super().__init__(faults=True)
        self.sent, self.states, self.stiff = [], [], 0
        self.at, self.do = at, do

    def write(self, command):
        self.sent.append(command)
        self.states.append(self._state)
        # active: full stiffness in a standing pose
        self.stiff += bool(command.kp.max() > 0.99 * GO2.kp[0])
        if self.do is not None and self.stiff == 10 * self.at + 250:
            do, self.do = self.do, None
            do(self)
        super().write(command)

    def check_commands(self):
        """Every command is finite, within position, rate and torque limits."""
        limits = GO2.limits
        for before, now in zip(self.sent, self.sent[1:], strict=False):
            for name in ("position", "velocity", "kp", "kd", "torque"):
                assert np.isfinite(getattr(now, name)).all(), name
            assert (now.position >= limits.lower - 1e-9).all()
            assert (now.position <= limits.upper + 1e-9).all()
            elapsed = min(now.time - before.time + 0.002, 0.02)
            moved = np.abs(now.position - before.position)
            assert (moved <= limits.target_rate * elapsed + 1e-9).all()
        for state, sent in zip(self.states, self.sent, strict=True):
            if np.isfinite(state.position).all() and np.isfinite(state.velocity).all():
                torque = sent.kp * (sent.position - state.position) - sent.kd * state.velocity
                assert (np.abs(torque) <= limits.torque * (1 + 1e-9)).all()


class FaultyBundle(Bundle):
    """A policy that misbehaves after some calls."""

    def __init__(self, folder, after, how):
        super().__init__(*read_spec(folder))
        self.left, self.how = after + TIMED, how

    def run(self, network, feed):
        self.left -= 1
        out = super().run(network, feed)
        return out | {"action": self.how(out["action"])} if self.left < 0 else out


@pytest.fixture
def robots():
    made = []
    yield made.append
    for robot in made:
        robot.close()


def run(bundle, robot, tmp_path, robots, duration=1.5):
    robots(robot)
    report = deploy(bundle, robot, duration, [0.0, 0.0, 0.0], tmp_path / "log.mcap", keys=False)
    robot.check_commands()
    log = read_log(tmp_path / "log.mcap")
    assert len(log.times) >= report.ticks - 2
    return report, log


def test_it_rises_stands_and_lies_down(bundle_folder, tmp_path, robots):
    robot = Watched()
    report, log = run(Bundle.load(bundle_folder), robot, tmp_path, robots)
    assert report.fault is None
    assert report.ended == "finished"
    assert report.seconds == pytest.approx(1.5, abs=0.1)
    assert report.metrics["fell"] == 0
    assert report.metrics["velocity_error"] < 0.05
    active = np.array(log.status) == "active"
    assert log.base_height[active].min() > 0.22
    assert log.base_height[-1] < 0.15
    assert list(dict.fromkeys(log.status)) == ["soft_start", "active", "stopping", "off"]
    np.testing.assert_array_equal(log.command.position[5], robot.sent[5].position)


def test_the_log_ends_with_the_times(bundle_folder, tmp_path, robots):
    report, log = run(Bundle.load(bundle_folder), Watched(), tmp_path, robots, 0.5)
    assert log.timing is not None
    assert log.timing["ticks"] == report.ticks == sum(report.histograms["lateness"])
    assert log.timing["histograms"] == report.histograms
    assert sum(report.histograms["policy"]) == pytest.approx(25, abs=3)
    assert report.loop_rate == log.timing["loop_rate"] == 500


def test_a_walk_is_brought_to_a_halt_before_it_lies_down(bundle_folder, tmp_path, robots):
    """The command goes to zero and stays there; what the report measures ends before."""
    robot = Watched()
    robots(robot)
    report = deploy(
        Bundle.load(bundle_folder), robot, 0.5, [0.4, 0.0, 0.3], tmp_path / "log.mcap", keys=False
    )
    log = read_log(tmp_path / "log.mcap")
    asked = log.goal["velocity"][np.isfinite(log.goal["velocity"][:, 0])]
    np.testing.assert_array_equal(asked[0], [0.4, 0.0, 0.3])
    np.testing.assert_array_equal(asked[-1], [0.0, 0.0, 0.0])
    assert (np.diff(asked, axis=0) <= 0).all()
    assert np.abs(np.diff(asked[:, 0])).max() < 0.1  # not at once
    assert np.sum(asked[:, 0] == 0) == pytest.approx(250, abs=60)
    assert report.ended == "finished"
    assert report.seconds == pytest.approx(0.5, abs=0.1)
    assert report.metrics["velocity_error"] == pytest.approx(
        0.4, abs=0.1
    )  # 0.2 with the halt in it


def test_a_dry_run_sends_nothing(bundle_folder, tmp_path, robots):
    """Motors stay off, the policy acts on what is measured, the log has what it would send."""

    class Untouchable(Watched):
        def refuse(self, *arguments):
            raise AssertionError("a dry run commands nothing")

        activate = write = deactivate = refuse

    robot = Untouchable()
    robots(robot)
    report = deploy(
        Bundle.load(bundle_folder), robot, 0.5, [0.0] * 3, tmp_path / "log.mcap", keys=False,
        dry_run=True,
    )  # fmt: skip
    assert report.dry_run
    assert report.fault is None
    assert report.ended == "finished"
    assert report.seconds == pytest.approx(0.5, abs=0.1)
    assert report.asked_move > 0.3  # it lies, the policy stands
    log = read_log(tmp_path / "log.mcap")
    assert log.metadata["dry_run"] == "true"
    assert log.base_height.max() < 0.15
    assert log.command.kp[np.array(log.status) == "active"].any()
    assert str(robot.realtime) == report.realtime  # for the driver's threads


def nan(action):
    return action * np.nan


def late(action):
    time.sleep(0.5)
    return action


def crash(action):
    raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    ("how", "words"),
    [(nan, "action: not finite"), (late, "policy late"), (crash, "policy: RuntimeError: out of")],
)
def test_a_faulty_policy_ends_safe(bundle_folder, tmp_path, robots, how, words):
    bundle = FaultyBundle(bundle_folder, 30, how)
    report, log = run(bundle, Watched(), tmp_path, robots)
    ends_safe(report, log, words)


def busy(action):
    """Python code that holds the interpreter as long as it can."""
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        pass
    return action


def forever(action):
    threading.Event().wait()


@pytest.mark.parametrize("how", [late, busy, forever])
@pytest.mark.parametrize("rate", [50, 500])
def test_no_policy_delays_the_supervisor(bundle_folder, tmp_path, robots, how, rate):
    """Commands go on at their rate while the policy does not answer, and end in the safe one."""
    robot = Watched()
    robots(robot)
    report = deploy(
        FaultyBundle(bundle_folder, 30, how), robot, 1.5, [0.0] * 3, keys=False, loop_rate=rate
    )
    assert "policy late: no action for 0.0" in report.fault
    times = np.array([c.time for c in robot.sent])
    stiff = np.array([c.kp.any() for c in robot.sent])
    fault = int(np.flatnonzero(stiff)[-1]) + 1
    gaps = np.diff(times[fault - 50 : fault + 25])
    # Half a period later is the guard's turn; the rest is for a busy machine.
    assert np.median(gaps) < 1.6 / rate + 0.003
    assert np.percentile(gaps, 90) < 1.6 / rate + 0.02
    assert len(robot.sent) - fault > 0.15 * rate  # damped for half a second


def test_a_late_action_is_used_while_it_is_fresh_and_dropped_after(bundle_folder, robots):
    """An action after 2 ms is carried out, one after 15 ms is not: its period is 20 ms."""
    counts = {}
    for pause in (0.002, 0.015):

        def slow(action, pause=pause):
            time.sleep(pause)
            return action + np.float32(0.1)

        robot = Watched()
        robots(robot)
        report = deploy(
            FaultyBundle(bundle_folder, 2, slow), robot, 0.5, [0.0] * 3, keys=False, loop_rate=500
        )
        counts[pause] = report, robot
    report, robot = counts[0.002]
    assert report.fault is None
    moved = np.stack([c.position for c in robot.sent]) - GO2.stand
    assert np.isclose(moved[:, 0], 0.06).sum() > 10
    assert "policy late" in counts[0.015][0].fault


def kill(robot):
    os.kill(robot.process.pid, signal.SIGKILL)


def unplug(robot):
    raise RobotError("no such device")


@pytest.mark.parametrize(
    ("do", "words"),
    [
        (lambda r: r.inject(freeze=5.0), "state: 0.1"),
        (lambda r: r.inject(drop=True), "connection lost"),
        (kill, "connection lost"),
        (unplug, "connection lost: no such device"),
        (lambda r: os.kill(r.process.pid, signal.SIGSTOP), "state: 0.1"),
        (lambda r: r.inject(joint=[2, -0.3]), "joint 2: position"),
        (lambda r: r.inject(tip=2.0), "tilted by"),
    ],
    ids=["frozen state", "dropped", "killed", "unplugged", "stopped", "limit hit", "tipped over"],
)
def test_a_faulty_robot_ends_safe(bundle_folder, tmp_path, robots, do, words):
    robot = Watched(do=do)
    try:
        report, log = run(Bundle.load(bundle_folder), robot, tmp_path, robots)
    finally:
        if robot.process is not None and robot.process.poll() is None:
            os.kill(robot.process.pid, signal.SIGCONT)
    ends_safe(report, log, words)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_an_emergency_stop(bundle_folder, tmp_path, robots, number):
    robot = Watched(do=lambda r: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    report, log = run(Bundle.load(bundle_folder), robot, tmp_path, robots)
    ends_safe(report, log, f"e-stop by {number.name}")
    assert signal.getsignal(number) is before


class Slow(Robot):
    """A robot at rest that takes its time to be switched on and off, while things happen.

    on, off: called in the middle of `activate` and of `deactivate`
    """

    spec = GO2

    def __init__(self, on=lambda: None, off=lambda: None):
        self.on, self.off, self.count, self.sent, self.active = on, off, 0, [], False

    def configure(self):
        pass

    close = configure

    def activate(self):
        time.sleep(0.1)
        self.on()
        time.sleep(0.1)
        self.active = True

    def read(self):
        self.count += 1
        zero, up = np.zeros(12), np.array([1.0, 0.0, 0.0, 0.0])
        return RobotState(0.001 * self.count, self.count, GO2.rest, zero, zero, up, np.zeros(3))

    def write(self, command):
        self.sent.append(command)

    def deactivate(self):
        time.sleep(0.1)
        self.off()
        time.sleep(0.1)
        self.active = False


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_a_second_ctrl_c_does_not_keep_the_motors_on(bundle_folder, tmp_path):
    """The first one is the e-stop; the second comes while the motors are being switched off."""
    robot = Slow(on=interrupt, off=interrupt)
    try:
        report = deploy(
            Bundle.load(bundle_folder), robot, 1.0, [0.0] * 3, tmp_path / "log.mcap", keys=False
        )
    except KeyboardInterrupt:
        pytest.fail("interrupted, the report is lost")
    assert not robot.active
    assert report.fault == "e-stop by SIGINT"
    log = read_log(tmp_path / "log.mcap")
    assert log.timing is not None, "the log is whole"
    assert log.reason[-1] == "e-stop by SIGINT"


def test_an_e_stop_while_it_is_switched_on_keeps_it_from_rising(bundle_folder):
    robot = Slow(on=interrupt)
    report = deploy(Bundle.load(bundle_folder), robot, 5.0, [0.0] * 3, keys=False)
    assert report.fault == report.ended == "e-stop by SIGINT"
    assert report.seconds == 0.0
    assert not robot.active
    assert len(robot.sent) > 10
    assert all(command.damps for command in robot.sent)
    assert robot.sent[-1].time - robot.sent[0].time < 1.0, "damped for its time, then over"


@pytest.mark.parametrize(
    ("key", "fault", "ended"),
    [(b" ", "e-stop by key", "e-stop by key"), (b"q", None, "ended by key")],
)
def test_a_key_while_it_is_switched_on_keeps_it_from_rising(
    bundle_folder, monkeypatch, capsys, key, fault, ended
):
    main, terminal = os.openpty()
    said = []

    def press():
        os.write(main, key)
        said.append(capsys.readouterr().out)

    with os.fdopen(terminal) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        robot = Slow(on=press)
        report = deploy(Bundle.load(bundle_folder), robot, 5.0, [0.0] * 3, keys=True)
    os.close(main)
    assert said == [""], "no key is promised before it works"
    assert ("e-stop; q: lie down" in capsys.readouterr().out) == (fault is None)
    assert (report.fault, report.ended) == (fault, ended)
    assert all(command.damps for command in robot.sent)
    assert not robot.active


@pytest.mark.parametrize(
    ("key", "words"), [(b" ", "e-stop by key"), (b"\n", "e-stop by key"), (b"q", "")]
)
def test_keys(bundle_folder, tmp_path, robots, monkeypatch, key, words):
    """A real terminal: a pseudo-terminal stands for the operator's keyboard."""
    main, terminal = os.openpty()
    with os.fdopen(terminal) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        robot = Watched(do=lambda r: os.write(main, key))
        robots(robot)
        report = deploy(
            Bundle.load(bundle_folder), robot, 1.5, [0.0] * 3, tmp_path / "log.mcap", keys=True
        )
    os.close(main)
    robot.check_commands()
    if key == b"q":
        assert report.fault is None
        assert report.ended == "ended by key"
        assert report.seconds < 1.4
    else:
        ends_safe(report, read_log(tmp_path / "log.mcap"), words)


def ends_safe(report, log, words):
    assert report.fault is not None
    assert words in report.fault
    assert log.status[-1] == "fault"
    assert words in log.reason[-1]
    first = log.status.index("fault")
    assert not log.command.kp[first:].any()
    assert report.seconds < 1.4


def test_corrupted_packets_are_dropped_and_it_goes_on(bundle_folder, tmp_path, robots):
    robot = Watched(do=lambda r: r.inject(corrupt=0.1))
    report, _ = run(Bundle.load(bundle_folder), robot, tmp_path, robots)
    assert report.fault is None
    assert robot.damaged > 5


def test_silence_damps_the_motors_of_the_robot_itself(robots):
    """A policy computer that dies leaves the robot to its own watchdog."""
    robot = SimRobot()
    robots(robot)
    robot.configure()
    robot.activate()
    began, tick, zero = time.monotonic(), 0, np.zeros(12)
    while (since := time.monotonic() - began) < 2.0:  # it rises in one second
        tick += 1
        target = GO2.rest + min(since, 1.0) * (GO2.stand - GO2.rest)
        robot.write(MotorCommand(target, zero, GO2.kp, GO2.kd, zero, time.monotonic(), tick))
        time.sleep(0.02)
        state = robot.read()
    assert state.base_height > 0.2
    time.sleep(2.0)
    state = robot.read()
    assert state.base_height < 0.15
    assert np.abs(state.torque).max() < 5.0


def test_the_server_ends_with_the_process_that_started_it(tmp_path):
    import subprocess
    import sys

    code = (
        "from motoric.hardware.simulated.robot import SimRobot; import time; r = SimRobot(); "
        "r.configure(); print(r.process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    server = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{server}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return
        except FileNotFoundError:
            return
        time.sleep(0.05)
    pytest.fail("the simulated robot is still running")


@pytest.mark.parametrize(
    ("rate", "wished", "robot", "ratio"),
    [(50, None, None, 1), (50, None, 500, 10), (60, None, 500, 8), (50, None, 10, 1),
     (50, 500, 100, 10), (50, 50, 500, 1)],
)  # fmt: skip
def test_the_loop_runs_at_a_multiple_of_the_policys_rate(rate, wished, robot, ratio):
    assert ticks_per_action(rate, wished, robot) == ratio


@pytest.mark.parametrize("wished", [480, 49, 25])
def test_a_loop_rate_that_is_no_multiple_is_refused(wished):
    with pytest.raises(ValueError, match=f"loop_rate: {wished} Hz, expected a multiple of"):
        ticks_per_action(50, wished, 500)


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        ([5.0, 0, 0], "goal.velocity: forward 5, the policy was trained for -0.6 to 1"),
        ([0, 0, -0.9], "goal.velocity: turn -0.9"),
        ([0, 0], r"expected finite numbers \[forward, left, turn\]"),
        ([0, float("nan"), 0], "expected finite numbers"),
        ({"speed": [0, 0, 0]}, "goal.speed: no such part, expected velocity"),
    ],
)
def test_a_goal_that_is_not_allowed_is_refused_before_anything_moves(bundle_folder, goal, words):
    robot = SimRobot()
    with pytest.raises(ValueError, match=words):
        deploy(Bundle.load(bundle_folder), robot, 1.0, goal)
    assert robot.process is None


def test_a_bundle_of_another_robot_is_refused(tmp_path):
    write_policy(tmp_path / "b", spec=go2_spec(robot="spot"))
    robot = SimRobot()
    with pytest.raises(BundleError, match="'spot', expected 'go2'"):
        deploy(Bundle.load(tmp_path / "b"), robot, 1.0, [0.0] * 3)
    assert robot.process is None


def test_a_robot_that_does_not_start_is_one_error(monkeypatch, bundle_folder, tmp_path):
    monkeypatch.setattr("motoric.hardware.simulated.robot.sys.executable", "/bin/false")
    with pytest.raises(RobotError, match="did not start"):
        deploy(Bundle.load(bundle_folder), SimRobot(), 1.0, [0.0] * 3)


def test_drivers():
    assert isinstance(make_robot("sim"), SimRobot)
    with pytest.raises(ValueError, match="'spot' is unknown, expected one of sim, remote"):
        make_robot("spot")


def test_a_rehearsal_has_no_effect_and_what_it_meets_is_no_fault(bundle_folder):
    """A deployment's own observation, memory, goal and supervisor stay as they were."""
    goal = checked(GO2_INTERFACE.goals, [0.5, 0.0, 0.0])
    bundle = Bundle.load(bundle_folder)
    zero, upright = np.zeros(12), np.array([1.0, 0.0, 0.0, 0.0])

    class Standing(SimRobot):
        def read(self):
            return RobotState(1.0, 1, GO2.stand, zero, zero, upright, np.zeros(3))

    def control():
        limits = (GO2.limits, GO2.stand, GO2.rest, GO2.kp, GO2.kd, GO2.damping, 0.02)
        agent, source = Agent(GO2_INTERFACE, goal), Fixed([0.5, 0.0, 0.0])
        source.open(GO2_INTERFACE.goals)
        return deployment.Control(
            Standing(), Supervisor(*limits), agent, Inline(Policy(bundle)),
            Rehearsal(bundle, GO2_INTERFACE, goal), source, 1.0, 10, None,
        ), agent  # fmt: skip

    (rehearsed, agent), (other, same) = control(), control()
    for each in (rehearsed, other):
        each._read()
    for _ in range(3):
        rehearsed.rehearse()
    bundle.run = lambda network, feed: 1 / 0  # type: ignore[method-assign]
    rehearsed.rehearse()
    del bundle.run
    state = rehearsed._newest
    seen, wanted = (a.observe(a.measured(state, 7.0)) for a in (agent, same))
    np.testing.assert_array_equal(seen["observation"], wanted["observation"])
    assert rehearsed.supervisor.mode == other.supervisor.mode == "soft_start"
    assert rehearsed._asked is None
