"""What a viewer shows of a log: poses, goals, and metrics computed anew from what was measured."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np
from motoric.control.rotation import rotate
from motoric.hardware.goals import TEXT, Part
from motoric.hardware.interfaces.base import Interface, Metric
from motoric.hardware.measured import Measured
from motoric.hardware.registry import INTERFACES
from motoric.hardware.robot import RobotSpec
from motoric.hardware.runtime.log import Log
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Deployment:
    """A log of T ticks, ready to be shown.

    joints: names; poses [T, nq]: of `model`
    wished [T, J]: joint positions of the policy, each until the next, NaN where it did not act
    goals: parts of the goal; goal: by part, [T, k], texts [T]
    named: the metrics; metrics: by name, [T], NaN where they can't be known
    """

    log: Log
    model: mujoco.MjModel
    joints: tuple[str, ...]
    poses: Array
    wished: Array
    goals: tuple[Part, ...] = ()
    goal: dict[str, NDArray[Any]] = field(default_factory=dict)
    named: tuple[Metric, ...] = ()
    metrics: dict[str, Array] = field(default_factory=dict)

    def at(self, time: float) -> int:
        """The tick of a time, s."""
        times = self.log.times
        return int(np.clip(np.searchsorted(times, time, "right") - 1, 0, len(times) - 1))


def joint_names(log: Log) -> tuple[str, ...]:
    """As the log says, or numbered."""
    names = tuple(log.metadata.get("joints", "").split(","))
    count = log.position.shape[1]
    return names if len(names) == count else tuple(f"joint {i}" for i in range(count))


def base_positions(log: Log) -> Array:
    """Where the base was, [T, 3]: measured height, and the plane by integrating velocity."""
    world = rotate(log.orientation, np.nan_to_num(log.base_velocity))
    result = np.zeros((len(log.times), 3))
    steps = np.nan_to_num(world[:-1]) * np.diff(log.times)[:, None]
    result[1:, :2] = np.cumsum(steps[:, :2], 0)
    result[:, 2] = log.base_height
    return result


def poses(log: Log, model: mujoco.MjModel, joints: tuple[str, ...]) -> Array:
    """MuJoCo positions [T, nq] by the joints' names; where no state came the last one is held.

    The base moves where it is free in the model, at its height there where that isn't measured.
    Raises ValueError for a joint that the model hasn't.
    """
    result = np.tile(model.qpos0, (len(log.times), 1))
    free = np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)
    good = np.isfinite(log.position).all(1)
    if len(free):
        at = model.jnt_qposadr[free[0]]
        base = base_positions(log)
        base[np.isnan(base[:, 2]), 2] = model.qpos0[at + 2]
        result[:, at : at + 7] = np.concatenate([base, log.orientation], 1)
        good &= np.isfinite(result[:, at : at + 7]).all(1)
    for name, angle in zip(joints, log.position.T, strict=True):
        joint = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name)
        if joint < 0:
            raise ValueError(f"log: joint {name!r} is not in the model")
        result[:, model.jnt_qposadr[joint]] = angle
    last = np.maximum.accumulate(np.where(good, np.arange(len(log.times)), -1))
    return result[np.maximum(last, int(np.argmax(good)))]


def wished(log: Log) -> Array:
    """Joint positions the policy asked for, [T, J], each held until its next, while it acts."""
    acts = np.array([bool(source) for source in log.source])
    news = np.isfinite(log.wish.position).all(1)
    last = np.maximum.accumulate(np.where(news, np.arange(len(log.times)), -1))
    held = log.wish.position[np.maximum(last, 0)]
    return np.where((acts & (last >= 0))[:, None], held, np.nan)


def interface_of(log: Log, robot: RobotSpec) -> Interface | None:
    """The interface of the policy that acted; None where it isn't known here."""
    try:
        found = json.loads(log.metadata.get("interface", "null"))
        if found is None:
            return None
        kind = INTERFACES.find(found["name"])
        return kind.make(robot, float(log.metadata["rate"]), found["parameters"])
    except (ValueError, TypeError, KeyError, ImportError):
        return None


def metrics_of(log: Log, interface: Interface) -> dict[str, Array]:
    """The interface's metrics [T] while the policy acted, from what was measured; none where they
    need what a log doesn't hold."""
    active = np.flatnonzero([bool(source) for source in log.source])
    known = active[np.isfinite(log.position[active]).all(1)]
    if not len(known):
        return {}
    nowhere = np.full((len(known), 2), np.nan)
    measured = Measured(
        time=log.times[known] - log.times[active[0]],
        position=log.position[known],
        velocity=log.velocity[known],
        torque=log.torque[known],
        orientation=log.orientation[known],
        angular_velocity=log.angular_velocity[known],
        base_position=np.concatenate([nowhere, log.base_height[known, None]], 1),
        base_velocity=log.base_velocity[known],
    )
    goal = {
        part.name: np.stack([part.array(v) for v in log.goal[part.name][known]])
        if part.is_text else log.goal[part.name][known]
        for part in interface.goals
    }  # fmt: skip
    try:
        found = interface.measure(measured, goal)
    except KeyError:  # a sensor
        return {}
    result = {}
    for name, values in found.items():
        result[name] = np.full(len(log.times), np.nan)
        result[name][known] = values
    return result


def deployment(log: Log, model: mujoco.MjModel, robot: RobotSpec) -> Deployment:
    """A log with what can be said of it. Raises ValueError where it doesn't fit the model."""
    joints = joint_names(log)
    interface = interface_of(log, robot)
    shown, wish = poses(log, model, joints), wished(log)
    if interface is None:
        return Deployment(log, model, joints, shown, wish, parts_of(log), log.goal)
    metrics = metrics_of(log, interface)
    named = tuple(metric for metric in interface.metrics if metric.name in metrics)
    return Deployment(log, model, joints, shown, wish, interface.goals, log.goal, named, metrics)


def parts_of(log: Log) -> tuple[Part, ...]:
    """Parts of a goal of which nothing is known but its values."""
    result = []
    for name, values in log.goal.items():
        if values.ndim == 1:
            result.append(Part(name, (name,), (TEXT,), (0.0,), (1.0,)))
            continue
        numbers = tuple(f"{name} {i}" for i in range(values.shape[1]))
        zeros = (0.0,) * len(numbers)
        result.append(Part(name, numbers, ("",) * len(numbers), zeros, zeros))
    return tuple(result)
