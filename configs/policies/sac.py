"""Soft actor-critic."""

from __future__ import annotations

from dataclasses import dataclass

from motoric.configs.policy import OffPolicy
from motoric.configs.schema import COUNT, POSITIVE, doc


@dataclass
class Config(OffPolicy):
    """Soft actor-critic (stable-baselines3)."""

    learner = "motoric.policies.baselines:sac"
    name: str = "sac"
    learning_rate: float = doc(3e-4, "Adam's step size", POSITIVE)
    ent_coef: str = doc("auto", "entropy weight: 'auto' or a number")
    target_entropy: str = doc("auto", "'auto' or a number")
    target_update_interval: int = doc(1, "updates per target update", COUNT)
