"""`motoric train -m …`: every combination of comma-separated values, through Hydra's launcher."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra import main as hydra_main
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from motoric.configs import schema
from motoric.scripts import config
from motoric.scripts.config import UserError
from omegaconf import DictConfig, OmegaConf


def job(values: DictConfig) -> None:
    """One training of a sweep, in the folder Hydra gives it; a failure is written, not raised."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir) / f"job_{hydra.job.num}"
    folder.mkdir(parents=True, exist_ok=True)
    told = {"job": hydra.job.num, "overrides": list(hydra.overrides.task)}
    OmegaConf.resolve(values)
    settings = config.typed(OmegaConf.to_object(values))
    settings = dataclasses.replace(settings, run=str(folder / "run"))
    from motoric.scripts.train import train

    result: dict[str, Any]
    stopped = None
    try:
        done = train(settings, lambda text: print(text, flush=True))
        stopped = done.stopped
        result = {
            "steps": done.steps, "seconds": round(done.seconds, 1),
            "best_return": done.best_return, "last": done.evaluation,
        }  # fmt: skip
        if stopped is not None:
            result["error"] = f"stopped by signal {stopped}; motoric train resume={done.folder}"
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}".split("\n")[0]}
    (folder / "result.json").write_text(json.dumps(told | result, indent=1))
    if stopped is not None:
        raise KeyboardInterrupt


def run(overrides: list[str], say: Callable[[str], None]) -> int:
    """Check every job, then train them; a table of results at the end. 1 if any failed."""
    own = [o for o in overrides if not o.lstrip("+").startswith("hydra")]
    if any(o.startswith(("resume=", "run=")) for o in own):
        raise UserError("run, resume: not with -m, each job of a sweep has a folder of its own")
    try:
        parsed = OverridesParser.create().parse_overrides(own)
        jobs = [j for batch in BasicSweeper.split_arguments(parsed, None) for j in batch]
    except HydraException as error:
        raise UserError(config.explain("train", own, error)) from None
    for one in jobs:
        config.load("train", list(one))
    folder = Path("runs") / "sweeps" / time.strftime("%Y%m%d-%H%M%S")
    say(f"sweep of {len(jobs)} trainings in {folder}")
    schema.register()
    sys.argv = [
        "motoric train", "--multirun", *overrides,
        f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=.", "hydra.output_subdir=null",
        "hydra/job_logging=disabled", "hydra/hydra_logging=disabled",
    ]  # fmt: skip
    interrupted = False
    try:
        with contextlib.suppress(SystemExit):
            hydra_main(
                version_base="1.3", config_path="pkg://motoric.configs", config_name="train"
            )(job)()
    except KeyboardInterrupt:
        interrupted = True
    failed = 0
    for number, one in enumerate(jobs):
        path = folder / f"job_{number}" / "result.json"
        result = json.loads(path.read_text()) if path.exists() else {"error": "not run"}
        failed += "error" in result
        text = (
            f"failed: {result['error']}"
            if "error" in result
            else (
                f"{result['steps']:,} steps, {result['seconds']:.0f} s, "
                f"best return {result['best_return']:.1f}"
            )
        )
        say(f"{folder / f'job_{number}'}  {' '.join(one)}  {text}")
    if interrupted:
        raise KeyboardInterrupt
    return 1 if failed else 0
