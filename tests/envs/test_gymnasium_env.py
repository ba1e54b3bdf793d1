"""Any Gymnasium environment through the one face of all environments."""

from __future__ import annotations

import gymnasium as gym
import motoric.envs  # noqa: F401
import numpy as np
import pytest
from gymnasium import spaces
from motoric.envs.registry import make_batch
from motoric.envs.vector import BatchVecEnv

BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
IMAGE = spaces.Box(0, 255, (8, 8, 3), np.uint8)


class Toy(gym.Env):
    """Counts its steps, and draws a number when it begins; what it sees and does is said."""

    def __init__(self, observed=BOX, acted=BOX, bad=None, ends=4, dt=None, render_mode=None):
        self.observation_space, self.action_space = observed, acted
        self.bad, self.ends, self.render_mode = bad, ends, render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
        if dt is not None:
            self.dt = dt
        self.seeds, self.actions = [], []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.count, self.luck = 0, float(self.np_random.uniform())
        return self.see(), {}

    def see(self):
        space = self.observation_space
        if space is BOX:
            second = np.nan if self.bad == "observation" and self.count == 2 else self.count / 10
            return np.array([self.luck, second], np.float32)
        if isinstance(space, spaces.Dict):
            return {"eye": np.full((8, 8, 3), self.count, np.uint8), "place": self.count % 3}
        return space.sample()

    def step(self, action):
        self.actions.append(action)
        self.count += 1
        over = self.count == self.ends
        reward = np.inf if self.bad == "reward" and self.count == 2 else 1.0
        info = {"is_success": self.luck > 0.5} if over else {}
        return self.see(), reward, over, over, info

    def render(self):
        return np.full((4, 4, 3), int(255 * self.luck), np.uint8)


@pytest.fixture(autouse=True)
def _registered():
    gym.register("Toy-v0", Toy, disable_env_checker=True, order_enforce=False)
    yield
    gym.registry.pop("Toy-v0")


def toys(n: int = 2, seed: int = 3, **options):
    return make_batch("Toy-v0", n, seed, options=options)


ZERO = np.zeros((2, 2))


def test_it_is_gymnasiums_own_with_autoreset_in_the_same_step():
    batch, own = make_batch("Pendulum-v1", 2, 5), [gym.make("Pendulum-v1") for _ in range(2)]
    assert batch.control_dt == pytest.approx(own[0].unwrapped.dt)
    first = batch.reset(5)
    np.testing.assert_array_equal(first, [env.reset(seed=5 + i)[0] for i, env in enumerate(own)])
    rng, total = np.random.default_rng(0), 0.0
    for step in range(1, 206):
        action = rng.uniform(-2, 2, (2, 1))
        obs, reward, terminated, truncated, info = batch.step(action)
        theirs = [env.step(a.astype(np.float32)) for env, a in zip(own, action, strict=True)]
        total = total + reward
        np.testing.assert_array_equal(reward, [t[1] for t in theirs])
        assert truncated.all() == (step == 200)
        assert not terminated.any()
        if step == 200:
            np.testing.assert_array_equal(info["final_obs"], [t[0] for t in theirs])
            np.testing.assert_allclose(info["episode_return"], total)
            assert info["episode_length"].tolist() == [200, 200]
            theirs = [(env.reset()[0],) for env in own]
        np.testing.assert_array_equal(obs, [t[0] for t in theirs])


def test_it_goes_on_without_a_seed_and_again_with_one():
    batch = toys()
    first = batch.reset(3)
    np.testing.assert_array_equal(batch.reset(), first, err_msg="nothing was done yet")
    batch.step(ZERO)
    assert not np.array_equal(batch.reset(), first)
    np.testing.assert_array_equal(batch.reset(3), first)
    np.testing.assert_array_equal(batch.reset(4)[0], first[1])


def test_seeds_are_such_as_all_environments_take():
    batch = toys(2, 2**40 + 2**31 - 1)
    assert [env.unwrapped.seeds[-1] for env in batch.envs] == [2**31 - 1, 0]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("observation", r"Toy-v0, environment 0, step 2: observation \[1\] is nan"),
        ("reward", "Toy-v0, environment 0, step 2: reward is inf"),
    ],
)
def test_what_is_not_finite_is_told(bad, words):
    batch = toys(bad=bad)
    batch.step(ZERO)
    with pytest.raises(ValueError, match=words):
        batch.step(ZERO)


@pytest.mark.parametrize(
    ("space", "action", "expected"),
    [
        (spaces.Discrete(3), np.array([2, 0]), 2),
        (spaces.Discrete(3), np.array([[2], [0]]), 2),
        (spaces.MultiDiscrete([3, 4]), np.array([[2, 1], [0, 0]]), [2, 1]),
        (spaces.MultiBinary(2), np.array([[1, 0], [0, 0]]), [1, 0]),
        (BOX, np.array([[0.5, -1.0], [0, 0]]), [0.5, -1.0]),
    ],
)
def test_actions_of_every_space(space, action, expected):
    batch = toys(acted=space)
    batch.step(action)
    got = batch.envs[0].unwrapped.actions[-1]
    assert np.array_equal(got, expected)
    assert space.contains(got)
    with pytest.raises(ValueError, match="action: shape"):
        batch.step(np.concatenate([action, action]))


def test_not_a_number_is_no_action():
    with pytest.raises(ValueError, match="action: holds NaN"):
        toys().step(np.full((2, 2), np.nan))


def test_dicts_and_images_are_stacked_by_name():
    observed = spaces.Dict({"eye": IMAGE, "place": spaces.Discrete(3)})
    batch = toys(observed=observed)
    assert batch.observation_space == observed
    for _ in range(4):
        seen, *_, info = batch.step(ZERO)
    assert seen["eye"].shape == (2, 8, 8, 3)
    assert seen["eye"].dtype == np.uint8
    assert info["final_obs"]["eye"].max() == 4
    assert seen["eye"].max() == 0, "of the new episode"
    vec = BatchVecEnv(batch)
    for _ in range(4):
        *_, done, infos = vec.step(ZERO)
    assert done.all()
    assert infos[1]["terminal_observation"]["eye"].shape == (8, 8, 3)
    assert infos[1]["TimeLimit.truncated"] is False, "both at once is an end"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"observed": spaces.Tuple([BOX])}, "'Toy-v0' is observed in a Tuple, expected Box"),
        ({"observed": spaces.Dict({"a": spaces.Dict({"b": BOX})})}, "observed in a Dict, expected"),
        ({"acted": spaces.Dict({"b": BOX})}, "acted on in a Dict, expected Box"),
        ({"nose": 1}, "'Toy-v0' can't be made with .*nose"),
        ({"episode_seconds": "long"}, "episode_seconds: 'long', expected a time"),
        ({"episode_seconds": -1.0}, "episode_seconds: -1.0, expected a time"),
    ],
)
def test_what_does_not_fit_is_one_line(options, words):
    with pytest.raises(ValueError, match=words) as caught:
        toys(**options)
    assert "\n" not in str(caught.value)


def test_unknown_ids_are_one_line():
    for name in ("NoSuchThing-v9", "no_module:Thing-v0", "Pendulum"):
        with pytest.raises(ValueError, match=r"neither a task .* nor a Gymnasium id") as caught:
            make_batch(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="num_envs: 0, expected at least 1"):
        toys(0)


def test_a_time_limit_of_its_own():
    batch = toys(ends=100, episode_seconds=0.2)  # of 20 pictures a second
    assert batch.control_dt == pytest.approx(0.05)
    for step in range(1, 5):
        *_, terminated, truncated, _ = batch.step(ZERO)
        assert truncated.all() == (step == 4)
    assert not terminated.any()
    assert toys(dt=0.01).control_dt == pytest.approx(0.01)
    assert toys(dt=lambda: 1).control_dt == pytest.approx(0.05), "not a time"


def test_success_is_a_metric_of_those_that_say_it():
    batch = toys(8)
    assert batch.metrics == ()
    luck = np.array([env.unwrapped.luck for env in batch.envs])
    for _ in range(4):
        *_, info = batch.step(np.zeros((8, 2)))
    assert [metric.name for metric in batch.metrics] == ["success"]
    assert info["metrics"]["success"].tolist() == (luck > 0.5).tolist()
    assert 0 < info["metrics"]["success"].sum() < 8


def test_a_picture_begins_where_the_batch_does():
    batch = toys()
    first = batch.reset(3)
    assert batch.render().mean() == int(255 * first[0, 0])
    obs, *_ = batch.step(ZERO)
    assert obs[0].tolist() == [first[0, 0], pytest.approx(0.1)]


def test_goals_and_states_it_has_none_of():
    batch = toys()
    assert batch.goals == ()
    assert batch.save_state() is None
    batch.hold_goal(None)
    with pytest.raises(ValueError, match="Toy-v0 has no goal to set"):
        batch.hold_goal([1.0])
