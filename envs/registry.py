"""The tasks and the engines by name. A new one adds one line here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib import import_module
from typing import Any

from motoric.envs.engine import Simulation
from motoric.envs.task import Task
from motoric.envs.tasks.go2_velocity import Go2Velocity
from motoric.envs.tasks.gymnasium import Ant, GymnasiumTask, HalfCheetah
from motoric.hardware.robot import RobotSpec

TASKS: dict[str, Callable[..., Any]] = {"go2_velocity": Go2Velocity}

# Gymnasium's environments that we step many at a time, by their ids
GYMNASIUM_TASKS: dict[str, Callable[..., GymnasiumTask]] = {t.id: t for t in (HalfCheetah, Ant)}

# module and class of each physics engine; imported only where it is used
ENGINES: dict[str, tuple[str, str]] = {
    "mujoco": ("motoric.envs.engines.mujoco", "MujocoSimulation"),
    "pybullet": ("motoric.envs.engines.pybullet", "PyBulletSimulation"),
}


def make_simulation(
    engine: str, robot: RobotSpec, num_envs: int, num_threads: int = 0
) -> Simulation:
    """N robots in an engine. Raises ValueError for an unknown engine or one not installed."""
    if engine not in ENGINES:
        raise ValueError(f"engine: {engine!r}, expected one of {', '.join(ENGINES)}")
    module, name = ENGINES[engine]
    return getattr(import_module(module), name)(robot, num_envs, num_threads)


def make_task(name: str, options: dict[str, Any]) -> Any:
    """A task with options, nested ones as dicts. Raises ValueError naming what doesn't fit."""
    return _filled((TASKS | GYMNASIUM_TASKS)[name], options, "env.options")


def make_batch(
    task: Task | GymnasiumTask,
    num_envs: int,
    seed: int = 0,
    num_threads: int = 0,
    engine: str = "mujoco",
) -> Any:
    """N episodes of a task, stepped together: a `BatchedEnv` or a `GymnasiumBatch`."""
    if isinstance(task, GymnasiumTask):
        if engine != "mujoco":
            raise ValueError(f"engine: {engine!r}, {task.id} runs in mujoco only")
        from motoric.envs.gymnasium_batch import GymnasiumBatch

        return GymnasiumBatch(task, num_envs, seed, num_threads)
    from motoric.envs.batched import BatchedEnv

    return BatchedEnv(task, num_envs, seed, num_threads, engine)


def _filled(kind: Any, values: dict[str, Any], where: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}
    checked = {}
    for key, value in values.items():
        if key not in fields:
            raise ValueError(f"{where}.{key}: no such option, expected one of {', '.join(fields)}")
        default = fields[key].default_factory
        default = fields[key].default if default is dataclasses.MISSING else default()
        if dataclasses.is_dataclass(default):
            if not isinstance(value, dict):
                raise ValueError(f"{where}.{key}: {value!r}, expected keys and values")
            value = _filled(type(default), value, f"{where}.{key}")
        elif type(default) is float and type(value) is int:
            value = float(value)
        elif type(value) is not type(default):
            raise ValueError(
                f"{where}.{key}: {value!r}, expected a {type(default).__name__} like {default!r}"
            )
        checked[key] = value
    return kind(**checked)
