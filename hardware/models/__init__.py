"""MuJoCo models of the robots: those bundled with the package, and a user's own MJCF or URDF."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import mujoco
import numpy as np
from motoric.hardware.models import foreign
from motoric.hardware.robot import RobotSpec


def model_path(model: str) -> Path:
    """Of a file of this folder by its name, or of any by its path."""
    if Path(model).name == model:
        return Path(str(files("motoric.hardware.models") / model))
    return Path(model)


def load_spec(robot: RobotSpec) -> mujoco.MjSpec:
    """The robot's model, to be changed and compiled, its motors as `RobotSpec` has them.

    A model without motors (a URDF) is given them. Raises ValueError for a robot without a model,
    and for joints that are not the robot's.
    """
    if robot.model is None:
        raise ValueError(f"{robot.name}: has no model to simulate or show")
    spec = foreign.read(model_path(robot.model), robot.model, floating=not robot.fixed)
    foreign.add_feet(spec, robot.feet, robot.model)
    joints = tuple(j.name for j in spec.joints if j.type != mujoco.mjtJoint.mjJNT_FREE)
    if joints != robot.joints:
        raise ValueError(f"{robot.model}: joints {joints}, expected {robot.joints}")
    motors = {actuator.target: actuator for actuator in spec.actuators}
    torques = robot.limits.torque
    for joint, kp, kd, torque in zip(robot.joints, robot.kp, robot.kd, torques, strict=True):
        motor = motors.get(joint) or spec.add_actuator(
            name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT
        )
        motor.gaintype, motor.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE
        motor.gainprm[0] = kp
        motor.biasprm[:3] = [0.0, -kp, -kd]
        motor.forcelimited, motor.forcerange = 1, [-torque, torque]
    return spec


def load_model(robot: RobotSpec) -> mujoco.MjModel:
    """The robot alone, compiled."""
    model = load_spec(robot).compile()
    targets = tuple(model.joint(i).name for i in model.actuator_trnid[:, 0])
    if targets != robot.joints:
        raise ValueError(f"{robot.model}: motors of {targets}, expected {robot.joints}")
    return model


def joint_addresses(
    model: mujoco.MjModel, robot: RobotSpec, prefix: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Where the robot's joints are in qpos and in qvel, each [J]."""
    joints = [model.joint(prefix + name) for name in robot.joints]
    return (
        np.array([int(j.qposadr[0]) for j in joints]),
        np.array([int(j.dofadr[0]) for j in joints]),
    )
