"""Who is near whom: all points within a radius, by sorting them into square cells. Linear cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def neighbours(
    position: Array, radius: float, world: NDArray[np.intp] | None = None
) -> NDArray[np.intp]:
    """For each of N points [N, 2] all others within `radius` m: indices [N, K], -1 behind the last.

    world [N]: only points of the same world, numbered from 0, are near each other. K is the most
    that any point has. None is left out: dropping all but the nearest few is not safe, as one
    farther away may come faster.
    """
    position = np.asarray(position, np.float64)
    if not 0 < radius < np.inf:
        raise ValueError(f"neighbours: radius {radius}, expected a positive number")
    if not np.isfinite(position).all():
        raise ValueError("neighbours: position holds a non-finite value")
    n = len(position)
    if n < 2:
        return np.empty((n, 0), np.intp)
    # Cells are numbered so that three beside each other in y have numbers in a row; two columns
    # stay empty between worlds, one row between columns.
    low = position.min(axis=0)
    spread = (position.max(axis=0) - low).max()
    cell = max(radius * (1 + 1e-9), spread / 2**20)
    x, y = ((position - low) / cell).astype(np.int64).T
    rows = int(y.max()) + 2
    column = x if world is None else x + np.asarray(world, np.int64) * (int(x.max()) + 2)
    key = column * rows + y
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    x, y = position[order, 0], position[order, 1]

    # Ranges of the ordered points that lie in the three columns around each: [N, 3].
    middle = ordered[:, None] + rows * np.array([-1, 0, 1])
    first = np.searchsorted(ordered, middle - 1, side="left")
    count = (np.searchsorted(ordered, middle + 1, side="right") - first).ravel()
    ends = np.cumsum(count)
    start = np.repeat(first.ravel() - ends + count, count)
    other = start + np.arange(ends[-1])
    me = np.repeat(np.arange(n), count.reshape(n, 3).sum(axis=1))
    dx, dy = x[other] - x[me], y[other] - y[me]
    near = np.flatnonzero((dx * dx + dy * dy <= radius * radius) & (other != me))
    me, other = me[near], other[near]

    count = np.bincount(me, minlength=n)
    place = np.arange(len(me)) - np.repeat(np.cumsum(count) - count, count)
    found = np.full((n, int(count.max())), -1, np.intp)
    found[order[me], place] = order[other]
    return found
