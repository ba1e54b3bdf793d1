"""Random numbers as a pure function of (seed, counter): every environment has its own stream.

N environments draw in one vectorised call, yet environment i draws the same numbers whatever N
is, and the whole state of randomness is two integers per environment: easy to save exactly.
The mixing function is SplitMix64 (Steele, Lea & Flood, 2014), applied to seed, counter and index.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


def uniform(
    seed: NDArray[np.uint64], counter: NDArray[np.int64], size: int, stream: int
) -> NDArray[np.float64]:
    """Numbers in [0, 1), [N, size], fixed by seed [N], counter [N] and the stream's number."""
    with np.errstate(over="ignore"):
        key = _mix(seed + _GOLDEN * np.uint64(2 * stream + 1))
        key = _mix(key + _GOLDEN * counter.astype(np.uint64))
        index = np.arange(1, size + 1, dtype=np.uint64) * _GOLDEN
        bits = _mix(key[:, None] + index[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def spread(low: float, high: float, draw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Uniform draws in [0, 1) moved to [low, high)."""
    return low + (high - low) * draw
