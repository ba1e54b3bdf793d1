"""`motoric check`: what moved, which way, and that nothing was commanded."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from motoric.hardware.robot import RobotError
from motoric.hardware.specs.go2 import GO2
from motoric.scripts.check import Moves, Watch
from motoric.scripts.cli import main

from ..hardware.network.test_remote_robot import Watched
from .test_simulate import Process


def moves(path: np.ndarray, seconds: float) -> list[tuple[str, float]]:
    """What `Moves` makes of joint positions [T, 2]."""
    seen = Moves(("a", "b"))
    for k, position in enumerate(path):
        seen.add(k * seconds / len(path), position)
    return seen.all


def test_a_movement_is_told_with_its_sign_when_it_ends():
    there = np.concatenate(
        [np.linspace(0, 0.5, 50), np.linspace(0.5, -0.3, 50), np.full(200, -0.3)]
    )
    still = np.zeros(300)
    found = moves(np.stack([still, there], 1), 3.0)
    assert [(name, round(length, 1)) for name, length in found] == [("b", 0.5), ("b", -0.8)]


def test_noise_and_drift_are_no_movements():
    rng = np.random.default_rng(0)
    assert not moves(rng.normal(0, 0.005, (2000, 2)), 10.0)
    slow = np.linspace(0, 0.05, 2000)
    assert not moves(np.stack([slow, -slow], 1), 10.0)
    noisy = np.concatenate([np.linspace(0, -0.4, 200), np.full(400, -0.4)])
    noisy = np.stack([noisy + rng.normal(0, 0.005, 600), rng.normal(0, 0.005, 600)], 1)
    ((name, length),) = moves(noisy, 3.0)
    assert name == "a"
    assert length == pytest.approx(-0.4, abs=0.03)


def test_a_watch_counts_new_states_and_waits():
    robot = Watched()
    watch = Watch(robot, 0.0)
    for tick in range(101):
        robot.frozen = 50 <= tick < 60
        watch.look(0.01 * tick)
    lines = list(watch.lines())
    assert "states: 90 a second, the longest wait 110 ms" in lines[2]
    assert lines[1] == "battery: 71 %"
    assert lines[-1] == "supervisor: would start from here"
    robot.frozen = False
    robot.position[2] = -0.3
    watch.look(2.0)
    assert list(watch.lines())[-1].startswith("supervisor: FL_calf_joint: position -0.300 rad, lim")
    assert not robot.commands
    assert not robot.on


def test_the_joints_of_an_arm_moved_by_hand(tmp_path):
    """The order and signs of the chain, while its servos keep their torque off."""
    served = Process("robot=x_arm6", "hand=true", cwd=tmp_path)
    try:
        arguments = [w for w in served.deploy if w.startswith(("robot=", "robot.options."))]
        done = subprocess.run(
            [sys.executable, "-m", "motoric.scripts.cli", "check", *arguments, "duration=8"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
    finally:
        served.end()
    assert done.returncode == 0, done.stderr
    found = [(n, float(v)) for n, v in re.findall(r"  (\w+) ([+-][\d.]+) rad", done.stdout)]
    whole = [(name, length) for name, length in found if abs(length) > 3.0]
    assert [name for name, _ in whole][:2] == ["shoulder_pan", "shoulder_lift"], done.stdout
    assert all(length < 0 for _, length in whole), "from the upper end to the lower"
    assert re.search(r"shoulder_pan +\S+ +-1.8\d +1.8\d +-1.80 +1.80 .* 32\n", done.stdout)


def test_a_robot_that_is_lost_ends_it(monkeypatch, capsys):
    robot = Watched()
    reads = robot.read

    def read():
        if robot.sequence > 20:
            raise RobotError("cable pulled")
        return reads()

    robot.read = read
    monkeypatch.setattr("motoric.scripts.check.make_robot", lambda *a, **k: robot)
    assert main(["check", "robot=sim_go2"]) == 1
    out, error = capsys.readouterr()
    assert error == "motoric check: cable pulled\n"
    assert all(joint in out for joint in GO2.joints)
    assert robot.calls == ["configure", "close"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["robot=go2"], "interface: missing, name the one go2 is on"),
        (["robot=sim_go2", "interface=lo"], "interface: 'lo', robot=sim_go2 is on none"),
        (["robot=x_arm6", "robot.options.calibration=/nowhere"], "calibration /nowhere is missing"),
        (["duration=0"], "duration: 0.0, expected more than 0"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, words):
    assert main(["check", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
