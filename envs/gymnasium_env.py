"""Any Gymnasium environment as a `Batch`: N of them, stepped one after the other."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from motoric.envs.batched import Info, Observed, checked_action
from motoric.envs.engine import Array
from motoric.hardware.goals import Goal, Part
from motoric.hardware.interfaces.base import Metric
from numpy.typing import NDArray

MOST_SEED = 2**31  # many environments take no larger one
ARRAYS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
SUCCESS = Metric("success", "", "any", "success")


class GymnasiumEnvs:
    """N environments of one id. Environment i begins with seed + i, and goes on from there.

    options: arguments of `gymnasium.make`, and `episode_seconds` until the time limit, as a task
    has them. Raises ValueError for an unknown id, and for what doesn't fit.
    """

    agents = 1
    engine: str | None = None
    interface = None
    goals: tuple[Part, ...] = ()
    goal: Goal = {}  # noqa: RUF012

    def __init__(self, name: str, num_envs: int, seed: int, options: dict[str, Any]) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs: {num_envs}, expected at least 1")
        _check_id(name)
        self.name, self.num_envs = name, num_envs
        self._options = {k: v for k, v in options.items() if k != "episode_seconds"}
        one = self._make()
        self.control_dt = _period(one)
        if "episode_seconds" in options:
            one.close()
            seconds = options["episode_seconds"]
            if not isinstance(seconds, int | float) or not 0 < seconds < np.inf:
                raise ValueError(f"env.options.episode_seconds: {seconds!r}, expected a time, s")
            self._options["max_episode_steps"] = max(1, round(seconds / self.control_dt))
            one = self._make()
        self.observation_space, self.action_space = one.observation_space, one.action_space
        self._check_spaces()
        self.envs = [one, *(self._make() for _ in range(num_envs - 1))]
        self.metrics: tuple[Metric, ...] = ()
        self.reset(seed)

    def _check_spaces(self) -> None:
        seen = self.observation_space
        parts = seen.values() if isinstance(seen, spaces.Dict) else [seen]
        for key, those in (("observed", parts), ("acted on", [self.action_space])):
            for space in those:
                if not isinstance(space, ARRAYS):
                    raise ValueError(
                        f"env: {self.name!r} is {key} in a {type(space).__name__}, expected "
                        f"{', '.join(kind.__name__ for kind in ARRAYS)}"
                        + (", or a Dict of them" if key == "observed" else "")
                    )

    def _make(self, **more: Any) -> gym.Env:
        try:
            return gym.make(self.name, **self._options, **more)
        except (TypeError, OSError, ValueError, gym.error.Error, ImportError) as error:
            text = str(error).split("\n")[0]
            raise ValueError(
                f"env: {self.name!r} can't be made with {self._options}: {text}"
            ) from None

    @property
    def model(self) -> Any:
        """MuJoCo's, of those environments that have it."""
        import mujoco

        model = getattr(self.envs[0].unwrapped, "model", None)
        return model if isinstance(model, mujoco.MjModel) else None

    @property
    def poses(self) -> Array | None:
        if self.model is None:
            return None
        return np.stack([env.unwrapped.data.qpos for env in self.envs])  # type: ignore[attr-defined]

    def reset(self, seed: int | None = None) -> Observed:
        if seed is not None:
            self._seed, self._stepped = seed, False
        self._steps, self._returns = np.zeros(self.num_envs, np.int64), np.zeros(self.num_envs)
        return self._stack([self._begin(i) for i in range(self.num_envs)])

    def _begin(self, i: int) -> Any:
        """The first observation of a new episode; the very first is that of its seed."""
        self._steps[i], self._returns[i] = 0, 0.0
        seed = None if self._stepped else int((self._seed + i) % MOST_SEED)
        observation, _ = self.envs[i].reset(seed=seed)
        self._check(observation, "observation", i)
        return observation

    def step(self, action: NDArray) -> tuple[Observed, Array, NDArray, NDArray, Info]:
        actions, count = self._actions(action), self.num_envs
        self._stepped = True
        reward, terminated = np.zeros(count), np.zeros(count, bool)
        truncated, success = np.zeros(count, bool), np.full(count, np.nan)
        final = []
        for i, env in enumerate(self.envs):
            observation, paid, over, late, info = env.step(actions[i])
            self._steps[i] += 1
            self._check(observation, "observation", i)
            self._check(paid, "reward", i)
            reward[i], terminated[i], truncated[i] = float(paid), bool(over), bool(late)
            if "is_success" in info:
                success[i] = float(info["is_success"])
            final.append(observation)
        self._returns += reward
        done = terminated | truncated
        if np.isfinite(success).any():
            self.metrics = (SUCCESS,)
        told: Info = {
            "final_obs": self._stack(final) if done.any() else None,
            "episode_return": self._returns.copy(),
            "episode_length": self._steps.copy(),
            "terms": {},
            "metrics": {SUCCESS.name: success} if self.metrics else {},
        }
        seen = [self._begin(i) if done[i] else final[i] for i in range(count)]
        return self._stack(seen), reward, terminated, truncated & ~terminated, told

    def _actions(self, action: NDArray) -> list[Any]:
        """One for each environment. Raises ValueError for a wrong shape, or NaN."""
        space = self.action_space
        action, shape = np.asarray(action), (self.num_envs, *(space.shape or ()))
        if isinstance(space, spaces.Discrete):
            if action.size != self.num_envs:
                raise ValueError(f"action: shape {action.shape}, expected {shape}")
            return [int(a) for a in action.ravel()]
        if isinstance(space, spaces.Box):
            action = checked_action(action, shape)
        elif action.shape != shape:
            raise ValueError(f"action: shape {action.shape}, expected {shape}")
        return list(action.astype(space.dtype))

    def _check(self, value: Any, what: str, row: int) -> None:
        """Raise ValueError, with environment, step and entry, for what isn't finite."""
        parts = value.items() if isinstance(value, dict) else [("", value)]
        for key, part in parts:
            array = np.asarray(part)
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                entry = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
                place = f"{what} {key}".strip() + (f" {list(entry)}" if entry else "")
                raise ValueError(
                    f"env: {self.name}, environment {row}, step {self._steps[row]}: {place} is "
                    f"{array[entry]}"
                )

    def _stack(self, observations: list[Any]) -> Observed:
        if isinstance(self.observation_space, spaces.Dict):
            return {
                key: np.stack([np.asarray(o[key], space.dtype) for o in observations])
                for key, space in self.observation_space.items()
            }
        return np.stack([np.asarray(o, self.observation_space.dtype) for o in observations])

    def hold_goal(self, values: Any) -> None:
        if values is not None:
            raise ValueError(f"goal: {values}, {self.name} has no goal to set")

    def push(self, velocity: Array) -> None:
        """Along the first joints of an environment on MuJoCo."""
        if self.model is not None:
            for env in self.envs:
                speeds = env.unwrapped.data.qvel[:2]  # type: ignore[attr-defined]
                speeds += velocity[: len(speeds)]

    def render(self) -> NDArray[np.uint8] | None:
        """Environment 0 by its own renderer. It is made anew the first time: as it was where it
        has not been stepped yet, else in a new episode."""
        if self.envs[0].render_mode != "rgb_array":
            self.envs[0].close()
            self.envs[0] = self._make(render_mode="rgb_array")
            self._begin(0)
        frame = self.envs[0].render()
        return None if frame is None else np.asarray(frame)

    def save_state(self) -> None:
        return None

    def load_state(self, saved: dict[str, NDArray]) -> None:
        raise ValueError(f"{self.name}: its state can't be saved")

    def close(self) -> None:
        for env in self.envs:
            env.close()


def _period(env: gym.Env) -> float:
    """s of a step: the environment's own `dt`, or that of its pictures."""
    dt = getattr(env.unwrapped, "dt", None)
    if isinstance(dt, int | float | np.number) and dt > 0:
        return float(dt)
    return 1.0 / (env.metadata.get("render_fps") or 30.0)


def _check_id(name: str) -> None:
    from motoric.envs.registry import TASKS

    module, _, known = name.rpartition(":")  # as in gymnasium.make("module:Id-v0")
    try:
        if module:
            import_module(module)
        gym.spec(known)
    except (gym.error.Error, ImportError) as error:
        raise ValueError(
            f"env: {name!r} is neither a task ({', '.join(TASKS)}) nor a Gymnasium id: {error}"
        ) from None
