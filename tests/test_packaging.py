"""The wheel holds every module and data file, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

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


def test_the_wheel_is_complete(tmp_path):
    wheel, source = build_wheel(tmp_path)
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    expected = {
        f"motoric/{path.relative_to(source)}".replace(
            "motoric/scripts/sweeps/hydra_plugins/", "hydra_plugins/motoric_ray/"
        )
        for folder in FOLDERS
        for path in (source / folder).rglob("*")
        if path.suffix in (".py", ".yaml", ".xml")
    }
    assert names == expected
