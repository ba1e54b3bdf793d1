"""N episodes of one task, stepped together: the loop that all environment interfaces share."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from motoric.control.limits import limit_target
from motoric.envs.engine import Array, checked_action
from motoric.envs.random import uniform
from motoric.envs.registry import make_simulation
from motoric.envs.task import Task
from numpy.typing import NDArray

# Streams of random numbers: what is drawn for one purpose never shifts another.
RESET, PHYSICS, COMMAND, PUSH, NOISE = range(5)


class BatchedEnv:
    """N environments with autoreset in the same step.

    Environment i seeded with s behaves as environment 0 seeded with s + i: its randomness does
    not depend on N or on the others.
    """

    def __init__(
        self,
        task: Task,
        num_envs: int,
        seed: int = 0,
        num_threads: int = 0,
        engine: str = "mujoco",
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs: {num_envs}, expected at least 1")
        self.task = task
        self.num_envs = num_envs
        self.sim = make_simulation(engine, task.robot, num_envs, num_threads)
        self.observation_size, self.action_size = task.observation_size, task.action_size
        self._stand, self._scale = task.robot.stand, task.action_scale
        self._held: Array | None = None
        self._seed(seed)
        self.reset()

    @property
    def model(self):
        """The robot's MuJoCo model, whatever the engine: what a viewer draws."""
        return self.sim.model

    @property
    def qpos(self) -> Array:
        return self.sim.qpos

    def _seed(self, seed: int) -> None:
        n = self.num_envs
        self.seeds = (np.uint64(seed % 2**63) + np.arange(n, dtype=np.uint64)).astype(np.uint64)
        self.episodes = np.zeros(n, np.int64)  # episodes begun
        self.ticks = np.zeros(n, np.int64)  # control steps since seeding

    def reset(self, seed: int | None = None) -> NDArray:
        """Start new episodes; observations, float32 [N, O]."""
        if seed is not None:
            self._seed(seed)
        self.steps = np.zeros(self.num_envs, np.int64)
        self.target = np.tile(self._stand, (self.num_envs, 1))
        self.returns = np.zeros(self.num_envs)
        self.episode: Any = None  # the task's own memory, made when the first episodes begin
        self._begin(np.arange(self.num_envs))
        self.motion = self.sim.measure()
        self.ticks += 1
        return self._observe()

    def _begin(self, ids: NDArray[np.int64]) -> None:
        seeds, count = self.seeds[ids], self.episodes[ids]
        pose, episode = self.task.reset(uniform(seeds, count, 64, RESET))
        pose.position = np.clip(
            pose.position, self.task.robot.limits.lower, self.task.robot.limits.upper
        )
        self.sim.reset(ids, pose, self.task.physics(uniform(seeds, count, 8, PHYSICS)))
        self.target[ids] = pose.position
        if self.episode is None:
            self.episode = episode
        else:
            for field in dataclasses.fields(episode):
                getattr(self.episode, field.name)[ids] = getattr(episode, field.name)
        self.steps[ids] = 0
        self.returns[ids] = 0.0
        self.episodes[ids] += 1
        self._apply_held()

    def _observe(self) -> NDArray[np.float32]:
        draw = uniform(self.seeds, self.ticks, self.observation_size, NOISE)
        return self.task.observe(self.motion, self.episode, draw)

    def hold_command(self, command: Array | list[float] | None) -> None:
        """Fix the command of all environments, [3], or give it back to the task."""
        if command is not None:
            command = np.asarray(command, np.float64)
            if command.shape != (len(self.task.command_low),) or not np.isfinite(command).all():
                raise ValueError(
                    f"command: {command.tolist()}, expected {len(self.task.command_low)} numbers"
                )
        self._held = command
        self._apply_held()

    def _apply_held(self) -> None:
        if self._held is not None and self.episode is not None:
            self.episode.command[:] = self._held

    def step(
        self, action: NDArray
    ) -> tuple[NDArray, Array, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One control step of all environments.

        action: [N, A], clipped to +-task.action_limit; NaN raises ValueError.
        Returns observation [N, O] (of the new episode where one ended), reward [N], terminated
        [N], truncated [N] and info: `final_obs` [N, O] (the last observation of episodes that
        ended, or None), `episode_return`, `episode_length` [N] (valid where an episode ended),
        `terms` (reward terms, each [N]), `velocity_error` [N] (m/s), `speed` [N] (in the plane,
        m/s), `power` [N] (mechanical, of the motors, W).
        """
        task = self.task
        action = checked_action(action, (self.num_envs, self.action_size))
        action = np.clip(action, -task.action_limit, task.action_limit)
        wish = self._stand + self._scale * action
        self.target = limit_target(task.robot.limits, wish, self.target, task.control_dt)

        kick = task.push(self.steps, uniform(self.seeds, self.ticks, 2, PUSH))
        if kick is not None:
            self.sim.push(kick)
        self.sim.step(self.target, task.substeps)
        self.motion = motion = self.sim.measure()
        self.steps += 1
        self.ticks += 1

        reward, terms = task.reward(motion, self.episode, action)
        error = np.linalg.norm(motion.base_velocity[:, :2] - self.episode.command[:, :2], axis=1)
        draw = uniform(self.seeds, self.ticks, 7, COMMAND)
        self.episode = task.advance(motion, self.episode, action, self.steps, draw)
        self._apply_held()
        self.returns += reward

        terminated = task.terminated(motion)
        truncated = (self.steps >= task.episode_steps) & ~terminated
        done = terminated | truncated
        info: dict[str, Any] = {
            "final_obs": None,
            "episode_return": self.returns.copy(),
            "episode_length": self.steps.copy(),
            "terms": terms,
            "velocity_error": error,
            "speed": np.linalg.norm(motion.base_velocity[:, :2], axis=1),
            "power": np.abs(motion.torque * motion.velocity).sum(1),
        }
        observation = self._observe()
        if done.any():
            info["final_obs"] = observation
            self._begin(np.flatnonzero(done))
            self.motion = self.sim.measure()
            self.ticks[done] += 1  # fresh noise for the first observation of the new episode
            observation = self._observe()
        return observation, reward, terminated, truncated, info

    def save_state(self) -> dict[str, NDArray]:
        """All arrays the future depends on; `load_state` continues bit for bit."""
        saved = {f"sim/{k}": v for k, v in self.sim.save_state().items()}
        saved |= {f"env/{k}": np.array(v) for k, v in self._saved_arrays().items()}
        saved |= {
            f"episode/{f.name}": np.array(getattr(self.episode, f.name))
            for f in dataclasses.fields(self.episode)
        }
        return saved

    def load_state(self, saved: dict[str, NDArray]) -> None:
        """Continue where `save_state` was called, with the same task and number of envs."""
        if len(saved["env/seeds"]) != self.num_envs:
            raise ValueError(f"num_envs: saved with {len(saved['env/seeds'])}, now {self.num_envs}")
        self.sim.load_state({k[4:]: v for k, v in saved.items() if k.startswith("sim/")})
        for name, value in self._saved_arrays().items():
            value[...] = saved[f"env/{name}"]
        for field in dataclasses.fields(self.episode):
            getattr(self.episode, field.name)[...] = saved[f"episode/{field.name}"]

    def _saved_arrays(self) -> dict[str, NDArray]:
        return {
            "seeds": self.seeds,
            "episodes": self.episodes,
            "ticks": self.ticks,
            "steps": self.steps,
            "target": self.target,
            "returns": self.returns,
        }
