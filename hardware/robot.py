"""The Robot interface: what a control loop sees of a robot, simulated or real.

Life of a robot: configure -> activate -> read / write at a fixed rate -> deactivate -> close.
All values are in SI units; joint arrays follow `RobotSpec.joints`. Quaternions are (w, x, y, z).
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from motoric.control.command import MotorCommand
from motoric.control.limits import JointLimits
from motoric.control.realtime import Realtime
from numpy.typing import NDArray

Array = NDArray[np.float64]

SLACK = 1e-6  # of a command's numbers over their limits: rounding on the way
SENSOR_TYPES = ("float64", "float32", "int64", "int32", "uint16", "uint8")
# Signals that must end a program with the motors damped or off: a stopped process can do neither.
STOPS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP")


class RobotError(RuntimeError):
    """A robot that can't be reached or does not answer as its protocol says."""


class MotorsDamped(RobotError):
    """A robot that has damped its motors by itself, for want of commands, until `activate`."""


@dataclass(frozen=True)
class Sensor:
    """A sensor of a robot: its name in `RobotState.sensors`, shape, type, and unit of its values.

    A camera is one of shape (height, width, 3) and type uint8; its values are read-only images.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float64"
    unit: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"sensor {self.name!r}: expected a name")
        if not all(isinstance(n, int) and n > 0 for n in self.shape):
            raise ValueError(f"sensor {self.name}: shape {self.shape}, expected sizes of 1 or more")
        if self.dtype not in SENSOR_TYPES:
            raise ValueError(
                f"sensor {self.name}: dtype {self.dtype!r}, expected one of "
                f"{', '.join(SENSOR_TYPES)}"
            )

    @property
    def is_camera(self) -> bool:
        return self.dtype == "uint8" and len(self.shape) == 3 and self.shape[2] == 3

    @property
    def bytes(self) -> int:
        """Of one value."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class RobotSpec:
    """What must be known of a robot to command it.

    joints: names, in the order of every joint array, length J
    limits: what the joints may do
    stand, rest: joint positions standing and lying, rad, [J]
    kp, kd: gains of the motors' position control, N m / rad and N m s / rad, [J]
    damping: kd of the damped state, in which the robot sinks by its weight, N m s / rad, [J]
    kp_max, kd_max: the highest gains a command may ask for, [J]; the robot's own unless given,
        where kd_max is never below damping
    model: its MJCF or URDF: a file name in `motoric.hardware.models`, or a path; None: it has none
    fixed: its base is bolted down
    feet: geoms of the model that may touch the ground
    base_height: height of the base standing in `stand`, m
    sensors: what it measures besides joints and base
    """

    name: str
    joints: tuple[str, ...]
    limits: JointLimits
    stand: Array
    rest: Array
    kp: Array
    kd: Array
    damping: Array
    model: str | None = None
    fixed: bool = False
    feet: tuple[str, ...] = ()
    base_height: float = 0.0
    kp_max: Array = None  # pyright: ignore[reportAssignmentType]
    kd_max: Array = None  # pyright: ignore[reportAssignmentType]
    sensors: tuple[Sensor, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.joints)) != len(self.joints):
            raise ValueError(f"joints: {', '.join(self.joints)}: a name is there twice")
        if self.limits.lower.shape != (len(self.joints),):
            raise ValueError(
                f"limits: of {len(self.limits.lower)} joints, expected {len(self.joints)}"
            )
        for name in ("stand", "rest"):
            self._keep(name, self.limits.lower, self.limits.upper)
        for name in ("kp", "kd"):
            self._keep(name, 0.0)
        self._keep("damping", np.finfo(np.float64).tiny, words="a positive number")
        for name, least in (("kp", self.kp), ("kd", np.maximum(self.kd, self.damping))):
            if getattr(self, f"{name}_max") is None:
                object.__setattr__(self, f"{name}_max", least)
            self._keep(f"{name}_max", least)
        names = [sensor.name for sensor in self.sensors]
        if len(set(names)) != len(names):
            raise ValueError(f"sensors: {', '.join(names)}: a name is there twice")
        object.__setattr__(self, "sensors", tuple(self.sensors))

    def _keep(
        self, name: str, least: Array | float, most: Array | float = np.inf, words: str = ""
    ) -> None:
        """Make an array [J] finite numbers in bounds that nobody can write to."""
        value = np.array(getattr(self, name), np.float64)
        if value.shape != (len(self.joints),):
            raise ValueError(f"{name}: shape {value.shape}, expected {(len(self.joints),)}")
        low, high = np.broadcast_to(least, value.shape), np.broadcast_to(most, value.shape)
        for joint, v, a, b in zip(self.joints, value, low, high, strict=True):
            if not (a <= v <= b and v < np.inf):  # false for NaN
                expected = words or (f"{a:g} to {b:g}" if b < np.inf else f"at least {a:g}")
                raise ValueError(f"{name} of {joint}: {v}, expected {expected}")
        value.flags.writeable = False
        object.__setattr__(self, name, value)

    @functools.cached_property
    def bounds(self) -> tuple[Array, Array]:
        """Least and most of a command's position, velocity, torque, kp and kd, each [5, J]."""
        limits, least = self.limits, np.full(len(self.joints), -SLACK)
        velocity, torque = limits.velocity + SLACK, limits.torque + SLACK
        return (
            np.stack([limits.lower - SLACK, -velocity, -torque, least, least]),
            np.stack([
                limits.upper + SLACK, velocity, torque, self.kp_max + SLACK, self.kd_max + SLACK,
            ]),
        )  # fmt: skip

    @property
    def blind_damping(self) -> Array:
        """The most of `damping` that keeps within the torque limit up to full speed, [J]: for
        whoever damps without knowing how fast the joints are."""
        return np.minimum(self.damping, self.limits.torque / self.limits.velocity)


@dataclass
class RobotState:
    """One measurement of a robot.

    time: s, on the robot's monotonic clock; sequence: counts measurements
    position, velocity, torque: joints, rad, rad/s, N m, [J]
    orientation: base in the world, unit quaternion (w, x, y, z), [4]
    angular_velocity: of the base, in the base frame, rad/s, [3]
    base_velocity: of the base, in the base frame, m/s, [3]; NaN where it isn't measured
    base_height: m above the ground; NaN where it isn't measured
    battery: charge, %; NaN where it isn't measured
    temperature: of the motors, degrees Celsius, [J]; empty where it isn't measured
    sensors: the newest value of each of `RobotSpec.sensors`, by name
    """

    time: float
    sequence: int
    position: Array
    velocity: Array
    torque: Array
    orientation: Array
    angular_velocity: Array
    base_velocity: Array = field(default_factory=lambda: np.full(3, np.nan))
    base_height: float = float("nan")
    battery: float = float("nan")
    temperature: Array = field(default_factory=lambda: np.zeros(0))
    sensors: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def command_problem(command: MotorCommand, spec: RobotSpec) -> str | None:
    """What forbids a command, or None: shapes, numbers that are not finite, the robot's limits."""
    names, shape = ("position", "velocity", "torque", "kp", "kd"), (len(spec.joints),)
    values = [getattr(command, name) for name in names]
    for name, value in zip(names, values, strict=True):
        if value.shape != shape:
            return f"{name} has shape {value.shape}, expected {shape}"
    asked, (low, high) = np.array(values), spec.bounds
    allowed = (low <= asked) & (asked <= high)  # false for NaN
    if allowed.all():
        return None
    row, joint = np.argwhere(~allowed)[0]
    what = f"{names[row]} {asked[row, joint]:.3f} of {spec.joints[joint]}"
    if not np.isfinite(asked[row, joint]):
        return f"{what} is not finite"
    least, most = low[row, joint] + SLACK, high[row, joint] - SLACK
    return f"{what} is not allowed, expected {least:.3f} to {most:.3f}"


class Robot(ABC):
    """One robot in real time. A driver implements these six methods and nothing else.

    loop_rate: how often it wants to be read and commanded, Hz; the control loop runs at the
        multiple of the policy's rate nearest to it. None: once per action of the policy.
    most_rate: how often its link can take it at most, Hz; a loop that is faster, or a policy, is
        refused. None: no bound.
    Both may be found out in `configure`.
    realtime: what a loop was granted; a driver's own threads `enter` it, below the loop.
    """

    spec: RobotSpec
    loop_rate: float | None = None
    most_rate: float | None = None
    realtime = Realtime()

    @abstractmethod
    def configure(self) -> None:
        """Connect, check that it is the robot `spec` names; motors stay off."""

    @abstractmethod
    def activate(self) -> None:
        """Switch the motors on in their damped state."""

    @abstractmethod
    def read(self) -> RobotState:
        """Newest state, without waiting for the next. Raises RobotError when the link is lost."""

    @abstractmethod
    def write(self, command: MotorCommand) -> None:
        """Send a command. Raises RobotError when the link is lost, and MotorsDamped where the
        robot has damped its motors by itself, unless that is all the command asks for."""

    @abstractmethod
    def deactivate(self) -> None:
        """Motors damped, then off. Must be safe to call at any time and more than once."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the connection. Safe to call more than once."""
