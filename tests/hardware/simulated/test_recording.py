"""A simulated robot's own record: what reached its motors, and what they made of it."""

from __future__ import annotations

import time

import numpy as np
import pytest
from motoric.control.command import MotorCommand
from motoric.hardware.robot import RobotError
from motoric.hardware.runtime.log import LogError, read_log
from motoric.hardware.simulated.body import WATCHDOG, Body
from motoric.hardware.simulated.recording import Recording
from motoric.hardware.simulated.robot import SimRobot
from motoric.hardware.specs.go2 import GO2

ZERO = np.zeros(12)


def test_every_step_is_what_the_motors_did(tmp_path):
    """The torque of a step is the law recorded for it, applied to the state before it."""
    simulation = Body(GO2)
    recording = Recording(tmp_path / "motors.mcap", simulation)
    began = simulation.steps

    def step(count):
        for _ in range(count):
            recording.step("by hand")
            simulation.step()

    step(3)
    simulation.on = True
    simulation.take(MotorCommand(GO2.rest + 0.05, ZERO, GO2.kp, GO2.kd, ZERO + 0.5))
    watched = round(WATCHDOG / simulation.model.opt.timestep)
    step(watched + 10)
    recording.close()
    log = read_log(tmp_path / "motors.mcap")
    assert log.robot == "go2"
    assert log.status == ["off"] * 3 + ["commanded"] * (watched + 1) + ["damped"] * 9
    assert set(log.reason) == {"by hand"}
    assert len(log.times) == simulation.steps - began
    commanded = np.array(log.status) == "commanded"
    np.testing.assert_allclose(log.command.kp, np.where(commanded[:, None], GO2.kp, 0.0))
    np.testing.assert_allclose(log.command.position[commanded] - (GO2.rest + 0.05), 0.0)
    i = log.status.index("commanded")
    asked = GO2.kp * (log.command.position[i] - log.position[i]) - GO2.kd * log.velocity[i] + 0.5
    np.testing.assert_allclose(log.torque[i + 1], asked, atol=0.3)  # velocity: at the step's end
    i = log.status.index("damped")
    np.testing.assert_allclose(log.torque[i + 1], -GO2.damping * log.velocity[i], atol=0.3)


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_a_robot_process_leaves_its_record(tmp_path, how):
    path = tmp_path / "motors.mcap"
    robot = SimRobot(record=str(path))
    try:
        robot.configure()
        robot.activate()
        robot.write(MotorCommand(GO2.stand, ZERO, GO2.kp, GO2.kd, ZERO))
        time.sleep(0.6)
        if how == "killed":
            assert robot.process is not None
            robot.process.kill()
    finally:
        robot.close()
    log = read_log(path)
    assert list(dict.fromkeys(log.status)) == ["off", "commanded", "damped"]
    np.testing.assert_allclose(log.command.position[log.status.index("commanded")], GO2.stand)


def test_a_record_is_not_written_over(tmp_path):
    path = tmp_path / "motors.mcap"
    path.write_bytes(b"precious")
    with pytest.raises(LogError, match=r"motors\.mcap: File exists"):
        Recording(path, Body(GO2))
    with pytest.raises(RobotError, match=r"record: .*motors\.mcap exists already"):
        SimRobot(record=str(path)).configure()
    assert path.read_bytes() == b"precious"
