"""Checkpoints: everything the next training step depends on, written atomically, checksummed.

A checkpoint is a folder `checkpoints/step_<steps>/` of plain data: tensors (torch, weights only),
numpy arrays and JSON, with a manifest of SHA-256 checksums. Nothing in it is a pickle of code. What
is in it is said by the learner and by its environments; the process' random generators are added.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from motoric.envs.batched import Batch
from motoric.policies.contract import Learner, State
from numpy.typing import NDArray

FORMAT = "motoric-checkpoint/2"


class DamagedCheckpoint(Exception):
    """A checkpoint that is cut off, altered or not one at all."""


# ---------------------------------------------------------------------------------------------
# Random generators of the process
# ---------------------------------------------------------------------------------------------


def _generators(device: torch.device) -> tuple[dict[str, NDArray], dict[str, Any]]:
    """State of every one: arrays, and what JSON holds."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    arrays = {
        "rng/python": np.array(internal, np.uint64),
        "rng/numpy": np.asarray(keys),
        "rng/torch": torch.get_rng_state().numpy(),
    }
    if device.type == "cuda":
        arrays["rng/cuda"] = torch.cuda.get_rng_state(device).numpy()
    values = {"python": [version, gauss], "numpy": [name, position, has_gauss, cached]}
    return arrays, values


def _restore_generators(
    device: torch.device, arrays: dict[str, NDArray], values: dict[str, Any]
) -> None:
    version, gauss = values["python"]
    random.setstate((version, tuple(int(k) for k in arrays["rng/python"]), gauss))
    name, position, has_gauss, cached = values["numpy"]
    np.random.set_state((name, arrays["rng/numpy"], position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(torch.from_numpy(arrays["rng/torch"]))
    if "rng/cuda" in arrays and device.type == "cuda":
        torch.cuda.set_rng_state(torch.from_numpy(arrays["rng/cuda"]), device)


# ---------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------


def save(
    learner: Learner, batch: Batch | None, folder: Path, extra: dict[str, Any], keep: int = 2
) -> Path:
    """Write `folder/step_<steps>`; the newest `keep` checkpoints stay. Returns its path.

    A crash at any moment leaves either the whole new checkpoint or none of it. Raises OSError.
    batch: the environments it learns in; extra: JSON values of the caller's own, given back by
    `load`
    """
    state = learner.state()
    arrays, generators = _generators(learner.device)
    arrays |= {f"learner/{name}": value for name, value in state.arrays.items()}
    worlds = None if batch is None else batch.save_state()
    arrays |= {f"envs/{name}": value for name, value in (worlds or {}).items()}
    values: dict[str, Any] = {
        "format": FORMAT,
        "learner": state.values,
        "environments": worlds is not None,
        "threads": torch.get_num_threads(),
        "rng": generators,
        "extra": extra,
    }

    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step_{learner.done:012d}"
    for leftover in folder.glob(".writing-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    try:
        manifest = {
            "tensors.pt": _write(new / "tensors.pt", lambda f: torch.save(state.tensors, f)),
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


def load(path: Path, learner: Learner, batch: Batch | None) -> dict[str, Any]:
    """Put a freshly built learner, and its environments, where the checkpoint was written.

    Returns the caller's `extra`. Environments that can't be saved (most of Gymnasium's) begin new
    episodes; with others training continues bit for bit. Raises KeyError, ValueError or
    RuntimeError for the checkpoint of another configuration.
    """
    values = json.loads((path / "state.json").read_text())
    if values.get("format") != FORMAT:
        raise ValueError(f"format {values.get('format')!r}, expected {FORMAT!r}")
    tensors = torch.load(path / "tensors.pt", map_location="cpu", weights_only=True)
    with np.load(path / "arrays.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    torch.set_num_threads(values["threads"])  # sums depend on how they are split
    learner.load_state(State(tensors, _under("learner/", arrays), values["learner"]))
    if batch is not None:
        if values["environments"]:
            batch.load_state(_under("envs/", arrays))
        else:
            learner.restart(learner.done + 2**31)  # episodes it hasn't seen
    _restore_generators(learner.device, arrays, values["rng"])
    return values["extra"]


def _under(prefix: str, arrays: dict[str, NDArray]) -> dict[str, NDArray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
