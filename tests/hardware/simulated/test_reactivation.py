"""After a fault nothing moves a robot again but a human: whole processes, stopped and let go on."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from motoric.control.command import MotorCommand
from motoric.control.supervisor import Supervisor
from motoric.hardware.network.server import RobotServer
from motoric.hardware.robot import MotorsDamped, Robot, RobotError, RobotState
from motoric.hardware.runtime.bundle import Bundle
from motoric.hardware.runtime.deploy import deploy
from motoric.hardware.runtime.log import LogError, read_log
from motoric.hardware.simulated.body import Motors
from motoric.hardware.simulated.robot import SimRobot
from motoric.hardware.simulated.server import LATCH, Latch
from motoric.hardware.specs.go2 import GO2
from motoric.hardware.unitree.robot import GO2_WIRE, UnitreeRobot

ZERO = np.zeros(12)
DAMPED = MotorCommand(GO2.stand, ZERO, ZERO, GO2.kd, ZERO)
# N m beyond damping; the stand asks a lying leg for over 20, hitting the floor looks like 2
QUIET = 6.0


def stiff(position=GO2.stand) -> MotorCommand:
    return MotorCommand(position, ZERO, GO2.kp, GO2.kd, ZERO, time.monotonic())


def hold(robot, seconds, seen=lambda state: None, rise=1.0):
    """Command the stand for some time, after rising to it; returns the last state."""
    began = time.monotonic()
    while (since := time.monotonic() - began) < rise + seconds:
        seen(robot.read())
        share = min(since / rise, 1.0) if rise else 1.0
        robot.write(stiff(GO2.rest + share * (GO2.stand - GO2.rest)))
        time.sleep(0.01)
    return robot.read()


def until(what, seconds=30.0):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def deploying(run, *overrides):
    """`motoric deploy` as an operator starts it."""
    line = [sys.executable, "-m", "motoric.scripts.cli", "deploy", f"run={run}", *overrides]
    process = subprocess.Popen(
        [*line, "goal=[0,0,0]", "realtime=off"], stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def stopped_for(process, seconds):
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGCONT)


def test_a_late_command_finds_the_simulated_robot_damped():
    """Whoever comes back after its watchdog moves nothing, until the robot is activated again."""
    robot = SimRobot()
    try:
        robot.configure()
        robot.activate()
        assert hold(robot, 1.5).base_height > 0.2
        until(lambda: robot.read() and robot._damped)
        with pytest.raises(RobotError, match=r"no command for 0.1 s, its motors are damped"):
            robot.write(stiff())
        robot.write(DAMPED)  # it does that anyway
        torques, heights = [], []

        def look(state):
            torques.append(np.abs(state.torque + 2.0 * state.velocity).max())
            heights.append(state.base_height)
            robot._damped = False  # a client that does not listen

        hold(robot, 1.0, look, rise=0.0)
        assert max(torques) < QUIET, "damping and nothing else"
        assert heights[-1] < 0.15
        robot.activate()
        assert hold(robot, 1.5).base_height > 0.2
    finally:
        robot.close()


@pytest.mark.parametrize("gone", [True, False], ids=["client gone", "silent"])
def test_after_a_lost_client_or_a_silence_only_an_activation_counts(gone):
    motors = Motors(GO2)
    motors.__class__ = type("Timed", (Motors,), {"time": 0.0})
    latch = Latch(motors)  # type: ignore[arg-type]
    latch.activate(1)
    latch.take(stiff())
    motors.time = LATCH - 0.001
    latch.watch()
    latch.take(stiff())
    assert motors.mode == "commanded"
    if gone:
        latch.lose()
    motors.time += LATCH + 0.001
    latch.watch()
    latch.take(stiff())
    assert motors.mode == "damped"
    assert latch.tell
    latch.activate(2)
    latch.take(stiff())
    assert motors.mode == "commanded"


def test_a_policy_process_that_was_stopped_ends_in_a_fault(bundle_folder):
    """SIGSTOP while it moves, SIGCONT 0.4 s later: damped from there to the end, exit code 1."""
    run = bundle_folder.parent / "run"
    (run / "bundle").mkdir(parents=True)
    bundle_folder.rename(run / "bundle" / "best")

    def newest():
        return max((run / "logs").glob("*.mcap"), key=lambda path: path.stat().st_mtime)

    def moves():
        with contextlib.suppress(LogError, ValueError):
            return read_log(newest()).command.kp.any()
        return False

    for _ in range(3):  # a machine too busy may end it before
        with deploying(run, "robot=sim_go2", "duration=60") as process:
            until(lambda p=process: moves() or p.poll() is not None)
            if process.poll() is None:
                stopped_for(process, 0.4)
            output, _ = process.communicate(timeout=30)
        if "control loop paused" in output:
            break
    assert process.returncode == 1, output
    log = read_log(newest())
    first = log.status.index("fault")
    assert log.reason[first].startswith("control loop paused for ")
    assert "fault" in output
    assert set(log.status[first:]) == {"fault"}
    assert set(log.reason[first:]) == {log.reason[first]}
    assert not log.command.kp[first:].any()
    assert log.times[-1] - log.times[first] > 0.9  # it was damped for a second, then off
    damping = log.torque[first + 1 :] + 2.0 * log.velocity[first + 1 :]
    assert np.nanmax(np.abs(damping)) < QUIET


class Still(Robot):
    """A robot at rest that is what it is, whatever it is told; keeps that."""

    spec = GO2

    def __init__(self):
        self.count, self.sent = 0, []

    def configure(self):
        pass

    activate = deactivate = close = configure

    def read(self):
        self.count += 1
        up = np.array([1.0, 0.0, 0.0, 0.0])
        return RobotState(0.001 * self.count, self.count, GO2.rest, ZERO, ZERO, up, np.zeros(3))

    def write(self, command):
        self.sent.append(command)


def test_an_e_stop_in_the_moment_of_the_start_is_a_fault(bundle_folder, monkeypatch):
    start = Supervisor.start

    def late(self, now, state):
        if now > 0:  # not the rehearsal
            self.fault("e-stop by SIGINT")
        start(self, now, state)

    monkeypatch.setattr(Supervisor, "start", late)
    robot = Still()
    report = deploy(Bundle.load(bundle_folder), robot, 1.0, [0.0] * 3, keys=False)
    assert report.fault == "e-stop by SIGINT"
    assert len(robot.sent) > 10
    assert not any(command.kp.any() for command in robot.sent)


class Served(SimRobot):
    """A simulated robot that keeps what it is commanded."""

    def __init__(self):
        super().__init__()
        self.sent, self.height = [], 0.0

    def write(self, command):
        self.sent.append((time.monotonic(), bool(command.kp.any())))
        self.height = self.read().base_height
        super().write(command)


def test_only_a_new_deployment_moves_the_robot_again(bundle_folder):
    """`motoric serve` on the robot, the policy elsewhere: one deployment is stopped, for so long
    that the robot is damped, and ends; nothing moves until an operator starts the next one."""
    robot, said, over = Served(), [], threading.Event()
    server = RobotServer(robot, say=said.append)
    thread = threading.Thread(
        target=server.run, args=(lambda: "test" if over.is_set() else None,), daemon=True
    )
    thread.start()
    place = f"robot.options.port={server.address[1]}"
    try:
        until(lambda: any("serving" in line for line in said))
        for _ in range(3):  # a machine too busy may end it before
            began = len(robot.sent)
            with deploying(bundle_folder, "robot=remote_go2", place, "duration=60") as process:
                until(
                    lambda n=began, p=process: (
                        sum(on for _, on in robot.sent[n:]) > 120 or p.poll() is not None
                    )
                )  # it has risen: 2 s at 50 Hz
                risen = process.poll() is None
                if risen:
                    stopped_for(process, 0.3)
                since = time.monotonic()
                output, _ = process.communicate(timeout=30)
            assert process.returncode == 1, output
            if risen:
                break
        assert any("motors damped: no command for 0." in line for line in said)
        time.sleep(0.5)
        assert not any(on for at, on in robot.sent if at > since), "stiff after the fault"
        until(lambda: robot._state is not None and robot._state.base_height < 0.15)
        with deploying(bundle_folder, "robot=remote_go2", place, "duration=60"):
            until(lambda: sum(on for at, on in robot.sent if at > since) > 120)
            until(lambda: robot.height > 0.18)  # it has fallen as it likes: maybe not quite up
    finally:
        over.set()
        thread.join(10.0)
        server.close()
        robot.close()


def test_the_unitree_driver_lets_no_late_command_through():
    """Also where the whole process was stopped, its sending thread included."""
    robot = UnitreeRobot(GO2, GO2_WIRE, "lo")
    sent = []
    robot._commands = SimpleNamespace(write=sent.append)  # type: ignore[assignment]
    robot._sending, robot._fresh = True, time.monotonic()
    robot.write(stiff())
    assert len(sent) == 1
    robot._fresh = time.monotonic() - 0.2  # no thread was there to see it
    with pytest.raises(MotorsDamped, match=r"no command for 0.1 s, its motors are damped"):
        robot.write(stiff())
    assert len(sent) == 1
    assert robot._bytes == robot._damped(), "what the thread goes on with"
    with pytest.raises(MotorsDamped, match="activate it"):
        robot.write(stiff())
    robot.write(dataclasses.replace(stiff(), kp=np.zeros(12)))  # damped, as it is
    assert len(sent) == 1
