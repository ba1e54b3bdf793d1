"""Bundles with hand-made networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from motoric.hardware.bundle import BundleSpec, Tensor, write_bundle
from motoric.hardware.go2 import GO2
from motoric.hardware.observation import Term, observation_size
from onnx import TensorProto, helper, numpy_helper

TERMS = (
    Term("angular_velocity", 3, 0.25), Term("projected_gravity", 3), Term("joint_position", 12),
    Term("joint_velocity", 12, 0.05), Term("action", 12), Term("command", 3), Term("gait_clock", 2),
)  # fmt: skip


def linear(weight: np.ndarray, bias: np.ndarray) -> bytes:
    """observation [N, I] -> action [N, A] = observation weight + bias."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["observation", "w"], ["product"]),
            helper.make_node("Add", ["product", "b"], ["action"]),
        ],
        "policy",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["N", weight.shape[0]])],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, ["N", weight.shape[1]])],
        [
            numpy_helper.from_array(weight.astype(np.float32), "w"),
            numpy_helper.from_array(bias.astype(np.float32), "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def go2_spec(**changes) -> BundleSpec:
    values = {
        "task": "go2_velocity",
        "inputs": (Tensor("observation", (observation_size(TERMS),), "float32"),),
        "action": Tensor("action", (12,), "float32"),
        "robot": "go2",
        "rate": 50.0,
        "action_low": (-1.0,) * 12,
        "action_high": (1.0,) * 12,
        "terms": TERMS,
        "joints": GO2.joints,
        "stand": tuple(GO2.stand.tolist()),
        "action_scale": (0.6, 1.0, 1.0) * 4,
        "kp": tuple(GO2.kp.tolist()),
        "kd": tuple(GO2.kd.tolist()),
        "limits": GO2.limits,
        "command_low": (-0.6, -0.4, -0.8),
        "command_high": (1.0, 0.4, 0.8),
        "gait_frequency": 2.0,
    }
    return BundleSpec(**values | changes)


def standing() -> bytes:
    return linear(np.zeros((observation_size(TERMS), 12)), np.zeros(12))


@pytest.fixture
def bundle_folder(tmp_path) -> Path:
    """A bundle that stands still."""
    write_bundle(tmp_path / "bundle", standing(), go2_spec())
    return tmp_path / "bundle"
