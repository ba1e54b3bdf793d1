"""What a simulation is: N robots in some physics engine, and the data that goes in and out.

A task reads `Motion`, and says `Pose` and `Physics`; it never sees an engine. An engine is one
module with one class that keeps `Simulation` (`mujoco_simulation.py`, `pybullet_simulation.py`),
and a line in `registry.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def checked_action(action: NDArray, shape: tuple[int, int]) -> Array:
    """Actions as float64. Raises ValueError unless they are of that shape [N, A], without NaN."""
    action = np.asarray(action, np.float64)
    if action.shape != shape:
        raise ValueError(f"action: shape {action.shape}, expected {shape}")
    if np.isnan(action).any():
        raise ValueError("action: holds NaN")
    return action


@dataclass
class Motion:
    """What a task may know of N robots, whichever engine moves them. World frame unless said.

    base_position [N, 3] m; orientation [N, 4] quaternion (w, x, y, z)
    base_velocity, angular_velocity [N, 3]: in the base frame, m/s, rad/s
    position, velocity, torque [N, J]: joints, rad, rad/s, N m
    foot_height [N, F] m above the ground; foot_velocity [N, F, 3] m/s; foot_force [N, F] N
    """

    base_position: Array
    orientation: Array
    base_velocity: Array
    angular_velocity: Array
    position: Array
    velocity: Array
    torque: Array
    foot_height: Array
    foot_velocity: Array
    foot_force: Array


@dataclass
class Pose:
    """Where M robots start: base_position [M, 3], orientation [M, 4], base_velocity [M, 6]
    (linear in the world, angular in the base frame), position, velocity [M, J]."""

    base_position: Array
    orientation: Array
    base_velocity: Array
    position: Array
    velocity: Array


@dataclass
class Physics:
    """What differs between M robots.

    friction [M]: of the feet; payload [M]: added to the base, kg;
    strength [M]: factor on the motors' gains and torque limits; latency [M]: substeps until a
    new target reaches the motors.
    """

    friction: Array
    payload: Array
    strength: Array
    latency: NDArray[np.int64]


def rotate_inverse(quaternion: Array, vector: Array) -> Array:
    """World vectors [N, 3] in the frame of unit quaternions (w, x, y, z) [N, 4]."""
    w, u = quaternion[:, :1], quaternion[:, 1:]
    return (
        vector * (2 * w * w - 1)
        - 2 * w * np.cross(u, vector)
        + 2 * u * np.sum(u * vector, axis=1, keepdims=True)
    )


class Simulation(Protocol):
    """N copies of one floating-base robot whose motors hold joint targets.

    Made as `kind(robot, num_envs, num_threads)`; num_threads 0: the engine's choice.
    model: the robot's MuJoCo model, which every engine is built from and viewers draw
    qpos [N, 7 + J]: base position, orientation (w, x, y, z), joints, for viewers
    mass [N]: of each robot with its payload, kg
    """

    model: Any

    @property
    def qpos(self) -> Array: ...
    @property
    def mass(self) -> Array: ...

    def reset(self, ids: NDArray[np.int64], pose: Pose, physics: Physics) -> None:
        """Put the robots `ids` [M] at a pose, with physics of their own."""

    def push(self, velocity: Array) -> None:
        """Add to the bases' velocity in the world, m/s, [N, 3]."""

    def step(self, target: Array, substeps: int) -> None:
        """Hold joint targets [N, J] for some physics steps; each arrives after its latency."""

    def measure(self) -> Motion:
        """The robots' motion now. Feet's forces and torques are those of the last physics step."""
        ...

    def save_state(self) -> dict[str, NDArray]:
        """Everything the next step depends on."""
        ...

    def load_state(self, saved: dict[str, NDArray]) -> None:
        """Continue exactly where `save_state` was called."""
