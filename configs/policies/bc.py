"""Behaviour cloning."""

from __future__ import annotations

from dataclasses import dataclass

from motoric.configs.policy import Policy
from motoric.configs.schema import COUNT, NOT_NEGATIVE, POSITIVE, doc


@dataclass
class Config(Policy):
    """Behaviour cloning: actions as a data set has them, by regression; needs no environment."""

    learner = "motoric.policies.bc:behaviour_cloning"
    name: str = "bc"
    net_arch: list[int] = doc([256, 256], "hidden layers", COUNT)
    learning_rate: float = doc(1e-3, "Adam's step size", POSITIVE)
    weight_decay: float = doc(0.0, "of Adam's decoupled kind", NOT_NEGATIVE)
    batch_size: int = doc(256, "transitions per update", COUNT)
    normalize_observation: bool = doc(True, "by mean and deviation over the data set")
