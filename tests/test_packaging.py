"""The wheel holds every module and data file, and nothing else."""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("control", "hardware", "envs", "policies", "configs", "scripts")


def build_wheel(tmp_path: Path) -> tuple[Path, Path]:
    """The wheel of this tree, and the copy of the tree it was built from."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    for folder in (*FOLDERS, "tests"):
        shutil.copytree(
            ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps",
         "--no-index", "-w", str(tmp_path), str(source)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("motoric-*.whl")
    return wheel, source


PLACES = {"scripts/api/": "motoric/", "scripts/sweeps/hydra_plugins/": "hydra_plugins/motoric_ray/"}


def in_the_wheel(path: str) -> str:
    """Where a file of the tree is in the wheel."""
    for folder, place in PLACES.items():
        if path.startswith(folder):
            return place + path.removeprefix(folder)
    return f"motoric/{path}"


def test_the_wheel_is_complete(tmp_path):
    wheel, source = build_wheel(tmp_path)
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    expected = {
        in_the_wheel(str(path.relative_to(source)))
        for folder in FOLDERS
        for path in (source / folder).rglob("*")
        if path.suffix in (".py", ".yaml", ".xml", ".typed")
    }
    assert names == expected
    assert {"motoric/__init__.py", "motoric/py.typed", "motoric/scripts/train.py"} <= names


def test_the_wheel_says_what_it_is(tmp_path):
    wheel, _ = build_wheel(tmp_path)
    files = zipfile.ZipFile(wheel)
    (name,) = (n for n in files.namelist() if n.endswith("/METADATA"))
    told = email.message_from_bytes(files.read(name))
    assert told["Name"] == "motoric"
    assert told["License-Expression"] == "Apache-2.0"
    assert told["Description-Content-Type"] == "text/markdown"
    assert str(told.get_payload()).startswith("# motoric")
    for minor in range(0, 20):
        is_named = f"Programming Language :: Python :: 3.{minor}" in told.get_all("Classifier", [])
        assert is_named == SpecifierSet(told["Requires-Python"]).contains(f"3.{minor}")
    extras = set(told.get_all("Provides-Extra", []))
    assert extras >= {"robot", "train", "dynamixel", "unitree", "ray"}
