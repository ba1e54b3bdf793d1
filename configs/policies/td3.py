"""Twin delayed deep deterministic policy gradient."""

from __future__ import annotations

from dataclasses import dataclass

from motoric.configs.policy import OffPolicy
from motoric.configs.schema import COUNT, NOT_NEGATIVE, POSITIVE, doc


@dataclass
class Config(OffPolicy):
    """Twin delayed DDPG (stable-baselines3), with Gaussian exploration noise."""

    learner = "motoric.policies.baselines:td3"
    name: str = "td3"
    net_arch: list[int] = doc([400, 300], "hidden layers of actor and critics", COUNT)
    learning_rate: float = doc(1e-3, "Adam's step size", POSITIVE)
    policy_delay: int = doc(2, "critic updates per actor update", COUNT)
    target_policy_noise: float = doc(0.2, "smoothing of target actions", NOT_NEGATIVE)
    target_noise_clip: float = doc(0.5, "limit of that noise", NOT_NEGATIVE)
    exploration_noise: float = doc(
        0.1, "deviation of the noise on actions in [-1, 1]", NOT_NEGATIVE
    )
