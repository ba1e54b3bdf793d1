"""What a simulated robot makes of the safe state, and a simulated robot of any name."""

from __future__ import annotations

import numpy as np
import pytest
from motoric.control.command import MotorCommand
from motoric.hardware.drivers import ROBOTS, make_robot
from motoric.hardware.robot import RobotSpec
from motoric.hardware.simulated.body import Body


def damped_fall(spec: RobotSpec) -> tuple[float, float]:
    """From the stand: the highest speed of a joint as a share of its limit, and the time the base
    takes for the first half of its height as a multiple of that of free fall."""
    simulation = Body(spec)
    simulation.model.tendon_limited[:] = False  # a rope that holds nothing
    simulation.on, data, zero = True, simulation.data, np.zeros(len(spec.joints))
    data.qpos[:7] = [0, 0, spec.base_height, 1, 0, 0, 0]
    data.qpos[7:], data.qvel[:] = spec.stand, 0
    for _ in range(100):  # it comes to stand on its feet
        simulation.take(MotorCommand(spec.stand, zero, 3.0 * spec.kp, 3.0 * spec.kd, zero))
        simulation.step()
    simulation.command = None
    assert simulation.mode == "damped"
    height, began, fastest, half = data.qpos[2], data.time, 0.0, np.inf
    while data.time < began + 3.0:
        simulation.step()
        fastest = max(fastest, (np.abs(data.qvel[6:]) / spec.limits.velocity).max())
        if data.qpos[2] < 0.5 * height:
            half = min(half, data.time - began)
    return fastest, half / np.sqrt(height / 9.81)


LEGGED = [spec for spec in ROBOTS.values() if not spec.fixed]


@pytest.mark.parametrize("spec", LEGGED, ids=[spec.name for spec in LEGGED])
def test_a_damped_robot_sinks_and_does_not_fall(spec):
    """B2 with 2 N m s/rad, which suit a Go2, falls in 1.25 times the time of free fall."""
    fastest, slower = damped_fall(spec)
    assert slower > 1.7
    assert fastest < 0.5


@pytest.mark.parametrize("name", ["go2", "b2"])
def test_a_simulated_robot_of_any_name(name):
    robot = make_robot("sim", robot=name)
    try:
        robot.configure()
        assert robot.spec is ROBOTS[name]
        assert robot.read().base_height < 0.6 * robot.spec.base_height, "it lies"
    finally:
        robot.close()


@pytest.mark.parametrize("name", ["spot", None, ["go2"]])
def test_a_robot_that_can_not_be_simulated(name):
    with pytest.raises(ValueError, match=r"robot: .*, expected one of b2, g1, go2"):
        make_robot("sim", robot=name)
