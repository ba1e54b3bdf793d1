"""Distance between convex hulls of a few points in the plane, as a direction and two supports.

A direction n with min n . (my points) - max n . (its points) = h proves that the hulls are at
least h apart, whichever way n was found: a bad direction only costs room, never safety. The
distance of closest points as the usual segment formula gives it proves nothing where segments are
nearly parallel: it divides by their tiny angle, or takes them for parallel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def separation(own: Array, body: Array) -> tuple[Array, Array, Array]:
    """How bodies [N, K, V, 2] lie to my own hull [N, P, 2]; P is 1 or 2, V points in turn.

    normal [N, K, 2]: unit vector from the body to me, between nearest points
    near [N, K]: the least of normal . own; far [N, K]: the greatest of normal . body

    near - far is the distance where the hulls are apart, and not positive where they meet. Raises
    ValueError where closest points coincide, as there is no direction.
    """
    mine = [(own[:, None, p, 0], own[:, None, p, 1]) for p in range(own.shape[1])]
    theirs = [(body[:, :, v, 0], body[:, :, v, 1]) for v in range(body.shape[2])]
    edges = list(zip(theirs, theirs[1:] + theirs[:1], strict=True))
    ways = []  # from them to me, between candidates for the nearest points
    if len(theirs) == 1:
        ways += [(p[0] - v[0], p[1] - v[1]) for p in mine for v in theirs] if len(mine) == 1 else []
    else:
        edges = edges[:1] if len(theirs) == 2 else edges
        ways += [_to_segment(p, a, b) for p in mine for a, b in edges]
    if len(mine) == 2:
        ways += [_minus(_to_segment(v, mine[0], mine[1])) for v in theirs]
    x, y = ways[0]
    least = x * x + y * y
    for wx, wy in ways[1:]:
        square = wx * wx + wy * wy
        closer = square < least
        x, y, least = (np.where(closer, *pair) for pair in ((wx, x), (wy, y), (square, least)))
    distance = np.sqrt(least)
    if (distance < 1e-9).any():
        row, which = np.argwhere(distance < 1e-9)[0]
        raise ValueError(
            f"barrier: agent {row} coincides with its body {which}, no way leads apart"
        )
    x, y = x / distance, y / distance
    near = np.minimum.reduce([x * px + y * py for px, py in mine])
    far = np.maximum.reduce([x * px + y * py for px, py in theirs])
    return np.stack([x, y], axis=-1), near, far


def _to_segment(
    p: tuple[Array, Array], a: tuple[Array, Array], b: tuple[Array, Array]
) -> tuple[Array, Array]:
    """From the point of segment ab nearest to p, to p."""
    ex, ey = b[0] - a[0], b[1] - a[1]
    wx, wy = p[0] - a[0], p[1] - a[1]
    square = ex * ex + ey * ey
    t = (wx * ex + wy * ey) / np.where(square > 0, square, 1.0)
    t = np.minimum(np.maximum(t, 0.0), 1.0)
    return wx - t * ex, wy - t * ey


def _minus(way: tuple[Array, Array]) -> tuple[Array, Array]:
    return -way[0], -way[1]
