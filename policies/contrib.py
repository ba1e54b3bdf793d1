"""sb3-contrib's algorithms as learners, from configurations: the extra `contrib`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from motoric.policies.baselines import (
    Baseline,
    Deterministic,
    hyperparameters,
    make,
    number_or_auto,
    on_policy,
    replayed,
    stepped,
)
from motoric.policies.contract import Exported, Network, Runs, Tensor, half_range
from sb3_contrib import TQC, CrossQ, RecurrentPPO
from stable_baselines3.common.vec_env import VecEnv

STEPS = 20  # of a sequence that exported and trained actions are compared over


def tqc(config: Any, env: VecEnv | None, data: Any, seed: int, device: str) -> Baseline:
    env = stepped(config, env, data, continuous=True)
    values = hyperparameters(config) | replayed(config, env, device)
    for key in ("ent_coef", "target_entropy"):
        values[key] = number_or_auto(key, values[key])
    network = {key: values.pop(key) for key in ("n_quantiles", "n_critics")}
    return Baseline(make(TQC, config, env, seed, device, values, network))


def crossq(config: Any, env: VecEnv | None, data: Any, seed: int, device: str) -> Baseline:
    env = stepped(config, env, data, continuous=True)
    values = hyperparameters(config) | replayed(config, env, device)
    for key in ("ent_coef", "target_entropy"):
        values[key] = number_or_auto(key, values[key])
    return Baseline(make(CrossQ, config, env, seed, device, values))


def recurrent_ppo(config: Any, env: VecEnv | None, data: Any, seed: int, device: str) -> Baseline:
    env = stepped(config, env, data)
    values, network = on_policy(config, env)
    network |= {key: values.pop(key) for key in ("lstm_hidden_size", "n_lstm_layers")}
    policy = "{}LstmPolicy"
    return Recurrent(make(RecurrentPPO, config, env, seed, device, values, network, policy))


class Recurrent(Baseline):
    """A policy with an LSTM: what it remembers goes in and out of its network."""

    def _memory(self) -> tuple[Tensor, Tensor]:
        lstm: Any = self.model.policy.lstm_actor  # type: ignore[attr-defined]
        shape = (lstm.num_layers, lstm.hidden_size)
        return Tensor("next_hidden", shape), Tensor("next_cell", shape)

    def _attributes(self) -> dict[str, Any]:
        states = self.model._last_lstm_states  # type: ignore[attr-defined]
        return super()._attributes() | {"_last_lstm_states": states}  # episodes are running

    def exported(self) -> Exported:
        exported, memory = super().exported(), self._memory()
        (network,) = exported.networks
        remembered = (
            Tensor(t.name.removeprefix("next_"), t.shape, source="memory", feedback=t.name)
            for t in memory
        )
        network = Network(
            "policy", Remembering(self), (*network.inputs, *remembered), (self.action, *memory)
        )
        return Exported(
            (network,), exported.action, exported.low, exported.high,
            normalisation=exported.normalisation,
        )  # fmt: skip

    def difference(self, run: Runs, count: int) -> float:
        """Over sequences, each side with its own memory."""
        rows, space, found = max(1, count // STEPS), self.model.action_space, []
        hidden, cell = (np.zeros((rows, *t.shape), np.float32) for t in self._memory())
        states, start = None, np.ones(rows, bool)
        for step in range(STEPS):
            observations = self.observations(rows, step)
            out = run("policy", observations | {"hidden": hidden, "cell": cell})
            hidden, cell = out["next_hidden"], out["next_cell"]
            wanted, states = self.model.predict(
                self._as_trained(observations), states, start, deterministic=True
            )
            start = np.zeros(rows, bool)
            difference = np.abs(out["action"].astype(np.float64) - wanted)
            if isinstance(space, spaces.Box):
                found.append((difference / half_range(space)).max())
            else:  # two that are equally good to the last bit may be told apart by rounding
                found.append(0.0 if (difference != 0).mean() < 1e-3 else 1.0)
        return float(np.max(found))


class Remembering(Deterministic):
    """Raw observations, hidden and cell [N, layers, size] in; actions and what comes next out."""

    def forward(self, *inputs: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor]:  # type: ignore[override]
        *observations, hidden, cell = inputs
        policy: Any = self.policy
        states = tuple(x.transpose(0, 1).contiguous() for x in (hidden, cell))
        starts = th.zeros(len(hidden), device=hidden.device)
        action, (hidden, cell) = policy._predict(
            self.seen(tuple(observations)), states, starts, deterministic=True
        )
        return self.scaled(action), hidden.transpose(0, 1), cell.transpose(0, 1)
