"""Pictures of a run, from its metrics.csv."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from motoric.hardware.interfaces.base import Metric
from motoric.scripts.training.run_folder import read_metrics

EVALUATED = re.compile(r"eval/(.+)_mean")
OTHERS = ("return", "length")  # of an evaluation, which are no metrics


def learning_curves(
    folder: Path, metrics: Sequence[Metric] = (), progress: str = "environment steps"
) -> list[Path]:
    """Write plots/learning_curve.png and plots/NAME.png for each metric evaluated; returns them.

    metrics: what they are called, and their units, where that is known; progress: its unit
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_metrics(folder / "metrics.csv")
    target = folder / "plots"
    target.mkdir(exist_ok=True)
    written = []

    def draw(name: str, keys: dict[str, str], ylabel: str) -> None:
        figure = Figure((6, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for key, label in keys.items():
            points = [(row["step"], row[key]) for row in rows if key in row]
            if points:
                marker = "o" if key.startswith("eval/") else None
                axes.plot(*zip(*points, strict=True), label=label, marker=marker, markersize=4)
        if not axes.lines:
            return
        axes.set_xlabel(progress)
        axes.set_ylabel(ylabel)
        axes.grid(alpha=0.3)
        axes.legend()
        path = target / f"{name}.png"
        figure.savefig(path, dpi=120)
        written.append(path)

    keys = {"rollout/ep_rew_mean": "training", "eval/return_mean": "evaluation"}
    draw("learning_curve", keys, "return of an episode")
    known = {metric.name: metric for metric in metrics}
    columns = sorted({key for row in rows for key in row})
    for name in (found[1] for key in columns if (found := EVALUATED.fullmatch(key))):
        if name not in OTHERS:
            metric = known.get(name, Metric(name, ""))
            label = ", ".join(filter(None, (metric.text or name, metric.unit)))
            keys = {f"task/{name}": "training", f"eval/{name}_mean": "evaluation"}
            draw(re.sub(r"\W+", "_", name), keys, label)
    return written
