"""64 agents cross a plane: each starts on a circle, bound for the other side.

The agents are rows of one world, in plain numpy. They are the discs of `hardware/specs/
point_agent.py`, seen and commanded through the interface that the simulated robot has too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from motoric.control.command import MotorCommand
from motoric.envs.engine import Array
from motoric.envs.task import Episode, Step, Task
from motoric.hardware.goals import Goal, Part
from motoric.hardware.interfaces.base import Interface, Memory, Metric
from motoric.hardware.interfaces.joint_velocities import JointVelocities
from motoric.hardware.interfaces.terms import Term
from motoric.hardware.measured import Measured
from motoric.hardware.specs.point_agent import MASS, NEAREST, POINT_AGENT, RADIUS, SENSED
from numpy.typing import NDArray

RANGE = 1.5  # m within which agents hear each other
TIMESTEP = 0.01  # s
ARRIVED = 0.2  # m


def neighbours(position: Array, velocity: Array) -> tuple[Array, NDArray[np.bool_]]:
    """What each of A agents hears of the NEAREST others, [W, A, NEAREST * SENSED], and whether it
    touches one, [W, A], in W worlds; position, velocity [W, A, 2].

    Of each neighbour: its direction and its relative velocity, times 1 - distance / RANGE, so that
    what enters or leaves the range does so without a jump, and nobody is zero.
    """
    worlds, agents, _ = position.shape
    offset = position[:, None] - position[:, :, None]  # [W, A, A, 2], from the first to the second
    distance = np.linalg.norm(offset, axis=3)
    distance[:, np.arange(agents), np.arange(agents)] = np.inf
    count = min(NEAREST, agents - 1)
    nearest = np.argpartition(distance, count - 1, axis=2)[:, :, :count]
    rows = np.arange(worlds)[:, None, None], np.arange(agents)[None, :, None], nearest
    near = distance[rows]
    order = np.argsort(near, axis=2)
    rows = rows[0], rows[1], np.take_along_axis(nearest, order, axis=2)
    near, way = distance[rows], offset[rows]
    relative = velocity[rows[0], rows[2]] - velocity[:, :, None]
    weight = np.maximum(1.0 - near / RANGE, 0.0)[..., None]
    heard = np.concatenate([weight * way / np.maximum(near, 1e-6)[..., None], weight * relative], 3)
    result = np.zeros((worlds, agents, NEAREST, SENSED))
    result[:, :, :count] = heard
    return result.reshape(worlds, agents, -1), distance.min(axis=2) < 2 * RADIUS


class Plane:
    """Worlds of discs with mass, pushed by their motors. A `Simulation` (`envs/engine.py`)."""

    def __init__(self, rows: int, agents: int) -> None:
        if rows % agents:
            raise ValueError(f"num_envs: {rows}, expected a multiple of {agents} agents")
        self.rows, self.agents = rows, agents
        self.position, self.velocity = np.zeros((rows, 2)), np.zeros((rows, 2))
        self.force = np.zeros((rows, 2))

    @cached_property
    def model(self) -> Any:
        """A disc for each agent, for viewers."""
        import mujoco
        from motoric.envs.compose import looking

        spec = mujoco.MjSpec()
        spec.worldbody.add_light(pos=[0, 0, 8], dir=[0, 0, -1])
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 0.05], rgba=[0.86, 0.87, 0.88, 1]
        )
        above = [0.0, -7.0, 9.0]
        spec.worldbody.add_camera(name="track", pos=above, quat=looking(above, [0.0, 0.0, 0.0]))
        for agent in range(self.agents):
            body = spec.worldbody.add_body(name=f"agent{agent}", pos=[0, 0, 0.1])
            for axis in ([1, 0, 0], [0, 1, 0]):
                body.add_joint(type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis)
            shade = agent / self.agents
            body.add_geom(
                type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[RADIUS, 0.1, 0], mass=MASS,
                rgba=[0.15 + 0.7 * shade, 0.4, 0.8 - 0.6 * shade, 1],
            )  # fmt: skip
        return spec.compile()

    @property
    def poses(self) -> Array:
        return self.position.reshape(-1, 2 * self.agents)

    def reset(self, ids: NDArray[np.int64], start: Array, physics: Any) -> None:
        self.position[ids], self.velocity[ids], self.force[ids] = start, 0.0, 0.0

    def step(self, command: MotorCommand, substeps: int) -> None:
        limit = POINT_AGENT.limits.torque
        for _ in range(substeps):
            force = command.kp * (command.position - self.position) + command.torque
            force += command.kd * (command.velocity - self.velocity)
            self.force = np.clip(force, -limit, limit)
            self.velocity += TIMESTEP / MASS * self.force
            self.position += TIMESTEP * self.velocity

    def measure(self) -> Measured:
        heard, touches = neighbours(
            self.position.reshape(-1, self.agents, 2), self.velocity.reshape(-1, self.agents, 2)
        )
        rows, nothing = self.rows, np.zeros((self.rows, 3))
        return Measured(
            time=np.zeros(rows),
            position=self.position.copy(),
            velocity=self.velocity.copy(),
            torque=self.force.copy(),
            orientation=np.tile([1.0, 0, 0, 0], (rows, 1)),
            angular_velocity=nothing,
            base_position=nothing,
            base_velocity=nothing,
            sensors={"neighbours": heard.reshape(rows, -1), "touches": touches.reshape(rows)},
        )

    def push(self, velocity: Array) -> None:
        self.velocity += velocity[:, :2]

    def wrench(self, body: str, wrench: Array) -> None:
        raise ValueError(f"wrench: {body!r}, the plane's agents take pushes only")

    def save_state(self) -> dict[str, NDArray]:
        return {k: getattr(self, k).copy() for k in ("position", "velocity", "force")}

    def load_state(self, saved: dict[str, NDArray]) -> None:
        for name, value in saved.items():
            getattr(self, name)[...] = value


@dataclass(frozen=True)
class Crossing(Task):
    """Cross to the opposite side of the circle without touching anyone."""

    circle: float = 4.0  # m, radius
    episode_seconds: float = 12.0

    name = "crossing"
    agents = 64
    substeps = 5
    engines = ("numpy",)
    draws = {"reset": 2, "physics": 0, "advance": 0, "push": 0}  # noqa: RUF012

    @cached_property
    def interface(self) -> Interface:
        far = 2.0 * self.circle
        return JointVelocities(
            POINT_AGENT, 1.0 / (self.substeps * TIMESTEP),
            terms=(
                Term("joint_position", 2, 0.2), Term("joint_velocity", 2),
                Term("goal.position", 2, 0.2), Term("sensor.neighbours", NEAREST * SENSED),
            ),
            top_speed=(1.0, 1.0),
            goals=(Part("position", ("x", "y"), ("m", "m"), (-far, -far), (far, far)),),
        )  # fmt: skip

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (
            Metric("distance_left", "m", "last", "left to go"),
            Metric("touched", "", "any", "touched another"),
        )

    def simulation(self, engine: str, rows: int, threads: int) -> Plane:
        return Plane(rows, self.agents)

    def reset(self, draw: Array) -> tuple[Array, Goal, Memory, Episode]:
        """Equally spaced on the circle, moved a little; each goal is across."""
        place = np.arange(len(draw)) % self.agents
        angle = 2 * np.pi * (place + 0.3 * (draw[:, 0] - 0.5)) / self.agents
        radius = self.circle + 0.3 * (draw[:, 1] - 0.5)
        start = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        return start, {"position": -start}, {}, {}

    def reward(self, step: Step) -> tuple[Array, dict[str, Array]]:
        to_go = np.linalg.norm(step.goal["position"] - step.after.position, axis=1)
        before = np.linalg.norm(step.goal["position"] - step.before.position, axis=1)
        terms = {
            "progress": before - to_go,
            "touch": -0.2 * step.after.sensors["touches"],
            "there": 0.05 * (to_go < ARRIVED),
        }
        return sum(terms.values(), np.zeros(len(to_go))), terms

    def measure(self, step: Step) -> dict[str, Array]:
        left = np.linalg.norm(step.goal["position"] - step.after.position, axis=1)
        return {
            "distance_left": left,
            "touched": step.after.sensors["touches"].astype(np.float64),
        }


TASK = Crossing
