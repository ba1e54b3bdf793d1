"""How a task looks in a mirror: left becomes right.

A mirror is what a learner of symmetric policies asks its environment for: signed permutations of
observation and action, as plain values. They follow from the robot's model and the interface's
terms, and are exact as far as the robot is symmetric.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from motoric.hardware.interfaces.joint_targets import JointTargets
from motoric.hardware.robot import RobotSpec
from numpy.typing import NDArray

Signed = tuple[NDArray[np.int64], NDArray[np.float64]]  # y[i] = sign[i] * x[index[i]]

# Terms of three numbers along x, y and z (or forward, left and turn).
VECTORS = {
    "angular_velocity": (-1.0, 1.0, -1.0),
    "projected_gravity": (1.0, -1.0, 1.0),
    "goal.velocity": (1.0, -1.0, -1.0),
}
JOINTS = ("joint_position", "joint_velocity", "joint_torque", "action")
SIDES = (("FL", "FR"), ("RL", "RR"), ("left", "right"))


def mirror_of(interface: JointTargets) -> dict[str, Any]:
    """observation, action: signed permutations; clock: index of the gait clock's sine, None
    without one; it is shifted by half a cycle, as in a trot or walk.

    Raises ValueError for a term whose mirror image is not known.
    """
    joints = joint_mirror(interface.robot)
    parts: list[Signed] = []
    size, clock = 0, None
    for term in interface.terms:
        if term.name in VECTORS:
            part = np.arange(3), np.array(VECTORS[term.name])
        elif term.name in JOINTS:
            part = joints
        elif term.name == "gait_clock":
            part, clock = (np.arange(2), np.array([-1.0, -1.0])), size
        else:
            raise ValueError(f"mirror: term {term.name!r} has no known mirror image")
        parts.append((part[0] + size, part[1]))
        size += term.size
    index, sign = (np.concatenate(items) for items in zip(*parts, strict=True))
    return {"observation": (index, sign), "action": joints, "clock": clock}


def joint_mirror(robot: RobotSpec) -> Signed:
    """The joint that takes each joint's place, and whether it turns the other way, by their axes.

    Raises ValueError for a robot whose joints' names have no left and right.
    """
    import mujoco
    from motoric.hardware.models import load_model

    model = load_model(robot)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    index, sign = [], []
    for name in robot.joints:
        other = other_side(name)
        if other not in robot.joints:
            raise ValueError(f"mirror: {robot.name} has no {other} opposite its {name}")
        axis, there = data.xaxis[model.joint(name).id], data.xaxis[model.joint(other).id]
        image = axis * [-1.0, 1.0, -1.0]  # an axis of rotation is a pseudovector
        index.append(robot.joints.index(other))
        sign.append(1.0 if image @ there > 0 else -1.0)
    return np.array(index), np.array(sign)


def other_side(name: str) -> str:
    """Of a part on the left or right; of one in the middle, itself."""
    for left, right in SIDES:
        for here, there in ((left, right), (right, left)):
            if name.startswith(f"{here}_"):
                return there + name.removeprefix(here)
    return name
