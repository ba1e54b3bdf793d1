"""The URDF of a robot, written from its compiled MuJoCo model: one source for both engines.

Masses, inertia tensors with their frames, joint axes and limits and the shapes that touch the floor
are MuJoCo's numbers. Two kinds of links are added. Feet are massless links of their own, so that
their friction and contact forces are theirs alone. A **rotor** per joint stands for its armature,
which URDF can't say: a massless flywheel on the joint's parent, on the same axis, that a gear of
ratio `GEAR` turns (whoever loads the file makes the gear). A rotor of inertia A / GEAR² adds
A (dq)² / 2 to the kinetic energy, as armature A does; what remains of its coupling to the base is
A / GEAR.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree

import mujoco
import numpy as np
from motoric.hardware.robot import RobotSpec
from numpy.typing import NDArray

GEAR = 1000.0


def foot_joint(foot: str) -> str:
    """Name of the fixed joint that holds a foot."""
    return f"{foot}_foot"


def rotor_joint(joint: str) -> str:
    """Name of the joint of a joint's rotor."""
    return f"{joint}_rotor"


def to_urdf(model: mujoco.MjModel, robot: RobotSpec) -> str:
    """The robot of a model, loaded by `load_model`, as URDF.

    Raises ValueError for what URDF can't say: a joint that is not a hinge in its body's origin, or
    a colliding shape that is not a sphere, box or capsule.
    """
    root = ElementTree.Element("robot", name=robot.name)
    feet = {model.geom(foot).id: foot for foot in robot.feet}
    base = int(model.jnt_bodyid[0])
    for body in range(base, model.nbody):
        name = model.body(body).name
        shapes = [g for g in floor_geoms(model) if model.geom_bodyid[g] == body and g not in feet]
        link = _link(
            root, name, model.body_mass[body], model.body_inertia[body],
            model.body_ipos[body], model.body_iquat[body],
        )  # fmt: skip
        for geom in shapes:
            _shape(link, model, geom, model.geom_pos[geom], model.geom_quat[geom])
        if body == base:
            continue
        index = int(model.body_jntadr[body])
        if (
            model.body_jntnum[body] != 1
            or model.jnt_type[index] != mujoco.mjtJoint.mjJNT_HINGE
            or np.any(model.jnt_pos[index])
        ):
            raise ValueError(f"{robot.model}: body {name} has no single hinge in its origin")
        joint, parent = model.joint(index).name, model.body(model.body_parentid[body]).name
        where = model.body_pos[body], model.body_quat[body]
        element = _joint(root, joint, "revolute", parent, name, *where, model.jnt_axis[index])
        low, high = model.jnt_range[index]
        ElementTree.SubElement(
            element, "limit", lower=_text([low]), upper=_text([high]), effort="1e9", velocity="1e9"
        )
        inertia = np.full(3, model.dof_armature[model.jnt_dofadr[index]] / GEAR**2)
        rotor = rotor_joint(joint)
        _link(root, rotor, 0.0, inertia)
        _joint(root, rotor, "continuous", parent, rotor, *where, model.jnt_axis[index])
    for geom, foot in feet.items():
        link = _link(root, foot, 0.0, np.zeros(3))
        _shape(link, model, geom, np.zeros(3), np.array([1.0, 0, 0, 0]))
        parent = model.body(model.geom_bodyid[geom]).name
        where = model.geom_pos[geom], model.geom_quat[geom]
        _joint(root, foot_joint(foot), "fixed", parent, foot, *where)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode")


def floor_geoms(model: mujoco.MjModel) -> list[int]:
    """The geoms of the robot that the floor stops."""
    floor = model.geom("floor").id
    touches = (model.geom_contype & model.geom_conaffinity[floor]) | (
        model.geom_conaffinity & model.geom_contype[floor]
    )
    return [int(g) for g in np.flatnonzero(touches) if g != floor]


def floor_friction(model: mujoco.MjModel, geom: int) -> float:
    """Sliding friction between a geom and the floor: the higher priority's, else the larger."""
    floor = model.geom("floor").id
    priority = model.geom_priority
    pair = [geom, floor] if priority[geom] == priority[floor] else [geom]
    if priority[floor] > priority[geom]:
        pair = [floor]
    return float(model.geom_friction[pair, 0].max())


def _text(values: Iterable[float]) -> str:
    return " ".join(repr(float(v)) for v in values)


def _origin(element: ElementTree.Element, position: NDArray, quaternion: NDArray) -> None:
    ElementTree.SubElement(
        element, "origin", xyz=_text(position), rpy=_text(roll_pitch_yaw(quaternion))
    )


def _link(
    root: ElementTree.Element,
    name: str,
    mass: float,
    inertia: NDArray,
    position: NDArray | None = None,
    quaternion: NDArray | None = None,
) -> ElementTree.Element:
    link = ElementTree.SubElement(root, "link", name=name)
    inertial = ElementTree.SubElement(link, "inertial")
    if position is not None and quaternion is not None:
        _origin(inertial, position, quaternion)
    ElementTree.SubElement(inertial, "mass", value=_text([mass]))
    ixx, iyy, izz = (_text([i]) for i in inertia)
    ElementTree.SubElement(
        inertial, "inertia", ixx=ixx, iyy=iyy, izz=izz, ixy="0", ixz="0", iyz="0"
    )
    return link


def _joint(
    root: ElementTree.Element,
    name: str,
    kind: str,
    parent: str,
    child: str,
    position: NDArray,
    quaternion: NDArray,
    axis: NDArray | None = None,
) -> ElementTree.Element:
    joint = ElementTree.SubElement(root, "joint", name=name, type=kind)
    ElementTree.SubElement(joint, "parent", link=parent)
    ElementTree.SubElement(joint, "child", link=child)
    _origin(joint, position, quaternion)
    if axis is not None:
        ElementTree.SubElement(joint, "axis", xyz=_text(axis))
    return joint


def _shape(
    link: ElementTree.Element,
    model: mujoco.MjModel,
    geom: int,
    position: NDArray,
    quaternion: NDArray,
) -> None:
    kind, size = mujoco.mjtGeom(model.geom_type[geom]), model.geom_size[geom]
    collision = ElementTree.SubElement(link, "collision")
    _origin(collision, position, quaternion)
    geometry = ElementTree.SubElement(collision, "geometry")
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        ElementTree.SubElement(geometry, "sphere", radius=_text(size[:1]))
    elif kind == mujoco.mjtGeom.mjGEOM_BOX:
        ElementTree.SubElement(geometry, "box", size=_text(2 * size))
    elif kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        ElementTree.SubElement(
            geometry, "capsule", radius=_text(size[:1]), length=_text(2 * size[1:2])
        )
    else:
        raise ValueError(f"geom {model.geom(geom).name or geom}: no URDF shape for {kind.name}")


def roll_pitch_yaw(quaternion: NDArray) -> NDArray[np.float64]:
    """URDF's fixed-axis angles of a quaternion (w, x, y, z), rad, [3]."""
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, np.asarray(quaternion, np.float64))
    r = matrix.reshape(3, 3)
    level = np.hypot(r[0, 0], r[1, 0])
    pitch = np.arctan2(-r[2, 0], level)
    if level < 1e-9:  # roll and yaw turn about the same axis: roll takes it all
        return np.array([np.arctan2(-r[1, 2], r[1, 1]), pitch, 0.0])
    return np.array([np.arctan2(r[2, 1], r[2, 2]), pitch, np.arctan2(r[1, 0], r[0, 0])])
