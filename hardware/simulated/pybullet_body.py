"""One simulated robot: PyBullet physics behind the motors of `body.py`."""

from __future__ import annotations

import numpy as np
from motoric.control import rotation
from motoric.hardware.models import load_model
from motoric.hardware.robot import RobotSpec, RobotState
from motoric.hardware.simulated.body import TIMESTEP, Motors, set_base
from motoric.hardware.simulated.pybullet_world import PyBulletWorld


class PyBulletBody(Motors):
    """One robot's physics and motors; what `Body` is in MuJoCo.

    Raises ImportError, naming the extra, where PyBullet is missing, and ValueError for a robot
    that it can't simulate.
    """

    def __init__(self, spec: RobotSpec) -> None:
        super().__init__(spec)
        if spec.fixed or spec.sensors:
            raise ValueError(f"{spec.name}: PyBullet simulates robots that float, without sensors")
        self.model = load_model(spec)
        self.world = PyBulletWorld(spec, self.model, TIMESTEP)
        self.torque = np.zeros(len(spec.joints))
        height = 0.5 * spec.base_height
        qpos = np.concatenate([[0, 0, height, 1, 0, 0, 0], spec.rest])
        self.world.set_state(qpos, np.zeros(len(qpos) - 1))
        for _ in range(round(1.0 / TIMESTEP)):  # let it settle on the floor
            self.step()

    @property
    def time(self) -> float:
        return self.steps * TIMESTEP

    def step(self) -> None:
        """One time step of physics under the motors' present state."""
        position, velocity = self.world.joints()
        kp, kd, target, offset = self.law()
        limit = self.spec.limits.torque
        self.torque = np.clip(kp * (target - position) - kd * velocity + offset, -limit, limit)
        self.world.step(self.torque)
        self.steps += 1

    def close(self) -> None:
        """There is nothing to let go of: the world ends with the process."""

    def disturb(
        self,
        push: tuple[float, ...] = (0.0, 0.0, 0.0),
        roll: float = 0.0,
        lift: float = 0.0,
        joint: tuple[int, float] | None = None,
    ) -> None:
        """Kick the base (m/s), turn and lift it (rad, m), put a joint at an angle (rad)."""
        qpos, qvel = self.world.state()
        qvel[:3] += push
        turn = rotation.from_axis_angle([1.0, 0.0, 0.0], roll)
        qpos[3:7] = rotation.multiply(qpos[3:7], turn)
        qpos[2] += lift
        if joint is not None:
            qpos[7 + joint[0]] = joint[1]
        self.world.set_state(qpos, qvel)

    def state(self) -> RobotState:
        """Measured now; base velocity in the base frame."""
        qpos, qvel = self.world.state()
        state = RobotState(
            time=self.time,
            sequence=self.steps,
            position=qpos[7:].copy(),
            velocity=qvel[6:].copy(),
            torque=self.torque.copy(),
            orientation=rotation.IDENTITY,
            angular_velocity=np.zeros(3),
        )
        set_base(state, qpos[:7], qvel[:6])
        return state
