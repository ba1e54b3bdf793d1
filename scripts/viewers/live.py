"""What a viewer shows: one environment with a policy acting in it, one step at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import mujoco
import numpy as np
from motoric.envs.batched import BatchedEnv
from motoric.envs.registry import TASKS, make_task
from motoric.hardware.runtime.bundle import Bundle
from motoric.scripts.config import UserError
from motoric.scripts.training.evaluation import act_once, trained_on
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """One step: its reward, the velocity (forward, left, m/s, turn, rad/s) where the task has
    one, and whether and how the episode ended with it."""

    reward: float
    velocity: tuple[float, float, float] | None
    terminated: bool
    truncated: bool


class Scene(Protocol):
    """A live environment.

    model, qpos [nq]: MuJoCo's; dt: s per step
    commands: names of the velocity command's numbers, with low, high; empty where there is none
    command: the present one, held or the task's own
    """

    model: mujoco.MjModel
    dt: float
    commands: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def qpos(self) -> Array: ...
    @property
    def command(self) -> Array: ...
    def set_command(self, command: list[float] | None) -> None: ...
    def push(self, velocity: list[float]) -> None: ...
    def reset(self) -> None: ...
    def step(self) -> Sample: ...
    def close(self) -> None: ...


class TaskScene:
    """One of our tasks with its policy. An episode ends by a fall, not by time."""

    commands: tuple[str, ...] = ("forward", "left", "turn")

    def __init__(
        self, bundle: Bundle, options: dict[str, Any], seed: int, engine: str | None = None
    ) -> None:
        self._bundle = bundle
        self._task = make_task(bundle.spec.task, options | {"episode_seconds": 1e6})
        self._env = BatchedEnv(self._task, 1, seed, 1, engine or trained_on(bundle))
        self.model, self.dt = self._env.model, self._task.control_dt
        self.low, self.high = self._task.command_low, self._task.command_high
        self._seed = seed
        self._obs = self._env.reset()

    @property
    def qpos(self) -> Array:
        return self._env.qpos[0]

    @property
    def command(self) -> Array:
        assert self._env.episode is not None
        return self._env.episode.command[0]

    def set_command(self, command: list[float] | None) -> None:
        """Hold a command, clipped to the trained range; None: as the task draws it."""
        if command is not None:
            command = np.clip(command, self.low, self.high).tolist()
        self._env.hold_command(command)

    def push(self, velocity: list[float]) -> None:
        """Kick the base, m/s in the world."""
        self._env.sim.push(np.array([velocity]))

    def reset(self) -> None:
        self._seed += 1
        self._obs = self._env.reset(self._seed)

    def step(self) -> Sample:
        action = self._bundle.act(self._obs)
        self._obs, reward, terminated, truncated, _ = self._env.step(action)
        motion = self._env.motion
        forward, left = motion.base_velocity[0, :2]
        turn = motion.angular_velocity[0, 2]
        return Sample(
            float(reward[0]), (float(forward), float(left), float(turn)),
            bool(terminated[0]), bool(truncated[0]),
        )  # fmt: skip

    def close(self) -> None:
        pass


class GymScene:
    """A Gymnasium environment on MuJoCo with its policy; episodes begin anew when they end."""

    commands: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __init__(self, bundle: Bundle, options: dict[str, Any], seed: int) -> None:
        self._bundle = bundle
        self._id = bundle.spec.task.removeprefix("gym:")
        self._env: Any = gym.make(self._id, **options)
        inner = self._env.unwrapped
        if not isinstance(getattr(inner, "model", None), mujoco.MjModel):
            self._env.close()
            raise UserError(f"viewer: {self._id} is not a MuJoCo environment; try viewer=video")
        self.model = inner.model
        self._data = inner.data
        self.dt = float(inner.dt)
        self._seed = seed
        self._obs, _ = self._env.reset(seed=seed)

    @property
    def qpos(self) -> Array:
        return self._data.qpos

    @property
    def command(self) -> Array:
        return np.zeros(0)

    def set_command(self, command: list[float] | None) -> None:
        if command is not None:
            raise UserError(f"command: {self._id} has none to set")

    def push(self, velocity: list[float]) -> None:
        self._data.qvel[: min(2, self.model.nv)] += velocity[: min(2, self.model.nv)]

    def reset(self) -> None:
        self._seed += 1
        self._obs, _ = self._env.reset(seed=self._seed)

    def step(self) -> Sample:
        action = act_once(self._bundle, self._obs, self._env.action_space)
        self._obs, reward, terminated, truncated, _ = self._env.step(action)
        if terminated or truncated:
            self._obs, _ = self._env.reset()
        return Sample(float(reward), None, bool(terminated), bool(truncated))

    def close(self) -> None:
        self._env.close()


def make_scene(
    bundle: Bundle, options: dict[str, Any], seed: int, engine: str | None = None
) -> Scene:
    """The environment a bundle was trained on, live. Raises UserError where it can't be shown.

    engine: of one of our tasks; None: the one it was trained on
    """
    try:
        if bundle.spec.task in TASKS:
            return TaskScene(bundle, options, seed, engine)
        return GymScene(bundle, options, seed)
    except (ValueError, gym.error.Error) as error:
        raise UserError(str(error).split("\n")[0]) from None
