"""Random numbers as a pure function of (seed, counter): every environment has its own stream.

N environments draw in one vectorised call, yet environment i draws the same numbers whatever N
is, and the whole state of randomness is two integers per environment: easy to save exactly.
The mixing function is SplitMix64 (Steele, Lea & Flood, 2014), applied to seed, counter and index.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)

# Streams: what is drawn for one purpose never shifts another.
STREAMS = {"reset": 0, "physics": 1, "advance": 2, "push": 3, "noise": 4}


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """In place."""
    for shift, factor in ((np.uint64(30), _MIX_1), (np.uint64(27), _MIX_2)):
        x ^= x >> shift
        x *= factor
    x ^= x >> np.uint64(31)
    return x


def uniform(
    seed: NDArray[np.uint64], counter: NDArray[np.int64], size: int, stream: int
) -> NDArray[np.float64]:
    """Numbers in [0, 1), [N, size], fixed by seed [N], counter [N] and the stream's number."""
    golden = _multiples(max(size, 2 * stream + 1))
    key = _mix(seed + golden[2 * stream])
    key = _mix(key + _GOLDEN * counter.astype(np.uint64))
    bits = _mix(key[:, None] + golden[:size])
    bits >>= np.uint64(11)
    return bits * np.float64(2.0**-53)


@cache
def _multiples(count: int) -> NDArray[np.uint64]:
    """The golden ratio's number times 1, 2, ... count, modulo 2**64."""
    return np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN


Bound = float | NDArray[np.float64]


def spread(low: Bound, high: Bound, draw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Uniform draws in [0, 1) moved to [low, high)."""
    return low + (high - low) * draw


class Draws:
    """What N rows draw, and what somebody else has put in its place.

    A test, or an adversary that searches for the worst case, sets the numbers of a stream for some
    rows; all others, and the seeds, stay as they are.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._set: dict[str, NDArray[np.float64]] = {}  # [N, k], NaN where a row draws

    def set(self, stream: str, ids: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        """From now on rows `ids` [M] draw `values` [M, k], in [0, 1), as the first k numbers of a
        stream (a key of `STREAMS`). Raises ValueError."""
        values = np.asarray(values, np.float64)
        if stream not in STREAMS:
            raise ValueError(f"stream {stream!r} is unknown, expected one of {', '.join(STREAMS)}")
        if values.ndim != 2 or len(values) != len(ids):
            raise ValueError(f"draws: shape {values.shape}, expected ({len(ids)}, k)")
        if not ((values >= 0) & (values < 1)).all():
            raise ValueError("draws: expected numbers from 0 up to, but not, 1")
        before, count = self._set.get(stream, np.zeros((self._rows, 0))), values.shape[1]
        kept = np.full((self._rows, max(count, before.shape[1])), np.nan)
        kept[:, : before.shape[1]] = before
        kept[ids] = np.nan
        kept[ids, :count] = values
        self._set[stream] = kept

    def clear(self) -> None:
        """Everybody draws again."""
        self._set.clear()

    def __call__(
        self,
        stream: str,
        ids: NDArray[np.int64] | slice,
        seeds: NDArray[np.uint64],
        counter: NDArray[np.int64],
        size: int,
    ) -> NDArray[np.float64]:
        """The draws [M, size] of rows `ids`, whose seeds and counters [M] are given."""
        if not size:
            return np.empty((len(seeds), 0))
        drawn = uniform(seeds, counter, size, STREAMS[stream])
        if stream in self._set:
            values = self._set[stream][ids, :size]
            np.copyto(drawn[:, : values.shape[1]], values, where=~np.isnan(values))
        return drawn
