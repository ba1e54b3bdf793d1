"""Many agents in one world, in plain numpy, through the same doors as every other task."""

from __future__ import annotations

import numpy as np
import pytest
from motoric.envs.batched import BatchedEnv
from motoric.envs.tasks.crossing import NEAREST, RADIUS, RANGE, SENSED, Crossing, neighbours
from motoric.envs.vector import BatchVecEnv
from motoric.hardware.simulated.body import Body
from motoric.hardware.specs.point_agent import POINT_AGENT
from stable_baselines3.common.vec_env import VecEnv


def crossing(worlds: int = 1, **options) -> BatchedEnv:
    return BatchedEnv(Crossing(**options), worlds)


def straight(env: BatchedEnv) -> np.ndarray:
    """Everybody heads for its goal and looks at nobody."""
    return np.clip(env.goal["position"] - env.measured.position, -1, 1)


def test_rows_are_agents_that_begin_and_end_together():
    env = crossing(2, episode_seconds=1.0)
    assert env.num_envs == 128
    assert env.poses.shape == (2, 2 * 64)
    assert env.poses.shape[1] == env.model.nq
    for step in range(1, 21):
        *_, terminated, truncated, info = env.step(straight(env))
        assert truncated.all() == (step == 20)
        assert not terminated.any()
    assert (info["episode_length"] == 20).all()
    assert (env.steps == 0).all()


def test_a_world_does_not_know_of_another():
    one, two = crossing(1), crossing(2)
    rng = np.random.default_rng(0)
    for _ in range(20):
        action = rng.uniform(-1, 1, (64, 2))
        alone = one.step(action)[0]
        beside = two.step(np.tile(action, (2, 1)))[0]
        np.testing.assert_array_equal(alone, beside[:64])


def test_what_is_heard_of_neighbours():
    """Of two agents: the direction and closing speed of the other, fading with the distance."""
    place = np.array([[[0.0, 0.0], [0.6, 0.0]]])
    speed = np.array([[[1.0, 0.0], [0.0, 0.0]]])
    heard, touches = neighbours(place, speed)
    first = heard.reshape(1, 2, NEAREST, SENSED)[0, :, 0]
    weight = 1 - 0.6 / RANGE
    np.testing.assert_allclose(first[0], [weight, 0, -weight, 0])
    np.testing.assert_allclose(first[1], [-weight, 0, weight, 0])
    assert not touches.any()
    assert not heard.reshape(1, 2, NEAREST, SENSED)[:, :, 1:].any()
    assert neighbours(place * 2 * RADIUS / 0.61, speed)[1].all()
    far = neighbours(place * RANGE / 0.6, speed)[0]
    np.testing.assert_allclose(far, 0, atol=1e-12)


def test_going_straight_arrives_and_touches():
    """What a policy has to better: everybody arrives, but not without touching."""
    env = crossing()
    touched = np.zeros(64)
    for _ in range(env.task.episode_steps - 1):
        *_, info = env.step(straight(env))
        touched = np.maximum(touched, info["metrics"]["touched"])
    assert info["metrics"]["distance_left"].max() < 0.1
    assert touched.mean() > 0.5


def test_its_state_continues_bit_for_bit():
    rng, env = np.random.default_rng(1), crossing(episode_seconds=1.0)
    actions = rng.uniform(-1, 1, (30, 64, 2))
    for action in actions[:15]:
        env.step(action)
    saved, other = env.save_state(), crossing(episode_seconds=1.0)
    other.load_state(saved)
    for action in actions[15:]:
        for a, b in zip(env.step(action)[:4], other.step(action)[:4], strict=True):
            np.testing.assert_array_equal(a, b)


def test_one_agent_in_mujoco_moves_as_in_numpy():
    """The simulated robot that it is deployed on is the one it has learned in."""
    env, body = crossing(), Body(POINT_AGENT)
    body.on = True
    env.sim.reset(np.arange(64), np.zeros((64, 2)), None)
    env.measured = env._measure()
    action = np.tile([1.0, -0.5], (64, 1))
    for _ in range(10):
        env.step(action)
        body.take(env.command.rows(0))
        for _ in range(round(env.control_dt / body.model.opt.timestep)):
            body.step()
    state = body.state()
    np.testing.assert_allclose(state.velocity, env.measured.velocity[0], atol=0.02)
    assert state.sensors["neighbours"].shape == (NEAREST * SENSED,)


def test_stable_baselines3_sees_agents_as_environments():
    vec = BatchVecEnv(crossing())
    assert isinstance(vec, VecEnv)
    assert vec.num_envs == 64
    assert vec.reset().shape == (64, vec.observation_space.shape[0])


def test_a_wrench_is_refused_in_one_line():
    with pytest.raises(ValueError, match="take pushes only"):
        crossing().sim.wrench("base", np.zeros((64, 6)))
