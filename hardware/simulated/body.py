"""One simulated robot: MuJoCo physics and motors that compute their own PD torque.

`pybullet_body.py` is the same robot in PyBullet, with the same attributes.

The motors follow the last command, clipped to their torque limits, and damp when none came for
100 ms, as a real robot's do. Whatever serves it to a client (a socket, DDS, ...) calls `step` in
real time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import mujoco
import numpy as np
from motoric.control import rotation
from motoric.control.command import MotorCommand
from motoric.hardware.models import joint_addresses, load_model
from motoric.hardware.robot import Array, RobotSpec, RobotState
from motoric.hardware.simulated.sensors import Sensors

TIMESTEP = 0.0025  # s
WATCHDOG = 0.1  # s without a command until the motors damp
LAG = 0.05  # s behind real time from which simulated time waits rather than races


def real_time(timestep: float) -> Iterator[None]:
    """Go on once every `timestep` s, without end."""
    due = time.monotonic()
    while True:
        yield
        due += timestep
        now = time.monotonic()
        if now - due > LAG:  # the machine was busy
            due = now
        elif due > now:
            time.sleep(due - now)


class Motors:
    """What the motors do: off (no torque), damped, or following the last command."""

    def __init__(self, spec: RobotSpec) -> None:
        self.spec = spec
        self.on = False
        self.command: MotorCommand | None = None
        self.commanded_at = -np.inf  # simulated time
        self.steps = 0

    @property
    def time(self) -> float:
        """Simulated, s."""
        raise NotImplementedError

    def take(self, command: MotorCommand) -> None:
        self.command, self.commanded_at = command, self.time

    @property
    def mode(self) -> str:
        """off, damped or commanded."""
        if not self.on:
            return "off"
        silent = self.command is None or self.time - self.commanded_at > WATCHDOG
        return "damped" if silent else "commanded"

    def law(self) -> tuple[Array, Array, Array, Array]:
        """kp, kd, target and offset [J] of the torque kp (target - q) - kd dq + offset."""
        zero, command, mode = np.zeros(len(self.spec.joints)), self.command, self.mode
        if mode == "off":
            return zero, zero, zero, zero
        if mode == "damped" or command is None:
            return zero, self.spec.damping, zero, zero
        offset = command.kd * command.velocity + command.torque
        return command.kp, command.kd, command.position, offset


class Body(Motors):
    """One robot's physics, motors and sensors; its base floats, or is bolted down (`spec.fixed`).

    The model may hold more than the robot: joints are found by their names. Raises ValueError
    where it does not fit the spec.
    """

    def __init__(self, spec: RobotSpec, timestep: float = TIMESTEP) -> None:
        super().__init__(spec)
        self.model = model = load_model(spec)
        model.opt.timestep = timestep
        self.data = mujoco.MjData(model)
        self.sensors = Sensors(spec, model)
        joints = [model.joint(name).id for name in spec.joints]
        self._q, self._v = joint_addresses(model, spec)
        self._actuators = np.array([_actuator_of(model, joint) for joint in joints])
        self._base = None if spec.fixed else _base_of(model, joints[0])
        if self._base is not None:
            # One that has no pose to lie in hangs on a rope.
            height = (1.1 if np.array_equal(spec.rest, spec.stand) else 0.5) * spec.base_height
            self.data.qpos[self._base[0]] = [0, 0, height, 1, 0, 0, 0]
        self.data.qpos[self._q] = spec.rest
        for _ in range(round(1.0 / timestep)):  # let it settle on the floor
            self.step()
        self.state()  # the first picture of a camera takes a second: not when somebody waits

    @property
    def time(self) -> float:
        return self.data.time

    def step(self) -> None:
        """One time step of physics under the motors' present state."""
        model, motors = self.model, self._actuators
        kp, kd, target, offset = self.law()
        model.actuator_gainprm[motors, 0] = kp
        model.actuator_biasprm[motors, 0] = offset
        model.actuator_biasprm[motors, 1] = -kp
        model.actuator_biasprm[motors, 2] = -kd
        self.data.ctrl[motors] = target
        mujoco.mj_step(model, self.data)
        self.steps += 1

    def close(self) -> None:
        """Let go of the cameras. Safe to call more than once."""
        self.sensors.close()

    def disturb(
        self,
        push: tuple[float, ...] = (0.0, 0.0, 0.0),
        roll: float = 0.0,
        lift: float = 0.0,
        joint: tuple[int, float] | None = None,
    ) -> None:
        """Kick the base (m/s), turn and lift it (rad, m), where it is not bolted down; put a joint
        at an angle (rad)."""
        data = self.data
        if self._base is not None:
            place, speed = self._base
            pose = data.qpos[place].copy()
            pose[2] += lift
            pose[3:] = rotation.multiply(pose[3:], rotation.from_axis_angle([1.0, 0.0, 0.0], roll))
            data.qpos[place] = pose
            data.qvel[speed.start : speed.start + 3] += push
        if joint is not None:
            data.qpos[self._q[joint[0]]] = joint[1]

    def state(self) -> RobotState:
        """Measured now; base velocity in the base frame. A base that is bolted down is upright
        and at rest, and nobody measures where it is."""
        data = self.data
        state = RobotState(
            time=data.time,
            sequence=self.steps,
            position=data.qpos[self._q],
            velocity=data.qvel[self._v],
            torque=data.actuator_force[self._actuators],
            orientation=rotation.IDENTITY,
            angular_velocity=np.zeros(3),
            sensors=self.sensors.read(data),
        )
        if self._base is not None:
            place, speed = self._base
            set_base(state, data.qpos[place], data.qvel[speed])
        return state


def set_base(state: RobotState, pose: Array, velocity: Array) -> None:
    """Where the base is, from MuJoCo's layout: pose [7] in the world, velocity [6] (linear in the
    world, angular in the base frame)."""
    state.orientation, state.angular_velocity = pose[3:].copy(), velocity[3:].copy()
    state.base_velocity = rotation.rotate_inverse(pose[3:], velocity[:3])
    state.base_height = float(pose[2])


def _base_of(model: mujoco.MjModel, joint: int) -> tuple[slice, slice]:
    """Places of the pose and velocity of the floating base that a joint hangs on."""
    first = model.body_jntadr[model.body_rootid[model.jnt_bodyid[joint]]]
    if first < 0 or model.jnt_type[first] != mujoco.mjtJoint.mjJNT_FREE:
        raise ValueError("the model's base has no free joint: a robot that is bolted down is fixed")
    q, v = model.jnt_qposadr[first], model.jnt_dofadr[first]
    return slice(q, q + 7), slice(v, v + 6)


def _actuator_of(model: mujoco.MjModel, joint: int) -> int:
    found = np.flatnonzero(
        (model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT)
        & (model.actuator_trnid[:, 0] == joint)
    )
    if len(found) != 1:
        raise ValueError(f"{model.joint(joint).name}: {len(found)} actuators, expected one")
    return int(found[0])
