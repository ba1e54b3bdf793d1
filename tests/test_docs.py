"""The pages keep their word: code runs, commands are understood, links lead somewhere."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
import sys
import types
from pathlib import Path

import pytest
import yaml
from hydra.core.config_store import ConfigStore
from motoric.configs.groups import Env, Robot
from motoric.envs.registry import TASKS, make_batch
from motoric.scripts import config
from motoric.scripts.cli import command_of, settings_of

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M)


@pytest.fixture
def example(request):
    """The code of a page as a module, run from top to bottom, and its tests."""
    made = []

    def load(name: str) -> types.ModuleType:
        module = types.ModuleType(f"example_{name}")
        sys.modules[module.__name__] = module
        made.append(module.__name__)
        for code in blocks(ROOT / "docs" / f"{name}.md", "python"):
            exec(compile(code, f"{name}.md", "exec", dont_inherit=True), module.__dict__)
        tests = [v for k, v in vars(module).items() if k.startswith("test_")]
        assert tests, "a page about adding shows its test"
        for test in tests:
            test(*(request.getfixturevalue(name) for name in inspect.signature(test).parameters))
        return module

    yield load
    for name in made:
        del sys.modules[name]


def test_adding_a_task(example, monkeypatch):
    from motoric.envs.vector import BatchVecEnv
    from stable_baselines3 import PPO

    module = example("adding_a_task")
    settings = Env(**_values("adding_a_task"))
    monkeypatch.setitem(TASKS._loaded, settings.name, module.TASK)
    assert module.TASK.name == settings.name
    env = BatchVecEnv(make_batch(str(settings.id), 8))
    PPO("MlpPolicy", env, n_steps=8, batch_size=64).learn(64)


def test_adding_a_robot(example):
    module = example("adding_a_robot")
    values = _values("adding_a_robot")
    Robot(**values)
    module.IdealGo2(**values["options"])


def test_adding_an_algorithm(example, monkeypatch, tmp_path):
    """Its configuration is found by its name, and trains."""
    import motoric
    from motoric.configs.policy import POLICIES

    module = example("adding_an_algorithm")
    monkeypatch.setitem(sys.modules, module.Config.learner.partition(":")[0], module)
    monkeypatch.setitem(POLICIES._loaded, module.Config.name, module.Config)
    run = motoric.train(
        policy={"name": module.Config.name, "learning_starts": 50}, env="pendulum",
        total_steps=100, eval_episodes=1, run=tmp_path / "run", progress=False,
    )  # fmt: skip
    assert run.steps == 100
    ConfigStore.instance().repo["policy"].pop(f"{module.Config.name}.yaml")


def test_from_python(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(ROOT / "docs" / "api.md", "python")
    exec(compile(code, "api.md", "exec", dont_inherit=True), {})


def public() -> list[str]:
    """The modules that docs/api.md lists."""
    listed = re.findall(r"^\| `(motoric[\w.]*)` \|", (ROOT / "docs" / "api.md").read_text(), re.M)
    assert len(listed) > 30
    return listed


@pytest.mark.parametrize("name", public())
def test_what_is_public_has_a_docstring(name):
    module = importlib.import_module(name)
    assert module.__doc__
    names = getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")])
    for item in (getattr(module, n) for n in names):
        if (inspect.isclass(item) or inspect.isfunction(item)) and (
            hasattr(module, "__all__") or item.__module__ == name
        ):
            told = item.__dict__.get("__doc__") if inspect.isclass(item) else item.__doc__
            made = f"{item.__name__}("  # what a dataclass without one is given
            assert told, f"{name}.{item.__name__}"
            assert not told.startswith(made), f"{name}.{item.__name__}"


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
    command, words = command_of(shlex.split(line)[1:])
    if "-m" in words:  # each value of a sweep by itself
        assert command.many is not None
        words = [a.partition(",")[0] if "[" not in a else a for a in words if a != "-m"]
        words = [a for a in words if not a.startswith("hydra")]
    if any(word.startswith("resume=") for word in words):
        with pytest.raises(config.UserError, match="is not a run folder"):
            settings_of(command, words)
        return
    settings_of(command, [a for a in words if a != "--help"])


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
        if not re.search(r"[<*]|NAME", name) and page.name[:6] != "adding":
            assert (ROOT / name).exists(), name
