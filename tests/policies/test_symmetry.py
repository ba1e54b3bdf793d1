"""Minibatches with mirror images: what is mirrored, what is not, and what is refused."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from motoric.policies.symmetry import MirroredRolloutBuffer, Reflection
from stable_baselines3 import PPO

SWAP = Reflection(np.array([1, 0, 2]), np.array([1, 1, -1], np.float32))  # of observations
FLIP = Reflection(np.array([0]), np.array([-1], np.float32))  # of actions


def filled(**mirrors) -> MirroredRolloutBuffer:
    """256 steps of 4 environments: action = sum of the observation's parts, value = its first."""
    buffer = MirroredRolloutBuffer(
        256, spaces.Box(-9, 9, (3,)), spaces.Box(-9, 9, (1,)), n_envs=4, **mirrors
    )
    rng = np.random.default_rng(0)
    for _ in range(256):
        obs = rng.normal(size=(4, 3)).astype(np.float32)
        action = obs.sum(1, keepdims=True)
        value = torch.from_numpy(obs[:, 0] * obs[:, 1] + obs[:, 2] ** 2)
        buffer.add(obs, action, np.zeros(4), np.zeros(4), value, 7 * value)
    buffer.compute_returns_and_advantage(torch.zeros(4), np.zeros(4))
    return buffer


def test_half_are_mirrored_and_values_stay_with_their_transitions():
    buffer = filled(observation=SWAP, action=FLIP)
    share, seen = [], 0
    for batch in buffer.get(64):
        obs, action = batch.observations.numpy(), batch.actions.numpy()[:, 0]
        plain = np.isclose(action, obs.sum(1))
        image = np.isclose(-action, obs[:, 0] + obs[:, 1] - obs[:, 2])
        assert (plain ^ image).all()
        value = obs[:, 0] * obs[:, 1] + obs[:, 2] ** 2  # the same in the mirror
        np.testing.assert_allclose(batch.old_values.numpy(), value, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(batch.old_log_prob.numpy(), 7 * value, rtol=1e-4, atol=1e-5)
        share.append(image.mean())
        seen += len(obs)
    assert seen == 1024
    assert 0.4 < np.mean(share) < 0.6


def test_the_buffer_itself_is_not_changed():
    buffer = filled(observation=SWAP, action=FLIP)
    before = buffer.observations.copy(), buffer.actions.copy()
    list(buffer.get(64))
    for old, new in zip(before, (buffer.observations, buffer.actions), strict=True):
        np.testing.assert_array_equal(np.sort(old.ravel()), np.sort(new.ravel()))


@pytest.mark.parametrize(
    ("index", "sign", "message"),
    [
        ([0, 0], [1, 1], "not a permutation"),
        ([1, 0], [1, -1], "not the original"),
        ([0, 1], [1, 2], "expected 2 of"),
    ],
)
def test_what_is_no_mirror_is_refused(index, sign, message):
    with pytest.raises(ValueError, match=message):
        Reflection(np.array(index), np.array(sign, np.float32))


def test_sizes_must_fit():
    with pytest.raises(ValueError, match="action of 3 numbers, expected 1"):
        filled(observation=SWAP, action=SWAP)


class Sides(gym.Env):
    """Two sides, [1, 0] and [0, 1]; only the first is ever seen, and there +1 is right."""

    observation_space = spaces.Box(0, 1, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.array([1, 0], np.float32), {}

    def step(self, action):
        return np.array([1, 0], np.float32), float(action[0]), False, True, {}


@pytest.mark.parametrize("symmetry", [False, True])
def test_what_is_learned_on_one_side_holds_on_the_other(symmetry):
    mirrors = {
        "observation": Reflection(np.array([1, 0]), np.ones(2, np.float32)),
        "action": FLIP,
    }
    extra = {"rollout_buffer_class": MirroredRolloutBuffer, "rollout_buffer_kwargs": mirrors}
    model = PPO(
        "MlpPolicy", Sides(), n_steps=256, batch_size=64, learning_rate=3e-3, seed=0,
        policy_kwargs={"net_arch": [16]}, device="cpu", **(extra if symmetry else {}),
    )  # fmt: skip
    model.learn(2048)
    sides = np.eye(2, dtype=np.float32)
    right, left = model.predict(sides, deterministic=True)[0][:, 0]
    assert right > 0.3
    assert (left < -0.3) == symmetry
