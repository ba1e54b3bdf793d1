"""What a configuration means to stable-baselines3, whatever the number of environments."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from motoric.scripts import config
from motoric.scripts.train import _build
from motoric.scripts.training import algorithms
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv


@pytest.mark.parametrize("num_envs", [1, 2, 8, 16])
@pytest.mark.parametrize(("freq", "updates"), [(1, 1), (8, 4), (16, 16), (4, -1)])
def test_updates_per_transition_do_not_depend_on_the_number_of_environments(
    num_envs, freq, updates
):
    keys = [f"policy.train_freq={freq}", f"policy.gradient_steps={updates}", "policy=dsac_t",
            "env=go2_velocity", f"env.num_envs={num_envs}", "policy.net_arch=[8]",
            "policy.buffer_size=2000", "policy.learning_starts=16",
            "policy.batch_size=4"]  # fmt: skip
    model = _build(config.load("train", keys))
    model.learn(16)
    before = model._n_updates
    model.learn(64, reset_num_timesteps=False)
    assert model._n_updates - before == (64 if updates == -1 else 64 * updates // freq)


@pytest.mark.parametrize(("freq", "updates", "num_envs"), [(3, 1, 2), (6, 1, 4), (8, 3, 16)])
def test_what_does_not_come_out_even(freq, updates, num_envs):
    settings = config.load("train", ["policy=sac", f"policy.train_freq={freq}"])
    settings.policy.gradient_steps = updates
    if num_envs * updates % freq == 0 and freq < num_envs:
        assert algorithms.update_rate(settings.policy, num_envs) == (1, num_envs * updates // freq)
        return
    with pytest.raises(ValueError, match=rf"policy.train_freq: {freq} steps"):
        algorithms.update_rate(settings.policy, num_envs)


def test_a_rollout_of_ppo_is_as_large_with_more_environments():
    policy = config.load("train", ["policy=ppo"]).policy
    assert [algorithms.rollout_steps(policy, n) for n in (1, 16, 128, 1024)] == [2048, 128, 16, 16]
    policy.n_steps = 5
    assert algorithms.rollout_steps(policy, 16) == 5


def test_convolutions_are_for_images():
    def image(*shape: int) -> spaces.Box:
        return spaces.Box(0, 255, shape, np.uint8)

    assert algorithms.is_picture(image(96, 96, 3))
    assert algorithms.is_picture(image(4, 84, 84))
    assert not algorithms.is_picture(image(7, 7, 3))
    assert not algorithms.is_picture(spaces.Box(0, 1, (96, 96, 3), np.float32))


@pytest.mark.parametrize("policy", ["ppo", "dsac_t"])
def test_an_image_is_seen_by_convolutions(policy):
    class Picture(gym.Env):
        observation_space = spaces.Box(0, 255, (40, 44, 3), np.uint8)
        action_space = spaces.Box(-1, 1, (2,))

    settings = config.load("train", [f"policy={policy}", "env=pendulum"])
    if policy == "dsac_t":
        settings.policy.buffer_size = 10
    model = algorithms.build(settings.policy, DummyVecEnv([Picture]), 0, "cpu")
    assert any(isinstance(module, NatureCNN) for module in model.policy.modules())
