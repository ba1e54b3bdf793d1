"""Who may import whom: control <- hardware <- envs <- scripts, and policies <- scripts; and that
a system is a new file in each room, whose name no old file learns."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "control": {"control"},
    "hardware": {"control", "hardware"},
    "envs": {"control", "hardware", "envs"},
    "policies": {"policies"},
    "configs": {"configs", "hardware.registry"},
    "scripts": {"control", "hardware", "envs", "policies", "configs", "scripts"},
}
# All that may be imported there besides Python's own, even inside a function; a room within is
# allowed more. Of the scripts nothing is asked.
PACKAGES = {
    "control": {"numpy"},
    "control/qp.py": {"numba"},
    "hardware": {"numpy"},
    "hardware/runtime": {"onnxruntime", "mcap"},
    "hardware/models": {"mujoco"},
    "hardware/specs": {"mujoco", "yaml"},
    "hardware/simulated": {"mujoco", "pybullet"},
    "hardware/unitree": {"mujoco", "cyclonedds", "unitree_sdk2py"},
    "hardware/dynamixel": {"dynamixel_sdk", "serial"},
    "envs": {"numpy", "gymnasium", "mujoco", "mjbatch", "stable_baselines3", "pettingzoo"},
    "policies": {
        "numpy", "torch", "gymnasium", "stable_baselines3", "sb3_contrib", "torch_geometric",
    },
    "configs": {"omegaconf"},
}  # fmt: skip
# Rooms that don't know each other, whoever they are: drivers meet at `Robot`, tasks and engines at
# `Simulation`, and what runs a policy knows neither a driver nor a robot by name.
APART = {
    "hardware/interfaces": {
        "hardware.runtime", "hardware.drivers", "hardware.sources", "hardware.specs",
        "hardware.simulated", "hardware.unitree", "hardware.dynamixel", "hardware.network",
    },
    "hardware/runtime": {
        "hardware.drivers", "hardware.specs", "hardware.simulated", "hardware.unitree",
        "hardware.dynamixel", "hardware.network",
    },
    "hardware/specs": {"hardware.runtime", "hardware.drivers", "hardware.interfaces"},
    "hardware/unitree": {"hardware.runtime", "hardware.dynamixel", "hardware.network"},
    "hardware/dynamixel": {"hardware.runtime", "hardware.unitree", "hardware.network"},
    "hardware/network": {"hardware.runtime", "hardware.unitree", "hardware.dynamixel"},
    "envs/tasks": {"envs.engines"},
    "envs/engines": {"envs.tasks"},
    "policies/data": {"policies.dsac_t", "policies.baselines", "policies.contract"},
}  # fmt: skip


def modules(place: str) -> Iterator[Path]:
    """The modules of a folder (or the one of that name) and of those within."""
    path = ROOT / place
    yield from [path] if path.is_file() else sorted(path.rglob("*.py"))


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


def ours(path: Path) -> set[str]:
    """What a module imports of motoric, without that word."""
    return {n.removeprefix("motoric.") for n in imports(path) if n.startswith("motoric.")}


def within(name: str, rooms: set[str]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_run_one_way(folder):
    for path in modules(folder):
        wrong = {name for name in ours(path) if not within(name, ALLOWED[folder])}
        wrong -= {room.rpartition(".")[0] for room in ALLOWED[folder]}  # from motoric.a import b
        assert not wrong, f"{path.relative_to(ROOT)}: {wrong}"


@pytest.mark.parametrize("folder", [f for f in ALLOWED if f in PACKAGES])
def test_a_room_keeps_to_its_packages(folder):
    for path in modules(folder):
        place = str(path.relative_to(ROOT))
        allowed = {p for room, names in PACKAGES.items() if place.startswith(room) for p in names}
        theirs = {name.partition(".")[0] for name in imports(path)} - {"motoric", "", "__future__"}
        assert theirs - sys.stdlib_module_names <= allowed, f"{place}: {theirs}"


@pytest.mark.parametrize("room", APART)
def test_rooms_that_do_not_know_each_other(room):
    assert list(modules(room))
    for path in modules(room):
        wrong = {name for name in ours(path) if within(name, APART[room])}
        assert not wrong, f"{path.relative_to(ROOT)}: {wrong}"


# -- no old file learns its name ------------------------------------------------------------------

# Of these each file is one of many, found by its name or by its folder. Who may import such a file
# none the less: a task has an interface and a robot, a driver family its robots' data.
ONE_OF_MANY = {
    "envs/tasks": (),
    "envs/engines": (),
    "configs/policies": (),
    "hardware/interfaces": ("envs", "hardware/interfaces"),
    "hardware/specs": ("envs/tasks", "hardware/unitree", "hardware/dynamixel", "hardware/specs"),
}
KIND = {  # in one of the many
    "hardware/interfaces": re.compile(r"^INTERFACE = ", re.M),
    "hardware/specs": re.compile(r"^SPEC = ", re.M),
}


def members(room: str) -> list[Path]:
    """The files of a room that are one of many; others are what they share."""
    found = [path for path in modules(room) if path.name != "__init__.py"]
    return [path for path in found if room not in KIND or KIND[room].search(path.read_text())]


def everything() -> list[Path]:
    return [path for folder in ALLOWED for path in modules(folder)]


@pytest.mark.parametrize("room", ONE_OF_MANY)
def test_none_imports_one_of_many(room):
    names = {str(p.relative_to(ROOT)).removesuffix(".py").replace("/", ".") for p in members(room)}
    assert names
    for path in everything():
        place = str(path.relative_to(ROOT))
        if not place.startswith(ONE_OF_MANY[room]) or not ONE_OF_MANY[room]:
            found = {name for name in ours(path) if within(name, names)} - {place}
            assert not found, f"{place}: {found}"


def compared(path: Path) -> set[str]:
    """Texts that a module compares something with, or matches."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            sides = [node.value]
        else:
            continue
        for side in sides:
            items = side.elts if isinstance(side, ast.Tuple | ast.List | ast.Set) else [side]
            found |= {i.value for i in items if isinstance(i, ast.Constant) and i.value in NAMES}
    return found


# Engines are named as the libraries are, and those are asked for in other rooms too.
NAMES = {p.stem for room in ONE_OF_MANY if room != "envs/engines" for p in members(room)}


def test_none_branches_on_a_name():
    """`if name == "go2_velocity"` anywhere but in that file is a table in disguise."""
    assert {"go2_velocity", "ppo", "joint_targets", "go2"} <= NAMES
    for path in everything():
        found = compared(path) - {path.stem}
        assert not found, f"{path.relative_to(ROOT)}: {found}"


def test_scripts_know_the_contract_of_learning_and_no_algorithm():
    for path in modules("scripts"):
        wrong = {n for n in ours(path) if within(n, {"policies"})} - {"policies"}
        wrong = {n for n in wrong if not within(n, {"policies.contract", "policies.data"})}
        assert not wrong, f"{path.relative_to(ROOT)}: {wrong}"
        algorithms = {f"stable_baselines3.{name}" for name in ("PPO", "SAC", "TD3", "A2C", "DQN")}
        algorithms |= {f"stable_baselines3.{name}" for name in ("ppo", "sac", "td3")}
        assert not {n for n in imports(path) if within(n, algorithms)}, path.relative_to(ROOT)


# -- what is installed ----------------------------------------------------------------------------


def blocked(names: tuple[str, ...], code: str) -> None:
    """Run code in a Python where these packages can't be imported."""
    preamble = (
        "import sys, importlib.abc\n"
        "class Block(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {names!r}:\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    done = subprocess.run([sys.executable, "-c", preamble + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_robot_computer_needs_no_learning_stack():
    """The deployed runtime imports without torch, gymnasium, mujoco and the rest."""
    blocked(
        ("torch", "gymnasium", "mujoco", "stable_baselines3", "mjbatch", "matplotlib", "viser",
         "scipy", "pybullet", "onnx"),
        "import motoric.hardware.runtime.deploy, motoric.hardware.drivers\n"
        "import motoric.hardware.runtime.log, motoric.hardware.sources\n"
        "import motoric.control.supervisor, motoric.hardware.simulated.robot\n"
        "import motoric.hardware.network.robot, motoric.hardware.network.server\n"
        "import motoric.scripts.deploy, motoric.scripts.serve\n"
        "import motoric.scripts.cli, motoric\n"
        "from motoric.hardware.registry import INTERFACES\n"
        "assert {'joint_targets', 'impedance'} <= set(INTERFACES)\n"
        "assert 'sim_go2' in motoric.list()['robot']\n",
    )  # fmt: skip


def test_importing_motoric_imports_nothing():
    blocked(
        ("torch", "gymnasium", "mujoco", "stable_baselines3", "mjbatch", "hydra", "omegaconf",
         "numpy", "onnxruntime", "rich", "yaml"),
        "import motoric\nassert motoric.__version__ and 'train' in dir(motoric)\n",
    )  # fmt: skip


@pytest.mark.parametrize("folder", ALLOWED)
def test_packages_are_listed(folder):
    """Every folder with Python in it is a package of the wheel, where it should be."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    places = setuptools["package-dir"]
    assert len(set(setuptools["packages"])) == len(setuptools["packages"])

    def folder_of(package: str) -> str:
        above = package
        while above not in places:
            above = above.rpartition(".")[0]
        return places[above] + package.removeprefix(above).replace(".", "/")

    listed = {folder_of(package) for package in setuptools["packages"]}
    folders = {str(p.parent.relative_to(ROOT)) for p in modules(folder)}
    assert folders == {f for f in listed if f == folder or f.startswith(f"{folder}/")}
