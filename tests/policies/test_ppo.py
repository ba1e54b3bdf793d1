"""Symmetric PPO: its equations against float64 twins, exact symmetry, and that it learns."""

from __future__ import annotations

import copy
import io

import gymnasium as gym
import numpy as np
import onnxruntime
import pytest
import torch as th
from gymnasium import spaces
from motoric.configs.policies.mirror_ppo import Config
from motoric.policies import ppo
from motoric.policies.ppo import MirrorPPO, Moments, advantages, mirror_ppo, surrogate
from stable_baselines3.common.vec_env import DummyVecEnv

# Five numbers: one of the left, one of the right, one across, and a clock.
MIRROR = {
    "observation": (np.array([1, 0, 2, 3, 4]), np.array([1.0, 1, -1, -1, -1])),
    "action": (np.array([1, 0]), np.array([1.0, 1])),
    "clock": 3,
}


class Sides(gym.Env):
    """The left action should be the left number, the right one the right; three steps long, and
    cut off by time or, where `falls`, at an end."""

    observation_space = spaces.Box(-np.inf, np.inf, (5,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    mirror = MIRROR

    def __init__(self, falls: bool = False) -> None:
        self.falls, self.steps = falls, 0

    def observe(self):
        phase = self.np_random.uniform(0, 2 * np.pi)
        self.seen = self.np_random.uniform(-1, 1, 3)
        return np.array([*self.seen, np.sin(phase), np.cos(phase)], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def step(self, action):
        self.steps += 1
        reward = 1.0 - float(np.sum((action - self.seen[:2]) ** 2))
        over = self.steps == 3
        return self.observe(), reward, over and self.falls, over and not self.falls, {}


def learner(seed=0, mirror=MIRROR, n_envs=8, falls=False, **arguments):
    env = DummyVecEnv([lambda: Sides(falls)] * n_envs)
    env.seed(seed)
    values = {"n_steps": 16, "batch_size": 64, "learning_rate": 3e-3, "gamma": 0.5} | arguments
    network = {"net_arch": [32, 32], "mirror": mirror}
    return MirrorPPO("MlpPolicy", env, seed=seed, device="cpu", policy_kwargs=network, **values)


def somewhere(count=200, seed=0):
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, count)
    clock = np.stack([np.sin(phase), np.cos(phase)], 1) * (rng.random((count, 1)) > 0.2)
    return th.tensor(np.concatenate([rng.standard_normal((count, 3)), clock], 1)).float()


def reflect(signed, x):
    index, sign = signed
    return x[..., index] * th.as_tensor(sign, dtype=x.dtype)


# -- equations ---------------------------------------------------------------------------------


def test_the_gradient_of_the_surrogate_is_that_of_the_paper():
    """Equation (7) by hand in float64: dL/dlogp = -ratio A where the clip doesn't hold it."""
    rng = np.random.default_rng(0)
    log_prob, old, advantage = rng.standard_normal((3, 500)) * 0.5
    ratio = np.exp(log_prob - old)
    held = ((advantage > 0) & (ratio > 1.2)) | ((advantage < 0) & (ratio < 0.8))
    assert 50 < held.sum() < 450
    wanted = np.where(held, 0.0, -ratio * advantage) / 500
    x = th.tensor(log_prob, requires_grad=True)
    loss = surrogate(x, th.tensor(old), th.tensor(advantage), 0.2)
    loss.backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), wanted, atol=1e-15)
    clipped = np.clip(ratio, 0.8, 1.2)
    assert loss.item() == pytest.approx(-np.minimum(ratio * advantage, clipped * advantage).mean())


def test_log_probability_is_that_of_a_normal_distribution():
    rng = np.random.default_rng(1)
    action, mean, log_std = (th.tensor(rng.standard_normal(s)) for s in ((9, 4), (9, 4), (4,)))
    wanted = th.distributions.Normal(mean, log_std.exp()).log_prob(action).sum(1)
    found = ppo.log_probability(action, mean, log_std) - 2 * np.log(2 * np.pi)
    th.testing.assert_close(found, wanted, atol=1e-12, rtol=0)


def test_advantages_are_the_discounted_sum_of_errors():
    """Term by term, in float64: A_t = sum_k (gamma lam)^k delta_{t+k}, up to the episode's end."""
    rng = np.random.default_rng(2)
    steps, n, gamma, lam = 12, 3, 0.9, 0.8
    reward, value = rng.standard_normal((steps, n)), rng.standard_normal((steps + 1, n))
    done = rng.random((steps, n)) < 0.2
    found = advantages(reward, value, done, gamma, lam)
    for i in range(n):
        for t in range(steps):
            total, weight = 0.0, 1.0
            for k in range(t, steps):
                after = 0.0 if done[k, i] else gamma * value[k + 1, i]
                total += weight * (reward[k, i] + after - value[k, i])
                if done[k, i]:
                    break
                weight *= gamma * lam
            assert found[t, i] == pytest.approx(total, abs=1e-12)


def test_moments_are_those_of_all_that_was_seen():
    rng = np.random.default_rng(3)
    batches = [rng.normal(5.0, 3.0, (k, 2, 4)) for k in (1, 50, 7)]
    moments = Moments(4)
    for batch in batches:
        moments.update(th.tensor(batch))
    seen = np.concatenate([batch.reshape(-1, 4) for batch in batches])
    np.testing.assert_allclose(moments.mean.numpy(), seen.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.var.numpy(), seen.var(0), rtol=1e-12)
    scaled = moments(th.tensor(seen).float()).numpy()
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(0), 1, atol=1e-5)


@pytest.mark.parametrize("falls", [False, True])
def test_what_a_time_limit_cuts_off_is_in_the_reward_and_a_fall_is_an_end(falls):
    rewards = []
    for says in (0.0, 7.0):  # two critics that say the same whatever they see
        model = learner(falls=falls)
        with th.no_grad():
            for parameter in model.policy.critic.parameters():
                parameter.zero_()
            model.policy.critic[-1].bias.fill_(says)
        _, callback = model._setup_learn(1000)
        assert model.collect_rollouts(model.env, callback, None, 6)
        rewards.append(model.rewards)
    ends = np.zeros((6, 8), bool)
    ends[[2, 5]] = True
    np.testing.assert_array_equal(model.dones, ends)
    added = np.where(ends & (not falls), 0.5 * 7.0, 0.0)
    np.testing.assert_allclose(rewards[1] - rewards[0], added, atol=1e-6)


# -- symmetry ----------------------------------------------------------------------------------


def trained(**arguments):
    """A policy away from its start, with statistics of its own."""
    model = learner(**arguments)
    model.learn(1000)
    return model


@pytest.mark.parametrize("clock", [3, None])
def test_the_policy_is_exactly_symmetric(clock):
    model = trained(mirror=MIRROR | {"clock": clock})
    obs = somewhere()
    with th.no_grad():
        ours = model.policy(obs, deterministic=True)
        there = model.policy(reflect(MIRROR["observation"], obs), deterministic=True)
        value = model.policy.predict_values(obs)
        value_there = model.policy.predict_values(reflect(MIRROR["observation"], obs))
    assert ours.abs().max() > 0.1
    th.testing.assert_close(there, reflect(MIRROR["action"], ours), atol=1e-6, rtol=0)
    if clock is not None:
        moving = obs[:, 3] != 0
        th.testing.assert_close(value_there[moving], value[moving], atol=1e-6, rtol=0)
    deviation = model.policy.deviation().detach()
    th.testing.assert_close(deviation[[1, 0]], deviation)


def test_without_a_mirror_it_is_not():
    model = trained(mirror=None)
    obs = somewhere()
    with th.no_grad():
        ours = model.policy(obs, deterministic=True)
        there = model.policy(reflect(MIRROR["observation"], obs), deterministic=True)
    assert (there - reflect(MIRROR["action"], ours)).abs().max() > 0.02


def test_actions_are_continuous_where_the_clock_flips():
    policy = trained().policy
    obs = somewhere(50)[:, :3]

    def at(phase):
        clock = th.tensor([np.sin(phase), np.cos(phase)]).float().expand(len(obs), 2)
        with th.no_grad():
            return policy(th.cat([obs, clock], 1), deterministic=True)

    for flip in (0.0, np.pi):
        across = (at(flip + 1e-4) - at(flip - 1e-4)).abs().max()
        along = (at(flip + 0.3) - at(flip + 0.1)).abs().max()
        assert across < 1e-2
        assert along > 10 * across


def test_computing_only_the_twins_that_count_changes_nothing():
    policy = trained().policy
    with th.no_grad():
        s = policy.samples(somewhere())
        near = s.blend[:, 0].nonzero()[:, 0]
        assert 20 < len(near) < 180
        th.testing.assert_close(policy.means(s, near), policy.means(s), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "index", "sign"),
    [("obs", [1, 2, 0, 3, 4], [1.0] * 5), ("obs", [1, 0, 2, 3, 4], [2.0, 1, 1, 1, 1])],
)
def test_a_mirror_that_is_none_is_refused(name, index, sign):
    broken = MIRROR | {"observation": (np.array(index), np.array(sign))}
    with pytest.raises(ValueError, match=f"mirror: twice on the {name} is not the identity"):
        learner(mirror=broken)


# -- algorithm ---------------------------------------------------------------------------------


def configured(env, **values):
    config = Config(net_arch=[32, 32], n_steps=16, batch_size=64)
    for key, value in values.items():
        setattr(config, key, value)
    return mirror_ppo(config, env, None, 0, "cpu")


def sides(n=8):
    env = DummyVecEnv([Sides] * n)
    env.seed(0)
    return env


def test_what_is_exported_acts_as_the_policy_does():
    found = configured(sides())
    found.learn(1000, lambda: None)
    (network,) = found.exported().networks
    file = io.BytesIO()
    th.onnx.export(
        network.module, (th.zeros(2, 5),), file, input_names=["observation"],
        output_names=["action"], dynamic_axes={"observation": {0: "N"}}, dynamo=False,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(file.getvalue())
    obs = somewhere().numpy()
    there = reflect(MIRROR["observation"], th.from_numpy(obs)).numpy()
    actions, mirrored = (session.run(None, {"observation": x})[0] for x in (obs, there))
    np.testing.assert_allclose(actions, found.model.predict(obs, deterministic=True)[0], atol=1e-5)
    np.testing.assert_allclose(mirrored, actions[:, [1, 0]], atol=1e-6)


def test_it_goes_on_exactly_where_its_state_was_taken():
    """The environments' own state beside it, as a checkpoint has it."""
    taken: list = []

    def between():
        if whole.done == 512:
            envs = [env.unwrapped for env in whole.model.get_env().envs]
            own = [(e.np_random.bit_generator.state, e.steps, e.seen) for e in envs]
            taken.append(copy.deepcopy((whole.state(), th.get_rng_state(), own)))

    whole = configured(sides())
    whole.learn(1024, between)
    ((state, generator, own),) = taken
    other = configured(sides())
    other.load_state(state)
    for env, (bits, steps, seen) in zip(other.model.get_env().envs, own, strict=True):
        env.unwrapped.np_random.bit_generator.state = bits
        env.unwrapped.steps, env.unwrapped.seen = steps, seen
    th.set_rng_state(generator)
    assert other.done == 512
    other.learn(1024, lambda: None)
    found, wanted = (x.model.policy.state_dict() for x in (other, whole))
    for name, value in wanted.items():
        assert th.equal(found[name], value), name
    assert not any(name.startswith("algorithm/obs") for name in state.arrays)  # nor the rollout


def test_the_step_size_falls_to_its_end():
    found = configured(sides(), learning_rate=1e-2, learning_rate_end=1e-3)
    rates = []
    policy = found.model.policy

    def between():
        optimizers = policy.actor_optimizer, policy.critic_optimizer
        rates.append([o.param_groups[0]["lr"] for o in optimizers])

    found.learn(512, between)
    between()
    wanted = [1e-2, 1e-2 - 0.25 * 9e-3, 1e-2 - 0.5 * 9e-3, 1e-2 - 0.75 * 9e-3, 1e-3]
    np.testing.assert_allclose(rates, np.array(wanted)[:, None] * [1, 1])


def test_a_thread_of_its_own_changes_no_weight(monkeypatch):
    class AtOnce:
        def __init__(self, threads): ...
        def __enter__(self):
            return self

        def __exit__(self, *error): ...
        def submit(self, function, *arguments):
            result = function(*arguments)
            return type("Done", (), {"result": staticmethod(lambda: result)})

    together = trained().policy.state_dict()
    monkeypatch.setattr(ppo, "ThreadPoolExecutor", AtOnce)
    for name, value in trained().policy.state_dict().items():
        assert th.equal(value, together[name]), name


def test_it_learns_what_the_sides_ask_for():
    """A policy that does nothing earns 1/3 a step; the best 1."""

    def earned(model):
        obs = somewhere(2000, seed=9)
        obs[:, :3] = th.from_numpy(np.random.default_rng(8).uniform(-1, 1, (2000, 3))).float()
        action = model.predict(obs.numpy(), deterministic=True)[0]
        return float(1 - ((action - obs[:, :2].numpy()) ** 2).sum(1).mean())

    model = learner()
    model.learn(20_000)
    assert earned(model) > 0.95


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("CartPole-v1", "needs actions that are a row of numbers"),
        (None, "learns from an environment's steps alone"),
    ],
)
def test_what_it_cannot_learn_from_is_one_line(env, words):
    made = None if env is None else DummyVecEnv([lambda: gym.make(env)])
    with pytest.raises(ValueError, match=f"policy: 'mirror_ppo' {words}"):
        mirror_ppo(Config(), made, None, 0, "cpu")


def test_an_environment_that_says_nothing_of_mirrors_is_learnt_without():
    env = DummyVecEnv([lambda: gym.make("Pendulum-v1")])
    found = mirror_ppo(Config(n_steps=16, batch_size=16), env, None, 0, "cpu")
    assert found.model.policy.mirror is None
    found.learn(64, lambda: None)
    assert found.done == 64
    assert found.is_finite()
