"""A policy's tick played through just before its time, so that it finds its code in the caches.

A processor that has slept for milliseconds takes several times as long for the first pass.
"""

from __future__ import annotations

import time

import numpy as np
from motoric.control.supervisor import Mode, Supervisor
from motoric.hardware.goals import Goal
from motoric.hardware.interfaces.base import Interface
from motoric.hardware.robot import RobotState
from motoric.hardware.runtime.agent import Agent
from motoric.hardware.runtime.bundle import Bundle
from motoric.hardware.runtime.inference import Inline
from motoric.hardware.runtime.policy import Policy


class Rehearsal:
    """Observation, policy, command and supervision of a state, thrown away: a stand-in for all
    that acts, with a memory and an active supervisor of its own."""

    def __init__(self, bundle: Bundle, interface: Interface, goal: Goal) -> None:
        robot = interface.robot
        self.agent, self._inference = Agent(interface, goal), Inline(Policy(bundle))
        self._period = 0
        self._action = np.zeros(bundle.spec.action.shape, bundle.spec.action.dtype)
        self.supervisor = Supervisor(
            robot.limits, robot.stand, robot.rest, robot.kp, robot.kd, robot.damping,
            self.agent.period, kp_max=robot.kp_max, kd_max=robot.kd_max,
            filters=interface.filters(bundle.run),
        )  # fmt: skip
        zero = np.zeros(len(robot.joints))
        self._state = RobotState(
            0.0, 0, robot.stand, zero, zero, np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(3)
        )
        self.supervisor.start(0.0, self._state)
        while self.supervisor.mode is Mode.SOFT_START:
            self._later(self._state)
            self.supervisor.update(self._state.time, self._state, None)

    def play(self, state: RobotState, thinks: bool = True) -> None:
        """thinks: with an inference; else with the action of the last."""
        state, now = self._later(state), time.monotonic()
        measured = self.agent.measured(state, state.time)
        observation = self.agent.observe(measured)
        if thinks:
            self._period += 1000  # of no chunk that was before
            self._inference.think(observation, self._period, now)
            chosen = self._inference.action(self._period)
            self._action = self._action if chosen is None else chosen.action
        wish = self.agent.command(self._action, measured)
        self.supervisor.update(state.time, state, wish)

    def _later(self, state: RobotState) -> RobotState:
        """A state as the next one of its own time."""
        mine = self._state
        self._state = RobotState(
            mine.time + self.agent.period, mine.sequence + 1,
            state.position, state.velocity, state.torque, state.orientation,
            state.angular_velocity, state.base_velocity, state.base_height,
            state.battery, state.temperature, state.sensors,
        )  # fmt: skip
        return self._state
