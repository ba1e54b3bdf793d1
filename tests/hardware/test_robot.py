"""What must be known of a robot, and what may not be commanded."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from motoric.control.command import MotorCommand
from motoric.hardware.drivers import ROBOTS
from motoric.hardware.robot import Sensor, command_problem
from motoric.hardware.specs.go2 import GO2


@pytest.mark.parametrize(
    ("damping", "words"),
    [
        (np.full(12, 2.0) * (np.arange(12) != 2), "damping of FL_calf_joint: 0.0, expected a posi"),
        (np.full(12, -1.0), "damping of FL_hip_joint: -1.0, expected a positive number"),
        (np.full(12, np.nan), "damping of FL_hip_joint: nan, expected a positive number"),
        (np.full(12, np.inf), "damping of FL_hip_joint: inf, expected a positive number"),
        (np.full(11, 2.0), r"damping: shape \(11,\), expected \(12,\)"),
        (2.0, r"damping: shape \(\), expected \(12,\)"),
    ],
)
def test_damping_that_is_none(damping, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(GO2, damping=damping)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stand": GO2.stand + 9}, "stand of FL_hip_joint: 9.1, expected -1.0472 to 1.0472"),
        ({"rest": np.zeros(11)}, r"rest: shape \(11,\), expected \(12,\)"),
        ({"kp": -GO2.kp}, "kp of FL_hip_joint: -40.0, expected at least 0"),
        ({"kd": GO2.kd * np.nan}, "kd of FL_hip_joint: nan, expected at least 0"),
        ({"kp_max": 0.9 * GO2.kp}, "kp_max of FL_hip_joint: 36.0, expected at least 40"),
        ({"kd_max": GO2.kd}, "kd_max of FL_hip_joint: 0.8, expected at least 2"),
        ({"kp_max": np.full(12, np.inf)}, "kp_max of FL_hip_joint: inf, expected at least 40"),
        ({"joints": GO2.joints[:11]}, "limits: of 12 joints, expected 11"),
        ({"joints": (GO2.joints[1], *GO2.joints[1:])}, "a name is there twice"),
        ({"sensors": (Sensor("a", (1,)), Sensor("a", (2,)))}, "sensors: a, a: a name is there"),
    ],
)
def test_a_spec_that_makes_no_sense(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(GO2, **change)


def test_highest_gains_are_the_robots_own_unless_given():
    np.testing.assert_array_equal(GO2.kp_max, GO2.kp)
    np.testing.assert_array_equal(GO2.kd_max, np.maximum(GO2.kd, GO2.damping))
    soft = dataclasses.replace(GO2, kp_max=3 * GO2.kp)
    np.testing.assert_array_equal(soft.kp_max, 3 * GO2.kp)
    with pytest.raises(ValueError, match="read-only"):
        soft.kp_max[:] = 0.0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("", (3,)), "sensor '': expected a name"),
        (("f", (0,)), r"sensor f: shape \(0,\), expected sizes of 1 or more"),
        (("f", (2.5,)), r"sensor f: shape \(2.5,\)"),
        (("f", (3,), "object"), "sensor f: dtype 'object', expected one of float64, float32"),
    ],
)
def test_a_sensor_that_makes_no_sense(values, words):
    with pytest.raises(ValueError, match=words):
        Sensor(*values)


def test_what_a_camera_is():
    assert Sensor("eye", (96, 64, 3), "uint8").is_camera
    assert Sensor("eye", (96, 64, 3), "uint8").bytes == 96 * 64 * 3
    assert not Sensor("depth", (96, 64, 1), "float32").is_camera
    assert Sensor("depth", (96, 64, 1), "float32").bytes == 4 * 96 * 64
    assert not Sensor("map", (96, 64, 3), "float32").is_camera


@pytest.mark.parametrize("spec", ROBOTS.values(), ids=ROBOTS)
def test_damping_without_a_known_speed_keeps_within_the_torque(spec):
    assert (spec.blind_damping <= spec.damping).all()
    most = spec.limits.torque * (1 + 1e-12)
    assert (spec.blind_damping * spec.limits.velocity <= most).all()
    with pytest.raises(ValueError, match="read-only"):
        spec.damping[:] = 0.0


@pytest.mark.parametrize("spec", ROBOTS.values(), ids=ROBOTS)
def test_each_joint_of_a_command_on_each_side_of_its_limits(spec):
    """Rounding to float32 on the way is forgiven."""
    limits, zero = spec.limits, np.zeros(len(spec.joints))
    good = MotorCommand(spec.stand, zero, spec.kp, spec.kd, zero)
    assert command_problem(good, spec) is None
    edges = [("position", limits.lower, -1), ("position", limits.upper, 1)]
    edges += [(n, s * getattr(limits, n), s) for n in ("velocity", "torque") for s in (-1, 1)]
    edges += [("kp", zero, -1), ("kd", zero, -1), ("kp", spec.kp_max, 1), ("kd", spec.kd_max, 1)]
    for name, edge, outward in edges:
        for joint, label in enumerate(spec.joints):
            for beyond, allowed in ((-1e-3, True), (0.0, True), (1e-7, True), (1e-3, False)):
                value = np.array(getattr(good, name))
                value[joint] = edge[joint] + outward * beyond
                found = command_problem(dataclasses.replace(good, **{name: value}), spec)
                assert (found is None) == allowed
                if not allowed:
                    assert f"{name} {value[joint]:.3f} of {label} is not allowed" in found
            for value in (np.nan, np.inf, -np.inf):
                wrong = np.array(getattr(good, name))
                wrong[joint] = value
                found = command_problem(dataclasses.replace(good, **{name: wrong}), spec)
                assert found == f"{name} {value:.3f} of {label} is not finite"
