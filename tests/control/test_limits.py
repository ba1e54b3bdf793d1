"""The limits that training and the supervisor share."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motoric.control.command import QUANTITIES, MotorCommand, hold
from motoric.control.filters import Context
from motoric.control.limits import JointLimits, Limits, all_true, limit_target, torque_scale
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


# -- the filter ---------------------------------------------------------------------------------

LIMITS = Limits(GO2.limits, 2 * GO2.kp, 3 * GO2.kd)
ZERO = np.zeros(12)


def at(position=GO2.stand, velocity=ZERO, dt=0.02) -> tuple[SimpleNamespace, Context]:
    """Measured there, where the last target was, too."""
    state = SimpleNamespace(position=position, velocity=velocity)
    before = np.clip(position, GO2.limits.lower, GO2.limits.upper)
    return state, Context(hold(before, GO2.kp, GO2.kd), dt)


def limited(wish: MotorCommand, state, context) -> MotorCommand:
    return LIMITS(state, wish, context)


def test_a_wish_within_all_limits_is_left_alone():
    wish = MotorCommand(GO2.stand + 0.05, ZERO + 0.3, 1.5 * GO2.kp, 2 * GO2.kd, ZERO - 1.0, 3.0, 4)
    found = limited(wish, *at())
    for quantity in QUANTITIES:
        np.testing.assert_array_equal(getattr(found, quantity), getattr(wish, quantity))
    assert (found.time, found.sequence) == (3.0, 4)


@pytest.mark.parametrize("rows", [(), (1,), (6,)])
def test_each_quantity_by_itself_goes_to_the_nearest_allowed(rows):
    limits = GO2.limits
    shape = (*rows, 12)

    def wish(**values):
        base = hold(np.broadcast_to(GO2.stand, shape).copy(), GO2.kp, GO2.kd)
        for name, value in values.items():
            setattr(base, name, np.broadcast_to(value, shape).copy())
        return base

    (state, context), still = at(), {"kp": ZERO, "kd": ZERO}
    for sign in (-1, 1):
        found = limited(wish(position=GO2.stand + sign * 9), state, context)
        near = GO2.stand + sign * limits.target_rate * 0.02
        expected = np.clip(near, limits.lower, limits.upper)
        np.testing.assert_allclose(found.position, np.broadcast_to(expected, shape))
        found = limited(wish(velocity=sign * 1e9, **still), state, context)
        np.testing.assert_array_equal(found.velocity, np.full(shape, sign * limits.velocity))
        found = limited(wish(torque=sign * 1e9, **still), state, context)
        np.testing.assert_array_equal(found.torque, np.full(shape, sign * limits.torque))
    found = limited(wish(kp=1e9, kd=1e9), state, context)
    np.testing.assert_array_equal(found.kp, np.broadcast_to(2 * GO2.kp, shape))
    np.testing.assert_array_equal(found.kd, np.broadcast_to(3 * GO2.kd, shape))
    found = limited(wish(kp=-1.0, kd=-1.0), state, context)
    assert not found.kp.any()
    assert not found.kd.any()


def test_without_stiffness_the_target_is_where_the_joint_is():
    """Joint by joint, and within the limits; however far it moved."""
    kp = np.where(np.arange(12) % 3, GO2.kp, 0.0)
    far = np.where(np.arange(12) % 2, GO2.limits.upper + 0.05, GO2.limits.lower - 0.05)
    state, _ = at(far)
    _, context = at()
    found = limited(MotorCommand(GO2.stand, ZERO, kp, GO2.kd, ZERO), state, context)
    here = np.clip(far, GO2.limits.lower, GO2.limits.upper)
    np.testing.assert_array_equal(found.position, np.where(kp > 0, GO2.stand, here))
    found = limited(MotorCommand(GO2.stand, ZERO, -kp, GO2.kd, ZERO), state, context)
    np.testing.assert_array_equal(found.position, here)


def test_torque_of_all_terms_is_scaled_together():
    velocity = np.full(12, -3.0)
    state, context = at(GO2.stand, velocity)
    wish = MotorCommand(GO2.stand + 0.3, ZERO + 2.0, 2 * GO2.kp, GO2.kd, 0.9 * GO2.limits.torque)
    found = limited(wish, state, context)
    share = found.kp / wish.kp
    assert (share < 1).all()
    np.testing.assert_allclose(found.kd, share * wish.kd)
    np.testing.assert_allclose(found.torque, share * wish.torque)
    np.testing.assert_array_equal(found.velocity, wish.velocity)
    spring = found.kp * (found.position - GO2.stand) + found.kd * found.velocity + found.torque
    np.testing.assert_allclose(np.abs(spring) + found.kd * 3.0, GO2.limits.torque)


def test_rows_that_need_nothing_keep_their_gains():
    """So that an engine can tell at once."""
    state, context = at(np.tile(GO2.stand, (4, 1)), np.zeros((4, 12)))
    wish = hold(np.tile(GO2.stand, (4, 1)), GO2.kp, GO2.kd)
    found = limited(wish, state, context)
    assert found.kp is wish.kp
    assert found.kd is wish.kd
    assert found.torque is wish.torque
    wish.position[2, 5] += 2.0
    state.position[2, 5] -= 1.2
    found = limited(wish, state, context)
    changed = found.kp != GO2.kp
    assert changed[2, 5]
    assert changed.sum() == 1


def test_what_is_not_a_number_does_not_become_one():
    state, context = at(np.where(np.arange(12) == 3, np.nan, GO2.stand))
    found = limited(hold(GO2.stand, GO2.kp, GO2.kd), state, context)
    assert np.isnan(found.kp[3])
    state, context = at()
    found = limited(hold(GO2.stand * np.nan, GO2.kp, GO2.kd), state, context)
    assert np.isnan(found.position).all()


@pytest.mark.parametrize(
    ("kp_max", "kd_max", "words"),
    [
        (np.nan, 1.0, "kp_max: must be finite and not negative"),
        (1.0, -1.0, "kd_max: must be finite and not negative"),
        (np.inf, 1.0, "kp_max: must be finite"),
    ],
)
def test_maxima_that_make_no_sense(kp_max, kd_max, words):
    with pytest.raises(ValueError, match=words):
        Limits(GO2.limits, kp_max, kd_max)
    with pytest.raises(ValueError, match="read-only"):
        LIMITS.kp_max[:] = 1e9


@given(st.lists(st.booleans()), st.integers(1, 3))
def test_all_is_all(values, columns):
    mask = np.tile(np.array(values, bool)[:, None], (1, columns))
    assert all_true(mask) == mask.all()
    assert all_true(mask[:, ::2]) == mask[:, ::2].all()
