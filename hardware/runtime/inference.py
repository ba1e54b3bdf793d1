"""Which action now: inference in the loop's own thread, or in one beside it. One face for both.

Time is counted in periods of the policy: an inference that saw period p gives actions for p, p + 1,
... (one, unless the policy has chunks). An action is carried out in its own period or not at all;
the newest inference that has one for the period counts.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from motoric.control.supervisor import Thresholds
from motoric.hardware.interfaces.base import Observation
from motoric.hardware.runtime.policy import Policy
from numpy.typing import NDArray

FRESH = 0.5  # of its period; an answer in the loop that took longer is for a state that has passed
INLINE = 0.25  # of its period that a policy may take to be run in the loop
MARGIN = 0.8  # of the time there is, that a policy in a thread of its own may take
MEASURED, MOST_SECONDS = 10, 2.0  # inferences timed before anything moves, and for how long
CHOICES = ("auto", "inline", "thread")


@dataclass(slots=True)
class Thought:
    """One inference: what it saw in `period`, the actions [H, A], and how long it took, s."""

    period: int
    observation: Observation
    actions: NDArray[Any]
    seconds: float


@dataclass(slots=True)
class Chosen:
    """An action [A] to carry out now. first: of its inference; age: periods since it saw."""

    action: NDArray[Any]
    thought: Thought
    first: bool
    age: int


class Inference(ABC):
    """A policy of one row and the queue of its actions.

    problem: why the policy can't go on; seconds: of every inference
    blocks: whether `think` keeps its caller until there is an answer
    """

    blocks: bool

    def __init__(self, policy: Policy) -> None:
        spec = policy.spec
        if spec.rate is None:
            raise ValueError("bundle: has no rate")
        self._policy, self._rate = policy, spec.rate
        self._execute = 1 if spec.chunk is None else spec.chunk.execute
        self.problem: str | None = None
        self.seconds = array("d")
        self._newest: Thought | None = None
        self._used: Thought | None = None
        self._acted = -1  # period of the last action carried out

    def wants(self, period: int) -> bool:
        """Whether it is time for an inference on what is observed now."""
        newest = self._newest
        return newest is None or period - newest.period >= self._execute

    @abstractmethod
    def think(self, observation: Observation, period: int, seen: float) -> None:
        """Begin an inference; `wants` said it is time. seen: when, s on the monotonic clock."""

    def action(self, period: int) -> Chosen | None:
        """The action of this period, once; None where there is none (yet)."""
        thought = self._newest
        if thought is None or period <= self._acted:
            return None
        age = period - thought.period
        if age >= len(thought.actions):
            return None
        self._acted = period
        first, self._used = thought is not self._used, thought
        return Chosen(thought.actions[age], thought, first, age)

    def close(self) -> None:  # noqa: B027
        """No more inferences. Never waits for one."""

    def _infer(self, observation: Observation, period: int) -> Thought | None:
        """None where it fails, with `problem`."""
        began = time.perf_counter()
        try:
            actions = self._policy.infer(observation, time=period / self._rate)[0]
        except Exception as error:
            self.problem = f"policy: {type(error).__name__}: {error}".split("\n")[0]
            return None
        seconds = time.perf_counter() - began
        self.seconds.append(seconds)
        return Thought(period, observation, actions, seconds)


class Inline(Inference):
    """In the caller's thread. The first action of an answer that took too long is not used."""

    blocks = True

    def think(self, observation: Observation, period: int, seen: float) -> None:
        self._newest = self._infer(observation, period) or self._newest
        if (time.monotonic() - seen) * self._rate > FRESH:
            self._acted = max(self._acted, period)


class Threaded(Inference):
    """In a thread of its own: the caller never waits, and goes on with the actions it has.

    enter: called in that thread when it starts, to set its priority
    """

    blocks = False

    def __init__(self, policy: Policy, enter: Callable[[], None] = lambda: None) -> None:
        super().__init__(policy)
        self._enter = enter
        self._wake = threading.Semaphore(0)
        self._task: tuple[Observation, int] | None = None  # while the thread is at it
        self._ends = False
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    def wants(self, period: int) -> bool:
        return self._task is None and super().wants(period)

    def think(self, observation: Observation, period: int, seen: float) -> None:
        self._task = observation, period
        self._wake.release()

    def close(self) -> None:
        self._ends = True
        self._wake.release()

    def _work(self) -> None:
        self._enter()
        while True:
            self._wake.acquire()
            if self._ends or self._task is None:
                return
            thought = self._infer(*self._task)
            if thought is not None:
                self._newest = thought
            self._task = None


def seconds_of(policy: Policy, observation: Observation) -> float:
    """What an inference takes, s: the median of some, after the first, which is slow."""
    policy.infer(observation)
    taken: list[float] = []
    while len(taken) < MEASURED and sum(taken) < MOST_SECONDS:
        began = time.perf_counter()
        policy.infer(observation)
        taken.append(time.perf_counter() - began)
    policy.begin()
    return float(np.median(taken))


def choose(
    policy: Policy, seconds: float, wished: str = "auto", late: float = Thresholds.late
) -> type[Inference]:
    """Which inference a policy gets that takes so many seconds.

    late: periods without an action that are a fault. Raises ValueError where its actions would
    come too late to be carried out.
    """
    if wished not in CHOICES:
        raise ValueError(f"inference: {wished!r}, expected one of {', '.join(CHOICES)}")
    spec = policy.spec
    if spec.rate is None:
        raise ValueError("bundle: has no rate")
    periods, took = seconds * spec.rate, f"inference: the policy takes {1e3 * seconds:.0f} ms"
    if wished == "inline" or (wished == "auto" and periods <= INLINE):
        if periods > FRESH:
            raise ValueError(
                f"{took}, in the loop at {spec.rate:g} Hz at most {1e3 * FRESH / spec.rate:.0f} ms"
            )
        return Inline
    length, execute = (1, 1) if spec.chunk is None else (spec.chunk.length, spec.chunk.execute)
    # It must have an action left, come before the gap after the old chunk is a fault, and before
    # the one at the beginning is.
    most = MARGIN * min(length, length - execute + late - 1.0, late)
    if periods > most:
        raise ValueError(
            f"{took}, at most {1e3 * most / spec.rate:.0f} ms are bridged by chunks of {length} "
            f"actions at {spec.rate:g} Hz, {execute} carried out of each"
        )
    return Threaded
