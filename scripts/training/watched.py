"""Environments whose steps are looked at on the way: means of rewards and metrics, for logs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from motoric.envs.batched import Batch
from numpy.typing import NDArray

EPISODES = 100  # whose returns are shown


class Watched:
    """A `Batch` as it is, that adds up what its steps say.

    on_step: called after each step; returns: of the episodes that ended last
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.on_step: Callable[[], None] = lambda: None
        self.returns: deque[float] = deque(maxlen=EPISODES)
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        if name == "batch":  # while it is copied or unpickled
            raise AttributeError(name)
        return getattr(self.batch, name)

    def step(self, action: NDArray) -> Any:
        stepped = self.batch.step(action)
        _, _, terminated, truncated, info = stepped
        self._add("reward", info["terms"])
        self._add("task", info["metrics"])
        if info["final_obs"] is not None:
            self.returns.extend(info["episode_return"][terminated | truncated].tolist())
        self.on_step()
        return stepped

    def _add(self, kind: str, values: dict[str, NDArray]) -> None:
        for name, value in values.items():
            mean = float(np.mean(value))
            if np.isnan(mean):  # some rows can't say
                known = value[np.isfinite(value)]
                if not len(known):
                    continue
                mean = float(known.mean())
            key = f"{kind}/{name}"
            self._sums[key] = self._sums.get(key, 0.0) + mean
            self._counts[key] = self._counts.get(key, 0) + 1

    def means(self) -> dict[str, float]:
        """Of reward terms ("reward/NAME") and metrics ("task/NAME") since it was asked last."""
        found = {key: total / self._counts[key] for key, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return found
