"""Bundles with hand-made networks, and how the tests run beside each other."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

# Two tests run at a time, on two cores: each computes on one. Before numpy and torch are loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
import pytest
from motoric.hardware.goals import Part
from motoric.hardware.interfaces.base import Interface, Tensor
from motoric.hardware.interfaces.joint_targets import JointTargets
from motoric.hardware.interfaces.terms import Term, observation_size
from motoric.hardware.runtime.bundle import BundleSpec, Input, Network, write_bundle
from motoric.hardware.specs.go2 import GO2
from onnx import TensorProto, helper, numpy_helper

# A shell that runs the tests with &, or nohup, has them and all they start ignore these signals.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)


def pytest_collection_modifyitems(items):
    """The tests that take longest begin first, so that no core waits for them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


VELOCITY = Part(
    "velocity", ("forward", "left", "turn"), ("m/s", "m/s", "rad/s"),
    (-0.6, -0.4, -0.8), (1.0, 0.4, 0.8), halts=True,
)  # fmt: skip
TERMS = (
    Term("angular_velocity", 3, 0.25), Term("projected_gravity", 3), Term("joint_position", 12),
    Term("joint_velocity", 12, 0.05), Term("action", 12), Term("goal.velocity", 3),
    Term("gait_clock", 2),
)  # fmt: skip
GO2_INTERFACE = JointTargets(
    GO2, 50.0, TERMS, (0.6, 1.0, 1.0) * 4, goals=(VELOCITY,), gait_frequency=2.0,
    measures=("velocity_error", "distance", "fell"),
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


def graph(nodes, inputs, outputs, constants=(), opset=17) -> bytes:
    """An ONNX model. nodes: (operator, inputs, outputs, attributes); inputs, outputs: tensors."""

    def info(tensor: Tensor):
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
        return helper.make_tensor_value_info(tensor.name, kind, ["N", *tensor.shape])

    made = helper.make_graph(
        [helper.make_node(kind, i, o, **attributes) for kind, i, o, attributes in nodes],
        "network", [info(t) for t in inputs], [info(t) for t in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def policy_network(inputs=(), outputs=(), file="policy.onnx") -> Network:
    """What `linear` makes with a Go2's observations, unless said otherwise."""
    inputs = inputs or (Input("observation", (observation_size(TERMS),)),)
    return Network("policy", file, inputs, outputs or (Tensor("action", (12,)),))


def spec_for(interface: Interface, **changes) -> BundleSpec:
    """Of a policy with one network and no memory that acts through an interface."""
    robot, action = interface.robot, Tensor("action", interface.action_low.shape)
    inputs = tuple(Input(t.name, t.shape, t.dtype) for t in interface.inputs)
    values = {
        "task": "test",
        "networks": (policy_network(inputs, (action,)),),
        "action": action,
        "robot": robot.name,
        "rate": interface.rate,
        "action_low": tuple(interface.action_low.tolist()),
        "action_high": tuple(interface.action_high.tolist()),
        "interface": {"name": interface.name, "parameters": interface.parameters()},
        "joints": robot.joints,
        "stand": tuple(robot.stand.tolist()),
        "kp": tuple(robot.kp.tolist()),
        "kd": tuple(robot.kd.tolist()),
        "limits": robot.limits,
    }
    return BundleSpec(**values | changes)


def go2_spec(interface: Interface = GO2_INTERFACE, **changes) -> BundleSpec:
    return spec_for(interface, **{"task": "go2_velocity"} | changes)


def standing() -> bytes:
    return linear(np.zeros((observation_size(TERMS), 12)), np.zeros(12))


def write_policy(folder: Path, onnx: bytes | None = None, spec: BundleSpec | None = None) -> Path:
    """A bundle of one network; one of a Go2 that stands still, unless said otherwise."""
    write_bundle(folder, {"policy.onnx": onnx or standing()}, spec or go2_spec())
    return folder


@pytest.fixture
def bundle_folder(tmp_path) -> Path:
    """A bundle that stands still."""
    return write_policy(tmp_path / "bundle")


# Odd for one process of a test run, even for the other: no two meet in a domain.
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
_domains = itertools.count(os.getpid() * 26 + _worker, 2)


@pytest.fixture
def domain() -> int:
    """A DDS domain of this test's own."""
    return 1 + next(_domains) % 98
