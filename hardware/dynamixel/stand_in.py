"""A simulated chain of Dynamixel servos: `motoric simulate robot=x_arm6` and its like.

The emulated servos stand behind a pseudo-terminal, at the joints' rest pose by the chain's own
calibration; where that has not been made yet, by one of its own that it names.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from motoric.hardware.drivers import make_robot
from motoric.hardware.dynamixel.calibration import (
    Calibrated,
    load_calibration,
    save_calibration,
)
from motoric.hardware.dynamixel.emulator import Emulator, make_chain
from motoric.hardware.dynamixel.models import ANGLE, RESOLUTION
from motoric.hardware.dynamixel.robot import DynamixelRobot
from motoric.hardware.dynamixel.timing import ADAPTER
from motoric.hardware.robot import Array
from motoric.hardware.simulated.stand_in import StandIn

HAND_EVERY = 0.01  # s between movements of the hand
HAND_WAITS = 2.0  # s in the zero pose after the last register was written
HAND_SECONDS = 3.0  # for a joint, from zero to both ends and back
BEYOND = 0.05  # rad it moves a joint beyond its limits


class SimulatedChain(StandIn):
    """The servos of a driver's configuration.

    port: path at which the serial port shall appear; None: the system's own name of it
    lose, corrupt: share of bytes that vanish, or change a bit, either way
    hand: while torque is off everywhere, a hand holds the chain in its zero pose, then moves one
        joint after another from end to end
    """

    def __init__(
        self,
        options: dict[str, Any],
        port: str | None = None,
        lose: float = 0.0,
        corrupt: float = 0.0,
        hand: bool = False,
    ) -> None:
        robot = make_robot("dynamixel", **options)
        assert isinstance(robot, DynamixelRobot)
        self.robot, self.hand = robot, hand
        self._folder = Path(tempfile.mkdtemp(prefix="motoric-"))
        self._link: Path | None = None
        try:
            calibration = robot.calibration
            if not calibration.exists():
                calibration = self._folder / f"{robot.spec.name}.json"
                save_calibration(calibration, robot.spec.name, _middle(robot))
            found = load_calibration(calibration, robot.spec.name, robot.joints)
            servos = [(joint.id, joint.model.name) for joint in robot.joints]
            self.chain = make_chain(servos, robot.baud, corrupt, lose, ADAPTER)
            self._zero = np.array([one.homing for one in found]) * ANGLE
            self._sign = np.array([one.direction for one in found])
            self._put(np.zeros(len(servos)) if hand else robot.spec.rest, 0.0)
            self.emulator = Emulator(self.chain)
            shown = self.emulator.port if port is None else self._make_link(Path(port))
        except BaseException:
            self.close()
            raise
        self.where = f"on {shown} at {robot.baud} baud, torque off"
        self.reach = (f"robot.options.port={shown}",)
        if calibration != robot.calibration:
            self.reach = (*self.reach, f"robot.options.calibration={calibration}")

    def _make_link(self, path: Path) -> Path:
        if path.exists() and not path.is_symlink():
            raise ValueError(f"port: {path} is there already, expected a path to make")
        try:
            path.unlink(missing_ok=True)
            path.symlink_to(self.emulator.port)
        except OSError as error:
            raise ValueError(f"port: {path}: {error.strerror}") from None
        self._link = path
        return path

    def _put(self, position: Array, velocity: Array | float) -> None:
        """Turn every servo to where the joints are at `position`, rad."""
        angles = self._zero + self._sign * position
        speeds = self._sign * velocity
        for servo, angle, speed in zip(self.chain.servos, angles, speeds, strict=True):
            servo.angle, servo.velocity = float(angle), float(speed)

    def run(self, stop: threading.Event) -> None:
        with self.emulator:
            if self.hand:
                self._move_by_hand(stop)
            stop.wait()

    def _move_by_hand(self, stop: threading.Event) -> None:
        began, start = -np.inf, np.zeros(len(self._zero))
        while not stop.wait(HAND_EVERY):
            now = time.monotonic()
            with self.emulator.lock:
                servos, written = self.chain.servos, self.chain.written
                if any(servo.values["torque_enable"] for servo in servos):
                    began = -np.inf
                    continue
                touched = written[-1].time if written else -np.inf
                if began < touched or began == -np.inf:  # takes hold of it anew
                    began = max(now, touched)
                    angles = np.array([servo.angle for servo in servos])
                    start = self._sign * (angles - self._zero)
                self._put(*hand_pose(self.robot, start, now - began))

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._link is not None:
            with contextlib.suppress(OSError):
                if os.readlink(self._link) == self.emulator.port:
                    self._link.unlink()


def _middle(robot: DynamixelRobot) -> dict[str, Calibrated]:
    """A calibration: zero in the middle of each servo's turn, a range as wide as can be."""
    half = RESOLUTION // 2
    return {
        joint.name: Calibrated(
            joint.id, joint.model.name, half, joint.direction, low, low + RESOLUTION
        )
        for joint in robot.joints
        for low in [half + round(joint.direction * (joint.lower + joint.upper) / 2 / ANGLE) - half]
    }


def hand_pose(robot: DynamixelRobot, start: Array, seconds: float) -> tuple[Array, Array]:
    """Where a hand has the joints, rad and rad/s, [J], so long after it took hold at `start`.

    It brings them to zero within half of HAND_WAITS, waits there for the other half, then moves
    joint after joint, without end.
    """
    count = len(robot.joints)
    if seconds < HAND_WAITS:
        left = max(0.0, 1.0 - 2.0 * seconds / HAND_WAITS)
        return start * left, np.zeros(count)
    turn, within = divmod(seconds - HAND_WAITS, HAND_SECONDS)
    joint = robot.joints[int(turn) % count]
    lower, upper = joint.lower - BEYOND, joint.upper + BEYOND
    times = np.array([0.0, 0.2, 0.3, 0.65, 0.75, 1.0]) * HAND_SECONDS  # it rests at the ends
    places = np.array([0.0, upper, upper, lower, lower, 0.0])
    leg = min(int(np.searchsorted(times, within, "right")) - 1, len(times) - 2)
    speed = (places[leg + 1] - places[leg]) / (times[leg + 1] - times[leg])
    position, velocity = np.zeros(count), np.zeros(count)
    position[int(turn) % count] = places[leg] + speed * (within - times[leg])
    velocity[int(turn) % count] = speed
    return position, velocity
