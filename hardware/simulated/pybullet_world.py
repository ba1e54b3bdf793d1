"""One robot in a PyBullet world of its own, with the numbers of its MuJoCo model.

Poses and velocities are in MuJoCo's layout, so that whatever reads one engine reads the other:
qpos [7 + J]: base position (m) and orientation (w, x, y, z) in the world, joints (rad);
qvel [6 + J]: base velocity in the world (m/s), angular velocity in the base frame, joints (rad/s).

What PyBullet's URDF can't say is made here: armature by geared rotors (`models/urdf.py`), joint
friction by a motor that wants rest and is as strong as the friction.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from motoric.control.rotation import multiply, to_matrix
from motoric.hardware.models.urdf import (
    GEAR,
    floor_friction,
    floor_geoms,
    foot_joint,
    rotor_joint,
    to_urdf,
)
from motoric.hardware.robot import RobotSpec
from numpy.typing import NDArray

Array = NDArray[np.float64]

MISSING = "engine=pybullet needs PyBullet: pip install 'motoric[pybullet]'"


def import_quietly() -> Any:
    """The module, which otherwise prints when it was built. Raises ImportError without PyBullet."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import pybullet
    except ImportError:
        raise ImportError(MISSING) from None
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
    return pybullet


class PyBulletWorld:
    """A floor and a robot. Raises ImportError, naming the extra, where PyBullet is missing."""

    def __init__(self, robot: RobotSpec, model: mujoco.MjModel, timestep: float) -> None:
        pybullet = import_quietly()
        self._bullet: Any = pybullet
        self.robot, self.timestep = robot, timestep
        self._client = pybullet.connect(pybullet.DIRECT)
        if self._client < 0:
            raise RuntimeError("PyBullet has no room for another world in this process")
        self._call = {"physicsClientId": self._client}
        pybullet.setGravity(*model.opt.gravity, **self._call)
        pybullet.setPhysicsEngineParameter(
            fixedTimeStep=timestep,
            numSolverIterations=50,
            solverResidualThreshold=0,
            # Nothing is carried from step to step but what `state` tells.
            warmStartingFactor=0,
            deterministicOverlappingPairs=1,
            **self._call,
        )
        plane = pybullet.createCollisionShape(pybullet.GEOM_PLANE, **self._call)
        self._floor = pybullet.createMultiBody(0, plane, **self._call)
        pybullet.changeDynamics(self._floor, -1, lateralFriction=1.0, restitution=0, **self._call)
        self._load(to_urdf(model, robot))
        self._set_constants(model)

    def _load(self, urdf: str) -> None:
        p, robot = self._bullet, self.robot
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{robot.name}.urdf"
            path.write_text(urdf)
            flags = p.URDF_USE_INERTIA_FROM_FILE
            self._body = p.loadURDF(str(path), [0, 0, 1.0], flags=flags, **self._call)
        count = p.getNumJoints(self._body, **self._call)
        joints = [p.getJointInfo(self._body, i, **self._call)[1].decode() for i in range(count)]
        self._joints = [joints.index(name) for name in robot.joints]
        self._rotors = [joints.index(rotor_joint(name)) for name in robot.joints]
        self._feet = [joints.index(foot_joint(name)) for name in robot.feet]
        self._foot_of = {link: i for i, link in enumerate(self._feet)}
        for link in range(-1, count):
            p.changeDynamics(
                self._body, link, linearDamping=0, angularDamping=0, restitution=0,
                maxJointVelocity=1e9, **self._call,
            )  # fmt: skip
        for joint, rotor in zip(self._joints, self._rotors, strict=True):
            gear = p.createConstraint(
                self._body, joint, self._body, rotor, p.JOINT_GEAR,
                [0, 0, 1], [0, 0, 0], [0, 0, 0], **self._call,
            )  # fmt: skip
            p.changeConstraint(gear, gearRatio=-1.0 / GEAR, maxForce=1e9, **self._call)
            p.setJointMotorControl2(self._body, rotor, p.VELOCITY_CONTROL, force=0, **self._call)

    def _set_constants(self, model: mujoco.MjModel) -> None:
        p, robot = self._bullet, self.robot
        base = int(model.jnt_bodyid[0])
        self._mass, self._inertia = float(model.body_mass[base]), model.body_inertia[base].copy()
        self._com, turn = model.body_ipos[base].copy(), model.body_iquat[base].copy()
        self._turn, self._turn_back = turn, turn * np.array([1.0, -1, -1, -1])
        dofs = [int(model.joint(name).dofadr[0]) for name in robot.joints]
        self._damping, self._friction = model.dof_damping[dofs], model.dof_frictionloss[dofs]
        self._armature = model.dof_armature[dofs]
        self._set_drag(1.0)
        feet = [model.geom(name).id for name in robot.feet]
        self._radius = model.geom_size[feet, 0].copy()
        links = {model.body(base).name: -1}
        for joint, name in zip(self._joints, robot.joints, strict=True):
            links[model.body(model.joint(name).bodyid[0]).name] = joint
        for geom in floor_geoms(model):
            if geom in feet:
                link = self._feet[feet.index(geom)]
            else:
                link = links[model.body(model.geom_bodyid[geom]).name]
            friction = floor_friction(model, geom)
            p.changeDynamics(self._body, link, lateralFriction=friction, **self._call)

    def _set_drag(self, factor: float) -> None:
        """Damping and friction of the joints, as multiples of the model's."""
        p = self._bullet
        for joint, damping, friction in zip(
            self._joints, factor * self._damping, factor * self._friction, strict=True
        ):
            p.changeDynamics(self._body, joint, jointDamping=float(damping), **self._call)
            p.setJointMotorControl2(
                self._body, joint, p.VELOCITY_CONTROL, targetVelocity=0,
                force=float(friction), **self._call,
            )  # fmt: skip

    def set_physics(
        self, friction: float, payload: float, armature: float = 1.0, drag: float = 1.0
    ) -> None:
        """Friction of the feet; kg added to the base, its inertia growing in proportion; rotor
        inertia, damping and friction of the joints as multiples of the model's."""
        self._set_drag(drag)
        for rotor, inertia in zip(self._rotors, armature * self._armature / GEAR**2, strict=True):
            self._bullet.changeDynamics(
                self._body, rotor, localInertiaDiagonal=[float(inertia)] * 3, **self._call
            )
        p, mass = self._bullet, self._mass + payload
        inertia = (self._inertia * (mass / self._mass)).tolist()
        p.changeDynamics(self._body, -1, mass=mass, localInertiaDiagonal=inertia, **self._call)
        for foot in self._feet:
            p.changeDynamics(self._body, foot, lateralFriction=friction, **self._call)

    def set_state(self, qpos: Array, qvel: Array) -> None:
        """Put the robot there, moving so."""
        rotation = to_matrix(qpos[3:7])
        angular, arm = rotation @ qvel[3:6], rotation @ self._com
        parts = (
            qpos[:3] + arm,
            multiply(qpos[3:7], self._turn)[[1, 2, 3, 0]],
            qvel[:3] + np.cross(angular, arm),
            angular,
            qpos[7:],
            np.zeros(len(self._rotors)),
            qvel[6:],
            GEAR * qvel[6:],
        )
        self.load(np.concatenate(parts, dtype=np.float64))

    def state(self) -> tuple[Array, Array]:
        """qpos and qvel now."""
        saved, n = self.save(), len(self._joints)
        x, y, z, w = saved[3:7]
        orientation = multiply(np.array([w, x, y, z]), self._turn_back)
        orientation /= np.linalg.norm(orientation)
        rotation, angular = to_matrix(orientation), saved[10:13]
        arm = rotation @ self._com
        joints, speeds = saved[13 : 13 + n], saved[13 + 2 * n : 13 + 3 * n]
        velocity = saved[7:10] - np.cross(angular, arm)
        return (
            np.concatenate([saved[:3] - arm, orientation, joints]),
            np.concatenate([velocity, rotation.T @ angular, speeds], dtype=np.float64),
        )

    def joints(self) -> tuple[Array, Array]:
        """Positions and velocities of the joints, rad, rad/s, [J]."""
        states = self._bullet.getJointStates(self._body, self._joints, **self._call)
        return np.array([s[0] for s in states]), np.array([s[1] for s in states])

    def push(self, velocity: Array) -> None:
        """Add to the base's velocity in the world, m/s, [3]."""
        p = self._bullet
        linear, angular = p.getBaseVelocity(self._body, **self._call)
        linear = (np.array(linear) + velocity).tolist()
        p.resetBaseVelocity(self._body, linear, angular, **self._call)

    def wrench(self, wrench: Array) -> None:
        """Force N and torque N m in the world on the base, [6], for the next step only."""
        p, values = self._bullet, wrench.tolist()
        place, _ = p.getBasePositionAndOrientation(self._body, **self._call)
        p.applyExternalForce(self._body, -1, values[:3], place, p.WORLD_FRAME, **self._call)
        p.applyExternalTorque(self._body, -1, values[3:], p.WORLD_FRAME, **self._call)

    def step(self, torque: Array) -> None:
        """One time step with these motor torques, N m, [J]."""
        p, force = self._bullet, torque.tolist()
        p.setJointMotorControlArray(
            self._body, self._joints, p.TORQUE_CONTROL, forces=force, **self._call
        )
        p.stepSimulation(**self._call)

    def feet(self) -> tuple[Array, Array, Array]:
        """Height above the ground, m, [F]; velocity in the world, m/s, [F, 3]; normal force of
        the last step, N, [F]."""
        p = self._bullet
        states = p.getLinkStates(
            self._body, self._feet, computeLinkVelocity=1, computeForwardKinematics=1, **self._call
        )
        height = np.array([s[4][2] for s in states]) - self._radius
        velocity = np.array([s[6] for s in states])
        force = np.zeros(len(self._feet))
        for contact in p.getContactPoints(self._body, self._floor, **self._call):
            foot = self._foot_of.get(contact[3])
            if foot is not None:
                force[foot] += contact[9]
        return height, velocity, force

    def save(self) -> Array:
        """All that the next step depends on, as `load` takes it."""
        p = self._bullet
        position, orientation = p.getBasePositionAndOrientation(self._body, **self._call)
        velocity, angular = p.getBaseVelocity(self._body, **self._call)
        states = p.getJointStates(self._body, self._joints + self._rotors, **self._call)
        joints, speeds = [s[0] for s in states], [s[1] for s in states]
        return np.array([*position, *orientation, *velocity, *angular, *joints, *speeds])

    def load(self, saved: Array) -> None:
        """Continue where `save` was called."""
        p, values = self._bullet, saved.tolist()
        links = self._joints + self._rotors
        p.resetBasePositionAndOrientation(self._body, values[:3], values[3:7], **self._call)
        p.resetBaseVelocity(self._body, values[7:10], values[10:13], **self._call)
        joints, speeds = values[13 : 13 + len(links)], values[13 + len(links) :]
        for link, angle, speed in zip(links, joints, speeds, strict=True):
            p.resetJointState(self._body, link, angle, speed, **self._call)

    def close(self) -> None:
        """Give its memory back. Safe to call more than once."""
        if self._client >= 0:
            self._bullet.disconnect(**self._call)
            self._client = -1

    def __del__(self) -> None:
        if getattr(self, "_client", -1) >= 0 and self._bullet.isConnected(**self._call):
            self.close()
