"""A replay buffer in the memory of the device that learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize


class DeviceReplayBuffer(ReplayBuffer):
    """stable-baselines3's ``ReplayBuffer`` with its transitions on the learning device.

    A transition is one row of float32, so that a step of the environments is one copy to the
    device and a batch is one gather on it: nothing crosses to the host and back while learning.
    ``observations``, ``actions`` and so on are views of the rows, ``[size, n_envs, ...]``.
    Indices are drawn by the device's torch generator.

    :param observation_space: a flat ``Box`` of numbers
    :param action_space: a ``Box``
    :raises ValueError: for other spaces, for ``optimize_memory_usage`` and where the device has
        not enough memory
    """

    observations: th.Tensor  # type: ignore[assignment]
    next_observations: th.Tensor  # type: ignore[assignment]
    actions: th.Tensor  # type: ignore[assignment]
    rewards: th.Tensor  # type: ignore[assignment]
    dones: th.Tensor  # type: ignore[assignment]
    timeouts: th.Tensor  # type: ignore[assignment]

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
    ):
        if not self.supports(observation_space, action_space):
            raise ValueError(
                "replay on the device: expected flat observations and continuous actions, not "
                f"{observation_space} and {action_space}"
            )
        if optimize_memory_usage:
            raise ValueError("replay on the device: optimize_memory_usage is not supported")
        # the host's arrays, which this makes, are of one transition and go at once
        super().__init__(n_envs, observation_space, action_space, device, n_envs)
        self.buffer_size = max(buffer_size // n_envs, 1)
        self.handle_timeout_termination = handle_timeout_termination
        n_obs = int(np.prod(self.obs_shape))
        self._sizes = [n_obs, n_obs, self.action_dim, 1, 1, 1]
        try:
            self._rows = th.zeros(self.buffer_size, n_envs, sum(self._sizes), device=self.device)
        except RuntimeError as error:  # torch's out of memory, on a CPU or a GPU
            raise ValueError(
                f"buffer_size: {buffer_size} transitions don't fit into the memory of "
                f"{self.device}: {str(error).splitlines()[0]}"
            ) from None
        self._views()

    @staticmethod
    def supports(observation_space: spaces.Space, action_space: spaces.Space) -> bool:
        return (
            isinstance(observation_space, spaces.Box)
            and not is_image_space(observation_space)
            and isinstance(action_space, spaces.Box)
        )

    def _views(self) -> None:
        obs, next_obs, action, reward, done, timeout = self._rows.split(self._sizes, dim=-1)
        shape = (self.buffer_size, self.n_envs, *self.obs_shape)
        self.observations, self.next_observations = obs.view(shape), next_obs.view(shape)
        self.actions, self.rewards = action, reward[..., 0]
        self.dones, self.timeouts = done[..., 0], timeout[..., 0]

    def __getstate__(self) -> dict[str, Any]:
        views = {"observations", "next_observations", "actions", "rewards", "dones", "timeouts"}
        return {name: value for name, value in self.__dict__.items() if name not in views}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._views()

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        n = self.n_envs
        timeout = np.zeros(n)
        if self.handle_timeout_termination:
            timeout[:] = [info.get("TimeLimit.truncated", False) for info in infos]
        parts = (obs, next_obs, action, reward, done, timeout)
        rows = np.concatenate([np.reshape(part, (n, -1)) for part in parts], 1, dtype=np.float32)
        self._rows[self.pos] = th.from_numpy(rows).to(self.device)
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full, self.pos = True, 0

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        stored = (self.buffer_size if self.full else self.pos) * self.n_envs
        return self._gather(th.randint(stored, (batch_size,), device=self.device), env)

    def _gather(self, index: th.Tensor, env: VecNormalize | None) -> ReplayBufferSamples:
        """Transitions by their place in time and environment, the latter running faster."""
        rows = self._rows.flatten(0, 1).index_select(0, index)
        obs, next_obs, action, reward, done, timeout = rows.split(self._sizes, dim=1)
        shape = (len(index), *self.obs_shape)
        obs, next_obs = obs.reshape(shape), next_obs.reshape(shape)
        if env is not None and env.norm_obs:
            assert not isinstance(env.obs_rms, dict)
            mean, deviation = (
                th.as_tensor(value, dtype=th.float32, device=self.device)
                for value in (env.obs_rms.mean, np.sqrt(env.obs_rms.var + env.epsilon))
            )
            obs = ((obs - mean) / deviation).clamp(-env.clip_obs, env.clip_obs)
            next_obs = ((next_obs - mean) / deviation).clamp(-env.clip_obs, env.clip_obs)
        if env is not None and env.norm_reward:
            deviation = float(np.sqrt(env.ret_rms.var + env.epsilon))
            reward = (reward / deviation).clamp(-env.clip_reward, env.clip_reward)
        # contiguous: what is compiled asks for one layout
        return ReplayBufferSamples(
            obs.contiguous(), action.contiguous(), next_obs.contiguous(),
            done * (1 - timeout), reward.contiguous(),
        )  # fmt: skip
