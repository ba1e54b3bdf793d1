"""The loop: limits as on the robot, draws that can be set, margins, agents, several inputs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from motoric.control.limits import Limits
from motoric.control.supervisor import Mode, Supervisor
from motoric.envs.batched import BatchedEnv
from motoric.envs.random import STREAMS
from motoric.envs.tasks.go2_velocity import Go2Velocity
from motoric.envs.tasks.x_arm6_wave import XArm6Wave
from motoric.hardware.robot import RobotState
from motoric.hardware.specs.go2 import GO2


def test_training_passes_the_limits_of_the_supervisor():
    """The same wish, state and command before: the same command, gains scaled where it must be."""
    env = BatchedEnv(Go2Velocity(randomise=False), 2, num_threads=1)
    interface, rng, scaled = env.task.interface, np.random.default_rng(0), 0
    for _ in range(250):
        before = env.measured
        supervisor = Supervisor(
            GO2.limits, GO2.stand, GO2.rest, GO2.kp, GO2.kd, GO2.damping, env.control_dt
        )
        state = RobotState(
            1.0, 1, before.position[0], np.clip(before.velocity[0], -10, 10), np.zeros(12),
            np.array([1.0, 0, 0, 0]), np.zeros(3),
        )  # fmt: skip
        supervisor.start(1.0, state)
        supervisor._phase, supervisor._acted, supervisor._gain = Mode.ACTIVE, 1.0, 1.0
        supervisor._sent = env.command.rows(0)
        action = rng.normal(0, 1.5, (2, 12))
        wish, _ = interface.command(action, before, env.goal, env.memory)
        expected = supervisor.update(1.0 + env.control_dt, state, wish.rows(0))
        env.step(action)
        if supervisor.mode is not Mode.ACTIVE or np.abs(before.velocity[0]).max() > 10:
            continue  # measured beyond what a robot may be
        if env.steps[0] == 0:
            continue  # a new episode
        scaled += bool((env.command.kp[0] < GO2.kp).any())
        np.testing.assert_allclose(env.command.position[0], expected.position, atol=1e-12)
        np.testing.assert_allclose(env.command.kp[0], expected.kp, rtol=1e-12)
        np.testing.assert_allclose(env.command.kd[0], expected.kd, rtol=1e-12)
    assert scaled > 5


def test_the_filter_is_the_supervisors_own():
    env = BatchedEnv(Go2Velocity(), 1)
    assert isinstance(env._limits, Limits)
    assert env._limits.joints is GO2.limits
    np.testing.assert_array_equal(env._limits.kp_max, GO2.kp_max)


def test_draws_can_be_set_for_some_rows():
    env, twin = BatchedEnv(Go2Velocity(), 3, seed=5), BatchedEnv(Go2Velocity(), 3, seed=5)
    goal = np.concatenate([np.full((1, 31), 0.5), [[0.999, 0.5, 0.5, 0.0, 0.0, 0.0, 0.5]]], 1)
    env.draws.set("reset", np.array([1]), goal)
    env.draws.set("physics", np.array([1]), np.array([[0.0, 0.999]]))
    env.reset(5)
    twin.reset(5)
    assert env.goal["velocity"][1, 0] == pytest.approx(1.0, abs=0.01)
    assert env.sim._friction[1, env.sim._parts[0].feet[0], 0] == pytest.approx(0.4, abs=0.01)
    for row in (0, 2):
        np.testing.assert_array_equal(env.sim.qpos[row], twin.sim.qpos[row])
    env.draws.clear()
    np.testing.assert_array_equal(env.reset(5), twin.reset(5))


def test_draws_that_are_set_later_leave_other_rows_as_they_are():
    env = BatchedEnv(Go2Velocity(), 4)
    env.draws.set("push", np.array([0, 1]), np.full((2, 2), 0.25))
    env.draws.set("push", np.array([1, 2]), np.full((2, 1), 0.5))
    draw = env.draws("push", slice(None), env.seeds, env.ticks, 2)
    assert draw[0].tolist() == [0.25, 0.25]
    assert draw[1, 0] == draw[2, 0] == 0.5
    assert draw[1, 1] not in (0.25, 0.5), "the last word on a row"
    some = env.draws("push", np.array([2, 0]), env.seeds[[2, 0]], env.ticks[[2, 0]], 1)
    assert some.tolist() == [[0.5], [0.25]]


@pytest.mark.parametrize(
    ("stream", "ids", "values", "words"),
    [
        ("luck", [0], [[0.5]], "stream 'luck' is unknown, expected one of reset"),
        ("reset", [0], [[1.0]], "from 0 up to, but not, 1"),
        ("reset", [0, 1], [[0.5]], r"expected \(2, k\)"),
    ],
)
def test_draws_that_can_not_be(stream, ids, values, words):
    env = BatchedEnv(Go2Velocity(), 2)
    with pytest.raises(ValueError, match=words):
        env.draws.set(stream, np.array(ids), np.array(values))
    assert set(STREAMS) == {"reset", "physics", "advance", "push", "noise"}


def test_an_end_is_where_the_margin_turns_negative():
    env = BatchedEnv(Go2Velocity(randomise=False), 2, num_threads=1)
    fold = np.tile((GO2.rest - GO2.stand) / np.array(env.task.interface.action_scale), (2, 1))
    fold[0] = 0.0
    margins = []
    for _ in range(100):
        *_, terminated, _, _ = env.step(fold)
        if terminated.any():
            break
        margins.append(env.task.margin(env.measured, env.episode))
    assert terminated.tolist() == [False, True]
    assert (np.array(margins) >= 0).all()
    assert margins[0].min() > 0.5
    assert margins[-1][1] < 0.3 < margins[-1][0]


def test_an_episode_begins_at_rest_whatever_was_commanded_before():
    """The command before the first is that of a robot that holds its pose; others keep theirs."""
    env = BatchedEnv(Go2Velocity(randomise=False), 2, num_threads=1)
    fold = np.tile((GO2.rest - GO2.stand) / np.array(env.task.interface.action_scale), (2, 1))
    fold[0] = 0.0

    def soft(state, wish, context):
        return dataclasses.replace(wish, kp=0.5 * wish.kp)

    env.filters = (soft,)
    for _ in range(100):
        if env.step(fold)[2].any():
            break
    assert env.steps[1] == 0
    np.testing.assert_array_equal(env.command.kp[1], GO2.kp)
    np.testing.assert_allclose(env.command.position[1], env.measured.position[1])
    assert (env.command.kp[0] <= 0.5 * GO2.kp).all()


def test_not_a_number_is_an_end():
    env = BatchedEnv(Go2Velocity(randomise=False), 2)
    env.sim.qpos[1, 2] = np.nan
    env.measured = env._measure()
    terminated, _ = env._ended()
    assert terminated.tolist() == [False, True]


def test_several_inputs_are_a_dict_and_begin_anew_by_row():
    env = BatchedEnv(XArm6Wave(episode_seconds=0.2), 2, seed=1)
    seen = env.reset(1)
    assert set(seen) == {"observation", "eye"}
    assert env.observation_space.contains({name: value[0] for name, value in seen.items()})
    for _ in range(4):
        seen, _, _, truncated, info = env.step(np.zeros((2, 6)))
    assert truncated.all()
    assert set(info["final_obs"]) == set(seen)
    assert not np.array_equal(info["final_obs"]["observation"], seen["observation"])
    env.close()


def test_a_held_goal_is_checked_and_given_back():
    env = BatchedEnv(Go2Velocity(), 2)
    env.hold_goal([0.5, 0.0, 0.0])
    env.reset(3)
    np.testing.assert_array_equal(env.goal["velocity"], [[0.5, 0, 0]] * 2)
    with pytest.raises(ValueError, match=r"goal\.velocity: forward 3, the policy was trained for"):
        env.hold_goal([3.0, 0.0, 0.0])
    env.hold_goal(None)
    env.reset(3)
    assert not np.array_equal(env.goal["velocity"][0], [0.5, 0, 0])


class Softener:
    """Half the stiffness, or what a broken filter gives."""

    name, deadline = "softener", 1.0

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, state, wish, context):
        return dataclasses.replace(wish, kp=self.factor * wish.kp)


def test_filters_act_before_the_limits_and_are_checked():
    env = BatchedEnv(Go2Velocity(randomise=False), 2)
    env.filters = (Softener(0.5),)
    env.step(np.zeros((2, 12)))
    np.testing.assert_allclose(env.command.kp, np.tile(0.5 * GO2.kp, (2, 1)))
    env.filters = (Softener(np.nan),)
    with pytest.raises(ValueError, match="filter softener: gives what is not finite"):
        env.step(np.zeros((2, 12)))
    env.filters = (Softener(7.0),)
    env.reset(0)
    env.step(np.zeros((2, 12)))
    assert (env.command.kp <= GO2.kp).all(), "no filter loosens a limit"
