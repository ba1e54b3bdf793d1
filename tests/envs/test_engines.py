"""What holds for every physics engine, and that they are the same robot."""

import subprocess
import sys

import gymnasium as gym
import motoric.envs  # noqa: F401
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from motoric.control.command import MotorCommand, hold
from motoric.envs.batched import BatchedEnv
from motoric.envs.registry import ENGINES, make_batch
from motoric.envs.tasks.go2_velocity import Go2Velocity
from motoric.envs.vector import BatchedVectorEnv, BatchVecEnv
from motoric.hardware.specs.go2 import GO2
from stable_baselines3.common.env_checker import check_env as sb3_check

engines = pytest.mark.parametrize("engine", ENGINES)


def nominal(engine: str, n: int = 1, **options) -> BatchedEnv:
    return BatchedEnv(Go2Velocity(randomise=False, **options), n, engine=engine)


def held(target: np.ndarray) -> MotorCommand:
    return hold(target, GO2.kp, GO2.kd)


def weight(env: BatchedEnv) -> np.ndarray:
    """Mass of each robot with its payload, kg."""
    if env.sim.model is not None and hasattr(env.sim, "mass"):
        return env.sim.mass
    return env.sim.model.body_mass.sum() + env.sim.payload


@engines
def test_stands_still_on_zero_actions(engine):
    env = nominal(engine, 2)
    for _ in range(100):
        _, _, terminated, _, _ = env.step(np.zeros((2, 12)))
        assert not terminated.any()
    motion = env.measured
    assert np.abs(motion.base_velocity).max() < 0.05
    assert ((motion.base_position[:, 2] > 0.24) & (motion.base_position[:, 2] < 0.34)).all()
    assert np.abs(motion.sensors["foot_height"]).max() < 0.005
    np.testing.assert_allclose(motion.sensors["foot_force"].sum(1), weight(env) * 9.81, rtol=0.05)


@engines
def test_only_the_fallen_start_again(engine):
    env = nominal(engine, 2)
    action = np.zeros((2, 12))
    action[1] = (GO2.rest - GO2.stand) / np.array(env.task.interface.action_scale)
    for _ in range(100):
        *_, terminated, truncated, info = env.step(action)
        if terminated[1]:
            break
    assert terminated.tolist() == [False, True]
    assert not truncated.any()
    assert env.steps[1] == 0
    assert env.steps[0] == info["episode_length"][1] > 5
    assert env.measured.base_position[1, 2] == pytest.approx(GO2.base_height + 0.01, abs=1e-6)


@engines
def test_an_environment_is_the_same_alone_and_in_company(engine):
    many = BatchedEnv(Go2Velocity(), 2, seed=7, engine=engine)
    alone = BatchedEnv(Go2Velocity(), 1, seed=8, engine=engine)
    rng = np.random.default_rng(0)
    for _ in range(30):
        action = rng.normal(0, 1.5, (1, 12))
        observed, reward, *_ = many.step(np.repeat(action, 2, 0))
        observed_alone, reward_alone, *_ = alone.step(action)
        assert np.array_equal(observed[1], observed_alone[0])
        assert reward[1] == reward_alone[0]


@engines
def test_the_same_seed_gives_the_same_episode_again(engine):
    env = BatchedEnv(Go2Velocity(), 1, engine=engine)
    actions = np.random.default_rng(0).normal(0, 0.8, (20, 1, 12))
    first = [env.reset(5), *(env.step(action)[0] for action in actions)]
    again = [env.reset(5), *(env.step(action)[0] for action in actions)]
    assert np.array_equal(first, again)
    assert not np.array_equal(env.reset(6), first[0])


@engines
def test_saved_state_continues_bit_for_bit(engine):
    rng = np.random.default_rng(0)
    actions = rng.normal(0, 1.2, (90, 3, 12))
    actions[:, 0] *= 0.2
    env = BatchedEnv(Go2Velocity(), 3, seed=3, engine=engine)
    for action in actions[:30]:
        env.step(action)
    saved = {k: v.copy() for k, v in env.save_state().items()}
    expected = [env.step(action)[:4] for action in actions[30:]]
    assert any((e[2] | e[3]).any() for e in expected), "no reset in the compared part"
    other = BatchedEnv(Go2Velocity(), 3, seed=99, engine=engine)
    other.load_state(saved)
    for action, want in zip(actions[30:], expected, strict=True):
        for a, b in zip(other.step(action)[:4], want, strict=True):
            assert np.array_equal(a, b)


@engines
def test_latency_delays_the_motors(engine):
    env = nominal(engine, 4)
    env.sim.latency[:] = [0, 1, 3, 4]
    before = env.measured.position[0].copy()
    motion = env.measured
    motion.base_position[:, 2] = 1.0  # in the air: nothing but motors and gravity
    still = np.zeros((4, 6))
    pose = env.task.reset(np.full((4, 64), 0.5))[0]
    pose.base_position, pose.base_velocity = motion.base_position, still
    pose.position, pose.velocity = np.tile(before, (4, 1)), np.zeros((4, 12))
    physics = env.task.physics(np.zeros((4, 8)))
    physics.latency = np.array([0, 1, 3, 4])
    env.sim.reset(np.arange(4), pose, physics)
    env.sim.step(held(np.tile(before + 0.3, (4, 1))), 4)
    moved = np.abs(env.sim.measure().position - before).max(1)
    assert moved[0] > moved[1] > moved[2] > moved[3]
    env.sim.step(held(np.tile(before + 0.3, (4, 1))), 1)
    late = np.abs(env.sim.measure().position - before).max(1)[3]
    assert late > 1.5 * moved[3], "it arrives with the next step"


@engines
def test_physics_and_pushes_reach_the_robot(engine):
    env = nominal(engine, 2)
    pose = env.task.reset(np.full((2, 64), 0.5))[0]
    physics = env.task.physics(np.zeros((2, 8)))
    physics.payload[:] = [0.0, 2.0]
    physics.strength[:] = [1.0, 0.5]
    env.sim.reset(np.arange(2), pose, physics)
    light, heavy = weight(env)
    assert heavy - light == pytest.approx(2.0)
    env.sim.step(held(pose.position + 0.5), 1)
    full, half = np.abs(env.sim.measure().torque)
    np.testing.assert_allclose(half, 0.5 * full, rtol=0.2)
    env.sim.reset(np.arange(2), pose, physics)
    env.sim.push(np.array([[0.0, 0.0, 0.0], [0.3, -0.2, 0.0]]))
    np.testing.assert_allclose(
        env.sim.measure().base_velocity[:, :2], [[0, 0], [0.3, -0.2]], atol=1e-9
    )


@engines
def test_a_wrench_acts_until_a_row_begins_again_and_is_saved(engine):
    env, other = nominal(engine, 2), nominal(engine, 2)
    half = 0.5 * 9.81 * weight(env)[0]
    env.sim.wrench("base", np.tile([0, 0, half, 0, 0, 0], (2, 1)))
    stand = held(np.tile(GO2.stand, (2, 1)))
    env.sim.step(stand, 200)
    other.sim.load_state(env.sim.save_state())
    for sim in (env.sim, other.sim):
        sim.step(stand, 50)
    a, b = env.sim.measure(), other.sim.measure()
    np.testing.assert_array_equal(a.position, b.position)
    np.testing.assert_allclose(a.sensors["foot_force"].sum(1), half, rtol=0.05)
    start, physics = env.task.reset(np.full((1, 64), 0.5))[0], env.task.physics(np.zeros((1, 8)))
    env.sim.reset(np.array([0]), start, physics)
    env.sim.step(stand, 300)
    force = env.sim.measure().sensors["foot_force"].sum(1)
    np.testing.assert_allclose(force, [2 * half, half], rtol=0.05)
    with pytest.raises(ValueError, match=r"wrench: .*'wing'"):
        env.sim.wrench("wing", np.zeros((2, 6)))


def test_engines_agree_while_nothing_touches():
    """A second in the air under the same targets: the same joints, within their steps' error."""
    paths = {}
    for engine in ENGINES:
        env = nominal(engine)
        pose = env.task.reset(np.full((1, 64), 0.3))[0]
        pose.base_position[:, 2] = 8.0
        env.sim.reset(np.zeros(1, np.int64), pose, env.task.physics(np.zeros((1, 8))))
        path = []
        for i in range(50):
            env.sim.step(held(GO2.stand + 0.4 * np.sin(0.3 * i + np.arange(12))[None]), 4)
            path.append(env.sim.measure())
        paths[engine] = path
    for a, b in zip(paths["mujoco"], paths["pybullet"], strict=True):
        np.testing.assert_allclose(a.position, b.position, atol=0.05)
        np.testing.assert_allclose(a.base_position, b.base_position, atol=0.01 + 0.02)
        assert abs(np.sum(a.orientation * b.orientation)) > 0.999


def test_gymnasium_and_stable_baselines3_accept_pybullet():
    env = gym.make("motoric/go2_velocity", engine="pybullet")
    gymnasium_check(env.unwrapped, skip_render_check=True)
    sb3_check(gym.make("motoric/go2_velocity", engine="pybullet").unwrapped)


def test_pybullet_as_a_vector():
    name, mode = "motoric/go2_velocity", "vector_entry_point"
    envs = gym.make_vec(name, num_envs=2, vectorization_mode=mode, engine="pybullet")
    assert isinstance(envs.unwrapped, BatchedVectorEnv)
    obs, _ = envs.reset(seed=5)
    single, _ = gym.make(name, engine="pybullet").reset(seed=6)
    assert np.array_equal(obs[1], single)
    vec = BatchVecEnv(make_batch("go2_velocity", 2, 5, "pybullet"))
    vec.seed(5)
    assert np.array_equal(vec.reset(), obs)


def test_unfitting_engines_are_named():
    with pytest.raises(ValueError, match="'dart', go2_velocity runs in mujoco, pybullet only"):
        nominal("dart")
    with pytest.raises(ValueError, match="num_envs: 5000, expected at most"):
        nominal("pybullet", 5000)
    with pytest.raises(ValueError, match="engine: 'pybullet', but Pendulum-v1 is not"):
        make_batch("Pendulum-v1", 1, 0, "pybullet")


def test_tasks_import_no_engine():
    code = (
        "import sys, motoric.envs.tasks.go2_velocity, motoric.envs.registry, motoric.envs.batched\n"
        "print([m for m in ('mujoco', 'mjbatch', 'pybullet') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
