"""A six-joint desk arm of Dynamixel X-series servos: an example of a chain.

The same numbers as in configs/robot/x_arm6.yaml, for tasks and simulation; a test holds them equal.
"""

from __future__ import annotations

from motoric.hardware.dynamixel.joints import chain_spec, parse_joint

_BIG = {"model": "xl430-w250", "velocity": 2.5, "torque": 0.7}
_SMALL = {"model": "xl330-m288", "mode": "current_position", "velocity": 4.0, "torque": 0.25}

JOINTS = {
    "shoulder_pan": {"id": 1, **_BIG, "lower": -1.8, "upper": 1.8},
    "shoulder_lift": {"id": 2, **_BIG, "lower": -1.7, "upper": 1.7, "rest": -1.0},
    "elbow_flex": {"id": 3, **_SMALL, "lower": -1.6, "upper": 1.6, "rest": 1.0},
    "wrist_flex": {"id": 4, **_SMALL, "lower": -1.7, "upper": 1.7},
    "wrist_roll": {"id": 5, **_SMALL, "lower": -2.6, "upper": 2.6},
    "gripper": {
        "id": 6, **_SMALL, "model": "xl330-m077", "lower": -0.2, "upper": 1.4, "torque": 0.08,
        "kp": 0.1, "kd": 0.008,
    },
}  # fmt: skip

X_ARM6 = chain_spec(
    "x_arm6",
    tuple(parse_joint(name, values, "extended_position") for name, values in JOINTS.items()),
    model="x_arm6.xml",
)

SPEC = X_ARM6
