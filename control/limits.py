"""Joint limits, the two pure functions that keep a command inside them, and the filter of both.

The same code runs in training (N = thousands) and in the safety supervisor (N = 1), so a policy
learns with the limits it will meet on the robot.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from motoric.control.command import MotorCommand
from numpy.typing import NDArray

if TYPE_CHECKING:
    from motoric.control.filters import Context, State

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


def torque_bound(
    target: Array,
    target_velocity: Array | float,
    kp: Array,
    kd: Array,
    feedforward: Array | float,
    position: Array,
    velocity: Array,
) -> Array:
    """Highest PD torque, N m, [..., J], at a speed of the measured size in either direction, and
    all between: of a joint, too, that is stopped or thrown back before the next command.

    The motor computes tau = kp (q* - q) + kd (dq* - dq) + tau_ff.
    """
    still = kp * (target - position) + (kd * target_velocity + feedforward)
    return np.abs(still) + np.abs(kd * velocity)


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

    Scaling all three terms by the returned s [..., J] gives |s tau| <= limits.torque without
    moving the target.
    """
    bound = torque_bound(target, target_velocity, kp, kd, feedforward, position, velocity)
    return limits.torque / np.maximum(bound, limits.torque)


@dataclass(frozen=True)
class Limits:
    """The filter that is never left out: to the nearest command within a robot's limits.

    Gains, target velocity and feed-forward torque are clipped, the target is limited in position
    and rate, and where the PD torque would be too high kp, kd and torque are scaled down together.
    Where kp is zero the target is where the joint is measured: stiffness that comes back later
    does not pull it to an old one.

    kp_max, kd_max: highest gains, [J]
    """

    joints: JointLimits
    kp_max: Array
    kd_max: Array

    name: ClassVar[str] = "limits"
    deadline: ClassVar[float] = math.inf  # it can't be left out, so it can't be late

    def __post_init__(self) -> None:
        shape = self.joints.lower.shape
        for name in ("kp_max", "kd_max"):
            value = np.array(np.broadcast_to(np.asarray(getattr(self, name), np.float64), shape))
            if not (np.isfinite(value) & (value >= 0)).all():
                raise ValueError(f"{name}: must be finite and not negative")
            value.flags.writeable = False
            object.__setattr__(self, name, value)

    def __call__(self, state: State, wish: MotorCommand, context: Context) -> MotorCommand:
        return self.reach(state, self.clip(wish), context)

    def clip(self, wish: MotorCommand) -> MotorCommand:
        """All that can be limited without knowing the robot's state: the first half."""
        joints = self.joints
        return MotorCommand(
            wish.position,
            _clipped(wish.velocity, -joints.velocity, joints.velocity),
            _clipped(wish.kp, 0.0, self.kp_max),
            _clipped(wish.kd, 0.0, self.kd_max),
            _clipped(wish.torque, -joints.torque, joints.torque),
            wish.time,
            wish.sequence,
        )

    def clip_rows(self, numbers: Array) -> Array:
        """The same for one robot's quantities as rows [5, J]; read-only."""
        low, high = self._bounds
        found = np.minimum(np.maximum(numbers, low), high)
        found.setflags(write=False)
        return found

    @functools.cached_property
    def _bounds(self) -> tuple[Array, Array]:
        zero, inf = np.zeros_like(self.kp_max), np.full_like(self.kp_max, math.inf)
        velocity, torque = self.joints.velocity, self.joints.torque
        return (
            np.stack([-inf, -velocity, zero, zero, -torque]),
            np.stack([inf, velocity, self.kp_max, self.kd_max, torque]),
        )

    def reach(self, state: State, wish: MotorCommand, context: Context) -> MotorCommand:
        """Target and torque of a command that is clipped already: the second half.

        Where no row needs scaling, the gains and the torque are the wish's own arrays.
        """
        target = limit_target(self.joints, wish.position, context.previous.position, context.dt)
        kp, kd, velocity, torque = wish.kp, wish.kd, wish.velocity, wish.torque
        if kp.ndim > 1:
            kp, kd, velocity, torque = _row(kp), _row(kd), _row(velocity), _row(torque)
        if np.count_nonzero(kp) < kp.size:
            here = np.minimum(np.maximum(state.position, self.joints.lower), self.joints.upper)
            target = np.where(kp > 0, target, here)
        bound = torque_bound(target, velocity, kp, kd, torque, state.position, state.velocity)
        if all_true(bound <= self.joints.torque):  # false for NaN
            kp, kd, torque = wish.kp, wish.kd, wish.torque
        else:
            scale = self.joints.torque / np.maximum(bound, self.joints.torque)
            kp, kd = kp * scale, kd * scale
            torque = torque * scale if np.count_nonzero(torque) else wish.torque
        return MotorCommand(target, wish.velocity, kp, kd, torque, wish.time, wish.sequence)


def all_true(mask: NDArray[np.bool_]) -> bool:
    """What mask.all() says, in a tenth of the time for few numbers, a third for many."""
    return b"\0" not in mask.tobytes()


def _row(value: Array) -> Array:
    """One row [J] of rows that are all the same memory; else the array itself."""
    return value[0] if value.ndim == 2 and value.strides[0] == 0 else value


def _clipped(value: Array, low: Array | float, high: Array) -> Array:
    """Within bounds; the array itself where it is one row for all that is."""
    row = _row(value)
    found = np.minimum(np.maximum(row, low), high)
    if row is value:
        return found
    return value if all_true(found == row) else np.broadcast_to(found, value.shape)
