"""MuJoCo models of the robots, bundled with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import mujoco
from motoric.hardware.robot import RobotSpec


def load_model(robot: RobotSpec) -> mujoco.MjModel:
    """The robot's MJCF with the spec's gains; joints and feet are checked against the spec."""
    if robot.model is None:
        raise ValueError(f"{robot.name}: has no model to simulate or show")
    path = Path(str(files("motoric.hardware.models") / robot.model))
    model = mujoco.MjModel.from_xml_path(str(path))
    joints = tuple(model.joint(i).name for i in range(1, model.njnt))
    if joints != robot.joints:
        raise ValueError(f"{robot.model}: joints {joints}, expected {robot.joints}")
    model.actuator_gainprm[:, 0] = robot.kp
    model.actuator_biasprm[:, 1] = -robot.kp
    model.actuator_biasprm[:, 2] = -robot.kd
    model.actuator_forcerange[:, 0] = -robot.limits.torque
    model.actuator_forcerange[:, 1] = robot.limits.torque
    return model
