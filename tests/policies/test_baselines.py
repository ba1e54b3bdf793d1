"""What a configuration means to stable-baselines3, and its algorithms as learners."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from motoric.policies import baselines
from motoric.policies.baselines import Baseline
from motoric.policies.contract import State
from motoric.scripts import config
from motoric.scripts.training.run import build
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import (
    NormalActionNoise,
    OrnsteinUhlenbeckActionNoise,
    VectorizedActionNoise,
)
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize


def nothing() -> None:
    return


@pytest.mark.parametrize("num_envs", [1, 2, 8, 16])
@pytest.mark.parametrize(("freq", "updates"), [(1, 1), (8, 4), (16, 16), (4, -1)])
def test_updates_per_transition_do_not_depend_on_the_number_of_environments(
    num_envs, freq, updates
):
    keys = [f"policy.train_freq={freq}", f"policy.gradient_steps={updates}", "policy=dsac_t",
            "env=go2_velocity", f"env.num_envs={num_envs}", "policy.net_arch=[8]",
            "policy.buffer_size=2000", "policy.learning_starts=16",
            "policy.batch_size=4"]  # fmt: skip
    learner = build(config.load("train", keys)).learner
    learner.learn(16, nothing)
    before = learner.model._n_updates
    learner.learn(80, nothing)
    assert learner.done == 80
    assert learner.model._n_updates - before == (64 if updates == -1 else 64 * updates // freq)


@pytest.mark.parametrize(("freq", "updates", "num_envs"), [(3, 1, 2), (6, 1, 4), (8, 3, 16)])
def test_what_does_not_come_out_even(freq, updates, num_envs):
    settings = config.load("train", ["policy=sac", f"policy.train_freq={freq}"])
    settings.policy.gradient_steps = updates
    if num_envs * updates % freq == 0 and freq < num_envs:
        assert baselines.update_rate(settings.policy, num_envs) == (1, num_envs * updates // freq)
        return
    with pytest.raises(ValueError, match=rf"policy.train_freq: {freq} steps"):
        baselines.update_rate(settings.policy, num_envs)


def test_a_rollout_of_ppo_is_as_large_with_more_environments():
    assert [baselines.rollout_steps(None, n) for n in (1, 16, 128, 1024)] == [2048, 128, 16, 16]
    assert baselines.rollout_steps(5, 16) == 5


def test_convolutions_are_for_images():
    def image(*shape: int) -> spaces.Box:
        return spaces.Box(0, 255, shape, np.uint8)

    assert baselines.is_picture(image(96, 96, 3))
    assert baselines.is_picture(image(4, 84, 84))
    assert not baselines.is_picture(image(7, 7, 3))
    assert not baselines.is_picture(spaces.Box(0, 1, (96, 96, 3), np.float32))


@pytest.mark.parametrize("policy", ["ppo", "dsac_t"])
def test_an_image_is_seen_by_convolutions(policy):
    class Picture(gym.Env):
        observation_space = spaces.Box(0, 255, (40, 44, 3), np.uint8)
        action_space = spaces.Box(-1, 1, (2,))

    settings = config.load("train", [f"policy={policy}", "env=pendulum"])
    if policy == "dsac_t":
        settings.policy.buffer_size = 10
    make = getattr(baselines, policy)
    learner = make(settings.policy, DummyVecEnv([Picture]), None, 0, "cpu")
    assert any(isinstance(module, NatureCNN) for module in learner.model.policy.modules())


def test_an_algorithm_that_steps_needs_an_environment_and_no_data():
    policy = config.load("train", ["policy=ppo"]).policy
    with pytest.raises(ValueError, match="policy: 'ppo' learns from steps"):
        baselines.ppo(policy, None, None, 0, "cpu")
    with pytest.raises(ValueError, match="dataset: policy 'ppo' learns from none"):
        baselines.ppo(policy, make_vec_env("Pendulum-v1"), object(), 0, "cpu")


# -- state -------------------------------------------------------------------------------------


def sac(noise=None, normalise: bool = True, **values) -> Baseline:
    env = make_vec_env("Pendulum-v1", 2, seed=0)
    if normalise:
        env = VecNormalize(env)
    keywords = {"buffer_size": 100, "learning_starts": 10, "batch_size": 4, "seed": 0}
    return Baseline(
        SAC("MlpPolicy", env, action_noise=noise, policy_kwargs={"net_arch": [8]}, device="cpu",
            **keywords | values)
    )  # fmt: skip


def through_a_file(state: State, tmp_path) -> State:
    """As a checkpoint writes and reads it."""
    torch.save(state.tensors, tmp_path / "tensors.pt")
    np.savez(tmp_path / "arrays.npz", **state.arrays)
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    tensors = torch.load(tmp_path / "tensors.pt", weights_only=True)
    return State(tensors, arrays, json.loads(json.dumps(state.values)))


def equal(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return bool(np.array_equal(a, b)) if isinstance(a, np.ndarray) else a == b


def differing(a: State, b: State) -> list[str]:
    return [
        key
        for part in ("tensors", "arrays", "values")
        for one, two in [(getattr(a, part), getattr(b, part))]
        for key in one.keys() | two.keys()
        if key not in one or key not in two or not equal(one[key], two[key])
    ]


@pytest.mark.parametrize("steps", [40, 150])  # the buffer half full; full, and begun anew
def test_a_state_comes_back_whole(tmp_path, steps):
    """What was counted, buffered, normalised and drawn; the array of a buffer only where filled."""

    def noise():
        return VectorizedActionNoise(OrnsteinUhlenbeckActionNoise(np.zeros(1), np.ones(1)), 2)

    learner, again = sac(noise()), sac(noise(), seed=5)
    learner.learn(steps, nothing)
    state = through_a_file(learner.state(), tmp_path)
    assert differing(again.state(), state), "a new one is another"
    again.load_state(state)
    assert differing(again.state(), state) == []
    model, other = learner.model, again.model
    assert other.replay_buffer.pos == model.replay_buffer.pos
    assert other.replay_buffer.full == model.replay_buffer.full == (steps > 100)
    assert len(state.arrays["replay/rewards"]) == min(steps, 100) // 2
    assert other.replay_buffer.observations.shape == model.replay_buffer.observations.shape
    mine, others = (m.action_noise.noises[1].noise_prev for m in (model, other))
    assert mine.any()
    np.testing.assert_array_equal(mine, others)
    assert list(other.ep_info_buffer) == list(model.ep_info_buffer)
    assert other.get_vec_normalize_env().ret_rms.mean == model.get_vec_normalize_env().ret_rms.mean
    assert other._total_timesteps == steps
    action = [m.action_space.sample() for m in (model, other)]
    np.testing.assert_array_equal(*action)


def test_what_an_algorithm_adds_to_itself_is_in_its_state(tmp_path):
    class Counting(SAC):
        def _setup_model(self):
            super()._setup_model()
            self.seen, self.mean = {"steps": [0, (1.5, None)]}, torch.zeros(3)

        def train(self, gradient_steps, batch_size=64):
            self.seen["steps"][0] += gradient_steps
            self.mean += 1
            super().train(gradient_steps, batch_size)

    env = make_vec_env("Pendulum-v1", 1)
    one, two = (
        Baseline(Counting("MlpPolicy", env, learning_starts=5, buffer_size=50, device="cpu"))
        for _ in range(2)
    )
    one.learn(9, nothing)
    mean = two.model.mean
    two.load_state(through_a_file(one.state(), tmp_path))
    assert two.model.seen == one.model.seen == {"steps": [4, (1.5, None)]}
    assert two.model.mean is mean, "in its place: others may hold it"
    assert mean.tolist() == [4.0, 4.0, 4.0]


def test_another_algorithms_state_is_refused():
    other = sac(normalise=False)
    learner = Baseline(
        SAC("MlpPolicy", make_vec_env("Pendulum-v1"), policy_kwargs={"net_arch": [9]},
            buffer_size=10, device="cpu")
    )  # fmt: skip
    with pytest.raises((ValueError, RuntimeError, KeyError)):
        learner.load_state(other.state())


def test_between_is_called_where_nothing_is_half_done():
    class Stop(Exception):
        pass

    settings = config.load("train", ["policy=ppo", "env=pendulum", "policy.n_steps=16"])
    learner = build(settings).learner
    seen = []

    def between():
        seen.append((learner.done, learner.model._n_updates))
        if learner.done >= 48:
            raise Stop

    with pytest.raises(Stop):
        learner.learn(1000, between)
    assert [done for done, _ in seen] == [0, 16, 32, 48]
    assert [updates for _, updates in seen] == [0, 10, 20, 30]


def test_metrics_are_told_once():
    settings = config.load("train", ["policy=ppo", "env=pendulum", "policy.n_steps=16"])
    learner = build(settings).learner
    learner.learn(32, nothing)
    first = learner.metrics()
    assert np.isfinite(first["train/loss"])
    assert "train/loss" not in learner.metrics()


def test_advice_where_there_will_hardly_be_an_update():
    settings = config.load("train", ["policy=ppo", "env=pendulum"])
    learner = build(settings).learner
    assert learner.advice(1_000_000) is None
    assert "policy.n_steps: 2048 steps of 1 environments" in learner.advice(10_000)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_weights_that_are_not_finite(broken):
    learner = sac()
    assert learner.is_finite()
    with torch.no_grad():
        next(iter(learner.model.critic.parameters())).view(-1)[0] = broken
    assert not learner.is_finite()


def test_noise_of_td3_is_made_for_its_actions():
    noise = baselines.gaussian_noise(make_vec_env("Pendulum-v1"), 0.3)
    assert isinstance(noise, NormalActionNoise)
    assert noise._sigma.tolist() == [0.3]
