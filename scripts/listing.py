"""List what there is to choose from, and the runs: `motoric list`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from motoric.configs.commands import List
from motoric.hardware.drivers import DRIVERS, ROBOTS, STAND_INS
from motoric.hardware.registry import INTERFACES
from motoric.scripts import config

SHOWN = 20  # runs, the newest


def choices() -> dict[str, Sequence[str]]:
    """Names by what they are of; those of installed packages are among them.

    Choices of the configuration come first, by their group; then what configurations refer to.
    """
    groups = ("policy", "env", "dataset", "robot", "viewer", "experiment")
    found: dict[str, Sequence[str]] = {group: config.group_choices(group) for group in groups}
    tables = [INTERFACES, DRIVERS, STAND_INS]
    try:
        from motoric.envs.registry import ENGINES, TASKS

        tables = [TASKS, ENGINES, *tables]
    except ModuleNotFoundError:  # a robot computer has none
        pass
    found |= {table.kind: list(table) for table in tables}
    return found | {"robot model": list(ROBOTS)}


def runs() -> list[Path]:
    """Run folders below `runs`, the newest last."""
    found = sorted(Path("runs").glob("**/config.yaml"), key=lambda path: path.stat().st_mtime)
    return [path.parent for path in found]


def progress(folder: Path) -> str:
    """One line of how far a run got."""
    steps = sorted((folder / "checkpoints").glob("step_*"))
    done = f"{int(steps[-1].name[5:]):,} steps" if steps else "no checkpoint"
    try:
        state = json.loads((steps[-1] / "state.json").read_text())
        return f"{done}, best return {state['extra']['best_return']:.1f}"
    except (IndexError, OSError, ValueError, KeyError, TypeError):
        return done


def run(settings: List, say: Callable[[str], None]) -> int:
    for kind, names in choices().items():
        say(f"{kind}: {', '.join(names)}")
    for line in config.UNUSABLE.values():
        say(line)
    found = runs()
    say(f"runs: {len(found)}")
    for folder in found[-SHOWN:]:
        say(f"  {folder}  {progress(folder)}")
    return 0
