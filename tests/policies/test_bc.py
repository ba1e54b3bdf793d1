"""Behaviour cloning: its arithmetic against a plain one, its state, and that it learns."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from motoric.policies.bc import BehaviourCloning, Cloned, behaviour_cloning, moments
from motoric.policies.contract import State
from motoric.policies.data.transitions import Transitions, Writer

ACTION = spaces.Box(np.float32([-2, 0]), np.float32([2, 10]))
SEEN = spaces.Box(-np.inf, np.inf, (3,), np.float64)


def config(**changes):
    values = {
        "name": "bc", "net_arch": [32], "learning_rate": 1e-2, "weight_decay": 0.0,
        "batch_size": 64, "normalize_observation": True,
    }  # fmt: skip
    return SimpleNamespace(**values | changes)


def expert(observation: np.ndarray) -> np.ndarray:
    """In units far from 1, and not linear."""
    x = (observation - [100, 0, -5]) / [30, 1, 0.01]
    return np.stack([2 * np.tanh(x[:, 0] - x[:, 1]), 5 + 4 * np.sin(x[:, 2])], 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Transitions:
    path, random = tmp_path_factory.mktemp("data") / "set", np.random.default_rng(0)
    writer = Writer(path, SEEN, ACTION, {})
    for _ in range(20):
        seen = random.normal([100, 0, -5], [30, 1, 0.01], (200, 3))
        writer.add(seen, seen, expert(seen), np.zeros(200), False)
    return Transitions.open(writer.close())


def test_moments_are_those_of_the_set(data):
    mean, deviation = moments(data.observations)
    np.testing.assert_allclose(mean, np.mean(data.observations, 0), rtol=1e-12)
    np.testing.assert_allclose(deviation, np.std(data.observations, 0), rtol=1e-12)


def test_what_never_changes_is_not_blown_up():
    _, deviation = moments(np.tile([1.0, 2.0], (5, 1)) + np.arange(5.0)[:, None] * [1, 0])
    assert deviation[1] == pytest.approx(1e-6 * deviation[0])


def test_an_update_is_that_of_plain_regression(data):
    """The same in float64 from the formula, by Adam as its paper has it."""
    learner = BehaviourCloning(config(net_arch=[]), data, 0, "cpu")
    weight, bias = (p.detach().double().numpy().copy() for p in learner.policy.net.parameters())
    rows = np.random.default_rng(0).integers(len(data), size=64)
    observation = np.asarray(data.observations[rows])
    x = (observation - np.mean(data.observations, 0)) / np.std(data.observations, 0)
    y = (np.asarray(data.actions[rows], np.float64) - [0, 5]) / [2, 5]
    error = x @ weight.T + bias - y
    d = 2 * error / error.size
    learner.update()
    assert learner.metrics()["train/loss"] == pytest.approx((error**2).mean(), rel=1e-4)
    for before, gradient, after in zip(
        (weight, bias), (d.T @ x, d.sum(0)), learner.policy.net.parameters(), strict=True
    ):
        step = 1e-2 * gradient / (np.abs(gradient) + 1e-8)  # Adam's first, whatever its betas
        np.testing.assert_allclose(after.detach(), before - step, atol=1e-5)


def test_it_learns_what_the_expert_does(data):
    learner = BehaviourCloning(config(), data, 0, "cpu")
    learner.learn(600, lambda: None)
    seen = np.random.default_rng(1).normal([100, 0, -5], [30, 1, 0.01], (500, 3))
    with torch.no_grad():
        action = learner.policy(torch.as_tensor(seen, dtype=torch.float32)).numpy()
    error = np.abs((action - expert(seen)) / [2, 5]).mean()
    assert error < 0.05  # without normalisation, or with actions and rows mixed up, 0.4 and more


def test_actions_keep_to_their_bounds(data):
    policy = Cloned(np.zeros(3), np.ones(3), ACTION, [4])
    with torch.no_grad():
        policy.net[-1].weight.mul_(1e4)
        action = policy(torch.randn(100, 3)).numpy()
    assert (action >= ACTION.low).all()
    assert (action <= ACTION.high).all()
    assert (action == ACTION.low).any()
    assert (action == ACTION.high).any()


def test_going_on_is_exact(data):
    whole, first, second = (BehaviourCloning(config(), data, 3, "cpu") for _ in range(3))
    whole.learn(30, lambda: None)
    first.learn(13, lambda: None)
    state = first.state()
    second.random.random(5)
    second.load_state(State(state.tensors, {}, json.loads(json.dumps(state.values))))
    second.learn(30, lambda: None)
    for a, b in zip(whole.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    assert second.done == 30


def test_between_comes_before_each_update(data):
    learner, seen = BehaviourCloning(config(), data, 0, "cpu"), []
    learner.learn(3, lambda: seen.append(learner.done))
    assert seen == [0, 1, 2]


def test_making_it_draws_from_no_generator_of_the_process(data):
    before = torch.get_rng_state()
    BehaviourCloning(config(), data, 0, "cpu").update()
    assert torch.equal(torch.get_rng_state(), before)


def test_what_it_can_not_learn_from():
    with pytest.raises(ValueError, match="policy: 'bc' learns from a data set"):
        behaviour_cloning(config(), None, None, 0, "cpu")
    picture = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    image = SimpleNamespace(observation_space=picture, action_space=ACTION)
    with pytest.raises(ValueError, match="sees flat numbers"):
        BehaviourCloning(config(), image, 0, "cpu")
    discrete = SimpleNamespace(observation_space=SEEN, action_space=spaces.Discrete(3))
    with pytest.raises(ValueError, match="needs continuous actions"):
        BehaviourCloning(config(), discrete, 0, "cpu")
