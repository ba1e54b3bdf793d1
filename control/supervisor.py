"""The safety supervisor: between every policy and every motor, the last code to touch a command.

    off -> soft_start -> active -> stopping -> off
             |             |          a wish to stop: lie down, then damp
             +--- fault ---+--------> fault: damp at once, and stay damped

A fault is latched with its reason; only `reset` and a new `start` leave it. No command leaves
whose joint target is outside the limits, moves faster than them, is not finite, or would ask the
motors for more torque than allowed. numpy only; the same for every robot.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from motoric.control.limits import Array, JointLimits, limit_target, torque_scale


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


@dataclass(frozen=True)
class SafeCommand:
    """tau = kp (position - q) + kd (velocity - dq) + torque; every array [J]."""

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
    late_ticks: consecutive ticks without an action of the policy
    soft_start, lie_down, damp: how long these phases take, s
    arrive: how far a joint may be from the stand at the end of the soft start, rad
    damping: kd of the damped state, N m s / rad
    """

    stale: float = 0.1
    position_margin: float = 0.1
    over_time: float = 0.06
    velocity_glitch: float = 2.0
    torque_margin: float = 1.2
    tilt: float = np.pi / 3
    late_ticks: int = 3
    soft_start: float = 2.0
    lie_down: float = 1.5
    damp: float = 1.0
    arrive: float = 0.35
    damping: float = 2.0


class Supervisor:
    """One robot's supervisor. Call `update` once per tick of the control loop.

    stand, rest: joint positions to rise to and to lie down to, rad, [J]
    kp, kd: gains when active, [J]; dt: nominal time between ticks, s
    `mode` and `reason` (of a fault or a stop) may be read at any time.
    """

    def __init__(
        self,
        limits: JointLimits,
        stand: Array,
        rest: Array,
        kp: Array,
        kd: Array,
        dt: float,
        thresholds: Thresholds | None = None,
    ) -> None:
        self.limits, self.dt = limits, dt
        self.thresholds = thresholds or Thresholds()
        shape = limits.lower.shape
        self.stand, self.rest, self.kp, self.kd = (
            np.broadcast_to(np.asarray(v, np.float64), shape) for v in (stand, rest, kp, kd)
        )
        for name in ("stand", "rest"):
            pose = getattr(self, name)
            if not ((limits.lower <= pose) & (pose <= limits.upper)).all():
                raise ValueError(f"{name}: outside the joint limits")
        for name in ("kp", "kd"):
            if not (np.isfinite(getattr(self, name)) & (getattr(self, name) >= 0)).all():
                raise ValueError(f"{name}: must be finite and not negative")
        if not 0 < dt < 1:
            raise ValueError(f"dt: {dt}, expected a time between 0 and 1 s")
        self.mode = Mode.OFF
        self.reason = ""
        self._zero = np.zeros(shape)
        # Held wherever the velocity is not known: within the torque limit up to full speed.
        self._blind_kd = np.minimum(self.thresholds.damping, limits.torque / limits.velocity)
        self._target = np.clip(self.stand, limits.lower, limits.upper)

    # -- what an operator asks for ----------------------------------------------------------

    def start(self, now: float, state: State) -> None:
        """Leave `off`: rise from the measured pose. A state that is not sound is a fault."""
        if self.mode is not Mode.OFF:
            raise RuntimeError(f"start: the supervisor is {self.mode}, expected off")
        self._began = self._now = self._fresh = now
        self._sequence, self._state_time = -np.inf, -np.inf
        self._over_since: dict[str, float] = {}
        self._late = 0
        self.mode, self.reason = Mode.SOFT_START, ""
        problem = self._problem(now, state)
        if problem is not None:
            self.fault(problem)
            return
        self._target = np.clip(state.position, self.limits.lower, self.limits.upper)
        self._from = self._target

    def stop(self, reason: str) -> None:
        """Lie down, then damp, then off. Does nothing unless rising or active."""
        if self.mode in (Mode.SOFT_START, Mode.ACTIVE):
            self.mode, self.reason = Mode.STOPPING, reason
            self._began, self._from = self._now, self._target

    def fault(self, reason: str) -> None:
        """Damp at once and stay damped (the e-stop too). The first reason is kept."""
        if self.mode is not Mode.FAULT:
            self.mode, self.reason = Mode.FAULT, reason

    def reset(self) -> None:
        """Acknowledge a fault: back to off."""
        if self.mode is Mode.FAULT:
            self.mode, self.reason = Mode.OFF, ""

    # -- every tick -------------------------------------------------------------------------

    def update(self, now: float, state: State | None, target: Array | None) -> SafeCommand:
        """The command to send at time `now` (s, monotonic).

        state: the newest measurement, None where there is none
        target: joint targets the policy wishes, rad, [J]; None where it has not acted (late).
            Only looked at when active.
        """
        if self.mode in (Mode.OFF, Mode.FAULT):
            return self._damped(state)
        elapsed = now - self._now
        if not np.isfinite(now) or elapsed > self.thresholds.stale:
            self.fault(f"control loop paused for {elapsed:.3f} s")
            return self._damped(state)
        self._now = max(now, self._now)
        problem = self._problem(now, state)
        if problem is not None:
            self.fault(problem)
        if state is None or self.mode is Mode.FAULT:
            return self._damped(state)

        wish, gain = self._target, 1.0
        if self.mode is Mode.SOFT_START:
            wish, gain = self._rise(now, state)
        elif self.mode is Mode.STOPPING:
            wish, gain = self._descend(now)
        elif self.mode is Mode.ACTIVE:
            wish = self._follow(target)
        if self.mode in (Mode.OFF, Mode.FAULT):
            return self._damped(state)
        step = min(max(elapsed, 0.0), self.dt)
        self._target = limit_target(self.limits, wish, self._target, step)
        # Damping takes over as the stiffness goes.
        kd = gain * self.kd + (1.0 - gain) * self.thresholds.damping
        return self._within_torque(state, gain * self.kp, kd)

    def _rise(self, now: float, state: State) -> tuple[Array, float]:
        share = (now - self._began) / self.thresholds.soft_start
        if share >= 1.0:
            off = np.abs(state.position - self.stand)
            if (off <= self.thresholds.arrive).all():
                self.mode, self._late = Mode.ACTIVE, 0
            elif share >= 1.5:
                joint = int(np.argmax(off))
                self.fault(f"soft start: joint {joint} is {off[joint]:.2f} rad from the stand")
        share = min(max(share, 0.0), 1.0)
        smooth = share * share * (3.0 - 2.0 * share)
        return self._from + smooth * (self.stand - self._from), min(1.0, 0.3 + 1.4 * share)

    def _descend(self, now: float) -> tuple[Array, float]:
        since = now - self._began
        share = min(max(since / self.thresholds.lie_down, 0.0), 1.0)
        if since >= self.thresholds.lie_down + self.thresholds.damp:
            self.mode = Mode.OFF
        smooth = share * share * (3.0 - 2.0 * share)
        damped = (since - self.thresholds.lie_down) / self.thresholds.damp
        return self._from + smooth * (self.rest - self._from), 1.0 - min(max(damped, 0.0), 1.0)

    def _follow(self, target: Array | None) -> Array:
        if target is None:
            self._late += 1
            if self._late >= self.thresholds.late_ticks:
                self.fault(f"policy late: no action for {self._late} ticks")
            return self._target
        self._late = 0
        target = np.asarray(target)
        if target.shape != self._target.shape:
            self.fault(f"action: {target.shape} joint targets, expected {self._target.shape}")
        elif target.dtype.kind not in "fiu" or not np.isfinite(target).all():
            self.fault("action: not finite")
        else:
            return target.astype(np.float64)
        return self._target

    def _problem(self, now: float, state: State | None) -> str | None:
        """What is wrong with a measurement, or None."""
        at, limits = self.thresholds, self.limits
        if state is not None:
            for name, shape in (
                ("position", self._target.shape), ("velocity", self._target.shape),
                ("torque", self._target.shape), ("orientation", (4,)),
            ):  # fmt: skip
                value = np.asarray(getattr(state, name))
                if value.shape != shape:
                    return f"state: {name} has shape {value.shape}, expected {shape}"
                if not np.isfinite(value).all():
                    return f"state: {name} is not finite"
            if state.sequence > self._sequence and state.time > self._state_time:
                self._sequence, self._state_time = state.sequence, state.time
                self._fresh = now
        if now - self._fresh > at.stale:
            return f"state: {now - self._fresh:.3f} s old, at most {at.stale} allowed"
        if state is None:
            return None
        w, x, y, z = np.clip(state.orientation, -10, 10)  # no overflow in the square
        norm = w * w + x * x + y * y + z * z
        if not 0.8 < norm < 1.2:
            return f"state: orientation is not a unit quaternion (norm {norm**0.5:.3f})"
        upright = 1.0 - 2.0 * (x * x + y * y) / norm
        if upright < np.cos(at.tilt):
            return f"tilted by {np.degrees(np.arccos(max(upright, -1.0))):.0f} degrees"
        outside = np.maximum(limits.lower - state.position, state.position - limits.upper)
        if outside.max() > at.position_margin:
            joint = int(np.argmax(outside))
            return (
                f"joint {joint}: position {state.position[joint]:.3f} rad, limits "
                f"{limits.lower[joint]:.3f} to {limits.upper[joint]:.3f}"
            )
        return self._over(
            now, "velocity", np.abs(state.velocity) / limits.velocity, at.velocity_glitch
        ) or self._over(
            now, "torque", np.abs(state.torque) / (limits.torque * at.torque_margin), np.inf
        )

    def _over(self, now: float, what: str, ratio: Array, glitch: float) -> str | None:
        joint = int(np.argmax(ratio))
        if ratio[joint] <= 1.0:
            self._over_since.pop(what, None)
            return None
        since = self._over_since.setdefault(what, now)
        if ratio[joint] < glitch and now - since < self.thresholds.over_time:
            return None
        return f"joint {joint}: {what} at {ratio[joint]:.0%} of its limit"

    # -- commands ---------------------------------------------------------------------------

    def _within_torque(self, state: State, kp: Array, kd: Array) -> SafeCommand:
        scale = torque_scale(
            self.limits, self._target, self._zero, kp, kd, self._zero, state.position,
            state.velocity,
        )  # fmt: skip
        return SafeCommand(self._target, self._zero, kp * scale, kd * scale, self._zero)

    def _damped(self, state: State | None) -> SafeCommand:
        """The safe command: no stiffness, damping within the torque limit."""
        kd = self._blind_kd
        if state is not None:
            velocity = np.asarray(state.velocity)
            if velocity.shape == kd.shape and np.isfinite(velocity).all():
                damping = self.thresholds.damping
                kd = np.minimum(damping, self.limits.torque / np.maximum(np.abs(velocity), 1e-9))
        return SafeCommand(self._target, self._zero, self._zero, kd, self._zero)
