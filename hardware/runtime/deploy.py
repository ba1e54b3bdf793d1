"""Run a policy bundle on a robot: the fixed-rate loop from measurement to safe command.

A policy's tick is rehearsed just before its time, on the state before: a processor that has slept
for milliseconds takes several times as long for the first pass through code and weights.

Two threads share a deployment. The loop's thread does everything in turn: read, policy, supervisor,
write. The guard's thread wakes half a period later and does the same without the policy wherever
the first one is still waiting for it: no policy, however slow, ever delays the supervisor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from motoric.control.loop import EDGES, RateLoop, histogram, percentiles
from motoric.control.realtime import Realtime, scheduling
from motoric.control.supervisor import Mode, SafeCommand, Supervisor, Thresholds
from motoric.hardware.interfaces.terms import Measured, observe, projected_gravity
from motoric.hardware.robot import (
    STOPS,
    Array,
    Robot,
    RobotCommand,
    RobotError,
    RobotSpec,
    RobotState,
)
from motoric.hardware.runtime.bundle import Bundle, BundleSpec, check_robot
from motoric.hardware.runtime.log import LogWriter
from numpy.typing import NDArray

# Lying down in mid-stride tips a robot over: the policy is brought to a halt first.
SLOW, STAND = 0.5, 0.5  # s in which its command goes to zero, and for which it then stands
POLICY_SHARE = 0.5  # of its period; an action that took longer is for a state that has passed
AXES = ("forward", "left", "turn")


@dataclass(frozen=True)
class Timing:
    """What a deployment took, s.

    lateness: of every tick of the loop; policy: of every call of the network; tick: from a
    measurement to the command it led to, with the policy, without the robot's input and output
    """

    lateness: Array
    policy: Array
    tick: Array

    def percentiles(self) -> dict[str, dict[str, float]]:
        return {name: percentiles(seconds) for name, seconds in vars(self).items()}

    def histograms(self) -> dict[str, list[int]]:
        return {name: histogram(seconds) for name, seconds in vars(self).items()}


@dataclass(frozen=True)
class DeployReport:
    """What happened.

    seconds: under the policy; distance: m travelled; velocity_error_mean: mean |v - v*| in the
    plane, m/s; both NaN where the robot does not measure its velocity
    fell: tilted by more than 60 degrees or low while the policy acted
    fault: why the supervisor stepped in, None if it didn't; ended: why the policy stopped
    loop_rate: Hz; ticks, missed: of the loop; missed: begun more than 1 ms late, or not at all
    lateness_ms, policy_ms, tick_ms: p50, p99, p99.9, max, and `histograms` of them (`Timing`)
    realtime: what the kernel granted
    dry_run: nothing was sent; asked_torque, asked_move: the most a motor would have been asked
    for, as a share of its limit, and the farthest a joint from where it was, rad
    """

    seconds: float
    distance: float
    velocity_error_mean: float
    fell: bool
    fault: str | None
    ended: str
    loop_rate: float
    ticks: int
    missed: int
    lateness_ms: dict[str, float]
    policy_ms: dict[str, float]
    tick_ms: dict[str, float]
    histograms: dict[str, list[int]]
    realtime: str
    dry_run: bool
    asked_torque: float
    asked_move: float
    log: str | None = None
    log_error: str | None = None

    def summary(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class Operator:
    """The e-stop, by key and by signal, and the key to end.

    Space, Enter, e, Ctrl-C, Ctrl-Z, SIGTERM and a terminal that is closed damp the motors at
    once (`stop` is called with the reason); q lies the robot down.
    """

    def __init__(self, keys: bool, stop: Callable[[str], None]) -> None:
        self.keys = keys and sys.stdin is not None and sys.stdin.isatty()
        self._stop = stop
        self.end = False

    @contextlib.contextmanager
    def listen(self) -> Iterator[None]:
        previous, terminal = {}, None
        if threading.current_thread() is threading.main_thread():
            for name in STOPS:
                number = getattr(signal, name)
                previous[number] = signal.signal(number, self._signal)
        if self.keys:
            import termios
            import tty

            terminal = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        try:
            yield
        finally:
            if terminal is not None:
                import termios

                with contextlib.suppress(termios.error):  # the terminal is gone
                    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, terminal)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def announce(self) -> None:
        if self.keys:
            print("space, Enter or e: e-stop; q: lie down and end", flush=True)

    def _signal(self, number: int, frame: Any) -> None:
        self._stop(f"e-stop by {signal.Signals(number).name}")

    def poll(self) -> None:
        while self.keys and select.select([sys.stdin], [], [], 0)[0]:
            try:
                key = os.read(sys.stdin.fileno(), 1)
            except OSError:
                key = b""
            if not key:
                self.keys = False
                self._stop("e-stop: the terminal is gone")
            elif key in b" \r\ne":
                self._stop("e-stop by key")
            elif key == b"q":
                self.end = True


class ReadOnly(Robot):
    """A robot that is read and never commanded: neither switched on nor off."""

    def __init__(self, robot: Robot) -> None:
        self.spec, self._robot = robot.spec, robot
        self.loop_rate, self.most_rate = robot.loop_rate, robot.most_rate

    def configure(self) -> None:
        self._robot.realtime = self.realtime
        self._robot.configure()
        self.loop_rate, self.most_rate = self._robot.loop_rate, self._robot.most_rate

    def activate(self) -> None:
        pass

    def read(self) -> RobotState:
        return self._robot.read()

    def write(self, command: RobotCommand) -> None:
        pass

    def deactivate(self) -> None:
        pass

    def close(self) -> None:
        self._robot.close()


def check_command(spec: BundleSpec, command: list[float]) -> Array:
    """The velocity command as an array; raises ValueError outside the trained range."""
    value = np.asarray(command, np.float64)
    if value.shape != (len(spec.command_low),) or not np.isfinite(value).all():
        raise ValueError(f"command: {command}, expected {len(spec.command_low)} finite numbers")
    for axis, v, low, high in zip(AXES, value, spec.command_low, spec.command_high, strict=True):
        if not low <= v <= high:
            raise ValueError(f"command: {axis} {v}, the policy was trained for {low} to {high}")
    return value


def ticks_per_action(
    rate: float, wished: float | None, robot: float | None, most: float | None = None
) -> int:
    """How often the loop runs for each action of a policy of `rate` Hz.

    wished: loop rate asked for, a multiple of the policy's; None: as `robot` wants it, to the
    nearest multiple. most: what the robot's link can take. Raises ValueError for what can't be.
    """
    if most is not None and rate > most * (1 + 1e-6):
        raise ValueError(
            f"bundle: the policy acts at {rate:g} Hz, the robot's link takes at most {most:.0f} Hz"
        )
    if wished is None:
        ratio = max(1, round((robot or rate) / rate))
        return ratio if most is None else min(ratio, int(most * (1 + 1e-6) / rate))
    ratio = round(wished / rate)
    if ratio < 1 or abs(wished / rate - ratio) > 1e-6:
        raise ValueError(
            f"loop_rate: {wished:g} Hz, expected a multiple of the policy's rate, {rate:g} Hz"
        )
    if most is not None and wished > most * (1 + 1e-6):
        raise ValueError(f"loop_rate: {wished:g} Hz, the robot's link takes at most {most:.0f} Hz")
    return ratio


class Walker:
    """From measurements to joint targets, as in training: observation, policy, action scale."""

    def __init__(self, bundle: Bundle, command: Array) -> None:
        spec = bundle.spec
        assert spec.rate is not None
        assert spec.action_low is not None
        assert spec.action_high is not None
        self.bundle, self.spec, self.command, self.dt = bundle, spec, command, 1.0 / spec.rate
        self._stand, self._scale = np.array(spec.stand), np.array(spec.action_scale)
        self._low, self._high = np.array(spec.action_low), np.array(spec.action_high)
        self._action = np.zeros(len(self._scale))
        self._phase = 0.0
        self._asked = command
        self._still = np.clip(0.0, spec.command_low, spec.command_high)  # as near as it was trained

    def observe(self, state: RobotState) -> NDArray[np.float32]:
        """What the policy sees of a state, [1, O]; the gait clock moves on by one period."""
        measured = Measured(
            orientation=state.orientation[None],
            angular_velocity=state.angular_velocity[None],
            position=state.position[None],
            velocity=state.velocity[None],
            stand=self._stand,
            action=self._action[None],
            command=self.command[None],
            phase=np.array([self._phase]),
        )
        self._phase = (self._phase + self.spec.gait_frequency * self.dt) % 1.0
        return observe(self.spec.terms, measured)

    @property
    def walks(self) -> bool:
        """Whether it was asked for anything but to stand still."""
        return bool((self._asked != self._still).any())

    def slow_down(self, share: float) -> None:
        """Command this share of the way from what was asked for to standing still."""
        self.command = self._asked + min(share, 1.0) * (self._still - self._asked)

    def target(self, action: NDArray) -> Array:
        """Joint targets, rad, [J], of an action [A] that is carried out: the next one sees it."""
        self._action = np.minimum(np.maximum(action, self._low), self._high)
        return self._stand + self._scale * self._action


class Rehearsal:
    """Observation, policy and supervision on a state, thrown away: a stand-in for all that acts.

    limits … kp, kd are those of `robot`; the supervisor is one of its own, and active.
    """

    def __init__(self, bundle: Bundle, robot: RobotSpec, command: Array) -> None:
        self._walker = Walker(bundle, command)
        self._supervisor = Supervisor(
            robot.limits, robot.stand, robot.rest, robot.kp, robot.kd, robot.damping,
            self._walker.dt,
        )  # fmt: skip
        zero = np.zeros(len(robot.joints))
        self._state = RobotState(
            0.0, 0, robot.stand, zero, zero, np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(3)
        )
        self._supervisor.start(0.0, self._state)
        while self._supervisor.mode is Mode.SOFT_START:
            self._supervise(self._state, None)

    def play(self, state: RobotState) -> None:
        target = self._walker.target(self._walker.bundle.act(self._walker.observe(state))[0])
        self._supervise(state, target)

    def _supervise(self, state: RobotState, target: Array | None) -> None:
        mine = self._state
        self._state = dataclasses.replace(
            state, time=mine.time + self._walker.dt, sequence=mine.sequence + 1
        )
        self._supervisor.update(self._state.time, self._state, target)


class Control:
    """A deployment while it runs: `tick` by the loop's thread, `stand_in` by the guard's."""

    def __init__(
        self,
        robot: Robot,
        supervisor: Supervisor,
        walker: Walker,
        duration: float,
        ticks_per_action: int,
        log: LogWriter | None,
    ) -> None:
        self._robot, self._walker, self._log = robot, walker, log
        self._rehearsal = Rehearsal(walker.bundle, robot.spec, walker.command)
        self._newest: RobotState | None = None
        self.supervisor, self.operator_ends = supervisor, False
        self._duration, self._ticks_per_action = duration, ticks_per_action
        self.patience = 0.25 * walker.dt / ticks_per_action
        self._turn = threading.Lock()  # whose holder reads, supervises and writes
        self._asked: float | None = None  # when the policy was asked, while it thinks
        self._thought: dict[str, Any] | None = None  # observation, action and time, for the log
        self._target: Array | None = None  # an action not yet given to the supervisor
        self._action_due = 0  # number of the loop's deadline
        self._sent = 0
        self._active_since = self._active_until = float("nan")
        self._halt: tuple[float, str] | None = None  # since when the policy halts, and why
        self._faulted_at: float | None = None
        self.over = False
        self._status = ("", "")  # mode and reason of the last command
        self.fell, self.ended = False, ""
        self.errors, self.speeds, self.policy_seconds, self.tick_seconds = (
            array("d") for _ in range(4)
        )
        self.asked_torque = self.asked_move = 0.0

    @property
    def seconds(self) -> float:
        """Under the policy."""
        acted = self._active_until - self._active_since
        return 0.0 if np.isnan(acted) else acted + self._walker.dt / self._ticks_per_action

    def tick(self, deadline: int, late: float) -> None:
        """The loop's tick for its deadline of that number, begun `late` s after it."""
        observation = None
        with self._turn:
            if self.over:
                return
            now, state = self._read()
            read = time.perf_counter()
            if state is not None and self._acts(now) and deadline >= self._action_due:
                ratio = self._ticks_per_action
                self._action_due = deadline + ratio
                try:
                    observation = self._walker.observe(state)
                except Exception as error:
                    self.supervisor.fault(f"observation: {_line(error)}")
            if observation is None:
                self._send(now, state, late)
                return
            self._thought = {
                "observation": observation[0], "action": None, "seconds": None,
                "command": self._walker.command,
            }  # fmt: skip
            self._asked, sent = now, self._sent
        try:  # the policy thinks; from here on the guard may take our turn
            began = time.perf_counter()
            action = self._walker.bundle.act(observation)[0]
            seconds, problem = time.perf_counter() - began, None
        except Exception as error:
            action, seconds, problem = None, 0.0, f"policy: {_line(error)}"
        with self._turn:
            self._asked = None
            if problem is not None or action is None:
                self.supervisor.fault(str(problem))
            else:
                self.policy_seconds.append(seconds)
                if time.monotonic() - now <= POLICY_SHARE * self._walker.dt:
                    self._target = self._walker.target(action)
                    self._thought = {
                        "observation": observation[0], "action": action, "seconds": seconds,
                        "command": self._walker.command,
                    }  # fmt: skip
            if self._sent == sent and not self.over:
                self._send(now, state, late, read)

    def acts_at(self, deadline: int) -> bool:
        """Whether the policy is to act at the loop's deadline of that number."""
        return self.supervisor.mode is Mode.ACTIVE and deadline >= self._action_due

    def rehearse(self) -> None:
        """Play the policy's tick through, without effect; the guard watches this one too."""
        state = self._newest
        if state is not None:
            self._asked = time.monotonic()
            with contextlib.suppress(Exception):  # where it acts, it is told
                self._rehearsal.play(state)
            self._asked = None

    def stand_in(self, late: float) -> None:
        """A tick in place of the loop's, where the policy has not answered yet."""
        asked = self._asked
        if asked is None or time.monotonic() - asked < self.patience:
            return
        with self._turn:
            if self._asked is not None and not self.over:
                now, state = self._read()
                self._acts(now)
                self._send(now, state, late)

    def _read(self) -> tuple[float, RobotState | None]:
        """The time and the newest state; rises at the first."""
        now, state = time.monotonic(), None
        try:
            state = self._newest = self._robot.read()
        except RobotError as error:
            self.supervisor.fault(f"connection lost: {error}")
        except Exception as error:
            self.supervisor.fault(f"robot: {_line(error)}")
        if self._sent == 0 and state is not None and self.supervisor.mode is Mode.OFF:
            with contextlib.suppress(RuntimeError):  # an e-stop came in between
                self.supervisor.start(now, state)
        if self.operator_ends and self.supervisor.mode is Mode.SOFT_START:
            self.supervisor.stop("ended by key")
        return now, state

    def _acts(self, now: float) -> bool:
        """Whether the policy commands the robot at this tick."""
        if self.supervisor.mode is not Mode.ACTIVE:
            return False
        if np.isnan(self._active_since):
            self._active_since = now
        over = now - self._active_since >= self._duration
        if self._halt is None and (over or self.operator_ends):
            self._halt = now, "ended by key" if self.operator_ends else "finished"
        if self._halt is None:
            self._active_until = now
            return True
        began, reason = self._halt
        if not self._walker.walks or now - began >= SLOW + STAND:
            self.supervisor.stop(reason)
            return False
        self._walker.slow_down((now - began) / SLOW)
        return True

    def _send(
        self, now: float, state: RobotState | None, late: float, read: float | None = None
    ) -> None:
        """Supervise, write, log, and see whether it is over.

        now: when `state` was read; read: the same by the performance counter, where the policy
        acted on it.
        """
        supervisor = self.supervisor
        target, self._target = self._target, None
        thought, self._thought = self._thought, None
        decided = time.monotonic()
        sent = supervisor.update(decided, state, target)
        command = _command(sent, self._sent)
        if read is not None:
            self.tick_seconds.append(time.perf_counter() - read)
        if command.time - decided > supervisor.thresholds.stale:  # stopped since it was decided
            supervisor.fault(f"control loop paused for {command.time - decided:.3f} s")
            sent = supervisor.update(time.monotonic(), state, None)
            command = _command(sent, self._sent)
        try:
            self._robot.write(command)
        except Exception as error:
            known = isinstance(error, RobotError)
            supervisor.fault(f"connection lost: {error}" if known else f"robot: {_line(error)}")
            sent = supervisor.update(time.monotonic(), state, None)  # the log ends damped
        self._sent += 1
        if not (supervisor.mode is Mode.FAULT and sent.kp.any()):  # else it came while writing
            self._status = (supervisor.mode, supervisor.reason)
        if self._log is not None:
            status = {"mode": self._status[0], "reason": self._status[1], "late": late}
            self._log.tick(now, self._sent - 1, state, sent, thought, status)
        if thought is not None and state is not None and self._halt is None:
            self._account(state, sent)
        self.ended = supervisor.reason or self.ended
        if supervisor.mode is Mode.FAULT and self._faulted_at is None:
            self._faulted_at = now
        damp = supervisor.thresholds.damp
        self.over |= supervisor.mode is Mode.OFF
        self.over |= self._faulted_at is not None and now - self._faulted_at >= damp

    def _account(self, state: RobotState, sent: SafeCommand) -> None:
        """What the report says of a tick in which the policy acted."""
        speed = state.base_velocity[:2]
        self.errors.append(float(np.hypot(*(speed - self._walker.command[:2]))))
        self.speeds.append(float(np.hypot(*speed)))
        upright = -projected_gravity(state.orientation[None])[0, 2]
        self.fell |= bool(upright < 0.5 or state.base_height < 0.15)
        move = np.abs(sent.position - state.position)
        torque = np.abs(sent.kp * (sent.position - state.position) - sent.kd * state.velocity)
        self.asked_move = max(self.asked_move, float(move.max()))
        share = torque / self._robot.spec.limits.torque
        self.asked_torque = max(self.asked_torque, float(share.max()))


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]


def _command(sent: SafeCommand, count: int) -> RobotCommand:
    return RobotCommand(
        time.monotonic(), count, sent.position, sent.velocity, sent.kp, sent.kd, sent.torque
    )


def deploy(
    bundle: Bundle,
    robot: Robot,
    duration: float,
    command: list[float],
    log_path: Path | None = None,
    keys: bool = True,
    loop_rate: float | None = None,
    realtime: str = "auto",
    dry_run: bool = False,
) -> DeployReport:
    """Rise, act for `duration` s, halt, lie down; every command passes the supervisor.

    command: velocity, forward m/s, left m/s, turn rad/s. log_path: MCAP file to write.
    loop_rate: Hz at which the robot is read, supervised and commanded, a multiple of the
        policy's; None: as the robot wants it.
    realtime: "auto", "on" or "off": whether to ask for SCHED_FIFO and locked memory.
    dry_run: do all of it, but send nothing and switch nothing on or off.
    Raises ValueError or BundleError for what does not fit, RobotError if the robot can't be
    reached at all; a fault once it moves ends in the damped state and is told in the report.
    """
    spec, model = bundle.spec, robot.spec
    check_robot(spec, model)
    if spec.rate is None:
        raise ValueError("bundle: has no rate")
    wish = check_command(spec, command)
    if not 0 < duration < 1e6:
        raise ValueError(f"duration: {duration}, expected a positive number of seconds")
    ticks_per_action(spec.rate, loop_rate, robot.loop_rate, robot.most_rate)
    supervisor = Supervisor(
        model.limits, model.stand, model.rest, model.kp, model.kd, model.damping, 1.0 / spec.rate
    )
    if dry_run:  # nobody moves a robot that is only read: it need not arrive at the stand
        robot, supervisor.thresholds = ReadOnly(robot), Thresholds(arrive=np.inf)
    walker = Walker(bundle, wish)
    # The first call of a network is slow; it happens before anything moves.
    bundle.act(np.zeros((1, *spec.inputs[0].shape), np.float32))
    log = None
    operator = Operator(keys, supervisor.fault)
    try:
        with scheduling(realtime) as granted:
            robot.realtime = granted
            robot.configure()  # only then a robot far away has said what it wants
            ratio = ticks_per_action(spec.rate, loop_rate, robot.loop_rate, robot.most_rate)
            if log_path is not None:
                log = LogWriter(log_path, {
                    "robot": model.name, "task": spec.task, "rate": str(spec.rate),
                    "loop_rate": str(ratio * spec.rate), "dry_run": str(dry_run).lower(),
                    "joints": ",".join(model.joints),
                })  # fmt: skip
            control = Control(robot, supervisor, walker, duration, ratio, log)
            loop = RateLoop(ratio * spec.rate)
            with operator.listen():  # to the end: no second Ctrl-C keeps the motors on
                try:
                    robot.activate()
                    _run(control, loop, operator, granted)
                finally:
                    robot.deactivate()
                timing = Timing(
                    loop.lateness, np.array(control.policy_seconds), np.array(control.tick_seconds)
                )
                if log is not None:
                    log.timing(
                        {"loop_rate": ratio * spec.rate, "ticks": len(loop.lateness),
                         "missed": loop.missed(), "below_s": EDGES[:-1], "realtime": str(granted),
                         "percentiles_ms": timing.percentiles(), "histograms": timing.histograms()}
                    )  # fmt: skip
                    log.close()
    finally:
        if log is not None:
            log.close()
    shares = timing.percentiles()
    return DeployReport(
        seconds=control.seconds,
        distance=float(np.sum(control.speeds)) * walker.dt,
        velocity_error_mean=float(np.mean(control.errors)) if control.errors else float("nan"),
        fell=control.fell,
        fault=supervisor.reason if supervisor.mode is Mode.FAULT else None,
        ended=control.ended,
        loop_rate=ratio * spec.rate,
        ticks=len(timing.lateness),
        missed=loop.missed(),
        lateness_ms=shares["lateness"],
        policy_ms=shares["policy"],
        tick_ms=shares["tick"],
        histograms=timing.histograms(),
        realtime=str(granted),
        dry_run=dry_run,
        asked_torque=control.asked_torque,
        asked_move=control.asked_move,
        log=None if log_path is None else str(log_path),
        log_error=None if log is None else log.error,
    )


def _run(control: Control, loop: RateLoop, operator: Operator, granted: Realtime) -> None:
    """The loop in a thread of its own; this one is its guard, and listens to the operator.

    Returns when it is over, even if the policy never answers: its thread is then left behind.
    """
    failed: list[BaseException] = []

    def work() -> None:
        try:
            granted.enter()
            for _ in loop:
                control.tick(loop.deadline, loop.lateness_last)
                if control.over:
                    break
                if control.acts_at(loop.deadline + 1):
                    loop.rehearse = control.rehearse
        except BaseException as error:
            control.supervisor.fault(f"control loop: {type(error).__name__}: {error}")
            failed.append(error)
            control.over = True

    operator.poll()  # keys pressed while the robot was being switched on
    control.operator_ends |= operator.end
    if control.supervisor.mode is not Mode.FAULT:
        operator.announce()
    loop.start = time.monotonic()
    worker = threading.Thread(target=work, name="control loop", daemon=True)
    guard = RateLoop(1 / loop.period, start=loop.start + 0.5 * loop.period, spin=0.0)
    granted.enter(above=1)
    try:
        worker.start()
        for _ in guard:
            operator.poll()
            control.operator_ends |= operator.end
            control.stand_in(loop.period * 0.5 + guard.lateness_last)
            if control.over:
                break
    finally:
        control.over = True
        granted.leave()
        worker.join(0.5)
    if failed:
        raise failed[0]
