"""What docs/robots.md promises of the supervisor, by arithmetic of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from motoric.control.supervisor import Mode, SafeCommand, Thresholds
from motoric.hardware.robot import RobotSpec

STIFF = (Mode.SOFT_START, Mode.ACTIVE, Mode.STOPPING)
EPS = 1e-9


@dataclass
class Measured:
    """A state of the right form; `Misshapen` ones are of none."""

    time: float
    sequence: int
    position: np.ndarray
    velocity: np.ndarray
    torque: np.ndarray
    orientation: np.ndarray = field(default_factory=lambda: np.array([1.0, 0.0, 0.0, 0.0]))
    angular_velocity: np.ndarray = field(default_factory=lambda: np.zeros(3))


class Oracle:
    """Follows one supervisor. It is told what the operator did, and checks each command.

    dt: of the policy, s
    """

    def __init__(self, spec: RobotSpec, dt: float, at: Thresholds) -> None:
        self.spec, self.limits, self.dt, self.at = spec, spec.limits, dt, at
        self.mode, self.reason = Mode.OFF, ""
        self.position, self.now = spec.stand, -math.inf  # of the last command
        self.newest, self.fresh = (-math.inf, -math.inf), -math.inf  # sequence and time; when
        self.began = self.acted = -math.inf
        self.wish = spec.stand
        self.over: dict[tuple[str, bool], float] = {}  # since when; surely, or perhaps
        self.activated = False  # by start, since the last fault

    # -- the operator ---------------------------------------------------------------------------

    def started(self, now: float, state: object, mode: Mode, reason: str) -> None:
        assert self.mode is Mode.OFF
        self.newest, self.fresh, self.over = (-math.inf, -math.inf), now, {}
        problems = ["no state"] if state is None else self._unsound(now, state, EPS)
        if problems:
            assert mode is Mode.FAULT, problems
        elif mode is Mode.FAULT:
            assert self._unsound(now, state, -EPS), f"false alarm: {reason}"
        self._account(now, state, None)
        if mode is not Mode.FAULT:
            assert mode is Mode.SOFT_START
            assert isinstance(state, Measured)
            measured = np.array(state.position, np.float64)
            self.position = np.clip(measured, self.limits.lower, self.limits.upper)
            self.now = self.began = now
            self.activated = True
        self._enter(mode, reason)

    def asked(self, what: str, mode: Mode, reason: str) -> None:
        """stop, fault or reset."""
        if what == "fault":
            assert mode is Mode.FAULT
        elif what == "reset":
            assert mode is (Mode.OFF if self.mode is Mode.FAULT else self.mode)
            if self.mode is Mode.FAULT:
                self.activated = False
        else:
            rising = self.mode in (Mode.SOFT_START, Mode.ACTIVE)
            assert mode is (Mode.STOPPING if rising else self.mode)
        self._enter(mode, reason)

    def _enter(self, mode: Mode, reason: str) -> None:
        if mode is Mode.FAULT:
            assert isinstance(reason, str)
            assert reason
            if self.mode is Mode.FAULT:
                assert reason == self.reason, "the first reason is kept"
            self.activated = False
        self.mode, self.reason = mode, reason

    # -- a tick ---------------------------------------------------------------------------------

    def tick(
        self, now: float, state: object, target: object, sent: SafeCommand, mode: Mode, reason: str
    ) -> None:
        """state: `Measured`, None or of no form; target: as given to update, unchanged."""
        before, elapsed = self.mode, now - self.now
        causes = self._causes(now, state, target, EPS)
        if before in STIFF:
            if causes:
                assert mode is Mode.FAULT, causes
            elif mode is Mode.FAULT:
                assert self._causes(now, state, target, -EPS), f"false alarm: {reason}"
            allowed = {before, Mode.FAULT}
            allowed |= {Mode.SOFT_START: {Mode.ACTIVE}, Mode.STOPPING: {Mode.OFF}}.get(
                before, set()
            )
            assert mode in allowed
        else:
            assert mode is before, "nothing but start leaves off, nothing but reset a fault"
        self._account(now, state, target)
        if mode is Mode.ACTIVE and before is Mode.SOFT_START:
            self.acted, self.wish = now, self.spec.stand
        self._enter(mode, reason)
        self._check(sent, now, elapsed, state, followed=before is mode is Mode.ACTIVE)

    def _check(
        self, sent: SafeCommand, now: float, elapsed: float, state: object, followed: bool
    ) -> None:
        limits, spec = self.limits, self.spec
        for name in ("position", "velocity", "kp", "kd", "torque"):
            value = getattr(sent, name)
            assert value.dtype == np.float64
            assert value.shape == (len(spec.joints),)
            assert np.isfinite(value).all(), name
            assert not value.flags.writeable
        # Position, and how fast it moves.
        assert (sent.position >= limits.lower).all()
        assert (sent.position <= limits.upper).all()
        step = min(max(elapsed, 0.0), self.dt) if math.isfinite(elapsed) else 0.0
        moved = np.abs(sent.position - self.position)
        assert (moved <= limits.target_rate * step + EPS).all()
        assert (moved <= limits.velocity * step + EPS).all()
        # Gains.
        assert (sent.kp >= 0).all()
        assert (sent.kd >= 0).all()
        assert (sent.kp <= spec.kp).all()
        assert (sent.kd <= np.maximum(spec.kd, spec.damping)).all()
        # Stiffness only where a human has activated, and a state says what it does.
        form = isinstance(state, Measured)
        damped = not sent.kp.any()
        assert self.activated or damped
        assert self.mode in STIFF or damped
        assert form or damped
        if (damped and self.mode not in STIFF) or not form:
            assert not sent.torque.any()
            assert not sent.velocity.any()
            assert (sent.kd > 0).all()
        # Torque, at the measured speed in either direction and all between.
        speed = np.abs(np.array(state.velocity, np.float64)) if form else np.full(1, np.nan)
        most = limits.torque * (1 + EPS)
        if form and np.isfinite(speed).all():
            error = sent.position - np.array(state.position, np.float64)
            for turn in (-1.0, -0.4, 0.0, 0.6, 1.0):
                # Without stiffness a joint may be measured anywhere: 0 * inf is no torque.
                spring = np.where(sent.kp > 0, sent.kp * np.where(sent.kp > 0, error, 0.0), 0.0)
                torque = spring + sent.kd * (sent.velocity - turn * speed) + sent.torque
                assert (np.abs(torque) <= most).all()
        if damped and (not form or not np.isfinite(speed).all() or self._old(now)):
            assert (sent.kd * limits.velocity <= most).all(), "up to full speed, if it is unknown"
        if damped and self.mode not in STIFF:  # the robot's damping, less only for its torque
            fastest = np.fmax(limits.velocity, speed)
            assert (sent.kd <= spec.damping).all()
            assert (sent.kd >= np.minimum(spec.damping, limits.torque / fastest) * (1 - EPS)).all()
        # No more than needed: the nearest allowed target.
        if followed:
            low = np.maximum(limits.lower, self.position - limits.target_rate * step)
            high = np.minimum(limits.upper, self.position + limits.target_rate * step)
            if form:
                expected = np.clip(self.wish, low, high)
                assert np.allclose(sent.position, expected, rtol=0, atol=EPS)
        self.position = sent.position
        if not math.isnan(now):
            self.now = now

    def _old(self, now: float) -> bool:
        return not 0.0 <= now - self.fresh <= self.at.stale

    def _account(self, now: float, state: object, target: object) -> None:
        if isinstance(state, Measured):
            if state.sequence > self.newest[0] and state.time > self.newest[1]:
                self.newest, self.fresh = (state.sequence, state.time), now
            for what, share in self._shares(state).items():
                for slack in (EPS, -EPS):
                    if share > 1.0 + slack:
                        self.over.setdefault((what, slack > 0), now)
                    else:
                        self.over.pop((what, slack > 0), None)
            if self.mode is Mode.ACTIVE and _sound_target(target, len(self.spec.joints)):
                self.acted, self.wish = now, np.array(target, np.float64)

    def _shares(self, state: Measured) -> dict[str, float]:
        speed = np.abs(np.array(state.velocity, np.float64)) / self.limits.velocity
        torque = np.abs(np.array(state.torque, np.float64)) / self.limits.torque
        return {"velocity": speed.max(), "torque": torque.max() / self.at.torque_margin}

    # -- what is a fault ------------------------------------------------------------------------

    def _causes(self, now: float, state: object, target: object, slack: float) -> list[str]:
        """Why this tick must end in a fault; with negative slack, why it may."""
        at, found = self.at, []
        if not -max(slack, 0.0) <= now - self.now <= at.stale + slack:
            return ["clock or pause"]
        new = isinstance(state, Measured) and (
            state.sequence > self.newest[0] and state.time > self.newest[1]
        )
        if not new and now - self.fresh > at.stale + slack:
            found.append("stale")
        if state is not None:
            found += self._unsound(now, state, slack)
        if found or state is None:
            return found
        if self.mode is Mode.SOFT_START and now - self.began >= 1.5 * at.soft_start + slack:
            assert isinstance(state, Measured)
            off = np.abs(np.array(state.position, np.float64) - self.spec.stand)
            if (off > at.arrive + slack).any():
                found.append("not risen")
        if self.mode is Mode.ACTIVE:
            if target is None:
                if now - self.acted > at.late * self.dt + slack:
                    found.append("policy late")
            elif not _sound_target(target, len(self.spec.joints)):
                found.append("action")
        return found

    def _unsound(self, now: float, state: object, slack: float) -> list[str]:
        if not isinstance(state, Measured):
            return ["form"]
        found, limits, at = [], self.limits, self.at
        q = np.array(state.position, np.float64)
        dq = np.array(state.velocity, np.float64)
        tau, turn = np.array(state.torque, np.float64), np.array(state.orientation, np.float64)
        gyro = np.array(state.angular_velocity, np.float64)
        if not all(np.isfinite(v).all() for v in (q, dq, tau, turn, gyro)):
            return ["not finite"]
        beyond = np.maximum(limits.lower - q, q - limits.upper)
        if (beyond > at.position_margin + slack).any():
            found.append("position")
        shares = self._shares(state)
        if shares["velocity"] >= at.velocity_glitch + slack:
            found.append("velocity glitch")
        for what, share in shares.items():
            since = self.over.get((what, slack > 0), now)
            if share > 1.0 + slack and now - since >= at.over_time + slack:
                found.append(what)
        norm = float(np.linalg.norm(turn))
        if abs(norm - 1.0) > (0.11 if slack > 0 else 0.05):
            found.append("no unit quaternion")
        if norm > 0:
            w, x, y, z = turn / norm
            up = np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])
            tilt = math.atan2(float(np.hypot(up[0], up[1])), float(up[2]))
            if tilt > at.tilt + slack:
                found.append("tilt")
        return found


def _sound_target(target: object, joints: int) -> bool:
    try:
        value = np.array(target)
    except Exception:
        return False
    return value.shape == (joints,) and value.dtype.kind in "fiu" and bool(np.isfinite(value).all())
