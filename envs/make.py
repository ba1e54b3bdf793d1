"""Environments by name, for training with stable-baselines3."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import gymnasium as gym
from motoric.envs.registry import GYMNASIUM_TASKS, TASKS, make_task
from motoric.envs.vector import BatchedVecEnv
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv


def make_vec(
    name: str,
    num_envs: int,
    seed: int,
    engine: str | None = None,
    num_threads: int = 0,
    **options: Any,
) -> VecEnv:
    """A `VecEnv` of a task (by its name) or of any Gymnasium environment (by its id).

    engine: of a task's physics, MuJoCo unless given
    num_threads: that step a task's simulation, 0: one per core
    options: fields of the task, or keyword arguments of `gymnasium.make`.
    Raises ValueError for an unknown name, naming what there is.
    """
    if name in TASKS:
        task = make_task(name, options)
        return BatchedVecEnv(task, num_envs, seed, num_threads, engine or "mujoco")
    if engine is not None:
        raise ValueError(f"env.engine: {engine!r}, but {name} is not one of our tasks")
    if name in GYMNASIUM_TASKS:
        try:
            return BatchedVecEnv(make_task(name, options), num_envs, seed, num_threads)
        except ValueError:
            pass  # an option that only Gymnasium's own knows, or that nobody does
    module, _, known = name.rpartition(":")  # as in gymnasium.make("module:Id-v0")
    try:
        if module:
            import_module(module)
        gym.spec(known)
    except (gym.error.Error, ImportError) as error:
        raise ValueError(
            f"env: {name!r} is neither a task ({', '.join(TASKS)}) nor a Gymnasium id: {error}"
        ) from None
    try:
        return make_vec_env(name, num_envs, seed, env_kwargs=options)
    except (TypeError, OSError, gym.error.Error, ImportError) as error:
        raise ValueError(f"env: {name!r} can't be made with {options}: {error}") from None
