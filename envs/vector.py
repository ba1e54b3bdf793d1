"""A `Batch` through Gymnasium's and stable-baselines3's interfaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from motoric.envs.batched import Batch
from motoric.envs.registry import make_batch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv


def _row(observation: Any, i: int) -> Any:
    if isinstance(observation, dict):
        return {name: value[i] for name, value in observation.items()}
    return observation[i]


class BatchedVectorEnv(VectorEnv):
    """`gymnasium.vector.VectorEnv` with autoreset in the same step."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        task: str,
        num_envs: int = 1,
        num_threads: int = 0,
        engine: str | None = None,
        **options: Any,
    ) -> None:
        self.batch = make_batch(task, num_envs, 0, engine, num_threads, options)
        self.num_envs = self.batch.num_envs
        self.single_observation_space = self.batch.observation_space
        self.single_action_space = self.batch.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._seeded = False

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**62))
        self._seeded = True
        return self.batch.reset(seed), {}

    def step(self, actions: NDArray):
        obs, reward, terminated, truncated, info = self.batch.step(actions)
        infos: dict[str, Any] = dict(info["metrics"])
        if info["final_obs"] is not None:
            done = terminated | truncated
            final = np.full(self.num_envs, None, dtype=object)
            for i in np.flatnonzero(done):
                final[i] = _row(info["final_obs"], int(i))
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

    def close_extras(self, **kwargs: Any) -> None:
        self.batch.close()


class BatchVecEnv(VecEnv):
    """stable-baselines3 `VecEnv`; infos tell final observations, time limits and returns.

    last_info: what the batch said of its last step
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.render_mode = None
        self.last_info: dict[str, Any] = {}
        super().__init__(batch.num_envs, batch.observation_space, batch.action_space)

    @property
    def mirror(self) -> dict[str, Any] | None:
        """How the task looks in a mirror; None: it has no such symmetry."""
        task = getattr(self.batch, "task", None)
        return None if task is None else task.mirror

    def reset(self) -> Any:
        seed = self._seeds[0]
        self._reset_seeds()
        self._reset_options()
        return self.batch.reset(seed)

    def step_async(self, actions: NDArray) -> None:
        self._actions = actions

    def step_wait(self):
        obs, reward, terminated, truncated, info = self.batch.step(self._actions)
        done = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(done):
            infos[i] = {
                "terminal_observation": _row(info["final_obs"], int(i)),
                "TimeLimit.truncated": bool(truncated[i]),
                "episode": {
                    "r": float(info["episode_return"][i]),
                    "l": int(info["episode_length"][i]),
                },
            }
        self.last_info = info
        return obs, reward.astype(np.float32), done, infos

    def close(self) -> None:
        self.batch.close()

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
    """One environment at a time, as `gymnasium.make("motoric/go2_velocity")` gives it."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012

    def __init__(
        self,
        task: str,
        render_mode: str | None = None,
        engine: str | None = None,
        **options: Any,
    ) -> None:
        self.batch = make_batch(task, 1, 0, engine, 1, options)
        if self.batch.num_envs != 1:
            raise ValueError(
                f"env: {task} has {self.batch.num_envs} agents in one world: use make_vec"
            )
        self.observation_space = self.batch.observation_space
        self.action_space = self.batch.action_space
        self.metadata = self.metadata | {"render_fps": round(1 / self.batch.control_dt)}
        self.render_mode = render_mode
        self._renderer: Any = None
        self._seeded = False

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**62))
        self._seeded = True
        return _row(self.batch.reset(seed), 0), {}

    def step(self, action: NDArray):
        obs, reward, terminated, truncated, info = self.batch.step(np.asarray(action)[None])
        final = obs if info["final_obs"] is None else info["final_obs"]
        return (
            _row(final, 0),
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            {name: float(value[0]) for name, value in info["metrics"].items()},
        )

    def render(self) -> NDArray[np.uint8] | None:
        """The view of the tracking camera, uint8 [480, 640, 3]."""
        model, poses = self.batch.model, self.batch.poses
        if self.render_mode != "rgb_array" or model is None or poses is None:
            return None
        import mujoco

        if self._renderer is None:
            self._renderer = mujoco.Renderer(model, 480, 640)
            self._data = mujoco.MjData(model)
            self._camera = "track" if model.ncam and "track" in _cameras(model) else -1
        self._data.qpos[:] = poses[0]
        mujoco.mj_forward(model, self._data)
        self._renderer.update_scene(self._data, camera=self._camera)
        return self._renderer.render()

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self.batch.close()


def _cameras(model: Any) -> list[str]:
    return [model.camera(i).name for i in range(model.ncam)]
