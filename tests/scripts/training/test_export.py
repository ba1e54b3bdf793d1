"""An exported policy acts as the one that was trained, for every kind of space."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import onnx
import pytest
import torch
from gymnasium import spaces
from motoric.hardware.runtime.bundle import Bundle
from motoric.hardware.specs.go2 import GO2
from motoric.scripts import config
from motoric.scripts.export import ExportError, export, largest_difference, to_onnx
from motoric.scripts.train import _build
from motoric.scripts.training import algorithms
from motoric.scripts.training.evaluation import act_once
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

SMALL = ["policy.buffer_size=2000", "policy.learning_starts=50"]


def trained(policy: str, env: str, *extra: str):
    """Configuration and model after a few updates, normalisation statistics included."""
    small = SMALL if policy != "ppo" else ["policy.n_steps=64"]
    settings = config.load(
        "train", [f"policy={policy}", f"env={env}", "env.num_envs=4", *small, *extra]
    )
    model = _build(settings)
    model.learn(200)
    return settings, model


@pytest.mark.parametrize("policy", ["ppo", "sac", "td3", "dsac_t"])
@pytest.mark.parametrize("env", ["pendulum", "go2_velocity"])
def test_ten_thousand_observations(tmp_path, policy, env):
    settings, model = trained(policy, env, "policy.normalize_observation=true")
    before = torch.get_rng_state()
    bundle = export(settings, model, tmp_path / "bundle")
    assert torch.equal(torch.get_rng_state(), before), "exporting draws random numbers"
    assert largest_difference(model, (tmp_path / "bundle" / "policy.onnx").read_bytes(), 10_000) \
        < 1e-5  # fmt: skip
    if env == "go2_velocity":
        Bundle.load(tmp_path / "bundle", GO2)
        assert bundle.spec.rate == 50.0
        assert bundle.spec.normalisation is not None
    # The bundle takes raw observations: normalisation is inside.
    model_env = model.get_env()
    raw = np.random.default_rng(0).normal(size=(5, *model.observation_space.shape))
    raw = raw.astype(np.float32)
    wanted = model.predict(model_env.normalize_obs(raw), deterministic=True)[0]
    scale = np.maximum(1, (model.action_space.high - model.action_space.low) / 2)
    np.testing.assert_allclose(bundle.act(raw) / scale, wanted / scale, atol=1e-5)


class Spaces(gym.Env):
    """An environment of any spaces, and nothing to learn."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, bool(self.np_random.random() < 0.1), {}


DICT = spaces.Dict(
    {"b": spaces.Box(-2, 2, (3, 2)), "a": spaces.Box(-1, 1, (4,)), "n": spaces.Discrete(5)}
)
BOX = spaces.Box(-1, 1, (4,))
PICTURE = spaces.Box(0, 255, (40, 44, 3), np.uint8)


@pytest.mark.parametrize(
    ("policy", "observation", "action"),
    [
        ("ppo", DICT, spaces.Box(-3, 5, (2,))),
        ("sac", DICT, spaces.Box(np.float32([-1.0, 0.0]), np.float32([2.0, 9.0]))),
        ("td3", DICT, spaces.Box(-1, 1, (2,))),
        ("dsac_t", DICT, spaces.Box(-2, 4, (3,))),
        ("ppo", BOX, spaces.Discrete(4)),
        ("ppo", BOX, spaces.MultiDiscrete([3, 2, 4])),
        ("ppo", BOX, spaces.MultiBinary(3)),
        ("ppo", spaces.Discrete(6), spaces.Discrete(3)),
        ("ppo", BOX, spaces.Box(-1, 1, (2, 3))),
        ("ppo", PICTURE, spaces.Discrete(4)),
        ("sac", PICTURE, spaces.Box(-1, 1, (2,))),
        ("dsac_t", PICTURE, spaces.Box(-1, 1, (2,))),
        ("ppo", spaces.Dict({"camera": PICTURE, "a": BOX}), spaces.Box(-1, 1, (2,))),
        ("ppo", spaces.Box(0, 255, (7, 7, 3), np.uint8), spaces.Discrete(3)),
    ],
)
def test_other_spaces(tmp_path, policy, observation, action):
    extra = SMALL if policy != "ppo" else ["policy.n_steps=16"]
    settings = config.load("train", [f"policy={policy}", "env=pendulum", *extra])
    env = DummyVecEnv([lambda: Spaces(observation, action)] * 2)
    if observation is DICT:
        env = VecNormalize(env, norm_reward=False, norm_obs_keys=["a", "b"])
    model = algorithms.build(settings.policy, env, 0, "cpu")
    model.learn(100)
    network = to_onnx(model)
    onnx.checker.check_model(onnx.load_from_string(network))
    pictures = "uint8" in str(observation)
    assert largest_difference(model, network, 1000 if pictures else 10_000) < 1e-5
    # The bundle takes what the environment gives.
    bundle = export(settings, model, tmp_path / "bundle")
    raw = observation.sample()
    fitting = act_once(bundle, raw, action)
    assert action.contains(fitting) or np.allclose(
        fitting, np.clip(fitting, action.low, action.high)
    )
    batch = {k: np.asarray(v)[None] for k, v in raw.items()} if isinstance(raw, dict) else raw
    wanted = model.predict(env.normalize_obs(batch) if observation is DICT else batch,
                           deterministic=True)[0]  # fmt: skip
    if isinstance(action, spaces.Box):
        np.testing.assert_allclose(np.ravel(fitting), np.ravel(wanted), atol=1e-4)


@pytest.mark.parametrize(
    "action", [spaces.Discrete(4), spaces.MultiDiscrete([3, 2, 4]), spaces.MultiBinary(3)]
)
def test_equally_good_discrete_actions_are_no_difference(action):
    """Where logits differ by rounding alone, the exported graph may choose the other action."""
    settings = config.load("train", ["policy=ppo", "env=pendulum", "policy.n_steps=16"])
    env = DummyVecEnv([lambda: Spaces(BOX, action)])
    model = algorithms.build(settings.policy, env, 0, "cpu")
    net = model.policy.action_net
    with torch.no_grad():
        net.weight.mul_(1e-4)
        net.bias.fill_(0.0 if isinstance(action, spaces.MultiBinary) else 1.0)
    exported = to_onnx(model)
    assert largest_difference(model, exported, 10_000) < 1e-5
    with torch.no_grad():
        net.weight.mul_(-1e4)
    assert largest_difference(model, exported, 1000) > 1e-3, "the other action, and it matters"


def test_a_difference_that_is_not_a_number_is_not_lost_among_others(monkeypatch):
    from motoric.scripts import export as module

    model = trained("ppo", "pendulum")[1]
    found = iter([0.0, float("nan"), 0.0])
    monkeypatch.setattr(module, "_difference", lambda *_: next(found))
    assert np.isnan(largest_difference(model, to_onnx(model), 3000))


def test_a_wrong_export_is_not_written(tmp_path, monkeypatch):
    from motoric.scripts import export as module

    settings, model = trained("ppo", "pendulum")
    other = trained("ppo", "pendulum", "seed=5")[1]
    wrong = to_onnx(other)
    monkeypatch.setattr(module, "to_onnx", lambda model: wrong)
    with pytest.raises(ExportError, match="actions differ by"):
        module.export(settings, model, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
