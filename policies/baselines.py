"""stable-baselines3's algorithms as learners: its own, and ours on its contract.

`Baseline` asks an algorithm only for what `BaseAlgorithm` and `BasePolicy` have: `learn`,
`predict`, `_predict`, `_get_torch_save_params`. Below are the functions that turn a configuration
into one.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, cast

import numpy as np
import torch as th
from gymnasium import spaces
from motoric.policies.contract import (
    Exported,
    Learner,
    Network,
    Observations,
    Runs,
    State,
    Tensor,
    draw,
    half_range,
    inputs_of,
    tensor_of,
)
from motoric.policies.dsac_t import DSACT
from motoric.policies.replay import DeviceReplayBuffer
from numpy.typing import NDArray
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.noise import ActionNoise, NormalActionNoise
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, VecTransposeImage
from torch import nn

# ---------------------------------------------------------------------------------------------
# Any algorithm
# ---------------------------------------------------------------------------------------------


class Baseline(Learner):
    """One of stable-baselines3's algorithms, with its environments.

    Of an algorithm's state are taken: what it names in `_get_torch_save_params`; all numbers,
    arrays and tensors among its attributes, in whatever lists and dicts; the same of its replay
    buffer, action noise and normaliser; the generator of its action space. An algorithm that keeps
    anything else adds it in `state` and `load_state`.
    """

    def __init__(self, model: BaseAlgorithm) -> None:
        self.model, self.device = model, model.device
        self._said: dict[str, float] = {}
        model.set_logger(Logger(None, [_Kept(self._said)]))

    @property
    def done(self) -> int:
        return self.model.num_timesteps

    def learn(self, total: int, between: Callable[[], None]) -> None:
        # reset_num_timesteps=True would say nothing more of a model that is new
        self.model.learn(
            total - self.done, _Between(between), log_interval=cast(int, None),
            reset_num_timesteps=False,
        )  # fmt: skip

    def metrics(self) -> dict[str, float]:
        dump: Callable[..., None] = self.model.dump_logs  # type: ignore[attr-defined]
        if hasattr(self.model, "rollout_buffer"):
            dump(0)
        else:
            dump()
        said = dict(self._said)
        self._said.clear()
        return said

    def is_finite(self) -> bool:
        return all(bool(p.isfinite().all()) for p in self.model.policy.parameters())

    def advice(self, total: int) -> str | None:
        buffer = getattr(self.model, "rollout_buffer", None)
        if buffer is None or 10 * buffer.buffer_size * buffer.n_envs <= total:
            return None
        steps = buffer.buffer_size * buffer.n_envs
        return (
            f"policy.n_steps: {buffer.buffer_size} steps of {buffer.n_envs} environments are "
            f"{steps:,} per update, {-(-total // steps)} updates in all; a smaller one learns "
            "sooner"
        )

    # -- state ------------------------------------------------------------------------------

    def _parts(self) -> dict[str, Any]:
        """What has attributes that are its state."""
        model = self.model
        parts = {
            "replay": getattr(model, "replay_buffer", None),
            "normaliser": model.get_vec_normalize_env(),
        }
        return {name: part for name, part in parts.items() if part is not None}

    def _attributes(self) -> dict[str, Any]:
        """The algorithm's own, without what is saved in other ways or, as it says, not at all."""
        names, variables = self.model._get_torch_save_params()
        left = {*self.model._excluded_save_params(), *variables}
        left |= {name.partition(".")[0] for name in names}
        return {k: v for k, v in vars(self.model).items() if k not in left}

    def state(self) -> State:
        model = self.model
        variables = model._get_torch_save_params()[1]
        state = State({
            "parameters": model.get_parameters(),
            "variables": {name: _attribute(model, name).detach() for name in variables},
        })  # fmt: skip
        kept = {"algorithm": _Saving(state).fields(self._attributes(), "algorithm")}
        for name, part in self._parts().items():
            kept[name] = _Saving(state).of(part, name)
        state.values = {
            "kept": kept,
            "action_space": model.action_space.np_random.bit_generator.state,
        }
        return state

    def load_state(self, state: State) -> None:
        # Networks and optimisers move to their device what belongs there. Adam's count of steps
        # does not: read from a GPU at every step, it would hold the step up.
        model, kept = self.model, state.values["kept"]
        model.set_parameters(state.tensors["parameters"], exact_match=True, device=model.device)
        for name, value in state.tensors["variables"].items():
            _attribute(model, name).data.copy_(value)
        loading = _Loading(state)
        vars(model).update(loading.fields(self._attributes(), kept["algorithm"]))
        for name, part in self._parts().items():
            loading.of(part, kept[name])
        model.action_space.np_random.bit_generator.state = state.values["action_space"]

    def restart(self, seed: int) -> None:
        model, env = self.model, self.model.get_env()
        assert env is not None
        buffer: Any = getattr(model, "replay_buffer", None)
        if buffer is not None and buffer.size():
            # The interrupted episodes end here; n-step returns must not run into the next ones.
            # Those that terminated did so: no timeout, which would be bootstrapped.
            last = buffer.pos - 1
            buffer.timeouts[last] = 1.0 - buffer.dones[last] * (1.0 - buffer.timeouts[last])
        env.seed(seed)
        model._last_obs = env.reset()  # type: ignore[assignment]
        model._last_episode_starts = np.ones(env.num_envs, dtype=bool)
        normaliser = model.get_vec_normalize_env()
        if normaliser is not None:
            model._last_original_obs = normaliser.get_original_obs()

    # -- export -----------------------------------------------------------------------------

    @property
    def observation_space(self) -> spaces.Space:
        """What the environment itself gives: stable-baselines3 moves the channels of images."""
        env = self.model.get_env()
        moved = isinstance(env, VecTransposeImage)
        return env.venv.observation_space if moved else self.model.observation_space

    @property
    def action(self) -> Tensor:
        space = self.model.action_space
        return Tensor(
            "action", tuple(space.shape or ()),
            "float32" if isinstance(space, spaces.Box) else "int64",
        )  # fmt: skip

    def exported(self) -> Exported:
        space = self.model.action_space
        box = space if isinstance(space, spaces.Box) else None
        inputs = [tensor_of(name, s) for name, s in inputs_of(self.observation_space).items()]
        return Exported(
            (Network("policy", Deterministic(self), tuple(inputs), (self.action,)),),
            self.action,
            None if box is None else box.low.ravel(),
            None if box is None else box.high.ravel(),
            normalisation=self._normalisation(),
        )

    def _means(self) -> dict[str, RunningMeanStd]:
        """Statistics of the observations that are normalised."""
        normaliser = self.model.get_vec_normalize_env()
        if normaliser is None or not normaliser.norm_obs:
            return {}
        rms = normaliser.obs_rms
        return dict(rms) if isinstance(rms, dict) else {"observation": rms}

    def _normalisation(self) -> dict[str, Any] | None:
        normaliser, means = self.model.get_vec_normalize_env(), self._means()
        if normaliser is None or not means:
            return None
        return {"epsilon": normaliser.epsilon, "clip": normaliser.clip_obs} | {
            name: {"mean": rms.mean.tolist(), "var": rms.var.tolist()}
            for name, rms in means.items()
        }

    def observations(self, count: int, seed: int) -> Observations:
        """Random ones, raw, around what training met."""
        means, random = self._means(), np.random.default_rng(seed)
        return {
            name: draw(
                space, count, random,
                *((means[name].mean, np.sqrt(means[name].var)) if name in means else ()),
            )
            for name, space in inputs_of(self.observation_space).items()
        }  # fmt: skip

    def _as_trained(self, observations: Observations) -> Any:
        """Raw observations as the training policy takes them."""
        one = not isinstance(self.model.observation_space, spaces.Dict)
        obs: Any = observations["observation"] if one else observations
        normaliser = self.model.get_vec_normalize_env()
        return obs if normaliser is None else normaliser.normalize_obs(obs)

    def difference(self, run: Runs, count: int) -> float:
        """Of discrete actions, the log-probability that the exported one has less than the
        policy's own: two may be equally good to the last bit, and then rounding chooses."""
        batches = (self.observations(1000, seed) for seed in range(-(-count // 1000)))
        found = [self._difference(run, observations) for observations in batches]
        return float(np.max(found))  # NaN where one of them is

    def _difference(self, run: Runs, observations: Observations) -> float:
        actions = run("policy", observations)["action"]
        seen, space = self._as_trained(observations), self.model.action_space
        wanted = self.model.predict(seen, deterministic=True)[0]
        if isinstance(space, spaces.Box):
            difference = np.abs(actions.astype(np.float64) - wanted)
            return float((difference / half_range(space)).max())
        policy: Any = self.model.policy
        with th.no_grad():
            distribution = policy.get_distribution(policy.obs_to_tensor(seen)[0])
            best, exported = (
                distribution.log_prob(th.as_tensor(chosen, dtype=th.float32, device=self.device))
                for chosen in (wanted, actions)
            )
        return float((best - exported).abs().max())


class Deterministic(nn.Module):
    """Raw observations in, the policy's deterministic actions out, as `predict` gives them."""

    low: th.Tensor
    high: th.Tensor

    def __init__(self, baseline: Baseline) -> None:
        super().__init__()
        model = baseline.model
        self.policy, self.action_space = model.policy, model.action_space
        self.is_dict = isinstance(model.observation_space, spaces.Dict)
        trained, given = inputs_of(model.observation_space), inputs_of(baseline.observation_space)
        self.names = list(given)
        self.images = [name for name in given if trained[name].shape != given[name].shape]
        normaliser, means = model.get_vec_normalize_env(), baseline._means()
        self.normalised = list(means)
        self.clip = 0.0 if normaliser is None else normaliser.clip_obs
        for name, rms in means.items():
            assert normaliser is not None
            self.register_buffer(f"mean_{name}", th.tensor(rms.mean))
            deviation = th.tensor(rms.var + normaliser.epsilon).sqrt()
            self.register_buffer(f"deviation_{name}", deviation)
        if isinstance(self.action_space, spaces.Box):
            self.register_buffer("low", th.tensor(self.action_space.low))
            self.register_buffer("high", th.tensor(self.action_space.high))

    def seen(self, observations: tuple[th.Tensor, ...]) -> Any:
        """Raw observations as the policy takes them."""
        values = {}
        for name, value in zip(self.names, observations, strict=True):
            if name in self.normalised:  # in float64, as VecNormalize does
                value = value.double() - getattr(self, f"mean_{name}")
                value = value / getattr(self, f"deviation_{name}")
                value = value.clamp(-self.clip, self.clip).float()
            values[name] = value.permute(0, 3, 1, 2) if name in self.images else value
        return values if self.is_dict else values["observation"]

    def forward(self, *observations: th.Tensor) -> th.Tensor:
        return self.scaled(self.policy._predict(self.seen(observations), deterministic=True))

    def scaled(self, action: th.Tensor) -> th.Tensor:
        """A policy's output as `predict` brings it into the action space."""
        action = action.reshape(-1, *(self.action_space.shape or ()))
        if not isinstance(self.action_space, spaces.Box):
            return action.long()
        if self.policy.squash_output:
            return self.low + 0.5 * (action + 1.0) * (self.high - self.low)
        return th.clamp(action, self.low, self.high)


class _Between(BaseCallback):
    """Before a rollout begins nothing is half done."""

    def __init__(self, between: Callable[[], None]) -> None:
        super().__init__()
        self.between = between

    def _on_rollout_start(self) -> None:
        self.between()

    def _on_step(self) -> bool:
        return True


class _Kept(KVWriter):
    """Keeps what an algorithm logs."""

    def __init__(self, values: dict[str, float]) -> None:
        self.values = values

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        for key, value in key_values.items():
            if isinstance(value, bool | int | float) or getattr(value, "ndim", None) == 0:
                self.values[key] = float(value)

    def close(self) -> None:
        return


def _attribute(model: BaseAlgorithm, name: str) -> Any:
    return reduce(getattr, name.split("."), model)


# -- attributes as plain data ----------------------------------------------------------------------

STATEFUL = (BaseBuffer, ActionNoise, RunningMeanStd, VecNormalize)  # whose attributes are state
UNKNOWN = object()


def _fields_of(thing: Any) -> dict[str, Any]:
    """An object's own attributes: what it gives to pickle."""
    if isinstance(thing, VecNormalize):
        names = ("obs_rms", "ret_rms", "returns")
        return {name: getattr(thing, name) for name in names if hasattr(thing, name)}
    return dict(thing.__getstate__())


def _filled(owner: Any, array: Any) -> Any:
    """The part of a buffer's array that has been written."""
    if isinstance(owner, BaseBuffer) and array.ndim and len(array) == owner.buffer_size:
        return array[: owner.size()]
    return array


class _Saving:
    """Turns values into JSON that names the arrays of a `State`.

    Lists become ["list", items], and so with tuples, deques and dicts. What is neither plain nor
    of `STATEFUL` is left out, with what it is in.
    """

    def __init__(self, state: State) -> None:
        self.arrays = state.arrays

    def fields(self, values: Mapping[str, Any], path: str, owner: Any = None) -> dict[str, Any]:
        saved = {key: self.of(value, f"{path}/{key}", owner) for key, value in values.items()}
        return {key: value for key, value in saved.items() if value is not UNKNOWN}

    def of(self, value: Any, path: str, owner: Any = None) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, STATEFUL):
            return ["object", self.fields(_fields_of(value), path, value)]
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            saved = self.fields(value, path, owner)
            return ["dict", saved] if len(saved) == len(value) else UNKNOWN
        if isinstance(value, list | tuple | deque):
            items = [self.of(item, f"{path}/{i}", owner) for i, item in enumerate(value)]
            if any(item is UNKNOWN for item in items):
                return UNKNOWN
            if isinstance(value, deque):
                return ["deque", [value.maxlen, items]]
            return ["list" if isinstance(value, list) else "tuple", items]
        if isinstance(value, th.Tensor) and not isinstance(value, nn.Parameter):
            self.arrays[path] = _filled(owner, value.detach()).numpy(force=True)
            return ["array", path]
        if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
            self.arrays[path] = np.asarray(_filled(owner, value))
            return ["array", path]
        return UNKNOWN


class _Loading:
    """Turns what `_Saving` has saved back; objects, tensors and a buffer's arrays stay the same."""

    def __init__(self, state: State) -> None:
        self.arrays = state.arrays

    def fields(self, now: Mapping[str, Any], saved: Mapping[str, Any], owner: Any = None) -> dict:
        return {key: self.of(now.get(key), value, owner) for key, value in saved.items()}

    def of(self, now: Any, saved: Any, owner: Any = None) -> Any:
        if not isinstance(saved, list):
            return saved
        kind, inside = saved
        if kind == "array":
            return self._array(now, self.arrays[inside], owner)
        if kind == "object":
            vars(now).update(self.fields(_fields_of(now), inside, now))
            return now
        if kind == "dict":
            return self.fields(now if isinstance(now, dict) else {}, inside, owner)
        if kind == "deque":
            return deque((self.of(None, item) for item in inside[1]), inside[0])
        there = [*(now if isinstance(now, list | tuple) else ()), *[None] * len(inside)]
        items = [self.of(a, b, owner) for a, b in zip(there, inside, strict=False)]
        if kind == "list":
            return items
        return type(now)(*items) if hasattr(now, "_fields") else tuple(items)  # a named one

    def _array(self, now: Any, value: NDArray[Any], owner: Any) -> Any:
        if isinstance(now, th.Tensor):
            part = now.data[: len(value)] if isinstance(owner, BaseBuffer) else now.data
            part.copy_(th.from_numpy(value))
            return now
        if isinstance(owner, BaseBuffer) and isinstance(now, np.ndarray) and value.ndim:
            now[: len(value)] = value
            return now
        return value.copy() if value.ndim else value[()]


# ---------------------------------------------------------------------------------------------
# From configurations. Each takes (config, env, data, seed, device).
# ---------------------------------------------------------------------------------------------

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "gelu": nn.GELU}
FOR_ALL = ("name", "net_arch", "normalize_observation", "normalize_reward")


def ppo(config: Any, env: VecEnv | None, data: Any, seed: int, device: str) -> Baseline:
    env = stepped(config, env, data)
    values, network = on_policy(config, env)
    return Baseline(make(PPO, config, env, seed, device, values, network))


def dsac_t(config: Any, env: VecEnv | None, data: Any, seed: int, device: str) -> Baseline:
    env = stepped(config, env, data, continuous=True)
    values = hyperparameters(config) | replayed(config, env, device)
    values["rho_range"] = tuple(config.rho_range)
    if config.target_entropy is None:
        values["target_entropy"] = "auto"
    return Baseline(make(DSACT, config, env, seed, device, values))


def sac(config: Any, env: VecEnv | None, data: Any, seed: int, device: str) -> Baseline:
    env = stepped(config, env, data, continuous=True)
    values = hyperparameters(config) | replayed(config, env, device)
    for key in ("ent_coef", "target_entropy"):
        values[key] = number_or_auto(key, values[key])
    return Baseline(make(SAC, config, env, seed, device, values))


def td3(config: Any, env: VecEnv | None, data: Any, seed: int, device: str) -> Baseline:
    env = stepped(config, env, data, continuous=True)
    values = hyperparameters(config) | replayed(config, env, device)
    values["action_noise"] = gaussian_noise(env, values.pop("exploration_noise"))
    return Baseline(make(TD3, config, env, seed, device, values))


# -- what they share -------------------------------------------------------------------------------


def stepped(config: Any, env: VecEnv | None, data: Any, continuous: bool = False) -> VecEnv:
    """The environments an algorithm steps, normalised as it asks. Raises ValueError."""
    if env is None:
        raise ValueError(f"policy: {config.name!r} learns from steps, expected an environment")
    if data is not None:
        raise ValueError(f"dataset: policy {config.name!r} learns from none, expected dataset=none")
    if continuous and not isinstance(env.action_space, spaces.Box):
        raise ValueError(
            f"policy: {config.name!r} needs continuous actions, "
            f"the environment has {type(env.action_space).__name__}; try policy=ppo"
        )
    if config.normalize_observation or config.normalize_reward:
        return VecNormalize(
            env, norm_obs=config.normalize_observation, norm_reward=config.normalize_reward,
            gamma=config.gamma,
        )  # fmt: skip
    return env


def hyperparameters(config: Any) -> dict[str, Any]:
    """The keys of a configuration that its class takes by name."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    return {key: value for key, value in values.items() if key not in (*FOR_ALL, "replay")}


def make(
    algorithm: type[BaseAlgorithm],
    config: Any,
    env: VecEnv,
    seed: int,
    device: str,
    values: dict[str, Any],
    network: dict[str, Any] | None = None,
    policy: str = "{}Policy",
) -> Any:
    """An algorithm on its environments. network: arguments of its policy, besides `net_arch`."""
    network = {"net_arch": config.net_arch} | (network or {})
    if is_picture(env.observation_space):
        network["features_extractor_class"] = NatureCNN
    kind = "MultiInput" if isinstance(env.observation_space, spaces.Dict) else "Mlp"
    return algorithm(
        policy.format(kind), env, seed=seed, device=device, policy_kwargs=network, **values
    )


def is_picture(space: spaces.Space) -> bool:
    """Whether an observation is an image that convolutions can work on: 36 pixels or more."""
    return is_image_space(space) and sorted(space.shape or ())[1] >= 36


def on_policy(config: Any, env: VecEnv) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of PPO and its kin, and of their policies."""
    values = hyperparameters(config)
    start, end = values["learning_rate"], values.pop("learning_rate_end")
    if end is not None:
        values["learning_rate"] = lambda remaining: end + (start - end) * remaining
    values["n_steps"] = rollout_steps(config.n_steps, env.num_envs)
    values["batch_size"] = min(config.batch_size, values["n_steps"] * env.num_envs)
    network = {
        "activation_fn": ACTIVATIONS[values.pop("activation")],
        "log_std_init": values.pop("log_std_init"),
    }
    return values, network


def rollout_steps(n_steps: int | None, num_envs: int) -> int:
    """Steps of each environment between two updates of an on-policy algorithm."""
    return max(16, 2048 // num_envs) if n_steps is None else n_steps


def replayed(config: Any, env: VecEnv, device: str) -> dict[str, Any]:
    """What configures a replay buffer, and the updates from it."""
    values: dict[str, Any] = {}
    if replays_on_device(config, env, device):
        values["replay_buffer_class"] = DeviceReplayBuffer
    values["train_freq"], values["gradient_steps"] = update_rate(config, env.num_envs)
    return values


def update_rate(config: Any, num_envs: int) -> tuple[int, int]:
    """`train_freq` and `gradient_steps` as stable-baselines3 counts them, for the same updates.

    It counts steps of the vector, which are `num_envs` of ours. Raises ValueError where that does
    not come out even.
    """
    freq, updates = config.train_freq, config.gradient_steps
    if freq % num_envs == 0:
        return freq // num_envs, updates
    if updates == -1 and freq < num_envs:
        return 1, updates
    if freq < num_envs and num_envs * updates % freq == 0:
        return 1, num_envs * updates // freq
    raise ValueError(
        f"policy.train_freq: {freq} steps for {updates} updates, but {num_envs} environments step "
        f"together; expected a multiple of env.num_envs, or a divisor of it"
    )


def replays_on_device(config: Any, env: VecEnv, device: str) -> bool:
    possible = config.n_steps == 1 and DeviceReplayBuffer.supports(
        env.observation_space, env.action_space
    )
    if config.replay == "device" and not possible:
        raise ValueError(
            "policy.replay: 'device' is for flat observations and policy.n_steps=1; try 'host'"
        )
    return possible and (
        config.replay == "device" or (config.replay == "auto" and get_device(device).type == "cuda")
    )


def gaussian_noise(env: VecEnv, deviation: float) -> NormalActionNoise:
    shape = env.action_space.shape or ()
    return NormalActionNoise(np.zeros(shape), np.full(shape, deviation))


def number_or_auto(key: str, text: str) -> float | str:
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise ValueError(f"policy.{key}: {text!r}, expected auto or a number") from None
