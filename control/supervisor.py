"""The safety supervisor: between every policy and every motor, the last code to touch a command.

    off -> soft_start -> active -> stopping -> off
             |             |          a wish to stop: lie down, then damp
             +--- fault ---+--------> fault: damp at once, and stay damped

A fault is latched with its reason, from `off` too; only `reset` and a new `start` leave it. No
command leaves whose joint target is outside the limits, moves faster than them, is not finite, or
would ask the motors for more torque than allowed. numpy only; the same for every robot.

Every method may be called from any thread. What is given is copied before it is looked at: its
owner may go on writing to it.
"""

from __future__ import annotations

import math
import operator
import threading
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from motoric.control.limits import Array, JointLimits, limit_target, torque_scale

_FIELDS = ("position", "velocity", "torque", "orientation", "angular_velocity")


class Mode(StrEnum):
    OFF = "off"
    SOFT_START = "soft_start"
    ACTIVE = "active"
    STOPPING = "stopping"
    FAULT = "fault"


class State(Protocol):
    """What the supervisor reads of a measurement; units as in `motoric.hardware.robot`."""

    time: float
    sequence: int
    position: Array
    velocity: Array
    torque: Array
    orientation: Array
    angular_velocity: Array


@dataclass(frozen=True)
class SafeCommand:
    """tau = kp (position - q) + kd (velocity - dq) + torque; every array [J], read-only.

    velocity and torque are zero: the speed of a joint is bounded by that of its target.
    """

    position: Array
    velocity: Array
    kp: Array
    kd: Array
    torque: Array


@dataclass(frozen=True)
class Thresholds:
    """When the supervisor steps in.

    stale: age of the newest state, and pause of the control loop, s
    position_margin: how far a joint may be measured outside its limits, rad
    over_time: how long velocity or torque may be measured above its limit, s; spikes at
        touch-down are shorter
    velocity_glitch: factor on the velocity limit that is a fault at once
    torque_margin: factor on the torque limit, for measured torque
    tilt: of the base, rad
    late: periods of the policy without an action
    soft_start, lie_down, damp: how long these phases take, s
    arrive: how far a joint may be from the stand at the end of the soft start, rad
    """

    stale: float = 0.1
    position_margin: float = 0.1
    over_time: float = 0.06
    velocity_glitch: float = 2.0
    torque_margin: float = 1.2
    tilt: float = np.pi / 3
    late: float = 2.5
    soft_start: float = 2.0
    lie_down: float = 1.5
    damp: float = 1.0
    arrive: float = 0.35

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not value > 0 or (math.isinf(value) and item.name != "arrive"):
                raise ValueError(f"thresholds.{item.name}: {value}, expected a positive number")
        if self.tilt > math.pi:
            raise ValueError(f"thresholds.tilt: {self.tilt}, expected at most pi rad")


class Supervisor:
    """One robot's supervisor. Call `update` once per tick of the control loop, at any rate.

    stand, rest: joint positions to rise to and to lie down to, rad, [J]
    kp, kd: gains when active, [J]
    damping: kd of the damped state, N m s / rad, [J]
    dt: between two actions of the policy, s; also the longest time a target moves for at once
    """

    def __init__(
        self,
        limits: JointLimits,
        stand: Array,
        rest: Array,
        kp: Array,
        kd: Array,
        damping: Array,
        dt: float,
        thresholds: Thresholds | None = None,
    ) -> None:
        self.limits, self.dt = limits, dt
        self.thresholds = at = thresholds or Thresholds()
        shape = limits.lower.shape
        self.stand, self.rest, self.kp, self.kd, self.damping = (
            np.array(np.broadcast_to(np.asarray(v, np.float64), shape))
            for v in (stand, rest, kp, kd, damping)
        )
        for name in ("stand", "rest"):
            pose = getattr(self, name)
            if not ((limits.lower <= pose) & (pose <= limits.upper)).all():
                raise ValueError(f"{name}: outside the joint limits")
        for name in ("kp", "kd"):
            if not (np.isfinite(getattr(self, name)) & (getattr(self, name) >= 0)).all():
                raise ValueError(f"{name}: must be finite and not negative")
        if not (np.isfinite(self.damping) & (self.damping > 0)).all():
            raise ValueError("damping: must be finite and positive")
        if not 0 < dt < 1:
            raise ValueError(f"dt: {dt}, expected a time between 0 and 1 s")
        self._lock = threading.RLock()  # held by all that changes the phase
        self._busy = False  # in `update` or `start`, which run code of others
        self._phase, self._reason = Mode.OFF, ""
        self._faults: list[str] = []  # since the last reset; without the lock, the first counts
        self._gain = 0.0  # share of the stiffness kp that is on
        self._zero = np.zeros(shape)
        self._target = self.stand
        self._now = self._fresh = self._sequence = self._state_time = -math.inf
        # Joints are sound where |value - centre| <= reach; rows: position, velocity, torque.
        middle = 0.5 * (limits.lower + limits.upper)
        self._centre = np.stack([middle, np.zeros(shape), np.zeros(shape)])
        self._reach = np.stack([
            limits.upper - middle + at.position_margin, limits.velocity,
            limits.torque * at.torque_margin,
        ])  # fmt: skip
        self._upright = math.cos(at.tilt)
        # Held wherever the velocity is not known: within the torque limit up to full speed.
        self._blind_kd = np.minimum(self.damping, limits.torque / limits.velocity)
        for array in (self.stand, self.rest, self.kp, self.kd, self.damping):
            array.setflags(write=False)  # they stay what was checked

    @property
    def mode(self) -> Mode:
        return Mode.FAULT if self._faults else self._phase

    @property
    def reason(self) -> str:
        """Of a fault, or of a stop."""
        return (self._faults[:1] or [self._reason])[0]

    # -- what an operator asks for ----------------------------------------------------------

    def start(self, now: float, state: State) -> None:
        """Leave `off`: rise from the measured pose. A state that is not sound is a fault."""
        with self._lock:
            if self._busy:
                raise RuntimeError("start: called from inside the supervisor")
            if self.mode is not Mode.OFF:
                raise RuntimeError(f"start: the supervisor is {self.mode}, expected off")
            self._busy = True
            try:
                problem = self._start(float(now), state)
            except Exception as error:
                problem = f"start: {_named(error)}"
            finally:
                self._busy = False
            if problem is not None:
                self.fault(problem)

    def _start(self, now: float, state: State) -> str | None:
        if not math.isfinite(now):
            return f"start: now is {now}"
        self._sequence, self._state_time, self._fresh = -math.inf, -math.inf, now
        self._over_since: dict[str, float] = {}
        problem, joints, base = self._read(now, state)
        if problem is not None:
            return problem
        if joints is None or base is None:
            return "state: none to start from"
        problem = self._unsound(now, joints, base)
        if problem is None:
            self._target = np.clip(joints[0], self.limits.lower, self.limits.upper)
            self._began, self._now, self._from = now, now, self._target
            self._phase, self._reason, self._gain = Mode.SOFT_START, "", 0.0
        return problem

    def stop(self, reason: str) -> None:
        """Lie down, then damp, then off. Does nothing unless rising or active."""
        with self._lock:
            if self.mode in (Mode.SOFT_START, Mode.ACTIVE):
                self._phase, self._reason = Mode.STOPPING, reason
                self._began, self._from, self._from_gain = self._now, self._target, self._gain

    def fault(self, reason: str) -> None:
        """Damp at once and stay damped (the e-stop too). The first reason is kept.

        Never waits, also in a signal handler; nothing `update` does can take a fault back.
        """
        if not self._faults:
            self._faults.append(reason if isinstance(reason, str) and reason else "fault")

    def reset(self) -> None:
        """Acknowledge a fault: back to off. For a human to ask for."""
        with self._lock:
            if self._busy:
                raise RuntimeError("reset: called from inside the supervisor")
            if self._faults:
                self._phase, self._reason = Mode.OFF, ""
                self._faults.clear()

    # -- every tick -------------------------------------------------------------------------

    def update(self, now: float, state: State | None, target: Array | None) -> SafeCommand:
        """The command to send at time `now` (s, monotonic). Never raises an Exception.

        state: the newest measurement, None where there is none
        target: joint targets the policy wishes, rad, [J]; None where it has not acted since the
            last tick: the last wish is held. Only looked at when active.
        """
        with self._lock:
            if self._busy:
                self.fault("supervisor: called from inside itself")
                return self._damped(self._blind_kd)
            self._busy = True
            try:
                command = self._update(float(now), state, target)
            except BaseException as error:  # an error in here must not leave the motors stiff
                self.fault(f"supervisor: {_named(error)}")
                if not isinstance(error, Exception):  # Ctrl-C, exit
                    raise
                command = self._damped(self._blind_kd)
            finally:
                self._busy = False
            # Asked last: a fault may come from another thread, at any time.
            return self._damped(self._blind_kd) if self._faults and command.kp.any() else command

    def _update(self, now: float, state: State | None, target: Array | None) -> SafeCommand:
        problem, joints, base = self._read(now, state)
        if self.mode in (Mode.FAULT, Mode.OFF):
            return self._damped(self._damping(now, joints))
        elapsed = now - self._now
        if not 0.0 <= elapsed <= self.thresholds.stale:
            paused = elapsed > 0.0
            problem = (
                f"control loop paused for {elapsed:.3f} s" if paused
                else f"clock: {now} after {self._now}"
            )  # fmt: skip
        else:
            self._now = now
            problem = problem or self._stale(now)
            if problem is None and joints is not None and base is not None:
                problem = self._unsound(now, joints, base)
        if problem is not None:
            self.fault(problem)
        if self._faults or joints is None:
            return self._damped(self._damping(now, joints))
        position, velocity, _ = joints
        if self._phase is Mode.SOFT_START:
            wish = self._rise(now, position)
        elif self._phase is Mode.STOPPING:
            wish = self._descend(now)
        else:
            wish = self._follow(now, target)
        if self.mode in (Mode.FAULT, Mode.OFF):
            return self._damped(self._damping(now, joints))
        self._target = limit_target(self.limits, wish, self._target, min(elapsed, self.dt))
        kp, kd, gain = self.kp, self.kd, self._gain
        if gain < 1.0:  # damping takes over as the stiffness goes
            kp, kd = gain * kp, gain * kd + (1.0 - gain) * self.damping
        scale = torque_scale(self.limits, self._target, 0.0, kp, kd, 0.0, position, velocity)
        return self._command(kp * scale, kd * scale)

    def _rise(self, now: float, position: Array) -> Array:
        share = (now - self._began) / self.thresholds.soft_start
        if share >= 1.0:
            off = np.abs(position - self.stand)
            if (off <= self.thresholds.arrive).all():
                self._phase, self._acted, self._wish = Mode.ACTIVE, now, self.stand
            elif share >= 1.5:
                joint = int(np.argmax(off))
                self.fault(f"soft start: joint {joint} is {off[joint]:.2f} rad from the stand")
            share = 1.0
        self._gain = min(1.0, 0.3 + 1.4 * share)
        return self._from + _smooth(share) * (self.stand - self._from)

    def _descend(self, now: float) -> Array:
        at, since = self.thresholds, now - self._began
        if since >= at.lie_down + at.damp:
            self._phase = Mode.OFF
        damped = min(max((since - at.lie_down) / at.damp, 0.0), 1.0)
        self._gain = self._from_gain * (1.0 - damped)
        return self._from + _smooth(min(since / at.lie_down, 1.0)) * (self.rest - self._from)

    def _follow(self, now: float, target: Array | None) -> Array:
        if target is None:
            if now - self._acted > self.thresholds.late * self.dt:
                self.fault(f"policy late: no action for {now - self._acted:.3f} s")
            return self._wish
        value = np.asarray(target)
        if value.shape != self._target.shape:
            self.fault(f"action: {value.shape} joint targets, expected {self._target.shape}")
            return self._wish
        if value.dtype.kind in "fiu":
            value = value.astype(np.float64)
            if np.isfinite(value).all():
                self._acted, self._wish = now, value
                return value
        self.fault("action: not finite")
        return self._wish

    # -- measurements -----------------------------------------------------------------------

    def _read(
        self, now: float, state: State | None
    ) -> tuple[str | None, Array | None, Array | None]:
        """A state in our own memory: what is wrong with its form, or None; position, velocity and
        torque [3, J], orientation and angular velocity [7], None where it is of no sound form."""
        if state is None:
            return None, None, None
        joints, base = np.empty(self._centre.shape), np.empty(7)
        try:
            rows = (*joints, base[:4], base[4:])
            for name, row in zip(_FIELDS, rows, strict=True):
                problem = _copy(name, getattr(state, name), row)
                if problem is not None:
                    return problem, None, None
            sequence, time = operator.index(state.sequence), float(state.time)
        except Exception as error:
            return f"state: {_named(error)}", None, None
        if sequence > self._sequence and time > self._state_time:
            self._sequence, self._state_time, self._fresh = sequence, time, now
        return None, joints, base

    def _damping(self, now: float, joints: Array | None) -> Array:
        """kd of the damped state: within the torque limit at the measured speed, and up to full
        speed where that is old."""
        if joints is None or not np.isfinite(joints[1]).all():
            return self._blind_kd
        fresh = 0.0 <= now - self._fresh <= self.thresholds.stale
        most = self.damping if fresh else self._blind_kd
        return np.minimum(most, self.limits.torque / np.maximum(np.abs(joints[1]), 1e-9))

    def _unsound(self, now: float, joints: Array, base: Array) -> str | None:
        return self._tilted(base) or self._beyond(now, joints)

    def _stale(self, now: float) -> str | None:
        age = now - self._fresh
        if age > self.thresholds.stale:
            return f"state: {age:.3f} s old, at most {self.thresholds.stale} allowed"
        return None

    def _tilted(self, base: Array) -> str | None:
        w, x, y, z, roll, pitch, yaw = base.tolist()
        square = w * w + x * x + y * y + z * z
        if not 0.8 < square < 1.2:
            if not math.isfinite(w + x + y + z):
                return "state: orientation is not finite"
            return (
                f"state: orientation is not a unit quaternion (norm {math.hypot(w, x, y, z):.3f})"
            )
        if not (math.isfinite(roll) and math.isfinite(pitch) and math.isfinite(yaw)):
            return "state: angular_velocity is not finite"
        upright = 1.0 - 2.0 * (x * x + y * y) / square
        if upright < self._upright:
            return f"tilted by {math.degrees(math.acos(max(upright, -1.0))):.0f} degrees"
        return None

    def _beyond(self, now: float, joints: Array) -> str | None:
        """What joint is beyond its limits, and by how much."""
        share = np.abs(joints - self._centre) / self._reach
        if share.max() <= 1.0:  # false for NaN
            self._over_since.clear()
            return None
        for name, values in zip(("position", "velocity", "torque"), joints, strict=True):
            if not np.isfinite(values).all():
                return f"state: {name} is not finite"
        joint = int(np.argmax(share[0]))
        if share[0, joint] > 1.0:
            return (
                f"joint {joint}: position {joints[0, joint]:.3f} rad, limits "
                f"{self.limits.lower[joint]:.3f} to {self.limits.upper[joint]:.3f}"
            )
        return self._over(now, "velocity", share[1], self.thresholds.velocity_glitch) or self._over(
            now, "torque", share[2], math.inf
        )

    def _over(self, now: float, what: str, share: Array, glitch: float) -> str | None:
        joint = int(np.argmax(share))
        if share[joint] <= 1.0:
            self._over_since.pop(what, None)
            return None
        since = self._over_since.setdefault(what, now)
        if share[joint] < glitch and now - since < self.thresholds.over_time:
            return None
        return f"joint {joint}: {what} at {share[joint]:.0%} of its limit"

    # -- commands ---------------------------------------------------------------------------

    def _damped(self, kd: Array) -> SafeCommand:
        """The safe command: no stiffness."""
        return self._command(self._zero, kd)

    def _command(self, kp: Array, kd: Array) -> SafeCommand:
        """A command whose arrays nobody can write to: they stay what was checked."""
        for array in (self._target, self._zero, kp, kd):
            array.setflags(write=False)
        return SafeCommand(self._target, self._zero, kp, kd, self._zero)


def _smooth(share: float) -> float:
    """From 0 to 1 without a jump in speed."""
    share = max(share, 0.0)
    return share * share * (3.0 - 2.0 * share)


def _copy(name: str, value: Any, out: Array) -> str | None:
    """Numbers of a state as float64, in our own memory; what is wrong with their form, or None."""
    value = np.asarray(value)
    if value.shape != out.shape:
        return f"state: {name} has shape {value.shape}, expected {out.shape}"
    if value.dtype.kind not in "fiu":
        return f"state: {name} holds {value.dtype}, expected numbers"
    out[:] = value
    return None


def _named(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # an error that can't even be told
        return type(error).__name__
