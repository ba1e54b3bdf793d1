"""Checkpoints of Gymnasium environments, and of models on a GPU that isn't there."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from motoric.policies.replay import DeviceReplayBuffer
from motoric.scripts.training import checkpoint
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env


class Endless(gym.Env):
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), 0.0, False, False, {}


def make_model(buffer: type[ReplayBuffer] = ReplayBuffer) -> SAC:
    return SAC(
        "MlpPolicy", make_vec_env(Endless, 3), buffer_size=30, learning_starts=12, batch_size=4,
        policy_kwargs={"net_arch": [4]}, replay_buffer_class=buffer, device="cpu",
    )  # fmt: skip


@pytest.mark.parametrize("buffer", [ReplayBuffer, DeviceReplayBuffer])
@pytest.mark.parametrize("steps", [5, 10])  # per environment; with 10 the buffer is full
def test_resuming_cuts_off_only_what_had_not_ended(tmp_path, buffer, steps):
    """An episode goes on, one has terminated and one was out of time when it was interrupted."""
    model = make_model(buffer)
    model.learn(3 * steps)
    for name, values in (("dones", [0.0, 1.0, 1.0]), ("timeouts", [0.0, 0.0, 1.0])):
        getattr(model.replay_buffer, name)[steps - 1] = torch.tensor(values)
    again = make_model(buffer)
    checkpoint.load(checkpoint.save(model, tmp_path, {}), again)
    dones, timeouts = (np.asarray(getattr(again.replay_buffer, k)) for k in ("dones", "timeouts"))
    np.testing.assert_array_equal(dones[steps - 1], [0, 1, 1])
    np.testing.assert_array_equal(timeouts[steps - 1], [1, 0, 1])
    assert not timeouts[: steps - 1].any()


def test_a_gpu_that_is_not_used_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *_: 1 / 0)
    model = make_model()
    model.learn(15)
    path = checkpoint.save(model, tmp_path, {})
    with np.load(path / "arrays.npz") as arrays:
        assert "rng/cuda" not in arrays
    checkpoint.load(path, make_model())


def test_a_gpus_generator_is_restored_and_adam_counts_on_the_host(tmp_path, monkeypatch):
    gpu, restored = torch.device("cuda", 1), []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.tensor([device.index]))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: restored.append(device))
    model, again = make_model(), make_model()
    model.learn(15)
    model.device = again.device = gpu
    checkpoint.load(checkpoint.save(model, tmp_path, {}), again)  # nothing is read to the GPU
    assert restored == [gpu]
    (step, *_) = (s["step"] for s in again.actor.optimizer.state.values())
    assert step.device.type == "cpu"
    assert step > 0
