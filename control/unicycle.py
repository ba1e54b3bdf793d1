"""A unicycle steered by the velocity of a point ahead of its axle, exact at the real time step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def point_ahead(position: Array, yaw: Array, ahead: float) -> Array:
    """Where the point is that is steered, [N, 2]: give it to the barrier, with `grown_radius`."""
    return position + ahead * np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)


def grown_radius(radius: float, ahead: float, speed: float, dt: float) -> float:
    """Radius about the point ahead that covers a robot of `radius` about its axle, also between
    two ticks, when the point goes along an arc beside its straight way."""
    turn = 1.05 * speed * dt / ahead  # at most, with the chord's shortening
    return radius + ahead + 0.5 * speed * dt * float(np.tan(turn / 4))


def drive(u: Array, yaw: Array, ahead: float, dt: float) -> tuple[Array, Array]:
    """Forward speed, m/s, and turn rate, rad/s, [N], held for dt, that move the point by u dt.

    With rates held the point goes along an arc, turned by half the turn from where it set out and
    shorter by its chord, (v, ahead w) = R(-yaw - w dt / 2) u / sinc(w dt / 2): a few fixed-point
    steps on w. The usual (v, ahead w) = R(-yaw) u misses by |u| |w| dt^2 / 2, step after step.
    """
    if not np.hypot(u[..., 0], u[..., 1]).max(initial=0.0) * dt <= ahead:
        raise ValueError(f"unicycle: a point {ahead} m ahead can't move {dt} s at |u| > ahead / dt")
    w = np.zeros(u.shape[:-1])
    for _ in range(60):
        half = 0.5 * w * dt
        chord = np.sinc(half / np.pi)
        c, s = np.cos(yaw + half), np.sin(yaw + half)
        before, w = w, (c * u[..., 1] - s * u[..., 0]) / (ahead * chord)
        if np.abs(w - before).max(initial=0.0) < 1e-15 / dt:
            break
    half = 0.5 * w * dt
    c, s = np.cos(yaw + half), np.sin(yaw + half)
    return (c * u[..., 0] + s * u[..., 1]) / np.sinc(half / np.pi), w
