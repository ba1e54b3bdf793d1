"""The replay buffer on the device holds what stable-baselines3's holds on the host."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from motoric.policies.dsac_t import DSACT
from motoric.policies.replay import DeviceReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

OBS = spaces.Box(-np.inf, np.inf, (2, 3), np.float64)
ACTION = spaces.Box(-1, 1, (4,), np.float32)
VALUES = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def fill(buffers: list[ReplayBuffer], steps: int, n_envs: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(steps):
        obs, next_obs = rng.normal(size=(2, n_envs, *OBS.shape)).astype(np.float32)
        action = rng.uniform(-1, 1, (n_envs, *ACTION.shape)).astype(np.float32)
        reward, done = rng.normal(size=n_envs), rng.random(n_envs) < 0.5
        infos: list[dict[str, Any]] = [
            {"TimeLimit.truncated": True} if rng.random() < 0.5 else {} for _ in range(n_envs)
        ]
        for buffer in buffers:
            buffer.add(obs, next_obs, action, reward, done, infos)


def both(n_envs: int, steps: int) -> tuple[ReplayBuffer, DeviceReplayBuffer]:
    host = ReplayBuffer(60, OBS, ACTION, "cpu", n_envs)
    device = DeviceReplayBuffer(60, OBS, ACTION, "cpu", n_envs)
    fill([host, device], steps, n_envs)
    return host, device


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("steps", [7, 75])  # not full; full, and begun again
def test_holds_the_same(n_envs, steps):
    host, device = both(n_envs, steps)
    assert (host.pos, host.full, host.size()) == (device.pos, device.full, device.size())
    for name in VALUES:
        assert np.array_equal(getattr(host, name), getattr(device, name).numpy()), name


class Still(DummyVecEnv):
    def __init__(self) -> None:
        self.num_envs, self.observation_space, self.action_space = 1, OBS, ACTION
        self.render_mode = None

    def get_attr(self, *_: Any) -> list[Any]:
        return [None]


def normalizer() -> VecNormalize:
    env = VecNormalize(Still(), clip_obs=1.5, clip_reward=1.0)
    rng = np.random.default_rng(1)
    env.obs_rms.update(rng.normal(3.0, 2.0, (100, *OBS.shape)))  # type: ignore[union-attr]
    env.ret_rms.update(rng.normal(3.0, 2.0, 100))
    return env


@pytest.mark.parametrize("env", [None, normalizer()], ids=["plain", "normalized"])
def test_samples_are_the_same(env):
    host, device = both(1, 75)
    index = np.random.default_rng(2).integers(0, 60, 200)
    expected = host._get_samples(index, env)
    found = device._gather(th.from_numpy(index), env)
    for name in ("observations", "actions", "next_observations", "dones", "rewards"):
        one, two = getattr(expected, name), getattr(found, name)
        assert two.dtype == th.float32
        assert one.shape == two.shape, name
        assert two.is_contiguous()
        th.testing.assert_close(two, one.float(), rtol=1e-6, atol=1e-6)
    if env is not None:
        assert (found.observations.abs() == 1.5).any()
        assert (found.rewards.abs() == 1.0).any()


@pytest.mark.parametrize("steps", [7, 75])
def test_every_stored_transition_is_drawn_alike_and_no_other(steps):
    _, device = both(3, steps)
    stored = device.size() * 3
    device.rewards.fill_(-1.0)
    device.rewards[: device.size()] = th.arange(stored).float().view(-1, 3)
    th.manual_seed(0)
    drawn = device.sample(stored * 400).rewards.long().squeeze(1)
    counts = th.bincount(drawn, minlength=stored)
    assert len(counts) == stored
    assert (counts - 400).abs().max() < 5 * 20  # 5 standard deviations


@pytest.mark.parametrize("again", [copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))])
def test_a_copy_is_whole(again):
    host, device = both(3, 75)
    one = again(device)
    fill([host, one], 5, 3)
    for name in VALUES:
        assert np.array_equal(getattr(host, name), getattr(one, name).numpy()), name


def test_what_does_not_fit_is_refused():
    image = spaces.Box(0, 255, (3, 64, 64), np.uint8)
    for obs, action in ((image, ACTION), (OBS, spaces.Discrete(2)), (spaces.Dict(a=OBS), ACTION)):
        with pytest.raises(ValueError, match="expected flat observations and continuous actions"):
            DeviceReplayBuffer(10, obs, action)
    with pytest.raises(ValueError, match="optimize_memory_usage"):
        DeviceReplayBuffer(10, OBS, ACTION, optimize_memory_usage=True)
    with pytest.raises(ValueError, match="buffer_size: 1000000000000000 transitions don't fit"):
        DeviceReplayBuffer(10**15, OBS, ACTION, "cpu")


def test_trains_with_several_normalized_environments():
    env = VecNormalize(make_vec_env("Pendulum-v1", 2), gamma=0.99)
    model = DSACT(
        "MlpPolicy", env, learning_starts=20, train_freq=1, batch_size=16, gamma=0.0, seed=0,
        replay_buffer_class=DeviceReplayBuffer, policy_kwargs={"net_arch": [8]},
    ).learn(200)  # fmt: skip
    buffer = model.replay_buffer
    assert isinstance(buffer, DeviceReplayBuffer)
    assert buffer.rewards[: buffer.pos].abs().max() > 5.0  # original rewards are stored
    assert model._n_updates == 90
    assert model._last_batch["y_q"].abs().max() < 5.0
