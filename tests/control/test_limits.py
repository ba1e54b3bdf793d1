"""The limits that training and the supervisor share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motoric.control.limits import JointLimits, limit_target, torque_scale
from motoric.hardware.specs.go2 import GO2

values = st.floats(-50, 50)


@given(
    st.lists(values, min_size=12, max_size=12),
    st.lists(st.floats(0, 1), min_size=12, max_size=12),
    st.floats(0, 0.1),
)
def test_target_is_the_nearest_allowed(wish, share, dt):
    limits = GO2.limits
    previous = limits.lower + np.array(share) * (limits.upper - limits.lower)
    result = limit_target(limits, np.array(wish), previous, dt)
    assert (result >= limits.lower).all()
    assert (result <= limits.upper).all()
    assert (np.abs(result - previous) <= limits.target_rate * dt + 1e-12).all()
    inside = np.clip(np.array(wish), limits.lower, limits.upper)
    reachable = np.abs(inside - previous) <= limits.target_rate * dt
    np.testing.assert_array_equal(result[reachable], inside[reachable])


@given(st.lists(values, min_size=12, max_size=12), st.lists(values, min_size=12, max_size=12))
def test_torque_stays_within_its_limit_and_is_left_alone_inside(position, velocity):
    limits, q, dq = GO2.limits, np.array(position), np.array(velocity)
    scale = torque_scale(limits, GO2.stand, 0.0, GO2.kp, GO2.kd, 0.0, q, dq)
    for turn in (-1.0, -0.3, 0.0, 0.7, 1.0):  # a joint that stops or is thrown back, too
        torque = GO2.kp * (GO2.stand - q) - GO2.kd * turn * dq
        assert (np.abs(scale * torque) <= limits.torque * (1 + 1e-12)).all()
    inside = np.abs(GO2.kp * (GO2.stand - q)) + np.abs(GO2.kd * dq) <= limits.torque
    assert (scale[inside] == 1).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lower": np.ones(2)}, "below limits.upper"),
        ({"velocity": np.zeros(2)}, "limits.velocity: must be positive"),
        ({"torque": np.array([1.0, np.nan])}, "limits.torque"),
        ({"target_rate": np.ones(3)}, "limits.target_rate: shape"),
        ({"target_rate": np.full(2, 1.1)}, "target_rate: must not be above limits.velocity"),
    ],
)
def test_limits_that_make_no_sense(change, words):
    fine = {"lower": -np.ones(2), "upper": np.ones(2), "velocity": np.ones(2),
            "torque": np.ones(2), "target_rate": np.ones(2)}  # fmt: skip
    with pytest.raises(ValueError, match=words):
        JointLimits(**fine | change)
