"""What the configurations of all learning algorithms share, and where they are found.

Ours are the modules of `configs/policies/`, each with a dataclass `Config`. A package adds its own
by an entry point of the group `motoric.policies` whose value is such a dataclass.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import ClassVar

from motoric.configs import policies
from motoric.configs.schema import COUNT, FACTOR, NOT_NEGATIVE, POSITIVE, SHARE, Range, doc
from motoric.hardware.registry import Table
from omegaconf import MISSING


@dataclass
class Policy:
    """A learning algorithm: its name, and its hyperparameters as fields.

    learner: `module:function` of what learns, called as `function(config, env, data, seed, device)`
    and returning a `motoric.policies.contract.Learner`; env is a `VecEnv` or None, data a
    `Transitions` or None.
    """

    learner: ClassVar[str]
    name: str = MISSING


@dataclass
class ActorCritic(Policy):
    """What algorithms that learn from an environment's steps share."""

    net_arch: list[int] = doc([256, 256], "hidden layers of actor and critic", COUNT)
    gamma: float = doc(0.99, "discount per step", SHARE)
    batch_size: int = doc(256, "transitions per gradient step", COUNT)
    normalize_observation: bool = doc(False, "running mean and deviation of observations")
    normalize_reward: bool = doc(False, "divide rewards by the deviation of the return")


@dataclass
class Clipped(ActorCritic):
    """What proximal policy optimisation and its kin share."""

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


@dataclass
class Replayed(ActorCritic):
    """What algorithms with a replay buffer share."""

    buffer_size: int = doc(1_000_000, "transitions kept", COUNT)
    learning_starts: int = doc(10_000, "environment steps before the first update", NOT_NEGATIVE)
    train_freq: int = doc(
        1, "environment steps, of all environments together, per update call", COUNT
    )
    gradient_steps: int = doc(
        1, "updates per call; -1: one per collected transition", Range(least=-1)
    )
    n_steps: int = doc(1, "length of the return before bootstrapping", COUNT)
    replay: str = doc(
        "auto",
        "transitions in the memory of the 'host' or of the learning 'device'; 'auto': of a GPU",
        ("auto", "host", "device"),
    )


@dataclass
class OffPolicy(Replayed):
    """And those with target networks besides."""

    tau: float = doc(0.005, "Polyak factor of the target networks", FACTOR)


POLICIES = Table(
    "policy",
    "policies",
    {
        module.name: f"{policies.__name__}.{module.name}:Config"
        for module in pkgutil.iter_modules(policies.__path__)
    },
)
