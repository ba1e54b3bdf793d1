"""What tasks share that are Gymnasium's MuJoCo environments, N at a time: the same observation,
reward and termination, step for step. There is no robot: actions are the motors' own.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
from motoric.control.command import MotorCommand
from motoric.envs.engine import Array, Simulation
from motoric.envs.task import Episode, Step, Task
from motoric.hardware.goals import Goal
from motoric.hardware.interfaces.base import Interface, Memory, Metric, Observation, Tensor
from motoric.hardware.measured import Measured
from numpy.typing import NDArray

ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"


@dataclass(frozen=True)
class Motors(Interface):
    """Actions are the motors' own controls; what is seen is the task's own matter.

    see: the observation [N, O] of what is measured; size: O; actions: A
    """

    see: Callable[[Measured], NDArray[np.float32]]
    size: int
    actions: int
    rate: float
    robot: Any = None

    name = "motors"

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return (Tensor("observation", (self.size,)),)

    @property
    def action_low(self) -> Array:
        return -np.ones(self.actions)

    @property
    def action_high(self) -> Array:
        return np.ones(self.actions)

    def observe(self, measured: Measured, goal: Goal, memory: Memory) -> Observation:
        return {"observation": self.see(measured)}

    def command(
        self, action: Array, measured: Measured, goal: Goal, memory: Memory
    ) -> tuple[MotorCommand, Memory]:
        none = absent(0.0, *action.shape)
        return MotorCommand(none, none, none, none, action), memory


class GymnasiumTask(Task):
    """What is common. Options are named as the arguments of `gymnasium.make`.

    id: Gymnasium's; model_file: among its assets; contact_forces: whether they are read
    size, actions: numbers of observation and action
    Measured: position qpos [N, nq], velocity qvel [N, nv]; sensors: x [N], how far the torso is, m;
    contact [N, B, 6], torque and force of contacts on each body, where the task reads them
    """

    id: ClassVar[str]
    model_file: ClassVar[str]
    contact_forces: ClassVar[bool]
    size: ClassVar[int]
    actions: ClassVar[int]
    substeps: ClassVar[int] = 5
    draws: ClassVar[dict[str, int]] = {"reset": 128, "physics": 0, "advance": 0, "push": 0}
    reset_noise_scale: float
    episode_seconds: float

    @cached_property
    def interface(self) -> Interface:
        return Motors(self.observe, self.size, self.actions, rate=20.0)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("speed", "m/s", "mean", "forward speed"),)

    @cached_property
    def model(self) -> Any:
        """Gymnasium's MuJoCo model."""
        import mujoco

        return mujoco.MjModel.from_xml_path(str(ASSETS / self.model_file))

    def simulation(self, engine: str, rows: int, threads: int) -> Simulation:
        kind = ContactSimulation if self.contact_forces else PlainSimulation
        return kind(self.model, rows, threads)

    def reset(self, draw: Array) -> tuple[tuple[Array, Array], Goal, Memory, Episode]:
        """qpos [M, nq] and qvel [M, nv], from Gymnasium's distribution."""
        model, scale = self.model, self.reset_noise_scale
        nq, nv = model.nq, model.nv
        position, radius, angle = np.split(draw[:, : nq + 2 * nv], [nq, nq + nv], axis=1)
        normal = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)  # Box-Muller
        return (model.qpos0 + scale * (2 * position - 1), scale * normal), {}, {}, {}

    @abstractmethod
    def observe(self, measured: Measured) -> NDArray[np.float32]: ...

    def forward(self, step: Step) -> Array:
        """Forward velocity in a step, m/s, [N]."""
        return (step.after.sensors["x"] - step.before.sensors["x"]) / self.control_dt

    def measure(self, step: Step) -> dict[str, Array]:
        return {"speed": self.forward(step)}


def measured_of(qpos: Array, qvel: Array, x: Array, contact: Array) -> Measured:
    """Copies of what these tasks read."""
    rows = len(qpos)
    vector = absent(np.nan, rows, 3)
    return Measured(
        time=x, position=qpos.copy(), velocity=qvel.copy(), torque=absent(np.nan, rows, 0),
        orientation=absent(np.nan, rows, 4), angular_velocity=vector, base_position=vector,
        base_velocity=vector, sensors={"x": x.copy(), "contact": contact.copy()},
    )  # fmt: skip


@cache
def absent(value: float, *shape: int) -> Array:
    """One number in memory for a whole array, read-only."""
    return np.broadcast_to(value, shape)


class PlainSimulation:
    """N copies of a model, stepped by mjbatch."""

    agents = 1

    def __init__(self, model: Any, rows: int, num_threads: int = 0) -> None:
        from mjbatch import Batch

        self.model, self.rows = model, rows
        self.batch = Batch(model, rows, num_threads)
        self._state = self.batch.bind("state")  # [N, S], all the next step depends on
        self._ctrl = self.batch.bind("ctrl")
        self._qpos, self._qvel = self.batch.bind("qpos"), self.batch.bind("qvel")
        self._contact = np.zeros((rows, 0, 6))

    @property
    def poses(self) -> Array:
        return self._qpos

    def reset(self, ids: NDArray[np.int64], start: tuple[Array, Array], physics: None) -> None:
        self.batch.reset(ids)
        self._qpos[ids], self._qvel[ids] = start
        self.batch.forward(ids)

    def step(self, command: MotorCommand, substeps: int) -> None:
        self._ctrl[:] = command.torque
        self.batch.step(nstep=substeps)

    def measure(self) -> Measured:
        return measured_of(self._qpos, self._qvel, self._qpos[:, 0], self._contact)

    def push(self, velocity: Array) -> None:
        """Along the first joints, which slide."""
        many = min(2, self.model.nv)
        self._qvel[:, :many] += velocity[:, :many]

    def wrench(self, body: str, wrench: Array) -> None:
        raise ValueError(f"wrench: {body!r}, Gymnasium's tasks take none")

    def save_state(self) -> dict[str, NDArray]:
        return {"state": self._state.copy()}

    def load_state(self, saved: dict[str, NDArray]) -> None:
        self._state[...] = saved["state"]


class ContactSimulation:
    """The same with the forces of contacts, by MuJoCo's own functions on Python threads.

    Gymnasium reads these forces (and the torso's place) as the last Runge-Kutta stage left them.
    mjbatch can't be asked for that: after a step it has no call of `mj_rnePostConstraint`. Such
    steps are long enough that Python between them costs a few percent.
    """

    agents = 1

    def __init__(self, model: Any, rows: int, num_threads: int = 0) -> None:
        import mujoco

        self._mujoco, self.model, self.rows = mujoco, model, rows
        self._full = int(mujoco.mjtState.mjSTATE_INTEGRATION)
        threads = min(num_threads or os.cpu_count() or 1, rows)
        self.data = [mujoco.MjData(model) for _ in range(threads)]
        self._state = np.zeros((rows, mujoco.mj_stateSize(model, self._full)))
        kinds = mujoco.mjtState
        self._ctrl = self._part(kinds.mjSTATE_CTRL)
        self._qpos, self._qvel = self._part(kinds.mjSTATE_QPOS), self._part(kinds.mjSTATE_QVEL)
        self._x, self._contact = np.zeros(rows), np.zeros((rows, model.nbody, 6))
        ends = [rows * k // threads for k in range(threads + 1)]
        self._ids = [range(*pair) for pair in pairwise(ends)]
        self._pool = ThreadPoolExecutor(threads)

    def _part(self, which: Any) -> Array:
        """A view of the rows: a state vector has its parts in the order of their bits."""
        size = self._mujoco.mj_stateSize
        start = size(self.model, self._full & (int(which) - 1))
        return self._state[:, start : start + size(self.model, which)]

    @property
    def poses(self) -> Array:
        return self._qpos

    def reset(self, ids: NDArray[np.int64], start: tuple[Array, Array], physics: None) -> None:
        mujoco, data = self._mujoco, self.data[0]
        for i, position, velocity in zip(ids, *start, strict=True):
            mujoco.mj_resetData(self.model, data)
            data.qpos[:], data.qvel[:] = position, velocity
            mujoco.mj_forward(self.model, data)
            mujoco.mj_getState(self.model, data, self._state[i], self._full)
            self._x[i], self._contact[i] = data.xpos[1, 0], data.cfrc_ext

    def step(self, command: MotorCommand, substeps: int) -> None:
        self._ctrl[:] = command.torque
        if len(self.data) == 1:
            self._share(self._ids[0], self.data[0], substeps)
        else:
            list(self._pool.map(self._share, self._ids, self.data, repeat(substeps)))

    def _share(self, ids: range, data: Any, substeps: int) -> None:
        """Step the simulations of one thread; what is held between MuJoCo's calls is kept short,
        as it is the time in which no other thread can begin one."""
        mujoco, model, full = self._mujoco, self.model, self._full
        set_state, step, get_state = mujoco.mj_setState, mujoco.mj_step, mujoco.mj_getState
        post, x, contact = mujoco.mj_rnePostConstraint, self._x, self._contact
        torso, forces = data.xpos[1], data.cfrc_ext
        for i in ids:
            row = self._state[i]
            set_state(model, data, row, full)
            step(model, data, substeps)
            post(model, data)
            get_state(model, data, row, full)
            x[i], contact[i] = torso[0], forces

    def measure(self) -> Measured:
        return measured_of(self._qpos, self._qvel, self._x, self._contact)

    def push(self, velocity: Array) -> None:
        """Along the first joints, the torso's."""
        self._qvel[:, :2] += velocity[:, :2]

    def wrench(self, body: str, wrench: Array) -> None:
        raise ValueError(f"wrench: {body!r}, Gymnasium's tasks take none")

    def save_state(self) -> dict[str, NDArray]:
        return {"state": self._state.copy(), "x": self._x.copy(), "contact": self._contact.copy()}

    def load_state(self, saved: dict[str, NDArray]) -> None:
        self._state[...], self._x[...] = saved["state"], saved["x"]
        self._contact[...] = saved["contact"]
