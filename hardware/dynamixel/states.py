"""States of a chain: a sync read of all servos, believed only if it answers this very question."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from motoric.control.rotation import IDENTITY
from motoric.hardware.dynamixel.calibration import Calibrated
from motoric.hardware.dynamixel.joints import Joint
from motoric.hardware.dynamixel.models import (
    ANGLE,
    REGISTERS,
    RESOLUTION,
    SPEED,
    STATE,
    from_bytes,
)
from motoric.hardware.robot import Array, RobotState

if TYPE_CHECKING:
    from motoric.hardware.dynamixel.bus import Bus

TICK_SLACK = (0.003, 0.03)  # s, and share, by which a servo's clock may differ between two reads


def sync_read(bus: Bus, joints: tuple[Joint, ...], place: tuple[int, int]) -> Any:
    """A question to all servos at once, about one place: address and bytes."""
    from dynamixel_sdk import GroupSyncRead

    group = GroupSyncRead(bus.port, bus.handler, *place)
    for joint in joints:
        group.addParam(joint.id)
    return group


class StateReader:
    """Reads the joints of a connected chain.

    zero: counts at joint position 0, turns included, [J]; state: the newest, None: none yet
    misread: reads that gave no new state; sequence: of the newest state
    ticks: our time before and after the newest read, and the servos' own clocks
    """

    def __init__(self, joints: tuple[Joint, ...]) -> None:
        self._joints = joints
        self._sign = np.array([joint.direction for joint in joints], np.float64)
        self._torque_unit = np.array([joint.model.torque_unit for joint in joints])
        self.zero = np.zeros(len(joints))
        self.state: RobotState | None = None
        self.ticks: tuple[float, float, list[int]] | None = None
        self.misread = self.sequence = 0

    def find_turns(self, bus: Bus, calibrated: tuple[Calibrated, ...]) -> None:
        """A servo forgets whole turns without power: they follow from the calibrated range."""
        self._group = sync_read(bus, self._joints, STATE)
        for index, (joint, one) in enumerate(zip(self._joints, calibrated, strict=True)):
            counts = bus.read(joint.id, "present_position")
            middle = (one.lower + one.upper) / 2
            turns = 0 if joint.mode == "position" else round((counts - middle) / RESOLUTION)
            self.zero[index] = one.homing + turns * RESOLUTION

    def read(self, bus: Bus, temperature: Array) -> bool:
        """One sync read; a new state if every servo gave a good answer to this very question."""
        import dynamixel_sdk as sdk

        before = time.monotonic()
        result = bus.transfer(self._group.txRxPacket)
        after = time.monotonic()
        values = []
        if result == sdk.COMM_SUCCESS:
            values = [_values(self._group.data_dict[joint.id]) for joint in self._joints]
        ticks = [value["realtime_tick"] for value in values]
        if not values or not self._answers_this(before, after, ticks):
            self.misread += 1
            bus.resync()
            return False
        self.ticks = before, after, ticks
        counts = np.array([value["present_position"] for value in values])
        speeds = np.array([value["present_velocity"] for value in values])
        currents = np.array([value["present_current"] for value in values])
        self.sequence += 1
        self.state = RobotState(
            time=before,
            sequence=self.sequence,
            position=self._sign * (counts - self.zero) * ANGLE,
            velocity=self._sign * speeds * SPEED,
            torque=self._sign * currents * self._torque_unit,
            orientation=IDENTITY,
            angular_velocity=np.zeros(3),
            temperature=temperature,
        )
        return True

    def _answers_this(self, before: float, after: float, ticks: list[int]) -> bool:
        """Whether the servos' own clocks say that all answers are from now.

        Protocol 2.0 does not number questions: the answer to one that was given up may come as
        the answer to the next. Since the last state each clock must have moved on as ours did.
        """
        if self.ticks is None:
            return True
        earlier_before, earlier_after, earlier = self.ticks
        slack = TICK_SLACK[0] + TICK_SLACK[1] * (after - earlier_before)
        least, most = before - earlier_after - slack, after - earlier_before + slack
        for now, then in zip(ticks, earlier, strict=True):
            moved = ((now - then + 1000) % 32768 - 1000) / 1000
            if not least <= moved <= most:
                return False
        return True


def _values(data: list[int]) -> dict[str, int]:
    found = {}
    for name in ("realtime_tick", "present_current", "present_velocity", "present_position"):
        register = REGISTERS[name]
        at = register.address - STATE[0]
        found[name] = from_bytes(register, data[at : at + register.size])
    return found
