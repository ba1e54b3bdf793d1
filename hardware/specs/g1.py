"""Unitree G1 with 29 joints: published joint limits. No policy of ours has been trained for it.

Limits follow Unitree's robot description (29 joints, revision 1.0), ankles and waist as joints in
series; the gains are those of Unitree's low-level example. It stands and rests with slightly bent
knees: hang it up, it can't lie down by itself.
"""

from __future__ import annotations

import numpy as np
from motoric.control.limits import JointLimits
from motoric.hardware.robot import RobotSpec

# name: lower, upper (rad), velocity (rad/s), torque (N m), stand (rad), kp, kd, damping
_LEG = {
    "hip_pitch": (-2.5307, 2.8798, 32, 88, -0.1, 60, 1, 2.5),
    "hip_roll": (-0.5236, 2.9671, 20, 139, 0.0, 60, 1, 5),
    "hip_yaw": (-2.7576, 2.7576, 32, 88, 0.0, 60, 1, 2.5),
    "knee": (-0.087267, 2.8798, 20, 139, 0.3, 100, 2, 6),
    "ankle_pitch": (-0.87267, 0.5236, 30, 35, -0.2, 40, 1, 2),
    "ankle_roll": (-0.2618, 0.2618, 30, 35, 0.0, 40, 1, 2),
}
_WAIST = {
    "yaw": (-2.618, 2.618, 32, 88, 0.0, 60, 1, 2.5),
    "roll": (-0.52, 0.52, 30, 35, 0.0, 40, 1, 2),
    "pitch": (-0.52, 0.52, 30, 35, 0.0, 40, 1, 2),
}
_ARM = {
    "shoulder_pitch": (-3.0892, 2.6704, 37, 25, 0.2, 40, 1, 2),
    "shoulder_roll": (-1.5882, 2.2515, 37, 25, 0.2, 40, 1, 2),
    "shoulder_yaw": (-2.618, 2.618, 37, 25, 0.0, 40, 1, 2),
    "elbow": (-1.0472, 2.0944, 37, 25, 0.6, 40, 1, 2),
    "wrist_roll": (-1.972222054, 1.972222054, 37, 25, 0.0, 40, 1, 2),
    "wrist_pitch": (-1.614429558, 1.614429558, 22, 5, 0.0, 40, 1, 0.5),
    "wrist_yaw": (-1.614429558, 1.614429558, 22, 5, 0.0, 40, 1, 0.5),
}


def _right(part: str, row: tuple) -> tuple:
    """The mirror image of a left joint: roll and yaw turn the other way."""
    low, high, velocity, torque, stand, *gains = row
    if part.endswith(("roll", "yaw")):
        return (-high, -low, velocity, torque, -stand, *gains)
    return row


_JOINTS = {
    **{f"left_{part}_joint": row for part, row in _LEG.items()},
    **{f"right_{part}_joint": _right(part, row) for part, row in _LEG.items()},
    **{f"waist_{part}_joint": row for part, row in _WAIST.items()},
    **{f"left_{part}_joint": row for part, row in _ARM.items()},
    **{f"right_{part}_joint": _right(part, row) for part, row in _ARM.items()},
}
_ROWS = np.array(list(_JOINTS.values()), np.float64)
_LOW, _HIGH, _SPEED, _TORQUE, _STAND, _KP, _KD, _DAMPING = _ROWS.T

G1 = RobotSpec(
    name="g1",
    joints=tuple(_JOINTS),
    limits=JointLimits(_LOW, _HIGH, _SPEED, _TORQUE, _SPEED),
    stand=_STAND,
    rest=_STAND,
    kp=_KP,
    kd=_KD,
    damping=_DAMPING,
    model="g1.xml",
    base_height=0.76,
)

SPEC = G1
