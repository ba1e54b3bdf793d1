"""Networks differentiated by hand: against finite differences, autograd, and whole updates."""

from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from motoric.policies import mlp
from motoric.policies.dsac_t import DSACT, ByAutograd, ByHand, DSACTPolicy
from motoric.policies.mlp import BatchedLinear
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.utils import set_random_seed
from torch import nn

B, N_IN, N_OUT = 5, 3, 2


def network(c: int, activation: type[nn.Module], hidden: tuple[int, ...]) -> nn.Sequential:
    """In float64; plain linear layers for c = 0."""
    sizes = [N_IN, *hidden, N_OUT]
    net: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        net += [BatchedLinear(c, n_in, n_out) if c else nn.Linear(n_in, n_out), activation()]
    return nn.Sequential(*net[:-1]).double()


@pytest.mark.parametrize("hidden", [(), (7,), (7, 4, 4, 6)])
@pytest.mark.parametrize("activation", mlp.ACTIVATIONS)
@pytest.mark.parametrize("c", [0, 1, 3])
def test_forward_and_backward(c, activation, hidden):
    """Outputs and gradients are autograd's; the gradients are also finite differences."""
    th.manual_seed(0)
    net = network(c, activation, hidden)
    assert mlp.is_plain(net)
    x = th.randn(B, N_IN, dtype=th.float64)
    dy = th.randn(max(c, 1), B, N_OUT, dtype=th.float64)
    inputs = x.expand(len(dy), -1, -1).clone().requires_grad_()
    expected = net(inputs if c else inputs[0])
    expected.backward(dy if c else dy[0])
    assert inputs.grad is not None

    with th.no_grad():
        hand = mlp.mlp(net)
        y, tape = mlp.forward(hand, x)
        gradients = mlp.backward(hand, tape, dy)
        th.testing.assert_close(y, expected.view(dy.shape), rtol=1e-13, atol=1e-13)
        for first in (0, 2):
            d_input = mlp.backward_input(hand, tape, dy, first)
            th.testing.assert_close(d_input, inputs.grad[..., first:], rtol=1e-12, atol=1e-13)
        step = 1e-6
        for p, gradient in zip(net.parameters(), gradients, strict=True):
            th.testing.assert_close(gradient, p.grad, rtol=1e-12, atol=1e-13)
            # what optimizers that step element by element in memory rely on
            assert gradient.stride() == p.stride()
            flat, numeric = p.view(-1), th.empty(p.numel(), dtype=th.float64)
            for i in range(len(flat)):
                values = []
                for sign in (1, -1):
                    flat[i] += sign * step
                    values.append((dy * mlp.forward(hand, x)[0]).sum())
                    flat[i] -= sign * step
                numeric[i] = (values[0] - values[1]) / (2 * step)
            th.testing.assert_close(gradient.view(-1), numeric, rtol=1e-6, atol=1e-7)


def test_other_networks_are_not_plain():
    linear = nn.Linear(3, 3)
    for net in (
        linear,
        nn.Sequential(linear, nn.Softplus(), linear),
        nn.Sequential(linear, nn.GELU("tanh"), linear),
        nn.Sequential(linear, nn.GELU(), linear, nn.ReLU(), linear),
        nn.Sequential(linear, nn.ReLU(), linear, nn.ReLU()),
        nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), linear),
        nn.Sequential(linear, nn.ReLU(), nn.LayerNorm(3)),
    ):
        assert not mlp.is_plain(net)


# Updates of DSAC-T ---------------------------------------------------------------------------


class Noise(gym.Env):
    """Two-dimensional observations in float64, to be flattened; random rewards and ends."""

    def __init__(self):
        self.observation_space = spaces.Box(-1, 1, (2, 2), np.float64)
        self.action_space = spaces.Box(-2, 2, (3,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, (2, 2)), {}

    def step(self, action):
        obs, reward = self.np_random.uniform(-1, 1, (2, 2)), float(self.np_random.normal())
        return obs, reward, bool(self.np_random.random() < 0.1), False, {}


def filled(dtype: th.dtype = th.float32, net: dict | None = None, **kwargs) -> DSACT:
    """A model with 300 transitions and no update done, learning in `dtype`."""
    kwargs = {"policy_kwargs": {"net_arch": [16, 16, 16]} | (net or {}), "seed": 0} | kwargs
    model = DSACT("MlpPolicy", Noise(), learning_starts=10**9, device="cpu", **kwargs)
    model.learn(300)
    model.policy.to(dtype)
    assert model.replay_buffer is not None
    if dtype != th.float32:
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
    models = [filled(dtype, learning_rate=1e-3, **kwargs) for _ in range(2)]
    if dtype == th.float64:  # stable-baselines3 makes observations float32
        monkeypatch.setattr(
            "stable_baselines3.common.policies.preprocess_obs", lambda obs, *_, **__: obs
        )
    assert isinstance(models[0].networks, ByHand)
    models[1].networks = ByAutograd(models[1].policy)
    for model in models:
        set_random_seed(7)
        for _ in range(4):
            model.train(10, 64)
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


def test_which_networks_are_differentiated_by_hand():
    class OtherExtractor(FlattenExtractor):
        pass

    class OtherPolicy(DSACTPolicy):
        def make_critic(self):
            critic = super().make_critic()
            critic.net.insert(1, nn.LayerNorm(16))
            return critic

    def by_hand(policy: str | type[DSACTPolicy] = "MlpPolicy", **net):
        model = DSACT(policy, Noise(), policy_kwargs={"net_arch": [16]} | net, device="cpu")
        return isinstance(model.networks, ByHand)

    assert by_hand()
    assert by_hand(activation_fn=nn.ReLU)
    assert not by_hand(activation_fn=nn.Softplus)
    assert not by_hand(features_extractor_class=OtherExtractor)
    assert not by_hand(OtherPolicy)


@pytest.mark.parametrize("networks", [ByHand, ByAutograd])
def test_frozen_parameters_and_replaced_tensors(networks):
    model = filled()
    model.networks = networks(model.policy)
    model.train(1, 16)
    frozen, *others = model.critic.parameters()
    frozen.requires_grad_(False)
    for parameter in model.policy.parameters():
        parameter.data = parameter.data.clone()
    before = [p.clone() for p in (frozen, *others)]
    model.train(1, 16)
    assert th.equal(before[0], frozen)
    assert not any(th.equal(a, b) for a, b in zip(before[1:], others, strict=True))


# Compiled ------------------------------------------------------------------------------------


def test_what_cant_be_compiled_is_one_line(monkeypatch):
    def error(**net):
        with pytest.raises(ValueError, match=r"^compile: .*compile=False\)?$") as caught:
            DSACT("MlpPolicy", Noise(), policy_kwargs=net, device="cpu", compile=True)
        return str(caught.value)

    assert "only plain networks" in error(activation_fn=nn.Softplus)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "'no-such-compiler'" in error()
    monkeypatch.setenv("CXX", "ls")
    monkeypatch.setattr("sysconfig.get_path", lambda _: "/no/such/folder")
    assert "Python.h" in error()

    # On a GPU, which needn't be there to be asked about
    model = DSACT("MlpPolicy", Noise(), device="cpu")
    model.device = th.device("cuda")

    def cuda_error():
        with pytest.raises(ValueError, match=r"^compile: .*compile=False$") as caught:
            model._check_compile()
        return str(caught.value)

    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "install triton" in cuda_error()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: True)
    assert "Python.h" in cuda_error()
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert "no C compiler 'gcc' or 'clang' is found" in cuda_error()
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "no C compiler 'no-such-compiler'" in cuda_error()


def test_models_compile_one_after_the_other(monkeypatch):
    """As many as a sweep has in one process: torch alone gives up at the fifth."""
    compile = th.compile
    monkeypatch.setattr(th, "compile", lambda f, mode, **k: compile(f, backend="eager", **k))
    for n in range(5):
        filled(net={"net_arch": [8 + n]}, compile=True).train(2, 16)


@pytest.mark.slow
def test_compiled_gradients_are_the_eager_ones(tmp_path):
    """At both kinds of update; the trained model is saved and loaded, compiled or not."""
    model = filled(net={"net_arch": [16]}, compile=True)
    set_random_seed(7)
    model.train(2, 32)
    model.save(tmp_path / "model")
    eager = DSACT.load(tmp_path / "model", device="cpu", compile=False)
    assert eager.gradients == eager._gradients
    data = model.replay_buffer.sample(32)  # type: ignore[union-attr]
    noise = [th.randn(32, 3), th.randn(32, 1), th.randn(32, 3)]
    for delayed in (False, True):
        arguments = data, noise[: 2 + delayed], model.policy.log_alpha, model.policy.running_sigma
        with th.no_grad():
            a, b = (m.gradients(*arguments, delayed) for m in (model, eager))
        assert bool(a.actor) == bool(b.actor) == delayed
        assert a.logged.keys() == b.logged.keys()
        ours, theirs = (
            [*u.critic, u.running_sigma, *u.logged.values(), *u.actor, *[u.log_alpha] * delayed]
            for u in (a, b)
        )
        for compiled, reference in zip(ours, theirs, strict=True):
            th.testing.assert_close(compiled, reference, rtol=1e-4, atol=1e-6)
            assert compiled.stride() == reference.stride()
    eager.replay_buffer = model.replay_buffer
    eager._logger = model.logger
    for each in (model, eager):
        set_random_seed(8)
        each.train(2, 32)
    for name, tensor in state(model).items():
        th.testing.assert_close(tensor, state(eager)[name], rtol=1e-3, atol=1e-5)
    assert DSACT.load(tmp_path / "model", device="cpu").compile
