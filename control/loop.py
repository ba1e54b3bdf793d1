"""A fixed-rate loop that keeps account of its deadlines."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

SPIN = 0.0002  # s before a deadline that are waited awake: a sleep may return this much late
REHEARSAL = 0.001  # s before a deadline at which its rehearsal begins, where there is one
TOLERANCE = 0.001  # s; a tick that begins later has missed its deadline


class RateLoop:
    """`for tick in RateLoop(50, 500): ...` runs the body 500 times, 50 times a second.

    rate: Hz; ticks: how many, None: without end. Tick k is due at start + k / rate: a late tick
    does not shift the next. A loop that is behind by more than one period skips the deadlines
    it missed (they count as missed).
    start: s, None: when the loop is entered. spin: s before a deadline that are waited awake.
    `rehearse`, set in the body, is called shortly before the next deadline, and then forgotten.
    clock, sleep: s, for tests.
    """

    def __init__(
        self,
        rate: float,
        ticks: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        start: float | None = None,
        spin: float = SPIN,
    ) -> None:
        if not 0 < rate < float("inf"):
            raise ValueError(f"rate: {rate}, expected a positive number of Hz")
        self.period, self.ticks = 1.0 / rate, ticks
        self.start = start
        self._clock, self._sleep, self._spin = clock, sleep, spin
        self.rehearse: Callable[[], None] | None = None
        self._lateness = array("d")
        self.deadline = 0  # number of the present one, those skipped included
        self.skipped = 0

    def __iter__(self) -> Iterator[int]:
        start = self._clock() if self.start is None else self.start
        tick = 0
        while self.ticks is None or tick < self.ticks:
            due = start + self.deadline * self.period
            self._wait(due)
            self._lateness.append(self._clock() - due)
            yield tick
            tick += 1
            self.deadline += 1
            behind = int((self._clock() - start) / self.period) - self.deadline
            if behind > 0:
                self.skipped += behind
                self.deadline += behind

    def _wait(self, due: float) -> None:
        if self.rehearse is not None:
            rehearse, self.rehearse = self.rehearse, None
            if self._sleep_until(due - min(REHEARSAL, 0.5 * self.period)):
                rehearse()
        else:
            self._sleep_until(due - self._spin)
        while self._clock() < due:
            pass

    def _sleep_until(self, time: float) -> bool:
        """False where it has passed already."""
        left = time - self._clock()
        if left > 0:
            self._sleep(left)
        return left > 0

    @property
    def lateness_last(self) -> float:
        """How late the present tick began, s."""
        return self._lateness[-1]

    @property
    def lateness(self) -> NDArray[np.float64]:
        """How late each tick began, s, [ticks]."""
        return np.array(self._lateness)

    def missed(self, tolerance: float = TOLERANCE) -> int:
        """Ticks that began more than `tolerance` s late, and those skipped."""
        return int(np.sum(self.lateness > tolerance)) + self.skipped


def percentiles(seconds: NDArray[np.float64]) -> dict[str, float]:
    """Median, 99th and 99.9th percentile and maximum in ms; zeros where there is nothing."""
    if len(seconds) == 0:
        return {"p50": 0.0, "p99": 0.0, "p99.9": 0.0, "max": 0.0}
    found = 1e3 * np.percentile(seconds, [50, 99, 99.9, 100])
    return dict(zip(("p50", "p99", "p99.9", "max"), found.tolist(), strict=True))


# Upper edges of the bins of `histogram`, s: 1, 2, 5 in every decade, and everything above.
EDGES = (*(m * 10.0**e for e in (-5, -4, -3, -2) for m in (1, 2, 5)), 0.1, float("inf"))


def histogram(seconds: NDArray[np.float64]) -> list[int]:
    """How many durations fall below each of EDGES and not below the one before, [14]."""
    bins = np.searchsorted(EDGES, np.asarray(seconds), side="right")
    return np.bincount(bins, minlength=len(EDGES))[: len(EDGES)].tolist()
