"""What each servo is told of a motor command, according to its operating mode.

What a mode makes of tau = kp (q* - q) + kd (dq* - dq) + tau_ff:

    current            the torque is computed from the newest state, clipped, and sent as a current
    velocity           dq* + (kp (q* - q) + tau_ff) / kd; zero where kp and kd are zero
    position,          q*, held by the servo's own gains. Where kp is zero the goal follows the
    extended_position  measured position: the servo resists motion and holds nothing
    current_position   the same, with at most the torque limit's current
"""

from __future__ import annotations

import math

from motoric.control.command import MotorCommand
from motoric.hardware.dynamixel.joints import Joint
from motoric.hardware.dynamixel.models import ANGLE, REGISTERS, SPEED, to_bytes
from motoric.hardware.robot import Array, RobotState

POSITION_MODES = ("position", "extended_position", "current_position")
GOAL_BYTES = {
    "position": 4, "extended_position": 4, "current_position": 18, "velocity": 4, "current": 2,
}  # fmt: skip
Goal = tuple[int, bytes]  # address, and what to write there


def goals_of(
    joints: tuple[Joint, ...],
    zero: Array,
    state: RobotState,
    fresh: bool,
    command: MotorCommand | None,
) -> list[Goal]:
    """Of each joint.

    zero: counts at joint position 0, turns included, [J]; fresh: whether the state is young enough
    to compute a torque from; command: None: damped
    """
    goals = []
    for index, joint in enumerate(joints):
        q, dq = state.position[index], state.velocity[index]
        target, speed, kp, kd, torque = q, 0.0, 0.0, joint.kd, 0.0
        if command is not None:
            target, speed = command.position[index], command.velocity[index]
            kp, kd, torque = command.kp[index], command.kd[index], command.torque[index]
        if joint.mode in POSITION_MODES:
            goals.append(_position_goal(joint, zero[index], target if kp > 0 else q))
            continue
        if joint.mode == "velocity":
            # A fault's damping has kp = 0: the servo is told to stand still.
            pull = (kp * (target - q) + torque) / kd if kd > 0 else 0.0
            wish = min(max(speed + pull, -joint.velocity), joint.velocity)
            unit, name = SPEED, "goal_velocity"
        else:
            # Gains above the configured ones would shake the joint at the bus's rate.
            kp, kd = min(kp, joint.kp), min(kd, joint.kd)
            wish = kp * (target - q) + kd * (speed - dq) + torque
            wish = min(max(wish, -joint.torque), joint.torque)
            unit, name = joint.model.torque_unit, "goal_current"
        outward = (q >= joint.upper and wish > 0) or (q <= joint.lower and wish < 0)
        if not fresh or (outward and (joint.mode == "velocity" or wish * dq >= 0)):
            wish = 0.0
        register = REGISTERS[name]
        counts = math.trunc(joint.direction * wish / unit)
        goals.append((register.address, to_bytes(register, counts)))
    return goals


def current_limit(joint: Joint) -> int:
    """The torque limit in counts of current."""
    return min(joint.model.max_current, math.floor(joint.torque / joint.model.torque_unit))


def profile_velocity(joint: Joint) -> int:
    """The velocity limit in counts."""
    return min(max(1, math.floor(joint.velocity / SPEED)), 32767)


def _position_goal(joint: Joint, zero: float, target: float) -> Goal:
    target = min(max(target, joint.lower), joint.upper)
    counts = int(zero) + round(joint.direction * target / ANGLE)
    goal = to_bytes(REGISTERS["goal_position"], counts)
    if joint.mode != "current_position":
        return REGISTERS["goal_position"].address, goal
    # Current, velocity, profile and position lie side by side.
    values = {
        "goal_current": current_limit(joint), "goal_velocity": 0, "profile_acceleration": 0,
        "profile_velocity": profile_velocity(joint),
    }  # fmt: skip
    data = b"".join(to_bytes(REGISTERS[name], value) for name, value in values.items())
    return REGISTERS["goal_current"].address, data + goal
