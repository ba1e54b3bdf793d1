"""Ant-v5 of Gymnasium, N at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from motoric.envs.engine import Array
from motoric.envs.gymnasium_task import GymnasiumTask
from motoric.envs.task import Episode, Step
from motoric.hardware.measured import Measured
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ant(GymnasiumTask):
    """Run forward without tipping over; sees the contact forces on its bodies."""

    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 0.5
    contact_cost_weight: float = 5e-4
    healthy_reward: float = 1.0
    terminate_when_unhealthy: bool = True
    reset_noise_scale: float = 0.1
    episode_seconds: float = 50.0

    name = id = "Ant-v5"
    model_file = "ant.xml"
    contact_forces = True
    size = 105
    actions = 8

    def observe(self, measured: Measured) -> NDArray[np.float32]:
        contact = np.clip(measured.sensors["contact"][:, 1:], -1.0, 1.0)
        parts = [measured.position[:, 2:], measured.velocity, contact.reshape(len(contact), -1)]
        return np.hstack(parts).astype(np.float32)

    def reward(self, step: Step) -> tuple[Array, dict[str, Array]]:
        contact = np.clip(step.after.sensors["contact"], -1.0, 1.0)
        terms = {
            "forward": self.forward_reward_weight * self.forward(step),
            "healthy": self.healthy_reward * (_health(step.after) >= 0),
            "control": -self.ctrl_cost_weight * np.sum(step.action**2, 1),
            "contact": -self.contact_cost_weight * np.sum(contact**2, (1, 2)),
        }
        return sum(terms.values(), np.zeros(len(contact))), terms

    def margin(self, measured: Measured, episode: Episode) -> Array | None:
        return _health(measured) if self.terminate_when_unhealthy else None


def _health(measured: Measured) -> Array:
    """How far the torso's height is inside 0.2 to 1 m, [N]; NaN where anything isn't finite."""
    height = measured.position[:, 2]
    finite = np.isfinite(measured.position).all(1) & np.isfinite(measured.velocity).all(1)
    return np.where(finite, np.minimum(height - 0.2, 1.0 - height), np.nan)


TASK = Ant
