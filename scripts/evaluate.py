"""Evaluate a run's bundle: `motoric evaluate …`, or `python scripts/evaluate.py …`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from motoric.configs.commands import Evaluate
from motoric.hardware.runtime.bundle import Bundle, find_bundle
from motoric.scripts.config import UserError
from motoric.scripts.training import evaluation
from motoric.scripts.viewers.live import metric_text


def evaluate(settings: Evaluate, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Run episodes (or show them) and write evaluation.json; returns its content."""
    folder, path = find_bundle(settings.run, settings.bundle)
    bundle = Bundle.load(path)
    options = bundle.spec.training.get("options", {})
    seed = evaluation.TEST + settings.seed
    viewer = settings.viewer
    if viewer.name in ("web", "native"):
        _show(settings, bundle, options, seed)
        return {}
    if viewer.name == "video":
        from motoric.scripts.viewers.video import record_video

        out = folder / "videos" / f"{path.name}_seed{settings.seed}.mp4"
        out = out if viewer.out is None else Path(viewer.out)
        record_video(
            bundle, options, out, seconds=viewer.seconds, seed=seed, goal=settings.goal,
            width=viewer.width, height=viewer.height, engine=settings.engine,
        )  # fmt: skip
        say(f"video: {out}")
    try:
        episodes = evaluation.run(
            bundle, options, settings.episodes, seed, settings.goal, settings.seconds,
            settings.engine,
        )  # fmt: skip
    except (ValueError, ImportError) as error:
        raise UserError(str(error).split("\n")[0]) from None
    table(bundle, episodes, say)
    result = {
        "bundle": path.name,
        "engine": episodes.engine,
        "seed": settings.seed,
        "goal": settings.goal,
        "seconds": settings.seconds,
        **episodes.summary(),
        "returns": episodes.returns.tolist(),
        "lengths": episodes.lengths.tolist(),
        "metrics": {name: _known(values) for name, values in episodes.metrics.items()},
    }
    if settings.cells is not None:
        result["cells"] = cells = evaluation.by_cell(episodes, settings.cells)
        if not cells:
            raise UserError(f"cells: {settings.cells}, the goal of {bundle.spec.task} has no range")
        say(f"  {'worst goals':<15} {worst(episodes, cells)}")
    (folder / "evaluation.json").write_text(json.dumps(result, indent=1))
    say(f"written: {folder / 'evaluation.json'}")
    return result


def _known(values: np.ndarray) -> list[float | None]:
    """JSON has no NaN: what isn't known is null."""
    return [float(value) if np.isfinite(value) else None for value in values]


def _show(settings: Evaluate, bundle: Bundle, options: dict[str, Any], seed: int) -> None:
    from motoric.scripts.viewers.live import Live

    live = Live(bundle, options, seed, settings.engine, settings.goal)
    if settings.viewer.name == "web":
        from motoric.scripts.viewers.web import serve

        serve(live, settings.viewer.host, settings.viewer.port, bundle.spec.task)
    else:
        from motoric.scripts.viewers.native import show

        show(live)


def table(bundle: Bundle, episodes: evaluation.Episodes, say: Callable[[str], None]) -> None:
    """Print a summary of episodes, one quantity a line."""
    training = bundle.spec.training
    where = "" if episodes.engine is None else f", in {episodes.engine}"
    say(
        f"{bundle.spec.task}, {training.get('algorithm')} after "
        f"{training.get('steps', 0):,} {training.get('unit', 'steps').split()[-1]}{where}"
    )
    for name, value in rows(episodes).items():
        say(f"  {name:<15} {value}")


def rows(episodes: evaluation.Episodes) -> dict[str, str]:
    """A summary of episodes as texts, by what they are of."""
    summary = episodes.summary()
    count = summary["episodes"]
    result = {
        "episodes": f"{count}",
        "return": f"{summary['return_mean']:.2f} ± {summary['return_std']:.2f}",
        "length": f"{summary['length_mean']:.0f} steps",
        "ended early": f"{summary['terminated']} of {count}",
    }
    for metric in episodes.named:
        mean, most = summary[f"{metric.name}_mean"], summary.get(f"{metric.name}_max")
        if metric.over == "any":
            text = f"{int(np.nansum(episodes.metrics[metric.name]))} of {count}"
        elif mean is None:
            text = "not known"
        else:
            text = f"{mean:.3f} {metric.unit}".rstrip() + " mean"
            text += "" if most is None else f", {most:.3f} {metric.unit}".rstrip() + " at most"
        result[metric.text or metric.name] = text
    return result


def worst(episodes: evaluation.Episodes, cells: list[dict[str, Any]]) -> str:
    """The cell of the goal's range with the lowest return, and what it was like there."""
    cell = cells[0]
    ranges = ", ".join(f"{n} {low:+.2f} to {high:+.2f}" for n, (low, high) in cell["goal"].items())
    told = [f"return {cell['return_mean']:.2f}"]
    told += [
        metric_text(metric, cell[f"{metric.name}_mean"])
        for metric in episodes.named if cell[f"{metric.name}_mean"] is not None
    ]  # fmt: skip
    return f"{ranges}: {', '.join(told)}, {cell['episodes']} episodes of {len(episodes.returns)}"


def run(settings: Evaluate, say: Callable[[str], None]) -> int:
    """`motoric evaluate`."""
    evaluate(settings, say)
    return 0


if __name__ == "__main__":
    from motoric.scripts.cli import main

    sys.exit(main(["evaluate", *sys.argv[1:]]))
