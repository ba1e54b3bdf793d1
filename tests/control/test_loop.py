"""Deadlines: met, missed, skipped."""

from __future__ import annotations

import time

import numpy as np
import pytest
from motoric.control.loop import RateLoop, percentiles


class Clock:
    """Time that passes by sleeping, by looking (1 us), and by `work`."""

    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def run(rate, work):
    clock = Clock()
    loop = RateLoop(rate, len(work), clock, clock.sleep)
    starts = []
    for tick in loop:
        starts.append(clock.now)
        clock.now += work[tick]
    return loop, np.array(starts)


def test_ticks_are_due_at_multiples_of_the_period():
    loop, starts = run(100, [0.001, 0.009, 0.004, 0.0] * 5)
    np.testing.assert_allclose(starts - starts[0], np.arange(20) / 100, atol=1e-4)
    assert loop.missed() == 0
    assert loop.lateness.max() < 1e-4


def test_a_late_tick_does_not_shift_the_next():
    loop, starts = run(100, [0.0, 0.014, 0.0, 0.0])
    np.testing.assert_allclose(starts - starts[0], [0, 0.01, 0.024, 0.03], atol=1e-4)
    assert loop.missed() == 1
    assert loop.lateness[2] == pytest.approx(0.004, abs=1e-4)


def test_a_long_pause_skips_deadlines_instead_of_racing():
    loop, starts = run(100, [0.0, 0.055, 0.0, 0.0])
    np.testing.assert_allclose(starts - starts[0], [0, 0.01, 0.065, 0.07], atol=1e-4)
    assert loop.skipped == 4
    assert loop.missed() == 5


def test_a_rehearsal_comes_once_and_shortly_before_its_tick():
    clock = Clock()
    loop = RateLoop(100, 6, clock, clock.sleep)
    rehearsed, starts = [], []

    def rehearse():
        rehearsed.append(clock.now)
        clock.now += 0.0005

    for tick in loop:
        starts.append(clock.now)
        if tick in (1, 3):
            loop.rehearse = rehearse
        clock.now += 0.0105 if tick == 3 else 0.001  # too late for the second
    assert len(rehearsed) == 1
    assert starts[2] - rehearsed[0] == pytest.approx(0.001, abs=1e-4)
    assert loop.lateness[2] < 1e-4


def test_percentiles():
    assert percentiles(np.array([])) == dict.fromkeys(("p50", "p99", "p99.9", "max"), 0.0)
    found = percentiles(np.arange(101) / 1000)
    assert found == pytest.approx({"p50": 50.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0})


def test_real_clock_keeps_the_rate():
    began = time.monotonic()
    loop = RateLoop(200, 100)
    for _ in loop:
        pass
    assert time.monotonic() - began == pytest.approx(0.495, abs=0.1)
    assert np.median(loop.lateness) < 0.001


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_that_makes_no_sense(rate):
    with pytest.raises(ValueError, match="rate"):
        RateLoop(rate)
