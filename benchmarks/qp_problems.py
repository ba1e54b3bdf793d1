"""Small QPs as a barrier filter has them, hard ones on purpose, and their exact answers."""

from __future__ import annotations

import itertools

import numpy as np

Array = np.ndarray


def problems(n, m, seed=0, box=True, feasible=True):
    """Rows as of neighbours, a third of them nearly touching, and a box's; zero satisfies them."""
    random = np.random.default_rng(seed)
    angle = random.uniform(0, 2 * np.pi, (n, m))
    gap = random.exponential(0.5, (n, m)) * np.where(random.random((n, m)) < 0.33, 0.01, 1)
    offsets = -np.exp(random.uniform(np.log(0.2), np.log(10), (n, m))) * gap / 2
    if not feasible:
        offsets = random.normal(-0.3 - 0.03 * m, 0.6, (n, m))
    normals = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    if box:
        sides = np.broadcast_to(np.array([[1, 0], [-1, 0], [0, 1], [0, -1.0]]), (n, 4, 2))
        normals = np.concatenate([normals, sides], axis=1)
        offsets = np.concatenate([offsets, np.full((n, 4), -1.0)], axis=1)
    return random.normal(size=(n, 2)), normals, offsets


def enumerated(wish: Array, normals: Array, offsets: Array, radius: float = np.inf) -> Array:
    """The nearest of all points where at most two of the rows and the disc are active, NaN if no
    such point satisfies all: exact, and slow."""
    n, m = offsets.shape
    found = [wish]
    if np.isfinite(radius):
        found.append(wish * np.minimum(1, radius / np.linalg.norm(wish, axis=-1, keepdims=True)))
    for k in range(m):
        a, b = normals[:, k], offsets[:, k]
        found.append(wish + (b - np.sum(a * wish, axis=-1))[:, None] * a)
        if np.isfinite(radius):
            half = np.sqrt(np.maximum(radius**2 - b**2, 0))[:, None]
            across = np.stack([-a[:, 1], a[:, 0]], axis=-1)
            found += [b[:, None] * a + half * across, b[:, None] * a - half * across]
    for j, k in itertools.combinations(range(m), 2):
        (ax, ay), (bx, by) = normals[:, j].T, normals[:, k].T
        area = ax * by - ay * bx
        with np.errstate(divide="ignore", invalid="ignore"):
            x = (offsets[:, j] * by - offsets[:, k] * ay) / area
            y = (offsets[:, k] * ax - offsets[:, j] * bx) / area
        found.append(np.stack([x, y], axis=-1))
    best, answer = np.full(n, np.inf), np.full((n, 2), np.nan)
    for u in found:
        with np.errstate(invalid="ignore"):
            holds = (np.einsum("nmi,ni->nm", normals, u) >= offsets - 1e-9).all(axis=1)
            holds &= np.linalg.norm(u, axis=-1) <= radius + 1e-9
            far = np.sum((u - wish) ** 2, axis=-1)
        closer = holds & (far < best)
        best, answer = np.where(closer, far, best), np.where(closer[:, None], u, answer)
    return answer
