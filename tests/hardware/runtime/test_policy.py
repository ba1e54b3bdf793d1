"""Memory, noise, slower networks and chunks of a bundle's policy, each row for itself."""

from __future__ import annotations

import numpy as np
import pytest
from motoric.hardware.runtime.bundle import (
    Bundle,
    BundleSpec,
    Chunk,
    Input,
    Network,
    Tensor,
    write_bundle,
)
from motoric.hardware.runtime.policy import Policy

from ...conftest import graph

SEEN, ACTION = Input("observation", (2,)), Tensor("action", (2,))


def load(folder, networks, files, action=ACTION, **changes) -> Bundle:
    spec = BundleSpec(task="test", networks=tuple(networks), action=action, **changes)
    write_bundle(folder, files, spec)
    return Bundle.load(folder)


@pytest.fixture
def counting(tmp_path) -> Bundle:
    """action = observation + h, and the next h is h + 1: a recurrent policy that counts."""
    inputs = (SEEN, Input("h", (2,), source="memory", feedback="h_next"))
    outputs = (ACTION, Tensor("h_next", (2,)))
    onnx = graph(
        [("Add", ["observation", "h"], ["action"], {}), ("Add", ["h", "one"], ["h_next"], {})],
        inputs, outputs, [("one", np.ones(2, np.float32))],
    )  # fmt: skip
    return load(tmp_path / "b", [Network("policy", "policy.onnx", inputs, outputs)],
                {"policy.onnx": onnx})  # fmt: skip


def test_memory_goes_on_and_is_forgotten_by_row(counting):
    policy, seen = Policy(counting, 3), np.zeros((3, 2), np.float32)
    assert [policy.act(seen)[:, 0].tolist() for _ in range(2)] == [[0, 0, 0], [1, 1, 1]]
    policy.begin(np.array([1]))
    assert policy.act(seen)[:, 0].tolist() == [2, 0, 2]
    policy.begin()
    assert policy.act(seen)[:, 0].tolist() == [0, 0, 0]


def test_one_row_acts_as_it_does_among_many(counting):
    rng = np.random.default_rng(0)
    many, one = Policy(counting, 5), Policy(counting)
    for _ in range(4):
        seen = rng.normal(size=(5, 2)).astype(np.float32)
        np.testing.assert_array_equal(many.act(seen)[3:4], one.act(seen[3:4]))


def test_two_policies_of_one_bundle_share_nothing(counting):
    first, second = Policy(counting), Policy(counting)
    for _ in range(3):
        first.act(np.zeros((1, 2), np.float32))
    assert second.act(np.zeros((1, 2), np.float32)).tolist() == [[0, 0]]


@pytest.fixture
def chunked(tmp_path) -> Bundle:
    """action k of a chunk of 4 = observation + k / 10; two are carried out."""
    out = Tensor("action", (4, 2))
    onnx = graph(
        [("Unsqueeze", ["observation", "axis"], ["o"], {}), ("Add", ["o", "k"], ["action"], {})],
        (SEEN,), (out,),
        [("axis", np.array([1])), ("k", np.repeat(np.arange(4) / 10, 2).reshape(1, 4, 2)
                                   .astype(np.float32))],
    )  # fmt: skip
    return load(tmp_path / "b", [Network("policy", "policy.onnx", (SEEN,), (out,))],
                {"policy.onnx": onnx}, chunk=Chunk(4, 2), rate=20.0)  # fmt: skip


def test_a_chunk_is_carried_out_before_the_next_is_inferred(chunked):
    policy = Policy(chunked, 2)
    seen = [np.full((2, 2), float(i), np.float32) for i in range(6)]
    acted = [policy.act(s)[0, 0] for s in seen[:3]]
    np.testing.assert_allclose(acted, [0.0, 0.1, 2.0])
    policy.begin(np.array([1]))  # only this row's chunk is void
    np.testing.assert_allclose(policy.act(seen[3])[:, 0], [2.1, 3.0])
    np.testing.assert_allclose(policy.act(seen[4])[:, 0], [4.0, 3.1])
    np.testing.assert_allclose(policy.act(seen[5])[:, 0], [4.1, 5.0])
    assert policy.infer(seen[0]).shape == (2, 4, 2)


def test_chunk_shapes_are_checked(tmp_path, chunked):
    with pytest.raises(ValueError, match=r"action is float32\[4, 3\], expected float32\[4, 2\]"):
        BundleSpec(
            task="test", networks=chunked.spec.networks, action=Tensor("action", (3,)),
            chunk=Chunk(4, 2),
        )  # fmt: skip


@pytest.fixture
def flow(tmp_path) -> Bundle:
    """A small picture, normal and uniform noise: action = mean of the picture + z + 10 u."""
    inputs = (
        Input("image", (4, 4, 3), "uint8"), Input("z", (2,), source="noise"),
        Input("u", (2,), source="uniform"),
    )  # fmt: skip
    onnx = graph(
        [
            ("Cast", ["image"], ["pixels"], {"to": 1}),
            ("ReduceMean", ["pixels"], ["mean"], {"axes": [1, 2, 3], "keepdims": 0}),
            ("Unsqueeze", ["mean", "axis"], ["column"], {}),
            ("Mul", ["u", "ten"], ["tens"], {}),
            ("Add", ["z", "tens"], ["noise"], {}),
            ("Add", ["column", "noise"], ["action"], {}),
        ],
        inputs, (ACTION,), [("axis", np.array([1])), ("ten", np.float32([10]))],
    )  # fmt: skip
    return load(tmp_path / "b", [Network("policy", "policy.onnx", inputs, (ACTION,))],
                {"policy.onnx": onnx})  # fmt: skip


def test_noise_is_drawn_for_each_call_and_by_seed(flow):
    image = {"image": np.full((400, 4, 4, 3), 100, np.uint8)}
    policy = Policy(flow, 400, seed=1)
    first, second = policy.act(image), policy.act(image)
    assert (first != second).all()
    np.testing.assert_array_equal(Policy(flow, 400, seed=1).act(image), first)
    assert (Policy(flow, 400, seed=2).act(image) != first).all()
    assert first.mean() == pytest.approx(105, abs=0.6)
    assert first.std() == pytest.approx(np.sqrt(1 + 100 / 12), abs=0.3)
    assert [t.name for t in flow.spec.observations] == ["image"], "noise isn't observed"


@pytest.fixture
def two_rates(tmp_path) -> Bundle:
    """An encoder at 5 Hz that counts its calls, a policy at 20 Hz, and a critic of its own.

    action = observation + features; features = observation as the encoder saw it
    """
    slow_in, slow_out = (SEEN,), (Tensor("features", (2,)),)
    fast_in = (SEEN, Input("f", (2,), source="network", feedback="encoder.features"))
    critic_in, critic_out = (Input("x", (2,)),), (Tensor("risk", (2,)),)
    networks = [
        Network("encoder", "encoder.onnx", slow_in, slow_out, rate=5.0),
        Network("policy", "policy.onnx", fast_in, (ACTION,)),
        Network("critic", "critic.onnx", critic_in, critic_out),
    ]
    files = {
        "encoder.onnx": graph([("Identity", ["observation"], ["features"], {})], slow_in, slow_out),
        "policy.onnx": graph([("Add", ["observation", "f"], ["action"], {})], fast_in, (ACTION,)),
        "critic.onnx": graph([("Abs", ["x"], ["risk"], {})], critic_in, critic_out),
    }
    return load(tmp_path / "b", networks, files, rate=20.0)


def test_a_slower_network_runs_at_its_rate(two_rates):
    policy = Policy(two_rates, 2)
    calls, run = [], two_rates.run
    two_rates.run = lambda name, feed: calls.append(name) or run(name, feed)  # type: ignore
    acted = [policy.act(np.full((2, 2), float(i), np.float32))[0, 0] for i in range(6)]
    assert acted == [0 + 0, 1 + 0, 2 + 0, 3 + 0, 4 + 4, 5 + 4]
    assert calls.count("encoder") == 2
    assert "critic" not in calls
    policy.begin(np.array([1]))  # a row that begins has no features yet
    acted = policy.act(np.full((2, 2), 6.0, np.float32))[:, 0]
    assert acted.tolist() == [6 + 4, 6 + 6]


def test_a_slower_network_goes_by_the_time_it_is_told(two_rates):
    """On a robot periods may be left out."""
    policy = Policy(two_rates)
    acted = [
        policy.infer(np.full((1, 2), t * 100, np.float32), time=t)[0, 0, 0]
        for t in (0.0, 0.05, 0.15, 0.2, 0.35, 0.41)
    ]
    np.testing.assert_allclose(acted, [0, 5, 15, 20 + 20, 35 + 20, 41 + 41], rtol=1e-6)


def test_a_network_that_stands_for_itself(two_rates):
    assert [n.name for n in two_rates.spec.acting] == ["encoder", "policy"]
    risk = two_rates.run("critic", {"x": np.array([[-1.0, 2.0]], np.float32)})
    assert risk["risk"].tolist() == [[1.0, 2.0]]
    assert two_rates.spec.network("critic").file == "critic.onnx"
    with pytest.raises(ValueError, match="network 'oracle': the bundle has encoder, policy"):
        two_rates.spec.network("oracle")


def test_a_network_can_not_use_a_later_one(two_rates):
    slow, fast, critic = two_rates.spec.networks
    with pytest.raises(ValueError, match=r"there is no output 'encoder\.features'"):
        BundleSpec(task="test", networks=(fast, slow, critic), action=ACTION, rate=20.0)
    with pytest.raises(ValueError, match="encoder: has a rate, the actions have none"):
        BundleSpec(task="test", networks=(slow, fast, critic), action=ACTION)
