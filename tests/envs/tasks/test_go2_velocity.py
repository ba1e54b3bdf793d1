"""The Go2 task and its simulation: physics that makes sense, pure functions, fair randomness."""

import mujoco
import numpy as np
import pytest
from motoric.control.command import hold
from motoric.control.limits import limit_target
from motoric.control.rotation import rotate_inverse
from motoric.envs.batched import BatchedEnv
from motoric.envs.random import uniform
from motoric.envs.task import Step
from motoric.envs.tasks.go2_velocity import Go2Velocity
from motoric.hardware.interfaces.terms import TERMS, Term, Terms, projected_gravity
from motoric.hardware.models import load_model
from motoric.hardware.specs.go2 import GO2

MIRROR_LEGS = np.array([3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8])
MIRROR_SIGN = np.tile([-1.0, 1.0, 1.0], 4)


def nominal(n: int = 1, seed: int = 0, **options) -> BatchedEnv:
    return BatchedEnv(Go2Velocity(randomise=False, **options), n, seed, num_threads=1)


def test_model_has_the_published_mass_and_the_specs_limits():
    model = load_model(GO2)
    assert model.body_mass.sum() == pytest.approx(16.087, abs=0.001)
    np.testing.assert_allclose(model.jnt_range[1:, 0], GO2.limits.lower)
    np.testing.assert_allclose(model.jnt_range[1:, 1], GO2.limits.upper)
    np.testing.assert_allclose(model.actuator_forcerange[:, 1], GO2.limits.torque)


def test_stands_still_on_zero_actions():
    env = nominal(4)
    for _ in range(250):
        _, _, terminated, _, _ = env.step(np.zeros((4, 12)))
        assert not terminated.any()
    motion = env.measured
    assert np.abs(motion.base_velocity).max() < 0.05
    assert ((motion.base_position[:, 2] > 0.24) & (motion.base_position[:, 2] < 0.34)).all()
    weight = env.model.body_mass.sum() * 9.81
    np.testing.assert_allclose(motion.sensors["foot_force"].sum(1), weight, rtol=0.05)


def test_falls_when_the_legs_fold():
    env = nominal(2)
    fold = np.tile((GO2.rest - GO2.stand) / np.array(env.task.interface.action_scale), (2, 1))
    ended = np.zeros(2, bool)
    for _ in range(100):
        _, _, terminated, _, _ = env.step(fold)
        ended |= terminated
    assert ended.all()


def test_left_and_right_are_mirror_images():
    """Mirrored start and mirrored actions give the mirrored motion: model and frames agree."""
    env = nominal(2)
    qpos, qvel = env.sim.qpos, env.sim.qvel
    rng = np.random.default_rng(0)
    qpos[0, 7:] = GO2.stand + rng.uniform(-0.1, 0.1, 12)
    qpos[:, :7] = [0, 0, 0.36, 1, 0, 0, 0]
    qvel[:] = 0
    qpos[1, 7:] = qpos[0, 7:][MIRROR_LEGS] * MIRROR_SIGN
    for _ in range(25):
        action = rng.normal(0, 0.15, 12)
        env.step(np.stack([action, action[MIRROR_LEGS] * MIRROR_SIGN]))
    a, b = env.measured.position
    np.testing.assert_allclose(a[MIRROR_LEGS] * MIRROR_SIGN, b, atol=2e-3)
    va, vb = env.measured.base_velocity
    np.testing.assert_allclose(va * [1, -1, 1], vb, atol=1e-2)


def test_rotations_agree_with_mujoco():
    rng = np.random.default_rng(1)
    quaternion = rng.normal(size=(20, 4))
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    vector = rng.normal(size=(20, 3))
    matrix = np.zeros(9)
    for q, v, ours, gravity in zip(
        quaternion,
        vector,
        rotate_inverse(quaternion, vector),
        projected_gravity(quaternion),
        strict=True,
    ):
        mujoco.mju_quat2Mat(matrix, q)
        rotation = matrix.reshape(3, 3)
        np.testing.assert_allclose(ours, rotation.T @ v, atol=1e-12)
        np.testing.assert_allclose(gravity, rotation.T @ [0, 0, -1], atol=1e-12)


def test_observation_does_not_know_heading_or_place():
    env = nominal(2)
    env.hold_goal([0.5, 0.0, 0.0])
    for kind in (env.goal, env.memory, env.episode):
        for array in kind.values():
            array[1] = array[0]
    qpos = env.sim.qpos
    qpos[1] = qpos[0]
    env.sim.qvel[:] = 0
    qpos[0, 3:7], qpos[1, 3:7] = [1, 0, 0, 0], [np.cos(0.7), 0, 0, np.sin(0.7)]
    qpos[1, :2] += [3.0, -2.0]
    env.measured = env._measure()
    first, second = env._observe(slice(None))["observation"]
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_every_term_reaches_the_observation():
    env = nominal()
    terms = env.task.interface.terms
    assert {t.name for t in terms} <= {*TERMS, "goal.velocity"}
    assert env.reset(0).shape == (1, sum(t.size for t in terms))
    with pytest.raises(ValueError, match="'nose': unknown"):
        Terms((Term("nose", 1),))


def test_reward_prefers_the_commanded_velocity():
    env = nominal(3)
    env.hold_goal([0.5, 0.0, 0.0])
    motion = env.measured
    motion.base_velocity[:] = [[0.0, 0, 0], [0.5, 0, 0], [1.0, 0, 0]]
    step = Step(
        motion, motion, env.goal, env.memory, np.zeros((3, 12)), env.command, env.episode, env.steps
    )
    _, terms = env.task.reward(step)
    still, right, fast = terms["track_velocity"]
    assert right > still
    assert right > fast
    assert still == pytest.approx(fast)


@pytest.mark.parametrize("n", [1, 5])
def test_an_environment_is_the_same_alone_and_in_company(n):
    """Environment i seeded with s is environment 0 seeded with s + i, whatever N is."""
    many = BatchedEnv(Go2Velocity(), n, seed=7)
    alone = BatchedEnv(Go2Velocity(), 1, seed=7 + n - 1)
    many.reset(7)
    alone.reset(7 + n - 1)
    rng = np.random.default_rng(0)
    for _ in range(60):
        action = rng.normal(0, 1.5, (1, 12))
        obs_many, reward_many, *_ = many.step(np.repeat(action, n, 0))
        obs_alone, reward_alone, *_ = alone.step(action)
        assert np.array_equal(obs_many[-1], obs_alone[0])
        assert reward_many[-1] == reward_alone[0]


def test_seeds_give_different_environments_and_the_same_again():
    env = BatchedEnv(Go2Velocity(), 3, seed=1)
    first = env.reset(1)
    assert not np.array_equal(first[0], first[1])
    assert np.array_equal(first, env.reset(1))
    assert not np.array_equal(first, env.reset(100))


def test_saved_state_continues_bit_for_bit():
    rng = np.random.default_rng(0)
    actions = rng.normal(0, 1.2, (150, 6, 12))
    env = BatchedEnv(Go2Velocity(), 6, seed=3)
    env.reset(3)
    for action in actions[:75]:
        env.step(action)
    saved = {k: v.copy() for k, v in env.save_state().items()}
    expected = [env.step(action)[:4] for action in actions[75:]]
    assert any((e[2] | e[3]).any() for e in expected), "no reset in the compared part"
    other = BatchedEnv(Go2Velocity(), 6, seed=99)
    other.load_state(saved)
    for action, want in zip(actions[75:], expected, strict=True):
        got = other.step(action)[:4]
        for a, b in zip(got, want, strict=True):
            assert np.array_equal(a, b)


def test_randomised_physics_reaches_the_simulation():
    env = BatchedEnv(Go2Velocity(), 64, seed=0)
    base = env.sim._parts[0].base
    friction = env.sim._friction[:, env.sim._parts[0].feet, 0]
    assert 0.4 <= friction.min() < 0.5
    assert 1.1 < friction.max() < 1.2
    mass = env.sim._mass[:, base] - env.model.body_mass[base]
    assert mass.min() < -0.5
    assert mass.max() > 1.5
    assert set(env.sim.latency) == {0, 1, 2, 3}
    strength = env.sim._gain[:, 0, 0] / GO2.kp[0]
    assert strength.min() < 0.9
    assert strength.max() > 1.1


def test_latency_delays_the_motors():
    env = nominal(4)
    env.sim.latency[:] = [0, 1, 3, 4]
    before = env.sim.qpos[0, 7:].copy()
    env.sim.qpos[:, 7:], env.sim.qvel[:] = before, 0
    env.sim.qpos[:, :7] = [0, 0, 1.0, 1, 0, 0, 0]  # in the air: nothing but motors and gravity
    env.sim.ctrl[:] = before
    env.sim.step(hold(np.tile(before + 0.3, (4, 1)), GO2.kp, GO2.kd), 4)
    moved = np.abs(env.sim.qpos[:, 7:] - before).max(1)
    assert moved[0] > moved[1] > moved[2] > moved[3]
    assert np.array_equal(env.sim.ctrl[3, 0], before + 0.3), "it arrives with the next step"


def test_a_push_moves_only_those_due():
    task = Go2Velocity()
    due = round(task.push_seconds / task.control_dt)
    kick = task.push(np.array([due - 1, 3]), np.full((2, 2), 0.9))
    assert kick is not None
    assert np.abs(kick[0]).max() > 0.3
    assert (kick[1] == 0).all()
    assert Go2Velocity(randomise=False).push(np.array([due - 1]), np.ones((1, 2))) is None


def test_target_obeys_position_and_rate_limits():
    rng = np.random.default_rng(0)
    limits = GO2.limits
    previous = np.tile(GO2.stand, (100, 1))
    for _ in range(50):
        target = limit_target(limits, rng.normal(0, 10, (100, 12)), previous, 0.02)
        assert (target >= limits.lower).all()
        assert (target <= limits.upper).all()
        assert (np.abs(target - previous) <= limits.target_rate * 0.02 + 1e-12).all()
        previous = target


def test_streams_of_random_numbers_are_uniform_and_independent():
    seed, counter = np.arange(200, dtype=np.uint64), np.full(200, 5, np.int64)
    a, b = uniform(seed, counter, 500, 0), uniform(seed, counter, 500, 1)
    assert a.min() >= 0
    assert a.max() < 1
    assert a.mean() == pytest.approx(0.5, abs=0.005)
    assert a.var() == pytest.approx(1 / 12, abs=0.002)
    for other in (b, uniform(seed, counter + 1, 500, 0), np.roll(a, 1, 0), np.roll(a, 1, 1)):
        assert abs(np.corrcoef(a.ravel(), other.ravel())[0, 1]) < 0.015
    assert np.array_equal(a[3:4], uniform(seed[3:4], counter[3:4], 500, 0))


def test_bad_actions_are_refused():
    env = nominal(2)
    with pytest.raises(ValueError, match="shape"):
        env.step(np.zeros((3, 12)))
    with pytest.raises(ValueError, match="NaN"):
        env.step(np.full((2, 12), np.nan))
    with pytest.raises(ValueError, match="num_envs"):
        BatchedEnv(Go2Velocity(), 0)
