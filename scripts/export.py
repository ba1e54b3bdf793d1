"""Write a run's policy as a bundle: `motoric export …`, or `python scripts/export.py …`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from motoric.configs.commands import Export
from motoric.hardware.runtime.bundle import Bundle, write_bundle
from motoric.scripts.config import UserError
from motoric.scripts.training.export import ExportError, checked
from motoric.scripts.training.run import restored


def export_run(settings: Export, say: Callable[[str], None] = print) -> Path:
    """Write the newest undamaged checkpoint of a run as a bundle; returns its folder."""
    trained = restored(Path(settings.run), say)
    learner = trained.learner
    folder = Path(settings.run) / "bundle" / "last" if settings.out is None else Path(settings.out)
    if settings.out is not None and folder.exists() and not (folder / "bundle.json").exists():
        raise UserError(f"out: {folder} exists and is not a bundle")
    try:
        spec, files, difference = checked(learner, trained.environment, trained.origin, 10_000)
    except ExportError as error:
        raise UserError(f"run: {settings.run}: {error}") from None
    write_bundle(folder, files, spec)
    bundle = Bundle.load(folder)
    say(f"{folder}: {bundle.spec.task} after {learner.done:,} {learner.unit}")
    say(f"largest difference from the policy over 10,000 random observations: {difference:.1e}")
    return folder


def run(settings: Export, say: Callable[[str], None]) -> int:
    """`motoric export`."""
    export_run(settings, say)
    return 0


if __name__ == "__main__":
    from motoric.scripts.cli import main

    sys.exit(main(["export", *sys.argv[1:]]))
