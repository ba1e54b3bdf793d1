"""Proximal policy optimisation."""

from __future__ import annotations

from dataclasses import dataclass

from motoric.configs.policy import Clipped


@dataclass
class Config(Clipped):
    """Proximal policy optimisation (stable-baselines3)."""

    learner = "motoric.policies.baselines:ppo"
    name: str = "ppo"
