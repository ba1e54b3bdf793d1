"""An exported policy acts as the one that was trained, for every kind of space."""

from __future__ import annotations

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import onnx
import pytest
import torch
from gymnasium import spaces
from motoric.hardware.runtime.bundle import Bundle
from motoric.hardware.runtime.policy import Policy
from motoric.hardware.specs.go2 import GO2
from motoric.policies import baselines
from motoric.scripts import config
from motoric.scripts.training import export as module
from motoric.scripts.training.export import ExportError, bundle_of, export
from motoric.scripts.training.run import build
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

SMALL = ["policy.buffer_size=2000", "policy.learning_starts=50"]


def trained(policy: str, env: str, *extra: str):
    """A training after a few updates, normalisation statistics included."""
    small = SMALL if policy != "ppo" else ["policy.n_steps=64"]
    settings = config.load(
        "train", [f"policy={policy}", f"env={env}", "env.num_envs=4", *small, *extra]
    )
    training = build(settings)
    training.learner.learn(200, lambda: None)
    return training


def exported(learner) -> Bundle:
    return Bundle(*bundle_of(learner, {"task": "of this test"}, {}))


@pytest.mark.parametrize("policy", ["ppo", "sac", "td3", "dsac_t"])
@pytest.mark.parametrize("env", ["pendulum", "go2_velocity"])
def test_ten_thousand_observations(tmp_path, policy, env):
    training = trained(policy, env, "policy.normalize_observation=true")
    learner, model = training.learner, training.learner.model
    modes = [m.training for m in model.policy.modules()]
    before = torch.get_rng_state()
    exported(learner)
    assert [m.training for m in model.policy.modules()] == modes
    bundle = export(learner, training.environment, training.origin, tmp_path / "bundle")
    assert torch.equal(torch.get_rng_state(), before), "exporting draws random numbers"
    assert learner.difference(bundle.run, 10_000) < 1e-5
    assert bundle.spec.training["steps"] == learner.done
    assert bundle.spec.training["unit"] == "environment steps"
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
    np.testing.assert_allclose(Policy(bundle, 5).act(raw) / scale, wanted / scale, atol=1e-5)


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
    learner = getattr(baselines, policy)(settings.policy, env, None, 0, "cpu")
    learner.learn(100, lambda: None)
    model = learner.model
    bundle = export(learner, {"task": "spaces"}, {}, tmp_path / "bundle")
    onnx.checker.check_model(onnx.load(tmp_path / "bundle" / "policy.onnx"))
    pictures = "uint8" in str(observation)
    assert learner.difference(bundle.run, 1000 if pictures else 10_000) < 1e-5
    # The bundle takes what the environment gives.
    raw = observation.sample()
    one = {k: np.asarray(v)[None] for k, v in raw.items()} if isinstance(raw, dict) else raw
    one = one if isinstance(raw, dict) else np.asarray(raw)[None]
    fitting = Policy(bundle).act(one)[0]
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
    learner = baselines.ppo(settings.policy, env, None, 0, "cpu")
    net = learner.model.policy.action_net
    with torch.no_grad():
        net.weight.mul_(1e-4)
        net.bias.fill_(0.0 if isinstance(action, spaces.MultiBinary) else 1.0)
    bundle = exported(learner)
    assert learner.difference(bundle.run, 10_000) < 1e-5
    with torch.no_grad():
        net.weight.mul_(-1e4)
    assert learner.difference(bundle.run, 1000) > 1e-3, "the other action, and it matters"


def test_a_difference_that_is_not_a_number_is_not_lost_among_others(monkeypatch):
    learner = trained("ppo", "pendulum").learner
    found = iter([0.0, float("nan"), 0.0])
    monkeypatch.setattr(learner, "_difference", lambda *_: next(found))
    assert np.isnan(learner.difference(exported(learner).run, 3000))


def test_a_wrong_export_is_not_written(tmp_path, monkeypatch):
    training = trained("ppo", "pendulum")
    other = trained("ppo", "pendulum", "seed=5")
    wrong = bundle_of(other.learner, other.environment, other.origin)
    monkeypatch.setattr(module, "bundle_of", lambda *_: wrong)
    with pytest.raises(ExportError, match="actions differ by"):
        export(training.learner, training.environment, training.origin, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_actions_without_bounds_have_none_in_the_bundle():
    """JSON has no infinity."""
    learner = trained("ppo", "pendulum").learner
    endless = SimpleNamespace(
        exported=lambda: learner.exported().__class__(
            learner.exported().networks, learner.action, np.array([-np.inf]), np.array([np.inf])
        ),
        done=1, unit="steps", device=learner.device,
    )  # fmt: skip
    spec, _ = bundle_of(endless, {"task": "x"}, {})
    assert spec.action_low is None
    assert spec.action_high is None
