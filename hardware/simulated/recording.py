"""The black box of a simulated robot: what its motors did in every time step, as a log.

It is written on the robot's side of the wire, by the simulated robot itself, and so says what
reached the motors, whoever commanded them and whatever became of that. The format is that of a
deployment's log: /state as it was before the step (torque: of the step before), /command the law
that the motors followed in it, /status their mode: off, damped or commanded.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from motoric.control.command import MotorCommand
from motoric.hardware.runtime.log import LogWriter

if TYPE_CHECKING:
    from motoric.hardware.simulated.body import Body
    from motoric.hardware.simulated.pybullet_body import PyBulletBody

EVERY = 0.1  # s; a robot that is killed leaves all but so much


class Recording:
    """Records a simulated robot in a new file. Raises LogError where it can't be written."""

    def __init__(self, path: str | Path, simulation: Body | PyBulletBody) -> None:
        self._simulation = simulation
        spec = simulation.spec
        self._zero = np.zeros(len(spec.joints))
        self._log = LogWriter(
            Path(path), {"robot": spec.name, "joints": ",".join(spec.joints)}, EVERY
        )

    def step(self, reason: str = "") -> None:
        """To be called before each step of physics. reason: why the motors do what they do."""
        simulation = self._simulation
        kp, kd, target, offset = simulation.law()
        self._log.tick(
            time.monotonic(), simulation.steps, simulation.state(),
            MotorCommand(target, self._zero, kp.copy(), kd, offset), None,
            {"mode": simulation.mode, "reason": reason},
        )  # fmt: skip

    def close(self) -> None:
        self._log.close()
