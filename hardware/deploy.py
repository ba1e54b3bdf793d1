"""Run a policy bundle on a robot: the fixed-rate loop from measurement to safe command."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from motoric.control.loop import RateLoop, percentiles
from motoric.control.supervisor import Mode, SafeCommand, Supervisor
from motoric.hardware.bundle import Bundle, BundleSpec
from motoric.hardware.log import LogWriter
from motoric.hardware.observation import Measured, observe, projected_gravity
from motoric.hardware.robot import Array, Robot, RobotCommand, RobotError, RobotState
from numpy.typing import NDArray

POLICY_SHARE = 0.5  # of a tick that is waited for the policy
AXES = ("forward", "left", "turn")


@dataclass(frozen=True)
class DeployReport:
    """What happened.

    seconds: under the policy; distance: m travelled; velocity_error_mean: mean |v - v*| in the
    plane, m/s; both NaN where the robot does not measure its velocity
    fell: tilted by more than 60 degrees or low while the policy acted
    fault: why the supervisor stepped in, None if it didn't; ended: why the policy stopped
    ticks, missed: of the whole loop; missed: begun more than 1 ms late
    lateness_ms, policy_ms: p50, p99, max
    """

    seconds: float
    distance: float
    velocity_error_mean: float
    fell: bool
    fault: str | None
    ended: str
    ticks: int
    missed: int
    lateness_ms: dict[str, float]
    policy_ms: dict[str, float]
    log: str | None
    log_error: str | None

    def summary(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class PolicyThread:
    """The network in a thread of its own, so that a late policy never delays the supervisor."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._wake, self._done = threading.Event(), threading.Event()
        self._observation: NDArray | None = None
        self._busy = False
        self._answer: tuple[NDArray | None, float, str | None] = (None, 0.0, None)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def act(self, observation: NDArray, patience: float) -> tuple[NDArray | None, float | None]:
        """Action [A] and seconds it took; (None, None) if not ready within `patience` s.

        An action that comes later is dropped: it belongs to a state that has passed.
        Raises RuntimeError when the policy itself fails.
        """
        if self._busy:
            if not self._done.is_set():
                return None, None
            self._busy = False
        self._done.clear()
        self._observation, self._busy = observation, True
        self._wake.set()
        if not self._done.wait(patience):
            return None, None
        self._busy = False
        action, seconds, error = self._answer
        if error is not None:
            raise RuntimeError(error)
        return action, seconds

    def close(self) -> None:
        self._observation = None
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._observation is None:
                return
            began = time.perf_counter()
            try:
                action = self._bundle.act(self._observation[None])[0]
                self._answer = action, time.perf_counter() - began, None
            except Exception as error:
                text = f"policy: {type(error).__name__}: {error}".split("\n")[0]
                self._answer = None, 0.0, text
            self._done.set()


class Operator:
    """The e-stop, by key and by signal, and the key to end.

    Space, Enter, e, Ctrl-C and SIGTERM damp the motors at once; q lies the robot down.
    """

    def __init__(self, keys: bool) -> None:
        self.keys = keys and sys.stdin is not None and sys.stdin.isatty()
        self.stop_reason: str | None = None
        self.end = False

    @contextlib.contextmanager
    def listen(self) -> Iterator[None]:
        previous, terminal = {}, None
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                previous[number] = signal.signal(number, self._signal)
        if self.keys:
            import termios
            import tty

            terminal = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
            print("space, Enter or e: e-stop; q: lie down and end", flush=True)
        try:
            yield
        finally:
            if terminal is not None:
                import termios

                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, terminal)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _signal(self, number: int, frame: Any) -> None:
        self.stop_reason = f"e-stop by {signal.Signals(number).name}"

    def poll(self) -> None:
        while self.keys and select.select([sys.stdin], [], [], 0)[0]:
            key = os.read(sys.stdin.fileno(), 1)
            if not key:
                self.keys = False
            elif key in b" \r\ne":
                self.stop_reason = "e-stop by key"
            elif key == b"q":
                self.end = True


def check_command(spec: BundleSpec, command: list[float]) -> Array:
    """The velocity command as an array; raises ValueError outside the trained range."""
    value = np.asarray(command, np.float64)
    if value.shape != (len(spec.command_low),) or not np.isfinite(value).all():
        raise ValueError(f"command: {command}, expected {len(spec.command_low)} finite numbers")
    for axis, v, low, high in zip(AXES, value, spec.command_low, spec.command_high, strict=True):
        if not low <= v <= high:
            raise ValueError(f"command: {axis} {v}, the policy was trained for {low} to {high}")
    return value


class Walker:
    """From measurements to joint targets, as in training: observation, policy, action scale."""

    def __init__(self, bundle: Bundle, command: Array) -> None:
        spec = bundle.spec
        assert spec.rate is not None
        assert spec.action_low is not None
        assert spec.action_high is not None
        self.spec, self.command, self.dt = spec, command, 1.0 / spec.rate
        self._stand, self._scale = np.array(spec.stand), np.array(spec.action_scale)
        self._low, self._high = np.array(spec.action_low), np.array(spec.action_high)
        self._action = np.zeros(len(self._scale))
        self._phase = 0.0
        self.policy = PolicyThread(bundle)
        self.last: dict[str, Any] = {}

    def target(self, state: RobotState) -> Array | None:
        """Joint targets, rad, [J]; None when the policy is late."""
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
        observation = observe(self.spec.terms, measured)[0]
        action, seconds = self.policy.act(observation, POLICY_SHARE * self.dt)
        self._phase = (self._phase + self.spec.gait_frequency * self.dt) % 1.0
        self.last = {
            "observation": observation,
            "action": action,
            "seconds": seconds,
            "command": self.command,
        }
        if action is None:
            return None
        self._action = np.clip(action, self._low, self._high).astype(np.float64)
        return self._stand + self._scale * self._action


def deploy(
    bundle: Bundle,
    robot: Robot,
    duration: float,
    command: list[float],
    log_path: Path | None = None,
    keys: bool = True,
) -> DeployReport:
    """Rise, act for `duration` s, lie down; every command passes the supervisor.

    command: velocity, forward m/s, left m/s, turn rad/s. log_path: MCAP file to write.
    Raises ValueError or BundleError for what does not fit, RobotError if the robot can't be
    reached at all; a fault once it moves ends in the damped state and is told in the report.
    """
    from motoric.hardware.bundle import check_robot

    spec, model = bundle.spec, robot.spec
    check_robot(spec, model)
    if spec.rate is None:
        raise ValueError("bundle: has no rate")
    wish = check_command(spec, command)
    if not 0 < duration < 1e6:
        raise ValueError(f"duration: {duration}, expected a positive number of seconds")
    supervisor = Supervisor(
        model.limits, model.stand, model.rest, model.kp, model.kd, 1.0 / spec.rate
    )
    operator, walker = Operator(keys), Walker(bundle, wish)
    # The first call of a network is slow; it happens before anything moves.
    bundle.act(np.zeros((1, *spec.inputs[0].shape), np.float32))
    log = None
    if log_path is not None:
        log = LogWriter(log_path, {
            "robot": model.name, "task": spec.task, "rate": str(spec.rate),
            "joints": ",".join(model.joints),
        })  # fmt: skip
    try:
        robot.configure()
        with operator.listen(), _no_garbage_collection():
            report = _loop(robot, supervisor, walker, operator, duration, log)
    finally:
        robot.deactivate()
        walker.policy.close()
        if log is not None:
            log.close()
    return dataclasses.replace(
        report,
        log=None if log_path is None else str(log_path),
        log_error=None if log is None else log.error,
    )


def _loop(
    robot: Robot,
    supervisor: Supervisor,
    walker: Walker,
    operator: Operator,
    duration: float,
    log: LogWriter | None,
) -> DeployReport:
    dt = walker.dt
    loop = RateLoop(1.0 / dt)
    active_since: float | None = None
    faulted_at: float | None = None
    seconds, errors, speeds, policy_times, fell = 0.0, [], [], [], False
    ended = ""
    robot.activate()
    for tick in loop:
        now = time.monotonic()
        operator.poll()
        state: RobotState | None = None
        target, lost = None, False
        try:
            state = robot.read()
        except RobotError as error:
            supervisor.fault(f"connection lost: {error}")
            lost = True
        if tick == 0 and state is not None:
            supervisor.start(now, state)
        if operator.stop_reason is not None:
            supervisor.fault(operator.stop_reason)
        elif operator.end:
            supervisor.stop("ended by key")
        acts = supervisor.mode is Mode.ACTIVE and state is not None
        if acts and state is not None:
            active_since = now if active_since is None else active_since
            if now - active_since >= duration:
                supervisor.stop("finished")
                acts = False
            else:
                try:
                    target = walker.target(state)
                except (RuntimeError, ValueError) as error:
                    supervisor.fault(str(error))
        sent = supervisor.update(time.monotonic(), state, target)
        try:
            robot.write(_command(sent, tick))
        except RobotError as error:
            supervisor.fault(f"connection lost: {error}")
            lost = True
        if acts and state is not None:
            seconds += dt
            speed = state.base_velocity[:2]
            errors.append(float(np.hypot(*(speed - walker.command[:2]))))
            speeds.append(float(np.hypot(*speed)))
            upright = -projected_gravity(state.orientation[None])[0, 2]
            fell |= bool(upright < 0.5 or state.base_height < 0.15)
            if walker.last.get("seconds") is not None:
                policy_times.append(walker.last["seconds"])
        if log is not None:
            status = {"mode": supervisor.mode, "reason": supervisor.reason,
                      "late": float(loop.lateness_last)}  # fmt: skip
            log.tick(now, tick, state, sent, walker.last if acts else None, status)
        ended = supervisor.reason or ended
        if supervisor.mode is Mode.FAULT and faulted_at is None:
            faulted_at = now
        done = supervisor.mode is Mode.OFF and tick > 0
        damped = faulted_at is not None and now - faulted_at >= supervisor.thresholds.damp
        if done or damped or lost:
            break
    return DeployReport(
        seconds=seconds,
        distance=float(np.sum(speeds)) * dt,
        velocity_error_mean=float(np.mean(errors)) if errors else float("nan"),
        fell=fell,
        fault=supervisor.reason if supervisor.mode is Mode.FAULT else None,
        ended=ended,
        ticks=len(loop.lateness),
        missed=loop.missed(),
        lateness_ms=percentiles(loop.lateness),
        policy_ms=percentiles(np.array(policy_times)),
        log=None,
        log_error=None,
    )


def _command(sent: SafeCommand, tick: int) -> RobotCommand:
    return RobotCommand(
        time.monotonic(), tick, sent.position, sent.velocity, sent.kp, sent.kd, sent.torque
    )


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection takes milliseconds; reference counts suffice for the length of a loop."""
    was = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was:
            gc.enable()
