"""Configurations of other packages, and what a broken one does to the others."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint

import pytest
from motoric.configs.policy import POLICIES
from motoric.scripts import config
from motoric.scripts.config import UserError

CONFIG = '''
from dataclasses import dataclass
from motoric.configs.policy import Policy
from motoric.configs.schema import COUNT, doc

@dataclass
class Config(Policy):
    """A stranger's."""

    learner = "stranger.learner:make"
    name: str = "stranger"
    patience: int = doc(3, "rounds", COUNT)
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with an environment, a robot, an experiment and an algorithm, as if installed."""
    folder = tmp_path / "stranger"
    for name in ("env", "robot", "experiment"):
        (folder / "configs" / name).mkdir(parents=True)
    for path in (folder, folder / "configs"):
        (path / "__init__.py").touch()
    (folder / "algorithm.py").write_text(CONFIG)
    (folder / "configs/env/maze.yaml").write_text(
        "defaults: [schema, _self_]\nname: maze\nid: stranger:Maze-v0\nnum_envs: 4\n"
    )
    (folder / "configs/env/pendulum.yaml").write_text(
        "defaults: [schema, _self_]\nname: pendulum\nid: stranger:Other-v0\n"
    )
    (folder / "configs/robot/cart.yaml").write_text(
        "defaults: [schema, _self_]\nname: cart\ndriver: sim\nmodel: cart.urdf\n"
    )
    (folder / "configs/experiment/fast.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /env: maze\n  - override /policy: stranger\n"
        "total_steps: 7\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("stranger", "stranger.configs", "motoric.configs")
    monkeypatch.setitem(vars(config.PACKAGES), "_others", {"stranger": [point]})
    values = {"stranger": "stranger.algorithm:Config", "broken": "stranger.missing:Config"}
    points = {k: [EntryPoint(k, v, "motoric.policies")] for k, v in values.items()}
    monkeypatch.setitem(vars(POLICIES), "_others", points)
    for table in (POLICIES, config.PACKAGES):
        monkeypatch.setitem(vars(table), "_loaded", dict(vars(table)["_loaded"]))
    yield
    for name in ("stranger", "broken"):
        config.UNUSABLE.pop(f"policy={name}", None)
        config.ConfigStore.instance().repo["policy"].pop(f"{name}.yaml", None)
    for name in [m for m in sys.modules if m.partition(".")[0] == "stranger"]:
        del sys.modules[name]


def test_its_choices_are_among_ours(package):
    for group, name in (("env", "maze"), ("robot", "cart"), ("policy", "stranger")):
        assert name in config.group_choices(group)
    settings = config.load("train", ["experiment=fast", "policy.patience=5"])
    assert settings.env.id == "stranger:Maze-v0"
    assert settings.env.num_envs == 4
    assert settings.policy.patience == 5
    assert settings.policy.learner == "stranger.learner:make"
    assert settings.total_steps == 7


def test_its_values_are_checked_as_ours(package):
    with pytest.raises(UserError, match=r"policy.patience: 0, expected at least 1"):
        config.load("train", ["policy=stranger", "policy.patience=0"])
    with pytest.raises(UserError, match=r"policy.patients: no such key, did you mean"):
        config.load("train", ["policy=stranger", "policy.patients=1"])


def test_ours_win(package):
    assert config.load("train", ["env=pendulum"]).env.id == "Pendulum-v1"


def test_a_broken_one_is_named_where_it_is_chosen_and_nowhere_else(package):
    assert config.load("train", ["policy=sac"]).policy.name == "sac"
    with pytest.raises(UserError, match=r"policy 'broken' of .* can't be loaded: Module"):
        config.load("train", ["policy=broken"])


def test_without_it_its_names_are_unknown():
    with pytest.raises(UserError, match="env: 'maze' is unknown"):
        config.load("train", ["env=maze"])


def test_a_users_model_reaches_the_driver(package):
    robot = config.load("deploy", ["run=x", "robot=cart"]).robot
    assert robot.options["model"] == "cart.urdf"
    robot = config.load("deploy", ["run=x", "robot=sim_go2", "robot.model=mine.xml"]).robot
    assert robot.options["model"] == "mine.xml"
