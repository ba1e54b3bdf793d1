"""One robot's interface, memory, goal and clock."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from motoric.hardware.goals import Part, at_rest, checked
from motoric.hardware.robot import RobotState
from motoric.hardware.runtime.agent import Agent
from motoric.hardware.specs.go2 import GO2

from ...conftest import GO2_INTERFACE, VELOCITY

ZERO, UP = np.zeros(12), np.array([1.0, 0.0, 0.0, 0.0])


def state(sequence=0):
    return RobotState(0.0, sequence, GO2.stand + 0.1, ZERO, ZERO, UP, np.zeros(3))


def test_the_clock_begins_with_the_first_state_and_is_the_interfaces():
    agent = Agent(GO2_INTERFACE, checked((VELOCITY,), [0.5, 0, 0]))
    first = agent.observe(agent.measured(state(), 1000.0))["observation"]
    later = agent.observe(agent.measured(state(1), 1000.125))["observation"]
    np.testing.assert_allclose(first[0, -2:], [0, 1], atol=1e-6)
    np.testing.assert_allclose(later[0, -2:], [1, 0], atol=1e-6)  # a quarter of 2 Hz
    np.testing.assert_array_equal(first[0, :-2], later[0, :-2])


def test_observing_changes_nothing_and_commanding_only_the_memory():
    agent = Agent(GO2_INTERFACE, at_rest((VELOCITY,), 1))
    measured = agent.measured(state(), 5.0)
    for _ in range(3):
        agent.observe(measured)
    before = agent.observe(measured)["observation"]
    command = agent.command(np.full(12, 2.0, np.float32), measured)
    assert command.position.shape == command.kp.shape == (12,)
    np.testing.assert_allclose(command.position, GO2.stand + np.tile([0.6, 1.0, 1.0], 4))
    after = agent.observe(measured)["observation"]
    np.testing.assert_array_equal(after[0, 30:42], np.ones(12))
    np.testing.assert_array_equal(np.delete(after, np.s_[30:42], 1),
                                  np.delete(before, np.s_[30:42], 1))  # fmt: skip


def test_only_parts_that_halt_are_eased_to_rest():
    height = Part("height", ("up",), ("m",), (0.2,), (0.4,))
    interface = dataclasses.replace(GO2_INTERFACE, goals=(VELOCITY, height))
    asked = checked(interface.goals, {"velocity": [0.5, 0, -0.2], "height": [0.3]})
    agent = Agent(interface, asked)
    assert agent.moves
    for share, forward in ((0.0, 0.5), (0.5, 0.25), (1.0, 0.0), (7.0, 0.0)):
        agent.halt(share)
        np.testing.assert_allclose(agent.goal["velocity"], [[forward, 0, -0.4 * forward]])
        assert agent.goal["height"][0, 0] == 0.3
        assert agent.moves, "it goes by what was asked for"
    assert asked["velocity"][0, 0] == 0.5, "nobody's goal is changed"
    agent.ask(asked | {"velocity": np.zeros((1, 3))})
    assert not agent.moves


def test_metrics_are_numbers():
    agent = Agent(GO2_INTERFACE, at_rest((VELOCITY,), 1))
    moving = dataclasses.replace(state(), base_velocity=np.array([0.3, 0.4, 0.0]))
    found = agent.measure(agent.measured(moving, 0.0))
    assert found == pytest.approx({"velocity_error": 0.5, "distance": 0.01, "fell": 0.0})


def test_a_robot_sees_and_does_what_it_did_in_training():
    """The same states and actions give the same observations and wishes, tick by tick."""
    from motoric.envs.batched import BatchedEnv
    from motoric.envs.tasks.go2_velocity import Go2Velocity

    env = BatchedEnv(Go2Velocity(randomise=False), 1, seed=3)
    env.hold_goal([0.5, 0.1, -0.2])
    wanted = env.reset()
    interface = env.interface
    assert interface is not None
    env.memory["phase"][:] = 0.0
    wanted = env._observe(slice(None))["observation"]
    agent = Agent(interface, checked(interface.goals, [0.5, 0.1, -0.2]))
    rng = np.random.default_rng(0)
    for step in range(10):
        seen = env.measured
        now = RobotState(
            0.0, step, seen.position[0], seen.velocity[0], seen.torque[0], seen.orientation[0],
            seen.angular_velocity[0],
        )  # fmt: skip
        measured = agent.measured(now, 100.0 + step * env.control_dt)
        np.testing.assert_allclose(agent.observe(measured)["observation"], wanted, atol=1e-6)
        action = rng.uniform(-0.3, 0.3, 12).astype(np.float32)
        wish = agent.command(action, measured)
        scale = np.array(interface.action_scale)
        np.testing.assert_allclose(wish.position, GO2.stand + scale * action, atol=1e-6)
        wanted, _, ended, _, _ = env.step(action[None])
        assert not ended.any()
