"""Pictures of a run: the learning curve, and one of each metric that was evaluated."""

from __future__ import annotations

import imageio.v2 as imageio
import matplotlib.axes
import numpy as np
from motoric.hardware.interfaces.base import Metric
from motoric.scripts.training.plots import learning_curves
from motoric.scripts.training.run_folder import MetricsCsv


def test_a_picture_of_each_metric(tmp_path, monkeypatch):
    metrics = MetricsCsv(tmp_path / "metrics.csv")
    for step in (10, 20, 30):
        training = {"rollout/ep_rew_mean": step, "task/distance": 3.0, "task/gait": 1.0}
        metrics.write(training, step)
        metrics.write({"eval/return_mean": 2 * step, "eval/length_mean": 9.0, "eval/terminated": 1,
                       "eval/distance_mean": 1.0, "eval/distance_max": 2.0,
                       "eval/peg in_mean": 0.5}, step + 1)  # fmt: skip
    drawn, labels = [], []
    plot, label = matplotlib.axes.Axes.plot, matplotlib.axes.Axes.set_ylabel

    def watched_plot(axes, x, y, **style):
        drawn.append((style["label"], list(y)))
        return plot(axes, x, y, **style)

    def watched_label(axes, text):
        labels.append(text)
        return label(axes, text)

    monkeypatch.setattr(matplotlib.axes.Axes, "plot", watched_plot)
    monkeypatch.setattr(matplotlib.axes.Axes, "set_ylabel", watched_label)
    written = learning_curves(tmp_path, (Metric("distance", "m", "last", "distance left"),))
    names = ["learning_curve.png", "distance.png", "peg_in.png"]
    assert [path.name for path in written] == names
    assert sorted(p.name for p in (tmp_path / "plots").iterdir()) == sorted(names)
    assert labels == ["return of an episode", "distance left, m", "peg in"]
    assert drawn == [
        ("training", [10, 20, 30]), ("evaluation", [20, 40, 60]),
        ("training", [3.0] * 3), ("evaluation", [1.0] * 3), ("evaluation", [0.5] * 3),
    ]  # fmt: skip
    assert np.asarray(imageio.imread(written[0])).std() > 5


def test_no_picture_of_nothing(tmp_path):
    MetricsCsv(tmp_path / "metrics.csv").write({"train/loss": 1.0}, 10)
    assert learning_curves(tmp_path) == []
