"""Networks differentiated by hand: against finite differences, autograd, and whole updates."""

from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from motoric.policies import mlp
from motoric.policies.dsac_t import DSACT, ByAutograd, ByHand, DSACTPolicy
from motoric.policies.mlp import MLP, BatchedLinear
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.utils import set_random_seed
from torch import nn

B, N_IN, N_OUT = 5, 3, 2


def network(c: int, activation: type[nn.Module], hidden: tuple[int, ...] = (7, 4)):
    """In float64; plain linear layers for c = 0."""
    sizes = [N_IN, *hidden, N_OUT]
    net: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        net += [BatchedLinear(c, n_in, n_out) if c else nn.Linear(n_in, n_out), activation()]
    return nn.Sequential(*net[:-1]).double()


@pytest.mark.parametrize("hidden", [(), (7,), (7, 4, 6)])
@pytest.mark.parametrize("activation", [nn.GELU, nn.ReLU])
@pytest.mark.parametrize("c", [0, 1, 3])
def test_forward_and_backward(c, activation, hidden):
    """Outputs and gradients are autograd's; the gradients are also finite differences."""
    th.manual_seed(0)
    net = network(c, activation, hidden)
    assert mlp.supported(net)
    x = th.randn(B, N_IN, dtype=th.float64, requires_grad=True)
    dy = th.randn(max(c, 1), B, N_OUT, dtype=th.float64)
    inputs = x.expand(max(c, 1), -1, -1).detach().requires_grad_()
    y = net(inputs if c else x).view(dy.shape)
    y.backward(dy)
    expected = [p.grad for p in net.parameters()]
    d_input = inputs.grad if c else x.grad
    assert d_input is not None

    net.zero_grad()
    hand, layers, into = MLP(net, B), mlp.layers(net), mlp.gradients(net)
    with th.no_grad():
        for _ in range(2):  # the second time in used buffers
            th.testing.assert_close(hand.forward(layers, x), y, rtol=1e-13, atol=1e-13)
            hand.backward(layers, dy, into)
            ours = hand.backward_input(layers, dy, slice(1, None))
        d_input = d_input.view(-1, B, N_IN)
        th.testing.assert_close(ours, d_input[..., 1:], rtol=1e-12, atol=1e-13)
        step = 1e-6
        for p, gradient in zip(net.parameters(), expected, strict=True):
            th.testing.assert_close(p.grad, gradient, rtol=1e-12, atol=1e-13)
            flat, numeric = p.view(-1), th.empty(p.numel(), dtype=th.float64)
            for i in range(len(flat)):
                values = []
                for sign in (1, -1):
                    flat[i] += sign * step
                    values.append((dy * hand.forward(layers, x)).sum())
                    flat[i] -= sign * step
                numeric[i] = (values[0] - values[1]) / (2 * step)
            th.testing.assert_close(p.grad.view(-1), numeric, rtol=1e-6, atol=1e-7)


def test_other_networks_are_left_to_autograd():
    linear = nn.Linear(3, 3)
    for net in (
        linear,
        nn.Sequential(linear, nn.Tanh(), linear),
        nn.Sequential(linear, nn.GELU("tanh"), linear),
        nn.Sequential(linear, nn.GELU(), linear, nn.ReLU(), linear),
        nn.Sequential(linear, nn.ReLU(), linear, nn.ReLU()),
        nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), linear),
        nn.Sequential(linear, nn.ReLU(), nn.LayerNorm(3)),
    ):
        assert not mlp.supported(net)


# Updates of DSAC-T ---------------------------------------------------------------------------


class Noise(gym.Env):
    """Two-dimensional observations, so that they are flattened; random rewards and ends."""

    def __init__(self):
        self.observation_space = spaces.Box(-1, 1, (2, 2), np.float32)
        self.action_space = spaces.Box(-2, 2, (3,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, (2, 2)).astype(np.float32), {}

    def step(self, action):
        obs = self.np_random.uniform(-1, 1, (2, 2)).astype(np.float32)
        return obs, float(self.np_random.normal()), bool(self.np_random.random() < 0.1), False, {}


def filled(dtype: th.dtype = th.float32, net: dict | None = None, **kwargs) -> DSACT:
    """A model with 300 transitions and no update done, learning in `dtype`."""
    kwargs = {"policy_kwargs": {"net_arch": [16, 16, 16]} | (net or {}), "seed": 0} | kwargs
    model = DSACT("MlpPolicy", Noise(), learning_starts=10**9, device="cpu", **kwargs)
    model.learn(300)
    model.policy.to(dtype)
    assert model.replay_buffer is not None
    model.replay_buffer.to_torch = lambda array, copy=True: th.as_tensor(array, dtype=dtype)
    return model


def state(model: DSACT) -> dict[str, th.Tensor]:
    moments = {
        f"{name}.{i}.{k}": v
        for name in ("actor.optimizer", "critic.optimizer", "alpha_optimizer")
        for i, s in model.get_parameters()[name]["state"].items()
        for k, v in s.items()
    }
    return dict(model.policy.state_dict()) | moments


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"critic_loss": "huber", "entropy_unit": "normalized"},
        {"net": {"activation_fn": nn.ReLU, "net_arch": {"pi": [8], "qf": [12, 10]}}},
        {"net": {"log_std_max": 0.02, "log_std_min": -0.05}},  # both clamps are active
        {"net": {"optimizer_class": th.optim.SGD}, "policy_delay": 1, "n_steps": 3},
        {"twin_critics": False, "variance_adjustment": False, "expected_value_target": False},
    ],
    ids=str,
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(th.float64, 1e-10), (th.float32, 2e-3)])
def test_updates_by_hand_are_those_by_autograd(kwargs, dtype, tolerance, monkeypatch):
    """Weights, targets, m, alpha and the optimizers' moments after 40 updates."""
    # stable-baselines3 makes observations float32
    monkeypatch.setattr(
        "stable_baselines3.common.policies.preprocess_obs", lambda obs, *_, **__: obs
    )
    models = [filled(dtype, learning_rate=1e-3, **kwargs) for _ in range(2)]
    monkeypatch.setattr(models[1], "_networks", lambda _: ByAutograd(models[1].policy))
    for model in models:
        set_random_seed(7)
        for _ in range(4):
            model.train(10, 64)
    assert isinstance(models[0]._networks(64), ByHand)
    hand, autograd = (state(model) for model in models)
    assert hand.keys() == autograd.keys()
    for name, tensor in hand.items():
        th.testing.assert_close(
            tensor,
            autograd[name],
            rtol=tolerance,
            atol=tolerance,
            msg=lambda m, n=name: f"{n}: {m}",
        )
        assert tensor.dtype == autograd[name].dtype


def test_where_updates_are_by_hand():
    class OtherExtractor(FlattenExtractor):
        pass

    class OtherPolicy(DSACTPolicy):
        def make_critic(self):
            critic = super().make_critic()
            critic.net.insert(1, nn.LayerNorm(16))
            return critic

    def by_hand(policy="MlpPolicy", **net):
        model = DSACT(policy, Noise(), policy_kwargs={"net_arch": [16]} | net, device="cpu")
        return isinstance(model._networks(8), ByHand)

    assert by_hand()
    assert by_hand(activation_fn=nn.ReLU)
    assert not by_hand(activation_fn=nn.Tanh)
    assert not by_hand(features_extractor_class=OtherExtractor)
    assert not by_hand(OtherPolicy)


def test_buffers_follow_the_batch_size_and_the_policys_tensors():
    model = filled()
    model.train(1, 32)
    buffers = model._by_hand
    model.train(1, 32)
    assert model._by_hand is buffers
    model.train(1, 16)
    assert model._last_batch["q"].shape == (2, 16)
    # gradients that somebody has dropped, weights that somebody has replaced
    model.critic.optimizer.zero_grad()
    for parameter in model.policy.parameters():
        parameter.data = parameter.data.clone()
    model.train(2, 16)
    before = [p.clone() for p in model.critic.parameters()]
    model.train(1, 16)
    assert not any(th.equal(a, b) for a, b in zip(before, model.critic.parameters(), strict=True))
