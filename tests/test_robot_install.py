"""A robot computer: a fresh environment with the wheel and its extra `robot`, and nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from motoric.hardware.runtime.log import read_log

from .test_packaging import ROOT, build_wheel

PACKAGES = {
    "antlr4-python3-runtime", "flatbuffers", "hydra-core", "lz4", "markdown-it-py", "mcap", "mdurl",
    "motoric", "numpy", "omegaconf", "onnxruntime", "packaging", "protobuf", "pygments", "pyyaml",
    "rich", "zstandard",
}  # fmt: skip
MEGABYTES = 250


class Computer:
    """The environment; `run` runs a command of it, and of nothing outside."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir(parents=True)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        self.environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / "bin" / arguments[0]), *arguments[1:]], cwd=self.home, text=True,
            capture_output=True, env=self.environment, timeout=240,
        )  # fmt: skip

    def pip(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The pip of this environment, at work in that one: it needs none of its own."""
        return subprocess.run(
            [sys.executable, "-m", "pip", "--python", str(self.folder / "bin/python"), *arguments],
            cwd=self.home, text=True, capture_output=True, env=self.environment, timeout=240,
        )  # fmt: skip


@pytest.fixture(scope="module")
def computer(tmp_path_factory) -> Computer:
    folder = tmp_path_factory.mktemp("robot_computer")
    wheel, _ = build_wheel(folder)
    made = Computer(folder / "env")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made.folder], check=True)
    done = made.pip(
        "install", "-q", "--no-compile", "-c", str(ROOT / "constraints.txt"), f"{wheel}[robot]"
    )
    assert done.returncode == 0, done.stderr
    return made


@pytest.mark.slow
def test_what_is_installed(computer):
    listed = json.loads(computer.pip("list", "--format=json").stdout)
    names = {re.sub("[-_.]+", "-", p["name"]).lower() for p in listed}
    assert names == PACKAGES
    (site,) = computer.folder.glob("lib/python3*/site-packages")
    files = [p for p in site.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < MEGABYTES * 1e6


@pytest.mark.slow
def test_a_bundle_is_deployed_from_there(computer, bundle_folder, tmp_path):
    """The robot is served by this environment, the policy runs in that one."""
    key = tmp_path / "robot.key"
    key.write_text("5a" * 32)
    key.chmod(0o600)
    server = subprocess.Popen(
        [sys.executable, "-m", "motoric.scripts.cli", "serve", "robot=sim_go2", "port=0",
         f"key_file={key}"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip().rpartition(":")[2]
        done = computer.run(
            "motoric", "deploy", str(bundle_folder), "robot=remote_go2",
            f"robot.options.port={port}", f"robot.options.key_file={key}", "duration=1.5",
            "goal=[0,0,0]",
        )  # fmt: skip
    finally:
        server.terminate()
        said = server.communicate(timeout=20)[0]
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"fell +no", done.stdout)
    # Damped where a busy machine took its time between the last command and the goodbye.
    assert re.search(r"motors on\n(motors damped: no command .*\n)?motors off", said)
    (path,) = (bundle_folder / "logs").glob("remote_go2_*.mcap")
    log = read_log(path)
    assert list(dict.fromkeys(log.status)) == ["soft_start", "active", "stopping", "off"]
    active = [h for h, mode in zip(log.base_height, log.status, strict=True) if mode == "active"]
    assert min(active) > 0.22


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], "is not installed: pip install 'motoric[train]'"),
        (["evaluate", "."], "is not installed: pip install 'motoric[train]'"),
        (["export", "."], "is not installed: pip install 'motoric[train]'"),
        (["demo"], "is not installed: pip install 'motoric[train]'"),
        (["serve", "robot=sim_go2", "port=0"], "needs mujoco: pip install 'motoric[train]'"),
        (["deploy", "/nowhere"], "run: /nowhere is not a folder"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_missing_is_one_line(computer, arguments, words):
    done = computer.run("motoric", *arguments)
    assert done.returncode in (1, 2)
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


@pytest.mark.slow
def test_help_and_list(computer):
    assert "remote_go2" in computer.run("motoric", "list").stdout
    assert computer.run("motoric", "deploy", "--help").returncode == 0
    assert computer.run("motoric", "--version").stdout.startswith("motoric 0.")


@pytest.mark.slow
def test_from_python(computer, bundle_folder):
    code = (
        "import sys, motoric, numpy as np\n"
        "policy = motoric.load(sys.argv[1])\n"
        "size = policy.spec.observations[0].shape\n"
        "print(policy.act(np.zeros((1, *size), np.float32)).shape, 'torch' in sys.modules)\n"
    )
    done = computer.run("python", "-c", code, str(bundle_folder))
    assert done.stdout == "(1, 12) False\n", done.stderr
