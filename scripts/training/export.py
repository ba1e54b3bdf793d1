"""From a learner to a bundle: its networks as ONNX, and what is known of their environment."""

from __future__ import annotations

import dataclasses
import io
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from motoric.envs.batched import Batch
from motoric.hardware.fields import plain, read_fields
from motoric.hardware.runtime.bundle import (
    Bundle,
    BundleSpec,
    Chunk,
    Input,
    Network,
    Tensor,
    write_bundle,
)
from motoric.policies import contract
from motoric.policies.contract import Learner

PACKAGES = (
    "motoric", "torch", "stable-baselines3", "mujoco", "pybullet", "gymnasium", "numpy",
    "onnxruntime",
)  # fmt: skip
TOLERANCE = 1e-5  # between the exported actions and the policy's own, relative to their range


class ExportError(RuntimeError):
    """The exported networks do not do what the policy does."""


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def environment_of(batch: Batch) -> dict[str, Any]:
    """What a bundle, or a data set, says of the environment: fields of `BundleSpec`, for JSON."""
    interface = batch.interface
    found: dict[str, Any] = {"task": batch.name}
    if interface is not None:
        robot = interface.robot
        found |= {
            "robot": robot.name,
            "rate": interface.rate,
            "interface": {"name": interface.name, "parameters": interface.parameters()},
            "joints": robot.joints,
            "stand": robot.stand,
            "kp": robot.kp,
            "kd": robot.kd,
            "limits": robot.limits,
        }
    return plain(found)


def bundle_of(
    learner: Learner, environment: dict[str, Any], training: dict[str, Any]
) -> tuple[BundleSpec, dict[str, bytes]]:
    """Spec and ONNX files of a learner's bundle; draws from no random generator.

    environment: as `environment_of` gives it; training: where the policy comes from
    """
    exported = learner.exported()
    low, high = exported.low, exported.high
    if low is None or high is None or not np.isfinite([low, high]).all():
        low = high = None
    given = {
        "networks": tuple(
            Network(
                n.name, f"{n.name}.onnx", tuple(Input(**vars(t)) for t in n.inputs),
                tuple(_tensor(t) for t in n.outputs), n.rate,
            )
            for n in exported.networks
        ),
        "action": _tensor(exported.action),
        "action_low": None if low is None else tuple(low.tolist()),
        "action_high": None if high is None else tuple(high.tolist()),
        "chunk": None if exported.chunk is None else Chunk(*exported.chunk),
        "normalisation": exported.normalisation,
        "training": training | {"steps": learner.done, "unit": learner.unit},
        "versions": versions(),
    }  # fmt: skip
    files = {f"{n.name}.onnx": to_onnx(n, learner.device) for n in exported.networks}
    return read_fields(BundleSpec, environment, given=given), files


def _tensor(tensor: contract.Tensor) -> Tensor:
    return Tensor(tensor.name, tensor.shape, tensor.dtype)


def to_onnx(network: contract.Network, device: torch.device) -> bytes:
    """A network as ONNX bytes; its module is left as it was, and no random number is drawn."""
    module = network.module.to(device)
    modes = [(part, part.training) for part in module.modules()]
    names, outputs = [t.name for t in network.inputs], [t.name for t in network.outputs]
    example = tuple(
        torch.from_numpy(np.zeros((2, *t.shape), t.dtype)).to(device) for t in network.inputs
    )
    file = io.BytesIO()
    try:
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            warnings.catch_warnings(action="ignore"),
        ):
            # By tracing: 40 ms instead of the seconds of dynamo=True, and this is often done.
            torch.onnx.export(
                module.eval(),
                example,
                file,  # type: ignore[arg-type]
                input_names=names,
                output_names=outputs,
                dynamic_axes={name: {0: "N"} for name in (*names, *outputs)},
                opset_version=18,
                dynamo=False,
            )
    finally:
        for part, training in modes:
            part.training = training
    return file.getvalue()


def checked(
    learner: Learner, environment: dict[str, Any], training: dict[str, Any], observations: int
) -> tuple[BundleSpec, dict[str, bytes], float]:
    """Spec and files of a bundle, and its largest difference from the policy over so many random
    observations. Raises ExportError if it would not act as the policy does."""
    spec, files = bundle_of(learner, environment, training)
    difference = learner.difference(Bundle(spec, files).run, observations)
    if not difference <= TOLERANCE:
        raise ExportError(f"exported actions differ by {difference:.2e}, more than {TOLERANCE}")
    return spec, files, difference


def export(
    learner: Learner, environment: dict[str, Any], training: dict[str, Any], folder: Path
) -> Bundle:
    """Write a bundle and load it back. Raises ExportError if it would not act as the policy."""
    spec, files, _ = checked(learner, environment, training, 1000)
    write_bundle(folder, files, spec)
    return Bundle.load(folder)


def note(spec: BundleSpec, **values: Any) -> BundleSpec:
    """A spec with more to say of its training."""
    return dataclasses.replace(spec, training=spec.training | values)
