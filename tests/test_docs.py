"""The pages keep their word: code runs, commands are understood, links lead somewhere."""

from __future__ import annotations

import inspect
import re
import shlex
import sys
import types
from pathlib import Path

import pytest
import yaml
from hydra.core.config_store import ConfigStore
from motoric.configs import schema
from motoric.scripts import config
from motoric.scripts.cli import _load
from motoric.scripts.training import algorithms

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M)


@pytest.fixture
def example(request):
    """The code of a page as a module, run from top to bottom, and its tests."""
    policies, classes = dict(schema.POLICIES), dict(algorithms.ALGORITHMS)

    def load(name: str) -> types.ModuleType:
        module = types.ModuleType(f"example_{name}")
        sys.modules[module.__name__] = module
        for code in blocks(ROOT / "docs" / f"{name}.md", "python"):
            exec(compile(code, f"{name}.md", "exec", dont_inherit=True), module.__dict__)
        tests = [v for k, v in vars(module).items() if k.startswith("test_")]
        assert tests, "a page about adding shows its test"
        for test in tests:
            test(*(request.getfixturevalue(name) for name in inspect.signature(test).parameters))
        return module

    yield load
    for original, table in ((policies, schema.POLICIES), (classes, algorithms.ALGORITHMS)):
        added = set(table) - set(original)
        for name in added:
            del table[name]
            ConfigStore.instance().repo["policy"].pop(f"{name}.yaml", None)


def test_adding_a_task(example):
    from motoric.envs.vector import BatchedVecEnv
    from stable_baselines3 import PPO

    module = example("adding_a_task")
    PPO("MlpPolicy", BatchedVecEnv(module.Go2Hold(), 8, 0), n_steps=8, batch_size=64).learn(64)
    schema.Env(**_values("adding_a_task"))


def test_adding_a_robot(example):
    module = example("adding_a_robot")
    values = _values("adding_a_robot")
    schema.Robot(**values)
    module.IdealGo2(**values["options"])


def test_adding_an_algorithm(example):
    from stable_baselines3.common.env_util import make_vec_env

    module = example("adding_an_algorithm")
    settings = config.load("train", ["policy=fading_td3", "env=pendulum"])
    model = algorithms.build(settings.policy, make_vec_env("Pendulum-v1"), 0, "cpu")
    assert isinstance(model, module.FadingTD3)
    assert model.target_policy_noise == 0.4


def _values(name: str) -> dict:
    (text,) = blocks(ROOT / "docs" / f"{name}.md", "yaml")
    values = yaml.safe_load(text)
    assert values.pop("defaults") == ["schema", "_self_"]
    return values


def commands() -> list[str]:
    lines = [
        line.partition("#")[0].strip()
        for page in PAGES
        for block in blocks(page, "bash")
        for line in block.splitlines()
    ]
    return sorted({line for line in lines if line.startswith("motoric ")})


@pytest.mark.parametrize("line", commands())
def test_commands_are_understood(line):
    name, *arguments = shlex.split(line)[1:]
    if name in ("list", "demo"):
        return
    assert name in schema.COMMANDS
    if "-m" in arguments:  # each value of a sweep by itself
        arguments = [a.partition(",")[0] if "[" not in a else a for a in arguments if a != "-m"]
        arguments = [a for a in arguments if not a.startswith("hydra")]
    _load(name, [a for a in arguments if a != "--help"])


def test_commands_are_found():
    assert len(commands()) > 15


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_files_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
    folders = "tests|docs|envs|scripts|policies|hardware|control|configs"
    for name in re.findall(rf"`((?:{folders})/[^`]*)`", text):
        if not re.search(r"[<*]", name) and page.name[:6] != "adding":
            assert (ROOT / name).exists(), name
