"""A user's own robot, from its URDF or MJCF alone: what the file says, and what it leaves out.

Joints, their ranges and efforts, masses and the base come from the file. What a file of its kind
can't say (gains; in MJCF, how fast a joint may turn) is given by the user, or guessed where a guess
is safe: each guess is named below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from motoric.control.limits import JointLimits
from motoric.hardware.robot import RobotSpec
from numpy.typing import NDArray

Array = NDArray[np.float64]
Given = float | Sequence[float] | Mapping[str, float] | None

MOST_JOINTS = 200
STIFFNESS = 2.0  # kp: the torque limit is reached this many rad from the target
SETTLING = 0.05  # s: kd = kp * SETTLING, well damped at a joint's own inertia
YIELDING = 3.0  # rad/s at which damping alone gives the torque that holds the stand, or half of all


def spec_from_model(
    name: str,
    model: str,
    *,
    stand: Given = None,
    rest: Given = None,
    kp: Given = None,
    kd: Given = None,
    velocity: Given = None,
    torque: Given = None,
    damping: Given = None,
    feet: Sequence[str] = (),
    base_height: float | None = None,
    fixed: bool | None = None,
) -> RobotSpec:
    """The robot of a URDF or MJCF file. Needs MuJoCo.

    Numbers are for all joints, one for each in the file's order, or by the joint's name (the
    others as without). stand, rest: rad; None: the middle of what a joint may do, or zero where
    that is within. velocity: rad/s; torque: N m; None: the file's. kp, kd, damping: see the
    constants of this module for what they are without.
    feet: geoms or links that may touch the ground: with them, a URDF's base is floating;
    base_height: m in `stand`; None: of the lowest geom
    fixed: None: as the file has it
    Raises ValueError in one line that names what is missing, and the keys to give.
    """
    from motoric.hardware.models import foreign

    path = Path(model)
    speeds = _speeds(foreign.parse(path, model))
    wanted = None if fixed is None else not fixed
    spec = foreign.read(path, model, True if feet else wanted)
    foreign.add_feet(spec, tuple(feet), model)
    compiled = spec.compile()
    joints, floating = _joints(compiled, model)
    fixed = not floating
    names = [compiled.joint(j).name for j in joints]

    def numbers(key: str, given: Given, default: Array) -> Array:
        return _numbers(key, given, names, default)

    ranges = compiled.jnt_range[joints].astype(np.float64)
    lower = np.where(compiled.jnt_limited[joints] > 0, ranges[:, 0], -math.pi)
    upper = np.where(compiled.jnt_limited[joints] > 0, ranges[:, 1], math.pi)
    most = numbers("torque", torque, _efforts(compiled, joints))
    fastest = numbers("velocity", velocity, np.array([speeds.get(n, np.nan) for n in names]))
    missing = {"torque": most, "velocity": fastest}
    for key, values in missing.items():
        lacking = [n for n, v in zip(names, values, strict=True) if not 0 < v < math.inf]
        if lacking:
            raise ValueError(
                f"{key}: {model} does not say it of {', '.join(lacking[:4])}"
                f"{' and others' if len(lacking) > 4 else ''}; give +robot.options.{key}=NUMBER, "
                f"or {{{lacking[0]}: NUMBER, ...}} ({'N m' if key == 'torque' else 'rad/s'})"
            )
    middle = np.where((lower <= 0) & (upper >= 0), 0.0, 0.5 * (lower + upper))
    standing = numbers("stand", stand, middle)
    resting = numbers("rest", rest, standing)
    for key, pose in (("stand", standing), ("rest", resting)):
        for n, q, low, high in zip(names, pose, lower, upper, strict=True):
            if not low <= q <= high:
                raise ValueError(f"{key}: {q:g} of {n}, expected {low:g} to {high:g}")
    stiffness = numbers("kp", kp, STIFFNESS * most)
    viscosity = numbers("kd", kd, SETTLING * stiffness)
    sinking = numbers("damping", damping, 0.5 * most / YIELDING)
    return RobotSpec(
        name=name,
        joints=tuple(names),
        limits=JointLimits(lower, upper, fastest, most, fastest),
        stand=standing,
        rest=resting,
        kp=stiffness,
        kd=viscosity,
        damping=sinking,
        model=str(path.resolve()),
        fixed=fixed,
        feet=tuple(feet),
        base_height=_height(compiled, joints, standing) if base_height is None else base_height,
    )


def _speeds(root: ElementTree.Element) -> dict[str, float]:
    """What a URDF says of its joints' speeds, rad/s."""
    found = {}
    for joint in root.iter("joint") if root.tag == "robot" else ():
        limit = joint.find("limit")
        text = None if limit is None else limit.get("velocity")
        if text is not None:
            found[joint.get("name", "")] = float(text)
    return found


def _joints(compiled: Any, model: str) -> tuple[list[int], bool]:
    """The joints that are commanded, and whether there is a free one."""
    import mujoco

    kinds = mujoco.mjtJoint
    turning = (int(kinds.mjJNT_HINGE), int(kinds.mjJNT_SLIDE))
    found, floating = [], False
    for j in range(compiled.njnt):
        kind = int(compiled.jnt_type[j])
        if kind == int(kinds.mjJNT_FREE):
            floating = True
        elif kind in turning:
            found.append(j)
        else:
            raise ValueError(f"model: {model}: joint {compiled.joint(j).name} is a ball")
    if not 0 < len(found) <= MOST_JOINTS:
        raise ValueError(f"model: {model} has {len(found)} joints, expected 1 to {MOST_JOINTS}")
    return found, floating


def _efforts(compiled: Any, joints: list[int]) -> Array:
    """Highest torque of each joint, its motor's or its own, N m; NaN where none is said."""
    found = []
    for joint in joints:
        motors = np.flatnonzero(compiled.actuator_trnid[:, 0] == joint)
        limits = [compiled.actuator_forcerange[m, 1] for m in motors if
                  compiled.actuator_forcelimited[m]]  # fmt: skip
        if compiled.jnt_actfrclimited[joint]:
            limits.append(compiled.jnt_actfrcrange[joint, 1])
        found.append(min(limits) if limits else np.nan)
    return np.array(found)


def _height(compiled: Any, joints: list[int], stand: Array) -> float:
    """Of the base above the lowest point of the robot's colliding shapes in `stand`, m."""
    import mujoco

    data = mujoco.MjData(compiled)
    for joint, angle in zip(joints, stand, strict=True):
        data.qpos[compiled.jnt_qposadr[joint]] = angle
    mujoco.mj_kinematics(compiled, data)
    base = int(compiled.body_rootid[compiled.jnt_bodyid[joints[0]]])
    solid = [g for g in range(compiled.ngeom) if compiled.geom_bodyid[g] != 0]
    lowest = [data.geom_xpos[g, 2] - compiled.geom_rbound[g] for g in solid]
    return float(max(data.xpos[base, 2] - min(lowest), 0.0)) if lowest else 0.0


def _numbers(key: str, given: Given, names: list[str], default: Array) -> Array:
    """For each joint. Raises ValueError naming the key, the value and what would be right."""
    if given is None:
        return default
    if isinstance(given, Mapping):
        found = default.copy()
        for name, value in given.items():
            if name not in names:
                raise ValueError(f"{key}.{name}: no such joint, expected {', '.join(names)}")
            found[names.index(name)] = _number(f"{key}.{name}", value)
        return found
    if isinstance(given, int | float) and not isinstance(given, bool):
        return np.full(len(names), _number(key, given))
    values = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    if len(values) != len(names):
        raise ValueError(
            f"{key}: {given!r}, expected a number, {len(names)} of them, or joints by name"
        )
    return np.array([_number(f"{key}[{i}]", value) for i, value in enumerate(values)])


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key}: {value!r}, expected a finite number")
    return float(value)
