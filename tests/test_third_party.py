"""A package of somebody else's, installed by pip: the one that docs/extending.md shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILE = re.compile(r"`([\w/.]+)`[^`\n]*:\n\n```\w+\n(.*?)^```", re.S | re.M)


def write_package(folder: Path) -> list[str]:
    """The files on the page, each named before its block."""
    names = []
    for name, text in FILE.findall((ROOT / "docs" / "extending.md").read_text()):
        names.append(name)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for package in ("motoric_rail", "motoric_rail/configs"):
        (folder / package / "__init__.py").touch()
    return names


class Machine:
    """Python with the packages installed here, and those in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.site, self.home = folder / "site", folder / "home"
        self.home.mkdir()
        self.environment = os.environ | {"PYTHONPATH": str(self.site), "OMP_NUM_THREADS": "1"}

    def install(self, source: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index",
             "--no-build-isolation", "--target", str(self.site), str(source)],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "motoric.scripts.cli", *map(str, words)], cwd=self.home,
            env=self.environment, capture_output=True, text=True, timeout=240,
        )  # fmt: skip

    def motoric(self, *words: object) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def machine(tmp_path_factory) -> Machine:
    folder = tmp_path_factory.mktemp("third_party")
    source = folder / "motoric-rail"
    source.mkdir()
    names = write_package(source)
    assert {"pyproject.toml", "motoric_rail/rail.py", "motoric_rail/search.py"} <= set(names)
    machine = Machine(folder)
    machine.install(source)
    return machine


@pytest.fixture(scope="module")
def run(machine) -> Path:
    folder = machine.home / "run"
    machine.motoric("train", "experiment=rail_search", f"run={folder}", "progress=false")
    return folder


def listed(text: str) -> dict[str, list[str]]:
    lines = (line.partition(": ") for line in text.splitlines())
    return {kind: names.split(", ") for kind, _, names in lines}


def test_it_is_listed(machine):
    found = listed(machine.motoric("list"))
    for kind, name in {
        "policy": "random_search", "env": "rail", "task": "rail", "robot": "sim_rail",
        "robot model": "rail", "experiment": "rail_search",
    }.items():  # fmt: skip
        assert name in found[kind], kind
    assert {"ppo", "dsac_t"} <= set(found["policy"])
    text = machine.motoric("train", "policy=random_search", "env=rail", "--help")
    assert re.search(r"policy\.step_size=0\.3 +of the parameters", text)
    assert "env.num_envs=16" in text
    done = machine.run("train", "policy=random_search", "env=rail", "policy.noise=0")
    assert done.returncode == 2
    assert "policy.noise: 0.0, expected more than 0" in done.stderr


@pytest.mark.slow
def test_it_learns_and_its_bundle_is_evaluated(machine, run):
    machine.motoric("evaluate", run, "episodes=20")
    result = json.loads((run / "evaluation.json").read_text())
    assert result["distance_mean"] < 0.1, "half a metre where nothing is learned"
    assert (run / "bundle" / "best" / "policy.onnx").exists()


@pytest.mark.slow
def test_it_goes_on_where_it_stopped(machine, run):
    """A run of 40000 steps, and one stopped half way: the same parameters, bit for bit."""
    half = machine.home / "half"
    machine.motoric("train", "experiment=rail_search", f"run={half}", "total_steps=20000")
    machine.motoric("train", f"resume={half}", "total_steps=40000")
    one, other = ((f / "bundle/last/policy.onnx").read_bytes() for f in (run, half))
    assert one == other


@pytest.mark.slow
def test_its_robot_obeys_its_policy(machine, run):
    text = machine.motoric("deploy", run, "robot=sim_rail", "goal=[0.5]", "duration=3")
    assert "fault" not in text
    (log,) = (run / "logs").glob("*.mcap")
    code = (
        "import sys; from motoric.hardware.runtime.log import read_log\n"
        "log = read_log(sys.argv[1])\n"
        "acting = [q[0] for q, mode in zip(log.position, log.status) if mode == 'active']\n"
        "print(acting[-1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(log)], capture_output=True, text=True, check=True
    )
    assert abs(float(done.stdout) - 0.5) < 0.15


def test_a_broken_package_hurts_no_other(tmp_path):
    code, reason = "raise RuntimeError('no licence\\nfor you')", "RuntimeError: no licence"
    broken = tmp_path / "broken"
    package = broken / "broken_plugins"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code)
    groups = {
        "configs": "broken_plugins", "policies": "broken_plugins:Config",
        "tasks": "broken_plugins:Task", "robots": "broken_plugins:SPEC",
        "drivers": "broken_plugins:Driver", "interfaces": "broken_plugins:INTERFACE",
    }  # fmt: skip
    points = "".join(
        f'[project.entry-points."motoric.{group}"]\nbroken = "{value}"\n'
        for group, value in groups.items()
    )
    (broken / "pyproject.toml").write_text(
        f'[project]\nname = "broken-plugins"\nversion = "1.0"\n{points}'
        '[tool.setuptools]\npackages = ["broken_plugins"]\n'
    )
    other = Machine(tmp_path)
    other.install(broken)
    done = other.run("list")
    assert done.returncode == 0, done.stderr
    found = listed(done.stdout)
    assert {"ppo", "dsac_t"} <= set(found["policy"])
    assert reason in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "policy.gamma=" in other.motoric("train", "policy=ppo", "--help")
    for words in (["train", "policy=broken"], ["train", "env=gym", "id=broken"],
                  ["deploy", "run=/", "robot=sim_go2", "robot.driver=broken"]):  # fmt: skip
        done = other.run(*words)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1, done.stderr
        if words[0] == "train":
            assert "broken" in done.stderr
            assert reason in done.stderr
