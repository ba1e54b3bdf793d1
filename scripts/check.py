"""Watch a robot with its motors off: `motoric check robot=…`. Nothing is ever commanded.

Move its joints by hand, one by one: each line says which joint moved, and which way by its sign.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from motoric.configs.commands import Check
from motoric.control import rotation
from motoric.control.loop import RateLoop
from motoric.control.supervisor import Supervisor
from motoric.hardware.drivers import make_robot
from motoric.hardware.robot import Array, Robot, RobotError, RobotSpec, RobotState
from motoric.scripts.config import UserError
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

POLL = 500.0  # Hz
SHOW = 0.1  # s between two pictures
MOVED = 0.1  # rad from one turning point to the next that count as a movement
BACK = 0.03  # rad back that make a turning point
REST = 0.5  # s at rest that make one too
COUNTED = ("misread", "damaged", "rejected", "late", "stale")  # what drivers count of a bad link


class Moves:
    """Movements of joints as they end: which one, and how far in rad, with its sign."""

    def __init__(self, joints: tuple[str, ...]) -> None:
        self.joints = joints
        self.all: list[tuple[str, float]] = []
        self._start: Array | None = None

    def add(self, now: float, position: Array) -> list[tuple[str, float]]:
        """The movements that have ended since the last call."""
        if self._start is None:
            self._start, self._far = position.copy(), position.copy()
            self._since = np.full(len(position), now)
        assert self._start is not None
        gone, more = self._far - self._start, position - self._far
        further = (gone * more > 0) | ((np.abs(gone) < BACK) & (np.abs(more) > 1e-9))
        self._far = np.where(further, position, self._far)
        self._since = np.where(further, now, self._since)
        ended = ~further & ((np.abs(more) > BACK) | (now - self._since > REST))
        found = []
        for index in np.flatnonzero(ended):
            length = float(self._far[index] - self._start[index])
            if abs(length) > MOVED:
                found.append((self.joints[index], length))
            self._start[index] = self._far[index] if abs(length) > MOVED else position[index]
            self._far[index], self._since[index] = position[index], now
        self.all += found
        return found


class Watch:
    """What has been seen of a robot so far."""

    def __init__(self, robot: Robot, now: float) -> None:
        self.robot, self.spec, self.moves = robot, robot.spec, Moves(robot.spec.joints)
        self.began = self.newest = now
        self.states, self.gap = 0, 0.0
        self.state: RobotState | None = None

    def look(self, now: float) -> list[tuple[str, float]]:
        """Read the robot; the movements that have ended. Raises RobotError when it is lost."""
        state = self.robot.read()
        if self.state is not None and state.sequence == self.state.sequence:
            self.gap = max(self.gap, now - self.newest)
            return []
        if self.state is None:
            self.low, self.high, self.began = state.position.copy(), state.position.copy(), now
        else:
            self.gap = max(self.gap, now - self.newest)
            self.states += 1
        self.state, self.newest = state, now
        self.low = np.minimum(self.low, state.position)
        self.high = np.maximum(self.high, state.position)
        return self.moves.add(now, state.position)

    def problem(self) -> str | None:
        """What the supervisor would say to start from the present state."""
        spec = self.spec
        supervisor = Supervisor(
            spec.limits, spec.stand, spec.rest, spec.kp, spec.kd, spec.damping, 0.02
        )
        assert self.state is not None
        supervisor.start(self.newest, self.state)
        return _named(supervisor.reason, spec) or None

    def table(self) -> Table:
        """A line for each joint."""
        state, limits = self.state, self.spec.limits
        assert state is not None
        table = Table(box=None, pad_edge=False)
        table.add_column("joint")
        for name in ("rad", "seen from", "to", "limits from", "to", "rad/s", "N m", "°C"):
            table.add_column(name, justify="right")
        warm = state.temperature if len(state.temperature) else np.full(len(self.low), np.nan)
        for i, joint in enumerate(self.spec.joints):
            numbers = (state.position[i], self.low[i], self.high[i], limits.lower[i],
                       limits.upper[i], state.velocity[i], state.torque[i])  # fmt: skip
            degrees = f"{warm[i]:.0f}" if np.isfinite(warm[i]) else "–"
            table.add_row(joint, *(f"{round(n, 2) + 0.0:.2f}" for n in numbers), degrees)
        return table

    def lines(self) -> Iterator[str]:
        """Base, battery, link, supervisor."""
        state = self.state
        assert state is not None
        turns = ", ".join(f"{round(v, 2) + 0.0:.2f}" for v in state.angular_velocity)
        roll, pitch, yaw = np.degrees(rotation.to_euler(state.orientation))
        tilt = f"roll {roll:.1f}, pitch {pitch:.1f}, yaw {yaw:.1f} degrees"
        yield f"base: {tilt}; turns at {turns} rad/s"
        if np.isfinite(state.battery):
            yield f"battery: {state.battery:.0f} %"
        rate = self.states / max(self.newest - self.began, 1e-9)
        counts = [
            f"{name} {getattr(self.robot, name)}" for name in COUNTED if hasattr(self.robot, name)
        ]
        delay = getattr(self.robot, "delay", None)
        if delay is not None:
            counts.append(f"at most {1e3 * delay:.0f} ms old")
        text = f"states: {rate:.0f} a second, the longest wait {1e3 * self.gap:.0f} ms"
        yield "; ".join([text, *counts])
        yield f"supervisor: {self.problem() or 'would start from here'}"


def _named(reason: str, spec: RobotSpec) -> str:
    """The joint's name in place of its number."""
    head, found, rest = reason.partition("joint ")
    number, colon, rest = rest.partition(":")
    if found and not head and number.isdecimal():
        return f"{spec.joints[int(number)]}{colon}{rest}"
    return reason


def check(settings: Check, say: Callable[[str], None] = print) -> int:
    """Watch until Ctrl-C or for `duration` s; returns the exit code, 1 when the robot was lost."""
    try:
        robot = make_robot(settings.robot.driver, **settings.robot.options)
    except (ValueError, TypeError) as error:
        raise UserError(f"robot: {error}") from None
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    lost = None
    try:
        try:
            robot.configure()
        except RobotError as error:
            raise UserError(str(error).split("\n")[0]) from None
        say(f"{robot.spec.name}: motors off, move its joints by hand (Ctrl-C ends)")
        watch = Watch(robot, time.monotonic())
        try:
            _look(watch, settings.duration, say)
        except KeyboardInterrupt:
            pass
        except RobotError as error:
            lost = str(error)
        if watch.state is not None:
            console = Console(width=max(100, Console().width))
            console.print(watch.table())
            for line in watch.lines():
                say(line)
    finally:
        robot.close()
        signal.signal(signal.SIGTERM, previous)
    if lost is not None:
        print(f"motoric check: {lost}", file=sys.stderr)
    return 0 if lost is None else 1


def _look(watch: Watch, duration: float | None, say: Callable[[str], None]) -> None:
    ticks = None if duration is None else round(duration * POLL)
    loop = RateLoop(POLL, ticks, spin=0.0)
    if not sys.stdout.isatty():
        for _ in loop:
            for joint, length in watch.look(time.monotonic()):
                say(f"  {joint} {length:+.2f} rad")
        return
    shown = 0.0
    with Live(transient=True, auto_refresh=False) as live:
        for _ in loop:
            now = time.monotonic()
            for joint, length in watch.look(now):
                live.console.print(f"  {joint} {length:+.2f} rad")
            if now - shown > SHOW and watch.state is not None:
                shown = now
                picture: list[Any] = [watch.table(), *watch.lines()]
                live.update(Group(*picture), refresh=True)


def run(settings: Check, say: Callable[[str], None]) -> int:
    """`motoric check`."""
    return check(settings, say)


if __name__ == "__main__":
    from motoric.scripts.cli import main

    sys.exit(main(["check", *sys.argv[1:]]))
