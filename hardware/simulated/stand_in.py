"""The robot's side of its own wire: what `motoric simulate` serves in the place of hardware."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Any

from motoric.hardware.robot import Array


class StandIn(ABC):
    """A simulated robot that whatever speaks the real one's protocol can use.

    The function that makes one is named in `drivers.STAND_INS`. It is given the driver's options
    and, by keyword, those of `motoric simulate` that it has parameters for; it raises ValueError,
    RobotError or DdsError for what can't be.

    where: where it is found, and as what
    reach: arguments with which `motoric deploy robot=NAME` finds it
    model: MuJoCo's, to look at; None: there is none
    """

    where: str
    reach: tuple[str, ...]
    model: Any = None

    @abstractmethod
    def run(self, stop: threading.Event) -> None:
        """Serve in real time until `stop` is set."""

    def pose(self) -> Array:
        """Present qpos of `model`."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave nothing behind."""
        return
