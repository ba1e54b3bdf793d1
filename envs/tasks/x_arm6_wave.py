"""A desk arm under a camera waves: its elbow and wrist follow a motion of two seconds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from motoric.envs.engine import Array, Simulation, Start
from motoric.envs.registry import make_engine
from motoric.envs.scene import Scene
from motoric.envs.task import Episode, Step, Task
from motoric.hardware.goals import Goal
from motoric.hardware.interfaces.base import Memory, Metric
from motoric.hardware.interfaces.camera_targets import CameraTargets
from motoric.hardware.interfaces.terms import Term
from motoric.hardware.specs.x_arm6_eye import X_ARM6_EYE

PERIOD = 2.0  # s
SWING = np.array([0.3, 0.3, 0.5, 0.5, 0.0, 0.0])  # rad, of each joint either way
PHASE = np.array([0.0, 0.25, 0.0, 0.25, 0.0, 0.0])  # cycles


def wave(time: Array) -> Array:
    """Where the joints should be, rad, [N, 6], at times s, [N]."""
    return X_ARM6_EYE.stand + SWING * np.sin(2 * np.pi * (time[:, None] / PERIOD + PHASE))


MOMENTS = wave(np.linspace(0, PERIOD, 100, endpoint=False))  # [100, 6]


@dataclass(frozen=True)
class XArm6Wave(Task):
    """Wave, at any phase."""

    episode_seconds: float = 6.0

    name = "x_arm6_wave"
    substeps = 10
    draws = {"reset": 1, "physics": 0, "advance": 0, "push": 0}  # noqa: RUF012

    @cached_property
    def interface(self) -> CameraTargets:
        return CameraTargets(
            X_ARM6_EYE,
            rate=20.0,
            terms=(Term("joint_position", 6), Term("joint_velocity", 6)),
            action_scale=(1.0,) * 6,
            action_limit=1.5,
        )

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("off_the_wave", "rad", "mean", "farthest joint off the motion"),)

    def simulation(self, engine: str, rows: int, threads: int) -> Simulation:
        return make_engine(engine, Scene.of(X_ARM6_EYE), rows, threads)

    def reset(self, draw: Array) -> tuple[Start, Goal, Memory, Episode]:
        """Somewhere on the wave, in its motion."""
        m, phase = len(draw), PERIOD * draw[:, 0]
        speed = (wave(phase + 0.01) - wave(phase - 0.01)) / 0.02
        level, still = np.tile([1.0, 0, 0, 0], (m, 1)), np.zeros((m, 6))
        start = Start(np.zeros((m, 3)), level, still, wave(phase), speed)
        return start, {}, {}, {}

    def reward(self, step: Step) -> tuple[Array, dict[str, Array]]:
        terms = {"wave": np.exp(-10 * self._off(step) ** 2)}
        return terms["wave"], terms

    def measure(self, step: Step) -> dict[str, Array]:
        return {"off_the_wave": self._off(step)}

    def _off(self, step: Step) -> Array:
        """Of the joint farthest off, from the moment of the wave that is nearest, rad, [N]."""
        off = step.after.position[:, None] - MOMENTS
        return np.abs(off).max(axis=2).min(axis=1)


TASK = XArm6Wave
