"""The batched environments through Gymnasium's and stable-baselines3's interfaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from motoric.envs.registry import make_batch, make_task
from motoric.envs.task import Task
from motoric.envs.tasks.gymnasium import GymnasiumTask
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv


def observation_space(task: Task | GymnasiumTask) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (task.observation_size,), np.float32)


def action_space(task: Task | GymnasiumTask) -> spaces.Box:
    limit = task.action_limit
    return spaces.Box(-limit, limit, (task.action_size,), np.float32)


class BatchedVectorEnv(VectorEnv):
    """`gymnasium.vector.VectorEnv` with autoreset in the same step."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        task: str,
        num_envs: int = 1,
        num_threads: int = 0,
        engine: str = "mujoco",
        **options: Any,
    ) -> None:
        self.batched = make_batch(make_task(task, options), num_envs, 0, num_threads, engine)
        self.num_envs = num_envs
        self.single_observation_space = observation_space(self.batched.task)
        self.single_action_space = action_space(self.batched.task)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._seeded = False

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**62))
        self._seeded = True
        return self.batched.reset(seed), {}

    def step(self, actions: NDArray):
        obs, reward, terminated, truncated, info = self.batched.step(actions)
        infos: dict[str, Any] = {k: info[k] for k in ("velocity_error", "speed") if k in info}
        if info["final_obs"] is not None:
            done = terminated | truncated
            final = np.full(self.num_envs, None, dtype=object)
            for i in np.flatnonzero(done):
                final[i] = info["final_obs"][i]
            infos |= {
                "final_obs": final,
                "_final_obs": done,
                "final_info": {
                    "episode": {"r": info["episode_return"], "l": info["episode_length"]},
                    "_episode": done,
                },
                "_final_info": done,
            }
        return obs, reward, terminated, truncated, infos


class BatchedVecEnv(VecEnv):
    """stable-baselines3 `VecEnv`; infos tell final observations, time limits and returns."""

    def __init__(
        self,
        task: Task | GymnasiumTask,
        num_envs: int,
        seed: int = 0,
        num_threads: int = 0,
        engine: str = "mujoco",
    ) -> None:
        self.batched = make_batch(task, num_envs, seed, num_threads, engine)
        self.render_mode = None
        super().__init__(num_envs, observation_space(task), action_space(task))

    def reset(self) -> NDArray:
        seed = self._seeds[0]
        self._reset_seeds()
        self._reset_options()
        return self.batched.reset(seed)

    def step_async(self, actions: NDArray) -> None:
        self._actions = actions

    def step_wait(self):
        obs, reward, terminated, truncated, info = self.batched.step(self._actions)
        done = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(done):
            infos[i] = {
                "terminal_observation": info["final_obs"][i],
                "TimeLimit.truncated": bool(truncated[i]),
                "episode": {
                    "r": float(info["episode_return"][i]),
                    "l": int(info["episode_length"][i]),
                },
            }
        self.last_info = info
        return obs, reward.astype(np.float32), done, infos

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)] * len(self._indices(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list:
        raise NotImplementedError(f"{method_name}: batched environments have no single one to ask")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False] * len(self._indices(indices))

    def _indices(self, indices: Any) -> Sequence[int]:
        return list(self._get_indices(indices))


class TaskEnv(gym.Env):
    """One environment at a time, as `gymnasium.make("motoric/Go2Velocity-v0")` gives it."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012

    def __init__(
        self,
        task: str,
        render_mode: str | None = None,
        engine: str = "mujoco",
        **options: Any,
    ) -> None:
        self.batched = make_batch(make_task(task, options), 1, 0, 1, engine)
        self.observation_space = observation_space(self.batched.task)
        self.action_space = action_space(self.batched.task)
        self.metadata = self.metadata | {"render_fps": round(1 / self.batched.task.control_dt)}
        self.render_mode = render_mode
        self._renderer: Any = None
        self._seeded = False

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**62))
        self._seeded = True
        return self.batched.reset(seed)[0], {}

    def step(self, action: NDArray):
        obs, reward, terminated, truncated, info = self.batched.step(np.asarray(action)[None])
        final = obs if info["final_obs"] is None else info["final_obs"]
        return (
            final[0],
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            {k: float(info[k][0]) for k in ("velocity_error", "speed") if k in info},
        )

    def render(self) -> NDArray[np.uint8] | None:
        """The view of the tracking camera, uint8 [480, 640, 3]."""
        if self.render_mode != "rgb_array":
            return None
        model = self.batched.model
        if self._renderer is None:
            self._renderer = mujoco.Renderer(model, 480, 640)
            self._data = mujoco.MjData(model)
        self._data.qpos[:] = self.batched.qpos[0]
        mujoco.mj_forward(model, self._data)
        self._renderer.update_scene(self._data, camera="track")
        return self._renderer.render()

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
