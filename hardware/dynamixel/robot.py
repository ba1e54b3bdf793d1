"""A chain of Dynamixel X-series servos, on a serial port, as a Robot.

A thread owns the bus: it writes the goals made of the newest command, then reads all servos with
one sync read, whenever a command comes and else `rate` times a second. `read` and `write` never
wait.

What a mode makes of tau = kp (q* - q) + kd (dq* - dq) + tau_ff:

    current            the thread computes tau from the newest state, clips it and sends a current
    velocity           dq* + (kp (q* - q) + tau_ff) / kd; zero where kp and kd are zero
    position,          q*, held by the servo's own gains. Where kp is zero the goal follows the
    extended_position  measured position: the servo resists motion and holds nothing
    current_position   the same, with at most the torque limit's current

Without a command for 0.1 s the joints are damped (kp = 0). Without a program, the servos' own bus
watchdog stops them. Base orientation is the identity: the chain is bolted down.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from motoric.control.command import MotorCommand
from motoric.control.limits import JointLimits
from motoric.hardware.dynamixel import timing
from motoric.hardware.dynamixel.models import (
    ANGLE,
    BAUD_RATES,
    HARDWARE_ERRORS,
    MODELS,
    MODES,
    NUMBERS,
    PWM_FULL,
    REGISTERS,
    RESOLUTION,
    SPEED,
    WATCHDOG_UNIT,
    Model,
    from_bytes,
    to_bytes,
)
from motoric.hardware.robot import Array, Robot, RobotError, RobotSpec, RobotState

if TYPE_CHECKING:
    from motoric.hardware.dynamixel.bus import Bus

FORMAT = "motoric-calibration/1"
COMMAND_AGE = 0.1  # s a command is obeyed
STATE_AGE = 0.1  # s a state is good enough to compute a torque from
LOST = 0.5  # s without a state until the link counts as lost
GIVE_UP = 5.0  # s after which only configuring again helps
MARGIN = 0.1  # rad a joint may be outside its limits when switched on
HEALTH_EVERY = 0.5  # s between readings of temperature and voltage
WATCHDOG_EVERY = 0.2  # s between looks at the bus watchdogs
OFF_SECONDS = 2.0  # that are spent on switching torque off on a bad line
TICK_SLACK = (0.003, 0.03)  # s, and share, by which a servo's clock may differ between two reads
STATE = (REGISTERS["realtime_tick"].address, 16)  # tick … present position, with no gap
HEALTH = (REGISTERS["present_input_voltage"].address, 3)
WATCHDOG = (REGISTERS["bus_watchdog"].address, 1)
POSITION_MODES = ("position", "extended_position", "current_position")
CURRENT_MODES = ("current", "current_position")  # the only ones in which Current Limit acts
GOAL_BYTES = {
    "position": 4, "extended_position": 4, "current_position": 18, "velocity": 4, "current": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Joint:
    """One servo of the chain, as configured.

    lower, upper: rad; velocity: rad/s; torque: N m; target_rate: rad/s; kp, kd: N m/rad, N m s/rad
    direction: 1, or -1 where the joint counts against the servo; stand, rest: rad
    """

    name: str
    id: int
    model: Model
    mode: str
    lower: float
    upper: float
    velocity: float
    torque: float
    target_rate: float
    kp: float
    kd: float
    direction: int
    stand: float
    rest: float

    @property
    def label(self) -> str:
        return f"joint {self.name} (id {self.id})"

    @property
    def pwm_limit(self) -> int:
        """Counts of PWM that keep its torque at standstill within the limit."""
        return math.floor(PWM_FULL * voltage_share(self.model, self.mode, self.torque))


@dataclass(frozen=True)
class Calibrated:
    """Where a joint is on its servo: counts at zero, and at the ends of its range, one turn long
    or less; zero within the first turn."""

    id: int
    model: str
    homing: int
    direction: int
    lower: int
    upper: int


@dataclass
class Health:
    """Slow readings, [J]: temperature in degrees Celsius, supply voltage in V. NaN: none yet."""

    temperature: Array
    voltage: Array


KEYS = ("id", "model", "mode", "lower", "upper", "velocity", "torque", "target_rate", "kp", "kd",
        "direction", "stand", "rest")  # fmt: skip


def voltage_share(model: Model, mode: str, torque: float) -> float:
    """Share of the full voltage that a joint may have for its torque limit, N m.

    Where no current is limited the voltage bounds the torque at standstill, and with it the speed
    without load: both are this share of the model's.
    """
    return 1.0 if mode in CURRENT_MODES else torque / model.stall_torque


def parse_joint(name: str, values: dict[str, Any], mode: str) -> Joint:
    """A joint from its configuration. Raises ValueError naming the key."""
    at = f"joints.{name}"
    if not isinstance(values, dict):
        raise ValueError(f"{at}: {values!r}, expected keys such as id and model")
    for key in values:
        if key not in KEYS:
            raise ValueError(f"{at}.{key}: no such key, expected one of {', '.join(KEYS)}")
    for key in ("id", "model", "lower", "upper"):
        if key not in values:
            raise ValueError(f"{at}.{key}: missing")
    if values["model"] not in MODELS:
        raise ValueError(
            f"{at}.model: {values['model']!r} is unknown, expected one of {', '.join(MODELS)}"
        )
    model = MODELS[values["model"]]
    chosen = values.get("mode", mode)
    if chosen not in model.modes:
        raise ValueError(
            f"{at}.mode: a {model.name} has no mode {chosen!r}, expected one of "
            f"{', '.join(model.modes)}"
        )
    id = values["id"]
    if isinstance(id, bool) or not isinstance(id, int) or not 0 <= id <= 252:
        raise ValueError(f"{at}.id: {id!r}, expected a number from 0 to 252")

    def number(key: str, default: float) -> float:
        value = values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise ValueError(f"{at}.{key}: {value!r}, expected a finite number")
        return float(value)

    lower, upper = number("lower", 0.0), number("upper", 0.0)
    if not lower < upper or upper - lower >= 2 * math.pi:
        raise ValueError(f"{at}: lower {lower} and upper {upper}, expected less than a turn apart")
    stand = number("stand", min(max(0.0, lower), upper))
    rest = number("rest", stand)
    for key, value in (("stand", stand), ("rest", rest)):
        if not lower <= value <= upper:
            raise ValueError(f"{at}.{key}: {value}, expected {lower} to {upper}")
    torque, velocity = number("torque", 0.5 * model.stall_torque), number("velocity", model.speed)
    for key, value, most in (
        ("torque", torque, model.stall_torque), ("velocity", velocity, model.speed),
    ):  # fmt: skip
        if not 0 < value <= most:
            raise ValueError(f"{at}.{key}: {value}, expected above 0, at most {most:.3g}")
    reached = model.speed * voltage_share(model, chosen, torque)
    rate = number("target_rate", 0.5 * min(velocity, reached))
    kp, kd = number("kp", 5 * torque), number("kd", 0.3 * torque)
    for key, value in (("target_rate", rate), ("kp", kp), ("kd", kd)):
        if value <= 0:
            raise ValueError(f"{at}.{key}: {value}, expected more than 0")
    direction = values.get("direction", 1)
    if direction not in (1, -1):
        raise ValueError(f"{at}.direction: {direction!r}, expected 1 or -1")
    return Joint(
        name, id, model, chosen, lower, upper, velocity, torque, rate, kp, kd, direction, stand,
        rest,
    )  # fmt: skip


def chain_spec(name: str, joints: tuple[Joint, ...]) -> RobotSpec:
    def array(key: str) -> Array:
        return np.array([getattr(joint, key) for joint in joints])

    return RobotSpec(
        name=name,
        joints=tuple(joint.name for joint in joints),
        limits=JointLimits(*map(array, ("lower", "upper", "velocity", "torque", "target_rate"))),
        stand=array("stand"),
        rest=array("rest"),
        kp=array("kp"),
        kd=array("kd"),
        damping=array("kd"),
    )


def most_rate(joints: tuple[Joint, ...], baud: int, adapter: float = timing.ADAPTER) -> float:
    """How often a second the goals can be written and the states read, Hz.

    adapter: s it may keep bytes back. The slow reads of health and watchdogs go off it.
    """
    count, modes = len(joints), [joint.mode for joint in joints]
    same = len({m.removeprefix("extended_") for m in modes}) == 1
    cycle = timing.write_seconds([GOAL_BYTES[m] for m in modes], same, baud)
    cycle += timing.read_seconds(count, STATE[1], baud, adapter)
    slow = ((HEALTH, HEALTH_EVERY), (WATCHDOG, WATCHDOG_EVERY))
    return timing.most_cycles(
        cycle,
        [(timing.read_seconds(count, place[1], baud, adapter), every) for place, every in slow],
    )


# ---------------------------------------------------------------------------------------------
# Calibration
# ---------------------------------------------------------------------------------------------


def save_calibration(path: Path, name: str, found: dict[str, Calibrated]) -> None:
    """Write a calibration in place of any older one; a crash leaves the old or the new."""
    joints = {joint: dataclasses.asdict(values) for joint, values in found.items()}
    text = json.dumps({"format": FORMAT, "robot": name, "joints": joints}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, new = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(new, 0o644)
        os.replace(new, path)
    except BaseException:
        Path(new).unlink(missing_ok=True)
        raise


def load_calibration(path: Path, name: str, joints: tuple[Joint, ...]) -> tuple[Calibrated, ...]:
    """Read a calibration and check it against the configured joints. Raises RobotError."""
    at = f"calibration {path}"
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise RobotError(f"{at} is missing: make it with motoric calibrate robot={name}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RobotError(f"{at} can't be read: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RobotError(f"{at}: not a calibration, expected format {FORMAT!r}")
    if content.get("robot") != name:
        raise RobotError(f"{at}: is of robot {content.get('robot')!r}, expected {name!r}")
    entries = content.get("joints")
    names = [joint.name for joint in joints]
    if not isinstance(entries, dict) or list(entries) != names:
        got = list(entries) if isinstance(entries, dict) else entries
        raise RobotError(f"{at}: joints {got}, expected {names}")
    result = []
    for joint in joints:
        entry, where = entries[joint.name], f"{at}: {joint.name}"
        keys = [field.name for field in dataclasses.fields(Calibrated)]
        if not isinstance(entry, dict) or sorted(entry) != sorted(keys):
            raise RobotError(f"{where}: expected the keys {', '.join(keys)}")
        for key in ("homing", "direction", "lower", "upper"):
            if isinstance(entry[key], bool) or not isinstance(entry[key], int):
                raise RobotError(f"{where}.{key}: {entry[key]!r}, expected a whole number")
        one = Calibrated(**entry)
        for key, value, want in (
            ("id", one.id, joint.id), ("model", one.model, joint.model.name),
            ("direction", one.direction, joint.direction),
        ):  # fmt: skip
            if value != want:
                raise RobotError(f"{where}.{key}: {value!r}, the configuration has {want!r}")
        problem = calibration_problem(joint, one)
        if problem is not None:
            raise RobotError(f"{where}: {problem}")
        result.append(one)
    return tuple(result)


def calibration_problem(joint: Joint, one: Calibrated) -> str | None:
    """What is wrong with a calibration, or None."""
    if not 0 <= one.homing < RESOLUTION:
        return f"homing {one.homing}, expected 0 to {RESOLUTION - 1}"
    if not 0 < one.upper - one.lower <= RESOLUTION:
        return f"range {one.lower} to {one.upper} counts, expected at most one turn"
    ends = sorted(one.direction * (end - one.homing) * ANGLE for end in (one.lower, one.upper))
    if joint.lower < ends[0] or joint.upper > ends[1]:
        return (
            f"moved from {ends[0]:.3f} to {ends[1]:.3f} rad, which does not reach its limits "
            f"{joint.lower:.3f} to {joint.upper:.3f}"
        )
    needed = [one.homing + one.direction * q / ANGLE for q in (joint.lower, joint.upper)]
    if joint.mode == "position" and not (min(needed) >= 0 and max(needed) <= RESOLUTION - 1):
        return "its limits cross the end of the servo's turn, choose mode extended_position"
    return None


# ---------------------------------------------------------------------------------------------
# The robot
# ---------------------------------------------------------------------------------------------


class DynamixelRobot(Robot):
    """Servos by joint name on one port; see `configs/robot/x_arm6.yaml` for all options.

    mode: of joints that name none; calibration: file, made by `motoric calibrate`
    rate: of the bus and of the control loop, Hz, at most what the bus can hold (`most_rate`)
    latency: s an answer may be late; watchdog: s after which the servos stop by themselves when
    nothing is heard
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
        self.spec = chain_spec(name, self.joints)
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
        self.health, self.misread = Health(nothing, nothing), 0
        self._sign = np.array([joint.direction for joint in self.joints], np.float64)
        self._torque_unit = np.array([joint.model.torque_unit for joint in self.joints])
        self._zero = np.zeros(len(ids))  # counts at joint position 0, turns included
        self._bus: Bus | None = None
        self._lock = threading.Lock()  # of the bus
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._active = False  # goals are sent
        self._powered = False  # torque may be on somewhere
        self._watchdog_at = 0.0  # time to look at the watchdogs
        self._forget()

    def _forget(self) -> None:
        self._state: RobotState | None = None
        self._command: tuple[float, MotorCommand] | None = None
        self._error: RobotError | None = None
        self._ticks: tuple[float, float, list[int]] | None = None
        self._sequence = 0
        self._temperature = np.zeros(0)  # none yet

    # -- life ---------------------------------------------------------------------------------

    def configure(self) -> None:
        calibrated = load_calibration(self.calibration, self.spec.name, self.joints)
        self._connect()
        try:
            with self._said():
                for joint, one in zip(self.joints, calibrated, strict=True):
                    self._prepare(joint, one)
                self._find_turns(calibrated)
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
                self._find(self._bus)
                atexit.register(self.close)
                # A servo that is set to be silent answers nothing but a ping.
                for joint in self.joints * 2:
                    self._bus.send(joint.id, "status_return_level", 2)
                self._bus.drain(PATIENCE)
                self._check_firmware(self._bus)
                for joint in self.joints:
                    self._bus.set(joint.id, "torque_enable", 0)
                    self._bus.set(joint.id, "status_return_level", 2)
                    self._refuse_errors(joint, self._bus.read(joint.id, "hardware_error_status"))
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

    def _find(self, bus: Bus) -> None:
        """By ping alone: every servo answers, as the model it should be."""
        numbers = {joint.id: bus.ping(joint.id, tries=2) for joint in self.joints}
        for id, number in numbers.items():
            if number is None and any(numbers.values()):  # a bad line, or a servo too few
                numbers[id] = bus.ping(id)
        there = [id for id, number in numbers.items() if number is not None]
        if not there:
            rate = bus.answering_rate(self.joints[0].id)
            hint = "check power and cable"
            if rate is not None:
                hint = f"servo {self.joints[0].id} answers at {rate}: set robot.options.baud={rate}"
            raise RobotError(f"no servo answers on {self.port} at {self.baud} baud: {hint}")
        for joint in self.joints:
            number = numbers[joint.id]
            if number is None:
                found = ", ".join(map(str, there))
                raise RobotError(f"{joint.label} does not answer on {self.port}; found: {found}")
            if number != joint.model.number:
                known = NUMBERS.get(number)
                what = f"model {number}" if known is None else known.name
                raise RobotError(f"{joint.label} is a {what}, expected {joint.model.name}")

    def _check_firmware(self, bus: Bus) -> None:
        for joint in self.joints:
            firmware = bus.read(joint.id, "firmware_version")
            if firmware < joint.model.firmware:
                raise RobotError(
                    f"{joint.label} has firmware {firmware}, expected {joint.model.firmware} or "
                    "later: it has no bus watchdog"
                )

    def _refuse_errors(self, joint: Joint, status: int) -> None:
        if status:
            words = [text for bit, text in HARDWARE_ERRORS.items() if status >> bit & 1]
            text = ", ".join(words) or f"hardware error {status}"
            raise RobotError(f"{joint.label}: {text}; it stays off until its power is cycled")

    def _prepare(self, joint: Joint, one: Calibrated) -> None:
        """Everything the servo must hold before torque may come on."""
        assert self._bus is not None
        model = joint.model
        wanted = {
            "drive_mode": 0,  # not reversed, torque not switched on by a goal
            "operating_mode": MODES[joint.mode],
            "startup_configuration": 0,
            "return_delay_time": 0,
            "homing_offset": 0,
            "velocity_limit": min(model.max_velocity, math.ceil(joint.velocity / SPEED)),
            "pwm_limit": joint.pwm_limit,
        }
        if model.current_unit is not None:
            wanted["current_limit"] = self._current(joint)
        if joint.mode == "position":
            ends = [one.homing + one.direction * q / ANGLE for q in (joint.lower, joint.upper)]
            wanted["min_position_limit"] = math.floor(min(ends))
            wanted["max_position_limit"] = min(math.ceil(max(ends)), RESOLUTION - 1)
        for name, value in wanted.items():
            self._bus.set(joint.id, name, value)

    def _current(self, joint: Joint) -> int:
        """The torque limit in counts of current."""
        return min(joint.model.max_current, math.floor(joint.torque / joint.model.torque_unit))

    def _find_turns(self, calibrated: tuple[Calibrated, ...]) -> None:
        """First state. A servo forgets whole turns without power: they follow from the range."""
        assert self._bus is not None
        from dynamixel_sdk import GroupSyncRead

        port, handler = self._bus.port, self._bus.handler
        self._reads = tuple(
            GroupSyncRead(port, handler, *place) for place in (STATE, HEALTH, WATCHDOG)
        )
        for group in self._reads:
            for joint in self.joints:
                group.addParam(joint.id)
        for joint_index, (joint, one) in enumerate(zip(self.joints, calibrated, strict=True)):
            counts = self._bus.read(joint.id, "present_position")
            middle = (one.lower + one.upper) / 2
            turns = 0 if joint.mode == "position" else round((counts - middle) / RESOLUTION)
            self._zero[joint_index] = one.homing + turns * RESOLUTION
        until = time.monotonic() + LOST
        while not self._read_state():
            if time.monotonic() > until:
                raise RobotError(f"the servos give no state together on {self.port}")

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
                    self._bus.write(joint.id, "profile_velocity", self._profile(joint))
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

    def _profile(self, joint: Joint) -> int:
        return min(max(1, math.floor(joint.velocity / SPEED)), 32767)

    def read(self) -> RobotState:
        error, state = self._error, self._state
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
        for key in ("position", "velocity", "kp", "kd", "torque"):
            value = np.array(getattr(command, key), np.float64)
            if value.shape != self._zero.shape or not np.isfinite(value).all():
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
            state = self._state
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
        """One sync read; a new state if every servo gave a good answer to this very question."""
        import dynamixel_sdk as sdk

        bus, group = self._bus, self._reads[0]
        assert bus is not None
        before = time.monotonic()
        result = bus.transfer(group.txRxPacket)
        after = time.monotonic()
        if result != sdk.COMM_SUCCESS:
            self.misread += 1
            bus.resync()
            return False
        values = [self._values(group.data_dict[joint.id]) for joint in self.joints]
        ticks = [value["realtime_tick"] for value in values]
        if not self._answers_this(before, after, ticks):
            self.misread += 1
            bus.resync()
            return False
        self._ticks = before, after, ticks
        counts = np.array([value["present_position"] for value in values])
        speeds = np.array([value["present_velocity"] for value in values])
        currents = np.array([value["present_current"] for value in values])
        self._sequence += 1
        self._state = RobotState(
            time=before,
            sequence=self._sequence,
            position=self._sign * (counts - self._zero) * ANGLE,
            velocity=self._sign * speeds * SPEED,
            torque=self._sign * currents * self._torque_unit,
            orientation=np.array([1.0, 0.0, 0.0, 0.0]),
            angular_velocity=np.zeros(3),
            temperature=self._temperature,
        )
        return True

    @staticmethod
    def _values(data: list[int]) -> dict[str, int]:
        found = {}
        for name in ("realtime_tick", "present_current", "present_velocity", "present_position"):
            register = REGISTERS[name]
            at = register.address - STATE[0]
            found[name] = from_bytes(register, data[at : at + register.size])
        return found

    def _answers_this(self, before: float, after: float, ticks: list[int]) -> bool:
        """Whether the servos' own clocks say that all answers are from now.

        Protocol 2.0 does not number questions: the answer to one that was given up may come as
        the answer to the next. Since the last state each clock must have moved on as ours did.
        """
        if self._ticks is None:
            return True
        earlier_before, earlier_after, earlier = self._ticks
        slack = TICK_SLACK[0] + TICK_SLACK[1] * (after - earlier_before)
        least, most = before - earlier_after - slack, after - earlier_before + slack
        for now, then in zip(ticks, earlier, strict=True):
            moved = ((now - then + 1000) % 32768 - 1000) / 1000
            if not least <= moved <= most:
                return False
        return True

    def _read_health(self, bus: Bus) -> None:
        import dynamixel_sdk as sdk

        group = self._reads[1]
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

        group = self._reads[2]
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
            self._refuse_errors(joint, bus.read(joint.id, "hardware_error_status"))

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
        """Address and bytes to write, per joint, from the newest command and state."""
        state, newest = self._state, self._command
        assert state is not None
        command = newest[1] if newest is not None and now - newest[0] <= COMMAND_AGE else None
        fresh = now - state.time <= STATE_AGE
        goals = []
        for index, joint in enumerate(self.joints):
            q, dq = state.position[index], state.velocity[index]
            # Without a command: damped.
            target, speed, kp, kd, torque = q, 0.0, 0.0, joint.kd, 0.0
            if command is not None:
                target, speed = command.position[index], command.velocity[index]
                kp, kd, torque = command.kp[index], command.kd[index], command.torque[index]
            if joint.mode in POSITION_MODES:
                goals.append(self._position_goal(joint, index, target if kp > 0 else q))
                continue
            if joint.mode == "velocity":
                # A fault's damping has kp = 0: the servo is told to stand still.
                pull = (kp * (target - q) + torque) / kd if kd > 0 else 0.0
                wish = min(max(speed + pull, -joint.velocity), joint.velocity)
                unit, name = SPEED, "goal_velocity"
            else:
                # Gains above the configured ones would shake the joint at the bus's rate.
                kp, kd = min(kp, joint.kp), min(kd, joint.kd)
                wish = kp * (target - q) + kd * (speed - dq) + torque
                wish = min(max(wish, -joint.torque), joint.torque)
                unit, name = joint.model.torque_unit, "goal_current"
            outward = (q >= joint.upper and wish > 0) or (q <= joint.lower and wish < 0)
            if not fresh or (outward and (joint.mode == "velocity" or wish * dq >= 0)):
                wish = 0.0
            register = REGISTERS[name]
            counts = math.trunc(joint.direction * wish / unit)
            goals.append((register.address, to_bytes(register, counts)))
        return goals

    def _position_goal(self, joint: Joint, index: int, target: float) -> tuple[int, bytes]:
        target = min(max(target, joint.lower), joint.upper)
        counts = int(self._zero[index]) + round(joint.direction * target / ANGLE)
        goal = to_bytes(REGISTERS["goal_position"], counts)
        if joint.mode != "current_position":
            return REGISTERS["goal_position"].address, goal
        # Current, velocity, profile and position lie side by side.
        values = {
            "goal_current": self._current(joint), "goal_velocity": 0, "profile_acceleration": 0,
            "profile_velocity": self._profile(joint),
        }  # fmt: skip
        data = b"".join(to_bytes(REGISTERS[name], value) for name, value in values.items())
        return REGISTERS["goal_current"].address, data + goal

    # -- calibration --------------------------------------------------------------------------

    def calibrate(
        self,
        ready: Callable[[], None],
        finished: Callable[[], bool],
        show: Callable[[dict[str, tuple[float, float, float]]], None] = lambda ranges: None,
    ) -> Path:
        """Record zero and range of every joint, moved by hand with torque off; returns the file.

        ready: returns when the arm stands in its zero pose; finished: whether every joint has
        been moved through its range; show: gets lowest, present and highest position so far, rad.
        Raises RobotError, leaving an older file as it is, where a range is not that of the limits.
        """
        self._connect()
        try:
            with self._said():
                return self._record(ready, finished, show)
        finally:
            self.close()

    def _record(
        self,
        ready: Callable[[], None],
        finished: Callable[[], bool],
        show: Callable[[dict[str, tuple[float, float, float]]], None],
    ) -> Path:
        bus = self._bus
        assert bus is not None
        for joint in self.joints:  # counts go on over the end of a turn
            for name, value in (
                ("drive_mode", 0), ("operating_mode", MODES["extended_position"]),
                ("homing_offset", 0), ("startup_configuration", 0),
            ):  # fmt: skip
                bus.set(joint.id, name, value)
        ready()
        ids = [joint.id for joint in self.joints]
        zero = np.array([bus.read(id, "present_position") for id in ids])
        low, high = zero.copy(), zero.copy()
        while True:
            last = finished()
            counts = np.array([bus.read(id, "present_position") for id in ids])
            low, high = np.minimum(low, counts), np.maximum(high, counts)
            ends = [self._sign * (c - zero) * ANGLE for c in (low, counts, high)]
            lowest, highest = np.minimum(ends[0], ends[2]), np.maximum(ends[0], ends[2])
            rows = zip(self.joints, lowest, ends[1], highest, strict=True)
            show({j.name: (float(a), float(b), float(c)) for j, a, b, c in rows})
            if last:
                break
            time.sleep(0.02)
        turns = zero // RESOLUTION * RESOLUTION
        found = {}
        for joint, homing, lower, upper in zip(
            self.joints, zero - turns, low - turns, high - turns, strict=True
        ):
            one = Calibrated(
                joint.id, joint.model.name, int(homing), joint.direction, int(lower), int(upper)
            )
            problem = calibration_problem(joint, one)
            if problem is not None:
                raise RobotError(f"{joint.label}: {problem}")
            found[joint.name] = one
        save_calibration(self.calibration, self.spec.name, found)
        return self.calibration
