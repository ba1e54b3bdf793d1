"""One bundle in every physics engine: does it still walk, how well, and at what cost?

    python benchmarks/sim_to_sim.py run RUN     # 20 episodes of 10 s per goal and engine
    python benchmarks/sim_to_sim.py report      # the table in docs/sim_to_sim.md

Episodes have the randomised physics, noise and pushes of training, from seeds never trained on; the
same seed is the same robot in each engine. Means have 95 % intervals (bootstrap over episodes), the
share that fell a Wilson interval.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from motoric.envs.registry import ENGINES
from motoric.hardware.drivers import ROBOTS
from motoric.hardware.models import load_model
from motoric.hardware.runtime.bundle import Bundle
from motoric.scripts.evaluate import find_bundle
from motoric.scripts.training import evaluation
from page import write_table
from scipy.stats import binomtest, bootstrap

DOCS = Path(__file__).resolve().parent.parent / "docs"
TABLE = DOCS / "benchmarks" / "sim_to_sim" / "episodes.csv"
EPISODES, SECONDS = 20, 10.0
GOALS = {
    "stand": [0.0, 0.0, 0.0],
    "forward 0.5 m/s": [0.5, 0.0, 0.0],
    "forward 1.0 m/s": [1.0, 0.0, 0.0],
    "back 0.5 m/s": [-0.5, 0.0, 0.0],
    "left 0.3 m/s": [0.0, 0.3, 0.0],
    "turn 0.8 rad/s": [0.0, 0.0, 0.8],
}
FIELDS = ("velocity_error", "power", "transport")
MOVING = 0.1  # m/s: slower than this, cost of transport says nothing


def run(folder: str) -> None:
    """All goals in all engines; one row per episode."""
    bundle = Bundle.load(find_bundle(folder, "best")[1])
    options = bundle.spec.training.get("options", {})
    model = load_model(ROBOTS[bundle.spec.robot or ""])
    weight = float(model.body_mass.sum() * np.linalg.norm(model.opt.gravity))
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["command", "engine", "episode", "fell", "seconds", *FIELDS])
        for name, goal in GOALS.items():
            for engine in ENGINES:
                episodes = evaluation.run(
                    bundle, options, EPISODES, evaluation.TEST, goal, SECONDS, engine
                )
                metrics = episodes.metrics
                transport = cost_of_transport(metrics["power"], metrics["speed"], weight)
                values = [metrics["velocity_error"], metrics["power"], transport]
                for i in range(EPISODES):
                    row = [f"{value[i]:.5f}" for value in values]
                    seconds = episodes.lengths[i] / bundle.spec.rate
                    fell = int(episodes.terminated[i])
                    writer.writerow([name, engine, i, fell, f"{seconds:.2f}", *row])
                print(name, engine, f"{episodes.terminated.sum()} of {EPISODES} fell", flush=True)


def cost_of_transport(power: np.ndarray, speed: np.ndarray, weight: float) -> np.ndarray:
    """Power (W) / (weight (N) x speed (m/s)) of each episode; NaN where it hardly moves."""
    with np.errstate(divide="ignore"):
        return np.where(speed > MOVING, power / (weight * speed), np.nan)


def interval(values: np.ndarray) -> str:
    """Mean and 95 % interval."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return "–"
    low, high = bootstrap((values,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    digits = 1 if values.mean() > 10 else 2
    return f"{values.mean():.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def report() -> None:
    """Write the table into the page."""
    with TABLE.open() as file:
        rows = list(csv.DictReader(file))
    lines = [
        "| command | engine | fell (95 %) | velocity error, m/s | motor power, W "
        "| cost of transport |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in GOALS:
        for engine in ENGINES:
            chosen = [r for r in rows if (r["command"], r["engine"]) == (name, engine)]
            fell = sum(int(r["fell"]) for r in chosen)
            share = binomtest(fell, len(chosen)).proportion_ci(method="wilson")
            cells = [interval(np.array([float(r[field]) for r in chosen])) for field in FIELDS]
            lines.append(
                f"| {name} | {engine} | {fell} of {len(chosen)} "
                f"({share.low:.0%}–{share.high:.0%}) | {' | '.join(cells)} |"
            )
    write_table("sim_to_sim.md", "table", lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"] and len(sys.argv) == 3:
        run(sys.argv[2])
    elif sys.argv[1:] == ["report"]:
        report()
    else:
        sys.exit(__doc__)
