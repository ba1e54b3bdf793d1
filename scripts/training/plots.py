"""Pictures of a run, from its metrics.csv."""

from __future__ import annotations

from pathlib import Path

from motoric.scripts.training.run_folder import read_metrics

LABELS = {
    "rollout/ep_rew_mean": "training",
    "eval/return_mean": "evaluation",
}


def learning_curves(folder: Path) -> list[Path]:
    """Write plots/learning_curve.png and, for robot tasks, plots/tracking.png; returns them."""
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
        axes.set_xlabel("environment steps")
        axes.set_ylabel(ylabel)
        axes.grid(alpha=0.3)
        axes.legend()
        path = target / name
        figure.savefig(path, dpi=120)
        written.append(path)

    draw("learning_curve.png", LABELS, "return of an episode")
    draw(
        "tracking.png",
        {"task/velocity_error": "training", "eval/velocity_error_mean": "evaluation"},
        "velocity error, m/s",
    )
    return written
