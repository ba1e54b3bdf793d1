"""What a task is: pure functions over N robots, and the numbers that describe them.

A task says what the robot sees, what it is paid for and when an episode ends. It never names a
physics engine: it reads `Motion` and returns joint targets through its action scale.
"""

from __future__ import annotations

from typing import Any, Protocol

from motoric.envs.engine import Array, Motion, Physics, Pose
from motoric.hardware.interfaces.terms import Term
from motoric.hardware.robot import RobotSpec
from numpy.typing import NDArray


class Task(Protocol):
    """Everything `BatchedEnv` asks of a task. `Go2Velocity` documents shapes and units."""

    name: str
    robot: RobotSpec
    control_dt: float
    substeps: int
    terms: tuple[Term, ...]
    action_limit: float
    gait_frequency: float
    command_low: tuple[float, ...]
    command_high: tuple[float, ...]

    @property
    def action_scale(self) -> Array: ...
    @property
    def action_size(self) -> int: ...
    @property
    def observation_size(self) -> int: ...
    @property
    def episode_steps(self) -> int: ...

    def reset(self, draw: Array) -> tuple[Pose, Any]: ...
    def physics(self, draw: Array) -> Physics: ...
    def observe(self, motion: Motion, episode: Any, draw: Array) -> NDArray: ...
    def reward(
        self, motion: Motion, episode: Any, action: Array
    ) -> tuple[Array, dict[str, Array]]: ...
    def terminated(self, motion: Motion) -> NDArray: ...
    def advance(
        self, motion: Motion, episode: Any, action: Array, steps: NDArray, draw: Array
    ) -> Any: ...
    def push(self, steps: NDArray, draw: Array) -> Array | None: ...
