"""A run's folder: who holds it, what it was started from, and its metrics as CSV.

config.yaml  git.json  git.diff  versions.json  metrics.csv  tensorboard/  plots/
checkpoints/step_*/  bundle/best/  bundle/last/  videos/  logs/
"""

from __future__ import annotations

import contextlib
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motoric.configs.commands import Train
from motoric.scripts.config import UserError


def new_folder(config: Train) -> Path:
    """Make a new run's folder; raises UserError where one is."""
    if config.run is not None:
        folder = Path(config.run)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"run: {folder} exists and isn't empty; go on with resume={folder}")
    else:
        where = config.env.id if config.env.name == "gym" else config.env.name
        if config.env.id is None:  # what it learns from instead
            where = Path(config.dataset.path).name
        env = re.sub(r"[^A-Za-z0-9_.-]", "_", str(where))
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


class Metrics:
    """What a training measures, in `metrics.csv` and for TensorBoard.

    resume_at: the step it goes on from: what was written after it is dropped
    """

    def __init__(self, folder: Path, resume_at: int | None = None) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.csv = MetricsCsv(folder / "metrics.csv", resume_at)
        after = None if resume_at is None else resume_at + 1
        self.board = SummaryWriter(log_dir=str(folder / "tensorboard"), purge_step=after)

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Raises OSError."""
        self.csv.write(values, step)
        for key, value in values.items():
            self.board.add_scalar(key, value, step)
        self.board.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.board.close()


class MetricsCsv:
    """`metrics.csv`: one row per step that has something to say; columns are added as they appear.

    resume_at: rows after this step are dropped (they will be written again), and a last line
    that a crash cut off.
    """

    def __init__(self, path: Path, resume_at: int | None = None) -> None:
        self.path = path
        self.columns: list[str] = ["step"]
        self.last: dict[str, float] = {}
        if resume_at is not None and path.exists():
            rows = [r for r in read_metrics(path) if r["step"] <= resume_at]
            self.columns = list(dict.fromkeys(k for r in rows for k in r)) or ["step"]
            self.last = rows[-1] if rows else {}
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

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Add a row, or to the last one where it is of the same step."""
        row = {"step": step} | {key: float(value) for key, value in sorted(values.items())}
        more = self.last.get("step") == step
        row = self.last | row if more else row
        new = [key for key in row if key not in self.columns]
        if new or more:
            rows = read_metrics(self.path)
            self.columns += new
            self._rewrite([*(r for r in rows if r["step"] != step), row])
        else:
            with open(self.path, "a", newline="") as file:
                csv.DictWriter(file, self.columns, restval="").writerow(row)
        self.last = row


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
