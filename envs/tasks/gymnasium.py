"""HalfCheetah-v5 and Ant-v5 of Gymnasium, N at a time: the same observation, reward and
termination, step for step. Every function is pure over arrays with a leading dimension N.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
from motoric.envs.engine import Array
from numpy.typing import NDArray

ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"


@dataclass
class State:
    """What these tasks read of N simulations.

    qpos [N, nq], qvel [N, nv]; x [N]: how far the torso is, m; contact [N, B, 6]: torque and force
    of contacts on each body, where the task reads them
    """

    qpos: Array
    qvel: Array
    x: Array
    contact: Array


class GymnasiumTask:
    """What is common. `options` of the configuration are the fields of the subclasses, which are
    named as the arguments of `gymnasium.make`."""

    id: ClassVar[str]
    model_file: ClassVar[str]
    contact_forces: ClassVar[bool]  # read, and so computed
    observation_size: ClassVar[int]
    action_size: ClassVar[int]
    action_limit: ClassVar[float] = 1.0
    frame_skip: ClassVar[int] = 5
    control_dt: ClassVar[float] = 0.05  # s
    episode_steps: ClassVar[int] = 1000
    reset_noise_scale: float

    def model(self) -> Any:
        """Gymnasium's MuJoCo model."""
        import mujoco

        return mujoco.MjModel.from_xml_path(str(ASSETS / self.model_file))

    def reset(self, model: Any, draw: Array) -> tuple[Array, Array]:
        """Where M simulations start, qpos [M, nq] and qvel [M, nv], from uniform draws
        [M, nq + 2 nv]."""
        nq, nv, scale = model.nq, model.nv, self.reset_noise_scale
        position, radius, angle = np.split(draw, [nq, nq + nv], axis=1)
        normal = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)  # Box-Muller
        return model.qpos0 + scale * (2 * position - 1), scale * normal

    def observe(self, state: State) -> NDArray[np.float32]:
        raise NotImplementedError

    def reward(
        self, state: State, before: Array, action: Array
    ) -> tuple[Array, dict[str, Array], Array]:
        """Reward [N] of a step, its terms [N], and forward velocity [N], m/s.

        before [N]: `state.x` before the step; action [N, A]
        """
        raise NotImplementedError

    def terminated(self, state: State) -> NDArray[np.bool_]:
        raise NotImplementedError


@dataclass(frozen=True)
class HalfCheetah(GymnasiumTask):
    """Run forward; never ends before the time limit."""

    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 0.1
    reset_noise_scale: float = 0.1

    id = "HalfCheetah-v5"
    model_file = "half_cheetah.xml"
    contact_forces = False
    observation_size = 17
    action_size = 6

    def observe(self, state: State) -> NDArray[np.float32]:
        return np.hstack([state.qpos[:, 1:], state.qvel]).astype(np.float32)

    def reward(
        self, state: State, before: Array, action: Array
    ) -> tuple[Array, dict[str, Array], Array]:
        velocity = (state.x - before) / self.control_dt
        terms = {
            "forward": self.forward_reward_weight * velocity,
            "control": -self.ctrl_cost_weight * np.sum(action**2, 1),
        }
        return terms["forward"] + terms["control"], terms, velocity

    def terminated(self, state: State) -> NDArray[np.bool_]:
        return np.zeros(len(state.qpos), bool)


@dataclass(frozen=True)
class Ant(GymnasiumTask):
    """Run forward without tipping over; sees the contact forces on its bodies."""

    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 0.5
    contact_cost_weight: float = 5e-4
    healthy_reward: float = 1.0
    terminate_when_unhealthy: bool = True
    reset_noise_scale: float = 0.1

    id = "Ant-v5"
    model_file = "ant.xml"
    contact_forces = True
    observation_size = 105
    action_size = 8

    def observe(self, state: State) -> NDArray[np.float32]:
        contact = np.clip(state.contact[:, 1:], -1.0, 1.0).reshape(len(state.qpos), -1)
        return np.hstack([state.qpos[:, 2:], state.qvel, contact]).astype(np.float32)

    def reward(
        self, state: State, before: Array, action: Array
    ) -> tuple[Array, dict[str, Array], Array]:
        velocity = (state.x - before) / self.control_dt
        contact = np.clip(state.contact, -1.0, 1.0)
        terms = {
            "forward": self.forward_reward_weight * velocity,
            "healthy": self.healthy_reward * self._healthy(state),
            "control": -self.ctrl_cost_weight * np.sum(action**2, 1),
            "contact": -self.contact_cost_weight * np.sum(contact**2, (1, 2)),
        }
        return sum(terms.values(), np.zeros(len(action))), terms, velocity

    def terminated(self, state: State) -> NDArray[np.bool_]:
        return ~self._healthy(state) & self.terminate_when_unhealthy

    def _healthy(self, state: State) -> NDArray[np.bool_]:
        finite = np.isfinite(state.qpos).all(1) & np.isfinite(state.qvel).all(1)
        return finite & (state.qpos[:, 2] >= 0.2) & (state.qpos[:, 2] <= 1.0)
