"""The Go2's walk, seed by seed: seconds of training, and how every command of the box is walked.

Judged is the whole model: its own time step, contacts and friction of the joints, with physics,
noise and pushes drawn as for training, on seeds that training never had. Appends to
`docs/benchmarks/go2_walk.csv`.

    python benchmarks/go2_walk.py 0 1 2 3 4
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from motoric.envs.batched import BatchedEnv
from motoric.envs.tasks.go2_velocity import CONTACT, Go2Velocity
from motoric.hardware.runtime.bundle import Bundle
from motoric.hardware.runtime.policy import Policy
from motoric.scripts import config
from motoric.scripts.train import train
from motoric.scripts.training import evaluation
from numpy.typing import NDArray

TABLE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "go2_walk.csv"
SETTLE = 25  # steps until a robot that starts at rest is expected to follow
RANDOM = 512


class Asked(Go2Velocity):
    """Each robot keeps the velocity it was given."""

    def asked(self, velocities: NDArray) -> Asked:
        object.__setattr__(self, "_asked", velocities)
        return self

    def reset(self, draw: NDArray) -> Any:
        start, goal, memory, episode = super().reset(draw)
        asked = self._asked  # type: ignore[attr-defined]
        if len(draw) == len(asked):
            goal = {"velocity": asked.copy()}
        return start, goal, memory, episode

    def advance(self, step: Any, draw: NDArray) -> Any:
        return step.goal, super().advance(step, draw)[1]


def walk(bundle: Bundle, velocities: NDArray, seconds: float, seed: int) -> dict[str, NDArray]:
    """Every robot with a velocity of its own [N, 3], once. Of each, [N]: fell; error m/s and turn
    rad/s, until a fall; power W; lift [N, F] mean height of a foot's swings, m."""
    n = len(velocities)
    task = Asked(episode_seconds=seconds).asked(np.asarray(velocities, np.float64))
    env, policy = BatchedEnv(task, n, seed), Policy(bundle, n)
    obs = env.reset()
    fell, counted = np.zeros(n, bool), np.zeros(n)
    sums = {name: np.zeros(n) for name in ("error", "turn", "power")}
    top, swings, lifts = np.zeros((n, 4)), np.zeros((n, 4)), np.zeros((n, 4))
    for step in range(task.episode_steps - 1):
        obs, _, terminated, _, info = env.step(policy.act(obs))
        fell |= terminated
        if step < SETTLE:
            continue
        standing, measured = ~fell, env.measured
        counted += standing
        sums["error"] += info["metrics"]["velocity_error"] * standing
        sums["power"] += info["metrics"]["power"] * standing
        sums["turn"] += np.abs(measured.angular_velocity[:, 2] - velocities[:, 2]) * standing
        height, force = measured.sensors["foot_height"], measured.sensors["foot_force"]
        down = force > CONTACT
        landed = down & (top > 0.005)
        lifts += np.where(landed, top, 0.0)
        swings += landed
        top = np.where(down, 0.0, np.maximum(top, height))
    counted = np.maximum(counted, 1)
    found = {name: total / counted for name, total in sums.items()}
    return found | {"fell": fell, "lift": lifts / np.maximum(swings, 1)}


def grid() -> NDArray:
    """All corners, edges and the middle of the box, without standing."""
    (part,) = Go2Velocity().interface.goals
    axes = [
        np.unique([low, low / 2, 0.0, high / 2, high])
        for low, high in zip(part.low, part.high, strict=True)
    ]
    points = np.stack(np.meshgrid(*axes), -1).reshape(-1, 3)
    return points[np.abs(points).max(1) > 0]


def judge(bundle: Bundle) -> dict[str, float]:
    (part,) = Go2Velocity().interface.goals
    rng = np.random.default_rng(evaluation.TEST)
    ask = {
        "half": np.tile([0.5, 0.0, 0.0], (20, 1)),
        "one": np.tile([1.0, 0.0, 0.0], (20, 1)),
        "grid": grid(),
        "random": rng.uniform(part.low, part.high, (RANDOM, 3)),
    }
    row: dict[str, float] = {}
    for name, velocities in ask.items():
        found = walk(bundle, velocities, 10.0 if name in ("half", "one") else 8.0, evaluation.TEST)
        row[f"{name}_fell"] = int(found["fell"].sum())
        row[f"{name}_error"] = round(float(found["error"].mean()), 4)
        row[f"{name}_error_worst"] = round(float(found["error"].max()), 4)
        row[f"{name}_turn_error"] = round(float(found["turn"].mean()), 4)
        if name == "half":
            row["power"] = round(float(found["power"].mean()), 1)
            for foot, lift in zip(("FL", "FR", "RL", "RR"), found["lift"].mean(0), strict=True):
                row[f"lift_{foot}_mm"] = round(1e3 * float(lift), 1)
        if name == "random":
            row["lift_random_mm"] = round(1e3 * float(found["lift"].mean(0).min()), 1)
    drawn = evaluation.run(bundle, {}, 40, evaluation.TEST)
    row["drawn_error"] = round(float(np.mean(drawn.metrics["velocity_error"])), 4)
    row["drawn_return"] = round(float(drawn.returns.mean()), 1)
    row["drawn_fell"] = int(drawn.terminated.sum())
    return row


def main(seeds: list[int], more: list[str]) -> None:
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            given = [f"seed={seed}", f"run={folder}/run", "progress=false"]
            settings = config.load("train", ["experiment=go2_walk", *given, *more])
            started, cpu = time.perf_counter(), time.process_time()
            result = train(settings, print)
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
            bundle = Bundle.load(Path(folder) / "run" / "bundle" / "last")
            row = {
                "seed": seed, "steps": result.steps, "seconds": round(seconds, 1),
                "cpu_seconds": round(cpu, 1), **judge(bundle),
            }  # fmt: skip
        print(row, flush=True)
        new = not TABLE.exists()
        with TABLE.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)


if __name__ == "__main__":
    numbers = [int(a) for a in sys.argv[1:] if a.isdigit()]
    main(numbers or [0], [a for a in sys.argv[1:] if not a.isdigit()])
