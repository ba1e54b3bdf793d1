"""A chain of Dynamixel X-series servos, on a serial port, as a Robot.

A thread owns the bus: it writes the goals made of the newest command (`goals.py`), then reads all
servos with one sync read (`states.py`), whenever a command comes and else `rate` times a second.
`read` and `write` never wait.

Without a command for 0.1 s the joints are damped (kp = 0). Without a program, the servos' own bus
watchdog stops them. Base orientation is the identity: the chain is bolted down.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from motoric.control.command import QUANTITIES, MotorCommand
from motoric.hardware.dynamixel import setup, timing
from motoric.hardware.dynamixel.calibration import (
    Show,
    load_calibration,
    record_calibration,
    save_calibration,
)
from motoric.hardware.dynamixel.goals import goals_of, profile_velocity
from motoric.hardware.dynamixel.joints import chain_spec, parse_joint
from motoric.hardware.dynamixel.models import (
    BAUD_RATES,
    HEALTH,
    MODES,
    REGISTERS,
    WATCHDOG,
    WATCHDOG_UNIT,
    from_bytes,
)
from motoric.hardware.dynamixel.states import StateReader, sync_read
from motoric.hardware.dynamixel.timing import HEALTH_EVERY, WATCHDOG_EVERY, most_rate
from motoric.hardware.robot import Array, Robot, RobotError, RobotState

if TYPE_CHECKING:
    from motoric.hardware.dynamixel.bus import Bus

COMMAND_AGE = 0.1  # s a command is obeyed
STATE_AGE = 0.1  # s a state is good enough to compute a torque from
LOST = 0.5  # s without a state until the link counts as lost
GIVE_UP = 5.0  # s after which only configuring again helps
MARGIN = 0.1  # rad a joint may be outside its limits when switched on
OFF_SECONDS = 2.0  # that are spent on switching torque off on a bad line


@dataclass
class Health:
    """Slow readings, [J]: temperature in degrees Celsius, supply voltage in V. NaN: none yet."""

    temperature: Array
    voltage: Array


class DynamixelRobot(Robot):
    """Servos by joint name on one port; see `configs/robot/x_arm6.yaml` for all options.

    mode: of joints that name none; calibration: file, made by `motoric calibrate`
    rate: of the bus and of the control loop, Hz, at most what the bus can hold (`most_rate`)
    latency: s an answer may be late; watchdog: s after which the servos stop by themselves when
    nothing is heard; model: MJCF or URDF to simulate and show it by
    `health` has the slow readings, `misread` counts reads that gave no new state.
    """

    def __init__(
        self,
        name: str,
        port: str,
        joints: dict[str, dict[str, Any]],
        calibration: str,
        baud: int = 1_000_000,
        mode: str = "position",
        rate: float = 100.0,
        latency: float = 0.01,
        watchdog: float = 0.1,
        model: str | None = None,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode: {mode!r}, expected one of {', '.join(MODES)}")
        if not joints:
            raise ValueError("joints: none, expected at least one")
        if baud not in BAUD_RATES:
            raise ValueError(f"baud: {baud}, expected one of {', '.join(map(str, BAUD_RATES))}")
        for key, value, low, high in (
            ("rate", rate, 1, 1000), ("latency", latency, 0.001, 0.1),
            ("watchdog", watchdog, WATCHDOG_UNIT, 127 * WATCHDOG_UNIT),
        ):  # fmt: skip
            if not isinstance(value, int | float) or not low <= value <= high:
                raise ValueError(f"{key}: {value!r}, expected {low} to {high}")
        self.joints = tuple(parse_joint(key, values, mode) for key, values in joints.items())
        ids = [joint.id for joint in self.joints]
        twice = [joint for joint in self.joints if ids.count(joint.id) > 1]
        if twice:
            raise ValueError(f"joints.{twice[1].name}.id: {twice[1].id} is taken")
        self.spec = chain_spec(name, self.joints, model)
        self.port, self.baud, self.latency = port, baud, latency
        self.calibration, self.period = Path(calibration), 1.0 / rate
        self.loop_rate: float = float(rate)
        self.most_rate: float = most_rate(self.joints, baud)
        if rate > self.most_rate:
            raise ValueError(
                f"rate: {rate:g} Hz, {len(ids)} servos at {baud} baud can be written and read "
                f"{self.most_rate:.0f} times a second at most"
            )
        self._watchdog = math.ceil(watchdog / WATCHDOG_UNIT - 1e-9)
        nothing = np.full(len(ids), np.nan)
        self.health = Health(nothing, nothing)
        self._bus: Bus | None = None
        self._lock = threading.Lock()  # of the bus
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._active = False  # goals are sent
        self._powered = False  # torque may be on somewhere
        self._watchdog_at = 0.0  # time to look at the watchdogs
        self._forget()

    def _forget(self) -> None:
        self._states = StateReader(self.joints)
        self._command: tuple[float, MotorCommand] | None = None
        self._error: RobotError | None = None
        self._temperature = np.zeros(0)  # none yet

    @property
    def misread(self) -> int:
        return self._states.misread

    # -- life ---------------------------------------------------------------------------------

    def configure(self) -> None:
        calibrated = load_calibration(self.calibration, self.spec.name, self.joints)
        self._connect()
        try:
            with self._said():
                assert self._bus is not None
                for joint, one in zip(self.joints, calibrated, strict=True):
                    setup.prepare(self._bus, joint, one)
                self._states.find_turns(self._bus, calibrated)
                self._slow_reads = [
                    sync_read(self._bus, self.joints, p) for p in (HEALTH, WATCHDOG)
                ]
                until = time.monotonic() + LOST
                while not self._read_state():
                    if time.monotonic() > until:
                        raise RobotError(f"the servos give no state together on {self.port}")
        except BaseException:
            self.close()
            raise
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, daemon=True, name=self.spec.name)
        self._thread.start()

    def _connect(self) -> None:
        """Open the port and find every servo; torque is off afterwards."""
        try:
            from motoric.hardware.dynamixel.bus import PATIENCE, Bus
        except ImportError as error:
            raise RobotError(
                f"{self.spec.name}: needs {error.name}: pip install 'motoric[dynamixel]'"
            ) from None
        self.close()
        self._forget()
        try:
            with self._said():
                self._bus = Bus(self.port, self.baud, self.latency)
                self._check_adapter(self._bus.port.adapter)
                self._bus.drain()
                setup.find(self._bus, self.joints)
                atexit.register(self.close)
                # A servo that is set to be silent answers nothing but a ping.
                for joint in self.joints * 2:
                    self._bus.send(joint.id, "status_return_level", 2)
                self._bus.drain(PATIENCE)
                setup.check_firmware(self._bus, self.joints)
                for joint in self.joints:
                    self._bus.set(joint.id, "torque_enable", 0)
                    self._bus.set(joint.id, "status_return_level", 2)
                    setup.refuse_errors(joint, self._bus.read(joint.id, "hardware_error_status"))
                self._bus.handler.alerts.clear()
        except BaseException:
            self.close()
            raise

    def _check_adapter(self, latency: float) -> None:
        """What the adapter's latency timer (s; 0: it has none) leaves of the rate."""
        self.most_rate = most_rate(self.joints, self.baud, max(latency, timing.ADAPTER))
        if self.loop_rate > self.most_rate:
            raise RobotError(
                f"rate: {self.loop_rate:g} Hz, the adapter of {self.port} keeps bytes back for "
                f"{1000 * latency:.0f} ms, which leaves {self.most_rate:.0f} Hz: write 1 to its "
                "latency_timer (/sys/class/tty/…/device)"
            )

    @contextlib.contextmanager
    def _said(self) -> Any:
        """Errors name the robot."""
        try:
            yield
        except RobotError as error:
            raise RobotError(f"{self.spec.name}: {error}") from None

    def activate(self) -> None:
        if self._bus is None:
            raise RobotError(f"{self.spec.name}: not connected, configure it first")
        state = self.read()
        for index, joint in enumerate(self.joints):
            q = state.position[index]
            if not joint.lower - MARGIN <= q <= joint.upper + MARGIN:
                raise RobotError(
                    f"{self.spec.name}: {joint.label} is at {q:.2f} rad, outside its limits "
                    f"{joint.lower:.2f} to {joint.upper:.2f}: move it there by hand"
                )
        try:
            with self._lock, self._said():
                self._command = None
                for joint in self.joints:
                    self._bus.write(joint.id, "bus_watchdog", 0)  # clears an old alarm
                    self._bus.write(joint.id, "goal_pwm", joint.pwm_limit)  # may be an older one
                    self._bus.write(joint.id, "profile_acceleration", 0)
                    self._bus.write(joint.id, "profile_velocity", profile_velocity(joint))
                self._send_goals(self._bus)
                self._powered = True
                for joint in self.joints:
                    self._bus.set(joint.id, "torque_enable", 1)
                self._send_goals(self._bus)
                # Last, in one packet: from here on a pause of the bus stops the servos.
                self._set_watchdogs(self._bus)
                self._active, self._watchdog_at = True, 0.0
        except BaseException:
            self.deactivate()
            raise
        self._wake.set()

    def read(self) -> RobotState:
        error, state = self._error, self._states.state
        if error is not None:
            raise error
        if self._bus is None or state is None:
            raise RobotError(f"{self.spec.name}: not connected, configure it first")
        age = time.monotonic() - state.time
        if age > LOST:
            raise RobotError(f"{self.spec.name}: no state from the servos for {age:.1f} s")
        return state

    def write(self, command: MotorCommand) -> None:
        if self._error is not None:
            raise self._error
        if self._bus is None:
            raise RobotError(f"{self.spec.name}: not connected, configure it first")
        values = {}
        for key in QUANTITIES:
            value = np.array(getattr(command, key), np.float64)
            if value.shape != (len(self.joints),) or not np.isfinite(value).all():
                raise RobotError(
                    f"{self.spec.name}: command {key} {value.tolist()}, expected "
                    f"{len(self.joints)} finite numbers"
                )
            values[key] = value
        if (values["kp"] < 0).any() or (values["kd"] < 0).any():
            raise RobotError(f"{self.spec.name}: command with negative gains")
        limits = self.spec.limits
        values["position"] = np.clip(values["position"], limits.lower, limits.upper)
        checked = MotorCommand(**values, time=command.time, sequence=command.sequence)
        self._command = time.monotonic(), checked
        self._wake.set()

    def deactivate(self) -> None:
        """Torque off, confirmed by every servo that can be reached."""
        bus = self._bus
        self._active = False
        if bus is None or not self._powered:
            return
        if not self._lock.acquire(timeout=OFF_SECONDS):
            bus.port.abandoned = True  # the thread hangs in a transfer: it ends with an error
            if not self._lock.acquire(timeout=OFF_SECONDS):
                return
            bus.port.abandoned = False
        try:
            self._powered = not self._torque_off(bus)
        finally:
            self._lock.release()

    def _torque_off(self, bus: Bus) -> bool:
        """Whether all servos confirmed it."""
        left = [joint.id for joint in self.joints]
        with contextlib.suppress(RobotError):  # a port that is gone: the bus watchdog stops them
            for _ in range(2):  # all at once first, then each until it confirms
                for id in left:
                    bus.send(id, "torque_enable", 0)
                bus.drain()
            until = time.monotonic() + OFF_SECONDS
            while left and time.monotonic() < until:
                for id in list(left):
                    try:
                        bus.set(id, "torque_enable", 0, tries=1)
                    except RobotError as error:
                        if "is gone" in str(error):
                            raise
                    else:
                        left.remove(id)
        return not left

    def close(self) -> None:
        atexit.unregister(self.close)
        self.deactivate()
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(2 * OFF_SECONDS)
            self._thread = None
        if self._bus is not None:
            self._bus.close()
            self._bus = None

    # -- the bus thread -----------------------------------------------------------------------

    def _run(self) -> None:
        self.realtime.enter(above=-1)
        health_at, ended = 0.0, time.monotonic()
        while not self._stop.is_set():
            began = time.monotonic()
            if began - ended > 0.5 * self._watchdog * WATCHDOG_UNIT:  # a pause: did one bite?
                self._watchdog_at = 0.0
            try:
                with self._lock, self._said():
                    bus = self._bus
                    if bus is None:
                        return
                    if self._active:
                        self._send_goals(bus)
                    self._read_state()
                    if self._active and began >= self._watchdog_at:
                        self._check_watchdogs(bus, began)
                    if began >= health_at:
                        health_at = began + HEALTH_EVERY
                        self._read_health(bus)
                    if bus.handler.alerts:
                        self._look_into_alerts(bus)
            except RobotError as error:
                self._error = error
                return
            ended = time.monotonic()
            state = self._states.state
            if state is not None and began - state.time > GIVE_UP:
                age = began - state.time
                self._error = RobotError(
                    f"{self.spec.name}: no state from the servos for {age:.0f} s, configure again"
                )
                return
            # Commands that come at this rate or faster set the pace: half a period's grace.
            newest = self._command
            paced = newest is not None and began - newest[0] < self.period
            due = began + (1.5 if paced and self._active else 1.0) * self.period
            self._wake.wait(max(0.0, due - time.monotonic()))
            self._wake.clear()

    def _read_state(self) -> bool:
        assert self._bus is not None
        return self._states.read(self._bus, self._temperature)

    def _read_health(self, bus: Bus) -> None:
        import dynamixel_sdk as sdk

        group = self._slow_reads[0]
        if bus.transfer(group.txRxPacket) != sdk.COMM_SUCCESS:
            bus.resync()
            return
        data = [bytes(group.data_dict[joint.id]) for joint in self.joints]
        self.health = Health(
            np.array([float(d[2]) for d in data]),
            np.array([int.from_bytes(d[:2], "little") / 10 for d in data]),
        )
        self._temperature = self.health.temperature

    def _set_watchdogs(self, bus: Bus) -> None:
        from dynamixel_sdk import GroupSyncWrite

        group = GroupSyncWrite(bus.port, bus.handler, *WATCHDOG)
        for joint in self.joints:
            group.addParam(joint.id, [self._watchdog])
        bus.transfer(group.txPacket)

    def _check_watchdogs(self, bus: Bus, now: float) -> None:
        """All of them run; one that has stopped its servo takes no more goals: an error."""
        import dynamixel_sdk as sdk

        group = self._slow_reads[1]
        if bus.transfer(group.txRxPacket) != sdk.COMM_SUCCESS:
            bus.resync()
            return
        values = [from_bytes(REGISTERS["bus_watchdog"], group.data_dict[j.id]) for j in self.joints]
        stopped = [joint for joint, value in zip(self.joints, values, strict=True) if value < 0]
        if stopped:
            raise RobotError(
                f"{stopped[0].label} was stopped by its bus watchdog: it heard nothing for "
                f"{self._watchdog * WATCHDOG_UNIT:.2g} s"
            )
        if any(value != self._watchdog for value in values):  # that write was lost
            self._set_watchdogs(bus)
        else:
            self._watchdog_at = now + WATCHDOG_EVERY

    def _look_into_alerts(self, bus: Bus) -> None:
        alerts = [joint for joint in self.joints if joint.id in bus.handler.alerts]
        bus.handler.alerts.clear()
        for joint in alerts:
            setup.refuse_errors(joint, bus.read(joint.id, "hardware_error_status"))

    # -- goals --------------------------------------------------------------------------------

    def _send_goals(self, bus: Bus) -> None:
        """Goals of all servos in one packet: with one CRC, all of it arrives or nothing."""
        from dynamixel_sdk import GroupBulkWrite, GroupSyncWrite

        goals = self._goals(time.monotonic())
        places = {(address, len(data)) for address, data in goals}
        if len(places) == 1:
            group = GroupSyncWrite(bus.port, bus.handler, *places.pop())
            for joint, (_, data) in zip(self.joints, goals, strict=True):
                group.addParam(joint.id, list(data))
        else:
            group = GroupBulkWrite(bus.port, bus.handler)
            for joint, (address, data) in zip(self.joints, goals, strict=True):
                group.addParam(joint.id, address, len(data), list(data))
        bus.transfer(group.txPacket)

    def _goals(self, now: float) -> list[tuple[int, bytes]]:
        """Of all servos, from the newest command and state."""
        state, newest = self._states.state, self._command
        assert state is not None
        command = newest[1] if newest is not None and now - newest[0] <= COMMAND_AGE else None
        fresh = now - state.time <= STATE_AGE
        return goals_of(self.joints, self._states.zero, state, fresh, command)

    # -- calibration --------------------------------------------------------------------------

    def calibrate(
        self,
        ready: Callable[[], None],
        finished: Callable[[], bool],
        show: Show = lambda ranges: None,
    ) -> Path:
        """Record zero and range of every joint, moved by hand with torque off; returns the file.

        See `record_calibration`. Raises RobotError, leaving an older file as it is, where a range
        is not that of the limits.
        """
        self._connect()
        try:
            with self._said():
                assert self._bus is not None
                found = record_calibration(self._bus, self.joints, ready, finished, show)
                save_calibration(self.calibration, self.spec.name, found)
                return self.calibration
        finally:
            self.close()
