"""The safety supervisor: between every policy and every motor, the last code to touch a command.

    off -> soft_start -> active -> stopping -> off
             |             |          a wish to stop: lie down, then damp
             +--- fault ---+--------> fault: damp at once, and stay damped

A fault is latched with its reason, from `off` too; only `reset` and a new `start` leave it. No
command leaves whose joint target is outside the limits, moves faster than them, is not finite,
whose gains or target velocity are above their maxima, or that would ask the motors for more torque
than allowed. numpy only; the same for every robot.

While the policy acts its wish passes the filters, in order, and then the limits; in every other
phase the limits alone. A filter that raises, is late or gives what is no command is a fault.

Every method may be called from any thread. What is given is copied before it is looked at: its
owner may go on writing to it.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from motoric.control.command import QUANTITIES, MotorCommand, hold
from motoric.control.filters import Context, Fault, Filter
from motoric.control.limits import Array, JointLimits, Limits, all_true

_FIELDS = ("position", "velocity", "torque", "orientation", "angular_velocity")
_shape_of = operator.attrgetter("shape")


class Mode(StrEnum):
    """What a supervisor is doing; the log has it as `/status`."""

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


class _Seen:
    """A checked measurement in our own memory, read-only, as filters see it.

    joints: position, velocity, torque, [3, J]; base: orientation and angular velocity, [7]
    """

    __slots__ = ("_base", "_joints", "position", "sensors", "velocity")

    def __init__(self, joints: Array, base: Array, sensors: Mapping[str, Any]) -> None:
        self._joints, self._base, self.sensors = joints, base, sensors
        self.position, self.velocity = joints[0], joints[1]

    @property
    def torque(self) -> Array:
        return self._joints[2]

    @property
    def orientation(self) -> Array:
        return self._base[:4]

    @property
    def angular_velocity(self) -> Array:
        return self._base[4:]


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
    kp, kd: gains of rising, lying down, and until the policy acts, [J]
    damping: kd of the damped state, N m s / rad, [J]
    dt: between two actions of the policy, s; also the longest time a target moves for at once
    kp_max, kd_max: most that the policy may wish, [J]; unless given, those above
    filters: that the policy's wish passes before the limits, in this order: barrier, reflex. The
        wish they see is the policy's, with gains, velocity and torque within the limits already
    clock: s, of `busy_since` and of the filters' deadlines
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
        kp_max: Array | None = None,
        kd_max: Array | None = None,
        filters: tuple[Filter, ...] = (),
        clock: Callable[[], float] = time.monotonic,
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
        self._highest_kd = highest = np.maximum(self.kd, self.damping)  # of its own
        self._limits = Limits(
            limits, self.kp if kp_max is None else kp_max, highest if kd_max is None else kd_max
        )
        if (self._limits.kp_max < self.kp).any() or (self._limits.kd_max < highest).any():
            raise ValueError("kp_max, kd_max: below kp, kd or damping of some joint")
        self._filters = tuple(_named_filter(f) for f in filters)
        names = [name for name, _, _ in self._filters]
        if len({*names, self._limits.name}) <= len(names):
            raise ValueError(f"filters: {', '.join(names)}: a name is there twice")
        self._clock = clock
        self._lock = threading.RLock()  # held by all that changes the phase
        self._busy = False  # in `update` or `start`, which run code of others
        self._busy_since: float | None = None
        self._state_form = _Form(_FIELDS, (shape, shape, shape, (4,), (3,)))
        self._wish_form = _Form(QUANTITIES, (shape,) * 5)
        self._busy_with = ""
        self._phase, self._reason = Mode.OFF, ""
        self._faults: list[str] = []  # since the last reset; without the lock, the first counts
        self._gain = 0.0  # share of the stiffness kp that is on
        self._zero = np.zeros(shape)
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
        for array in (self.stand, self.rest, self.kp, self.kd, self.damping, self._zero,
                      self._blind_kd):  # fmt: skip
            array.setflags(write=False)  # they stay what was checked
        self._sent = self._damped(self._blind_kd, self.stand)

    @property
    def mode(self) -> Mode:
        return Mode.FAULT if self._faults else self._phase

    @property
    def reason(self) -> str:
        """Of a fault, or of a stop."""
        return (self._faults[:1] or [self._reason])[0]

    @property
    def busy_since(self) -> float | None:
        """When the `update` that runs now began, s; None: none runs.

        For a thread that guards the control loop: where a filter or a state's reading hangs in an
        update, it calls `fault`, and sends `blind` in its place. Neither waits for the update.
        """
        return self._busy_since

    @property
    def busy_with(self) -> str:
        """Which filter that update is in; empty: in none."""
        return self._busy_with

    def blind(self) -> MotorCommand:
        """The damped command of who knows nothing of the robot's state. Never waits."""
        return self._damped(self._blind_kd, self._sent.position)

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
            here = np.clip(joints[0], self.limits.lower, self.limits.upper)
            here.setflags(write=False)
            self._sent = self._damped(self._blind_kd, here)
            self._began, self._now, self._from = now, now, here
            self._phase, self._reason, self._gain = Mode.SOFT_START, "", 0.0
        return problem

    def stop(self, reason: str) -> None:
        """Lie down, then damp, then off. Does nothing unless rising or active."""
        with self._lock:
            if self.mode in (Mode.SOFT_START, Mode.ACTIVE):
                self._phase, self._reason = Mode.STOPPING, reason
                self._began, self._from = self._now, self._sent.position
                self._from_gain = self._gain

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

    def update(self, now: float, state: State | None, wish: MotorCommand | None) -> MotorCommand:
        """The command to send at time `now` (s, monotonic). Never raises an Exception.

        state: the newest measurement, None where there is none
        wish: what the policy asks for, [J]; None where it has not acted since the last tick: its
            last wish is held. Only looked at when active.
        """
        with self._lock:
            if self._busy:
                self.fault("supervisor: called from inside itself")
                return self.blind()
            self._busy, self._busy_since = True, self._clock()
            command = None
            try:
                command = self._update(float(now), state, wish)
            except BaseException as error:  # an error in here must not leave the motors stiff
                self.fault(f"supervisor: {_named(error)}")
                if not isinstance(error, Exception):  # Ctrl-C, exit
                    raise
            finally:
                self._busy, self._busy_since, self._busy_with = False, None, ""
            safe = self.blind() if command is None else command
            self._sent = safe
            # Asked last: a fault may come from another thread, at any time.
            return self.blind() if self._faults and not self._damps else safe

    def _update(self, now: float, state: State | None, wish: MotorCommand | None) -> MotorCommand:
        self._damps = True
        problem, joints, base = self._read(now, state)
        if self.mode in (Mode.FAULT, Mode.OFF):
            return self._damped(self._damping(now, joints), self._sent.position)
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
        if self._faults or joints is None or base is None:
            return self._damped(self._damping(now, joints), self._sent.position)
        dt = min(elapsed, self.dt)
        if self._phase is Mode.ACTIVE:
            asked = self._follow(now, wish)
            if self._filters:
                asked = self._filter(joints, base, getattr(state, "sensors", {}), asked, dt)
        elif self._phase is Mode.SOFT_START:
            asked = self._own(self._rise(now, joints[0]))
        else:
            asked = self._own(self._descend(now))
        if self.mode in (Mode.FAULT, Mode.OFF):
            return self._damped(self._damping(now, joints), self._sent.position)
        command = self._limits.reach(_Seen(joints, base, {}), asked, Context(self._sent, dt))
        if command.kp is not asked.kp and not all_true(np.isfinite(command.kp + command.kd)):
            self.fault("limits: a torque is not finite")
            return self._damped(self._damping(now, joints), self._sent.position)
        for array in (command.position, command.kp, command.kd, command.torque):
            array.setflags(write=False)
        self._damps = False
        return command

    def _rise(self, now: float, position: Array) -> Array:
        share = (now - self._began) / self.thresholds.soft_start
        if share >= 1.0:
            off = np.abs(position - self.stand)
            if (off <= self.thresholds.arrive).all():
                self._phase, self._acted = Mode.ACTIVE, now
                self._wish = hold(self.stand, self.kp, self.kd)
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

    def _own(self, position: Array) -> MotorCommand:
        """The robot's own gains, as much of them as is on: damping takes over as they go."""
        kp, kd, gain = self.kp, self.kd, self._gain
        if gain < 1.0:
            kp = gain * kp
            kd = np.minimum(gain * kd + (1.0 - gain) * self.damping, self._highest_kd)
        return MotorCommand(position, self._zero, kp, kd, self._zero)

    def _follow(self, now: float, wish: MotorCommand | None) -> MotorCommand:
        """The newest wish of the policy, as far as it can be limited without a state."""
        if wish is None:
            if now - self._acted > self.thresholds.late * self.dt:
                self.fault(f"policy late: no action for {now - self._acted:.3f} s")
            return self._wish
        taken = self._take("action", wish)
        if taken is not None:
            self._acted, self._wish = now, taken
        return self._wish

    def _filter(
        self, joints: Array, base: Array, sensors: Mapping[str, Any], wish: MotorCommand, dt: float
    ) -> MotorCommand:
        """A wish after all filters but the limits; a fault ends it.

        Each is given objects of its own: what it does to them is not what the limits see.
        """
        for name, deadline, apply in self._filters:
            if self._faults:
                break
            self._busy_with, began = name, self._clock()
            try:
                context = Context(dataclasses.replace(self._sent), dt)
                found = apply(_Seen(joints, base, sensors), dataclasses.replace(wish), context)
            except Exception as error:
                self.fault(f"{name}: {error if isinstance(error, Fault) else _named(error)}")
                break
            took = self._clock() - began
            if not took <= deadline:
                self.fault(f"{name}: took {1e3 * took:.1f} ms, allowed {1e3 * deadline:.1f} ms")
            wish = self._take(name, found) or wish
        self._busy_with = ""
        return wish

    def _take(self, source: str, wish: MotorCommand) -> MotorCommand | None:
        """A command in our own memory, read-only, limited as far as it can be without a state;
        None, and a fault, where it is no command."""
        try:
            values, problem = _copy(self._wish_form, wish)
        except Exception as error:
            problem = _named(error)
        if problem is None:
            numbers = values.reshape(len(QUANTITIES), -1)
            finite = np.isfinite(numbers)
            if all_true(finite):
                rows = self._limits.clip_rows(numbers)
                return MotorCommand(rows[0], rows[1], rows[2], rows[3], rows[4])
            problem = f"not finite: {QUANTITIES[int(np.argmin(finite.all(axis=1)))]}"
        self.fault(f"{source}: {problem}")
        return None

    # -- measurements -----------------------------------------------------------------------

    def _read(
        self, now: float, state: State | None
    ) -> tuple[str | None, Array | None, Array | None]:
        """A state in our own memory: what is wrong with its form, or None; position, velocity and
        torque [3, J], orientation and angular velocity [7], None where it is of no sound form."""
        if state is None:
            return None, None, None
        try:
            values, problem = _copy(self._state_form, state)
            if problem is not None:
                return f"state: {problem}", None, None
            sequence, time = operator.index(state.sequence), float(state.time)
        except Exception as error:
            return f"state: {_named(error)}", None, None
        joints = values[:-7].reshape(self._centre.shape)
        base = values[-7:]
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
        off = np.abs(joints - self._centre)
        if all_true(off <= self._reach):  # false for NaN
            self._over_since.clear()
            return None
        share = off / self._reach
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
            now, "torque", share[2], None
        )

    def _over(self, now: float, what: str, share: Array, glitch: float | None) -> str | None:
        joint = int(np.argmax(share))
        if share[joint] <= 1.0:
            self._over_since.pop(what, None)
            return None
        since = self._over_since.setdefault(what, now)
        at_once = glitch is not None and share[joint] >= glitch
        if not at_once and now - since < self.thresholds.over_time:
            return None
        return f"joint {joint}: {what} at {share[joint]:.0%} of its limit"

    def _damped(self, kd: Array, position: Array) -> MotorCommand:
        """The safe command: no stiffness. Nobody can write to its arrays."""
        kd.setflags(write=False)
        return MotorCommand(position, self._zero, self._zero, kd, self._zero)


class _Form:
    """What arrays of a state or a command are read, behind each other: names and shapes."""

    __slots__ = ("names", "shapes", "size", "values_of")

    def __init__(self, names: tuple[str, ...], shapes: tuple[tuple[int, ...], ...]) -> None:
        self.names, self.shapes, self.size = names, shapes, sum(n for (n,) in shapes)
        self.values_of = operator.attrgetter(*names)


def _copy(form: _Form, source: Any) -> tuple[Array, str | None]:
    """Numbers of a state or a command behind each other as float64, in our own memory, which
    nobody can write to; and what is wrong with their form, or None."""
    values = form.values_of(source)
    copy = np.empty(form.size)
    try:  # all at once, where all are what they should be
        if tuple(map(_shape_of, values)) == form.shapes:
            np.concatenate(values, out=copy, casting="no")
            copy.setflags(write=False)
            return copy, None
    except Exception:
        pass
    end = 0
    for name, value, shape in zip(form.names, values, form.shapes, strict=True):
        value = np.asarray(value)
        if value.shape != shape:
            return copy, f"{name} has shape {value.shape}, expected {shape}"
        if value.dtype.kind not in "fiu":
            return copy, f"{name} holds {value.dtype}, expected numbers"
        end += len(value)
        copy[end - len(value) : end] = value
    copy.flags.writeable = False
    return copy, None


def _smooth(share: float) -> float:
    """From 0 to 1 without a jump in speed."""
    share = max(share, 0.0)
    return share * share * (3.0 - 2.0 * share)


def _named(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # an error that can't even be told
        return type(error).__name__


def _named_filter(filter: Filter) -> tuple[str, float, Filter]:
    """Name and deadline as they are now, and the filter. Raises ValueError."""
    name, deadline = filter.name, filter.deadline
    if not isinstance(name, str) or not name:
        raise ValueError(f"filter {filter!r}: name {name!r}, expected a text")
    if not isinstance(deadline, int | float) or not 0 < deadline < math.inf:
        raise ValueError(f"filter {name}: deadline {deadline!r}, expected a positive number of s")
    return name, float(deadline), filter
