"""Evaluate a run's bundle: `motoric evaluate …`, or `python scripts/evaluate.py …`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
from motoric.configs import schema
from motoric.envs.registry import TASKS
from motoric.hardware.runtime.bundle import Bundle, find_bundle
from motoric.scripts.config import UserError
from motoric.scripts.training import evaluation


def evaluate(settings: schema.Evaluate, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Run episodes (or show them) and write evaluation.json; returns its content."""
    folder, path = find_bundle(settings.run, settings.bundle)
    bundle = Bundle.load(path)
    options = bundle.spec.training.get("options", {})
    is_task = bundle.spec.task in TASKS
    for key in ("command", "seconds", "engine"):
        if getattr(settings, key) is not None and not is_task:
            raise UserError(f"{key}: {bundle.spec.task} has no {key} to set")
    engine = settings.engine or (evaluation.trained_on(bundle) if is_task else None)
    seed = evaluation.TEST + settings.seed
    viewer = settings.viewer
    if viewer.name in ("web", "native"):
        _show(settings, bundle, options, seed, engine)
        return {}
    if viewer.name == "video":
        from motoric.scripts.viewers.video import record_video

        out = folder / "videos" / f"{path.name}_seed{settings.seed}.mp4"
        out = out if viewer.out is None else Path(viewer.out)
        record_video(
            bundle, options, out, seconds=viewer.seconds, seed=seed, command=settings.command,
            width=viewer.width, height=viewer.height, engine=engine,
        )  # fmt: skip
        say(f"video: {out}")
    try:
        episodes = evaluation.run(
            bundle, options, settings.episodes, seed, settings.command, settings.seconds, engine
        )
    except (ValueError, ImportError, gym.error.Error) as error:
        raise UserError(str(error).split("\n")[0]) from None
    summary = episodes.summary()
    table(bundle, summary, say, engine)
    result = {
        "bundle": path.name,
        "engine": engine,
        "seed": settings.seed,
        "command": settings.command,
        "seconds": settings.seconds,
        **summary,
        "returns": episodes.returns.tolist(),
        "lengths": episodes.lengths.tolist(),
    }
    if episodes.velocity_error is not None:
        result["velocity_errors"] = episodes.velocity_error.tolist()
    if episodes.power is not None:
        result["powers"] = episodes.power.tolist()
    (folder / "evaluation.json").write_text(json.dumps(result, indent=1))
    say(f"written: {folder / 'evaluation.json'}")
    return result


def _show(
    settings: schema.Evaluate,
    bundle: Bundle,
    options: dict[str, Any],
    seed: int,
    engine: str | None,
) -> None:
    from motoric.scripts.viewers.live import make_scene

    scene = make_scene(bundle, options, seed, engine)
    if settings.command is not None:
        scene.set_command(settings.command)
    if settings.viewer.name == "web":
        from motoric.scripts.viewers.web import serve

        serve(scene, settings.viewer.host, settings.viewer.port, bundle.spec.task)
    else:
        from motoric.scripts.viewers.native import show

        show(scene)


def table(
    bundle: Bundle,
    summary: dict[str, Any],
    say: Callable[[str], None],
    engine: str | None = None,
) -> None:
    """Print a summary of episodes, one quantity a line."""
    training = bundle.spec.training
    where = "" if engine is None else f", in {engine}"
    say(
        f"{bundle.spec.task}, {training.get('algorithm')} after "
        f"{training.get('steps', 0):,} steps{where}"
    )
    rows = {
        "episodes": f"{summary['episodes']}",
        "return": f"{summary['return_mean']:.2f} ± {summary['return_std']:.2f}",
        "length": f"{summary['length_mean']:.0f} steps",
        "ended early": f"{summary['terminated']} of {summary['episodes']}",
    }
    if "velocity_error_mean" in summary:
        rows["velocity error"] = (
            f"{summary['velocity_error_mean']:.3f} m/s mean, "
            f"{summary['velocity_error_max']:.3f} m/s worst episode"
        )
    if "power_mean" in summary:
        transport = summary["cost_of_transport"]
        rows["motor power"] = f"{summary['power_mean']:.1f} W mean" + (
            "" if transport is None else f", cost of transport {transport:.2f}"
        )
    for name, value in rows.items():
        say(f"  {name:<15} {value}")


if __name__ == "__main__":
    from motoric.scripts.cli import main

    sys.exit(main(["evaluate", *sys.argv[1:]]))
