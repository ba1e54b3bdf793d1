"""`motoric train -m …`: every combination of comma-separated values, through Hydra's launcher."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose
from hydra import main as hydra_main
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from motoric.scripts import config
from motoric.scripts.config import UserError
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


def job(values: DictConfig) -> None:
    """One training of a sweep, in the folder Hydra gives it; a failure is written, not raised."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir) / f"job_{hydra.job.num}"
    folder.mkdir(parents=True, exist_ok=True)
    told = {"job": hydra.job.num, "overrides": list(hydra.overrides.task)}
    OmegaConf.resolve(values)
    settings = config.typed(OmegaConf.to_object(values))
    settings = dataclasses.replace(settings, run=str(folder / "run"))
    cores = int(hydra.launcher.get("num_cpus") or 0)
    if cores:  # its share of the node, for what was left to choose
        settings.torch_threads = settings.torch_threads or cores
        settings.env.num_threads = settings.env.num_threads or cores
    if hydra.launcher.get("num_gpus") == 0 and settings.device == "auto":
        settings.device = "cpu"  # Ray hides no GPU from a trial that has reserved none
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
            result |= {"error": f"stopped by signal {stopped}", "stopped": stopped}
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
    runs = sorted({config.load("train", list(one)).runs for one in jobs})
    if len(runs) > 1:
        raise UserError(f"runs: {', '.join(runs)}, expected one folder for all jobs of a sweep")
    launcher = _launcher([o for o in overrides if o not in own])
    if launcher.get("_target_", "").startswith("hydra_plugins.motoric_ray."):
        from motoric.scripts.sweeps import ray_trials

        say(ray_trials.connect(launcher.address, launcher.num_cpus, launcher.num_gpus))
    folder = _new_folder(Path(runs[0]) / "sweeps")
    say(f"sweep of {len(jobs)} trainings in {folder}")
    sys.argv = [
        "motoric train", "--multirun", *overrides,
        f"hydra.sweep.dir={_quoted(folder)}", "hydra.sweep.subdir=.", "hydra.output_subdir=null",
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
    results = []
    for number in range(len(jobs)):
        path = folder / f"job_{number}" / "result.json"
        results.append(json.loads(path.read_text()) if path.exists() else {"error": "not run"})
    for number, (one, result) in enumerate(zip(jobs, results, strict=True)):
        say(f"{folder / f'job_{number}'}  {' '.join(one)}  {_told(result, folder, number)}")
    for line in _over_seeds(jobs, results):
        say(line)
    if interrupted:
        raise KeyboardInterrupt
    return 1 if any("error" in result for result in results) else 0


def _launcher(overrides: list[str]) -> DictConfig:
    """The launcher's checked configuration, under the overrides of `hydra`."""
    plugin = import_module("hydra_plugins.motoric_ray")  # makes hydra/launcher=ray known
    with config.hydra():
        Plugins.instance().register(plugin.RayLauncher)
        try:
            launcher = compose("train", overrides, return_hydra_config=True).hydra.launcher
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(config.explain("train", overrides, error)) from None
    for key, least in (("num_cpus", 1), ("num_gpus", 0)):
        if launcher.get(key, least) < least:
            raise UserError(f"hydra.launcher.{key}: {launcher[key]}, expected at least {least}")
    return launcher


def _new_folder(sweeps: Path) -> Path:
    """Make a new sweep's folder; raises UserError where that can't be."""
    name = time.strftime("%Y%m%d-%H%M%S")
    folder, number = sweeps / name, 2
    try:
        sweeps.mkdir(parents=True, exist_ok=True)
        while True:
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
            folder, number = sweeps / f"{name}-{number}", number + 1
    except OSError as error:
        raise UserError(f"runs: {folder} can't be made: {error.strerror}") from None


def _quoted(path: Path) -> str:
    """A path as a value in Hydra's grammar."""
    return "'" + str(path).replace("'", "\\'") + "'"


def _told(result: dict[str, Any], folder: Path, number: int) -> str:
    """How one training ended."""
    if "stopped" in result:
        return f"{result['error']}; motoric train resume={folder / f'job_{number}' / 'run'}"
    if "error" in result:
        return f"failed: {result['error']}"
    best = result["best_return"]
    return f"{result['steps']:,} steps, {result['seconds']:.0f} s, " + (
        "no evaluation" if best is None else f"best return {best:.1f}"
    )


def _over_seeds(jobs: list, results: list[dict[str, Any]]) -> list[str]:
    """A line for every combination that was trained, and evaluated, with several seeds."""
    groups: dict[str, list[float]] = {}
    for one, result in zip(jobs, results, strict=True):
        if result.get("best_return") is not None and "error" not in result:
            name = " ".join(o for o in one if not o.startswith("seed="))
            groups.setdefault(name, []).append(result["best_return"])
    return [
        f"{name or 'all'}  {len(values)} seeds: best return {np.mean(values):.1f} "
        f"± {np.std(values):.1f}, {min(values):.1f} to {max(values):.1f}"
        for name, values in groups.items()
        if len(values) > 1
    ]
