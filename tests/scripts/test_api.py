"""motoric from Python: the commands as functions, with the keys of the command line."""

from __future__ import annotations

import inspect
import json
import typing
from pathlib import Path

import hypothesis.strategies as st
import motoric
import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from motoric.configs.commands import COMMANDS
from motoric.scripts import config

PARSER = OverridesParser.create()


def loaded(command: str, *words: str, **keys: object) -> typing.Any:
    """The configuration that a call gives its command."""
    return motoric._settings(command, words, keys)


TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="$"), max_size=9)
NUMBERS = st.integers(-(2**40), 2**40) | st.floats(-1e300, 1e300) | st.booleans() | st.none()
VALUES = st.recursive(
    NUMBERS | TEXTS.filter(bool),
    lambda of: (
        st.lists(of, max_size=3)
        | st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), of, max_size=3)
    ),
    max_leaves=6,
)


@given(VALUES)
@settings(max_examples=300, deadline=None)
def test_a_value_arrives_as_it_is(value):
    parsed = PARSER.parse_override(f"goal={motoric._text(value)}").value()
    assert json.dumps(parsed) == json.dumps(value)
    assert motoric._text(parsed) == motoric._text(value)


def test_keys_of_every_kind():
    given = loaded(
        "train", "policy.n_epochs=3", policy={"name": "ppo", "gamma": 0.5, "net_arch": [8, 9]},
        env={"name": "gym", "id": "Pendulum-v1", "options": {"g": np.float64(5.0)}},
        total_steps=np.int64(300), seed=2, run=Path("a run, with [odd] name"), progress=False,
    )  # fmt: skip
    assert (given.policy.name, given.policy.gamma, given.policy.n_epochs) == ("ppo", 0.5, 3)
    assert given.policy.net_arch == [8, 9]
    assert (given.env.id, given.env.options) == ("Pendulum-v1", {"g": 5.0})
    assert (given.total_steps, given.seed, given.progress) == (300, 2, False)
    assert given.run == "a run, with [odd] name"
    goal = loaded("deploy", run="x", goal=np.array([0.5, 0.0, 0.0]), robot="sim_go2").goal
    assert goal == [0.5, 0.0, 0.0]
    goal = {"velocity": [0.5, 0], "instruction": "it's there, [up]"}
    assert loaded("deploy", run="x", goal=goal).goal == goal
    robot = loaded("deploy", run="x", robot={"name": "sim_go2", "options": {"start": "rest"}}).robot
    assert robot.options["start"] == "rest"


@pytest.mark.parametrize(
    ("words", "keys", "said"),
    [
        ((), {"policy": "dsac"}, "policy: 'dsac' is unknown, expected one of"),
        ((), {"policy": {"name": "ppo", "gama": 1}}, "did you mean policy.gamma"),
        ((), {"policy": {"gamma": 2.0}}, "policy.gamma: 2.0, expected at most 1"),
        ((), {"total_step": 5}, "did you mean total_steps"),
        ((), {"seed": "many"}, "seed"),
        ((), {"seed": object()}, "expected a number, text, list or mapping"),
        (("hello",), {}, "key=value"),
    ],
)
def test_a_mistake_is_one_line(words, keys, said):
    with pytest.raises(motoric.UserError) as error:
        motoric.train(*words, **keys)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_there():
    assert sorted(motoric.__all__) == motoric.__all__
    for name in motoric.__all__:
        assert getattr(motoric, name) is not None
    assert motoric.__version__.count(".") == 2
    assert motoric.UserError is config.UserError
    with pytest.raises(AttributeError, match="no attribute 'fly'"):
        motoric.fly  # noqa: B018


def test_a_function_is_the_command_of_its_name():
    ours = inspect.getmembers(motoric, lambda f: getattr(f, "__module__", "") == "motoric")
    functions = {name: function for name, function in ours if name[0] != "_"}
    assert set(functions) == {"deploy", "evaluate", "export", "list", "load", "record", "train"}
    for name, function in functions.items():
        assert inspect.getdoc(function)
        assert name == "load" or name in {n.rpartition(" ")[2] for n in COMMANDS}
        assert "return" in function.__annotations__


def test_a_policy_acts_without_the_simulator(bundle_folder):
    policy = motoric.load(bundle_folder, rows=3)
    assert isinstance(policy, motoric.Policy)
    size = policy.spec.observations[0].shape[0]
    action = policy.act(np.zeros((3, size), np.float32))
    np.testing.assert_array_equal(action, np.zeros((3, 12)))
    with pytest.raises(motoric.BundleError, match="not a folder"):
        motoric.load("/nowhere")


def test_deploy_reports(bundle_folder, monkeypatch):
    said: list[str] = []
    report = motoric.deploy(
        bundle_folder, robot="sim_go2", duration=0.5, goal=[0, 0, 0], say=said.append
    )
    assert isinstance(report, motoric.DeployReport)
    assert report.fault is None
    assert report.seconds == pytest.approx(0.5, abs=0.1)
    assert any("inference" in line for line in said)
    with pytest.raises(motoric.UserError, match="forward 9, the policy was trained for"):
        motoric.deploy(bundle_folder, goal={"velocity": [9, 0, 0]}, say=said.append)


def test_from_training_to_a_policy(tmp_path):
    said: list[str] = []
    run = motoric.train(
        policy={"name": "dsac_t", "learning_starts": 100, "net_arch": [16], "buffer_size": 1000},
        env="pendulum", total_steps=300, eval_episodes=1, run=tmp_path / "run", progress=False,
        say=said.append,
    )  # fmt: skip
    assert isinstance(run, motoric.Result)
    assert (run.folder, run.steps, run.stopped) == (tmp_path / "run", 300, None)
    scores = motoric.evaluate(run.folder, episodes=2, say=said.append)
    assert scores["returns"] == json.loads((run.folder / "evaluation.json").read_text())["returns"]
    again = motoric.train(resume=run.folder, total_steps=400, say=said.append)
    assert again.steps == 400
    folder = motoric.export(run.folder, out=tmp_path / "bundle", say=said.append)
    policy = motoric.load(folder)
    assert policy.act(np.zeros((1, 3), np.float32)).shape == (1, 1)
    data = motoric.record(run.folder, tmp_path / "data", episodes=2, say=said.append)
    assert data == tmp_path / "data"
    cloned = motoric.train(
        policy="bc", env="none", dataset={"name": "local", "path": data}, total_steps=20,
        run=tmp_path / "cloned", progress=False, say=said.append,
    )  # fmt: skip
    assert cloned.steps == 20


def test_the_list():
    found = motoric.list()
    assert {"ppo", "dsac_t"} <= set(found["policy"])
    assert {"go2_velocity"} <= set(found["task"])
