"""The Robot interface: what a control loop sees of a robot, simulated or real.

Life of a robot: configure -> activate -> read / write at a fixed rate -> deactivate -> close.
All values are in SI units; joint arrays follow `RobotSpec.joints`. Quaternions are (w, x, y, z).
"""

from __future__ import annotations

import functools
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
# Signals that must end a program with the motors damped or off: a stopped process can do neither.
STOPS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP")


class RobotError(RuntimeError):
    """A robot that can't be reached or does not answer as its protocol says."""


class MotorsDamped(RobotError):
    """A robot that has damped its motors by itself, for want of commands, until `activate`."""


@dataclass(frozen=True)
class Sensor:
    """A sensor of a robot: its name in `RobotState.sensors`, shape, type, and unit of its values.

    A camera is one of shape (height, width, 3) and type uint8.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float64"
    unit: str = ""


@dataclass(frozen=True)
class RobotSpec:
    """What must be known of a robot to command it.

    joints: names, in the order of every joint array, length J
    limits: what the joints may do
    stand, rest: joint positions standing and lying, rad, [J]
    kp, kd: gains of the motors' position control, N m / rad and N m s / rad, [J]
    damping: kd of the damped state, in which the robot sinks by its weight, N m s / rad, [J]
    kp_max, kd_max: the highest gains a command may ask for, [J]; the robot's own unless given
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
    kp_max: Array | None = None
    kd_max: Array | None = None
    sensors: tuple[Sensor, ...] = ()

    def __post_init__(self) -> None:
        damping, joints = np.array(self.damping, np.float64), len(self.joints)
        if damping.shape != (joints,):
            raise ValueError(f"damping: shape {damping.shape}, expected {(joints,)}")
        for joint, value in zip(self.joints, damping, strict=True):
            if not 0 < value < np.inf:
                raise ValueError(f"damping of {joint}: {value}, expected a positive number")
        damping.flags.writeable = False
        object.__setattr__(self, "damping", damping)

    @functools.cached_property
    def bounds(self) -> tuple[Array, Array]:
        """Least and most of a command's position, velocity, torque, kp and kd, each [5, J]."""
        limits, most = self.limits, np.full(len(self.joints), np.finfo(np.float64).max)
        velocity, torque = limits.velocity + SLACK, limits.torque + SLACK
        least = np.full(len(self.joints), -SLACK)
        return (
            np.stack([limits.lower - SLACK, -velocity, -torque, least, least]),
            np.stack([limits.upper + SLACK, velocity, torque, most, most]),
        )

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
    if row > 2:
        return f"{what} is not allowed, expected at least 0"
    return f"{what} is not allowed, expected {low[row, joint]:.3f} to {high[row, joint]:.3f}"


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
