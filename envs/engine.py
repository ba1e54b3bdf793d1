"""What a simulation is: N rows of some physics, and the data that goes in and out.

A task reads `Measured`, and says `Start` and `Physics`; it never sees an engine. An engine steps N
copies of a scene (`envs/scene.py`); `engines/mujoco.py` and `engines/pybullet.py` are two. A row is
a robot. Where several robots share a world, the rows of a world follow each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from motoric.control.command import MotorCommand
from motoric.hardware.measured import Measured
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass
class Start:
    """Where M robots start: base_position [M, 3], orientation [M, 4], base_velocity [M, 6] (linear
    in the world, angular in the base frame), position, velocity [M, J].

    objects: by name, pose of each free object in the world, [M, 7] (position, quaternion)
    """

    base_position: Array
    orientation: Array
    base_velocity: Array
    position: Array
    velocity: Array
    objects: dict[str, Array] = field(default_factory=dict)


@dataclass
class Physics:
    """What differs between M robots.

    friction [M]: of the feet; payload [M]: added to the base, kg;
    strength [M]: factor on the motors' gains and torque limits; latency [M]: substeps until a
    new command reaches the motors
    armature, drag [M]: factors on the joints' rotor inertia, and on their damping and friction
    """

    friction: Array
    payload: Array
    strength: Array
    latency: NDArray[np.int64]
    armature: Array | float = 1.0
    drag: Array | float = 1.0

    @classmethod
    def nominal(cls, rows: int) -> Physics:
        """As the model has it: friction 0.8, nothing added, no latency."""
        one = np.ones(rows)
        return cls(0.8 * one, 0 * one, one, np.zeros(rows, np.int64))


class Simulation(Protocol):
    """N rows, stepped together under motor commands.

    model: MuJoCo's, which viewers draw; None: there is nothing to draw
    rows: N; agents: rows that share a world, 1 where each has its own
    start, physics: what `reset` takes is between a task and its simulation; scenes take `Start`
    and `Physics`
    """

    model: Any
    rows: int
    agents: int

    @property
    def poses(self) -> Array:
        """MuJoCo's qpos of every world, [N / agents, nq], for viewers."""
        ...

    def reset(self, ids: NDArray[np.int64], start: Any, physics: Any) -> None:
        """Put the rows `ids` [M] where they start, with physics of their own."""

    def step(self, command: MotorCommand, substeps: int) -> None:
        """Hold a command [N, J] for some physics steps; each arrives after its row's latency."""

    def measure(self) -> Measured:
        """What the task names, now. `time` is left to the loop. Forces and torques are those of
        the last physics step."""
        ...

    def push(self, velocity: Array) -> None:
        """Add to the bases' velocity in the world, m/s, [N, 3]."""

    def wrench(self, body: str, wrench: Array) -> None:
        """Force N and torque N m in the world on a body of every row, [N, 6], until set anew; a row
        that begins again is free of it. Raises ValueError for a body that it can't act on."""

    def save_state(self) -> dict[str, NDArray]:
        """Everything the next step depends on."""
        ...

    def load_state(self, saved: dict[str, NDArray]) -> None:
        """Continue exactly where `save_state` was called."""
