"""Checkpoints of Gymnasium environments, and of models on a GPU that isn't there."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from motoric.envs.gymnasium_env import GymnasiumEnvs
from motoric.envs.vector import BatchVecEnv
from motoric.policies.baselines import Baseline
from motoric.policies.replay import DeviceReplayBuffer
from motoric.scripts.training import checkpoint
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer


class Endless(gym.Env):
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed_given = seed
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), 0.0, False, False, {}


@pytest.fixture(autouse=True)
def _registered():
    gym.register("Endless-v0", Endless)
    yield
    del gym.registry["Endless-v0"]


def made(buffer: type[ReplayBuffer] = ReplayBuffer) -> tuple[Baseline, GymnasiumEnvs]:
    batch = GymnasiumEnvs("Endless-v0", 3, 0, {})
    model = SAC(
        "MlpPolicy", BatchVecEnv(batch), buffer_size=30, learning_starts=12, batch_size=4,
        policy_kwargs={"net_arch": [4]}, replay_buffer_class=buffer, device="cpu",
    )  # fmt: skip
    return Baseline(model), batch


def learn(learner: Baseline, steps: int) -> None:
    learner.learn(steps, lambda: None)


@pytest.mark.parametrize("buffer", [ReplayBuffer, DeviceReplayBuffer])
@pytest.mark.parametrize("steps", [5, 10])  # per environment; with 10 the buffer is full
def test_resuming_cuts_off_only_what_had_not_ended(tmp_path, buffer, steps):
    """An episode goes on, one has terminated and one was out of time when it was interrupted."""
    learner, batch = made(buffer)
    learn(learner, 3 * steps)
    for name, values in (("dones", [0.0, 1.0, 1.0]), ("timeouts", [0.0, 0.0, 1.0])):
        getattr(learner.model.replay_buffer, name)[steps - 1] = torch.tensor(values)
    again, others = made(buffer)
    checkpoint.load(checkpoint.save(learner, batch, tmp_path, {}), again, others)
    replay = again.model.replay_buffer
    dones, timeouts = (np.asarray(getattr(replay, k)) for k in ("dones", "timeouts"))
    np.testing.assert_array_equal(dones[steps - 1], [0, 1, 1])
    np.testing.assert_array_equal(timeouts[steps - 1], [1, 0, 1])
    assert not timeouts[: steps - 1].any()
    seeds = [env.unwrapped.seed_given for env in others.envs]
    assert min(seeds) > 10, "episodes that it hasn't seen"


def test_a_gpu_that_is_not_used_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *_: 1 / 0)
    learner, batch = made()
    learn(learner, 15)
    path = checkpoint.save(learner, batch, tmp_path, {})
    with np.load(path / "arrays.npz") as arrays:
        assert "rng/cuda" not in arrays
    checkpoint.load(path, *made())


def test_a_gpus_generator_is_restored_and_adam_counts_on_the_host(tmp_path, monkeypatch):
    gpu, restored = torch.device("cuda", 1), []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.tensor([device.index]))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: restored.append(device))
    (learner, batch), (again, others) = made(), made()
    learn(learner, 15)
    learner.device = again.device = again.model.device = gpu
    path = checkpoint.save(learner, batch, tmp_path, {})
    with monkeypatch.context() as patched:  # nothing is read to the GPU, nor stepped there
        patched.setattr(again, "restart", lambda seed: None)
        checkpoint.load(path, again, others)
    assert restored == [gpu]
    (step, *_) = (s["step"] for s in again.model.actor.optimizer.state.values())
    assert step.device.type == "cpu"
    assert step > 0


def test_another_format_is_refused(tmp_path):
    learner, batch = made()
    path = checkpoint.save(learner, batch, tmp_path, {})
    text = (path / "state.json").read_text().replace(checkpoint.FORMAT, "motoric-checkpoint/1")
    (path / "state.json").write_text(text)
    with pytest.raises(ValueError, match="motoric-checkpoint/1"):
        checkpoint.load(path, learner, batch)
