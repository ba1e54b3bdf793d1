"""What must hold exactly for DSAC-T (arXiv 2310.05858), equation by equation."""

import copy
import io
import math

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from motoric.policies.dsac_t import (
    DSACT,
    clipped_return,
    gaussian_gradients,
    huber_gradients,
    soft_targets,
    squashed_log_prob,
)
from scipy.optimize import brentq
from scipy.special import ndtri
from stable_baselines3.common.utils import set_random_seed
from torch.nn import functional as F

EPS, XI = 0.1, 3.0


class RandomTask(gym.Env):
    """Random observations and rewards; ends by termination or, every 7th step, by truncation."""

    def __init__(self, limit: float = 2.0, reward: float | None = None, p_end: float = 0.1):
        self.observation_space = spaces.Box(-1, 1, (3,), np.float32)
        self.action_space = spaces.Box(-limit, limit, (2,), np.float32)
        self.reward, self.p_end = reward, p_end

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), {}

    def step(self, action):
        self.t += 1
        reward = float(self.np_random.normal()) if self.reward is None else self.reward
        terminated = bool(self.np_random.random() < self.p_end)
        obs = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return obs, reward, terminated, self.t >= 7 and not terminated, {}


def make_model(env: gym.Env | None = None, steps: int = 300, **kwargs) -> DSACT:
    """A small model with a filled replay buffer and no update done yet."""
    kwargs = {"seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [16, 16]}} | kwargs
    model = DSACT("MlpPolicy", env or RandomTask(), learning_starts=10**9, **kwargs)
    model.learn(steps)
    return model


def batch(seed: int = 0, scale: float = 1.0) -> dict[str, th.Tensor]:
    """Critic outputs and targets in float64; |y_z - Q| is often beyond the clipping range."""
    g = th.Generator().manual_seed(seed)
    normal = lambda *shape: th.randn(*shape, generator=g, dtype=th.float64)  # noqa: E731
    return {
        "q": scale * 5 * normal(2, 64),
        "sigma": scale * normal(2, 64).exp(),
        "y_q": scale * 5 * normal(64),
        "y_z": scale * 9 * normal(64),
        "m": scale * th.tensor([[0.7], [1.9]], dtype=th.float64),
    }


def gradients(b: dict[str, th.Tensor], loss: str = "gaussian", eps: float = EPS):
    y_clip = clipped_return(b["q"], b["y_z"], XI * b["m"])
    if loss == "gaussian":
        omega = b["m"] ** 2 + eps
        return gaussian_gradients(b["q"], b["sigma"], b["y_q"], y_clip, omega, eps)
    omega = b["m"] ** 2
    return huber_gradients(b["q"], b["sigma"], b["y_q"], y_clip, omega, eps, 50.0, (0.1, 10.0))


def surrogate(q, sigma, y_q, y_z, m, loss: str, fixed_bound: float | None = None) -> th.Tensor:
    """The loss of one critic as the authors hand it to autograd, per sample. q, sigma ``[B]``."""
    q_, sigma_ = q.detach(), sigma.detach()
    bound = XI * float(m) if fixed_bound is None else fixed_bound
    y_clip = q_ + (y_z - q_).clamp(-bound, bound)
    if loss == "gaussian":
        weight = float(m) ** 2 + EPS if fixed_bound is None else 1.0
        mean_term = -(y_q - q_) / (sigma_**2 + EPS) * q
        std_term = -((y_clip - q_) ** 2 - sigma_**2) / (sigma_**3 + EPS) * sigma
        return weight * (mean_term + std_term)
    omega = float(m) ** 2 if fixed_bound is None else 1.0
    rho = (omega / (sigma_**2 + EPS)).clamp(0.1, 10.0)
    spread = F.huber_loss(q_, y_clip, delta=50.0, reduction="none")
    std_term = sigma * (sigma_**2 - spread) / (sigma_ + EPS)
    return rho * (F.huber_loss(q, y_q, delta=50.0, reduction="none") + std_term)


# 1 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["gaussian", "huber"])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_gradients_are_those_of_the_surrogate_loss(loss, scale):
    b = batch(scale=scale)
    assert ((b["y_z"] - b["q"]).abs() > XI * b["m"]).any(), "clipping must be active"
    if loss == "huber" and scale == 30.0:
        assert ((b["y_q"] - b["q"]).abs() > 50.0).any(), "the linear part must be active"
    d_q, d_sigma = gradients(b, loss)
    for i in range(2):
        q, sigma = b["q"][i].clone().requires_grad_(), b["sigma"][i].clone().requires_grad_()
        surrogate(q, sigma, b["y_q"], b["y_z"], b["m"][i], loss).sum().backward()
        th.testing.assert_close(d_q[i], q.grad, rtol=1e-12, atol=1e-12)
        th.testing.assert_close(d_sigma[i], sigma.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"critic_loss": "huber"},
        {"n_steps": 3},
        {"reward_scale": 0.1, "entropy_unit": "normalized"},
        {"expected_value_target": False},
        {"variance_adjustment": False, "td_bound": 0.5},
        {"variance_adjustment": False, "critic_loss": "huber"},
        {"log_alpha_init": -1.0, "target_entropy": -0.3, "gamma": 0.9},
    ],
    ids=str,
)
def test_one_update_is_the_papers(kwargs):
    """The gradients of a whole update against a plain one, written critic by critic."""
    model = make_model(learning_rate=1e-2, **kwargs)  # so fast that the order of steps shows
    assert model.replay_buffer is not None
    before = copy.deepcopy(model.policy)
    model.train(2, 64)  # two updates, so that m_i has moved and targets differ from online nets
    before.load_state_dict(model.policy.state_dict())
    set_random_seed(1)
    model.train(1, 64)  # update 2 is even: actor and temperature are stepped as well

    set_random_seed(1)
    data = model.replay_buffer.sample(64)
    assert 0 < data.dones.sum() < 64
    low, high = model.action_space.low, model.action_space.high
    log_scale = math.log(2.0) * 2 if model.entropy_unit == "env" else 0.0
    assert np.allclose(np.log((high - low) / 2).sum(), math.log(2.0) * 2)

    def values(net, obs, action):
        """Every critic on its own, with plain linear layers."""
        out = []
        for i in range(2):
            x = th.cat([obs, action], dim=1)
            for layer in list(net.net)[:-1]:
                x = x @ layer.weight[i] + layer.bias[i] if hasattr(layer, "weight") else layer(x)
            x = x @ net.net[-1].weight[i] + net.net[-1].bias[i]
            out.append((x[:, 0], F.softplus(x[:, 1])))
        return out

    def act(net, obs):
        mean, log_std = net.net(obs)[:, :2], net.net(obs)[:, 2:].clamp(-20, 0.5)
        u = mean + log_std.exp() * th.randn_like(mean)
        base = th.distributions.Normal(mean, log_std.exp()).log_prob(u).sum(1)
        log_jacobian = th.log1p(-(th.tanh(u) ** 2)).sum(1)
        return th.tanh(u), base - log_jacobian - log_scale

    alpha = before.log_alpha.detach().exp()
    gamma = data.discounts.squeeze(1) if data.discounts is not None else model.gamma
    with th.no_grad():
        next_action, next_logp = act(before.actor_target, data.next_observations)
        (q1, s1), (q2, s2) = values(before.critic_target, data.next_observations, next_action)
        z = th.randn(64).clamp(-3, 3)
        q_j, s_j = th.where(q1 < q2, q1, q2), th.where(q1 < q2, s1, s2)
        r, alive = model.reward_scale * data.rewards.squeeze(1), 1 - data.dones.squeeze(1)
        y_q = r + gamma * alive * (q_j - alpha * next_logp)
        y_z = r + gamma * alive * (q_j + z * s_j - alpha * next_logp)
    if not model.expected_value_target:
        y_q = y_z
    online = values(before.critic, data.observations, data.actions)
    loss = th.zeros(())
    for i, (q, sigma) in enumerate(online):
        m = 0.995 * before.running_sigma[i] + 0.005 * sigma.detach().mean()
        assert th.allclose(m, model.policy.running_sigma[i], rtol=1e-5)
        bound = None if model.variance_adjustment else model.td_bound
        loss = loss + surrogate(q, sigma, y_q, y_z, m, model.critic_loss, bound).mean()
    loss.backward()
    for ours, reference in zip(model.critic.parameters(), before.critic.parameters(), strict=True):
        th.testing.assert_close(ours.grad, reference.grad, rtol=1e-3, atol=1e-5)

    action, logp = act(before.actor, data.observations)
    (q1, _), (q2, _) = values(before.critic, data.observations, action)
    (alpha * logp - th.minimum(q1, q2)).mean().backward()
    for ours, reference in zip(model.actor.parameters(), before.actor.parameters(), strict=True):
        th.testing.assert_close(ours.grad, reference.grad, rtol=1e-3, atol=1e-5)
    target = -2.0 if kwargs.get("target_entropy") is None else kwargs["target_entropy"]
    temperature_loss = (-before.log_alpha * (logp.detach() + target)).mean()
    (gradient,) = th.autograd.grad(temperature_loss, before.log_alpha)
    th.testing.assert_close(model.policy.log_alpha.grad, gradient, rtol=1e-4, atol=1e-5)


# 2, 3 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0.01, 3.0, 100.0])
def test_gaussian_gradients_scale_with_the_reward(k):
    """Degree one in (r, Q, sigma, m, alpha) for eps = 0; y is of degree one in them as well."""
    d_q, d_sigma = gradients(batch(), eps=0.0)
    k_q, k_sigma = gradients(batch(scale=k), eps=0.0)
    th.testing.assert_close(k_q, k * d_q, rtol=1e-10, atol=0)
    th.testing.assert_close(k_sigma, k * d_sigma, rtol=1e-10, atol=0)

    t = {name: th.rand(2, 8, dtype=th.float64) for name in ("q", "sigma")}
    r, logp, z = th.randn(3, 8, dtype=th.float64)
    alpha, discount = th.tensor(0.3, dtype=th.float64), th.full((8,), 0.99, dtype=th.float64)
    ours = soft_targets(r, discount, t["q"], t["sigma"], logp, alpha, z)
    scaled = soft_targets(k * r, discount, k * t["q"], k * t["sigma"], logp, k * alpha, z)
    for y, k_y in zip(ours, scaled, strict=True):
        th.testing.assert_close(k_y, k * y, rtol=1e-10, atol=1e-12)


def test_gaussian_gradients_at_large_and_small_deviations():
    large, larger = gradients(batch(scale=1e4)), gradients(batch(scale=1e5))
    for a, b in zip(large, larger, strict=True):
        th.testing.assert_close(b, 10 * a, rtol=1e-3, atol=1e-3)
    b = batch()
    b |= {"sigma": 1e-9 * b["sigma"], "m": th.full((2, 1), 1e-9, dtype=th.float64)}
    y_clip = b["q"] + 0.5
    d_q, d_sigma = gaussian_gradients(b["q"], b["sigma"], b["y_q"], y_clip, b["m"] ** 2 + EPS, EPS)
    th.testing.assert_close(d_q, b["q"] - b["y_q"])  # plain MSE
    th.testing.assert_close(d_sigma, b["sigma"] ** 2 - (y_clip - b["q"]) ** 2)


def test_return_target_is_clipped_around_each_online_mean():
    b = batch()
    distance = (clipped_return(b["q"], b["y_z"], XI * b["m"]) - b["q"]).abs()
    assert (distance <= XI * b["m"] * (1 + 1e-12)).all()
    outside = (b["y_z"] - b["q"]).abs() > XI * b["m"]
    assert outside.any(dim=1).all()
    assert not outside.all(dim=1).any()
    bound = (XI * b["m"]).expand_as(distance)
    th.testing.assert_close(distance[outside], bound[outside])
    further = b["q"] + 10 * (b["y_z"] - b["q"])
    for i in range(2):
        moved = th.where(outside[i], further[i], b["y_z"])
        one, same = gradients(b), gradients(b | {"y_z": moved})
        assert th.equal(one[0][i], same[0][i])
        th.testing.assert_close(one[1][i], same[1][i], rtol=1e-12, atol=1e-12)
    # a constant range (without R3) does the same
    fixed = clipped_return(b["q"], b["y_z"], 2.0)
    assert (fixed - b["q"]).abs().max() == pytest.approx(2.0)


def test_equal_deviations_give_sacs_gradient():
    b = batch()
    b |= {"sigma": th.full((2, 64), 1.3, dtype=th.float64)}
    b |= {"m": th.full((2, 1), 1.3, dtype=th.float64)}
    th.testing.assert_close(gradients(b)[0], b["q"] - b["y_q"], rtol=1e-12, atol=0)


# 4 ------------------------------------------------------------------------------------------


def fixed_point(loss: str, mu: float, s: float) -> tuple[float, float]:
    """(dL/dQ at Q = mu, sigma / s where E dL/dsigma = 0) for r ~ N(mu, s^2), gamma 0, m = sigma."""
    n = 20_001
    r = th.as_tensor(mu + s * ndtri((np.arange(n) + 0.5) / n))
    q = th.full((1, n), mu, dtype=th.float64)

    def gradient(ratio: float) -> tuple[float, float]:
        m = th.full((1, 1), ratio * s, dtype=th.float64)
        b = {"q": q, "sigma": m.expand(1, n), "y_q": r, "y_z": r, "m": m}
        d_q, d_sigma = gradients(b, loss)
        return d_q.mean().item(), d_sigma.mean().item()

    root = brentq(lambda ratio: gradient(ratio)[1], 0.2, 3.0)
    assert isinstance(root, float)
    return gradient(root)[0], root


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_one_state_gaussian_deviation_is_the_true_one_at_any_reward_scale(scale):
    d_q, ratio = fixed_point("gaussian", 5.0 * scale, 2.0 * scale)
    assert abs(d_q) < 1e-6 * scale
    assert ratio == pytest.approx(0.9974, abs=5e-4)


def test_one_state_huber_deviation_is_too_small_and_depends_on_the_scale():
    assert fixed_point("huber", 5.0, 2.0)[1] == pytest.approx(0.681, abs=1e-3)
    assert fixed_point("huber", 500.0, 200.0)[1] < 0.6


def test_training_on_one_state_finds_mean_and_deviation():
    class OneState(gym.Env):
        observation_space = spaces.Box(-1, 1, (1,), np.float32)
        action_space = spaces.Box(-1, 1, (1,), np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(1, np.float32), {}

        def step(self, action):
            return np.zeros(1, np.float32), self.np_random.normal(3.0, 2.0), True, False, {}

    model = make_model(OneState(), 2000, learning_rate=3e-3, log_alpha_init=-5.0, tau_b=0.05)
    assert model.replay_buffer is not None
    rewards = model.replay_buffer.rewards[: model.replay_buffer.pos]
    model.train(800, 1024)
    with th.no_grad():
        q, sigma = model.critic(th.zeros(101, 1), th.linspace(-1, 1, 101).unsqueeze(1))
    mean, std = q.mean(dim=1).tolist(), sigma.mean(dim=1).tolist()
    assert mean == pytest.approx([rewards.mean()] * 2, abs=0.15)
    assert std == pytest.approx([0.9974 * rewards.std()] * 2, rel=0.05)
    assert model.policy.running_sigma.flatten().tolist() == pytest.approx(std, rel=0.05)


# 5, 6, 7 ------------------------------------------------------------------------------------


def test_only_the_return_target_depends_on_the_draw():
    g = th.Generator().manual_seed(3)
    r, logp = th.randn(2, 16, generator=g, dtype=th.float64)
    q, sigma = th.rand(2, 2, 16, generator=g, dtype=th.float64)
    discount, alpha = th.full((16,), 0.9, dtype=th.float64), th.tensor(0.2, dtype=th.float64)
    z = th.as_tensor(ndtri((np.arange(1000) + 0.5) / 1000))
    targets = [soft_targets(r, discount, q, sigma, logp, alpha, zk.expand(16)) for zk in z]
    y_q, y_z = (th.stack(y) for y in zip(*targets, strict=True))
    assert (y_q == y_q[0]).all()
    assert (y_z.std(dim=0) > 0).all()
    th.testing.assert_close(y_z.mean(dim=0), y_q[0], rtol=1e-9, atol=1e-9)


def test_swapping_the_critics_swaps_their_gradients_only():
    g = th.Generator().manual_seed(4)
    q, sigma = th.rand(2, 2, 64, generator=g, dtype=th.float64)
    r, logp, z = th.randn(3, 64, generator=g, dtype=th.float64)
    discount, alpha = th.full((64,), 0.9, dtype=th.float64), th.tensor(0.2, dtype=th.float64)
    y = soft_targets(r, discount, q, sigma, logp, alpha, z)
    swapped = soft_targets(r, discount, q.flip(0), sigma.flip(0), logp, alpha, z)
    assert th.equal(y[0], swapped[0])
    assert th.equal(y[1], swapped[1])
    b = batch()
    flipped = b | {name: b[name].flip(0) for name in ("q", "sigma", "m")}
    for loss in ("gaussian", "huber"):
        for one, other in zip(gradients(b, loss), gradients(flipped, loss), strict=True):
            assert th.equal(one, other.flip(0))


def test_the_critic_with_the_lower_mean_gives_both_targets():
    one = th.ones(1)
    q, sigma = th.tensor([[1.0], [2.0]]), th.tensor([[0.5], [1e6]])
    # the draw puts critic 2 far below: samples must not take part in the choice
    y_q, y_z = soft_targets(one, 0.9 * one, q, sigma, 0 * one, th.tensor(0.0), -2 * one)
    assert y_q.item() == pytest.approx(1.9)
    assert y_z.item() == pytest.approx(1.0 + 0.9 * (1.0 - 2 * 0.5))


def test_termination_cuts_the_targets_and_truncation_does_not():
    r = th.randn(8)
    y_q, y_z = soft_targets(
        r, th.zeros(8), *(100 * th.rand(2, 2, 8)), th.randn(8), th.tensor(1.0), th.randn(8)
    )
    assert th.equal(y_q, r)
    assert th.equal(y_z, r)

    class Count(gym.Env):
        """Observes the step number; odd episodes terminate at 3, even ones are truncated at 3."""

        observation_space = spaces.Box(0, 10, (1,), np.float32)
        action_space = spaces.Box(-1, 1, (1,), np.float32)
        episode = -1

        def reset(self, *, seed=None, options=None):
            self.t, self.episode = 0, self.episode + 1
            return np.zeros(1, np.float32), {}

        def step(self, action):
            self.t += 1
            odd = self.episode % 2 == 1
            end = self.t == 3
            return np.full(1, self.t, np.float32), 1.0, end and odd, end and not odd, {}

    model = make_model(Count(), 60)
    assert model.replay_buffer is not None
    data = model.replay_buffer.sample(512)
    last = data.observations == 2
    assert (data.next_observations == data.observations + 1).all()  # the final one, not the reset
    assert (data.dones[~last] == 0).all()
    assert set(data.dones[last].tolist()) == {0.0, 1.0}


# 8, 9 ---------------------------------------------------------------------------------------


def test_log_alpha_falls_by_its_learning_rate_per_step():
    model = make_model(alpha_learning_rate=3e-4, target_entropy=-100.0)
    start = model.policy.log_alpha.item()
    assert start == 1.0
    model.train(80, 32)
    assert (start - model.policy.log_alpha.item()) / (40 * 3e-4) == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("limit", [0.4, 1.0, 2.0])
def test_densities_integrate_to_one_in_the_environments_units(limit):
    # dense where tanh saturates: a wide policy keeps much of its mass there
    action = limit * th.tanh(th.linspace(-15, 15, 300_001, dtype=th.float64))
    log_scale = make_model(RandomTask(limit), 1).log_scale / 2  # of one of its two actions
    for mean, log_std in [(0.3, -1.0), (-0.8, 0.5), (0.0, 0.0)]:
        u = th.atanh(action / limit).unsqueeze(1)
        parameters = (th.full_like(u, mean), th.full_like(u, log_std))
        density = (squashed_log_prob(u, *parameters) - log_scale).exp()
        assert th.trapezoid(density, action).item() == pytest.approx(1.0, abs=1e-6)


def test_log_density_is_exact_where_tanh_saturates():
    u = th.tensor([[-30.0], [9.0], [30.0]], dtype=th.float64)
    zero = th.zeros_like(u)
    normal = -0.5 * u[:, 0] ** 2 - 0.5 * math.log(2 * math.pi)
    # log(1 - tanh(u)^2) = log 4 - 2|u| up to e^(-2|u|)
    exact = normal - (math.log(4.0) - 2 * u[:, 0].abs())
    th.testing.assert_close(squashed_log_prob(u, zero, zero), exact, rtol=1e-9, atol=1e-7)


def test_effective_target_entropy():
    def target(limit, unit):
        model = make_model(RandomTask(limit), 1, entropy_unit=unit)
        return model.normalized_target_entropy

    assert target(1.0, "env") == -2.0
    assert target(0.4, "env") == pytest.approx(-2.0 - 2 * math.log(0.4))
    assert target(2.0, "env") == pytest.approx(-2.0 - 2 * math.log(2.0))
    assert target(2.0, "normalized") == -2.0


# 10, 11, 12 ---------------------------------------------------------------------------------


def snapshot(module: th.nn.Module) -> list[th.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(a: list[th.Tensor], b: list[th.Tensor]) -> bool:
    return all(th.equal(x, y) for x, y in zip(a, b, strict=True))


def test_only_critics_and_m_move_at_odd_updates():
    model = make_model()
    policy = model.policy
    frozen = [policy.actor, policy.actor_target, policy.critic_target]
    for update in range(6):
        delayed = [snapshot(module) for module in frozen]
        critic, m, log_alpha = (
            snapshot(policy.critic),
            policy.running_sigma.clone(),
            float(policy.log_alpha),
        )
        model.train(1, 32)
        moved = [not same(old, snapshot(new)) for old, new in zip(delayed, frozen, strict=True)]
        moved.append(float(policy.log_alpha) != log_alpha)
        assert moved == [update % 2 == 0] * 4
        assert not same(critic, snapshot(policy.critic))
        assert not (policy.running_sigma == m).any()


def test_the_delay_counts_updates_not_calls():
    one, many = make_model(), make_model()
    for model, calls in ((one, [5]), (many, [1, 2, 1, 1])):
        set_random_seed(0)
        for steps in calls:
            model.train(steps, 32)
    assert same(snapshot(one.policy), snapshot(many.policy))


@pytest.mark.parametrize("delay", [1, 3])
def test_other_delays(delay):
    model = make_model(policy_delay=delay)
    before = snapshot(model.actor)
    for update in range(4):
        model.train(1, 32)
        after = snapshot(model.actor)
        assert same(before, after) == (update % delay != 0)
        before = after


def test_polyak_averages_and_targets_start_equal():
    model = make_model(tau=0.1)
    old = snapshot(model.policy.critic_target)
    assert same(old, snapshot(model.policy.critic))
    model.train(1, 32)
    for target, before, online in zip(
        snapshot(model.critic_target), old, snapshot(model.critic), strict=True
    ):
        th.testing.assert_close(target, 0.9 * before + 0.1 * online)


def test_m_starts_at_the_first_batch_mean_and_follows():
    model = make_model()
    m = model.policy.running_sigma
    assert m.isnan().all()
    model.train(1, 64)
    assert th.equal(m, model._last_batch["sigma"].mean(dim=1, keepdim=True))
    before = m.clone()
    model.train(1, 64)
    mean = model._last_batch["sigma"].mean(dim=1, keepdim=True)
    th.testing.assert_close(m, 0.995 * before + 0.005 * mean, rtol=1e-6, atol=0)


def test_a_checkpoint_gives_the_same_m_and_the_next_updates_bit_for_bit():
    model = make_model()
    model.train(3, 32)
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    loaded = DSACT.load(file, device="cpu")
    assert th.equal(loaded.policy.running_sigma, model.policy.running_sigma)
    assert loaded._n_updates == 3
    loaded.replay_buffer = model.replay_buffer
    for each in (model, loaded):
        set_random_seed(0)
        each._logger = model.logger
        each.train(4, 32)
    assert th.equal(loaded._last_batch["y_q"], model._last_batch["y_q"])
    assert same(snapshot(loaded.policy), snapshot(model.policy))


@pytest.mark.parametrize("scale", [0.1, 5.0])
def test_reward_scale_acts_once(scale):
    model = make_model(RandomTask(reward=1.0, p_end=1.0), reward_scale=scale)
    model.train(1, 32)
    assert (model._last_batch["y_q"] == np.float32(scale)).all()


def test_without_R2_there_is_one_critic():
    model = make_model(twin_critics=False)
    model.train(3, 32)
    assert model._last_batch["q"].shape == (1, 32)
    assert model.policy.running_sigma.shape == (1, 1)


@pytest.mark.parametrize(
    "kwargs", [{"warmup": "no"}, {"entropy_unit": "bit"}, {"critic_loss": "l1"}], ids=str
)
def test_unknown_choices_are_refused(kwargs):
    (name,) = kwargs
    with pytest.raises(ValueError, match=name):
        DSACT("MlpPolicy", "Pendulum-v1", **kwargs)
