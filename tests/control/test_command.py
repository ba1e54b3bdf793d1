"""The one command of all motors."""

from __future__ import annotations

import numpy as np
import pytest
from motoric.control.command import QUANTITIES, MotorCommand, hold

KP, KD = np.array([35.0, 2.0]), np.array([0.8, 0.1])


@pytest.mark.parametrize("shape", [(2,), (1, 2), (5, 2), (3, 4, 2)])
def test_held_targets_have_every_quantity_in_full_shape(shape):
    position = np.random.default_rng(0).normal(size=shape)
    command = hold(position, KP, KD)
    assert command.position is position
    for quantity in QUANTITIES:
        assert getattr(command, quantity).shape == shape
    for quantity, value in (("kp", KP), ("kd", KD), ("velocity", 0.0), ("torque", 0.0)):
        np.testing.assert_array_equal(getattr(command, quantity), np.broadcast_to(value, shape))
    assert np.isnan(command.time)
    assert command.sequence == 0


def test_rows_are_those_of_each_quantity():
    command = MotorCommand(*np.arange(30.0).reshape(5, 3, 2), time=1.5, sequence=7)
    for ids in (1, slice(0, 2), np.array([2, 0]), np.array([True, False, True])):
        some = command.rows(ids)
        for quantity in QUANTITIES:
            whole = getattr(command, quantity)
            np.testing.assert_array_equal(getattr(some, quantity), whole[ids])
        assert (some.time, some.sequence) == (1.5, 7)


def test_what_only_brakes():
    zero = np.zeros(2)
    assert MotorCommand(np.ones(2), zero, zero, KD, zero).damps
    for quantity in ("velocity", "kp", "torque"):
        values = {"position": zero, "velocity": zero, "kp": zero, "kd": KD, "torque": zero}
        assert not MotorCommand(**values | {quantity: np.array([0.0, -1e-9])}).damps
