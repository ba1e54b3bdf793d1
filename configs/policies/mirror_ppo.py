"""Proximal policy optimisation, exactly symmetric where the environment says how it mirrors."""

from __future__ import annotations

from dataclasses import dataclass

from motoric.configs.policy import Policy
from motoric.configs.schema import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, Range, doc


@dataclass
class Config(Policy):
    """Symmetric proximal policy optimisation (our own), for few CPU cores."""

    learner = "motoric.policies.ppo:mirror_ppo"
    name: str = "mirror_ppo"
    net_arch: list[int] = doc([128, 128], "hidden layers of actor and critic", COUNT)
    activation: str = doc("silu", "elu, relu, silu or tanh", ("elu", "relu", "silu", "tanh"))
    mirror: bool = doc(True, "a symmetric policy, where the environment says how it mirrors")
    blend: float = doc(0.1, "to each side of a half cycle, cycles that join its actions", POSITIVE)
    n_steps: int = doc(24, "steps of each environment between updates", Range(least=2))
    batch_size: int = doc(1536, "transitions per gradient step", Range(least=2))
    n_epochs: int = doc(5, "passes over each batch of experience", COUNT)
    learning_rate: float = doc(1e-3, "Adam's step size at the start", POSITIVE)
    learning_rate_end: float = doc(3e-4, "step size at the end, linearly", NOT_NEGATIVE)
    gamma: float = doc(0.97, "discount per step", SHARE)
    gae_lambda: float = doc(0.95, "of the advantage estimate", SHARE)
    clip_range: float = doc(0.2, "of the probability ratio", POSITIVE)
    ent_coef: float = doc(0.0, "entropy bonus", NOT_NEGATIVE)
    max_grad_norm: float = doc(1.0, "gradient clipping", POSITIVE)
    log_std_init: float = doc(-1.0, "initial log deviation of actions")
