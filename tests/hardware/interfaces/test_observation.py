"""What the robot computes for one observation is a row of what training computes, bit for bit."""

from __future__ import annotations

import numpy as np
from motoric.hardware.interfaces.terms import Measured, gait_clock, projected_gravity


def test_one_row_has_the_bits_of_many():
    rng = np.random.default_rng(0)
    many = Measured(
        rng.normal(size=(1000, 4)), *(np.zeros((1000, 3)) for _ in range(3)), np.zeros(3),
        np.zeros((1000, 3)), rng.normal(size=(1000, 3)) * rng.integers(0, 2, (1000, 1)),
        rng.uniform(size=1000),
    )  # fmt: skip
    gravity, clock = projected_gravity(many.orientation), gait_clock(many)
    assert gravity.shape == (1000, 3)
    assert clock.shape == (1000, 2)
    assert 300 < (clock == 0).all(1).sum() < 700, "standing"
    for i in range(1000):
        one = Measured(**{name: value[i : i + 1] for name, value in vars(many).items()})
        np.testing.assert_array_equal(projected_gravity(one.orientation), gravity[i : i + 1])
        np.testing.assert_array_equal(gait_clock(one), clock[i : i + 1])
