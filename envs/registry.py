"""The tasks by name. A new task adds one line here."""

from __future__ import annotations

from collections.abc import Callable

from motoric.envs.go2_velocity import Go2Velocity
from motoric.envs.task import Task

TASKS: dict[str, Callable[..., Task]] = {"go2_velocity": Go2Velocity}
