"""From a trained stable-baselines3 policy to a bundle: one ONNX graph, normalisation included."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from gymnasium import spaces
from motoric.configs import schema
from motoric.envs.registry import make_task
from motoric.hardware.runtime.bundle import Bundle, BundleSpec, Tensor, write_bundle
from motoric.policies.dsac_t import DSACTPolicy
from motoric.scripts.config import UserError
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecNormalize, VecTransposeImage
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

PACKAGES = (
    "motoric", "torch", "stable-baselines3", "mujoco", "pybullet", "gymnasium", "numpy",
    "onnxruntime",
)  # fmt: skip
TOLERANCE = 1e-5  # between the exported actions and the policy's own, relative to their range


class ExportError(RuntimeError):
    """The exported network does not do what the policy does."""


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class Deterministic(nn.Module):
    """Raw observations in, the policy's deterministic actions out, as `predict` gives them."""

    def __init__(self, model: BaseAlgorithm) -> None:
        super().__init__()
        self.policy = model.policy
        self.action_space = model.action_space
        inputs = _inputs(observed(model))
        self.names = list(inputs)
        self.is_dict = isinstance(model.observation_space, spaces.Dict)
        trained = _inputs(model.observation_space)
        self.images = [name for name in inputs if trained[name].shape != inputs[name].shape]
        self.normalized: list[str] = []
        normalizer = model.get_vec_normalize_env()
        if normalizer is not None and normalizer.norm_obs:
            self.epsilon, self.clip = normalizer.epsilon, normalizer.clip_obs
            for name, rms in _running_means(normalizer).items():
                self.normalized.append(name)
                self.register_buffer(f"mean_{name}", torch.tensor(rms.mean))
                deviation = torch.tensor(rms.var + self.epsilon).sqrt()
                self.register_buffer(f"deviation_{name}", deviation)
        if isinstance(self.action_space, spaces.Box):
            self.low: torch.Tensor
            self.high: torch.Tensor
            self.register_buffer("low", torch.tensor(self.action_space.low))
            self.register_buffer("high", torch.tensor(self.action_space.high))

    def forward(self, *observations: torch.Tensor) -> torch.Tensor:
        values = {}
        for name, value in zip(self.names, observations, strict=True):
            if name in self.normalized:  # in float64, as VecNormalize does
                value = (value.double() - getattr(self, f"mean_{name}")) / getattr(
                    self, f"deviation_{name}"
                )
                value = value.clamp(-self.clip, self.clip).float()
            if name in self.images:
                value = value.permute(0, 3, 1, 2)
            values[name] = value
        obs = values if self.is_dict else values["observation"]
        policy: Any = self.policy
        if isinstance(policy, ActorCriticPolicy):
            features: Any = policy.extract_features(obs, policy.pi_features_extractor)
            return self._of_logits(policy.action_net(policy.mlp_extractor.forward_actor(features)))
        actor = policy.actor
        if isinstance(policy, SACPolicy):
            features = actor.extract_features(obs, actor.features_extractor)
            squashed = torch.tanh(actor.mu(actor.latent_pi(features)))
        elif isinstance(policy, TD3Policy | DSACTPolicy):
            squashed = actor(obs) if isinstance(policy, TD3Policy) else actor(obs, True)
        else:
            raise TypeError(f"no export of {type(policy).__name__}")
        squashed = squashed.reshape(-1, *self.low.shape)
        return self.low + 0.5 * (squashed + 1.0) * (self.high - self.low)

    def _of_logits(self, out: torch.Tensor) -> torch.Tensor:
        space = self.action_space
        if isinstance(space, spaces.Box):
            return torch.clamp(out.reshape(-1, *space.shape), self.low, self.high)
        if isinstance(space, spaces.Discrete):
            return out.argmax(dim=1)
        if isinstance(space, spaces.MultiDiscrete):
            parts = torch.split(out, [int(n) for n in space.nvec], dim=1)
            return torch.stack([part.argmax(dim=1) for part in parts], dim=1)
        if isinstance(space, spaces.MultiBinary):
            return (out > 0).long()
        raise TypeError(f"no export of {type(space).__name__} actions")


def _running_means(normalizer: VecNormalize) -> dict[str, Any]:
    rms = normalizer.obs_rms
    return dict(rms) if isinstance(rms, dict) else {"observation": rms}


def observed(model: BaseAlgorithm) -> spaces.Space:
    """What the environment itself gives: stable-baselines3 moves the channels of images first."""
    env = model.get_env()
    transposed = isinstance(env, VecTransposeImage)
    return env.venv.observation_space if transposed else model.observation_space


def _inputs(space: spaces.Space) -> dict[str, spaces.Space]:
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation": space}


def _dtype(space: spaces.Space) -> np.dtype:
    if isinstance(space, spaces.Box) and space.dtype != np.uint8:
        return np.dtype(np.float32)
    return np.dtype(np.uint8 if isinstance(space, spaces.Box) else np.int64)


def to_onnx(model: BaseAlgorithm) -> bytes:
    """The policy's network as ONNX bytes; draws from no random generator."""
    inputs = _inputs(observed(model))
    training = model.policy.training
    model.policy.set_training_mode(False)
    module = Deterministic(model).eval()
    device = model.device
    example = tuple(
        torch.from_numpy(np.zeros((2, *(space.shape or ())), _dtype(space))).to(device)
        for space in inputs.values()
    )
    file = io.BytesIO()
    with (
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
        warnings.catch_warnings(action="ignore"),
    ):
        # By tracing: 40 ms instead of the seconds of dynamo=True, and this runs at each evaluation.
        torch.onnx.export(
            module.to(device),
            example,
            file,  # type: ignore[arg-type]
            input_names=list(inputs),
            output_names=["action"],
            dynamic_axes={name: {0: "N"} for name in (*inputs, "action")},
            opset_version=18,
            dynamo=False,
        )
    model.policy.set_training_mode(training)
    return file.getvalue()


def random_observations(model: BaseAlgorithm, count: int, seed: int = 0) -> dict[str, NDArray]:
    """Observations spread over and beyond what training met, [count, ...] for each input."""
    rng = np.random.default_rng(seed)
    normalizer = model.get_vec_normalize_env()
    known = _running_means(normalizer) if normalizer is not None and normalizer.norm_obs else {}
    found = {}
    for name, space in _inputs(observed(model)).items():
        shape = (count, *(space.shape or ()))
        if isinstance(space, spaces.Box) and space.dtype != np.uint8:
            mean = known[name].mean if name in known else 0.0
            spread = np.sqrt(known[name].var) if name in known else 1.0
            low, high = space.low, space.high
            drawn = np.clip(mean + 3.0 * spread * rng.standard_normal(shape), low, high)
            found[name] = drawn.astype(np.float32)
        elif isinstance(space, spaces.Box):
            found[name] = rng.integers(0, 256, shape, np.uint8)
        elif isinstance(space, spaces.Discrete):
            found[name] = space.start + rng.integers(0, space.n, shape)
        else:
            space.seed(seed)
            found[name] = np.stack([np.asarray(space.sample()) for _ in range(count)])
    return found


def _normalized(model: BaseAlgorithm, observations: dict[str, NDArray]) -> Any:
    """Raw observations as the training policy takes them."""
    is_dict = isinstance(model.observation_space, spaces.Dict)
    obs: Any = observations if is_dict else observations["observation"]
    normalizer = model.get_vec_normalize_env()
    return obs if normalizer is None else normalizer.normalize_obs(obs)


def largest_difference(model: BaseAlgorithm, onnx: bytes, count: int) -> float:
    """Largest difference between exported and original actions over random observations.

    Of continuous actions, relative to their range. Of discrete ones, the log-probability that the
    exported action has less than the policy's own: two actions may be equally good to the last
    bit, and then rounding chooses.
    """
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    batches = (random_observations(model, 1000, seed) for seed in range(-(-count // 1000)))
    found = [_difference(model, session, observations) for observations in batches]
    return float(np.max(found))  # NaN where one of them is


def _difference(
    model: BaseAlgorithm, session: onnxruntime.InferenceSession, observations: dict[str, NDArray]
) -> float:
    feed = {i.name: observations[i.name] for i in session.get_inputs()}
    actions = np.asarray(session.run(["action"], feed)[0])
    normalized = _normalized(model, observations)
    wanted = model.predict(normalized, deterministic=True)[0]
    space = model.action_space
    if isinstance(space, spaces.Box):
        difference = np.abs(actions.astype(np.float64) - wanted)
        return float((difference / np.maximum(1.0, (space.high - space.low) / 2)).max())
    policy: Any = model.policy
    with torch.no_grad():
        distribution = policy.get_distribution(policy.obs_to_tensor(normalized)[0])
        best, exported = (
            distribution.log_prob(torch.as_tensor(chosen, dtype=torch.float32, device=model.device))
            for chosen in (wanted, actions)
        )
    return float((best - exported).abs().max())


def spec_of(config: schema.Train, model: BaseAlgorithm) -> BundleSpec:
    """What the bundle says of itself."""
    space = model.action_space
    box = isinstance(space, spaces.Box)
    values: dict[str, Any] = {}
    if config.env.task is not None:
        task = make_task(config.env.task, config.env.options)
        robot = task.robot
        values |= {
            "robot": robot.name,
            "rate": 1.0 / task.control_dt,
            "terms": tuple(task.terms),
            "joints": robot.joints,
            "stand": tuple(robot.stand.tolist()),
            "action_scale": tuple(task.action_scale.tolist()),
            "kp": tuple(robot.kp.tolist()),
            "kd": tuple(robot.kd.tolist()),
            "limits": robot.limits,
            "command_low": tuple(task.command_low),
            "command_high": tuple(task.command_high),
            "gait_frequency": task.gait_frequency,
        }
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None and normalizer.norm_obs:
        values["normalisation"] = {"epsilon": normalizer.epsilon, "clip": normalizer.clip_obs} | {
            name: {"mean": rms.mean.tolist(), "var": rms.var.tolist()}
            for name, rms in _running_means(normalizer).items()
        }
    return BundleSpec(
        task=config.env.task or f"gym:{config.env.id}",
        inputs=tuple(
            Tensor(name, tuple(s.shape or ()), _dtype(s).name)
            for name, s in _inputs(observed(model)).items()
        ),
        action=Tensor("action", tuple(space.shape or ()), "float32" if box else "int64"),
        action_low=tuple(space.low.ravel().tolist()) if box else None,
        action_high=tuple(space.high.ravel().tolist()) if box else None,
        training={
            "algorithm": config.policy.name,
            "seed": config.seed,
            "steps": model.num_timesteps,
            "options": config.env.options,
            "engine": config.env.engine,
        },
        versions=versions(),
        **values,
    )


def checked(model: BaseAlgorithm, observations: int) -> tuple[bytes, float]:
    """The network as ONNX, and its largest difference from the policy on random observations.

    Raises ExportError if it would not act as the policy does.
    """
    onnx = to_onnx(model)
    difference = largest_difference(model, onnx, observations)
    if not difference <= TOLERANCE:
        raise ExportError(f"exported actions differ by {difference:.2e}, more than {TOLERANCE}")
    return onnx, difference


def export(config: schema.Train, model: BaseAlgorithm, folder: Path) -> Bundle:
    """Write a bundle and load it back. Raises ExportError if it would not act as the policy."""
    onnx, _ = checked(model, 1000)
    write_bundle(folder, onnx, spec_of(config, model))
    return Bundle.load(folder)


def export_run(settings: schema.Export, say: Callable[[str], None] = print) -> Path:
    """Write the newest undamaged checkpoint of a run as a bundle; returns its folder."""
    from motoric.scripts.train import restore_run

    trained, model, _ = restore_run(Path(settings.run), say)
    folder = Path(settings.run) / "bundle" / "last" if settings.out is None else Path(settings.out)
    if settings.out is not None and folder.exists() and not (folder / "bundle.json").exists():
        raise UserError(f"out: {folder} exists and is not a bundle")
    try:
        onnx, difference = checked(model, 10_000)
    except ExportError as error:
        raise UserError(f"run: {settings.run}: {error}") from None
    write_bundle(folder, onnx, spec_of(trained, model))
    bundle = Bundle.load(folder)
    say(f"{folder}: {bundle.spec.task} after {model.num_timesteps:,} steps")
    say(f"largest difference from the policy over 10,000 random observations: {difference:.1e}")
    return folder


if __name__ == "__main__":
    from motoric.scripts.cli import main

    sys.exit(main(["export", *sys.argv[1:]]))
