"""A robot for dry runs."""

from __future__ import annotations

from motoric.control.command import MotorCommand
from motoric.hardware.robot import Robot, RobotState


class ReadOnly(Robot):
    """A robot that is read and never commanded: neither switched on nor off."""

    def __init__(self, robot: Robot) -> None:
        self.spec, self._robot = robot.spec, robot
        self.loop_rate, self.most_rate = robot.loop_rate, robot.most_rate

    def configure(self) -> None:
        self._robot.realtime = self.realtime
        self._robot.configure()
        self.loop_rate, self.most_rate = self._robot.loop_rate, self._robot.most_rate

    def activate(self) -> None:
        pass

    def read(self) -> RobotState:
        return self._robot.read()

    def write(self, command: MotorCommand) -> None:
        pass

    def deactivate(self) -> None:
        pass

    def close(self) -> None:
        self._robot.close()
