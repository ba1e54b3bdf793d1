"""The textbook's second-order CBF between acceleration-controlled agents: a baseline, not a filter.

    h = |p_i - p_j| - r_i - r_j,    h'' + (k1 + k2) h' + k1 k2 h >= 0,    each agent taking half

holds in continuous time and knows no limit on u: at a real time step and with real motors agents
run into each other, or are stuck among rows that contradict. `motoric.control.barrier` is what to
use.
"""

from __future__ import annotations

import numpy as np
from motoric.control.qp import Array, least_violation, project
from numpy.typing import NDArray


def textbook(
    position: Array, velocity: Array, radius: Array | float, wish: Array, index: NDArray[np.intp],
    k1: Array | float, k2: Array | float, acceleration: float,
) -> tuple[Array, Array]:  # fmt: skip
    """Accelerations [N, 2], and where no acceleration satisfied all rows [N].

    position, velocity, wish: [N, 2], m, m/s, m/s^2; index: neighbours [N, K], -1 for none
    k1, k2: 1/s, numbers or [N, 1]. Where there is none, rows give way by the least that will do.
    """
    way, closing = position[:, None] - position[index], velocity[:, None] - velocity[index]
    distance = np.maximum(np.linalg.norm(way, axis=-1), 1e-9)
    radius = np.broadcast_to(radius, len(position))
    normal = np.where((index >= 0)[..., None], way / distance[..., None], [1.0, 0.0])
    normal = np.where((distance > 1e-9)[..., None], normal, [1.0, 0.0])
    h = distance - radius[:, None] - radius[index]
    rate = np.sum(normal * closing, axis=-1)
    bend = (np.sum(closing * closing, axis=-1) - rate**2) / distance
    offset = -0.5 * (bend + (k1 + k2) * rate + k1 * k2 * h)
    offset = np.where(index >= 0, offset, -np.inf)
    u = project(wish, normal, offset, acceleration)
    none = np.isnan(u[:, 0])
    if none.any():
        u[none] = least_violation(wish[none], normal[none], offset[none], acceleration)
    return u, none
