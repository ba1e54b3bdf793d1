"""A bundle's policy as it acts: its memory, noise, chunks and slower networks, for N rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from motoric.hardware.runtime.bundle import Bundle
from motoric.hardware.runtime.spec import Network
from numpy.typing import NDArray

Observed = NDArray[Any] | Mapping[str, NDArray[Any]]
SLACK = 1e-6  # of a period: rounding of times


class Policy:
    """From observations to actions, each row with a memory of its own.

    rows: N, that act beside each other; seed: of the noise inputs
    Observations are arrays [N, ...] by name, or the array itself where there is one.
    """

    def __init__(self, bundle: Bundle, rows: int = 1, seed: int = 0) -> None:
        spec = bundle.spec
        self.bundle, self.spec, self.rows = bundle, spec, rows
        self._random = np.random.default_rng(seed)
        self._observed = [t.name for t in spec.observations]
        self._length, self._execute = (
            (1, 1) if spec.chunk is None else (spec.chunk.length, spec.chunk.execute)
        )
        self._stages = [_Stage(bundle, n, rows, self._random) for n in spec.acting]
        self._simple = len(self._stages) == 1 and self._stages[0].is_simple
        self._time = np.zeros(rows)  # in periods of the action, since a row began
        self._chunks = np.zeros((rows, self._length, *spec.action.shape), spec.action.dtype)
        self._next = np.full(rows, self._execute)  # of the chunk; the last: a new one is due

    def begin(self, ids: NDArray[np.int64] | None = None) -> None:
        """Rows (None: all) forget what was."""
        rows = slice(None) if ids is None else ids
        for stage in self._stages:
            stage.begin(rows)
        self._time[rows], self._next[rows] = 0.0, self._execute

    def infer(
        self,
        observation: Observed,
        ids: NDArray[np.int64] | None = None,
        time: float | None = None,
    ) -> NDArray[Any]:
        """What the network says of observations of some rows (None: all): a chunk of actions
        [n, H, *action] each, with H = 1 where it has no chunks.

        time: s since the policy began; None: as if all inferences before had been in their time
        """
        if isinstance(observation, np.ndarray):
            observation = {self._observed[0]: observation}
        if self._simple:
            out = self.bundle.run("policy", observation)
        else:
            rows = np.arange(self.rows) if ids is None else ids
            if time is not None and self.spec.rate is not None:
                self._time[rows] = time * self.spec.rate
            values: dict[str, NDArray[Any]] = {}
            for stage in self._stages:
                out = stage.run(observation, values, rows, self._time[rows])
                values |= {f"{stage.network.name}.{name}": value for name, value in out.items()}
            self._time[rows] += self._execute
        action = out[self.spec.action.name]
        return action[:, None] if self.spec.chunk is None else action

    def act(self, observation: Observed) -> NDArray[Any]:
        """The actions [N, *action] of one period. The observation of a row is looked at where its
        chunk is used up."""
        if self.spec.chunk is None:
            return self.infer(observation)[:, 0]
        due = np.flatnonzero(self._next >= self._execute)
        if len(due):
            if isinstance(observation, np.ndarray):
                observation = {self._observed[0]: observation}
            seen = {name: np.asarray(observation[name])[due] for name in self._observed}
            self._chunks[due], self._next[due] = self.infer(seen, due), 0
        action = self._chunks[np.arange(self.rows), self._next]
        self._next += 1
        return action


class _Stage:
    """One network in use: its memory, and its newest outputs where it runs less often."""

    def __init__(
        self, bundle: Bundle, network: Network, rows: int, random: np.random.Generator
    ) -> None:
        self.network, self._bundle, self._random = network, bundle, random
        rate = bundle.spec.rate
        self._periods = 0.0 if network.rate is None or rate is None else rate / network.rate
        self._inputs = network.inputs
        self._memory = {
            t.name: np.zeros((rows, *t.shape), t.dtype)
            for t in network.inputs if t.source == "memory"
        }  # fmt: skip
        self._held = {t.name: np.zeros((rows, *t.shape), t.dtype) for t in network.outputs}
        self._due = np.zeros(rows)

    @property
    def is_simple(self) -> bool:
        """Whether an inference is nothing but a call of the network."""
        return self._periods == 0.0 and all(t.source == "observation" for t in self._inputs)

    def begin(self, rows: Any) -> None:
        for array in self._memory.values():
            array[rows] = 0
        self._due[rows] = 0.0

    def run(
        self,
        observation: Mapping[str, NDArray[Any]],
        values: Mapping[str, NDArray[Any]],
        rows: NDArray[np.int64],
        time: NDArray[np.float64],
    ) -> dict[str, NDArray[Any]]:
        """The outputs for `rows`; it runs for those that are due. time: in periods."""
        mine = np.flatnonzero(time >= self._due[rows] - SLACK)
        if len(mine):
            ids = rows[mine]
            feed = {t.name: self._value(t, observation, values, mine, ids) for t in self._inputs}
            out = self._bundle.run(self.network.name, feed)
            for tensor in self._inputs:
                if tensor.source == "memory":
                    self._memory[tensor.name][ids] = out[tensor.feedback]
            self._due[ids] = time[mine] + self._periods
            if self._periods == 0.0:
                return out
            for name, value in out.items():
                self._held[name][ids] = value
        return {name: value[rows] for name, value in self._held.items()}

    def _value(self, tensor: Any, observation: Any, values: Any, mine: Any, ids: Any) -> Any:
        if tensor.source == "observation":
            return np.asarray(observation[tensor.name])[mine]
        if tensor.source == "network":
            return values[tensor.feedback][mine]
        if tensor.source == "memory":
            return self._memory[tensor.name][ids]
        shape = (len(ids), *tensor.shape)
        noise = tensor.source == "noise"
        drawn = self._random.standard_normal(shape) if noise else self._random.random(shape)
        return drawn.astype(tensor.dtype)
