"""The joints of a chain as they are configured, and the robot that they make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from motoric.control.limits import JointLimits
from motoric.hardware.dynamixel.models import MODELS, PWM_FULL, Model
from motoric.hardware.robot import Array, RobotSpec

CURRENT_MODES = ("current", "current_position")  # the only ones in which Current Limit acts
KEYS = ("id", "model", "mode", "lower", "upper", "velocity", "torque", "target_rate", "kp", "kd",
        "direction", "stand", "rest")  # fmt: skip


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


def chain_spec(name: str, joints: tuple[Joint, ...], model: str | None = None) -> RobotSpec:
    """The robot, whose base is bolted down. model: its MJCF or URDF, None: it has none."""

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
        model=model,
        fixed=True,
    )
