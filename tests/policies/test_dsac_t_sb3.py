"""DSAC-T on stable-baselines3's contract: spaces, VecEnvs, saving, resuming, callbacks."""

import copy
import pickle
import random
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from motoric.policies.dsac_t import DSACT, DSACTPolicy
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import IdentityEnvBox, SimpleMultiObsEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import LinearSchedule, set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

SMALL = {"net_arch": [32, 32]}


class DictTask(gym.Env):
    """Two vectors and a flag to observe; the reward is for matching one of them."""

    observation_space = spaces.Dict(
        {
            "goal": spaces.Box(-1, 1, (2,), np.float32),
            "noise": spaces.Box(-1, 1, (3,), np.float32),
            "flag": spaces.Discrete(2),
        }
    )
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def observe(self):
        self.goal = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        noise = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return {"goal": self.goal, "noise": noise, "flag": int(self.np_random.integers(2))}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def step(self, action):
        self.t += 1
        reward = -float(np.square(action - self.goal).sum())
        return self.observe(), reward, False, self.t >= 20, {}


def make_model(env: GymEnv | str = "Pendulum-v1", **kwargs) -> DSACT:
    defaults: dict[str, Any] = {
        "learning_starts": 50,
        "train_freq": 4,
        "buffer_size": 2_000,
        "batch_size": 32,
        "policy_kwargs": SMALL,
        "seed": 0,
        "device": "cpu",
    }
    return DSACT("MlpPolicy", env, **(defaults | kwargs))


def state(model: DSACT) -> dict[str, th.Tensor]:
    """Every learned tensor, optimizer states included, by name."""
    tensors = dict(model.policy.state_dict())
    for name in ("actor.optimizer", "critic.optimizer", "alpha_optimizer"):
        moments = model.get_parameters()[name]["state"]
        tensors |= {f"{name}.{i}.{k}": v for i, s in moments.items() for k, v in s.items()}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def assert_identical(a: dict[str, th.Tensor], b: dict[str, th.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not th.equal(a[name], b[name])]
    assert not different


def observations(model: DSACT, n: int = 10) -> np.ndarray:
    return np.array([model.observation_space.sample() for _ in range(n)])


# Runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"critic_loss": "huber"},
        {"n_steps": 3},
        {"gradient_steps": 3},
        {"gradient_steps": -1},
        {"gradient_steps": 0},
        {"train_freq": (1, "episode"), "gradient_steps": 2},
        {"warmup": "uniform"},
        {"policy_delay": 1},
        {"twin_critics": False, "expected_value_target": False, "variance_adjustment": False},
        {"action_noise": NormalActionNoise(np.zeros(1), 0.1 * np.ones(1))},
        {"learning_rate": LinearSchedule(1e-3, 1e-5, 1.0), "actor_learning_rate": 1e-4},
        {
            "optimize_memory_usage": True,
            "replay_buffer_kwargs": {"handle_timeout_termination": False},
        },
        {"policy_kwargs": {"net_arch": {"pi": [8], "qf": [16, 16]}, "activation_fn": th.nn.ReLU}},
        {"policy_kwargs": {"net_arch": [16], "optimizer_class": th.optim.SGD}},
    ],
    ids=str,
)
def test_options_run(kwargs):
    model = make_model(**kwargs).learn(420)
    trained = kwargs.get("gradient_steps") != 0
    assert (model._n_updates > 0) == trained
    if trained:
        assert all(t.isfinite().all() for t in state(model).values())
    action, _ = model.predict(observations(model))
    assert action.shape == (10, 1)
    assert (np.abs(action) <= 2.0).all()


def test_updates_per_step():
    for kwargs, updates in [
        ({"train_freq": 4}, 25),
        ({"train_freq": 4, "gradient_steps": 3}, 75),
        ({"train_freq": 4, "gradient_steps": -1}, 100),
        ({"train_freq": (1, "episode"), "gradient_steps": -1}, 200),
    ]:
        model = make_model(learning_starts=100, **kwargs).learn(200)
        assert model._n_updates == updates, kwargs


def test_learning_rates_follow_their_schedules():
    model = make_model(
        learning_rate=LinearSchedule(1e-3, 0.0, 1.0),
        actor_learning_rate=5e-4,
        alpha_learning_rate=LinearSchedule(1e-2, 0.0, 1.0),
    ).learn(200)
    assert model.critic.optimizer.param_groups[0]["lr"] < 1e-4
    assert model.actor.optimizer.param_groups[0]["lr"] == 5e-4
    assert model.alpha_optimizer.param_groups[0]["lr"] < 1e-3


@pytest.mark.parametrize(("n_envs", "gradient_steps"), [(1, 1), (3, 1), (64, -1), (64, 5)])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_several_environments(n_envs, gradient_steps, n_steps):
    env = make_vec_env("Pendulum-v1", n_envs=n_envs)
    model = make_model(
        env, train_freq=1, gradient_steps=gradient_steps, n_steps=n_steps, learning_starts=n_envs
    )
    model.learn(4 * n_envs)
    assert model.num_timesteps == 4 * n_envs
    per_call = n_envs if gradient_steps == -1 else gradient_steps
    assert model._n_updates == 3 * per_call
    action, _ = model.predict(env.reset())  # type: ignore[arg-type]
    assert action.shape == (n_envs, 1)


@pytest.mark.parametrize("n_envs", [1, 2])
def test_dict_observations(n_envs, tmp_path):
    env = make_vec_env(DictTask, n_envs=n_envs, seed=0)
    kwargs = {"policy_kwargs": SMALL, "seed": 0, "device": "cpu", "learning_starts": 100}
    model = DSACT("MultiInputPolicy", env, train_freq=8, **kwargs).learn(300)
    assert model._n_updates > 0
    model.save(tmp_path / "model")
    loaded = DSACT.load(tmp_path / "model", env=env, device="cpu")
    assert_identical(state(model), state(loaded))
    obs = env.reset()
    expected, _ = model.predict(obs, deterministic=True)  # type: ignore[arg-type]
    action, _ = loaded.predict(obs, deterministic=True)  # type: ignore[arg-type]
    assert np.array_equal(expected, action)
    assert expected.shape == (n_envs, 2)


def test_image_in_a_dict_trains_both_features_extractors():
    env = SimpleMultiObsEnv(num_col=2, num_row=2, random_start=False, discrete_actions=False)
    model = DSACT(
        "MultiInputPolicy",
        env,
        buffer_size=200,
        learning_starts=20,
        train_freq=20,
        batch_size=8,
        policy_kwargs=SMALL | {"features_extractor_kwargs": {"cnn_output_dim": 8}},
        device="cpu",
    )
    before = copy.deepcopy(model.policy.state_dict())
    model.learn(61)
    assert model._n_updates > 0
    after = model.policy.state_dict()
    extractors = [name for name in before if "features_extractor" in name and "weight" in name]
    for network in ("actor.", "actor_target.", "critic.", "critic_target."):
        names = [name for name in extractors if name.startswith(network)]
        assert names
        assert all(not th.equal(before[name], after[name]) for name in names)


def test_unbounded_or_discrete_actions_are_refused():
    with pytest.raises(AssertionError, match="action"):
        make_model("CartPole-v1")


# Learning -----------------------------------------------------------------------------------


def test_learns_the_identity():
    env = DummyVecEnv([lambda: IdentityEnvBox(eps=0.5)])
    model = DSACT(
        "MlpPolicy",
        env,
        learning_rate=1e-3,
        alpha_learning_rate=1e-3,
        log_alpha_init=-2.0,
        gamma=0.0,
        learning_starts=200,
        warmup="uniform",
        train_freq=1,
        batch_size=64,
        policy_kwargs=SMALL,
        seed=0,
        device="cpu",
    )
    model.learn(1_200)
    mean_reward, _ = evaluate_policy(model, env, n_eval_episodes=5)
    assert np.mean(mean_reward) > 90  # of 100 steps


@pytest.mark.slow
def test_learns_pendulum():
    """Swings up in 6 k steps: -150 is solved, -1200 is untrained, -400 the bar.

    At this discount seeds 0, 1 and 2 are alike (-246, -247, -194); at 0.99 they take longer.

    Fails when targets don't follow (-1309) or the actor climbs the wrong way (-1742). Finer faults,
    such as the entropy term's sign, it doesn't see: test_dsac_t_math.py holds the equations.
    """
    model = DSACT(
        "MlpPolicy",
        "Pendulum-v1",
        learning_rate=1e-3,
        alpha_learning_rate=1e-3,
        log_alpha_init=0.0,
        gamma=0.95,
        learning_starts=500,
        train_freq=1,
        policy_kwargs={"net_arch": [64, 64]},
        seed=0,
        device="cpu",
    )
    model.learn(6_000)
    mean_reward, _ = evaluate_policy(model, make_vec_env("Pendulum-v1", 20, seed=1), 20)
    assert np.mean(mean_reward) > -400


# Reproducibility and checkpoints ------------------------------------------------------------


def test_the_same_seed_gives_the_same_run_bit_for_bit():
    runs = [state(make_model(seed=seed).learn(300)) for seed in (3, 3, 4)]
    assert_identical(runs[0], runs[1])
    assert not th.equal(runs[0]["actor.net.0.weight"], runs[2]["actor.net.0.weight"])


def test_save_and_load(tmp_path):
    model = make_model(n_steps=2, reward_scale=0.5, critic_loss="huber").learn(300)
    obs = observations(model)
    expected, _ = model.predict(obs, deterministic=True)
    model.save(tmp_path / "model.zip")
    for device in ("cpu", th.device("cpu"), "auto"):
        loaded = DSACT.load(tmp_path / "model.zip", device=device)
        assert_identical(state(model), state(loaded))
        assert np.array_equal(expected, loaded.predict(obs, deterministic=True)[0])
        for name in ("reward_scale", "critic_loss", "log_scale", "target_entropy", "_n_updates"):
            assert getattr(loaded, name) == getattr(model, name)
    # loaded networks are the ones that are trained, targets included
    loaded = DSACT.load(tmp_path / "model.zip", env=model.env, device="cpu")
    loaded.learn(120)
    assert loaded._n_updates > model._n_updates
    before, after = state(model), state(loaded)
    moving = [name for name in before if name.startswith(("actor", "critic"))]
    assert not [n for n in moving if th.equal(before[n], after[n]) and "bias" not in n]


def test_the_policy_alone_can_be_saved(tmp_path):
    model = make_model(policy_kwargs={"net_arch": [8, 8], "log_std_max": 0.0}).learn(100)
    model.policy.save(tmp_path / "policy.pt")
    policy = DSACTPolicy.load(tmp_path / "policy.pt", device="cpu")
    obs = observations(model)
    assert np.array_equal(
        policy.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0]
    )


def test_parameters_can_be_read_and_set(tmp_path):
    model, other = make_model().learn(200), make_model(seed=1).learn(100)
    parameters = copy.deepcopy(model.get_parameters())
    names = parameters["policy"]
    assert "running_sigma" in names
    assert "log_alpha" in names
    for network in ("actor", "actor_target", "critic", "critic_target"):
        assert any(name.startswith(network + ".") for name in names)
    other.set_parameters(parameters)
    assert_identical(state(model), state(other))
    model.save(tmp_path / "model")
    third = make_model(seed=2)
    third.set_parameters(str(tmp_path / "model"))
    assert_identical(state(model), state(third))

    incomplete = {name: value for name, value in parameters.items() if name != "policy"}
    with pytest.raises(ValueError, match="Names of parameters do not match"):
        other.set_parameters(incomplete)
    other.set_parameters(incomplete, exact_match=False)
    with pytest.raises(ValueError, match="invalid object name"):
        other.set_parameters(parameters | {"no_such_module": {}}, exact_match=False)
    del parameters["policy"]["running_sigma"]
    with pytest.raises(RuntimeError, match="running_sigma"):
        other.set_parameters(parameters)


def test_a_resumed_run_continues_bit_for_bit(tmp_path):
    """Checkpoint, replay buffer and random states are the whole state of a run."""
    uninterrupted = make_model(train_freq=1).learn(301)
    uninterrupted_env = uninterrupted.env
    uninterrupted.learn(140, reset_num_timesteps=False)
    assert uninterrupted_env is uninterrupted.env

    first = make_model(train_freq=1).learn(301)
    first.save(tmp_path / "model")
    first.save_replay_buffer(tmp_path / "buffer")
    states = pickle.dumps((random.getstate(), np.random.get_state(), th.get_rng_state()))  # noqa: NPY002
    th.rand(17)

    resumed = DSACT.load(tmp_path / "model", env=first.env, device="cpu", force_reset=False)
    resumed.load_replay_buffer(tmp_path / "buffer")
    python_state, numpy_state, torch_state = pickle.loads(states)
    random.setstate(python_state)
    np.random.set_state(numpy_state)  # noqa: NPY002
    th.set_rng_state(torch_state)
    assert resumed._n_updates % 2 == 1  # in the middle of a delay period
    resumed.learn(140, reset_num_timesteps=False)

    assert resumed.num_timesteps == uninterrupted.num_timesteps == 441
    assert resumed._n_updates == uninterrupted._n_updates
    assert_identical(state(uninterrupted), state(resumed))
    assert uninterrupted.replay_buffer is not None
    assert resumed.replay_buffer is not None
    assert np.array_equal(
        uninterrupted.replay_buffer.observations, resumed.replay_buffer.observations
    )


def test_replay_buffer_is_saved_and_loaded(tmp_path):
    model = make_model().learn(100)
    assert model.replay_buffer is not None
    before = copy.deepcopy(model.replay_buffer)
    model.save_replay_buffer(tmp_path / "buffer")
    model.replay_buffer = None
    model.load_replay_buffer(tmp_path / "buffer")
    assert model.replay_buffer is not None
    for name in ("observations", "actions", "rewards", "dones", "timeouts", "next_observations"):
        assert np.array_equal(getattr(before, name), getattr(model.replay_buffer, name))


# Wrappers, callbacks, logs ------------------------------------------------------------------


def test_vec_normalize_is_used_for_replayed_data():
    env = VecNormalize(make_vec_env("Pendulum-v1", 2), norm_reward=True, gamma=0.99)
    model = make_model(env, learning_starts=20, gamma=0.0).learn(200)
    assert model._n_updates > 0
    assert model.replay_buffer is not None
    stored = model.replay_buffer.rewards[: model.replay_buffer.pos]
    assert np.abs(stored).max() > 5.0  # original rewards are stored
    set_random_seed(0)
    model.train(1, 64)
    set_random_seed(0)
    normalized = model.replay_buffer.sample(64, env=env).rewards.squeeze(1)
    assert normalized.abs().max() < 5.0
    assert th.equal(model._last_batch["y_q"], normalized)
    mean_reward, _ = evaluate_policy(model, env, n_eval_episodes=2, warn=False)
    assert np.isfinite(mean_reward)


def test_callbacks(tmp_path):
    env = make_vec_env("Pendulum-v1", 1, seed=1)
    model = make_model()
    evaluate = EvalCallback(
        env, n_eval_episodes=2, eval_freq=100, best_model_save_path=str(tmp_path), verbose=0
    )
    checkpoint = CheckpointCallback(100, str(tmp_path / "steps"), save_replay_buffer=True)
    steps = []
    model.learn(250, callback=[evaluate, checkpoint])
    assert evaluate.n_calls == 252  # train_freq 4
    assert evaluate.best_mean_reward > -np.inf
    best = DSACT.load(tmp_path / "best_model", device="cpu")
    assert best.num_timesteps in (100, 200)
    last = DSACT.load(tmp_path / "steps" / "rl_model_200_steps", env=env, device="cpu")
    last.load_replay_buffer(tmp_path / "steps" / "rl_model_replay_buffer_200_steps")
    last.learn(50, reset_num_timesteps=False)
    assert last.num_timesteps == 252  # train_freq 4

    # a callback can end the training
    model.learn(100, callback=lambda values, _: steps.append(1) or len(steps) < 5)
    assert len(steps) == 5


def test_logs(tmp_path):
    model = make_model(entropy_unit="env")
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(401, log_interval=1)
    (path,) = tmp_path.glob("*.csv")
    header, *_, last = path.read_text().splitlines()
    values = dict(zip(header.split(","), last.split(","), strict=True))
    for name in ("q", "sigma", "running_sigma", "alpha", "entropy", "abs_td_error"):
        assert np.isfinite(float(values[f"train/{name}"])), name
    assert float(values["train/target_entropy"]) == pytest.approx(-1.0 - np.log(2.0))
    assert 0 < int(values["train/n_updates"]) <= model._n_updates
    # logs right after a resume in the middle of a delay period
    model._last_batch = {}
    model._n_updates = 1
    model.train(1, 32)
    model.dump_logs()


def test_verbose_names_the_effective_target_entropy(capsys):
    make_model(verbose=1)
    assert "-1.69 nat for actions in [-1, 1]" in capsys.readouterr().out


def test_warmup_acts_with_the_initial_policy_or_uniformly():
    def spread(warmup):
        # a narrow initial policy tells them apart
        narrow = SMALL | {"log_std_max": -3.0}
        model = make_model(warmup=warmup, learning_starts=300, policy_kwargs=narrow).learn(300)
        assert model.replay_buffer is not None
        return model.replay_buffer.actions[:300].std()

    assert spread("policy") < 0.3
    assert spread("uniform") == pytest.approx(3**-0.5, abs=0.05)
