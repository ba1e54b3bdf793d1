"""Which action at which time, in the loop's thread or beside it; a slow policy holds up nothing."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from motoric.hardware.runtime.bundle import Chunk
from motoric.hardware.runtime.inference import Inline, Threaded, choose, seconds_of

RATE = 20.0


class Scripted:
    """A policy whose action k, seen at period p, is 100 p + k; `gate` holds it up."""

    def __init__(self, length=1, execute=1, seconds=0.0, rate=RATE):
        chunk = None if length == 1 else Chunk(length, execute)
        self.spec = SimpleNamespace(rate=rate, chunk=chunk)
        self.length, self.seconds, self.gate, self.begun = length, seconds, None, 0

    def infer(self, observation, ids=None, time=None):
        self.begun += 1
        if self.gate is not None:
            self.gate.wait(10)
        if self.seconds:
            threading.Event().wait(self.seconds)
        return 100.0 * observation["p"] + np.arange(self.length).reshape(1, -1, 1)

    def begin(self, ids=None):
        pass


def see(period):
    return {"p": np.array([period])}


def play(inference, periods, begin=0):
    """What is carried out in each period, None where nothing is."""
    found = []
    for period in range(begin, begin + periods):
        if inference.wants(period):
            inference.think(see(period), period, time.monotonic())
        chosen = inference.action(period)
        found.append(None if chosen is None else float(chosen.action[0]))
    return found


def until(true):
    deadline = time.monotonic() + 5
    while not true() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert true()


def settle(inference):
    until(lambda: inference._task is None)


@pytest.fixture
def threaded():
    made = []

    def make(policy):
        made.append(Threaded(policy))
        return made[-1]

    yield make
    for inference in made:
        inference.close()


def test_inline_carries_out_what_it_sees():
    assert play(Inline(Scripted()), 3) == [0, 100, 200]
    assert play(Inline(Scripted(4, 2)), 5) == [0, 1, 200, 201, 400]


def test_an_action_is_carried_out_once():
    inference = Inline(Scripted(4, 4))
    assert play(inference, 1) == [0]
    assert inference.action(0) is None
    chosen = inference.action(2)  # period 1 was left out by a late loop
    assert (chosen.action[0], chosen.first, chosen.age) == (2, False, 2)
    assert inference.action(1) is None, "time does not go back"


def test_inline_drops_the_action_of_a_state_that_has_passed():
    slow = Scripted(4, 4, seconds=0.03)
    inference = Inline(slow)
    assert play(inference, 3) == [None, 1, 2], "30 ms of a period of 50 are too many"
    slow.seconds = 0.0
    assert play(inference, 2, begin=4) == [400, 401]


def test_threaded_goes_on_with_the_chunk_it_has(threaded):
    policy = Scripted(6, 2)
    inference = threaded(policy)
    inference.think(see(0), 0, 0.0)
    settle(inference)
    assert play(inference, 2) == [0, 1]
    policy.gate = threading.Event()
    assert play(inference, 3, begin=2) == [2, 3, 4], "the next was asked for in period 2"
    until(lambda: policy.begun == 2)
    policy.gate.set()
    settle(inference)
    policy.gate = None
    found = play(inference, 1, begin=5)
    assert found == [203], "by its time: 200, 201 and 202 were for periods that have passed"


def test_an_answer_is_dropped_by_its_time(threaded):
    policy = Scripted(3, 2)
    inference = threaded(policy)
    policy.gate = threading.Event()
    assert play(inference, 4) == [None] * 4
    policy.gate.set()
    settle(inference)
    assert inference.action(4) is None, "its last action was for period 2"
    assert inference.wants(4)
    inference.think(see(4), 4, 0.0)
    settle(inference)
    assert inference.action(4).action[0] == 400


def test_an_answer_within_its_period_is_used_at_once(threaded):
    """Asked again within the period, at the rate of the loop."""
    policy = Scripted()
    inference = threaded(policy)
    policy.gate = threading.Event()
    assert play(inference, 1) == [None]
    policy.gate.set()
    settle(inference)
    assert inference.action(0).action[0] == 0
    assert inference.action(0) is None


def test_a_hung_policy_runs_out_of_actions_and_holds_up_nothing(threaded):
    policy = Scripted(4, 2)
    inference = threaded(policy)
    inference.think(see(0), 0, 0.0)
    settle(inference)
    policy.gate = threading.Event()
    began = time.monotonic()
    assert play(inference, 8) == [0, 1, 2, 3, None, None, None, None]
    until(lambda: policy.begun == 2)
    inference.close()
    assert time.monotonic() - began < 0.5
    assert policy.begun == 2, "it is not asked again while it hangs"
    policy.gate.set()


@pytest.mark.parametrize("kind", [Inline, Threaded])
def test_a_policy_that_raises_says_why(kind):
    policy = Scripted()
    policy.infer = lambda *a, **k: 1 / 0
    inference = kind(policy)
    inference.think(see(0), 0, time.monotonic())
    if kind is Threaded:
        settle(inference)
    assert inference.problem == "policy: ZeroDivisionError: division by zero"
    assert inference.action(0) is None
    inference.close()


def test_60_ms_at_20_hz_run_without_a_miss(threaded):
    """In real time: after the first answer there is an action in every period."""
    policy = Scripted(8, 4, seconds=0.06)
    inference = threaded(policy)
    start, found = time.monotonic(), []
    for period in range(40):
        time.sleep(max(0.0, start + period / RATE - time.monotonic()))
        found += play(inference, 1, begin=period)
    first = next(i for i, value in enumerate(found) if value is not None)
    assert first <= 2
    assert None not in found[first:]
    # Each was for its own period: 100 * (period seen) + (periods since).
    seen = np.array(found[first:]) // 100
    ages = np.array(found[first:]) % 100
    np.testing.assert_array_equal(seen + ages, np.arange(first, 40))
    assert ages.max() < 7
    assert np.median(np.diff(np.unique(seen))) == 4


@pytest.mark.parametrize(
    ("chunk", "seconds", "wished", "kind"),
    [
        ((1, 1), 0.002, "auto", Inline),
        ((1, 1), 0.020, "auto", Threaded),
        ((1, 1), 0.020, "inline", Inline),
        ((1, 1), 0.002, "thread", Threaded),
        ((8, 4), 0.060, "auto", Threaded),
        ((8, 4), 0.005, "auto", Inline),
    ],
)
def test_the_time_it_takes_chooses(chunk, seconds, wished, kind):
    assert choose(Scripted(*chunk), seconds, wished) is kind


@pytest.mark.parametrize(
    ("chunk", "seconds", "wished", "words"),
    [
        ((1, 1), 0.060, "auto", r"takes 60 ms, at most 40 ms are bridged by chunks of 1 actions"),
        ((8, 8), 0.070, "auto", "takes 70 ms, at most 60 ms are bridged by chunks of 8 actions at"),
        ((8, 4), 0.110, "thread", "takes 110 ms, at most 100 ms are bridged"),
        ((8, 4), 0.060, "inline", "takes 60 ms, in the loop at 20 Hz at most 25 ms"),
        ((8, 4), 0.001, "magic", "inference: 'magic', expected one of auto, inline, thread"),
    ],
)
def test_a_policy_that_can_not_be_in_time_is_refused(chunk, seconds, wished, words):
    with pytest.raises(ValueError, match=words):
        choose(Scripted(*chunk), seconds, wished)


def test_the_first_inference_is_not_counted():
    policy = Scripted(seconds=0.001)
    infer = policy.infer

    def first_slow(observation, **_):
        if policy.begun == 0:
            time.sleep(0.3)
        return infer(observation)

    policy.infer = first_slow
    assert 0.001 <= seconds_of(policy, see(0)) < 0.1
