"""A desk arm reaches with its tip to a point, by joint impedance: how far, and how stiffly.

Stiffness costs, so that it learns to be no stiffer than the arm's weight asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from motoric.envs.engine import Array, Physics, Simulation, Start
from motoric.envs.random import spread
from motoric.envs.registry import make_engine
from motoric.envs.scene import Scene
from motoric.envs.task import Episode, Step, Task
from motoric.hardware.goals import Goal, Part
from motoric.hardware.interfaces.base import Memory, Metric
from motoric.hardware.interfaces.impedance import Impedance
from motoric.hardware.interfaces.terms import Term
from motoric.hardware.specs.x_arm6 import X_ARM6

LENGTHS = np.array([0.12, 0.10, 0.08])  # m, of upper arm, forearm, hand to the tip
SHOULDER = 0.121  # m, above the desk
# Joints from which goals are made, rad: shoulder pan and lift, elbow and wrist flex
GOAL_LOW, GOAL_HIGH = np.array([-1.2, -0.2, -1.2, -0.6]), np.array([1.2, 1.0, 0.2, 0.6])
NEAR = 0.02  # m; the tip has arrived


def tip(joints: Array) -> Array:
    """Where the tip is, m, [N, 3], of shoulder pan and lift, elbow and wrist flex, rad, [N, 4]."""
    angle = np.cumsum(joints[:, 1:], axis=1)  # above level: of upper arm, forearm, hand
    reach, height = np.cos(angle) @ LENGTHS, SHOULDER + np.sin(angle) @ LENGTHS
    pan = joints[:, 0]
    return np.stack([reach * np.cos(pan), reach * np.sin(pan), height], axis=1)


@dataclass(frozen=True)
class XArm6Reach(Task):
    """Bring the tip to the goal and keep it there. `randomise`: payload, strength, latency."""

    randomise: bool = True
    softness: float = 0.1  # cost of full stiffness, per step, against 1 for being there
    episode_seconds: float = 4.0

    name = "x_arm6_reach"
    substeps = 8
    draws = {"reset": 16, "physics": 3, "advance": 0, "push": 0}  # noqa: RUF012

    @cached_property
    def interface(self) -> Impedance:
        return Impedance(
            X_ARM6,
            rate=25.0,
            terms=(
                Term("joint_position", 6), Term("joint_velocity", 6, 0.2),
                Term("goal.tip", 3, 5.0), Term("action", 12),
            ),
            action_scale=(1.4, 1.4, 1.4, 1.2, 0.2, 0.2),
            goals=(
                Part("tip", ("x", "y", "z"), ("m", "m", "m"), (0.0, -0.3, 0.02), (0.3, 0.3, 0.35)),
            ),
        )  # fmt: skip

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (
            Metric("tip_error", "m", "last", "tip from the goal"),
            Metric("stiffness", "", "mean", "share of full stiffness"),
            Metric("arrived", "", "last", "within 20 mm"),
        )

    def simulation(self, engine: str, rows: int, threads: int) -> Simulation:
        return make_engine(engine, Scene.of(X_ARM6), rows, threads)

    def reset(self, draw: Array) -> tuple[Start, Goal, Memory, Episode]:
        """About the stand; the goal is where the tip would be in a drawn pose."""
        (part,) = self.interface.goals
        m, zero = len(draw), np.zeros((len(draw), 6))
        limits = X_ARM6.limits
        joints = np.clip(X_ARM6.stand + 0.3 * (2 * draw[:, :6] - 1), limits.lower, limits.upper)
        start = Start(
            base_position=np.zeros((m, 3)), orientation=np.tile([1.0, 0, 0, 0], (m, 1)),
            base_velocity=zero, position=joints, velocity=zero,
        )  # fmt: skip
        goal = np.clip(tip(spread(GOAL_LOW, GOAL_HIGH, draw[:, 6:10])), part.low, part.high)
        return start, {"tip": goal}, {}, {}

    def physics(self, draw: Array) -> Physics:
        physics = Physics.nominal(len(draw))
        if self.randomise:
            physics.strength = spread(0.85, 1.15, draw[:, 1])
            physics.latency = np.floor(spread(0.0, 4.0, draw[:, 2])).astype(np.int64)
        return physics

    def reward(self, step: Step) -> tuple[Array, dict[str, Array]]:
        error = self._error(step)
        change = np.sum((np.clip(step.action, -1, 1) - step.memory["action"]) ** 2, 1)
        terms = {
            "there": np.exp(-((error / 0.05) ** 2)),
            "near": -error,
            "soft": -self.softness * self._stiffness(step),
            "smooth": -0.01 * change,
        }
        return sum(terms.values(), np.zeros(len(error))), terms

    def measure(self, step: Step) -> dict[str, Array]:
        error = self._error(step)
        return {
            "tip_error": error,
            "stiffness": self._stiffness(step),
            "arrived": (error < NEAR).astype(np.float64),
        }

    def _error(self, step: Step) -> Array:
        return np.linalg.norm(step.after.sensors["tip"] - step.goal["tip"], axis=1)

    def _stiffness(self, step: Step) -> Array:
        return np.mean(step.command.kp / X_ARM6.kp, axis=1)


TASK = XArm6Reach
