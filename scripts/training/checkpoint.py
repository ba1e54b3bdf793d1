"""Checkpoints: everything the next training step depends on, written atomically, checksummed.

A checkpoint is a folder `checkpoints/step_<steps>/` of plain data: tensors (torch, weights only),
numpy arrays and JSON, with a manifest of SHA-256 checksums. Nothing in it is a pickle of code.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import tempfile
from collections import deque
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from motoric.envs.vector import BatchedVecEnv
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

FORMAT = "motoric-checkpoint/1"
COUNTERS = (
    "num_timesteps",
    "_total_timesteps",
    "_num_timesteps_at_start",
    "_episode_num",
    "_n_updates",
    "_current_progress_remaining",
)


class DamagedCheckpoint(Exception):
    """A checkpoint that is cut off, altered or not one at all."""


# ---------------------------------------------------------------------------------------------
# What is in it
# ---------------------------------------------------------------------------------------------


def _rng_arrays(model: BaseAlgorithm) -> tuple[dict[str, NDArray], dict[str, Any]]:
    """State of every random generator: arrays, and what JSON holds."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    arrays = {
        "rng/python": np.array(internal, np.uint64),
        "rng/numpy": np.asarray(keys),
        "rng/torch": torch.get_rng_state().numpy(),
    }
    if model.device.type == "cuda":
        arrays["rng/cuda"] = torch.cuda.get_rng_state(model.device).numpy()
    values = {
        "python": [version, gauss],
        "numpy": [name, position, has_gauss, cached],
        "action_space": model.action_space.np_random.bit_generator.state,
    }
    return arrays, values


def _restore_rng(model: BaseAlgorithm, arrays: dict[str, NDArray], values: dict[str, Any]) -> None:
    version, gauss = values["python"]
    random.setstate((version, tuple(int(k) for k in arrays["rng/python"]), gauss))
    name, position, has_gauss, cached = values["numpy"]
    np.random.set_state((name, arrays["rng/numpy"], position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(torch.from_numpy(arrays["rng/torch"]))
    if "rng/cuda" in arrays and model.device.type == "cuda":
        torch.cuda.set_rng_state(torch.from_numpy(arrays["rng/cuda"]), model.device)
    model.action_space.np_random.bit_generator.state = values["action_space"]


def _flat(name: str, value: Any) -> dict[str, NDArray]:
    """An array, or a dict of arrays, under flat names."""
    if isinstance(value, dict):
        return {f"{name}/{key}": np.asarray(item) for key, item in value.items()}
    return {} if value is None else {name: np.asarray(value)}


def _unflat(name: str, arrays: dict[str, NDArray]) -> Any:
    if name in arrays:
        return arrays[name].copy()
    found = {k[len(name) + 1 :]: v.copy() for k, v in arrays.items() if k.startswith(f"{name}/")}
    return found or None


def _statistics(env: VecNormalize) -> dict[str, RunningMeanStd]:
    found: dict[str, Any] = {"ret": env.ret_rms}
    if env.norm_obs and isinstance(env.obs_rms, dict):
        found |= {f"obs/{key}": rms for key, rms in env.obs_rms.items()}
    elif env.norm_obs:
        found["obs"] = env.obs_rms
    return found


def _normalizer_arrays(env: VecNormalize) -> dict[str, NDArray]:
    arrays = {"norm/returns": env.returns}
    for name, rms in _statistics(env).items():
        for part in ("mean", "var", "count"):
            arrays[f"norm/{name}/{part}"] = np.asarray(getattr(rms, part))
    return arrays


def _restore_normalizer(env: VecNormalize, arrays: dict[str, NDArray], same_envs: bool) -> None:
    for name, rms in _statistics(env).items():
        rms.mean = arrays[f"norm/{name}/mean"].copy()
        rms.var = arrays[f"norm/{name}/var"].copy()
        rms.count = float(arrays[f"norm/{name}/count"])
    if same_envs:
        env.returns = arrays["norm/returns"].copy()


def _replay_arrays(buffer: ReplayBuffer) -> dict[str, NDArray]:
    """The filled part of a replay buffer."""
    filled = buffer.buffer_size if buffer.full else buffer.pos
    arrays: dict[str, NDArray] = {}
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        value = getattr(buffer, name, None)
        if isinstance(buffer, DictReplayBuffer) and isinstance(value, dict):
            arrays |= {f"replay/{name}/{k}": v[:filled] for k, v in value.items()}
        elif value is not None:
            arrays[f"replay/{name}"] = torch.as_tensor(value[:filled]).numpy(force=True)
    return arrays


def _restore_replay(buffer: ReplayBuffer, arrays: dict[str, NDArray], position: list[int]) -> None:
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        value = getattr(buffer, name, None)
        if isinstance(value, dict):
            for key, target in value.items():
                saved = arrays[f"replay/{name}/{key}"]
                target[: len(saved)] = saved
        elif value is not None:
            saved = arrays[f"replay/{name}"]
            torch.as_tensor(value)[: len(saved)] = torch.from_numpy(saved)
    buffer.pos, buffer.full = position[0], bool(position[1])


def _batched(model: BaseAlgorithm) -> BatchedVecEnv | None:
    env = model.get_env()
    inner = None if env is None else env.unwrapped
    return inner if isinstance(inner, BatchedVecEnv) else None


def _attribute(model: BaseAlgorithm, name: str) -> Any:
    return reduce(getattr, name.split("."), model)


# ---------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------


def save(model: BaseAlgorithm, folder: Path, extra: dict[str, Any], keep: int = 2) -> Path:
    """Write `folder/step_<steps>`; the newest `keep` checkpoints stay. Returns its path.

    A crash at any moment leaves either the whole new checkpoint or none of it. Raises OSError.
    extra: JSON values of the caller's own, given back by `load`.
    """
    variables = model._get_torch_save_params()[1]
    tensors = {
        "parameters": model.get_parameters(),
        "variables": {name: _attribute(model, name).detach() for name in variables},
    }
    arrays, rng = _rng_arrays(model)
    arrays |= _flat("last_obs", model._last_obs)
    arrays |= _flat("last_episode_starts", model._last_episode_starts)
    arrays |= _flat("last_original_obs", model._last_original_obs)
    values: dict[str, Any] = {
        "format": FORMAT,
        "counters": {name: getattr(model, name) for name in COUNTERS if hasattr(model, name)},
        "episodes": list(model.ep_info_buffer or []),
        "threads": torch.get_num_threads(),
        "rng": rng,
        "extra": extra,
    }
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        arrays |= _normalizer_arrays(normalizer)
    batched = _batched(model)
    if batched is not None:
        arrays |= {f"envs/{k}": v for k, v in batched.batched.save_state().items()}
    if isinstance(model, OffPolicyAlgorithm):
        assert model.replay_buffer is not None
        arrays |= _replay_arrays(model.replay_buffer)
        values["replay"] = [model.replay_buffer.pos, int(model.replay_buffer.full)]

    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step_{model.num_timesteps:012d}"
    for leftover in folder.glob(".writing-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    try:
        manifest = {
            "tensors.pt": _write(new / "tensors.pt", lambda f: torch.save(tensors, f)),
            "arrays.npz": _write(
                new / "arrays.npz",
                lambda f: np.savez(f, **arrays),  # type: ignore[arg-type]
            ),
            "state.json": _write(
                new / "state.json", lambda f: f.write(json.dumps(values, default=_number).encode())
            ),
        }
        text = json.dumps(manifest, indent=1).encode()
        _write(new / "manifest.json", lambda f: f.write(text))
        if final.exists():
            shutil.rmtree(final)
        new.rename(final)
        _sync(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    for old in steps(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def _number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} in a checkpoint's state")


def _write(path: Path, write: Callable[[Any], Any]) -> str:
    """Write a file to the disk itself; returns its SHA-256."""
    with open(path, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    return _sha256(path)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------


def steps(folder: Path) -> list[Path]:
    """Checkpoints of a folder, newest first."""
    return sorted(folder.glob("step_*"), reverse=True)


def verify(path: Path) -> None:
    """Raise DamagedCheckpoint unless every file is there with its checksum."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        if set(manifest) != {"tensors.pt", "arrays.npz", "state.json"}:
            raise DamagedCheckpoint(f"{path.name}: manifest.json is not a manifest")
        for name, digest in manifest.items():
            if _sha256(path / name) != digest:
                raise DamagedCheckpoint(f"{path.name}: {name} does not match its checksum")
    except FileNotFoundError as error:
        raise DamagedCheckpoint(f"{path.name}: {Path(error.filename).name} is missing") from None
    except (OSError, ValueError, TypeError) as error:
        raise DamagedCheckpoint(f"{path.name}: manifest.json can't be read: {error}") from None


def newest(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest undamaged checkpoint; damaged ones are named to `say`."""
    for path in steps(folder):
        try:
            verify(path)
        except DamagedCheckpoint as error:
            say(f"checkpoint {error}: it is skipped, the one before it is tried")
        else:
            return path
    return None


def load(path: Path, model: BaseAlgorithm) -> dict[str, Any]:
    """Put a freshly built algorithm, and its environments, where the checkpoint was written.

    Returns the caller's `extra`. Environments that can't be saved (any Gymnasium id) begin new
    episodes; with our batched ones training continues bit for bit.
    """
    values = json.loads((path / "state.json").read_text())
    # Networks and optimizers move to their device what belongs there. Adam's count of steps does
    # not: read from a GPU at every step, it would hold the step up.
    tensors = torch.load(path / "tensors.pt", map_location="cpu", weights_only=True)
    with np.load(path / "arrays.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    torch.set_num_threads(values["threads"])  # sums depend on how they are split
    model.set_parameters(tensors["parameters"], exact_match=True, device=model.device)
    for name, value in tensors["variables"].items():
        _attribute(model, name).data.copy_(value)
    for name, value in values["counters"].items():
        setattr(model, name, value)
    model.ep_info_buffer = deque(values["episodes"], maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(maxlen=model._stats_window_size)

    batched = _batched(model)
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        _restore_normalizer(normalizer, arrays, same_envs=batched is not None)
    if isinstance(model, OffPolicyAlgorithm):
        assert model.replay_buffer is not None
        _restore_replay(model.replay_buffer, arrays, values["replay"])
    if batched is not None:
        state = {k[5:]: v for k, v in arrays.items() if k.startswith("envs/")}
        batched.batched.load_state(state)
        model._last_obs = _unflat("last_obs", arrays)
        model._last_episode_starts = arrays["last_episode_starts"].copy()
        model._last_original_obs = _unflat("last_original_obs", arrays)
    else:
        env = model.get_env()
        assert env is not None
        if isinstance(model, OffPolicyAlgorithm) and model.replay_buffer is not None:
            # The interrupted episodes end here; n-step returns must not run into the next ones.
            # Those that terminated did so: no timeout, which would be bootstrapped.
            buffer, last = model.replay_buffer, model.replay_buffer.pos - 1
            buffer.timeouts[last] = 1.0 - buffer.dones[last] * (1.0 - buffer.timeouts[last])
        env.seed(values["counters"]["num_timesteps"] + 2**31)  # episodes it hasn't seen
        model._last_obs = env.reset()  # type: ignore[assignment]
        model._last_episode_starts = np.ones(env.num_envs, dtype=bool)
        if normalizer is not None:
            model._last_original_obs = normalizer.get_original_obs()
    _restore_rng(model, arrays, values["rng"])
    return values["extra"]
