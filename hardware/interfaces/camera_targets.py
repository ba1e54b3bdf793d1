"""Joint targets of a policy that sees through the robot's cameras too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from motoric.hardware.goals import Goal
from motoric.hardware.interfaces.base import Memory, Observation, Tensor
from motoric.hardware.interfaces.joint_targets import JointTargets
from motoric.hardware.measured import Measured


@dataclass(frozen=True)
class CameraTargets(JointTargets):
    """`JointTargets` whose inputs are the terms and each camera of the robot, by its name."""

    name = "camera_targets"

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        cameras = (s for s in self.robot.sensors if s.is_camera)
        return (*super().inputs, *(Tensor(c.name, c.shape, c.dtype) for c in cameras))

    @property
    def sensors(self) -> tuple[str, ...]:
        return (*super().sensors, *(s.name for s in self.robot.sensors if s.is_camera))

    def observe(self, measured: Measured, goal: Goal, memory: Memory) -> Observation:
        seen = super().observe(measured, goal, memory)
        cameras = self.inputs[1:]
        return seen | {c.name: np.asarray(measured.sensors[c.name]) for c in cameras}


INTERFACE = CameraTargets
