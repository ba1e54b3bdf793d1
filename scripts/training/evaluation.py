"""Episodes of a bundle with seeds that training never used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from motoric.envs.registry import make_batch
from motoric.hardware.goals import Goal, Part
from motoric.hardware.interfaces.base import Metric
from motoric.hardware.runtime.bundle import Bundle
from motoric.hardware.runtime.policy import Policy
from numpy.typing import NDArray

Array = NDArray[np.float64]

# First seeds of evaluations, far from those of training (its seed, plus the environment's number).
VALIDATION, TEST = 1 << 33, 1 << 32


class Acting(Protocol):
    """What acts for all rows at once."""

    def act(self, observation: Any) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Episodes:
    """E finished episodes; where several robots share a world, each one's is an episode.

    returns, lengths [E]; terminated [E]: ended by what happened (a fall, say), not by time
    named: the metrics; metrics: by name, of each episode, [E], NaN where it couldn't be known
    goals: parts of the goal; goal: what was asked for as the episode began, [E, k] each
    engine: of the physics, where there is a choice
    """

    returns: Array
    lengths: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    named: tuple[Metric, ...]
    metrics: dict[str, Array]
    goals: tuple[Part, ...]
    goal: Goal
    engine: str | None = None

    def summary(self) -> dict[str, Any]:
        """For JSON and tables: `NAME_mean` and, but for sums and shares, `NAME_max` of each
        metric; None where it is never known."""
        result: dict[str, Any] = {
            "episodes": len(self.returns),
            "return_mean": float(self.returns.mean()),
            "return_std": float(self.returns.std()),
            "length_mean": float(self.lengths.mean()),
            "terminated": int(self.terminated.sum()),
        }
        for metric in self.named:
            values = self.metrics[metric.name]
            result[f"{metric.name}_mean"] = mean = known_mean(values)
            if metric.over not in ("sum", "any"):
                result[f"{metric.name}_max"] = None if mean is None else float(np.nanmax(values))
        return result


def trained_on(bundle: Bundle) -> str | None:
    """The physics engine of a bundle's training; None: the environment's own."""
    return bundle.spec.training.get("engine")


def make_worlds(
    bundle: Bundle,
    options: dict[str, Any],
    worlds: int,
    seed: int,
    seconds: float | None = None,
    engine: str | None = None,
) -> Any:
    """Worlds of the environment a bundle was trained on, as a `Batch`. Raises ValueError.

    seconds: length of an episode; engine: of its physics; None: as the environment or training says
    """
    if seconds is not None:
        options = options | {"episode_seconds": float(seconds)}
    engine = engine or trained_on(bundle)
    batch: Any = make_batch(bundle.spec.task, worlds, seed, engine, options=options)
    if batch.interface is not None:  # its filters may need a network of the bundle
        batch.filters = batch.interface.filters(bundle.run)
    return batch


def hold_goal(batch: Any, goal: Any) -> None:
    """Hold a user's goal in all worlds; None: as the task draws it. Raises ValueError."""
    if goal is not None:
        if not batch.goals:
            raise ValueError(f"goal: {goal}, {batch.name} has no goal to set")
        batch.hold_goal(goal)


def run(
    bundle: Bundle,
    options: dict[str, Any],
    episodes: int,
    seed: int,
    goal: Any = None,
    seconds: float | None = None,
    engine: str | None = None,
) -> Episodes:
    """Episodes of a bundle on its environment, all at once, each in a world of its own.

    goal: held throughout; None: as the task draws it. seconds: None: the task's own length.
    engine: None: the one it was trained on. Raises ValueError for what the environment hasn't.
    """
    batch = make_worlds(bundle, options, episodes, seed, seconds, engine)
    try:
        hold_goal(batch, goal)
        return episodes_of(Policy(bundle, batch.num_envs, seed % 2**32), batch)
    finally:
        batch.close()


def episodes_of(policy: Acting, batch: Any) -> Episodes:
    """One episode of every row of a `Batch`."""
    rows = batch.num_envs
    observation = batch.reset()
    asked = {name: np.array(value) for name, value in batch.goal.items()}
    running, terminated = np.ones(rows, bool), np.zeros(rows, bool)
    returns, lengths = np.zeros(rows), np.zeros(rows, np.int64)
    steps: list[dict[str, Array]] = []
    while running.any():
        observation, reward, failed, timed_out, info = batch.step(policy.act(observation))
        returns += reward * running
        lengths += running
        steps.append({name: np.array(value) for name, value in info["metrics"].items()})
        terminated |= failed & running
        running &= ~(failed | timed_out)
    metrics = {}
    for metric in batch.metrics:
        unknown = np.full(rows, np.nan)
        history = np.stack([step.get(metric.name, unknown) for step in steps], 1)  # [E, T]
        totals = [metric.total(row[:length]) for row, length in zip(history, lengths, strict=True)]
        metrics[metric.name] = np.array(totals)
    return Episodes(
        returns, lengths, terminated, batch.metrics, metrics, batch.goals, asked, batch.engine
    )


def by_cell(episodes: Episodes, cells: int) -> list[dict[str, Any]]:
    """Episodes by what they were asked for: the range of each number of the goal in so many cells.

    Each that has episodes: `goal` (its range, [low, high] by number), `episodes`, `return_mean` and
    `NAME_mean` of each metric; the lowest return first.
    """
    names, places, edges = [], [], []
    for part in episodes.goals:
        for i, name in enumerate(part.names):
            if not part.is_text and part.low[i] < part.high[i]:
                edge = np.linspace(part.low[i], part.high[i], cells + 1)
                asked = episodes.goal[part.name][:, i]
                names.append(name if len(episodes.goals) == 1 else f"{part.name}.{name}")
                places.append(np.clip(np.searchsorted(edge, asked, "right") - 1, 0, cells - 1))
                edges.append(edge)
    if not names:
        return []
    found = []
    places = np.stack(places, 1)
    for cell in np.unique(places, axis=0):
        mine = (places == cell).all(1)
        numbers = zip(names, edges, cell, strict=True)
        found.append({
            "goal": {name: [float(e[c]), float(e[c + 1])] for name, e, c in numbers},
            "episodes": int(mine.sum()),
            "return_mean": float(episodes.returns[mine].mean()),
            **{f"{name}_mean": known_mean(v[mine]) for name, v in episodes.metrics.items()},
        })  # fmt: skip
    return sorted(found, key=lambda cell: cell["return_mean"])


def known_mean(values: Array) -> float | None:
    """Of those that are known, None where none is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
