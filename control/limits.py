"""Joint limits, and the two pure functions that keep a command inside them.

The same functions run in training (N = thousands) and in the safety supervisor (N = 1),
so a policy learns with the limits it will meet on the robot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class JointLimits:
    """What each of J joints may do.

    lower, upper: position, rad, [J]
    velocity: joint speed, rad/s, [J]
    torque: motor torque, N m, [J]
    target_rate: how fast a position target may move, rad/s, [J]; at most `velocity`, so that no
        joint is ever asked to move faster than it may
    """

    lower: Array
    upper: Array
    velocity: Array
    torque: Array
    target_rate: Array

    def __post_init__(self) -> None:
        shape = np.shape(self.lower)
        for name in ("lower", "upper", "velocity", "torque", "target_rate"):
            value = np.array(getattr(self, name), np.float64)
            if value.shape != shape or value.ndim != 1:
                raise ValueError(f"limits.{name}: shape {value.shape}, expected {shape}")
            if not np.isfinite(value).all():
                raise ValueError(f"limits.{name}: {value.tolist()} holds a non-finite value")
            value.flags.writeable = False
            object.__setattr__(self, name, value)
        if (self.lower >= self.upper).any():
            raise ValueError("limits.lower: must be below limits.upper for every joint")
        for name in ("velocity", "torque", "target_rate"):
            if (getattr(self, name) <= 0).any():
                raise ValueError(f"limits.{name}: must be positive for every joint")
        if (self.target_rate > self.velocity).any():
            raise ValueError("limits.target_rate: must not be above limits.velocity for any joint")


def limit_target(limits: JointLimits, target: Array, previous: Array, dt: float) -> Array:
    """Joint target nearest to the wished one that respects position and rate limits.

    target, previous: rad, [..., J]; previous must lie within the position limits.
    dt: time since `previous` was commanded, s.
    """
    step = limits.target_rate * dt
    low = np.maximum(limits.lower, previous - step)
    high = np.minimum(limits.upper, previous + step)
    return np.minimum(np.maximum(target, low), high)


def torque_scale(
    limits: JointLimits,
    target: Array,
    target_velocity: Array | float,
    kp: Array,
    kd: Array,
    feedforward: Array | float,
    position: Array,
    velocity: Array,
) -> Array:
    """Factor in (0, 1] for kp, kd and feed-forward torque that keeps the PD torque in limits.

    The motor computes tau = kp (q* - q) + kd (dq* - dq) + tau_ff; scaling all three terms by
    the returned s [..., J] gives |s tau| <= limits.torque without moving the target. It holds for
    a speed dq of the measured size in either direction, and for all between: a joint that is
    stopped or thrown back before the next command stays within the limit too.
    """
    still = kp * (target - position) + kd * target_velocity + feedforward
    torque = np.abs(still) + np.abs(kd * velocity)
    return limits.torque / np.maximum(torque, limits.torque)
