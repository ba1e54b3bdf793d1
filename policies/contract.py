"""What a learning algorithm says for itself: its progress, its whole state, what it exports.

Training, checkpoints and export ask a `Learner`, and no other file asks which algorithm it is.
What it learns from (an environment's steps, a data set, both in turn) is its own affair.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from numpy.typing import NDArray
from torch import nn

Observations = dict[str, NDArray[Any]]  # by input, each [N, ...]
Runs = Callable[[str, Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
"""Runs an exported network by its name: all its inputs to all its outputs"""


@dataclass(frozen=True)
class Tensor:
    """An input or output: shape without the batch axis, numpy's name of the type.

    source: of an input: "observation"; "memory", fed back from the output named in `feedback`;
        "network", from another network's, `feedback` = "NETWORK.OUTPUT"; "noise"; "uniform"
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    source: str = "observation"
    feedback: str = ""


@dataclass(frozen=True)
class Network:
    """A module to export: its forward takes `inputs` and gives `outputs`, in their order.

    rate: how often it runs, Hz; None: once for each inference
    """

    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    rate: float | None = None


@dataclass(frozen=True)
class Exported:
    """The deterministic policy, from raw observations to actions of the environment.

    networks: "policy" acts, the others have a part in it or stand for themselves ("critic")
    action: the output of "policy" that is one action; low, high: bounds, flat; None: discrete
    chunk: (length H, execute E) where that output is [N, H, *action]
    normalisation: of observations, as JSON values and for reading: the networks contain it
    """

    networks: tuple[Network, ...]
    action: Tensor
    low: NDArray[Any] | None = None
    high: NDArray[Any] | None = None
    chunk: tuple[int, int] | None = None
    normalisation: dict[str, Any] | None = None


@dataclass
class State:
    """Everything a learner's next update depends on, as plain data.

    tensors: what `torch.load(weights_only=True)` reads; arrays: by name; values: for JSON
    They may be those in use, so they are read before learning goes on. The process' generators
    (torch, numpy, Python) are not among them: checkpoints take those anyway.
    """

    tensors: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


class Learner(ABC):
    """One algorithm with its networks, and what it learns from.

    unit: of its progress; device: that it learns on
    """

    unit: str = "environment steps"
    device: th.device

    @property
    @abstractmethod
    def done(self) -> int:
        """How far it is, in `unit`."""

    @abstractmethod
    def learn(self, total: int, between: Callable[[], None]) -> None:
        """Go on until `done` is `total` or more.

        `between` is called again and again, whenever nothing is half done: `state` is whole there.
        What it raises ends the learning, and is raised.
        """

    @abstractmethod
    def state(self) -> State: ...

    @abstractmethod
    def load_state(self, state: State) -> None:
        """Go on exactly where `state` was taken. Raises KeyError, ValueError or RuntimeError for
        that of another algorithm."""

    def restart(self, seed: int) -> None:
        """Its environment could not be saved: what ran there is cut off, new episodes begin."""
        return

    @abstractmethod
    def exported(self) -> Exported: ...

    @abstractmethod
    def difference(self, run: Runs, count: int) -> float:
        """Largest difference of exported actions from those of the policy as it is trained, over
        `count` random observations: of continuous ones relative to half their range where that is
        more than 1; NaN where one is."""

    @abstractmethod
    def is_finite(self) -> bool:
        """Whether all weights are."""

    def metrics(self) -> dict[str, float]:
        """What it has to say since it was asked last, by names like "train/loss"."""
        return {}

    def advice(self, total: int) -> str | None:
        """A line for the user where learning for `total` will hardly do."""
        return None


def inputs_of(space: spaces.Space) -> dict[str, spaces.Space]:
    """The inputs of a policy by name: a Dict's entries, or one "observation"."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation": space}


def tensor_of(name: str, space: spaces.Space) -> Tensor:
    """How values of a space go into a network: float32; images and whole numbers as they are."""
    dtype = "float32"
    if not isinstance(space, spaces.Box):
        dtype = "int64"
    elif space.dtype == np.uint8:
        dtype = "uint8"
    return Tensor(name, tuple(space.shape or ()), dtype)


def draw(
    space: spaces.Space,
    count: int,
    random: np.random.Generator,
    mean: Any = 0.0,
    deviation: Any = 1.0,
) -> NDArray[Any]:
    """Observations [count, ...] spread over a space, and of unbounded numbers beyond what was met.

    mean, deviation: of what was
    """
    shape = (count, *(space.shape or ()))
    if isinstance(space, spaces.Box):
        if space.dtype == np.uint8:
            return random.integers(0, 256, shape, np.uint8)
        drawn = mean + 3.0 * deviation * random.standard_normal(shape)
        return np.clip(drawn, space.low, space.high).astype(np.float32)
    if isinstance(space, spaces.Discrete):
        return space.start + random.integers(0, space.n, shape)
    space.seed(int(random.integers(2**31)))
    return np.stack([np.asarray(space.sample()) for _ in range(count)])


def half_range(space: spaces.Box) -> NDArray[Any]:
    """Of actions, 1 where it is less (or they have no bounds): the unit of their differences."""
    half = (space.high.astype(np.float64) - space.low) / 2
    return np.maximum(1.0, np.where(np.isfinite(half), half, 1.0))
