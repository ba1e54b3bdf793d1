"""A run's folder: who holds it, what it was started from, and its metrics as CSV.

config.yaml  git.json  git.diff  versions.json  metrics.csv  tensorboard/  plots/
checkpoints/step_*/  bundle/best/  bundle/last/  videos/  logs/
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from motoric.configs import schema
from motoric.scripts.config import UserError
from stable_baselines3.common.logger import KVWriter


def new_folder(config: schema.Train) -> Path:
    """Make a new run's folder; raises UserError where one is."""
    if config.run is not None:
        folder = Path(config.run)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"run: {folder} exists and isn't empty; go on with resume={folder}")
    else:
        env = config.env.id if config.env.name == "gym" else config.env.name
        env = re.sub(r"[^A-Za-z0-9_.-]", "_", str(env))
        stamp = time.strftime("%Y%m%d-%H%M%S")
        name = f"{env}_{config.policy.name}_seed{config.seed}_{stamp}"
        folder, number = Path(config.runs) / name, 2
        while folder.exists():
            folder, number = Path(config.runs) / f"{name}-{number}", number + 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"run: {folder} can't be made: {error.strerror}") from None
    return folder


def lock(folder: Path) -> int:
    """Hold the folder until this process ends; raises UserError where another process does."""
    handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise UserError(f"run: {folder} is in use by another process") from None
    return handle


def write_origin(folder: Path, versions: dict[str, str]) -> None:
    """Write the git state of motoric's own code, and the versions the run started with."""
    (folder / "versions.json").write_text(
        json.dumps(
            versions | {"python": platform.python_version(), "platform": platform.platform()},
            indent=1,
        )
    )
    state: dict[str, Any] = {"commit": None, "dirty": None, "command": sys.argv}
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
        return done.stdout

    try:
        if Path(git("rev-parse", "--show-toplevel").strip()).resolve() == root:
            diff = git("diff", "HEAD")
            state |= {"commit": git("rev-parse", "HEAD").strip(), "dirty": bool(diff)}
            if diff:
                (folder / "git.diff").write_text(diff)
    except (OSError, subprocess.SubprocessError):
        pass  # installed from a wheel, or no git here: versions.json says which release it is
    (folder / "git.json").write_text(json.dumps(state, indent=1))


class MetricsCsv(KVWriter):
    """`metrics.csv`: one row per log, by steps; columns are added as they appear.

    resume_at: rows after this step are dropped (they will be written again), and a last line
    that a crash cut off.
    """

    def __init__(self, path: Path, resume_at: int | None = None) -> None:
        self.path = path
        self.columns: list[str] = ["step"]
        if resume_at is not None and path.exists():
            rows = [r for r in read_metrics(path) if r["step"] <= resume_at]
            self.columns = list(dict.fromkeys(k for r in rows for k in r)) or ["step"]
            self._rewrite(rows)
        else:
            self._rewrite([])

    def _rewrite(self, rows: list[dict[str, float]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        new = self.path.with_suffix(".csv.new")
        new.write_text(text.getvalue())
        new.replace(self.path)

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        row = {"step": float(step)}
        for key, value in sorted(key_values.items()):
            if isinstance(value, bool | int | float) or getattr(value, "ndim", None) == 0:
                row[key] = float(value)
        row["step"] = step
        new = [key for key in row if key not in self.columns]
        if new:
            rows = read_metrics(self.path)
            self.columns += new
            self._rewrite([*rows, row])
            return
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self.columns, restval="").writerow(row)

    def close(self) -> None:
        pass


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics.csv, without empty cells and without a line that was cut off."""
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    rows = []
    for row in csv.DictReader(io.StringIO(whole)):
        try:
            values = {k: float(v) for k, v in row.items() if k is not None and v}
            rows.append(values | {"step": int(values["step"])})
        except (ValueError, KeyError, TypeError):
            continue
    return rows
