"""What proves that a command of an agent in the plane is safe: some lines of float64, no optimiser.

An agent promises that its whole hull stays within half-planes: a velocity-controlled agent's hull
is the point where it is, an acceleration-controlled agent's its **braking segment**, from where it
is to where it would stop if it braked from now on. Between two agents whose half-planes lie apart
nothing can touch, whatever each of them does inside, and braking keeps the segment within itself,
so that there always is a command that passes. `holds` says whether a command does, whoever
proposed it.

Commands are held for `dt`. All positions are relative to where the agent is, m.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

ROUNDING = 1e-9  # of a command's size, relative to its limit


class Dynamics(Protocol):
    """How N agents move while a command u [N, 2] is held for dt. velocity: present, m/s, [N, 2]."""

    @property
    def dt(self) -> float: ...
    @property
    def speed(self) -> float: ...
    @property
    def curved(self) -> bool: ...
    @property
    def limit(self) -> float: ...
    def hull(self, velocity: Array) -> Array: ...
    def hull_after(self, velocity: Array, u: Array) -> Array: ...
    def jacobian(self, velocity: Array, u: Array) -> Array: ...
    def limited(self, velocity: Array, u: Array) -> Array: ...
    def limit_rows(self, velocity: Array, u: Array) -> tuple[Array, Array]: ...
    def brake(self, velocity: Array) -> Array: ...
    def within_limits(self, velocity: Array, u: Array) -> Mask: ...


@dataclass(frozen=True)
class VelocityControl:
    """u is the velocity: p' = p + u dt. dt: the longest time a command is held, s; speed: m/s."""

    dt: float
    speed: float

    def __post_init__(self) -> None:
        _check_positive("velocity control", dt=self.dt, speed=self.speed)

    @property
    def curved(self) -> bool:
        """Whether `hull_after` is not linear in u."""
        return False

    @property
    def limit(self) -> float:
        """On |u|."""
        return self.speed

    def hull(self, velocity: Array) -> Array:
        """Points [N, 1, 2] whose hull no other may enter."""
        return np.zeros((len(velocity), 1, 2))

    def hull_after(self, velocity: Array, u: Array) -> Array:
        return self.dt * u[:, None]

    def jacobian(self, velocity: Array, u: Array) -> Array:
        """Of `hull_after` by u, [N, 1, 2, 2]; symmetric."""
        return np.broadcast_to(self.dt * np.eye(2), (len(u), 1, 2, 2))

    def limited(self, velocity: Array, u: Array) -> Array:
        """u within the limits, nearest to it."""
        return _shrunk(u, self.speed)

    def limit_rows(self, velocity: Array, u: Array) -> tuple[Array, Array]:
        """Limits besides that on |u| as rows [N, R, 2], [N, R] on the command: none."""
        return np.empty((len(u), 0, 2)), np.empty((len(u), 0))

    def brake(self, velocity: Array) -> Array:
        """The command under which the hull shrinks into itself."""
        return np.zeros_like(velocity)

    def within_limits(self, velocity: Array, u: Array) -> Mask:
        return np.hypot(u[:, 0], u[:, 1]) <= self.speed * (1 + ROUNDING)


@dataclass(frozen=True)
class AccelerationControl:
    """u is the acceleration: p' = p + v dt + u dt^2 / 2, v' = v + u dt.

    dt: time that each command is held, exactly, s; speed, acceleration: limits on |v|, m/s, and
    |u|, m/s^2; braking: deceleration that can be relied on in every direction, m/s^2
    """

    dt: float
    speed: float
    acceleration: float
    braking: float

    def __post_init__(self) -> None:
        _check_positive(
            "acceleration control", dt=self.dt, speed=self.speed, acceleration=self.acceleration,
            braking=self.braking,
        )  # fmt: skip
        if self.braking > self.acceleration:
            raise ValueError(
                f"acceleration control: braking {self.braking}, expected at most the acceleration"
                f" {self.acceleration}"
            )

    @property
    def curved(self) -> bool:
        """Whether `hull_after` is not linear in u."""
        return True

    @property
    def limit(self) -> float:
        """On |u|."""
        return self.acceleration

    def hull(self, velocity: Array) -> Array:
        """Ends [N, 2, 2] of the braking segment. All of the way until the stop lies on it."""
        stop = stopping_vector(velocity, self.braking, self.dt)
        return np.stack([np.zeros_like(stop), stop], axis=1)

    def hull_after(self, velocity: Array, u: Array) -> Array:
        moved = velocity * self.dt + u * (0.5 * self.dt**2)
        stop = stopping_vector(velocity + u * self.dt, self.braking, self.dt)
        return np.stack([moved, moved + stop], axis=1)

    def jacobian(self, velocity: Array, u: Array) -> Array:
        """Of `hull_after` by u, [N, 2, 2, 2]; symmetric."""
        after, step = velocity + u * self.dt, self.braking * self.dt
        speed = np.maximum(np.hypot(after[:, 0], after[:, 1]), 1e-12)
        along = (np.floor(speed / step) + 0.5) * self.dt  # ds / d|v|
        across = stopping_distance(speed, self.braking, self.dt) / speed
        way = after / speed[:, None]
        outer = way[:, :, None] * way[:, None, :]
        stop = across[:, None, None] * np.eye(2) + (along - across)[:, None, None] * outer
        moved = np.broadcast_to(0.5 * self.dt**2 * np.eye(2), stop.shape)
        return np.stack([moved, moved + self.dt * stop], axis=1)

    def limited(self, velocity: Array, u: Array) -> Array:
        """u within the limits, near it: first the speed's, then the acceleration's."""
        after = _shrunk(velocity + u * self.dt, self.speed)
        return _shrunk((after - velocity) / self.dt, self.acceleration)

    def limit_rows(self, velocity: Array, u: Array) -> tuple[Array, Array]:
        """The speed's limit as a row [N, 1, 2], [N, 1] on the command, linearised at u."""
        after = velocity + u * self.dt
        size = np.hypot(after[:, 0], after[:, 1])
        way = (
            np.where(size[:, None] > 0, after, [1.0, 0.0]) / np.where(size > 0, size, 1.0)[:, None]
        )
        fast = np.maximum(self.speed, np.hypot(velocity[:, 0], velocity[:, 1]))
        return -way[:, None], ((np.sum(way * velocity, axis=-1) - fast) / self.dt)[:, None]

    def brake(self, velocity: Array) -> Array:
        """The command under which the hull shrinks into itself."""
        speed = np.hypot(velocity[:, 0], velocity[:, 1])
        last = speed <= self.braking * self.dt
        return (
            -velocity / np.where(last, self.dt, np.maximum(speed, 1e-300) / self.braking)[:, None]
        )

    def within_limits(self, velocity: Array, u: Array) -> Mask:
        """An agent that is too fast already may not become faster."""
        after = velocity + u * self.dt
        fast = np.maximum(self.speed, np.hypot(velocity[:, 0], velocity[:, 1]))
        return (np.hypot(u[:, 0], u[:, 1]) <= self.acceleration * (1 + ROUNDING)) & (
            np.hypot(after[:, 0], after[:, 1]) <= fast * (1 + ROUNDING)
        )


def stopping_distance(speed: Array, braking: float, dt: float) -> Array:
    """Way until standing, m, for commands held for dt: n whole steps, then one to zero.

    It is up to braking dt^2 / 8 longer than the v^2 / 2a of a robot that may stop at any moment.
    """
    n = np.floor(speed / (braking * dt))
    rest = speed - n * (braking * dt)
    return speed * (n * dt) - 0.5 * braking * (n * dt) ** 2 + 0.5 * rest * dt


def stopping_vector(velocity: Array, braking: float, dt: float) -> Array:
    """From where an agent is to where it would stop, m, [N, 2]."""
    speed = np.hypot(velocity[..., 0], velocity[..., 1])
    scale = stopping_distance(speed, braking, dt) / np.maximum(speed, 1e-300)
    return velocity * scale[..., None]


@dataclass(frozen=True)
class Promise:
    """What N agents promise about where they are after this step.

    normal [N, K, 2], bound [N, K]: every x of the hull then has normal . x >= bound, m
    leash [N]: no x of it is farther than this from the present hull, m
    """

    normal: Array
    bound: Array
    leash: Array

    def rows(self, ids: NDArray[np.intp]) -> Promise:
        return Promise(self.normal[ids], self.bound[ids], self.leash[ids])


def holds(dynamics: Dynamics, velocity: Array, u: Array, promise: Promise) -> Mask:
    """Whether commands u [N, 2] keep the promise and the limits, [N]. NaN does not."""
    hull = dynamics.hull_after(velocity, u)
    kept = dynamics.within_limits(velocity, u)
    kept &= (support(promise.normal, hull) >= promise.bound).all(axis=1)
    if (promise.leash < np.inf).any():
        kept &= strayed(dynamics.hull(velocity), hull) <= promise.leash
    return kept


def support(normal: Array, hull: Array) -> Array:
    """The least of normal . x [N, K] over hulls [N, P, 2]."""
    x, y = normal[..., 0], normal[..., 1]
    least = x * hull[:, 0, 0, None] + y * hull[:, 0, 1, None]
    for p in range(1, hull.shape[1]):
        least = np.minimum(least, x * hull[:, p, 0, None] + y * hull[:, p, 1, None])
    return least


def strayed(before: Array, after: Array) -> Array:
    """How far the hull `after` [N, P, 2] reaches from the hull `before` [N, P, 2], m, [N]."""
    a, edge = before[:, 0], before[:, -1] - before[:, 0]
    square = np.sum(edge * edge, axis=-1)
    farthest = np.zeros(len(before))
    for point in np.moveaxis(after, 1, 0):
        t = np.sum((point - a) * edge, axis=-1) / np.where(square > 0, square, 1.0)
        way = point - a - np.clip(t, 0.0, 1.0)[:, None] * edge
        farthest = np.maximum(farthest, np.hypot(way[:, 0], way[:, 1]))
    return farthest


def _shrunk(vector: Array, length: float) -> Array:
    """Vectors [N, 2], those longer than `length` shortened to it."""
    size = np.hypot(vector[:, 0], vector[:, 1])
    return vector * np.minimum(1.0, length / np.maximum(size, 1e-300))[:, None]


def _check_positive(name: str, **values: float) -> None:
    for key, value in values.items():
        if not 0 < value < np.inf:
            raise ValueError(f"{name}: {key} is {value}, expected a positive number")
