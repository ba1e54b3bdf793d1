"""`motoric serve`: however it is told to end, the robot's motors go off first."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from motoric.control.command import MotorCommand
from motoric.hardware.network.robot import RemoteRobot
from motoric.hardware.robot import STOPS, RobotError
from motoric.hardware.specs.go2 import GO2

ZERO = np.zeros(12)
SERVE = [sys.executable, "-m", "motoric.scripts.cli", "serve", "robot=sim_go2", "port=0"]


def commanded(said: str) -> RemoteRobot:
    """A client of the server that printed this, its motors on and stiff."""
    robot = RemoteRobot(port=int(said.rpartition(":")[2]))
    robot.configure()
    robot.activate()
    for _ in range(10):
        robot.write(MotorCommand(GO2.rest, ZERO, GO2.kp, GO2.kd, ZERO))
        time.sleep(0.01)
    return robot


def end_of(robot: RemoteRobot) -> str:
    """What the client is told."""
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        try:
            robot.read()
        except RobotError as error:
            if "damped" not in str(error):  # nobody commands it meanwhile
                return str(error)
        time.sleep(0.01)
    pytest.fail("it goes on")


@pytest.mark.parametrize("name", STOPS)
def test_a_signal_ends_it_with_the_motors_off(name):
    server = subprocess.Popen(SERVE, stdout=subprocess.PIPE, text=True)
    robot = None
    try:
        assert server.stdout is not None
        robot = commanded(server.stdout.readline())
        server.send_signal(getattr(signal, name))
        assert end_of(robot).endswith(f"the server was ended: {name}")
        said = server.communicate(timeout=20)[0]
        assert server.returncode == 0
        assert "motors off" in said
    finally:
        server.kill()
        server.wait()
        if robot is not None:
            robot.close()


def test_a_terminal_that_is_closed_ends_it_with_the_motors_off():
    """A lost ssh: the signal comes, and there is nothing left to print on."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(SERVE[0], SERVE)
    robot = None
    try:
        said = b""
        while not said.endswith(b"\n"):
            said += os.read(terminal, 1000)
        robot = commanded(said.decode())
        os.close(terminal)
        assert end_of(robot).endswith("the server was ended: SIGHUP")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if robot is not None:
            robot.close()


def test_nohup_keeps_it_serving():
    server = subprocess.Popen(["nohup", *SERVE], stdout=subprocess.PIPE, text=True)
    robot = None
    try:
        assert server.stdout is not None
        robot = commanded(server.stdout.readline())
        server.send_signal(signal.SIGHUP)
        robot.deactivate()
        robot.activate()
        server.send_signal(signal.SIGTERM)
        assert end_of(robot).endswith("the server was ended: SIGTERM")
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.communicate()
        if robot is not None:
            robot.close()
