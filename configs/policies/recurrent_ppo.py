"""Proximal policy optimisation of a policy that remembers."""

from __future__ import annotations

from dataclasses import dataclass

from motoric.configs.policy import Clipped
from motoric.configs.schema import COUNT, doc


@dataclass
class Config(Clipped):
    """PPO of a policy with an LSTM (sb3-contrib)."""

    learner = "motoric.policies.contrib:recurrent_ppo"
    name: str = "recurrent_ppo"
    lstm_hidden_size: int = doc(64, "numbers that each layer of the LSTM remembers, twice", COUNT)
    n_lstm_layers: int = doc(1, "layers of the LSTM", COUNT)
