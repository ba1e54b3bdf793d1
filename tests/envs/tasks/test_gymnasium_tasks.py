"""HalfCheetah and Ant, many at a time, against Gymnasium's own, step for step."""

from __future__ import annotations

import gymnasium as gym
import motoric.envs  # noqa: F401
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from motoric.envs.batched import BatchedEnv
from motoric.envs.registry import make_batch, make_task
from motoric.envs.tasks.ant import Ant
from motoric.envs.tasks.half_cheetah import HalfCheetah
from motoric.envs.vector import BatchedVectorEnv, BatchVecEnv
from scipy.stats import kstest
from stable_baselines3 import PPO

NAMES = {HalfCheetah.id: "half_cheetah", Ant.id: "ant"}
IDS = list(NAMES)
OPTIONS = {
    "HalfCheetah-v5": {"forward_reward_weight": 2.0, "ctrl_cost_weight": 0.3},
    "Ant-v5": {"forward_reward_weight": 2.0, "ctrl_cost_weight": 0.1, "contact_cost_weight": 0.3,
               "healthy_reward": 0.5, "terminate_when_unhealthy": False},
}  # fmt: skip


def batch(name: str, n: int, threads: int = 2, **options) -> BatchedEnv:
    return BatchedEnv(make_task(NAMES[name], options), n, 0, threads)


def twin(name: str, env: BatchedEnv, i: int, **options):
    """Gymnasium's own environment, where number i has just begun."""
    own = gym.make(name, **options)
    own.reset(seed=0)
    inner = own.unwrapped
    inner.set_state(env.measured.position[i], env.measured.velocity[i])
    return own, inner._get_obs()


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("changed", [False, True])
def test_it_is_gymnasiums_step_for_step(name, changed):
    """Whole episodes: observations to the last bit of float32, rewards of float64 but for the
    order of sums, and the same ends."""
    options = OPTIONS[name] if changed else {}
    n, steps = 5, 150 if changed else 1005
    env, rng = batch(name, n, **options), np.random.default_rng(0)
    twins = [twin(name, env, i, **options) for i in range(n)]
    own = [t[0] for t in twins]
    np.testing.assert_array_equal(env.reset(0), np.array([t[1] for t in twins], np.float32))
    returns, ends = np.zeros(n), 0
    for _ in range(steps):
        action = rng.uniform(-1.2, 1.2, (n, env.action_space.shape[0])).astype(np.float32)
        obs, reward, terminated, truncated, info = env.step(action)
        last = obs if info["final_obs"] is None else info["final_obs"]
        for i in range(n):
            theirs, r, over, timeout, _ = own[i].step(action[i].astype(float))
            np.testing.assert_array_equal(last[i], theirs.astype(np.float32))
            assert reward[i] == pytest.approx(float(r), abs=1e-11)
            assert (terminated[i], truncated[i]) == (over, timeout and not over)
            returns[i] += float(r)
            if over or timeout:
                assert info["episode_return"][i] == pytest.approx(returns[i])
                ends, returns[i] = ends + 1, 0.0
                own[i], start = twin(name, env, i, **options)
                np.testing.assert_array_equal(obs[i], start.astype(np.float32))
    assert ends >= n or changed


@pytest.mark.parametrize("name", IDS)
def test_it_begins_as_gymnasiums_does(name):
    env, own = batch(name, 2000), gym.make(name).unwrapped
    first = env.reset(1)
    theirs = []
    own.np_random = np.random.default_rng(0)
    for _ in range(200):
        own.reset()
        theirs.append(np.concatenate([own.data.qpos, own.data.qvel]))
    model, start = own.model, env.measured
    position, velocity = (start.position - model.qpos0) / 0.1, start.velocity / 0.1
    free = [j for j in range(model.nq) if name != "Ant-v5" or j not in (3, 4, 5, 6)]
    for j in free:
        assert kstest(position[:, j], "uniform", (-1, 2)).pvalue > 1e-4
    for j in range(model.nv):
        assert kstest(velocity[:, j], "norm").pvalue > 1e-4
    ours = np.hstack([start.position, start.velocity])
    np.testing.assert_allclose(np.mean(theirs, 0), ours.mean(0), atol=0.05)
    np.testing.assert_allclose(np.std(theirs, 0), ours.std(0), atol=0.03)
    assert np.abs(np.corrcoef(ours[:, free].T) - np.eye(len(free))).max() < 0.12
    assert not np.array_equal(first, env.reset())


@pytest.mark.parametrize("name", IDS)
def test_one_is_as_many_and_goes_on_from_a_saved_state(name):
    many, one, rng = batch(name, 6), batch(name, 1, 1), np.random.default_rng(3)
    np.testing.assert_array_equal(many.reset(40)[2:3], one.reset(42))
    for k in range(30):
        if k == 20:
            saved = many.save_state()
            other = batch(name, 6, 1)
            other.load_state(saved)
        action = rng.uniform(-1, 1, (6, many.action_space.shape[0]))
        obs, reward, *_ = many.step(action)
        np.testing.assert_array_equal(obs[2:3], one.step(action[2:3])[0])
        if k >= 20:
            again = other.step(action)
            np.testing.assert_array_equal(again[0], obs)
            np.testing.assert_array_equal(again[1], reward)
    with pytest.raises(ValueError, match="saved with 6"):
        one.load_state(saved)


def test_a_wrong_action_is_said():
    env = batch("HalfCheetah-v5", 2)
    with pytest.raises(ValueError, match=r"shape \(2, 5\)"):
        env.step(np.zeros((2, 5)))
    with pytest.raises(ValueError, match="NaN"):
        env.step(np.full((2, 6), np.nan))


@pytest.mark.parametrize("name", IDS)
def test_through_gymnasium_and_stable_baselines3(name):
    envs = gym.make_vec(
        f"motoric/{NAMES[name]}", num_envs=3, vectorization_mode="vector_entry_point"
    )
    assert isinstance(envs.unwrapped, BatchedVectorEnv)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    obs, _ = envs.reset(seed=5)
    assert envs.observation_space.contains(obs)
    own = gym.make(name)
    assert envs.single_action_space == own.action_space
    assert envs.single_observation_space.shape == own.observation_space.shape
    check_env(gym.make(f"motoric/{NAMES[name]}").unwrapped, skip_render_check=True)
    batched = make_batch(name, 4, num_threads=1)
    assert isinstance(batched, BatchedEnv)
    vec = BatchVecEnv(batched)
    PPO("MlpPolicy", vec, n_steps=8, batch_size=32, device="cpu").learn(64)
    for _ in range(40 if name == "Ant-v5" else 0):  # an end comes with its last observation
        _, _, done, infos = vec.step(np.ones((4, 8)))
        for i in np.flatnonzero(done):
            assert infos[i]["terminal_observation"].shape == (105,)


def test_options_only_gymnasium_knows_take_its_own():
    own = make_batch("Ant-v5", 2, options={"include_cfrc_ext_in_observation": False})
    assert own.observation_space.shape == (27,)
    assert isinstance(make_batch("Ant-v5", 2, options={"healthy_reward": 2.0}), BatchedEnv)
    with pytest.raises(ValueError, match="can't be made with"):
        make_batch("HalfCheetah-v5", 1, options={"nonsense": 1})
