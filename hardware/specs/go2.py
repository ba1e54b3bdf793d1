"""Unitree Go2: published joint limits, and the gains and poses used to walk it.

Limits follow Unitree's robot description: hip and thigh motors 23.7 N m and 30.1 rad/s, calf
45.43 N m and 15.7 rad/s. Leg order FL, FR, RL, RR; joint order hip, thigh, calf.
"""

from __future__ import annotations

import numpy as np
from motoric.control.limits import JointLimits
from motoric.hardware.robot import RobotSpec

LEGS = ("FL", "FR", "RL", "RR")
SPEED = np.tile([30.1, 30.1, 15.7], 4)

GO2 = RobotSpec(
    name="go2",
    joints=tuple(f"{leg}_{part}_joint" for leg in LEGS for part in ("hip", "thigh", "calf")),
    limits=JointLimits(
        lower=np.array([-1.0472, -1.5708, -2.7227] * 2 + [-1.0472, -0.5236, -2.7227] * 2),
        upper=np.array([1.0472, 3.4907, -0.83776] * 2 + [1.0472, 4.5379, -0.83776] * 2),
        velocity=SPEED,
        torque=np.tile([23.7, 23.7, 45.43], 4),
        target_rate=SPEED,
    ),
    stand=np.array([0.1, 0.8, -1.5, -0.1, 0.8, -1.5, 0.1, 0.8, -1.5, -0.1, 0.8, -1.5]),
    rest=np.array([0.0, 1.21, -2.65, 0.0, 1.21, -2.65, 0.0, 1.21, -2.65, 0.0, 1.21, -2.65]),
    kp=np.full(12, 40.0),  # with 35 it sags until the thighs touch the ground
    kd=np.full(12, 0.8),
    damping=np.full(12, 2.0),
    model="go2.xml",
    feet=LEGS,
    base_height=0.32,
)

SPEC = GO2
