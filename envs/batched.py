"""N rows of one task, stepped together: the loop that all environment interfaces share.

`Batch` is the one face that training, evaluation and viewers see. `BatchedEnv` is the loop over a
task and its simulation; `gymnasium_env.py` gives any Gymnasium environment the same face.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from motoric.control.command import QUANTITIES, MotorCommand, hold
from motoric.control.filters import Context
from motoric.control.limits import Limits
from motoric.envs.engine import Array
from motoric.envs.random import Draws
from motoric.envs.task import Episode, Step, Task
from motoric.hardware.goals import Goal, Part, checked
from motoric.hardware.interfaces.base import Interface, Memory, Metric, Observation
from motoric.hardware.measured import Measured
from numpy.typing import NDArray

Observed = NDArray[Any] | dict[str, NDArray[Any]]
Info = dict[str, Any]
EVERYBODY = slice(None)


class Batch(Protocol):
    """N rows with autoreset in the same step; those that share a world begin and end together.

    name: of the task, or Gymnasium's id; num_envs: N; agents: rows that share a world
    control_dt: s per step; engine: of its physics, where there is a choice
    interface: None where no robot is meant
    goals, metrics: what is asked for, and what `step` says of itself
    model: MuJoCo's, to look at, with `poses` [N / agents, nq]; None: see `render`
    """

    name: str
    num_envs: int
    agents: int
    control_dt: float
    engine: str | None
    observation_space: spaces.Space
    action_space: spaces.Space

    @property
    def interface(self) -> Interface | None: ...
    @property
    def goals(self) -> tuple[Part, ...]: ...
    @property
    def metrics(self) -> tuple[Metric, ...]: ...
    @property
    def model(self) -> Any: ...
    @property
    def poses(self) -> Array | None: ...
    @property
    def goal(self) -> Goal: ...

    def reset(self, seed: int | None = None) -> Observed:
        """Start new episodes; observations [N, ...], a dict of them where there are several."""
        ...

    def step(self, action: NDArray) -> tuple[Observed, Array, NDArray, NDArray, Info]:
        """One control step of all rows.

        action: [N, ...]; NaN raises ValueError.
        Returns observation [N, ...] (of the new episode where one ended), reward [N], terminated
        [N], truncated [N] and info: `final_obs` (the last observations, valid where an episode
        ended; None where none did), `episode_return`, `episode_length` [N] (valid likewise),
        `terms` (reward terms, each [N]), `metrics` (each [N]).
        """
        ...

    def hold_goal(self, values: Any) -> None:
        """Fix the goal of all rows, or give it back to the task (None). Raises ValueError."""

    def push(self, velocity: Array) -> None:
        """Kick every robot, m/s in the world, [3]."""

    def render(self) -> NDArray[np.uint8] | None:
        """A picture of row 0 where there is no model."""
        ...

    def save_state(self) -> dict[str, NDArray] | None:
        """All arrays the future depends on, `load_state` continues bit for bit; None: can't be."""
        ...

    def load_state(self, saved: dict[str, NDArray]) -> None: ...
    def close(self) -> None: ...


class BatchedEnv:
    """The loop over a task and its simulation: a `Batch`.

    worlds: stepped together; row i seeded with s behaves as row 0 seeded with s + i: its
    randomness does not depend on N or on the others.
    draws: of all random numbers; some may be set
    filters: between the interface's commands and the limits, the same as on the robot; who trains
        the network of one puts it here
    """

    def __init__(
        self,
        task: Task,
        worlds: int,
        seed: int = 0,
        num_threads: int = 0,
        engine: str | None = None,
    ) -> None:
        if worlds < 1:
            raise ValueError(f"num_envs: {worlds}, expected at least 1")
        engine = engine or task.engines[0]
        if engine not in task.engines:
            raise ValueError(
                f"engine: {engine!r}, {task.name} runs in {', '.join(task.engines)} only"
            )
        self.task, self.name, self.agents = task, task.name, task.agents
        self.engine: str | None = engine
        self.num_envs, self.control_dt = worlds * task.agents, task.control_dt
        self.sim = task.simulation(engine, self.num_envs, num_threads)
        self._interface = interface = task.interface
        self.observation_space = observation_space(interface)
        self.action_space: spaces.Space = spaces.Box(
            interface.action_low.astype(np.float32), interface.action_high.astype(np.float32)
        )
        self._limits = limits_of(interface)
        self.filters = interface.filters(_no_network)
        self.draws = Draws(self.num_envs)
        self._held: Goal | None = None
        self._seed(seed)
        self.reset()

    @property
    def interface(self) -> Interface | None:
        return self._interface if self._limits is not None else None

    @property
    def goals(self) -> tuple[Part, ...]:
        return self._interface.goals

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return self.task.metrics

    @property
    def model(self) -> Any:
        return self.sim.model

    @property
    def poses(self) -> Array | None:
        return None if self.sim.model is None else self.sim.poses

    def _seed(self, seed: int) -> None:
        n = self.num_envs
        self.seeds = (np.uint64(seed % 2**63) + np.arange(n, dtype=np.uint64)).astype(np.uint64)
        self.episodes = np.zeros(n, np.int64)  # episodes begun
        self.ticks = np.zeros(n, np.int64)  # control steps since seeding

    def reset(self, seed: int | None = None) -> Observed:
        if seed is not None:
            self._seed(seed)
        rows = self.num_envs
        self.steps, self.returns = np.zeros(rows, np.int64), np.zeros(rows)
        self.goal: Goal = {}
        self.episode: Episode = {}
        self.memory: Memory = self._interface.begin(rows)
        self._begin(np.arange(rows))
        self.ticks += 1
        return self._plain(self._observe(EVERYBODY))

    def _begin(self, ids: NDArray[np.int64]) -> None:
        """New episodes of rows `ids`; they are measured where they start."""
        task, size = self.task, self.task.draws
        seeds, count = self.seeds[ids], self.episodes[ids]
        start, goal, memory, episode = task.reset(
            self.draws("reset", ids, seeds, count, size["reset"])
        )
        physics = task.physics(self.draws("physics", ids, seeds, count, size["physics"]))
        self.sim.reset(ids, start, physics)
        memory = self._interface.begin(len(ids)) | memory
        for mine, new in ((self.goal, goal), (self.memory, memory), (self.episode, episode)):
            _put(mine, ids, new, self.num_envs)
        self.steps[ids], self.returns[ids] = 0, 0.0
        self.episodes[ids] += 1
        self._apply_held()
        self.measured = self._measure()
        if self._limits is not None:
            self._hold_still(ids)

    def _hold_still(self, ids: NDArray[np.int64]) -> None:
        """The command before an episode's first: each robot holds the pose in which it begins."""
        joints, robot = self._limits.joints, self._interface.robot  # type: ignore[union-attr]
        here = np.clip(self.measured.position, joints.lower, joints.upper)
        held = hold(here, robot.kp, robot.kd)
        if len(ids) < self.num_envs:
            begun = np.zeros((self.num_envs, 1), bool)
            begun[ids] = True
            for name in QUANTITIES:
                new, old = getattr(held, name), getattr(self.command, name)
                setattr(held, name, np.where(begun, new, old))
        self.command = held

    def _measure(self) -> Measured:
        measured = self.sim.measure()
        measured.time = np.multiply(self.steps, self.control_dt)
        return measured

    def _observe(self, ids: Any) -> Observation:
        """What rows `ids` see."""
        measured, goal, memory = self.measured, self.goal, self.memory
        if ids is not EVERYBODY:
            measured = measured.rows(ids)
            goal, memory = ({k: v[ids] for k, v in d.items()} for d in (goal, memory))
        observation = self._interface.observe(measured, goal, memory)
        if self.task.noise_size:
            draw = self.draws("noise", ids, self.seeds[ids], self.ticks[ids], self.task.noise_size)
            observation = self.task.corrupt(observation, draw)
        return observation

    def _plain(self, observation: Observation) -> Observed:
        alone = observation.get("observation")
        return alone if alone is not None and len(observation) == 1 else observation

    def hold_goal(self, values: Any) -> None:
        self._held = None if values is None else checked(self.goals, values, self.num_envs)
        self._apply_held()

    def _apply_held(self) -> None:
        if self._held is not None:
            self.goal = {name: value.copy() for name, value in self._held.items()}

    def push(self, velocity: Array) -> None:
        self.sim.push(np.tile(velocity, (self.num_envs, 1)))

    def render(self) -> None:
        return None

    def close(self) -> None:
        close: Callable[[], None] | None = getattr(self.sim, "close", None)
        if close is not None:
            close()

    def step(self, action: NDArray) -> tuple[Observed, Array, NDArray, NDArray, Info]:
        task, before, goal, memory = self.task, self.measured, self.goal, self.memory
        action = checked_action(action, (self.num_envs, *self.action_space.shape))  # type: ignore[misc]
        command, self.memory = self._interface.command(action, before, goal, memory)
        if self._limits is not None:
            context = Context(self.command, self.control_dt)
            for one in self.filters:
                command = one(before, command, context)
                if not all(np.isfinite(getattr(command, q)).all() for q in QUANTITIES):
                    raise ValueError(f"filter {one.name}: gives what is not finite")
            self.command = command = self._limits(before, command, context)
        seeds, ticks, size = self.seeds, self.ticks, task.draws
        if size["push"]:
            kick = task.push(self.steps, self.draws("push", EVERYBODY, seeds, ticks, size["push"]))
            if kick is not None:
                self.sim.push(kick)
        self.sim.step(command, task.substeps)
        self.steps += 1
        self.ticks += 1
        self.measured = after = self._measure()
        step = Step(before, after, goal, memory, action, command, self.episode, self.steps)
        reward, terms = task.reward(step)
        metrics = task.measure(step)
        draw = self.draws("advance", EVERYBODY, seeds, self.ticks, size["advance"])
        self.goal, self.episode = task.advance(step, draw)
        self._apply_held()
        self.returns += reward

        terminated, truncated = self._ended()
        done = terminated | truncated
        info: Info = {
            "final_obs": None,
            "episode_return": self.returns.copy(),
            "episode_length": self.steps.copy(),
            "terms": terms,
            "metrics": metrics,
        }
        observation = self._observe(EVERYBODY)
        if done.any():
            info["final_obs"] = self._plain(observation)
            ids = np.flatnonzero(done)
            self._begin(ids)
            self.ticks[ids] += 1  # fresh noise for the first observation of the new episode
            fresh = self._observe(ids)
            observation = {name: value.copy() for name, value in observation.items()}
            for name, value in fresh.items():
                observation[name][ids] = value
        return self._plain(observation), reward, terminated, truncated, info

    def _ended(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which rows terminated, and which were cut off, by time or with others of their world."""
        margin = self.task.margin(self.measured, self.episode)
        rows = self.num_envs
        terminated = np.zeros(rows, bool) if margin is None else ~(margin >= 0)  # NaN ends too
        done = terminated | (self.steps >= self.task.episode_steps)
        if self.agents > 1:
            together = done.reshape(-1, self.agents).any(axis=1)
            done = np.repeat(together, self.agents)
        return terminated, done & ~terminated

    def save_state(self) -> dict[str, NDArray]:
        saved = {f"sim/{k}": v for k, v in self.sim.save_state().items()}
        return saved | {k: np.array(v) for k, v in self._arrays().items()}

    def load_state(self, saved: dict[str, NDArray]) -> None:
        if len(saved["env/seeds"]) != self.num_envs:
            raise ValueError(f"num_envs: saved with {len(saved['env/seeds'])}, now {self.num_envs}")
        self.sim.load_state({k[4:]: v for k, v in saved.items() if k.startswith("sim/")})
        # What a step leaves behind may be one row in memory for all: taken anew, not written into.
        self.measured = Measured(
            **{k: saved[f"measured/{k}"].copy() for k in _MEASURED},
            sensors={k[8:]: v.copy() for k, v in saved.items() if k.startswith("sensors/")},
        )
        if self._limits is not None:
            quantities: list[Any] = [saved[f"command/{q}"].copy() for q in QUANTITIES]
            self.command = MotorCommand(*quantities)
        for kind in ("goal", "memory", "episode"):
            values = {k: v.copy() for k, v in saved.items() if k.startswith(f"{kind}/")}
            setattr(self, kind, {k.partition("/")[2]: v for k, v in values.items()})
        for name in _COUNTS:
            getattr(self, name)[...] = saved[f"env/{name}"]

    def _arrays(self) -> Mapping[str, NDArray]:
        arrays = {f"env/{name}": getattr(self, name) for name in _COUNTS}
        arrays |= {f"measured/{name}": getattr(self.measured, name) for name in _MEASURED}
        arrays |= {f"sensors/{k}": v for k, v in self.measured.sensors.items()}
        for kind in ("goal", "memory", "episode"):
            arrays |= {f"{kind}/{k}": v for k, v in getattr(self, kind).items()}
        if self._limits is not None:
            arrays |= {f"command/{q}": getattr(self.command, q) for q in QUANTITIES}
        return arrays


_COUNTS = ("seeds", "episodes", "ticks", "steps", "returns")
_MEASURED = (
    "time", "position", "velocity", "torque", "orientation", "angular_velocity", "base_position",
    "base_velocity",
)  # fmt: skip


def _put(
    mine: dict[str, NDArray], ids: NDArray[np.int64], new: dict[str, NDArray], rows: int
) -> None:
    """Write what M rows begin with into arrays of all N, which other steps may still hold."""
    for name, value in new.items():
        whole = len(ids) == rows or name not in mine
        kept = np.zeros((rows, *value.shape[1:]), value.dtype) if whole else mine[name].copy()
        kept[ids] = value
        mine[name] = kept


def _no_network(name: str, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    raise ValueError(f"filter: needs the network {name!r}, which is learned here; set env.filters")


def limits_of(interface: Interface) -> Limits | None:
    """The filter that a robot's commands pass in training, as on the robot; None: no robot."""
    robot = interface.robot
    if robot is None:
        return None
    return Limits(robot.limits, robot.kp_max, robot.kd_max)  # type: ignore[arg-type]


def observation_space(interface: Interface) -> spaces.Space:
    """Of one row: a Box for a single input named `observation`, else a Dict of them."""
    boxes = {}
    for tensor in interface.inputs:
        image = tensor.dtype == "uint8"
        low, high = (0, 255) if image else (-np.inf, np.inf)
        boxes[tensor.name] = spaces.Box(low, high, tensor.shape, np.dtype(tensor.dtype).type)
    if list(boxes) == ["observation"]:
        return boxes["observation"]
    return spaces.Dict(boxes)


def checked_action(action: NDArray, shape: tuple[int, ...]) -> Array:
    """Actions as float64. Raises ValueError unless they are of that shape [N, A], without NaN."""
    action = np.asarray(action, np.float64)
    if action.shape != shape:
        raise ValueError(f"action: shape {action.shape}, expected {shape}")
    if np.isnan(action).any():
        raise ValueError("action: holds NaN")
    return action
