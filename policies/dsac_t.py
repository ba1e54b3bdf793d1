"""DSAC-T: distributional soft actor-critic with three refinements, for stable-baselines3.

Source: Duan, Wang, Xiao, Gao, S. E. Li, Liu, Zhang, Cheng, K. Li, "Distributional Soft
Actor-Critic with Three Refinements", arXiv 2310.05858 (IEEE TPAMI 47(5), 2025), and the authors'
release, github.com/Jingliang-Duan/DSAC-v2. The parent method is DSAC, arXiv 2001.02811.

The critic is a Gaussian over soft returns, Z(s, a) = N(Q(s, a), sigma(s, a)^2). Three refinements
make it stable and independent of the reward's scale:

R1  expected value substitution: the mean's target uses the target critic's mean, not a sample;
R2  twin value distributions: of two critics the one with the lower target mean gives the targets;
R3  variance-based adjustment: clipping range and gradient scale follow a running mean of sigma.

Symbols: C critics, B batch, A action dimensions; z a standard normal draw; m_i the running mean
of sigma_i; alpha the temperature; "bar" and ``_next`` mark values of target networks.
"""

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch as th
from gymnasium import spaces
from motoric.policies import mlp
from motoric.policies.mlp import MLP, BatchedLinear
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    create_mlp,
    get_actor_critic_arch,
)
from stable_baselines3.common.type_aliases import (
    GymEnv,
    MaybeCallback,
    PyTorchObs,
    ReplayBufferSamples,
    Schedule,
)
from stable_baselines3.common.utils import FloatSchedule, update_learning_rate
from torch import nn
from torch.nn import functional as F

# ---------------------------------------------------------------------------------------------
# Maths. Every function is exact in float64 and keeps no state.
# ---------------------------------------------------------------------------------------------


def squashed_log_prob(u: th.Tensor, mean: th.Tensor, log_std: th.Tensor) -> th.Tensor:
    """Log density of the squashed action tanh(u) with u ~ N(mean, exp(log_std)^2).

    The Jacobian term is 2 (log 2 - u - softplus(-2u)), which is exact for any u; the usual
    log(1 - tanh(u)^2 + 1e-6) is biased for |u| > 7. The density is per unit of an action in
    [-1, 1]; subtract sum log((high - low) / 2) for a density per unit of an action in
    [low, high].

    :param u: pre-squash actions ``[B, A]``
    :param mean: ``[B, A]``
    :param log_std: ``[B, A]``
    :return: log densities ``[B]``
    """
    normal = -0.5 * ((u - mean) / log_std.exp()) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
    jacobian = 2.0 * (np.log(2.0) - u - F.softplus(-2.0 * u))
    return (normal - jacobian).sum(dim=-1)


def soft_targets(
    reward: th.Tensor,
    discount: th.Tensor,
    q_next: th.Tensor,
    sigma_next: th.Tensor,
    logp_next: th.Tensor,
    alpha: th.Tensor,
    z: th.Tensor,
) -> tuple[th.Tensor, th.Tensor]:
    """Soft Bellman targets of the mean and of the return (R1, R2; arXiv 2310.05858).

    y_q = r + gamma (1 - terminated) (Qbar_j              - alpha logp')
    y_z = r + gamma (1 - terminated) (Qbar_j + z sigbar_j - alpha logp'),
    where j is, per sample, the critic with the lower mean. Samples play no part in the choice.

    :param reward: ``[B]``
    :param discount: gamma (or gamma^n), 0 where the episode terminated ``[B]``
    :param q_next: target means at (s', a') ``[C, B]``
    :param sigma_next: target deviations at (s', a') ``[C, B]``
    :param logp_next: log pi_bar(a'|s') ``[B]``
    :param alpha: temperature, a scalar
    :param z: standard normal draws ``[B]``
    :return: y_q and y_z, each ``[B]``
    """
    q_j, j = q_next.min(dim=0)
    sigma_j = sigma_next.gather(0, j.unsqueeze(0)).squeeze(0)
    entropy = alpha * logp_next
    return reward + discount * (q_j - entropy), reward + discount * (q_j + z * sigma_j - entropy)


def clipped_return(q: th.Tensor, y_z: th.Tensor, bound: th.Tensor | float) -> th.Tensor:
    """ytil_i = Q_i + clamp(y_z - Q_i, -bound, bound), around each critic's own online mean.

    :param q: online means ``[C, B]``
    :param y_z: return target ``[B]``
    :param bound: xi m_i ``[C, 1]``, or a constant in reward units
    :return: ytil ``[C, B]``
    """
    error = y_z - q
    if isinstance(bound, th.Tensor):
        return q + th.minimum(th.maximum(error, -bound), bound)
    return q + error.clamp(-bound, bound)


def gaussian_gradients(
    q: th.Tensor,
    sigma: th.Tensor,
    y_q: th.Tensor,
    y_clip: th.Tensor,
    omega: th.Tensor | float,
    eps: float,
) -> tuple[th.Tensor, th.Tensor]:
    """Per-sample gradients of the Gaussian critic loss (the paper's form).

    dL/dQ_i     = -omega_i (y_q - Q_i) / (sigma_i^2 + eps)
    dL/dsigma_i = -omega_i ((ytil_i - Q_i)^2 - sigma_i^2) / (sigma_i^3 + eps)

    :param q: online means ``[C, B]``
    :param sigma: online deviations ``[C, B]``
    :param y_q: target of the mean ``[B]``
    :param y_clip: clipped return target ``[C, B]``
    :param omega: m_i^2 + eps ``[C, 1]``, or 1 without R3
    :param eps: keeps the divisions finite; 0.1 in the paper
    :return: dL/dQ and dL/dsigma, each ``[C, B]``
    """
    variance = sigma * sigma
    d_q = omega * (q - y_q) / (variance + eps)
    d_sigma = omega * (variance - (y_clip - q) ** 2) / (variance * sigma + eps)
    return d_q, d_sigma


def huber_gradients(
    q: th.Tensor,
    sigma: th.Tensor,
    y_q: th.Tensor,
    y_clip: th.Tensor,
    omega: th.Tensor | float,
    eps: float,
    delta: float,
    rho_range: tuple[float, float],
) -> tuple[th.Tensor, th.Tensor]:
    """Per-sample gradients of the Huber critic loss (the authors' code since July 2025).

    rho_i       = clamp(omega_i / (sigma_i^2 + eps), *rho_range)
    dL/dQ_i     = -rho_i clamp(y_q - Q_i, -delta, delta)
    dL/dsigma_i =  rho_i (sigma_i^2 - H(ytil_i - Q_i)) / (sigma_i + eps)
    with H(x) the Huber function, x^2 / 2 for |x| <= delta. ``delta`` and ``rho_range`` carry
    reward units, and sigma settles at about 0.68 of the true deviation: do not read it as risk.

    :param omega: m_i^2 ``[C, 1]``, or 1 without R3
    :param delta: where the Huber function turns linear; 50 in the code
    :param rho_range: limits of the weight; (0.1, 10) in the code
    :return: dL/dQ and dL/dsigma, each ``[C, B]``; the other parameters are those of
        :func:`gaussian_gradients`
    """
    variance = sigma * sigma
    rho = (omega / (variance + eps)).clamp(*rho_range)
    x = y_clip - q
    huber = th.where(x.abs() <= delta, 0.5 * x * x, delta * (x.abs() - 0.5 * delta))
    d_q = rho * (q - y_q).clamp(-delta, delta)
    d_sigma = rho * (variance - huber) / (sigma + eps)
    return d_q, d_sigma


# ---------------------------------------------------------------------------------------------
# Networks
# ---------------------------------------------------------------------------------------------


class DSACTActor(BasePolicy):
    """Squashed Gaussian policy: one trunk with a linear head for mean and log deviation.

    :param net_arch: hidden layer sizes
    :param features_extractor: turns observations into ``[B, features_dim]``
    :param log_std_min: lower clamp of the log deviation
    :param log_std_max: upper clamp; outside the clamp the gradient is zero
    """

    action_space: spaces.Box

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        activation_fn: type[nn.Module] = nn.GELU,
        log_std_min: float = -20.0,
        log_std_max: float = 0.5,
        normalize_images: bool = True,
    ):
        super().__init__(
            observation_space,
            action_space,
            features_extractor=features_extractor,
            normalize_images=normalize_images,
            squash_output=True,
        )
        self.log_std_min = log_std_min
        self.log_std_max = log_std_max
        action_dim = int(np.prod(action_space.shape))
        self.net = nn.Sequential(*create_mlp(features_dim, 2 * action_dim, net_arch, activation_fn))

    def distribution(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
        """Mean and log deviation of the pre-squash action, each ``[B, A]``."""
        mean, log_std = self.net(self.extract_features(obs, self.features_extractor)).chunk(2, -1)
        return mean, log_std.clamp(self.log_std_min, self.log_std_max)

    def action_log_prob(
        self, obs: PyTorchObs, noise: th.Tensor | None = None
    ) -> tuple[th.Tensor, th.Tensor]:
        """A reparametrised action in [-1, 1], ``[B, A]``, and its log density there, ``[B]``.

        :param noise: standard normal draws ``[B, A]``; by default new ones
        """
        mean, log_std = self.distribution(obs)
        u = mean + log_std.exp() * (th.randn_like(mean) if noise is None else noise)
        return th.tanh(u), squashed_log_prob(u, mean, log_std)

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        mean, log_std = self.distribution(obs)
        u = mean if deterministic else mean + log_std.exp() * th.randn_like(mean)
        return th.tanh(u)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self(observation, deterministic)


class GaussianCritics(BaseModel):
    """C value distributions N(Q_i(s, a), sigma_i(s, a)^2), evaluated together.

    The critics share nothing but the features extractor, as in stable-baselines3.

    :param n_critics: C
    :param net_arch: hidden layer sizes of each critic
    """

    action_space: spaces.Box
    features_extractor: BaseFeaturesExtractor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        n_critics: int,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        activation_fn: type[nn.Module] = nn.GELU,
        normalize_images: bool = True,
    ):
        super().__init__(
            observation_space,
            action_space,
            features_extractor=features_extractor,
            normalize_images=normalize_images,
        )
        self.n_critics = n_critics
        sizes = [features_dim + int(np.prod(action_space.shape)), *net_arch]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [BatchedLinear(n_critics, n_in, n_out), activation_fn()]
        self.net = nn.Sequential(*layers, BatchedLinear(n_critics, sizes[-1], 2))

    def forward(self, obs: PyTorchObs, action: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Means and deviations at (s, a), each ``[C, B]``; actions ``[B, A]`` in [-1, 1]."""
        x = th.cat([self.extract_features(obs, self.features_extractor), action], dim=-1)
        out = self.net(x.expand(self.n_critics, -1, -1))
        return out[..., 0], F.softplus(out[..., 1])


class DSACTPolicy(BasePolicy):
    """Everything DSAC-T learns: actor, critics, their target copies, log alpha and m_i.

    Being one module, its ``state_dict`` is the whole learned state apart from the optimizers'.
    Targets follow parameters only: a features extractor with running statistics (batch
    normalisation) is not supported.

    :param net_arch: hidden layers of actor and critics, or ``dict(pi=[...], qf=[...])``
    :param activation_fn: hidden activation
    :param n_critics: 2; :class:`DSACT` makes it 1 without R2
    :param log_std_min: lower clamp of the actor's log deviation
    :param log_std_max: upper clamp; 0.5 limits the pre-squash deviation to 1.65
    :param optimizer_kwargs: by default ``fused=True`` with Adam
    """

    actor: DSACTActor
    actor_target: DSACTActor
    critic: GaussianCritics
    critic_target: GaussianCritics
    running_sigma: th.Tensor
    action_space: spaces.Box

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.GELU,
        n_critics: int = 2,
        log_std_min: float = -20.0,
        log_std_max: float = 0.5,
        features_extractor_class: type[BaseFeaturesExtractor] = FlattenExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ):
        if optimizer_kwargs is None and optimizer_class is th.optim.Adam:
            optimizer_kwargs = {"fused": True}
        super().__init__(
            observation_space,
            action_space,
            features_extractor_class,
            features_extractor_kwargs,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            squash_output=True,
            normalize_images=normalize_images,
        )
        self.net_arch = [256, 256, 256] if net_arch is None else net_arch
        self.activation_fn = activation_fn
        self.n_critics = n_critics
        self.log_std_min = log_std_min
        self.log_std_max = log_std_max

        self.actor, self.actor_target = self.make_actor(), self.make_actor()
        self.critic, self.critic_target = self.make_critic(), self.make_critic()
        for online, target in ((self.actor, self.actor_target), (self.critic, self.critic_target)):
            target.load_state_dict(online.state_dict())
            target.requires_grad_(False)
            target.set_training_mode(False)
        for model in (self.actor, self.critic):
            optimizer_kwargs = {"lr": lr_schedule(1)} | self.optimizer_kwargs
            model.optimizer = optimizer_class(model.parameters(), **optimizer_kwargs)
        self.log_alpha = nn.Parameter(th.zeros(()))
        # m_i, NaN until the first batch gives it a value
        self.register_buffer("running_sigma", th.full((n_critics, 1), th.nan))

    def make_actor(self) -> DSACTActor:
        return DSACTActor(
            self.observation_space,
            self.action_space,
            net_arch=get_actor_critic_arch(self.net_arch)[0],
            activation_fn=self.activation_fn,
            log_std_min=self.log_std_min,
            log_std_max=self.log_std_max,
            **self._update_features_extractor({"normalize_images": self.normalize_images}),
        )

    def make_critic(self) -> GaussianCritics:
        return GaussianCritics(
            self.observation_space,
            self.action_space,
            n_critics=self.n_critics,
            net_arch=get_actor_critic_arch(self.net_arch)[1],
            activation_fn=self.activation_fn,
            **self._update_features_extractor({"normalize_images": self.normalize_images}),
        )

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self.actor(obs, deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self.actor(observation, deterministic)

    def set_training_mode(self, mode: bool) -> None:
        """Switch actor and critics; the target networks always stay in evaluation mode."""
        self.actor.set_training_mode(mode)
        self.critic.set_training_mode(mode)
        self.training = mode

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {
            "lr_schedule": self._dummy_schedule,  # not needed to act
            "net_arch": self.net_arch,
            "activation_fn": self.activation_fn,
            "n_critics": self.n_critics,
            "log_std_min": self.log_std_min,
            "log_std_max": self.log_std_max,
            "features_extractor_class": self.features_extractor_class,
            "features_extractor_kwargs": self.features_extractor_kwargs,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }


class MultiInputPolicy(DSACTPolicy):
    """:class:`DSACTPolicy` for ``Dict`` observations."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        features_extractor_class: type[BaseFeaturesExtractor] = CombinedExtractor,
        **kwargs: Any,
    ):
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            features_extractor_class=features_extractor_class,
            **kwargs,
        )


# ---------------------------------------------------------------------------------------------
# What an update asks of the networks: values, and gradients pulled back through them
# ---------------------------------------------------------------------------------------------

Gradients = Sequence[th.Tensor | None]
"""One per parameter, None for those that don't take part"""


class Action(NamedTuple):
    """Reparametrised actions and how a loss's gradients go back from them."""

    action: th.Tensor
    """in [-1, 1], ``[B, A]``"""
    logp: th.Tensor
    """log density per unit of an action in [-1, 1], ``[B]``"""
    pullback: Callable[[th.Tensor, th.Tensor], Gradients]
    """gradients in action and logp to those of the actor's parameters"""


class Values(NamedTuple):
    """Value distributions and how a loss's gradients go back from them."""

    q: th.Tensor
    """means ``[C, B]``"""
    sigma: th.Tensor
    """deviations ``[C, B]``"""
    pullback: Callable[[th.Tensor, th.Tensor], Gradients]
    """gradients in q and sigma to those of the critics' parameters"""
    pullback_to_action: Callable[[th.Tensor], th.Tensor]
    """gradient in q to that in the action, ``[B, A]``"""


class Networks(Protocol):
    """Actor, critics and their targets, in whatever form the two methods take them."""

    actor: Any
    actor_target: Any
    critic: Any
    critic_target: Any

    def act(self, actor: Any, obs: Any, noise: th.Tensor) -> Action:
        """Actions for standard normal draws ``[B, A]``."""
        ...

    def evaluate(self, critic: Any, obs: Any, action: th.Tensor) -> Values:
        """Value distributions at (s, a); actions ``[B, A]`` in [-1, 1]."""
        ...


class ByHand:
    """Plain networks, differentiated without autograd (policies/mlp.py)."""

    def __init__(self, policy: DSACTPolicy):
        self.actor = mlp.mlp(policy.actor.net)
        self.actor_target = mlp.mlp(policy.actor_target.net)
        self.critic = mlp.mlp(policy.critic.net)
        self.critic_target = mlp.mlp(policy.critic_target.net)
        self.log_std_min, self.log_std_max = policy.actor.log_std_min, policy.actor.log_std_max

    @staticmethod
    def supports(policy: DSACTPolicy) -> bool:
        """Whether the networks are plain: flat observations, linear layers, one activation."""
        space, actor, critic = policy.observation_space, policy.actor, policy.critic
        return (
            type(actor) is DSACTActor
            and type(critic) is GaussianCritics
            and isinstance(space, spaces.Box)
            and not is_image_space(space)
            and type(actor.features_extractor) is FlattenExtractor
            and type(critic.features_extractor) is FlattenExtractor
            and mlp.is_plain(actor.net)
            and mlp.is_plain(critic.net)
        )

    def act(self, actor: MLP, obs: th.Tensor, noise: th.Tensor) -> Action:
        out, tape = mlp.forward(actor, obs.flatten(1).to(noise.dtype))
        mean, raw = out[0].chunk(2, -1)
        log_std = raw.clamp(self.log_std_min, self.log_std_max)
        deviation = log_std.exp() * noise
        u = mean + deviation
        action = th.tanh(u)

        def pullback(d_action: th.Tensor, d_logp: th.Tensor) -> Gradients:
            # dlogp/du = 2 tanh(u): with a reparametrised u the normal density has no other part
            d_u = d_action * (1.0 - action**2) + 2.0 * d_logp.unsqueeze(1) * action
            # u = mean + std noise, and logp has a term -log_std; the clamp stops the gradient
            free = (raw >= self.log_std_min) & (raw <= self.log_std_max)
            d_raw = (d_u * deviation - d_logp.unsqueeze(1)) * free
            return mlp.backward(actor, tape, th.cat([d_u, d_raw], dim=-1).unsqueeze(0))

        return Action(action, squashed_log_prob(u, mean, log_std), pullback)

    def evaluate(self, critic: MLP, obs: th.Tensor, action: th.Tensor) -> Values:
        obs = obs.flatten(1).to(action.dtype)
        out, tape = mlp.forward(critic, th.cat([obs, action], dim=1))
        q, raw = out[..., 0], out[..., 1]

        def pullback(d_q: th.Tensor, d_sigma: th.Tensor) -> Gradients:
            return mlp.backward(critic, tape, th.stack([d_q, d_sigma * raw.sigmoid()], dim=-1))

        def pullback_to_action(d_q: th.Tensor) -> th.Tensor:
            d_out = th.stack([d_q, th.zeros_like(d_q)], dim=-1)
            return mlp.backward_input(critic, tape, d_out, first=obs.shape[1]).sum(0)

        return Values(q, F.softplus(raw), pullback, pullback_to_action)


class ByAutograd:
    """The same for any networks, differentiated by autograd."""

    def __init__(self, policy: DSACTPolicy):
        self.actor, self.actor_target = policy.actor, policy.actor_target
        self.critic, self.critic_target = policy.critic, policy.critic_target

    def act(self, actor: DSACTActor, obs: PyTorchObs, noise: th.Tensor) -> Action:
        with th.enable_grad():
            outputs = actor.action_log_prob(obs, noise)

        def pullback(d_action: th.Tensor, d_logp: th.Tensor) -> Gradients:
            return _autograd(outputs, list(actor.parameters()), (d_action, d_logp))

        action, logp = (x.detach() for x in outputs)
        return Action(action, logp, pullback)

    def evaluate(self, critic: GaussianCritics, obs: PyTorchObs, action: th.Tensor) -> Values:
        with th.enable_grad():
            action = action.detach().requires_grad_()
            outputs = critic(obs, action)

        def pullback(d_q: th.Tensor, d_sigma: th.Tensor) -> Gradients:
            return _autograd(outputs, list(critic.parameters()), (d_q, d_sigma))

        def pullback_to_action(d_q: th.Tensor) -> th.Tensor:
            return th.autograd.grad(outputs[0], action, d_q)[0]

        q, sigma = (x.detach() for x in outputs)
        return Values(q, sigma, pullback, pullback_to_action)


def _autograd(
    outputs: tuple[th.Tensor, ...],
    parameters: list[nn.Parameter],
    d_outputs: tuple[th.Tensor, ...],
) -> Gradients:
    wanted = [p for p in parameters if p.requires_grad]
    found = iter(th.autograd.grad(outputs, wanted, d_outputs, allow_unused=True))
    return [next(found) if p.requires_grad else None for p in parameters]


# ---------------------------------------------------------------------------------------------
# Algorithm
# ---------------------------------------------------------------------------------------------


class Update(NamedTuple):
    """Gradients of one update; ``actor`` and ``log_alpha`` at every ``policy_delay``-th only."""

    critic: Gradients
    running_sigma: th.Tensor
    logged: dict[str, th.Tensor]
    actor: Gradients = ()
    log_alpha: th.Tensor | None = None


class DSACT(OffPolicyAlgorithm):
    """Distributional soft actor-critic with three refinements (DSAC-T, also called DSACv2).

    Source: arXiv 2310.05858 and github.com/Jingliang-Duan/DSAC-v2 (commit 53447f4). The defaults
    are the authors': 20 environment steps per update, an initial temperature of e, a warm-up
    with the initial policy. For the usual comparison at one update per step choose
    ``train_freq=1``, and ``log_alpha_init=0`` on tasks with small rewards or short runs. As in
    stable-baselines3, actions are learned in [-1, 1] and ``n_steps > 1`` adds no entropy bonus
    between the n steps.

    Each update trains the critics; every ``policy_delay``-th also steps actor, temperature and
    all target networks. The count runs over updates, not over calls of :meth:`train`.

    :param policy: ``"MlpPolicy"`` or ``"MultiInputPolicy"``
    :param env: environment with a bounded ``Box`` action space
    :param learning_rate: of the critics, and of the actor unless given; a number or a schedule
        of the remaining progress (1 to 0)
    :param actor_learning_rate: of the actor
    :param alpha_learning_rate: of log alpha
    :param buffer_size: transitions kept
    :param learning_starts: environment steps before the first update
    :param warmup: how to act until then: ``"policy"`` (the initial policy) or ``"uniform"``
    :param batch_size: B
    :param tau: Polyak factor of the target networks
    :param tau_b: factor of the running mean m_i of sigma_i
    :param gamma: discount per step
    :param train_freq: steps (per environment) between calls of :meth:`train`
    :param gradient_steps: updates per call; -1 for one per collected transition
    :param n_steps: length of the return before bootstrapping
    :param reward_scale: multiplies rewards when they are sampled, once; logs stay unscaled
    :param log_alpha_init: initial log temperature
    :param target_entropy: entropy the temperature aims at, in nat in ``entropy_unit``;
        ``"auto"`` is -A
    :param entropy_unit: ``"env"`` measures action densities in the environment's action units
        (the authors'); ``"normalized"`` in [-1, 1] (stable-baselines3's). They differ by
        sum log((high - low) / 2) when the limits are not +-1
    :param policy_delay: updates per step of actor, temperature and targets
    :param critic_loss: ``"gaussian"`` (the paper) or ``"huber"`` (the authors' later code)
    :param xi: clipping range of the return target in units of m_i
    :param eps: added to the denominators of the critic gradients
    :param z_clip: limit of the standard normal draw in the return target
    :param huber_delta: see :func:`huber_gradients`; for ``"huber"`` only
    :param rho_range: see :func:`huber_gradients`; for ``"huber"`` only
    :param expected_value_target: R1. Without it the mean also learns from the sampled return
    :param twin_critics: R2. Without it there is one critic
    :param variance_adjustment: R3. Without it the clipping range is ``td_bound``, the weight 1
    :param td_bound: clipping range in reward units, without R3 only
    :param compile: compile the computation of the gradients (torch.compile) at the first two
        updates, which takes some tens of seconds: with CUDA graphs on a GPU, on a CPU by the C++
        compiler. For plain networks only. ``DSACT.load(..., compile=False)`` goes on without
    :raises ValueError: for an unknown ``warmup``, ``entropy_unit`` or ``critic_loss``, or if what
        is to be compiled can't be
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": DSACTPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    policy: DSACTPolicy
    actor: DSACTActor  # type: ignore[assignment]
    actor_target: DSACTActor
    critic: GaussianCritics
    critic_target: GaussianCritics

    def __init__(
        self,
        policy: str | type[DSACTPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-4,
        actor_learning_rate: float | Schedule | None = None,
        alpha_learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 10_000,
        warmup: str = "policy",
        batch_size: int = 256,
        tau: float = 0.005,
        tau_b: float = 0.005,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 20,
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        reward_scale: float = 1.0,
        log_alpha_init: float = 1.0,
        target_entropy: str | float = "auto",
        entropy_unit: str = "env",
        policy_delay: int = 2,
        critic_loss: str = "gaussian",
        xi: float = 3.0,
        eps: float = 0.1,
        z_clip: float = 3.0,
        huber_delta: float = 50.0,
        rho_range: tuple[float, float] = (0.1, 10.0),
        expected_value_target: bool = True,
        twin_critics: bool = True,
        variance_adjustment: bool = True,
        td_bound: float = 1.0,
        compile: bool = False,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        if warmup not in ("policy", "uniform"):
            raise ValueError(f"warmup must be 'policy' or 'uniform', not {warmup!r}")
        if entropy_unit not in ("env", "normalized"):
            raise ValueError(f"entropy_unit must be 'env' or 'normalized', not {entropy_unit!r}")
        if critic_loss not in ("gaussian", "huber"):
            raise ValueError(f"critic_loss must be 'gaussian' or 'huber', not {critic_loss!r}")
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            tau,
            gamma,
            train_freq,
            gradient_steps,
            action_noise,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
            n_steps=n_steps,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=seed,
            sde_support=False,
            supported_action_spaces=(spaces.Box,),
            support_multi_env=True,
        )
        self.actor_learning_rate = actor_learning_rate
        self.alpha_learning_rate = alpha_learning_rate
        self.warmup = warmup
        self.tau_b = tau_b
        self.reward_scale = reward_scale
        self.log_alpha_init = log_alpha_init
        self.target_entropy = target_entropy
        self.entropy_unit = entropy_unit
        self.policy_delay = policy_delay
        self.critic_loss = critic_loss
        self.xi = xi
        self.eps = eps
        self.z_clip = z_clip
        self.huber_delta = huber_delta
        self.rho_range = rho_range
        self.expected_value_target = expected_value_target
        self.twin_critics = twin_critics
        self.variance_adjustment = variance_adjustment
        self.td_bound = td_bound
        self.compile = compile
        self._last_batch: dict[str, th.Tensor] = {}
        if _init_setup_model:
            self._setup_model()
            if compile:
                self._check_compile()

    def _setup_model(self) -> None:
        if not self.twin_critics:
            self.policy_kwargs = self.policy_kwargs | {"n_critics": 1}
        super()._setup_model()
        self.actor = self.policy.actor  # type: ignore[assignment]
        self.actor_target = self.policy.actor_target
        self.critic, self.critic_target = self.policy.critic, self.policy.critic_target
        self.networks: Networks = (
            ByHand(self.policy) if ByHand.supports(self.policy) else ByAutograd(self.policy)
        )
        self.gradients = self._gradients
        if self.compile:
            # torch keeps eight compiled forms of a function, and this has two per model. What is
            # compiled of other models is compiled once more when they go on.
            th.compiler.reset()
            mode = "reduce-overhead" if self.device.type == "cuda" else "default"
            self.gradients = th.compile(self._gradients, fullgraph=True, dynamic=False, mode=mode)
        self.online_parameters: list[th.Tensor] = [
            *self.actor.parameters(),
            *self.critic.parameters(),
        ]
        self.target_parameters: list[th.Tensor] = [
            *self.actor_target.parameters(),
            *self.critic_target.parameters(),
        ]
        self.actor_lr_schedule = FloatSchedule(
            self.learning_rate if self.actor_learning_rate is None else self.actor_learning_rate
        )
        self.alpha_lr_schedule = FloatSchedule(self.alpha_learning_rate)
        self.alpha_optimizer = th.optim.Adam([self.policy.log_alpha], lr=self.alpha_lr_schedule(1))
        with th.no_grad():
            self.policy.log_alpha.fill_(self.log_alpha_init)

        # log density in env units = log density in [-1, 1] - sum log((high - low) / 2)
        assert isinstance(self.action_space, spaces.Box)
        half_range = (self.action_space.high - self.action_space.low).astype(np.float64) / 2
        self.log_scale = float(np.log(half_range).sum()) if self.entropy_unit == "env" else 0.0
        if self.target_entropy == "auto":
            self.target_entropy = -float(np.prod(self.action_space.shape))
        self.target_entropy = float(self.target_entropy)
        if self.verbose >= 1:
            print(
                f"target entropy {self.target_entropy:.2f} nat in {self.entropy_unit} units, "
                f"{self.normalized_target_entropy:.2f} nat for actions in [-1, 1]"
            )

    @property
    def normalized_target_entropy(self) -> float:
        """The effective target entropy for actions in [-1, 1], in nat."""
        return float(self.target_entropy) - self.log_scale

    def _check_compile(self) -> None:
        """Raise ValueError, in one line, if the gradients can't be compiled here."""
        if not isinstance(self.networks, ByHand):
            raise ValueError(
                "compile: only plain networks can be compiled (flat observations, linear layers "
                f"with {', '.join(f.__name__ for f in mlp.ACTIVATIONS)}); try compile=False"
            )
        if self.device.type == "cuda":  # Triton, which itself needs a C compiler
            if importlib.util.find_spec("triton") is None:
                raise ValueError(
                    "compile: Triton, which compiles for a GPU, is not installed; install triton "
                    "or try compile=False"
                )
            language, variable, compilers = "C", "CC", ["gcc", "clang"]
        else:
            language, variable = "C++", "CXX"
            compilers = ["clang++" if sys.platform == "darwin" else "g++"]
        if variable in os.environ:
            compilers = [os.environ[variable]]
        if not any(shutil.which(compiler) for compiler in compilers):
            raise ValueError(
                f"compile: no {language} compiler {' or '.join(map(repr, compilers))} is found "
                f"(environment variable {variable}); install one or try compile=False"
            )
        header = Path(sysconfig.get_path("include")) / "Python.h"
        if not header.exists():
            raise ValueError(
                f"compile: {header} is missing; install Python's headers (python3-dev) or try "
                "compile=False"
            )

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        uniform_steps = learning_starts if self.warmup == "uniform" else 0
        return super()._sample_action(uniform_steps, action_noise, n_envs)

    @th.no_grad()
    def train(self, gradient_steps: int, batch_size: int = 256) -> None:
        """Sample the replay buffer and do ``gradient_steps`` updates."""
        assert self.replay_buffer is not None
        if isinstance(self.networks, ByAutograd):  # plain networks have no modes
            self.policy.set_training_mode(True)
        progress = self._current_progress_remaining
        update_learning_rate(self.critic.optimizer, self.lr_schedule(progress))
        update_learning_rate(self.actor.optimizer, self.actor_lr_schedule(progress))
        update_learning_rate(self.alpha_optimizer, self.alpha_lr_schedule(progress))
        log_alpha, m = self.policy.log_alpha, self.policy.running_sigma

        for _ in range(gradient_steps):
            data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            delayed = self._n_updates % self.policy_delay == 0
            noise = [th.randn_like(data.actions), th.randn_like(data.rewards)]
            if delayed:
                noise.append(th.randn_like(data.actions))
            if self.compile:
                th.compiler.cudagraph_mark_step_begin()
            update = self.gradients(data, noise, log_alpha, m, delayed)

            m.copy_(update.running_sigma)
            _set_gradients(self.critic, update.critic)
            self.critic.optimizer.step()
            if delayed:
                _set_gradients(self.actor, update.actor)
                self.actor.optimizer.step()
                log_alpha.grad = update.log_alpha
                self.alpha_optimizer.step()
                th._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
                    self.target_parameters, self.online_parameters, self.tau
                )
            self._n_updates += 1
            # clones: with CUDA graphs the next update writes where this one has written
            self._last_batch |= {name: value.clone() for name, value in update.logged.items()}

    def _gradients(
        self,
        data: ReplayBufferSamples,
        noise: list[th.Tensor],
        log_alpha: th.Tensor,
        m: th.Tensor,
        delayed: bool,
    ) -> "Update":
        """The gradients of one update: a function of tensors that changes none of them.

        :param data: B transitions
        :param noise: standard normal draws for the next actions ``[B, A]``, the return targets
            ``[B, 1]`` and, if `delayed`, the actions ``[B, A]``
        :param log_alpha: log temperature, a scalar
        :param m: m_i, ``[C, 1]``
        :param delayed: with those of actor and temperature
        """
        networks, batch_size = self.networks, len(data.rewards)
        gamma = self.gamma if data.discounts is None else data.discounts
        discount = (gamma * (1.0 - data.dones)).squeeze(1)
        reward = self.reward_scale * data.rewards.squeeze(1)
        alpha = log_alpha.exp()

        # Targets y_q, y_z from the target policy and the target critics
        next_ = networks.act(networks.actor_target, data.next_observations, noise[0])
        target = networks.evaluate(networks.critic_target, data.next_observations, next_.action)
        z = noise[1].squeeze(1).clamp(-self.z_clip, self.z_clip)
        next_logp = next_.logp - self.log_scale
        y_q, y_z = soft_targets(reward, discount, target.q, target.sigma, next_logp, alpha, z)
        if not self.expected_value_target:
            y_q = y_z

        # Critics: the gradients at (Q_i, sigma_i) are given
        q, sigma, pullback, _ = networks.evaluate(networks.critic, data.observations, data.actions)
        sigma_mean = sigma.mean(dim=1, keepdim=True)
        m = th.where(m.isnan(), sigma_mean, th.lerp(m, sigma_mean, self.tau_b))
        bound = self.xi * m if self.variance_adjustment else self.td_bound
        y_clip = clipped_return(q, y_z, bound)
        if self.critic_loss == "gaussian":
            omega = m**2 + self.eps if self.variance_adjustment else 1.0
            d_q, d_sigma = gaussian_gradients(q, sigma, y_q, y_clip, omega, self.eps)
        else:
            omega = m**2 if self.variance_adjustment else 1.0
            d_q, d_sigma = huber_gradients(
                q, sigma, y_q, y_clip, omega, self.eps, self.huber_delta, self.rho_range
            )
        d_critic = pullback(d_q / batch_size, d_sigma / batch_size)
        update = Update(d_critic, m, {"q": q, "sigma": sigma, "y_q": y_q})
        if not delayed:
            return update

        # Actor: mean[alpha log pi(a|s) - min_i Q_i(s, a)] with a reparametrised a, and the critics
        # as they are before their step. Temperature: -log_alpha mean[logp + H_target]
        act = networks.act(networks.actor, data.observations, noise[2])
        values = networks.evaluate(networks.critic, data.observations, act.action)
        lower = values.q.argmin(dim=0, keepdim=True)
        d_q = th.zeros_like(values.q).scatter(0, lower, -1.0 / batch_size)
        d_action = values.pullback_to_action(d_q)
        d_actor = act.pullback(d_action, (alpha / batch_size).expand(batch_size))
        logp = act.logp - self.log_scale
        d_log_alpha = -(logp.mean() + float(self.target_entropy))
        return update._replace(
            logged=update.logged | {"logp": logp}, actor=d_actor, log_alpha=d_log_alpha
        )

    def dump_logs(self) -> None:
        """Write log data: the latest batch's figures, entropies for actions in [-1, 1]."""
        if "logp" in self._last_batch:  # missing until the first actor step
            batch, progress = self._last_batch, self._current_progress_remaining
            td_error = batch["y_q"] - batch["q"]
            for name, value in {
                "q": batch["q"].mean(),
                "abs_td_error": td_error.abs().mean(),
                "sigma": batch["sigma"].mean(),
                "running_sigma": self.policy.running_sigma.mean(),
                "alpha": self.policy.log_alpha.exp(),
                "entropy": -batch["logp"].mean() - self.log_scale,
            }.items():
                self.logger.record(f"train/{name}", value.item())
            self.logger.record("train/target_entropy", self.normalized_target_entropy)
            self.logger.record("train/learning_rate", self.lr_schedule(progress))
            self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        super().dump_logs()

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "DSAC-T",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> "DSACT":
        return super().learn(
            total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar
        )

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "actor",
            "actor_target",
            "critic",
            "critic_target",
            "networks",
            "gradients",
            "online_parameters",
            "target_parameters",
            "_last_batch",
        ]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "actor.optimizer", "critic.optimizer", "alpha_optimizer"], []


def _set_gradients(network: nn.Module, gradients: Gradients) -> None:
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        parameter.grad = gradient if parameter.requires_grad else None
