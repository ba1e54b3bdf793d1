"""What motors are asked to do: the one command that policies, filters, engines and wires speak.

A motor computes tau = kp (position - q) + kd (velocity - dq) + torque from its own measurement of
q and dq. Joint targets, impedance, velocity and torque control are all special cases.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

QUANTITIES = ("position", "velocity", "kp", "kd", "torque")


@dataclass
class MotorCommand:
    """A command for J joints, or for N rows of them; every array [..., J].

    position rad, velocity rad/s, kp N m/rad, kd N m s/rad, torque N m
    time: s, on the sender's monotonic clock, and sequence, its count: on the way to one robot
    """

    position: Array
    velocity: Array
    kp: Array
    kd: Array
    torque: Array
    time: float = float("nan")
    sequence: int = 0

    @property
    def damps(self) -> bool:
        """Whether it does nothing but brake."""
        return not (self.kp.any() or self.velocity.any() or self.torque.any())

    def rows(self, ids: Any) -> MotorCommand:
        """Of some rows only."""
        return dataclasses.replace(self, **{q: getattr(self, q)[ids] for q in QUANTITIES})


def hold(position: Array, kp: Array, kd: Array) -> MotorCommand:
    """Joint targets [..., J] held at gains [J], with no speed or torque of their own.

    Of N rows, gains and zeros are one row in memory, read-only: what is computed of them may be
    computed once.
    """
    if position.ndim == 1:
        zero = np.zeros(position.shape)
        return MotorCommand(position, zero, kp, kd, zero)
    zero, kp, kd = (np.broadcast_to(row, position.shape) for row in (np.zeros(kp.shape), kp, kd))
    return MotorCommand(position, zero, kp, kd, zero)
