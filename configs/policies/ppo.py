"""Proximal policy optimisation."""

from __future__ import annotations

from dataclasses import dataclass

from motoric.configs.policy import ActorCritic
from motoric.configs.schema import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, Range, doc


@dataclass
class Config(ActorCritic):
    """Proximal policy optimisation (stable-baselines3)."""

    learner = "motoric.policies.baselines:ppo"
    name: str = "ppo"
    net_arch: list[int] = doc([64, 64], "hidden layers of actor and critic", COUNT)
    batch_size: int = doc(64, "transitions per gradient step", Range(least=2))
    learning_rate: float = doc(3e-4, "Adam's step size at the start", POSITIVE)
    learning_rate_end: float | None = doc(
        None, "step size at the end, linearly; null: constant", NOT_NEGATIVE
    )
    n_steps: int | None = doc(
        None,
        "steps of each environment between updates; null: 2048 of all together, at least 16 each",
        Range(least=2),
    )
    n_epochs: int = doc(10, "passes over each batch of experience", COUNT)
    gae_lambda: float = doc(0.95, "of the advantage estimate", SHARE)
    clip_range: float = doc(0.2, "of the probability ratio", POSITIVE)
    ent_coef: float = doc(0.0, "entropy bonus", NOT_NEGATIVE)
    vf_coef: float = doc(0.5, "weight of the value loss", NOT_NEGATIVE)
    max_grad_norm: float = doc(0.5, "gradient clipping", POSITIVE)
    log_std_init: float = doc(0.0, "initial log deviation of actions")
    activation: str = doc("tanh", "tanh, relu, elu or gelu", ("tanh", "relu", "elu", "gelu"))
