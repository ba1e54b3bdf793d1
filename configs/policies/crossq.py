"""CrossQ."""

from __future__ import annotations

from dataclasses import dataclass

from motoric.configs.policy import Replayed
from motoric.configs.schema import COUNT, POSITIVE, doc


@dataclass
class Config(Replayed):
    """CrossQ: batch normalisation in place of target networks (sb3-contrib)."""

    learner = "motoric.policies.contrib:crossq"
    name: str = "crossq"
    learning_rate: float = doc(1e-3, "Adam's step size", POSITIVE)
    ent_coef: str = doc("auto", "entropy weight: 'auto' or a number")
    target_entropy: str = doc("auto", "'auto' or a number")
    policy_delay: int = doc(3, "critic updates per actor update", COUNT)
