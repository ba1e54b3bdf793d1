"""Proximal policy optimisation for robots with a left and a right side, fast on few CPU cores.

PPO as in Schulman et al., 2017 (arXiv 1707.06347) with generalised advantages (1506.02438) and time
limits bootstrapped. What is particular:

- **Mirror.** Where the environment says how it looks in a mirror (`Mirror`), the policy is
  symmetric exactly, in training and where it is exported. M mirrors observation and action. Where
  there is a gait clock, M shifts it by half a cycle, and the network pi only ever sees the half of
  the cycle with sin(phase) >= 0: the other half goes through M, and its action back. Near the two
  flips, a = (1 - b) pi(o) + b M pi(M o), b rising to 1/2 at the flip, so that actions are
  continuous. b is 1/2 where the clock stands still, and everywhere where there is none.
- **Two threads.** Actor and critic share nothing, so each is updated in a thread of its own.
- **Observations** are normalised by their running mean and deviation, which are part of the policy.

Symbols: T steps of N environments, O observation, A action, B minibatch.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch as th
from gymnasium import spaces
from motoric.policies.baselines import Baseline
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

ACTIVATIONS = {"elu": nn.ELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


# ---------------------------------------------------------------------------------------------
# Networks
# ---------------------------------------------------------------------------------------------


class Moments(nn.Module):
    """Running mean and variance of observations [..., O], and their normalisation by them."""

    def __init__(self, size: int, clip: float = 10.0) -> None:
        super().__init__()
        self.clip = clip
        self.mean: th.Tensor
        self.var: th.Tensor
        self.count: th.Tensor
        self.register_buffer("mean", th.zeros(size, dtype=th.float64))
        self.register_buffer("var", th.ones(size, dtype=th.float64))
        self.register_buffer("count", th.zeros((), dtype=th.float64))

    def update(self, x: th.Tensor) -> None:
        """Take in observations [..., O] (Chan et al., 1979)."""
        x = x.reshape(-1, x.shape[-1]).double()
        n, total = len(x), self.count + len(x)
        delta = x.mean(0) - self.mean
        spread = self.var * self.count + x.var(0, correction=0) * n
        self.var.copy_((spread + delta**2 * self.count * n / total) / total)
        self.mean.add_(delta * n / total)
        self.count.copy_(total)

    def forward(self, x: th.Tensor) -> th.Tensor:
        scaled = (x - self.mean.float()) * (self.var + 1e-8).rsqrt().float()
        return scaled.clamp(-self.clip, self.clip)


class Mirror(nn.Module):
    """Reflection of observations and actions: signed permutations that are their own inverse.

    observation, action: (indices, signs); clock: index of sin(phase) in the observation, whose
    cosine follows, both 0 where it stands still; None: there is no clock
    width: of the blend, cycles to each side of a flip
    """

    def __init__(
        self,
        observation: tuple[Any, Any],
        action: tuple[Any, Any],
        clock: int | None,
        width: float = 0.1,
    ) -> None:
        super().__init__()
        self.clock, self.width = clock, width
        for name, (index, sign) in (("obs", observation), ("act", action)):
            index, sign = th.as_tensor(index), th.as_tensor(sign, dtype=th.float32)
            back = (index[index] == th.arange(len(index))).all() and (sign * sign[index] == 1).all()
            if not back:
                raise ValueError(f"mirror: twice on the {name} is not the identity")
            self.register_buffer(f"{name}_index", index)
            self.register_buffer(f"{name}_sign", sign)

    def observation(self, x: th.Tensor) -> th.Tensor:
        return x[..., self.obs_index] * self.obs_sign  # type: ignore[index]

    def action(self, x: th.Tensor) -> th.Tensor:
        return x[..., self.act_index] * self.act_sign  # type: ignore[index]

    def flips(self, x: th.Tensor) -> th.Tensor:
        """Whether observations [B, O] are in the other half of the cycle, [B, 1]."""
        if self.clock is None:
            return th.zeros_like(x[:, :1], dtype=th.bool)
        return x[:, self.clock : self.clock + 1] < 0

    def blend(self, x: th.Tensor) -> th.Tensor:
        """Share b of the mirror image in the action, [B, 1]."""
        if self.clock is None:
            return th.full_like(x[:, :1], 0.5)
        clock = x[:, self.clock : self.clock + 2].abs()
        away = th.atan2(clock[:, :1], clock[:, 1:]) / (2 * th.pi)  # cycles to the next flip
        share = 0.5 * (1 - away / self.width).clamp(min=0)
        return th.where(clock.amax(1, keepdim=True) == 0, 0.5, share)


def network(sizes: list[int], activation: str, gain: float) -> nn.Sequential:
    """A multilayer perceptron with orthogonal weights; gain: of the last layer."""
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        last = i == len(sizes) - 2
        linear = nn.Linear(fan_in, fan_out)
        nn.init.orthogonal_(linear.weight, gain if last else 2**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear] if last else [linear, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


class Samples(NamedTuple):
    """Observations as the networks take them, all [B, ...]."""

    x: th.Tensor
    """canonical and normalised [B, O]"""
    twin: th.Tensor
    """the same, mirrored"""
    blend: th.Tensor
    """share of the twin [B, 1]"""
    flip: th.Tensor
    """whether x is the mirror image of what was observed [B, 1]"""


class MirrorPolicy(BasePolicy):
    """Gaussian actor and critic, symmetric where there is a mirror.

    lr_schedule: stable-baselines3's; mirror: arguments of `Mirror`, None: no symmetry
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        lr_schedule: Any,
        net_arch: list[int] | None = None,
        activation: str = "silu",
        log_std_init: float = -1.0,
        mirror: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(observation_space, action_space)
        size, actions = observation_space.shape[0], action_space.shape[0]
        hidden = net_arch or [128, 128]
        self.mirror = None if mirror is None else Mirror(**mirror)
        self.moments = Moments(size)
        self.actor = network([size, *hidden, actions], activation, 0.01)
        self.critic = network([size, *hidden, 1], activation, 1.0)
        self.log_std = nn.Parameter(th.full((actions,), log_std_init))
        rate = lr_schedule(1.0)
        self.actor_optimizer = th.optim.Adam(self.actor_parameters(), rate, eps=1e-5, fused=True)
        self.critic_optimizer = th.optim.Adam(self.critic.parameters(), rate, eps=1e-5, fused=True)

    def actor_parameters(self) -> list[nn.Parameter]:
        return [*self.actor.parameters(), self.log_std]

    def deviation(self) -> th.Tensor:
        """log sigma of the actions, the same for both of a mirrored pair, [A]."""
        if self.mirror is None:
            return self.log_std
        return 0.5 * (self.log_std + self.log_std[self.mirror.act_index])  # type: ignore[index]

    def samples(self, obs: th.Tensor) -> Samples:
        if self.mirror is None:
            x, none = self.moments(obs), th.zeros_like(obs[:, :1])
            return Samples(x, x, none, none.bool())
        flip = self.mirror.flips(obs)
        canonical = th.where(flip, self.mirror.observation(obs), obs)
        twin = self.mirror.observation(canonical)
        return Samples(self.moments(canonical), self.moments(twin), self.mirror.blend(obs), flip)

    def means(self, s: Samples, near: th.Tensor | None = None) -> th.Tensor:
        """Mean actions of the canonical observations [B, A].

        near: indices of the rows that have a share of their twin; None: all are computed
        """
        if self.mirror is None:
            return self.actor(s.x)
        if near is None:
            mean, twin = self.actor(s.x), self.mirror.action(self.actor(s.twin))
            return mean + s.blend * (twin - mean)
        out = self.actor(th.cat([s.x, s.twin[near]]))
        mean, twin = out[: len(s.x)], self.mirror.action(out[len(s.x) :])
        return mean.index_add(0, near, s.blend[near] * (twin - mean[near]))

    def forward(self, obs: th.Tensor, deterministic: bool = False) -> th.Tensor:
        """Actions [B, A], neither clipped nor scaled."""
        s = self.samples(obs)
        mean = self.means(s)
        if self.mirror is not None:
            mean = th.where(s.flip, self.mirror.action(mean), mean)
        if deterministic:
            return mean
        return mean + self.deviation().exp() * th.randn_like(mean)

    def _predict(self, observation: Any, deterministic: bool = False) -> th.Tensor:
        return self(observation, deterministic)

    def predict_values(self, obs: th.Tensor) -> th.Tensor:
        """V(o), [B, 1]."""
        return self.critic(self.samples(obs).x)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        raise NotImplementedError("MirrorPolicy.save: save the algorithm")


# ---------------------------------------------------------------------------------------------
# Equations
# ---------------------------------------------------------------------------------------------


def log_probability(action: th.Tensor, mean: th.Tensor, log_std: th.Tensor) -> th.Tensor:
    """log N(action; mean, sigma) without its constant, [B]."""
    return (-0.5 * ((action - mean) * (-log_std).exp()) ** 2 - log_std).sum(-1)


def surrogate(log_prob: th.Tensor, old: th.Tensor, advantage: th.Tensor, clip: float) -> th.Tensor:
    """The clipped objective, equation (7), to be minimised."""
    ratio = (log_prob - old).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return -th.min(ratio * advantage, clipped * advantage).mean()


def advantages(
    reward: NDArray[np.float32],
    value: NDArray[np.float32],
    done: NDArray[np.bool_],
    gamma: float,
    lam: float,
) -> NDArray[np.float32]:
    """Generalised advantages [T, N] of rewards [T, N] and values [T + 1, N].

    done [T, N]: the episode ended with that step, and what its time limit cut off is already in
    the reward
    """
    found, last = np.zeros_like(reward), np.zeros_like(reward[0])
    for t in reversed(range(len(reward))):
        goes_on = 1.0 - done[t]
        delta = reward[t] + gamma * goes_on * value[t + 1] - value[t]
        found[t] = last = delta + gamma * lam * goes_on * last
    return found


# ---------------------------------------------------------------------------------------------
# Algorithm
# ---------------------------------------------------------------------------------------------

ROLLOUT = ("obs", "actions", "rewards", "dones")  # attributes that the last rollout is in


class MirrorPPO(OnPolicyAlgorithm):
    """Arguments as those of stable-baselines3's PPO.

    Only flat continuous observations and continuous actions.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": MirrorPolicy}

    def __init__(
        self,
        policy: str | type[MirrorPolicy],
        env: Any,
        learning_rate: Any = 1e-3,
        n_steps: int = 24,
        batch_size: int = 1536,
        n_epochs: int = 5,
        gamma: float = 0.97,
        gae_lambda: float = 0.95,
        clip_range: float = 0.2,
        ent_coef: float = 0.0,
        max_grad_norm: float = 1.0,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            cast(Any, policy), env, learning_rate, n_steps, gamma, gae_lambda, ent_coef, 1.0,
            max_grad_norm,
            use_sde=False, sde_sample_freq=-1, stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log, policy_kwargs=policy_kwargs, verbose=verbose,
            seed=seed, device=device, _init_setup_model=False,
            supported_action_spaces=(spaces.Box,),
        )  # fmt: skip
        self.batch_size, self.n_epochs, self.clip_range = batch_size, n_epochs, clip_range
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self.rollout_buffer = None  # type: ignore[assignment]  # arrays of this class take its place
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        space = self.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"policy: needs flat observations, not {space}")
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
        ).to(self.device)

    @property
    def networks(self) -> MirrorPolicy:
        """The policy, as what it is."""
        return cast(MirrorPolicy, self.policy)

    # ---- experience

    def collect_rollouts(  # type: ignore[override]
        self, env: Any, callback: BaseCallback, rollout_buffer: Any, n_rollout_steps: int
    ) -> bool:
        """Act for T steps; False where the callback ends the training."""
        steps, n, acts = n_rollout_steps, env.num_envs, cast(spaces.Box, self.action_space)
        last: Any = self._last_obs
        self.obs = np.zeros((steps + 1, *last.shape), np.float32)
        self.actions = np.zeros((steps, n, *acts.shape), np.float32)
        self.rewards, self.dones = np.zeros((steps, n), np.float32), np.zeros((steps, n), bool)
        cut: list[tuple[int, int, NDArray]] = []  # step, environment, last observation
        callback.on_rollout_start()
        for t in range(steps):
            self.obs[t] = last
            with th.no_grad():
                self.actions[t] = self.networks(self._tensor(self.obs[t])).cpu().numpy()
            last, self.rewards[t], dones, infos = env.step(
                np.clip(self.actions[t], acts.low, acts.high)
            )
            self.dones[t] = dones
            self.num_timesteps += n
            callback.update_locals(locals())
            if not callback.on_step():
                return False
            if dones.any():
                self._update_info_buffer(infos, dones)
                cut += [
                    (t, int(i), infos[i]["terminal_observation"])
                    for i in np.flatnonzero(dones)
                    if infos[i].get("TimeLimit.truncated", False)
                ]
            self._last_obs, self._last_episode_starts = last, dones
        self.obs[steps] = last
        if cut:
            where = tuple(np.array([(t, i) for t, i, _ in cut]).T)
            ends = self._tensor(np.stack([obs for _, _, obs in cut]).astype(np.float32))
            with th.no_grad():
                value = self.networks.predict_values(ends)[:, 0].cpu().numpy()
            self.rewards[where] += self.gamma * value
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _tensor(self, array: NDArray) -> th.Tensor:
        return th.from_numpy(array).to(self.device)

    # ---- update

    def train(self) -> None:
        """Update actor and critic with the last rollout."""
        policy, steps = self.networks, len(self.rewards)
        with th.no_grad():
            s = policy.samples(self._tensor(self.obs.reshape(-1, self.obs.shape[-1])))
            value = policy.critic(s.x).view(steps + 1, -1).cpu().numpy()
            found = advantages(self.rewards, value, self.dones, self.gamma, self.gae_lambda)
            size = found.size
            s = Samples(*(item[:size] for item in s))
            returns = self._tensor(found + value[:-1]).view(-1)
            advantage = self._tensor(found).view(-1)
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            action = self._tensor(self.actions).view(size, -1)
            if policy.mirror is not None:
                action = th.where(s.flip, policy.mirror.action(action), action)
            old = log_probability(action, policy.means(s), policy.deviation())
        self._update_learning_rate([policy.actor_optimizer, policy.critic_optimizer])
        batches = [
            batch
            for _ in range(self.n_epochs)
            for batch in th.randperm(size, device=self.device).split(self.batch_size)
        ]
        if self.device.type == "cpu":
            with ThreadPoolExecutor(1) as pool:
                critic = pool.submit(self._fit_critic, s, returns, batches)
                losses = self._fit_actor(s, action, old, advantage, batches)
                value_loss = critic.result()
        else:
            losses = self._fit_actor(s, action, old, advantage, batches)
            value_loss = self._fit_critic(s, returns, batches)
        canonical = self._tensor(self.obs[:-1].reshape(size, -1))
        if policy.mirror is not None:
            canonical = th.where(s.flip, policy.mirror.observation(canonical), canonical)
        policy.moments.update(canonical)
        self._n_updates += self.n_epochs
        for name, number in (*losses.items(), ("value_loss", value_loss)):
            self.logger.record(f"train/{name}", number)
        self.logger.record("train/std", float(policy.deviation().detach().exp().mean()))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _fit_actor(
        self,
        s: Samples,
        action: th.Tensor,
        old: th.Tensor,
        advantage: th.Tensor,
        batches: list[th.Tensor],
    ) -> dict[str, float]:
        policy, parameters = self.networks, self.networks.actor_parameters()
        total_loss = total_kl = 0.0
        for batch in batches:
            part = Samples(*(item[batch] for item in s))
            near = part.blend[:, 0].nonzero()[:, 0]
            log_std = policy.deviation()
            log_prob = log_probability(action[batch], policy.means(part, near), log_std)
            loss = surrogate(log_prob, old[batch], advantage[batch], self.clip_range)
            if self.ent_coef:
                loss = loss - self.ent_coef * log_std.sum()
            policy.actor_optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
            policy.actor_optimizer.step()
            with th.no_grad():
                change = log_prob - old[batch]
                total_kl += float((change.exp() - 1 - change).mean())
                total_loss += float(loss)
        n = len(batches)
        return {"policy_gradient_loss": total_loss / n, "approx_kl": total_kl / n}

    def _fit_critic(self, s: Samples, returns: th.Tensor, batches: list[th.Tensor]) -> float:
        policy, parameters = self.networks, list(self.networks.critic.parameters())
        total = 0.0
        for batch in batches:
            loss = nn.functional.mse_loss(policy.critic(s.x[batch])[:, 0], returns[batch])
            policy.critic_optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
            policy.critic_optimizer.step()
            total += float(loss.detach())
        return total / len(batches)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), *ROLLOUT]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.actor_optimizer", "policy.critic_optimizer"], []


def mirror_ppo(config: Any, env: VecEnv | None, data: Any, seed: int, device: str) -> Baseline:
    """The learner of a configuration. Raises ValueError."""
    if env is None or data is not None:
        raise ValueError(f"policy: {config.name!r} learns from an environment's steps alone")
    for what, space in (("observations", env.observation_space), ("actions", env.action_space)):
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(
                f"policy: {config.name!r} needs {what} that are a row of numbers, the environment "
                f"has {space}; try policy=ppo"
            )
    mirror = mirror_of(env) if config.mirror else None
    start, end = config.learning_rate, config.learning_rate_end
    model = MirrorPPO(
        "MlpPolicy",
        env,
        learning_rate=lambda left: end + (start - end) * left,
        n_steps=config.n_steps,
        batch_size=config.batch_size,
        n_epochs=config.n_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        ent_coef=config.ent_coef,
        max_grad_norm=config.max_grad_norm,
        policy_kwargs={
            "net_arch": list(config.net_arch),
            "activation": config.activation,
            "log_std_init": config.log_std_init,
            "mirror": None if mirror is None else mirror | {"width": config.blend},
        },
        seed=seed,
        device=device,
    )
    return Baseline(model)


def mirror_of(env: VecEnv) -> dict[str, Any] | None:
    """What the environments say of their mirror image; None: nothing."""
    try:
        return env.get_attr("mirror", [0])[0]
    except AttributeError:
        return None
