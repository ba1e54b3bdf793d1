"""Metrics by name: what can be said of a step from what a robot measures and is asked for.

Each is a function of N rows measured, their goal, and the length of the step, s.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from motoric.hardware.goals import Goal
from motoric.hardware.interfaces.base import Metric
from motoric.hardware.measured import Array, Measured

TILTED = 0.5  # cosine of the tilt that counts as fallen
LOW = 0.15  # m; so does a base lower than this


def velocity_error(measured: Measured, goal: Goal, dt: float) -> Array:
    """|v - v*| in the plane, m/s, [N]."""
    velocity, wanted = measured.base_velocity, goal["velocity"]
    return np.hypot(velocity[:, 0] - wanted[:, 0], velocity[:, 1] - wanted[:, 1])


def speed(measured: Measured, goal: Goal, dt: float) -> Array:
    """In the plane, m/s, [N]."""
    return np.hypot(measured.base_velocity[:, 0], measured.base_velocity[:, 1])


def forward(measured: Measured, goal: Goal, dt: float) -> Array:
    """Velocity of the base along its own x, m/s, [N]."""
    return measured.base_velocity[:, 0]


def left(measured: Measured, goal: Goal, dt: float) -> Array:
    """Velocity of the base along its own y, m/s, [N]."""
    return measured.base_velocity[:, 1]


def turn(measured: Measured, goal: Goal, dt: float) -> Array:
    """Of the base about its own z, rad/s, [N]."""
    return measured.angular_velocity[:, 2]


def distance(measured: Measured, goal: Goal, dt: float) -> Array:
    """Travelled in the plane in this step, m, [N]."""
    return speed(measured, goal, dt) * dt


def power(measured: Measured, goal: Goal, dt: float) -> Array:
    """Mechanical, of the motors, sum |tau dq|, W, [N]."""
    return np.abs(measured.torque * measured.velocity).sum(1)


def fell(measured: Measured, goal: Goal, dt: float) -> Array:
    """Tilted by more than 60 degrees, or the base below 0.15 m, [N]."""
    x, y = measured.orientation[:, 1], measured.orientation[:, 2]
    upright = 1 - 2 * (x * x + y * y)
    return ((upright < TILTED) | (measured.base_position[:, 2] < LOW)).astype(np.float64)


METRICS: dict[str, tuple[Metric, Callable[[Measured, Goal, float], Array]]] = {
    "velocity_error": (Metric("velocity_error", "m/s", "mean", "velocity error"), velocity_error),
    "speed": (Metric("speed", "m/s", "mean", "speed"), speed),
    "forward": (Metric("forward", "m/s", "mean", "forward"), forward),
    "left": (Metric("left", "m/s", "mean", "left"), left),
    "turn": (Metric("turn", "rad/s", "mean", "turn"), turn),
    "distance": (Metric("distance", "m", "sum", "distance"), distance),
    "power": (Metric("power", "W", "mean", "motor power"), power),
    "fell": (Metric("fell", "", "any", "fell"), fell),
}
