"""Data sets from the command line: recorded, looked at, learned from without an environment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from motoric.envs.registry import make_batch
from motoric.hardware.runtime.bundle import (
    Bundle,
    BundleSpec,
    Input,
    Network,
    Tensor,
    write_bundle,
)
from motoric.hardware.runtime.policy import Policy
from motoric.hardware.specs.go2 import GO2
from motoric.policies.data.transitions import Transitions
from motoric.scripts import cli
from motoric.scripts.training import checkpoint, evaluation
from motoric.scripts.training.run_folder import read_metrics
from onnx import TensorProto, helper, numpy_helper


def go(*words: object) -> None:
    assert cli.main([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "walk"
    go("train", "env=go2_velocity", "env.num_envs=4", "policy=ppo", "policy.n_steps=16",
       "policy.net_arch=[16]", "total_steps=64", "eval_episodes=1", "progress=false",
       "+env.options.episode_seconds=0.4", f"run={folder}")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def recorded(run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "walk"
    go("data", "record", f"run={run}", f"out={out}", "episodes=7", "num_envs=3", "noise=0.1")
    return out


def test_what_is_recorded_are_the_steps_of_episodes(recorded):
    data = Transitions.open(recorded)
    assert len(data) == 7 * 20
    assert data.starts.sum() == 7
    for episode in data.episodes():
        seen, then = data.observations[episode], data.next_observations[episode]
        np.testing.assert_array_equal(seen[1:], then[:-1])
        assert not (seen[1:] == seen[:-1]).all()
    firsts = data.observations[data.starts]
    for last in data.next_observations[data.truncated]:
        assert not (firsts == last).all(1).any(), "of the next episode"
    environment = data.about["environment"]
    assert environment["task"] == "go2_velocity"
    assert environment["robot"] == "go2"
    assert environment["rate"] == 50.0
    assert environment["interface"]["name"] == "joint_targets"


def test_actions_are_the_policys_and_noise_as_much_as_was_asked_for(run, recorded, tmp_path):
    quiet = tmp_path / "quiet"
    go("data", "record", f"run={run}", f"out={quiet}", "episodes=3", "num_envs=3")
    bundle = Bundle.load(run / "bundle" / "best")
    for path, deviation in ((quiet, 0.0), (recorded, 0.1)):
        data = Transitions.open(path)
        wanted = Policy(bundle, len(data)).act(np.asarray(data.observations))
        inside = np.abs(wanted) < 0.5  # where nothing is cut off
        assert inside.sum() > 300
        difference = (data.actions - wanted)[inside]
        assert difference.std() == pytest.approx(deviation, abs=0.01)
        assert np.abs(data.actions).max() <= 1


def test_it_is_recorded_in_another_environment_too(run, tmp_path, capsys):
    out = tmp_path / "engine"
    go("data", "record", f"run={run}", f"out={out}", "episodes=2", "env=go2_velocity",
       "env.num_envs=2", "+env.options.episode_seconds=0.2", "goal=[0.5,0,0]")  # fmt: skip
    data = Transitions.open(out)
    assert len(data) == 20
    terms = data.about["environment"]["interface"]["parameters"]["terms"]
    sizes = [term["size"] for term in terms]
    at = sum(sizes[: [term["name"] for term in terms].index("goal.velocity")])
    goal = data.observations[:, at : at + 3]
    assert np.ptp(goal, axis=0).max() < 1e-6, "held throughout"
    capsys.readouterr()
    go("data", "info", out)
    told = capsys.readouterr().out
    for word in ("go2_velocity", "20", "2, 0 of them terminated", "10.0 mean"):
        assert word in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data"], "'data' is not a command"),
        (["data", "info", "/nowhere"], "path: /nowhere: is not a folder"),
        (["data", "record", "out=x"], "run: missing"),
        (["data", "record", "run=RUN", "out=DATA"], "exists"),
        (["data", "record", "run=RUN", "out=x", "goal=[9,0,0]"], "forward 9"),
        (["data", "record", "run=RUN", "out=x", "env=none"], "env: 'none'"),
        (["data", "record", "run=RUN", "out=x", "noise=2"], "noise: 2"),
        (["train", "policy=bc", "dataset=local"], "dataset.path: missing"),
        (["train", "policy=bc"], "policy: 'bc' learns from a data set"),
        (["train", "policy=ppo", "env=none"], "env: 'none' has nothing to step"),
        (["train", "policy=ppo", "env=none", "dataset=local", "dataset.path=DATA"],
         "policy: 'ppo' learns from steps"),
        (["train", "policy=ppo", "env=pendulum", "dataset=local", "dataset.path=DATA"],
         "observation_space"),
        (["train", "policy=bc", "env=none", "dataset=local", "dataset.path=/nowhere"],
         "dataset.path: /nowhere: is not a folder"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(run, recorded, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    words = [w.replace("RUN", str(run)).replace("DATA", str(recorded)) for w in words]
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert said in error
    assert not list(tmp_path.iterdir()), "a mistake leaves nothing behind"


# -- learning without an environment ----------------------------------------------------------

OFFLINE = ["policy=bc", "env=none", "dataset=local", "policy.net_arch=[32]", "total_steps=60",
           "checkpoint_every=20", "eval_every=20", "log_every=10", "progress=false"]  # fmt: skip


@pytest.fixture(scope="module")
def offline(recorded, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "offline"
    go("train", *OFFLINE, f"dataset.path={recorded}", f"run={folder}")
    return folder


def test_no_environment_is_made(recorded, tmp_path, monkeypatch):
    def none(*_, **__):
        pytest.fail("an environment was made")

    monkeypatch.setattr("motoric.scripts.training.run.make_batch", none)
    monkeypatch.setattr("motoric.scripts.training.evaluation.make_batch", none)
    go("train", *OFFLINE, f"dataset.path={recorded}", f"run={tmp_path / 'run'}")
    assert Bundle.load(tmp_path / "run" / "bundle" / "best", GO2)


def test_its_bundle_is_for_the_robot_and_acts_where_the_data_is_from(offline):
    bundle = Bundle.load(offline / "bundle" / "best", GO2)
    assert bundle.spec.training["algorithm"] == "bc"
    assert bundle.spec.training["steps"] == 60
    assert bundle.spec.training["unit"] == "updates"
    options = bundle.spec.training["options"]
    assert options == {"episode_seconds": 0.4}
    episodes = evaluation.run(bundle, options, 2, evaluation.TEST)
    assert episodes.lengths.tolist() == [20, 20]


def test_progress_is_in_updates(offline):
    rows = read_metrics(offline / "metrics.csv")
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60]
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]


def test_going_on_is_exact(offline, recorded, tmp_path):
    """From the checkpoint before the last, as after a kill."""
    copy = tmp_path / "run"
    shutil.copytree(offline, copy)
    newest, before = checkpoint.steps(copy / "checkpoints")
    assert (newest.name[-2:], before.name[-2:]) == ("60", "40")
    shutil.rmtree(newest)
    go("train", f"resume={copy}")
    states = [checkpoint.steps(f / "checkpoints")[0] for f in (offline, copy)]
    one, two = (torch.load(s / "tensors.pt", weights_only=True) for s in states)
    for name in one["policy"]:
        assert torch.equal(one["policy"][name], two["policy"][name]), name
    for a, b in zip(*(list(t["optimizer"]["state"].values()) for t in (one, two)), strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)
    values = [json.loads((s / "state.json").read_text())["learner"] for s in states]
    assert values[0] == values[1]
    rows = [read_metrics(f / "metrics.csv") for f in (offline, copy)]
    assert rows[0] == rows[1]


def test_with_an_environment_it_is_evaluated_there(recorded, tmp_path):
    run = tmp_path / "run"
    go("train", "policy=bc", "env=go2_velocity", "env.num_envs=1", "dataset=local",
       f"dataset.path={recorded}", "total_steps=20", "eval_every=10", "eval_episodes=2",
       "progress=false", "+env.options.episode_seconds=0.4", f"run={run}")  # fmt: skip
    rows = read_metrics(run / "metrics.csv")
    assert [row["step"] for row in rows if "eval/return_mean" in row] == [10, 20]
    best = Bundle.load(run / "bundle" / "best").spec.training["return_mean"]
    assert best == pytest.approx(max(row["eval/return_mean"] for row in rows))


def test_rows_of_a_set_are_copies(monkeypatch):
    """What a simulation does next does not change what was recorded."""
    from motoric.scripts import collect

    batch = make_batch("Pendulum-v1", 2)
    seen = batch.reset()
    row = collect._row(seen, 0)
    seen[:] = 0
    assert row.any()


def test_what_a_policy_remembers_ends_with_an_episode(tmp_path):
    """A policy that counts its steps, as its action."""
    names = {"observation": [3], "count": [1]}
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["count", "one"], ["next"]),
            helper.make_node("Mul", ["next", "small"], ["action"]),
        ],
        "policy",
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, ["N", *v]) for k, v in names.items()],
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, ["N", 1]) for k in ("next", "action")],
        [
            numpy_helper.from_array(np.ones(1, np.float32), "one"),
            numpy_helper.from_array(np.full(1, 1e-3, np.float32), "small"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    inputs = (Input("observation", (3,)), Input("count", (1,), "float32", "memory", "next"))
    outputs = (Tensor("next", (1,)), Tensor("action", (1,)))
    network = Network("policy", "policy.onnx", inputs, outputs)
    spec = BundleSpec("Pendulum-v1", (network,), Tensor("action", (1,)))
    write_bundle(tmp_path / "bundle", {"policy.onnx": model.SerializeToString()}, spec)
    go("data", "record", f"run={tmp_path / 'bundle'}", f"out={tmp_path / 'set'}", "episodes=4",
       "num_envs=2")  # fmt: skip
    data = Transitions.open(tmp_path / "set")
    for episode in data.episodes():
        actions = np.ravel(data.actions[episode])
        np.testing.assert_allclose(actions, 1e-3 * np.arange(1, 201), rtol=1e-4)
