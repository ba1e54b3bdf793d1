"""A disc that glides over a plane: what agents are before they are robots. Joints x and y, m."""

from __future__ import annotations

import numpy as np
from motoric.control.limits import JointLimits
from motoric.hardware.robot import RobotSpec, Sensor

RADIUS = 0.15  # m
MASS = 1.0  # kg
NEAREST = 6  # neighbours that one hears of
SENSED = 4  # numbers of each: where it is and how it moves, see `envs/tasks/crossing.py`

POINT_AGENT = RobotSpec(
    name="point_agent",
    joints=("x", "y"),
    limits=JointLimits(
        lower=np.full(2, -50.0),
        upper=np.full(2, 50.0),
        velocity=np.full(2, 2.0),
        torque=np.full(2, 4.0),
        target_rate=np.full(2, 2.0),
    ),
    stand=np.zeros(2),
    rest=np.zeros(2),
    kp=np.full(2, 2.0),
    kd=np.full(2, 4.0),
    damping=np.full(2, 2.0),
    model="point_agent.xml",
    fixed=True,
    sensors=(Sensor("neighbours", (NEAREST * SENSED,)),),
)

SPEC = POINT_AGENT
