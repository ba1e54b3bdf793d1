"""Who may import whom: control <- hardware <- envs <- scripts, and policies <- scripts."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "control": {"control"},
    "hardware": {"control", "hardware"},
    "envs": {"control", "hardware", "envs"},
    "policies": {"policies"},
    "configs": {"configs"},
    "scripts": {"control", "hardware", "envs", "policies", "configs", "scripts"},
}
# What must never be imported there, even inside a function.
FOREIGN = {
    "control": {"torch", "gymnasium", "mujoco", "stable_baselines3", "onnxruntime", "hydra"},
    "hardware": {"torch", "gymnasium", "stable_baselines3", "mjbatch", "hydra"},
    "envs": {"torch", "hydra", "viser", "onnxruntime"},
    "policies": {"mujoco", "mjbatch", "hydra", "viser"},
}


def imports(path: Path) -> set[str]:
    """Dotted names imported anywhere in a module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_run_one_way(folder):
    for path in (ROOT / folder).rglob("*.py"):
        names = imports(path)
        ours = {n.split(".")[1] for n in names if n.startswith("motoric.")}
        assert ours <= ALLOWED[folder], f"{path.relative_to(ROOT)}: {ours - ALLOWED[folder]}"
        theirs = {n.split(".")[0] for n in names} & FOREIGN.get(folder, set())
        assert not theirs, f"{path.relative_to(ROOT)}: {theirs}"


def test_a_robot_computer_needs_no_learning_stack():
    """The deployed runtime imports without torch, gymnasium, mujoco and the rest."""
    code = (
        "import sys, importlib.abc\n"
        "class Block(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'gymnasium', 'mujoco', 'stable_baselines3',\n"
        "                                  'mjbatch', 'matplotlib', 'viser', 'scipy'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import motoric.hardware.runtime.deploy, motoric.hardware.drivers\n"
        "import motoric.hardware.runtime.log\n"
        "import motoric.control.supervisor, motoric.hardware.simulated.robot\n"
        "import motoric.hardware.network.robot, motoric.hardware.network.server\n"
        "import motoric.scripts.deploy, motoric.scripts.serve\n"
        "import motoric.scripts.cli\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder", ALLOWED)
def test_packages_are_listed(folder):
    """Every folder with Python in it is a package of the wheel."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["package-dir"].values())
    folders = {str(p.parent.relative_to(ROOT)) for p in (ROOT / folder).rglob("*.py")}
    assert folders <= listed
