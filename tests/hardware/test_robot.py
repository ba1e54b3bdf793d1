"""What must be known of a robot."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from motoric.hardware.drivers import ROBOTS
from motoric.hardware.go2 import GO2


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
