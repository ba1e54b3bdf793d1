"""Tasks, engines and environments by name. A new one is a new file: nothing is added here."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from motoric.envs.batched import Batch, BatchedEnv
from motoric.envs.engine import Simulation
from motoric.envs.scene import Scene
from motoric.hardware.registry import Table

# A module of `envs/tasks` or `envs/engines` by its own name; others' by entry points.
TASKS = Table("task", "tasks", package="motoric.envs.tasks", attribute="TASK")
ENGINES = Table("engine", "engines", package="motoric.envs.engines", attribute="ENGINE")


def make_engine(engine: str, scene: Scene, rows: int, num_threads: int = 0) -> Simulation:
    """N rows of a scene. Raises ValueError for an unknown engine, or one that can't have it."""
    return ENGINES.find(engine)(scene, rows, num_threads)


def make_task(name: str, options: dict[str, Any] | None = None) -> Any:
    """A task with options, nested ones as dicts. Raises ValueError naming what doesn't fit."""
    return _filled(TASKS.find(name), options or {}, "env.options")


def make_batch(
    name: str,
    worlds: int = 1,
    seed: int = 0,
    engine: str | None = None,
    num_threads: int = 0,
    options: dict[str, Any] | None = None,
) -> Batch:
    """Worlds of a task (by its name) or of any Gymnasium environment (by its id).

    engine: of a task's physics; None: its first. num_threads: of a task's simulation; 0: all
    cores. options: fields of the task, or arguments of `gymnasium.make`.
    Raises ValueError for an unknown name, and for what doesn't fit.
    """
    options = options or {}
    if name in TASKS:
        return BatchedEnv(make_task(name, options), worlds, seed, num_threads, engine)
    ours = _in_its_place(name)
    if ours is not None and set(options) <= {f.name for f in dataclasses.fields(ours)}:
        task = _filled(ours, options, "env.options")
        return BatchedEnv(task, worlds, seed, num_threads, engine)
    if engine is not None:
        raise ValueError(f"engine: {engine!r}, but {name} is not one of our tasks")
    from motoric.envs.gymnasium_env import GymnasiumEnvs

    return GymnasiumEnvs(name, worlds, seed, options)


def _in_its_place(id: str) -> Any:
    """A task of ours that is a Gymnasium environment step for step: `HalfCheetah-v5` is looked
    for in `half_cheetah`."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", id.partition("-")[0]).lower()
    found = TASKS.get(name)
    return found if getattr(found, "id", None) == id else None


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
