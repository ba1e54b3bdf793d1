"""sb3-contrib's algorithms: export, exact state, and memory in the bundle."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from motoric.hardware.runtime.bundle import Bundle
from motoric.hardware.runtime.policy import Policy
from motoric.scripts import config
from motoric.scripts.training import checkpoint
from motoric.scripts.training.export import bundle_of
from motoric.scripts.training.run import Training, build

pytest.importorskip("sb3_contrib")

KEYS = {
    "tqc": ["policy.buffer_size=500", "policy.learning_starts=40", "policy.net_arch=[16]",
            "policy.train_freq=8", "policy.batch_size=16"],
    "crossq": ["policy.buffer_size=500", "policy.learning_starts=40", "policy.net_arch=[16]",
               "policy.train_freq=8", "policy.batch_size=16"],
    "recurrent_ppo": ["policy.n_steps=16", "policy.net_arch=[16]", "policy.lstm_hidden_size=8",
                      "policy.n_lstm_layers=2", "policy.batch_size=32", "policy.n_epochs=2"],
}  # fmt: skip


def built(policy: str, *words: str, env: str = "go2_velocity") -> Training:
    keys = [f"policy={policy}", f"env={env}", "env.num_envs=4", *KEYS[policy],
            "policy.normalize_observation=true", *words]  # fmt: skip
    return build(config.load("train", keys))


def learn(training: Training, total: int) -> None:
    training.learner.learn(total, lambda: None)


@pytest.mark.parametrize("policy", KEYS)
def test_what_is_exported_acts_as_the_policy(policy):
    training = built(policy)
    learn(training, 200)
    spec, files = bundle_of(training.learner, training.environment, training.origin)
    bundle = Bundle(spec, files)
    assert training.learner.difference(bundle.run, 10_000) < 1e-5
    other = built(policy, "seed=5")
    assert other.learner.difference(bundle.run, 1000) > 1e-3


@pytest.mark.parametrize("policy", KEYS)
def test_going_on_is_exact(tmp_path, policy):
    """Memory, statistics of batches and buffers included."""
    whole = built(policy)
    learn(whole, 320)
    first = built(policy)
    learn(first, 192)
    path = checkpoint.save(first.learner, first.batch, tmp_path, {})
    again = built(policy, "seed=9")
    torch.rand(3)
    checkpoint.load(path, again.learner, again.batch)
    learn(again, 320)
    states = [t.learner.state() for t in (whole, again)]
    assert states[0].arrays.keys() == states[1].arrays.keys()
    policies = [s.tensors["parameters"]["policy"] for s in states]
    for name, value in policies[0].items():
        assert torch.equal(value, policies[1][name]), name
    for name, value in states[0].arrays.items():
        if name != "algorithm/start_time":
            np.testing.assert_array_equal(value, states[1].arrays[name], err_msg=name)


def test_a_recurrent_policys_memory_is_in_the_bundle_and_ends_with_an_episode():
    training = built("recurrent_ppo", env="pendulum")
    learn(training, 128)
    spec, files = bundle_of(training.learner, training.environment, training.origin)
    assert [t.source for t in spec.networks[0].inputs] == ["observation", "memory", "memory"]
    policy = Policy(Bundle(spec, files), rows=2)
    seen = np.random.default_rng(0).normal(size=(3, 2, 3)).astype(np.float32)
    first = [policy.act(o) for o in seen]
    assert not np.allclose(first[1], Policy(Bundle(spec, files), rows=2).act(seen[1]))
    policy.begin(np.array([0]))
    again = policy.act(seen[0])
    np.testing.assert_allclose(again[0], first[0][0], atol=1e-6)
    assert not np.allclose(again[1], first[0][1], atol=1e-6), "the other remembers"


def test_its_state_is_plain(tmp_path):
    training = built("recurrent_ppo")
    learn(training, 64)
    state = training.learner.state()
    json.dumps(state.values)
    assert any("lstm" in name for name in state.arrays)
