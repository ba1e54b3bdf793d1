"""What a filter reads is what training and robots have."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from motoric.control.filters import Context, Filter, State
from motoric.control.limits import Limits
from motoric.hardware.measured import measured_by
from motoric.hardware.robot import RobotState
from motoric.hardware.specs.go2 import GO2


def test_states_of_training_and_of_robots_have_what_a_filter_may_read():
    zero = np.zeros(12)
    state = RobotState(1.0, 1, zero, zero, zero, np.array([1.0, 0, 0, 0]), np.zeros(3))
    names = [name for name, value in vars(State).items() if isinstance(value, property)]
    assert len(names) == 6
    for name in names:
        assert hasattr(state, name), name
        assert hasattr(measured_by(state, 0.0), name), name


def test_limits_are_a_filter():
    limits = Limits(GO2.limits, GO2.kp_max, GO2.kd_max)
    assert limits.name == "limits"
    assert limits.deadline > 0
    ours, theirs = (inspect.signature(f.__call__).parameters for f in (Limits, Filter))
    assert list(ours) == list(theirs)


def test_a_context_stays_what_it_was():
    with pytest.raises(AttributeError):
        Context(None, 0.02).dt = 1.0  # type: ignore[arg-type,misc]
