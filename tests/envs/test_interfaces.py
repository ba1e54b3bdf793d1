"""The same environments through Gymnasium and stable-baselines3."""

import gymnasium as gym
import motoric.envs  # noqa: F401
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from gymnasium.vector import AutoresetMode
from motoric.envs.batched import BatchedEnv
from motoric.envs.registry import make_batch
from motoric.envs.tasks.go2_velocity import Go2Velocity
from motoric.envs.vector import BatchedVectorEnv, BatchVecEnv
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check


def test_gymnasium_accepts_it():
    env = gym.make("motoric/go2_velocity")
    gymnasium_check(env.unwrapped, skip_render_check=True)


def test_stable_baselines3_accepts_it():
    sb3_check(gym.make("motoric/go2_velocity").unwrapped)


def test_made_as_a_vector_it_is_the_batched_one():
    name, mode = "motoric/go2_velocity", "vector_entry_point"
    envs = gym.make_vec(name, num_envs=3, vectorization_mode=mode)
    assert isinstance(envs.unwrapped, BatchedVectorEnv)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    obs, _ = envs.reset(seed=5)
    single, _ = gym.make("motoric/go2_velocity").reset(seed=6)
    assert np.array_equal(obs[1], single)
    assert envs.observation_space.contains(obs)


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
def test_without_a_seed_every_one_is_another(make):
    """And a reset without one goes on where the last episode ended, as Gymnasium has it."""
    one, two = (make("motoric/go2_velocity") for _ in range(2))
    first = one.reset()[0]
    assert not np.array_equal(first, two.reset()[0])
    assert not np.array_equal(first, one.reset()[0])
    again = one.reset(seed=3)[0], one.reset()[0]
    assert np.array_equal(two.reset(seed=3)[0], again[0])
    assert np.array_equal(two.reset()[0], again[1])


def short(n: int) -> BatchVecEnv:
    return BatchVecEnv(BatchedEnv(Go2Velocity(randomise=False, episode_seconds=0.2), n))


def test_time_limit_is_truncation_with_the_final_observation():
    vec, twin = short(2), BatchedEnv(Go2Velocity(randomise=False), 2)  # the twin runs on
    vec.seed(4)
    assert np.array_equal(vec.reset(), twin.reset(4))
    for step in range(10):
        obs, reward, done, infos = vec.step(np.zeros((2, 12)))
        kept, kept_reward, *_ = twin.step(np.zeros((2, 12)))
        np.testing.assert_array_equal(reward, kept_reward.astype(np.float32))
        assert done.all() == (step == 9)
    for i, info in enumerate(infos):
        assert info["TimeLimit.truncated"] is True
        assert np.array_equal(info["terminal_observation"], kept[i])
        assert info["episode"]["l"] == 10
        assert not np.array_equal(obs[i], kept[i])
    assert infos[0]["episode"]["r"] == pytest.approx(twin.returns[0])


def test_a_fall_is_termination():
    task = Go2Velocity(randomise=False)
    fold = np.tile(
        (task.robot.rest - task.robot.stand) / np.array(task.interface.action_scale), (1, 1)
    )
    vec, gymnasium = (
        BatchVecEnv(BatchedEnv(task, 1)),
        BatchedVectorEnv("go2_velocity", 1, randomise=False),
    )
    vec.reset()
    gymnasium.reset(seed=0)
    for _ in range(100):
        _, _, done, infos = vec.step(fold)
        if done[0]:
            break
    assert infos[0]["TimeLimit.truncated"] is False
    for _ in range(100):
        obs, _, terminated, truncated, info = gymnasium.step(fold)
        if terminated[0]:
            break
    assert not truncated[0]
    assert info["_final_obs"][0]
    assert not np.array_equal(info["final_obs"][0], obs[0])


def test_only_the_fallen_start_again():
    env = BatchedEnv(Go2Velocity(randomise=False), 3)
    action = np.zeros((3, 12))
    action[1] = (env.task.robot.rest - env.task.robot.stand) / np.array(
        env.task.interface.action_scale
    )
    for _ in range(100):
        *_, terminated, _, info = env.step(action)
        if terminated[1]:
            break
    assert terminated.tolist() == [False, True, False]
    assert env.steps[1] == 0
    assert env.steps[0] == env.steps[2] == info["episode_length"][1] > 5


def test_gymnasium_ids_and_unknown_names():
    vec = BatchVecEnv(make_batch("Pendulum-v1", 2))
    assert vec.num_envs == 2
    with pytest.raises(ValueError, match="neither a task"):
        make_batch("NoSuchThing-v9", 1)


def test_ppo_runs_on_it():
    model = PPO(
        "MlpPolicy",
        BatchVecEnv(make_batch("go2_velocity", 8)),
        n_steps=8,
        batch_size=64,
        device="cpu",
    )
    model.learn(128)
    assert model.num_timesteps == 128
