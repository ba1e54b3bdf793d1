"""Unitree B2: published joint limits. No policy of ours has been trained for it.

Limits follow Unitree's robot description: hip and thigh motors 200 N m and 23 rad/s, calf 320 N m
and 14 rad/s. Leg order FL, FR, RL, RR; joint order hip, thigh, calf. The poses and the gains are
those of Unitree's stand example. A knee carries 42 N m in the stand; damped it yields at 3 rad/s.
"""

from __future__ import annotations

import numpy as np
from motoric.control.limits import JointLimits
from motoric.hardware.robot import RobotSpec

LEGS = ("FL", "FR", "RL", "RR")
SPEED = np.tile([23.0, 23.0, 14.0], 4)

B2 = RobotSpec(
    name="b2",
    joints=tuple(f"{leg}_{part}_joint" for leg in LEGS for part in ("hip", "thigh", "calf")),
    limits=JointLimits(
        lower=np.tile([-0.87, -0.94, -2.82], 4),
        upper=np.tile([0.87, 4.69, -0.43], 4),
        velocity=SPEED,
        torque=np.tile([200.0, 200.0, 320.0], 4),
        target_rate=SPEED,
    ),
    stand=np.tile([0.0, 0.67, -1.3], 4),
    rest=np.tile([0.0, 1.36, -2.65], 4),
    kp=np.full(12, 1000.0),
    kd=np.full(12, 10.0),
    damping=np.tile([8.0, 8.0, 16.0], 4),
    model="b2.xml",
    feet=LEGS,
    base_height=0.55,
)

SPEC = B2
