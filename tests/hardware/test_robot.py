"""What must be known of a robot, and what may not be commanded."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from motoric.control.command import MotorCommand
from motoric.hardware.drivers import ROBOTS
from motoric.hardware.robot import command_problem
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
    edges += [("kp", zero, -1), ("kd", zero, -1)]
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
