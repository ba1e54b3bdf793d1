"""HalfCheetah-v5 of Gymnasium, N at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from motoric.envs.engine import Array
from motoric.envs.gymnasium_task import GymnasiumTask
from motoric.envs.task import Step
from motoric.hardware.measured import Measured
from numpy.typing import NDArray


@dataclass(frozen=True)
class HalfCheetah(GymnasiumTask):
    """Run forward; never ends before the time limit."""

    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 0.1
    reset_noise_scale: float = 0.1
    episode_seconds: float = 50.0

    name = id = "HalfCheetah-v5"
    model_file = "half_cheetah.xml"
    contact_forces = False
    size = 17
    actions = 6

    def observe(self, measured: Measured) -> NDArray[np.float32]:
        return np.hstack([measured.position[:, 1:], measured.velocity]).astype(np.float32)

    def reward(self, step: Step) -> tuple[Array, dict[str, Array]]:
        terms = {
            "forward": self.forward_reward_weight * self.forward(step),
            "control": -self.ctrl_cost_weight * np.sum(step.action**2, 1),
        }
        return terms["forward"] + terms["control"], terms


TASK = HalfCheetah
