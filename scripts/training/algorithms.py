"""From a policy's configuration to its stable-baselines3 algorithm."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from motoric.configs import schema
from motoric.policies.dsac_t import DSACT
from motoric.policies.replay import DeviceReplayBuffer
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv

ALGORITHMS: dict[str, type[BaseAlgorithm]] = {"dsac_t": DSACT, "ppo": PPO, "sac": SAC, "td3": TD3}
ACTIVATIONS = {
    "tanh": torch.nn.Tanh,
    "relu": torch.nn.ReLU,
    "elu": torch.nn.ELU,
    "gelu": torch.nn.GELU,
}


def build(config: schema.Policy, env: VecEnv, seed: int, device: str) -> BaseAlgorithm:
    """The algorithm a configuration describes. Raises ValueError where it can't run on `env`."""
    if not isinstance(config, schema.PPO) and not isinstance(env.action_space, spaces.Box):
        raise ValueError(
            f"policy: {config.name!r} needs continuous actions, "
            f"the environment has {type(env.action_space).__name__}; try policy=ppo"
        )
    kwargs: dict[str, Any] = dataclasses.asdict(config)
    for key in ("name", "normalize_observation", "normalize_reward"):
        kwargs.pop(key)
    network: dict[str, Any] = {"net_arch": kwargs.pop("net_arch")}
    if is_picture(env.observation_space):
        network["features_extractor_class"] = NatureCNN
    if isinstance(config, schema.PPO):
        start, end = kwargs["learning_rate"], kwargs.pop("learning_rate_end")
        if end is not None:
            kwargs["learning_rate"] = lambda remaining: end + (start - end) * remaining
        network["activation_fn"] = ACTIVATIONS[kwargs.pop("activation")]
        network["log_std_init"] = kwargs.pop("log_std_init")
        kwargs["n_steps"] = rollout_steps(config, env.num_envs)
        kwargs["batch_size"] = min(config.batch_size, kwargs["n_steps"] * env.num_envs)
    if isinstance(config, schema.OffPolicy):
        if _replays_on_device(kwargs.pop("replay"), config, env, device):
            kwargs["replay_buffer_class"] = DeviceReplayBuffer
        kwargs["train_freq"], kwargs["gradient_steps"] = update_rate(config, env.num_envs)
    if isinstance(config, schema.DSACT):
        kwargs["rho_range"] = tuple(kwargs["rho_range"])
        if kwargs["target_entropy"] is None:
            kwargs["target_entropy"] = "auto"
    if isinstance(config, schema.SAC):
        for key in ("ent_coef", "target_entropy"):
            kwargs[key] = _number_or_auto(key, kwargs[key])
    if isinstance(config, schema.TD3):
        sigma = kwargs.pop("exploration_noise")
        shape = env.action_space.shape
        assert shape is not None
        kwargs["action_noise"] = NormalActionNoise(np.zeros(shape), np.full(shape, sigma))
    policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
    return ALGORITHMS[config.name](
        policy, env, seed=seed, device=device, policy_kwargs=network, **kwargs
    )


def is_picture(space: spaces.Space) -> bool:
    """Whether an observation is an image that convolutions can work on: 36 pixels or more."""
    return is_image_space(space) and sorted(space.shape or ())[1] >= 36


def rollout_steps(config: schema.PPO, num_envs: int) -> int:
    """Steps of each environment between two updates of PPO."""
    return max(16, 2048 // num_envs) if config.n_steps is None else config.n_steps


def update_rate(config: schema.OffPolicy, num_envs: int) -> tuple[int, int]:
    """`train_freq` and `gradient_steps` as stable-baselines3 counts them, for the same updates.

    It counts steps of the vector, which are `num_envs` of ours. Raises ValueError where that does
    not come out even.
    """
    freq, updates = config.train_freq, config.gradient_steps
    if freq % num_envs == 0:
        return freq // num_envs, updates
    if updates == -1 and freq < num_envs:
        return 1, updates
    if freq < num_envs and num_envs * updates % freq == 0:
        return 1, num_envs * updates // freq
    raise ValueError(
        f"policy.train_freq: {freq} steps for {updates} updates, but {num_envs} environments step "
        f"together; expected a multiple of env.num_envs, or a divisor of it"
    )


def _replays_on_device(replay: str, config: schema.OffPolicy, env: VecEnv, device: str) -> bool:
    possible = config.n_steps == 1 and DeviceReplayBuffer.supports(
        env.observation_space, env.action_space
    )
    if replay == "device" and not possible:
        raise ValueError(
            "policy.replay: 'device' is for flat observations and policy.n_steps=1; try 'host'"
        )
    return possible and (
        replay == "device" or (replay == "auto" and get_device(device).type == "cuda")
    )


def _number_or_auto(key: str, text: str) -> float | str:
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise ValueError(f"policy.{key}: {text!r}, expected auto or a number") from None
