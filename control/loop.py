"""A fixed-rate loop that keeps account of its deadlines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

SPIN = 0.0005  # s before a deadline that are waited awake: a sleep may return this much late


class RateLoop:
    """`for tick in RateLoop(50, 500): ...` runs the body 500 times, 50 times a second.

    rate: Hz; ticks: how many, None: without end. Tick k is due at start + k / rate: a late tick
    does not shift the next. A loop that is behind by more than one period skips the deadlines
    it missed (they count as missed).
    clock, sleep: s, for tests.
    """

    def __init__(
        self,
        rate: float,
        ticks: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not 0 < rate < float("inf"):
            raise ValueError(f"rate: {rate}, expected a positive number of Hz")
        self.period, self.ticks = 1.0 / rate, ticks
        self._clock, self._sleep = clock, sleep
        self._lateness: list[float] = []
        self.skipped = 0

    def __iter__(self) -> Iterator[int]:
        due = self._clock()
        tick = 0
        while self.ticks is None or tick < self.ticks:
            self._wait(due)
            self._lateness.append(self._clock() - due)
            yield tick
            tick += 1
            due += self.period
            behind = int((self._clock() - due) / self.period)
            if behind > 0:
                self.skipped += behind
                due += behind * self.period

    def _wait(self, due: float) -> None:
        left = due - self._clock()
        if left > SPIN:
            self._sleep(left - SPIN)
        while self._clock() < due:
            pass

    @property
    def lateness_last(self) -> float:
        """How late the present tick began, s."""
        return self._lateness[-1]

    @property
    def lateness(self) -> NDArray[np.float64]:
        """How late each tick began, s, [ticks]."""
        return np.array(self._lateness)

    def missed(self, tolerance: float = 0.001) -> int:
        """Ticks that began more than `tolerance` s late, and those skipped."""
        return int(np.sum(self.lateness > tolerance)) + self.skipped


def percentiles(seconds: NDArray[np.float64]) -> dict[str, float]:
    """Median, 99th percentile and maximum in ms; zeros where there is nothing."""
    if len(seconds) == 0:
        return {"p50": 0.0, "p99": 0.0, "max": 0.0}
    p50, p99 = np.percentile(seconds, [50, 99])
    return {"p50": float(p50) * 1e3, "p99": float(p99) * 1e3, "max": float(seconds.max()) * 1e3}
