"""Behaviour cloning: regression from observations to the actions of a data set.

Source: Pomerleau, "ALVINN: an autonomous land vehicle in a neural network", NIPS 1988; as a
baseline of offline learning, Fu et al., "D4RL", arXiv 2004.07219 (appendix C). With a Gaussian of
fixed deviation the likelihood of an action is a squared distance, here in units of half the range:

    minimise  mean |(pi(s) - a) / h|^2,   h = (high - low) / 2

It makes no environment and needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from motoric.policies.contract import (
    Exported,
    Learner,
    Network,
    Runs,
    State,
    Tensor,
    draw,
    half_range,
    tensor_of,
)
from motoric.policies.data.transitions import Transitions
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.utils import get_device
from torch import nn

PIECE = 2**16  # rows of a data set looked at together


def moments(observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of observations [T, ...] over T, in float64; deviations of at least 1e-6
    of the largest, so that what hardly changes is not blown up."""
    total: Any = sum(_pieces(observations, lambda x: x.sum(0)))
    mean = total / len(observations)
    square = sum(_pieces(observations, lambda x: ((x - mean) ** 2).sum(0)))
    deviation = np.sqrt(square / len(observations))
    return mean, np.maximum(deviation, max(1e-6 * deviation.max(), 1e-8))


def _pieces(array: np.ndarray, of: Callable[[np.ndarray], Any]) -> Any:
    for begin in range(0, len(array), PIECE):
        yield of(np.asarray(array[begin : begin + PIECE], np.float64))


class Cloned(nn.Module):
    """Raw observations [N, ...] to actions [N, ...]: normalised, an MLP, clipped to the bounds.

    :param mean, deviation: of observations, shaped like one of them
    :param action_space: a ``Box``
    :param hidden: sizes of the hidden layers
    """

    mean: th.Tensor
    deviation: th.Tensor
    low: th.Tensor
    high: th.Tensor
    scale: th.Tensor
    centre: th.Tensor

    def __init__(
        self, mean: np.ndarray, deviation: np.ndarray, action_space: spaces.Box, hidden: list[int]
    ):
        super().__init__()
        self.shape = action_space.shape
        low, high = (b.astype(np.float64) for b in (action_space.low, action_space.high))
        scale = np.where(np.isfinite(high - low), (high - low) / 2, 1.0)
        centre = np.where(np.isfinite(high - low), (high + low) / 2, 0.0)
        buffers = {"mean": mean, "deviation": deviation, "low": low, "high": high}
        for name, value in (buffers | {"scale": scale, "centre": centre}).items():
            self.register_buffer(name, th.as_tensor(value, dtype=th.float32))
        self.net = nn.Sequential(*create_mlp(mean.size, int(np.prod(self.shape)), hidden))

    def scaled(self, observation: th.Tensor) -> th.Tensor:
        """Actions in units of half their range about its centre, without bounds ``[N, A]``."""
        return self.net(((observation.float() - self.mean) / self.deviation).flatten(1))

    def forward(self, observation: th.Tensor) -> th.Tensor:
        action = self.centre + self.scale * self.scaled(observation).reshape(-1, *self.shape)
        return th.clamp(action, self.low, self.high)


class BehaviourCloning(Learner):
    """Its progress is updates, each with a batch of transitions drawn with replacement."""

    unit = "updates"

    def __init__(self, config: Any, data: Transitions, seed: int, device: str):
        space, action_space = data.observation_space, data.action_space
        if not isinstance(space, spaces.Box) or space.dtype == np.uint8:
            raise ValueError(f"policy: {config.name!r} sees flat numbers, the data set has {space}")
        if not isinstance(action_space, spaces.Box):
            raise ValueError(
                f"policy: {config.name!r} needs continuous actions, the data set has {action_space}"
            )
        self.config, self.data, self.device = config, data, get_device(device)
        self.observation_space, self.action_space = space, action_space
        observations: Any = data.observations
        mean, deviation = np.zeros(space.shape), np.ones(space.shape)
        if config.normalize_observation:
            mean, deviation = moments(observations)
        with th.random.fork_rng(devices=[]):
            th.manual_seed(seed)
            self.policy = Cloned(mean, deviation, action_space, config.net_arch).to(self.device)
        self.optimizer = th.optim.AdamW(
            self.policy.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self.random = np.random.default_rng(seed)
        self.updates = 0
        self.losses: list[th.Tensor] = []

    @property
    def done(self) -> int:
        return self.updates

    def learn(self, total: int, between: Callable[[], None]) -> None:
        while self.updates < total:
            between()
            self.update()

    def update(self) -> None:
        rows = self.random.integers(len(self.data), size=self.config.batch_size)
        observations: Any = self.data.observations
        observation, action = (
            th.as_tensor(np.asarray(array[rows], np.float32), device=self.device)
            for array in (observations, self.data.actions)
        )
        policy = self.policy
        wanted = ((action - policy.centre) / policy.scale).flatten(1)
        loss = (policy.scaled(observation) - wanted).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.detach())
        self.updates += 1

    def metrics(self) -> dict[str, float]:
        if not self.losses:
            return {}
        loss, self.losses = th.stack(self.losses).mean().item(), []
        return {"train/loss": loss}

    def is_finite(self) -> bool:
        return all(bool(p.isfinite().all()) for p in self.policy.parameters())

    def state(self) -> State:
        return State(
            {"policy": self.policy.state_dict(), "optimizer": self.optimizer.state_dict()},
            values={"updates": self.updates, "random": self.random.bit_generator.state},
        )

    def load_state(self, state: State) -> None:
        self.policy.load_state_dict(state.tensors["policy"])
        self.optimizer.load_state_dict(state.tensors["optimizer"])
        self.updates = state.values["updates"]
        self.random.bit_generator.state = state.values["random"]

    def exported(self) -> Exported:
        space, policy = self.action_space, self.policy
        action = Tensor("action", space.shape)
        seen = tensor_of("observation", self.observation_space)
        return Exported(
            (Network("policy", policy, (seen,), (action,)),),
            action, space.low.ravel(), space.high.ravel(),
            normalisation={
                "mean": policy.mean.tolist(), "deviation": policy.deviation.tolist()
            } if self.config.normalize_observation else None,
        )  # fmt: skip

    @th.no_grad()
    def difference(self, run: Runs, count: int) -> float:
        mean, deviation = (b.numpy(force=True) for b in (self.policy.mean, self.policy.deviation))
        random = np.random.default_rng(0)
        seen = draw(self.observation_space, count, random, mean, deviation)
        wanted = self.policy(th.as_tensor(seen, device=self.device)).numpy(force=True)
        difference = np.abs(run("policy", {"observation": seen})["action"] - wanted)
        return float((difference / half_range(self.action_space)).max())


def behaviour_cloning(
    config: Any, env: Any, data: Transitions | None, seed: int, device: str
) -> BehaviourCloning:
    """env is left alone: training evaluates there."""
    if data is None:
        raise ValueError(
            f"policy: {config.name!r} learns from a data set, expected dataset=local "
            "dataset.path=FOLDER"
        )
    return BehaviourCloning(config, data, seed, device)
