"""What docs/robots.md promises of the supervisor, by arithmetic of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from motoric.control.command import QUANTITIES, MotorCommand
from motoric.control.supervisor import Mode, Thresholds
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
    filtered: filters of arbitrary doing stand before the limits: what they do to a wish, and that
        they end in a fault, is theirs; all else holds as without them
    """

    def __init__(self, spec: RobotSpec, dt: float, at: Thresholds, filtered: bool = False) -> None:
        self.spec, self.limits, self.dt, self.at = spec, spec.limits, dt, at
        self.filtered = filtered
        self.mode, self.reason = Mode.OFF, ""
        self.position, self.now = spec.stand, -math.inf  # of the last command
        self.newest, self.fresh = (-math.inf, -math.inf), -math.inf  # sequence and time; when
        self.began = self.acted = -math.inf
        zero = np.zeros(len(spec.joints))
        self.wish = {"position": spec.stand, "velocity": zero, "kp": spec.kp, "kd": spec.kd,
                     "torque": zero}  # fmt: skip
        self.own = self.wish
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
        self, now: float, state: object, wish: object, sent: MotorCommand, mode: Mode, reason: str
    ) -> None:
        """state: `Measured`, None or of no form; wish: as given to update, unchanged."""
        before, elapsed = self.mode, now - self.now
        causes = self._causes(now, state, wish, EPS)
        if before in STIFF:
            if causes:
                assert mode is Mode.FAULT, causes
            elif mode is Mode.FAULT and not (self.filtered and before is Mode.ACTIVE):
                assert self._causes(now, state, wish, -EPS), f"false alarm: {reason}"
            allowed = {before, Mode.FAULT}
            allowed |= {Mode.SOFT_START: {Mode.ACTIVE}, Mode.STOPPING: {Mode.OFF}}.get(
                before, set()
            )
            assert mode in allowed
        else:
            assert mode is before, "nothing but start leaves off, nothing but reset a fault"
        self._account(now, state, wish)
        if mode is Mode.ACTIVE and before is Mode.SOFT_START:
            self.acted, self.wish = now, self.own
        self._enter(mode, reason)
        self._check(sent, now, elapsed, state, followed=before is mode is Mode.ACTIVE)

    def _check(
        self, sent: MotorCommand, now: float, elapsed: float, state: object, followed: bool
    ) -> None:
        limits, spec = self.limits, self.spec
        for name in QUANTITIES:
            value = getattr(sent, name)
            assert value.dtype == np.float64
            assert value.shape == (len(spec.joints),)
            assert np.isfinite(value).all(), name
            assert not value.flags.writeable
        # Position, and how fast it moves where it has stiffness.
        assert (sent.position >= limits.lower).all()
        assert (sent.position <= limits.upper).all()
        step = min(max(elapsed, 0.0), self.dt) if math.isfinite(elapsed) else 0.0
        moved = np.where(sent.kp > 0, np.abs(sent.position - self.position), 0.0)
        assert (moved <= limits.target_rate * step + EPS).all()
        assert (moved <= limits.velocity * step + EPS).all()
        # The other four, each within its maximum; its own gains where no policy acts.
        acts = self.mode is Mode.ACTIVE
        assert (sent.kp >= 0).all()
        assert (sent.kd >= 0).all()
        assert (sent.kp <= (spec.kp_max if acts else spec.kp)).all()
        assert (sent.kd <= (spec.kd_max if acts else np.maximum(spec.kd, spec.damping))).all()
        assert (np.abs(sent.velocity) <= limits.velocity).all()
        assert (np.abs(sent.torque) <= limits.torque).all()
        assert acts or not (sent.velocity.any() or sent.torque.any())
        # More than damping only where a human has activated, and a state says what it does.
        form = isinstance(state, Measured)
        damped = not (sent.kp.any() or sent.velocity.any() or sent.torque.any())
        assert self.activated or damped
        assert self.mode in STIFF or damped
        assert form or damped
        if (damped and self.mode not in STIFF) or not form:
            assert (sent.kd > 0).all()
            assert np.allclose(sent.position, self.position, rtol=0, atol=EPS)
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
        safe = damped and self.mode not in STIFF
        if (safe or not form) and (not np.isfinite(speed).all() or self._old(now)):
            assert (sent.kd * limits.velocity <= most).all(), "up to full speed, if it is unknown"
        if safe:  # the robot's damping, less only for its torque
            fastest = np.fmax(limits.velocity, speed)
            assert (sent.kd <= spec.damping).all()
            assert (sent.kd >= np.minimum(spec.damping, limits.torque / fastest) * (1 - EPS)).all()
        # No more than needed: the nearest allowed command.
        if followed and form and not self.filtered:
            assert isinstance(state, Measured)
            self._nearest(sent, state, step)
        self.position = sent.position
        if not math.isnan(now):
            self.now = now

    def _nearest(self, sent: MotorCommand, state: Measured, step: float) -> None:
        """What is sent is the wish, changed no more than the limits ask for."""
        limits, spec, wish = self.limits, self.spec, self.wish
        q, dq = np.array(state.position, np.float64), np.array(state.velocity, np.float64)
        kp = np.clip(wish["kp"], 0.0, spec.kp_max)
        kd = np.clip(wish["kd"], 0.0, spec.kd_max)
        speed = np.clip(wish["velocity"], -limits.velocity, limits.velocity)
        push = np.clip(wish["torque"], -limits.torque, limits.torque)
        low = np.maximum(limits.lower, self.position - limits.target_rate * step)
        high = np.minimum(limits.upper, self.position + limits.target_rate * step)
        target = np.clip(wish["position"], low, high)
        # Without stiffness: where the joint is.
        target = np.where(kp > 0, target, np.clip(q, limits.lower, limits.upper))
        torque = np.abs(kp * (target - q) + kd * speed + push) + np.abs(kd * dq)
        share = np.minimum(1.0, limits.torque / np.maximum(torque, 1e-300))
        near = {"rtol": 1e-9, "atol": EPS}
        assert np.allclose(sent.position, target, rtol=0, atol=EPS)
        assert np.array_equal(sent.velocity, speed)
        for got, full in ((sent.kp, kp), (sent.kd, kd), (sent.torque, push)):
            assert np.allclose(got, full * share, **near)
            assert np.array_equal(got[share == 1.0], full[share == 1.0])

    def _old(self, now: float) -> bool:
        return not 0.0 <= now - self.fresh <= self.at.stale

    def _account(self, now: float, state: object, wish: object) -> None:
        if isinstance(state, Measured):
            if state.sequence > self.newest[0] and state.time > self.newest[1]:
                self.newest, self.fresh = (state.sequence, state.time), now
            for what, share in self._shares(state).items():
                for slack in (EPS, -EPS):
                    if share > 1.0 + slack:
                        self.over.setdefault((what, slack > 0), now)
                    else:
                        self.over.pop((what, slack > 0), None)
            given = numbers(wish, len(self.spec.joints))
            if self.mode is Mode.ACTIVE and given is not None:
                self.acted, self.wish = now, given

    def _shares(self, state: Measured) -> dict[str, float]:
        speed = np.abs(np.array(state.velocity, np.float64)) / self.limits.velocity
        torque = np.abs(np.array(state.torque, np.float64)) / self.limits.torque
        return {"velocity": speed.max(), "torque": torque.max() / self.at.torque_margin}

    # -- what is a fault ------------------------------------------------------------------------

    def _causes(self, now: float, state: object, wish: object, slack: float) -> list[str]:
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
            if wish is None:
                if now - self.acted > at.late * self.dt + slack:
                    found.append("policy late")
            elif numbers(wish, len(self.spec.joints)) is None:
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


def numbers(wish: object, joints: int) -> dict[str, np.ndarray] | None:
    """The five quantities of a wish, [J] each; None where it is no command."""
    found = {}
    for name in QUANTITIES:
        try:
            value = np.array(getattr(wish, name))
        except Exception:
            return None
        if value.shape != (joints,) or value.dtype.kind not in "fiu":
            return None
        found[name] = value.astype(np.float64)
        if not np.isfinite(found[name]).all():
            return None
    return found
