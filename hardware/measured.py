"""What is known of N robots at one moment: what interfaces, tasks, metrics and filters read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from motoric.hardware.robot import RobotState

Array = NDArray[np.float64]


@dataclass
class Measured:
    """N robots; every array leads with N. NaN where something isn't measured.

    time [N]: s since the episode (or the policy) began
    position, velocity, torque [N, J]: joints, rad, rad/s, N m
    orientation [N, 4]: base in the world, unit quaternion (w, x, y, z)
    angular_velocity [N, 3]: of the base, in the base frame, rad/s
    base_position [N, 3]: in the world, m; base_velocity [N, 3]: in the base frame, m/s
    sensors: what else there is, by name, each [N, ...]: of the robot (`RobotSpec.sensors`) on a
        robot; in simulation whatever the scene measures besides, for rewards and critics
    """

    time: Array
    position: Array
    velocity: Array
    torque: Array
    orientation: Array
    angular_velocity: Array
    base_position: Array
    base_velocity: Array
    sensors: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def rows(self, ids: Any) -> Measured:
        """Of some rows only."""
        values = {
            f.name: getattr(self, f.name)[ids]
            for f in dataclasses.fields(self)
            if f.name != "sensors"
        }
        return Measured(**values, sensors={k: v[ids] for k, v in self.sensors.items()})


def measured_by(state: RobotState, time: float) -> Measured:
    """One robot's measurement as a single row. time: s since its policy began."""
    sensors = state.sensors
    return Measured(
        np.array([time]),
        state.position[None],
        state.velocity[None],
        state.torque[None],
        state.orientation[None],
        state.angular_velocity[None],
        np.array([[np.nan, np.nan, state.base_height]]),
        state.base_velocity[None],
        {name: np.asarray(value)[None] for name, value in sensors.items()} if sensors else sensors,
    )
