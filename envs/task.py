"""What a task is: an interface (`motoric.hardware.interfaces`), and pure functions over N rows.

The interface says what the policy sees and how its action becomes a motor command, here and on the
robot. The task adds the scene, starts, goals, rewards, ends, randomisation and metrics. It never
names a physics engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from motoric.control.command import MotorCommand
from motoric.envs.engine import Array, Simulation
from motoric.hardware.goals import Goal
from motoric.hardware.interfaces.base import Interface, Memory, Metric, Observation
from motoric.hardware.measured import Measured
from numpy.typing import NDArray

Episode = dict[str, NDArray[Any]]  # a task's own memory of N running episodes, each [N, ...]


@dataclass
class Step:
    """One control step of N rows, as it is paid for.

    before, after: measured at its beginning and its end; goal: that held during it
    memory: the interface's before the action, i.e. as it was observed; action [N, A], as given
    command: as it left the filters; episode: the task's memory before the step
    steps [N]: since the episode began, this one included
    """

    before: Measured
    after: Measured
    goal: Goal
    memory: Memory
    action: Array
    command: MotorCommand
    episode: Episode
    steps: NDArray[np.int64]


class Task(ABC):
    """Subclasses are frozen dataclasses, whose fields are the task's options.

    name: under which it is registered; interface: of policy and robot
    substeps: physics steps per action; episode_seconds: until the time limit
    agents: rows that share a world, and begin and end together
    engines: it can run in, the first by default
    draws: how many uniform numbers each of its functions is given for a row
    """

    name: ClassVar[str]
    substeps: ClassVar[int] = 1
    agents: ClassVar[int] = 1
    engines: ClassVar[tuple[str, ...]] = ("mujoco",)
    draws: ClassVar[dict[str, int]] = {"reset": 64, "physics": 8, "advance": 8, "push": 2}
    episode_seconds: float

    @property
    @abstractmethod
    def interface(self) -> Interface: ...

    @property
    def control_dt(self) -> float:
        """s between two actions."""
        return 1.0 / self.interface.rate

    @property
    def episode_steps(self) -> int:
        return round(self.episode_seconds / self.control_dt)

    @property
    def mirror(self) -> dict[str, Any] | None:
        """How it looks in a mirror (`motoric.envs.mirror`); None: it has no such symmetry."""
        return None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What `measure` gives; the interface's are among them."""
        return self.interface.metrics

    @abstractmethod
    def simulation(self, engine: str, rows: int, threads: int) -> Simulation:
        """N rows of its scene. threads 0: the engine's choice. Raises ValueError."""

    @abstractmethod
    def reset(self, draw: Array) -> tuple[Any, Goal, Memory, Episode]:
        """Starts, goals, what the interface's memory begins with where it differs from `begin`,
        and the task's own memory, of M rows, from uniform draws [M, draws["reset"]]."""

    def physics(self, draw: Array) -> Any:
        """Physics of M rows from uniform draws; None: nominal."""
        return None

    def corrupt(self, observation: Observation, draw: Array) -> Observation:
        """The observation with sensor noise; draw: uniform, [N, `noise_size`]."""
        return observation

    @property
    def noise_size(self) -> int:
        """How many draws `corrupt` needs for a row; 0: it is not called."""
        return 0

    @abstractmethod
    def reward(self, step: Step) -> tuple[Array, dict[str, Array]]:
        """Reward [N] of a step, and its terms [N], already weighted."""

    def margin(self, measured: Measured, episode: Episode) -> Array | None:
        """How far each row is from an end that is not by time, [N], signed: it ends where this is
        below zero (or NaN). None: nothing ends it."""
        return None

    def advance(self, step: Step, draw: Array) -> tuple[Goal, Episode]:
        """Goal and memory for the next step; draw: uniform, [N, draws["advance"]]."""
        return step.goal, step.episode

    def push(self, steps: NDArray[np.int64], draw: Array) -> Array | None:
        """Kicks to the bases' velocity, m/s, [N, 3], or None; draw: uniform [N, draws["push"]]."""
        return None

    def measure(self, step: Step) -> dict[str, Array]:
        """The metrics of a step, [N] each."""
        return self.interface.measure(step.after, step.goal)
