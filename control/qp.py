"""Very many small QPs: the point of a polygon that is nearest to a wished one, exactly.

    min |u - u0|^2   where  a_k . u >= b_k  for m rows, and  |u| <= radius,     u in R^2

is a projection, and needs no iterative solver. Seidel's observation: where u is the optimum for
some rows S and another row k is violated at u, the optimum for S + {k} lies on the line of k; there
the problem has one dimension, and each row of S cuts an interval. Taking the most violated row each
time (lazily) leaves two or three rows in S. The objective rises strictly, so it ends, and the
answer is exact to rounding: no tolerance to tune, no iterations to run out of.

`project` does all problems at once in numpy, one or a few in plain Python; `project_compiled` is
the latter's kernel compiled by numba (the extra `numba`). Where no point satisfies all rows the
answer is NaN: the caller has to decide, and `u0` is never it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EPS = 1e-12  # a row violated by less holds
AGREE = 1e-9  # rows that leave less than this between them leave nothing
PARALLEL = 1e-12  # angle between two lines that don't meet, rad
BLOCK, ROWS = 1000, 36_000  # problems and rows at a time, at most: they stay in the cache
FEW = 8  # problems that plain Python does sooner than numpy


def unit_rows(normals: Array, offsets: Array) -> tuple[Array, Array]:
    """Rows [..., 2], [...] scaled to unit normals, as `project` needs them.

    A zero normal says nothing about u: its row is dropped (-inf) where it holds, and else refused.
    """
    length = np.hypot(normals[..., 0], normals[..., 1])
    zero = length < 1e-12
    if (zero & (offsets > 0)).any():
        raise ValueError("qp: a row has a zero normal and a positive offset, no u satisfies it")
    length = np.where(zero, 1.0, length)
    normals = np.where(zero[..., None], np.array([1.0, 0.0]), normals / length[..., None])
    return normals, np.where(zero, -np.inf, offsets / length)


def project(wish: Array, normals: Array, offsets: Array, radius: float | Array = math.inf) -> Array:
    """The u [N, 2] nearest to `wish` [N, 2] with normals . u >= offsets and |u| <= radius.

    normals: [N, m, 2], unit vectors; offsets: [N, m], -inf for a row that isn't there
    radius: of a disc about zero, positive or zero, inf for none; a number or [N]

    NaN where there is none. Raises ValueError for input that is not finite.
    """
    few = len(wish) <= FEW
    return _in_blocks(_project_few if few else _project_block, wish, normals, offsets, radius)


def project_compiled(
    wish: Array, normals: Array, offsets: Array, radius: float | Array = math.inf
) -> Array:
    """`project`, compiled by numba. The first call compiles for seconds: not in a control tick."""
    return _in_blocks(_compiled(), wish, normals, offsets, radius)


def least_violation(
    wish: Array,
    normals: Array,
    offsets: Array,
    radius: float | Array = math.inf,
    soft: NDArray[np.bool_] | None = None,
) -> Array:
    """Like `project`, but where not all rows can hold they give way, all by the same least amount.

    soft: which rows may give way, bool [N, m]; all by default. u = 0 must satisfy the others.
    """
    u = project(wish, normals, offsets, radius)
    none = np.isnan(u[:, 0])
    if not none.any():
        return u
    soft = np.ones(offsets.shape, bool) if soft is None else soft
    wish, normals, offsets, soft = wish[none], normals[none], offsets[none], soft[none]
    if (~soft & (offsets > 0)).any():
        raise ValueError("qp: zero does not satisfy the rows that may not give way")
    radius = np.broadcast_to(radius, none.shape)[none]
    low, high = np.zeros(len(wish)), np.where(soft, offsets, 0.0).max(axis=1)
    best = np.zeros_like(wish)
    for _ in range(60):  # zero satisfies all once they give way by their largest offset
        middle = 0.5 * (low + high)
        found = project(wish, normals, np.where(soft, offsets - middle[:, None], offsets), radius)
        fits = ~np.isnan(found[:, 0])
        best[fits], high[fits], low[~fits] = found[fits], middle[fits], middle[~fits]
    u[none] = best
    return u


def _in_blocks(
    solve: Callable[[Array, Array, Array, Array, Array, Array], None],
    wish: Array, normals: Array, offsets: Array, radius: float | Array,
) -> Array:  # fmt: skip
    """What `solve` writes for each block of problems, checked and laid out for it."""
    wish, normals, offsets = (np.asarray(a, np.float64) for a in (wish, normals, offsets))
    n, m = offsets.shape
    if wish.shape != (n, 2) or normals.shape != (n, m, 2):
        shapes = f"{wish.shape}, {normals.shape}, {offsets.shape}"
        raise ValueError(f"qp: shapes {shapes}, expected [N, 2], [N, m, 2], [N, m]")
    radius = np.broadcast_to(np.asarray(radius, np.float64), (n,))
    out = np.empty((n, 2))
    block = max(FEW, min(BLOCK, ROWS // max(m, 1)))
    for at in range(0, n, block):
        part = slice(at, at + block)
        arrays = _arrays(wish[part], normals[part], offsets[part], radius[part])
        solve(*arrays, out[part])
    return out


def _arrays(
    wish: Array, normals: Array, offsets: Array, radius: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """Checked and contiguous: wish [N, 2], ax, ay, b [N, m], radius [N]."""
    wish, ax, ay, b, c = (
        np.ascontiguousarray(a) for a in (wish, normals[..., 0], normals[..., 1], offsets, radius)
    )
    if not np.isfinite(wish).all():
        raise ValueError("qp: wish holds a non-finite value")
    if not b.max(initial=-np.inf) < np.inf:
        raise ValueError("qp: offsets hold NaN or inf, expected numbers or -inf")
    square = ax * ax
    square += ay * ay
    if not (abs(square.max(initial=1.0) - 1) < 1e-9 and square.min(initial=1.0) > 1 - 1e-9):
        raise ValueError("qp: normals hold one that is not a unit vector (see unit_rows)")
    if not (c >= 0).all():
        raise ValueError("qp: radius holds NaN or a negative number")
    return wish, ax, ay, b, c


def _project_few(wish: Array, ax: Array, ay: Array, b: Array, c: Array, out: Array) -> None:
    m = b.shape[1]
    space = ([0.0] * m, [0.0] * m, [0.0] * m)
    rows = zip(wish.tolist(), ax.tolist(), ay.tolist(), b.tolist(), c.tolist(), strict=True)
    for i, (w, x, y, z, radius) in enumerate(rows):
        out[i] = _project_one(w[0], w[1], x, y, z, radius, *space)


def _project_block(wish: Array, ax: Array, ay: Array, b: Array, c: Array, out: Array) -> None:
    """Write the answers of one block into `out`. Problems that are done leave the arrays."""
    n, m = b.shape
    x0, y0 = np.ascontiguousarray(wish[:, 0]), np.ascontiguousarray(wish[:, 1])
    shrink = _shrink(x0, y0, c)
    x, y, ids = shrink * x0, shrink * y0, np.arange(n)
    if m == 0:
        out[:, 0], out[:, 1] = x, y
        return
    chosen: list[tuple[Array, ...]] = []  # S: each ax, ay, b of a row that u was put on, [n]
    space = np.empty((2, n, m))
    for _ in range(m + 2):
        gap, part = space[:, : len(x)]
        np.subtract(b, np.multiply(ax, x[:, None], out=gap), out=gap)
        np.subtract(gap, np.multiply(ay, y[:, None], out=part), out=gap)
        k = gap.argmax(axis=1)
        violated = gap[np.arange(len(k)), k] > EPS  # not where NaN: done, none there
        if not violated.all():
            done = np.flatnonzero(~violated)
            out[ids[done], 0], out[ids[done], 1] = x[done], y[done]
            left = np.flatnonzero(violated)
            if not len(left):
                return
            ids, k = ids[left], k[left]
            ax, ay, b, c, x0, y0 = (a.take(left, axis=0) for a in (ax, ay, b, c, x0, y0))
            chosen = [tuple(a.take(left) for a in row) for row in chosen]
        # On line k: q + t d, where q is its point nearest to u0.
        row = np.arange(len(k))
        kx, ky, kb = ax[row, k], ay[row, k], b[row, k]
        t = kb - (kx * x0 + ky * y0)
        qx, qy = x0 + t * kx, y0 + t * ky
        half = np.sqrt(np.maximum(c * c - kb * kb, 0.0))  # of the chord in the disc
        foot = kx * qy - ky * qx  # where the chord's middle is
        low, high = -foot - half, -foot + half
        cuts = []
        for sx, sy, sb in chosen:
            along = sy * kx - sx * ky  # a_j . d
            need = sb - (sx * qx + sy * qy)
            at = need / np.where(np.abs(along) > PARALLEL, along, 1.0)
            low = np.where(along > PARALLEL, np.maximum(low, at), low)
            high = np.where(along < -PARALLEL, np.minimum(high, at), high)
            cuts.append((along, need))
        t = np.minimum(np.maximum(0.0, low), high)
        x, y = qx - t * ky, qy + t * kx
        none = (kb > c + AGREE) | (x * x + y * y > (c + AGREE) ** 2)
        for along, need in cuts:
            none |= need - along * t > AGREE
        x[none] = y[none] = np.nan
        chosen.append((kx, ky, kb))
    out[ids] = np.nan


def _shrink(x: Array, y: Array, c: Array) -> Array:
    length = np.sqrt(x * x + y * y)
    return np.where(length > c, c / np.where(length > 0, length, 1.0), 1.0)


def _project_one(
    x0: float, y0: float, ax: Any, ay: Any, b: Any, c: float, sx: Any, sy: Any, sb: Any
) -> tuple[float, float]:
    """One problem: rows ax, ay, b of length m; sx, sy, sb: space for m numbers each."""
    m = len(b)
    x, y = x0, y0
    length = math.sqrt(x0 * x0 + y0 * y0)
    if length > c:
        x, y = x0 * (c / length), y0 * (c / length)
    count = 0
    while True:
        worst, k = EPS, -1
        for i in range(m):
            gap = b[i] - ax[i] * x - ay[i] * y
            if gap > worst:
                worst, k = gap, i
        if k < 0:
            return x, y
        if count == m:
            return math.nan, math.nan
        kx, ky, kb = ax[k], ay[k], b[k]
        if kb > c + AGREE:
            return math.nan, math.nan
        t = kb - (kx * x0 + ky * y0)
        qx, qy = x0 + t * kx, y0 + t * ky
        half = math.sqrt(max(c * c - kb * kb, 0.0))
        foot = kx * qy - ky * qx
        low, high = -foot - half, -foot + half
        for j in range(count):
            along = sy[j] * kx - sx[j] * ky
            need = sb[j] - (sx[j] * qx + sy[j] * qy)
            if along > PARALLEL:
                low = max(low, need / along)
            elif along < -PARALLEL:
                high = min(high, need / along)
        t = min(max(0.0, low), high)
        x, y = qx - t * ky, qy + t * kx
        if x * x + y * y > (c + AGREE) ** 2:
            return math.nan, math.nan
        for j in range(count):
            if sb[j] - sx[j] * x - sy[j] * y > AGREE:
                return math.nan, math.nan
        sx[count], sy[count], sb[count] = kx, ky, kb
        count += 1


@functools.cache
def _compiled() -> Callable[[Array, Array, Array, Array, Array, Array], None]:
    try:
        from numba import njit  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("project_compiled needs numba: pip install 'motoric[numba]'") from error
    one = njit(nogil=True)(_project_one)

    @njit(nogil=True)
    def every(wish, ax, ay, b, c, out):
        m = b.shape[1]
        sx, sy, sb = np.empty(m), np.empty(m), np.empty(m)
        for i in range(len(wish)):
            out[i] = one(wish[i, 0], wish[i, 1], ax[i], ay[i], b[i], c[i], sx, sy, sb)

    return every
