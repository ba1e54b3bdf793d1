"""N of Gymnasium's MuJoCo environments stepped together: simulations, and the loop around them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, repeat
from typing import Any

import mujoco
import numpy as np
from mjbatch import Batch
from motoric.envs.engine import Array, checked_action
from motoric.envs.random import uniform
from motoric.envs.tasks.gymnasium import GymnasiumTask, State
from mujoco import mj_getState, mj_rnePostConstraint, mj_setState, mj_step
from numpy.typing import NDArray

FULL = int(mujoco.mjtState.mjSTATE_INTEGRATION)


class Simulation:
    """N copies of a model, stepped by mjbatch."""

    def __init__(self, model: mujoco.MjModel, num_envs: int, num_threads: int = 0) -> None:
        self.batch = Batch(model, num_envs, num_threads)
        self.rows = self.batch.bind("state")  # [N, S], all the next step depends on
        self.ctrl = self.batch.bind("ctrl")
        qpos, qvel = self.batch.bind("qpos"), self.batch.bind("qvel")
        self.state = State(qpos, qvel, qpos[:, 0], np.zeros((num_envs, 0, 6)))

    def reset(self, ids: NDArray[np.int64], qpos: Array, qvel: Array) -> None:
        """Put the simulations `ids` [M] at qpos [M, nq], qvel [M, nv]."""
        self.batch.reset(ids)
        self.state.qpos[ids], self.state.qvel[ids] = qpos, qvel
        self.batch.forward(ids)

    def step(self, substeps: int) -> None:
        """Some physics steps under `ctrl`."""
        self.batch.step(nstep=substeps)


class ContactSimulation:
    """The same with the forces of contacts, by MuJoCo's own functions on Python threads.

    Gymnasium reads these forces (and the torso's place) as the last Runge-Kutta stage left them.
    mjbatch can't be asked for that: after a step it has no call of `mj_rnePostConstraint`. Such
    steps are long enough that Python between them costs a few percent.
    """

    def __init__(self, model: mujoco.MjModel, num_envs: int, num_threads: int = 0) -> None:
        threads = min(num_threads or os.cpu_count() or 1, num_envs)
        self.model = model
        self.data = [mujoco.MjData(model) for _ in range(threads)]
        self.rows = np.zeros((num_envs, mujoco.mj_stateSize(model, FULL)))
        self.ctrl = self._part(mujoco.mjtState.mjSTATE_CTRL)
        self.state = State(
            self._part(mujoco.mjtState.mjSTATE_QPOS), self._part(mujoco.mjtState.mjSTATE_QVEL),
            np.zeros(num_envs), np.zeros((num_envs, model.nbody, 6)),
        )  # fmt: skip
        ends = [num_envs * k // threads for k in range(threads + 1)]
        self._ids = [range(*pair) for pair in pairwise(ends)]
        self._pool = ThreadPoolExecutor(threads)

    def _part(self, which: mujoco.mjtState) -> Array:
        """A view of the rows: a state vector has its parts in the order of their bits."""
        start = mujoco.mj_stateSize(self.model, FULL & (int(which) - 1))
        return self.rows[:, start : start + mujoco.mj_stateSize(self.model, which)]

    def reset(self, ids: NDArray[np.int64], qpos: Array, qvel: Array) -> None:
        data = self.data[0]
        for i, position, velocity in zip(ids, qpos, qvel, strict=True):
            mujoco.mj_resetData(self.model, data)
            data.qpos[:], data.qvel[:] = position, velocity
            mujoco.mj_forward(self.model, data)
            mj_getState(self.model, data, self.rows[i], FULL)
            self.state.x[i], self.state.contact[i] = data.xpos[1, 0], data.cfrc_ext

    def step(self, substeps: int) -> None:
        if len(self.data) == 1:
            self._share(self._ids[0], self.data[0], substeps)
        else:
            list(self._pool.map(self._share, self._ids, self.data, repeat(substeps)))

    def _share(self, ids: range, data: mujoco.MjData, substeps: int) -> None:
        """Step the simulations of one thread; what is held between MuJoCo's calls is kept short,
        as it is the time in which no other thread can begin one."""
        model, x, contact = self.model, self.state.x, self.state.contact
        torso, forces = data.xpos[1], data.cfrc_ext
        for i in ids:
            row = self.rows[i]
            mj_setState(model, data, row, FULL)
            mj_step(model, data, substeps)
            mj_rnePostConstraint(model, data)
            mj_getState(model, data, row, FULL)
            x[i], contact[i] = torso[0], forces


class GymnasiumBatch:
    """N episodes with autoreset in the same step, as `BatchedEnv` has them.

    Environment i seeded with s behaves as environment 0 seeded with s + i. Starts are drawn from
    Gymnasium's distribution, with other random numbers.
    """

    def __init__(
        self, task: GymnasiumTask, num_envs: int, seed: int = 0, num_threads: int = 0
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs: {num_envs}, expected at least 1")
        self.task, self.num_envs = task, num_envs
        self.model = task.model()
        kind = ContactSimulation if task.contact_forces else Simulation
        self.sim = kind(self.model, num_envs, num_threads)
        self._seed(seed)
        self.reset()

    @property
    def qpos(self) -> Array:
        return self.sim.state.qpos

    def _seed(self, seed: int) -> None:
        n = self.num_envs
        self.seeds = (np.uint64(seed % 2**63) + np.arange(n, dtype=np.uint64)).astype(np.uint64)
        self.episodes = np.zeros(n, np.int64)  # episodes begun

    def reset(self, seed: int | None = None) -> NDArray[np.float32]:
        """Start new episodes; observations [N, O]."""
        if seed is not None:
            self._seed(seed)
        self.steps = np.zeros(self.num_envs, np.int64)
        self.returns = np.zeros(self.num_envs)
        self._begin(np.arange(self.num_envs))
        return self.task.observe(self.sim.state)

    def _begin(self, ids: NDArray[np.int64]) -> None:
        size = self.model.nq + 2 * self.model.nv
        draw = uniform(self.seeds[ids], self.episodes[ids], size, 0)
        self.sim.reset(ids, *self.task.reset(self.model, draw))
        self.episodes[ids] += 1
        self.steps[ids] = 0
        self.returns[ids] = 0.0

    def step(
        self, action: NDArray
    ) -> tuple[NDArray, Array, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One control step of all environments; returns what `BatchedEnv.step` does.

        action: [N, A]; as in Gymnasium the motors clip it and its cost does not. NaN raises
        ValueError. info has no `velocity_error` and no `power`; `speed` [N] is forward, m/s.
        """
        task, sim = self.task, self.sim
        action = checked_action(action, (self.num_envs, task.action_size))
        before = sim.state.x.copy()
        sim.ctrl[:] = action
        sim.step(task.frame_skip)
        reward, terms, speed = task.reward(sim.state, before, action)
        self.steps += 1
        self.returns += reward
        terminated = task.terminated(sim.state)
        truncated = (self.steps >= task.episode_steps) & ~terminated
        observation = task.observe(sim.state)
        info: dict[str, Any] = {
            "final_obs": None,
            "episode_return": self.returns.copy(),
            "episode_length": self.steps.copy(),
            "terms": terms,
            "speed": speed,
        }
        done = terminated | truncated
        if done.any():
            info["final_obs"] = observation
            self._begin(np.flatnonzero(done))
            observation = task.observe(sim.state)
        return observation, reward, terminated, truncated, info

    def save_state(self) -> dict[str, NDArray]:
        """All arrays the future depends on; `load_state` continues bit for bit."""
        return {name: value.copy() for name, value in self._arrays().items()}

    def load_state(self, saved: dict[str, NDArray]) -> None:
        """Continue where `save_state` was called, with the same task and number of envs."""
        if len(saved["seeds"]) != self.num_envs:
            raise ValueError(f"num_envs: saved with {len(saved['seeds'])}, now {self.num_envs}")
        for name, value in self._arrays().items():
            value[...] = saved[name]

    def _arrays(self) -> dict[str, NDArray]:
        state = self.sim.state
        return {
            "rows": self.sim.rows,
            "x": state.x,
            "contact": state.contact,
            "seeds": self.seeds,
            "episodes": self.episodes,
            "steps": self.steps,
            "returns": self.returns,
        }
