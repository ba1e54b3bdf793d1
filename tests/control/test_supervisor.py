"""Nothing outside the limits ever leaves the supervisor, whatever comes in."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motoric.control.limits import JointLimits
from motoric.control.supervisor import Mode, Supervisor, Thresholds
from motoric.hardware.go2 import GO2

DT = 0.02
UPRIGHT = np.array([1.0, 0.0, 0.0, 0.0])


@dataclass
class Measured:
    time: float
    sequence: int
    position: np.ndarray
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(12))
    torque: np.ndarray = field(default_factory=lambda: np.zeros(12))
    orientation: np.ndarray = field(default_factory=UPRIGHT.copy)


def supervisor(**thresholds) -> Supervisor:
    return Supervisor(GO2.limits, GO2.stand, GO2.rest, GO2.kp, GO2.kd, DT, Thresholds(**thresholds))


class Plant:
    """A robot whose joints are where they were told to be, one tick later."""

    def __init__(self) -> None:
        self.now, self.tick, self.position = 100.0, 0, GO2.rest.copy()

    def state(self) -> Measured:
        return Measured(self.now, self.tick, self.position.copy())

    def run(self, s: Supervisor, ticks: int, target=GO2.stand):
        for _ in range(ticks):
            self.now += DT
            self.tick += 1
            sent = s.update(self.now, self.state(), target)
            if sent.kp.any():
                self.position = sent.position.copy()
        return sent


def active() -> tuple[Supervisor, Plant]:
    s, plant = supervisor(), Plant()
    s.start(plant.now, plant.state())
    plant.run(s, 130)
    assert s.mode is Mode.ACTIVE
    return s, plant


def safe(sent) -> bool:
    return not sent.kp.any() and not sent.torque.any() and (sent.kd > 0).all()


# -- the property -------------------------------------------------------------------------------

anything = st.floats(allow_nan=True, allow_infinity=True, width=64)
plausible = st.floats(-4, 4)
numbers = st.one_of(plausible, plausible, plausible, anything)
joints = st.lists(numbers, min_size=12, max_size=12).map(np.array)
mild = st.lists(st.floats(-0.3, 0.3), min_size=12, max_size=12).map(np.array)
targets = st.one_of(
    st.none(), joints, mild.map(lambda d: GO2.stand + d),
    joints.map(lambda j: 1e6 * np.clip(j, -1e9, 1e9)),
    st.just(np.zeros(3)), st.just(np.array(["x"] * 12)),
)  # fmt: skip


@st.composite
def ticks(draw):
    """One tick: pause, what happens to the clock and counter, the state, the policy's target."""
    kind = draw(st.sampled_from(["follow"] * 6 + ["noisy", "frozen", "none", "wild", "shape"]))
    pause = draw(st.sampled_from([DT] * 8 + [0.0, 0.001, 0.05, -1.0, 0.5, 1e9]))
    wish = draw(st.sampled_from([None] * 12 + ["stop", "fault", "reset"]))
    return kind, pause, wish, draw(targets), draw(joints), draw(mild)


@settings(max_examples=300, deadline=None)
@given(st.booleans(), st.lists(ticks(), min_size=1, max_size=25))
def test_no_command_outside_the_limits_ever_leaves(risen, steps):
    s, plant = active() if risen else (supervisor(), Plant())
    if not risen:
        s.start(plant.now, plant.state())
    limits = GO2.limits
    previous = s.update(plant.now, plant.state(), GO2.stand).position
    now, fault = plant.now, s.mode is Mode.FAULT
    for kind, pause, wish, target, wild, mild in steps:
        now += pause
        plant.tick += kind != "frozen"
        state = Measured(now, plant.tick, plant.position.copy())
        if kind == "noisy":
            state.velocity, state.torque = 100 * mild, 50 * mild
        elif kind == "wild":
            state.position, state.velocity, state.torque = wild, wild[::-1], np.roll(wild, 3)
            state.orientation = wild[:4]
        elif kind == "shape":
            state.position = np.zeros(3)
        if wish == "stop":
            s.stop("asked")
        elif wish == "fault":
            s.fault("asked")
        before = s.mode
        if wish == "reset" and fault:
            s.reset()
            assert s.mode is Mode.OFF
            fault = False
        sent = s.update(now, None if kind == "none" else state, target)

        for name in ("position", "velocity", "kp", "kd", "torque"):
            value = getattr(sent, name)
            assert value.shape == (12,)
            assert np.isfinite(value).all(), name
        assert (sent.position >= limits.lower).all()
        assert (sent.position <= limits.upper).all()
        assert (sent.kp >= 0).all()
        assert (sent.kd >= 0).all()
        step = limits.target_rate * min(max(pause, 0.0), DT)
        assert (np.abs(sent.position - previous) <= step + 1e-9).all()
        if kind in ("follow", "noisy", "frozen"):
            torque = sent.kp * (sent.position - state.position) - sent.kd * state.velocity
            assert (np.abs(torque + sent.torque) <= limits.torque * (1 + 1e-9)).all()
        if fault:
            assert before is Mode.FAULT
            assert s.mode is Mode.FAULT
        fault = s.mode is Mode.FAULT
        if fault:
            assert safe(sent)
            assert s.reason
        previous = sent.position
        if sent.kp.any():
            plant.position = sent.position.copy()


# -- each reason --------------------------------------------------------------------------------


def test_life_without_fault():
    s, plant = active()
    plant.run(s, 200)
    assert s.mode is Mode.ACTIVE
    s.stop("finished")
    sent = plant.run(s, 200)
    assert s.mode is Mode.OFF
    assert s.reason == "finished"
    assert safe(sent)
    np.testing.assert_allclose(plant.position, GO2.rest, atol=1e-6)


def test_soft_start_moves_gently_and_stiffens():
    s, plant = supervisor(), Plant()
    s.start(plant.now, plant.state())
    gains, moves, last = [], [], GO2.rest
    for _ in range(100):
        sent = plant.run(s, 1)
        gains.append(sent.kp.max())
        moves.append(np.abs(sent.position - last).max() / DT)
        last = sent.position
    assert gains[0] < 0.35 * GO2.kp[0]
    assert gains[-1] == pytest.approx(GO2.kp[0])
    assert max(moves) < 1.5  # rad/s; the motors could do 30


def broken(name, value):
    def change(state, index=4):
        array = getattr(state, name)
        array[index % len(array)] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (broken("position", np.nan), "position is not finite"),
        (broken("velocity", np.inf), "velocity is not finite"),
        (broken("torque", np.nan), "torque is not finite"),
        (broken("orientation", np.nan), "orientation is not finite"),
        (broken("orientation", 3.0), "not a unit quaternion"),
        (broken("position", 9.0), "joint 4: position 9.000 rad, limits -1.571 to 3.491"),
        (broken("velocity", 61.0), "joint 4: velocity at 203% of its limit"),
        (lambda s: setattr(s, "orientation", np.array([0.6, 0.8, 0, 0])), "tilted by 106 degrees"),
        (lambda s: setattr(s, "position", np.zeros(11)), "position has shape (11,)"),
    ],
)
def test_a_bad_state_is_a_fault_that_names_it(change, words):
    s, plant = active()
    plant.now += DT
    plant.tick += 1
    state = plant.state()
    change(state)
    sent = s.update(plant.now, state, GO2.stand)
    assert s.mode is Mode.FAULT
    assert words in s.reason
    assert safe(sent)
    assert safe(plant.run(s, 20)), "a fault is latched"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (np.full(12, np.nan), "action: not finite"),
        (np.full(12, np.inf), "action: not finite"),
        (np.zeros(11), "action: (11,) joint targets"),
    ],
)
def test_a_bad_action_is_a_fault(target, words):
    s, plant = active()
    sent = plant.run(s, 1, target)
    assert s.mode is Mode.FAULT
    assert words in s.reason
    assert safe(sent)


def test_a_late_policy_is_forgiven_twice():
    s, plant = active()
    plant.run(s, 2, None)
    plant.run(s, 1)
    plant.run(s, 2, None)
    assert s.mode is Mode.ACTIVE
    plant.run(s, 1, None)
    assert s.mode is Mode.FAULT
    assert "policy late" in s.reason


@pytest.mark.parametrize("what", ["sequence", "time", "nothing"])
def test_a_frozen_state_is_a_fault(what):
    """Repeated packets, a robot whose clock stands, and silence all count as stale."""
    s, plant = active()
    frozen = plant.state()
    for tick in range(1, 20):
        plant.now += DT
        state = None if what == "nothing" else plant.state()
        if what == "sequence":
            state = frozen
        elif what == "time":
            state.sequence, state.time = plant.tick + tick, frozen.time
        s.update(plant.now, state, GO2.stand)
        if s.mode is Mode.FAULT:
            break
    assert "old, at most 0.1" in s.reason
    assert tick * DT == pytest.approx(0.12, abs=DT)


def test_a_paused_loop_is_a_fault():
    s, plant = active()
    plant.now += 0.2
    plant.tick += 1
    s.update(plant.now, plant.state(), GO2.stand)
    assert "control loop paused for 0.200 s" in s.reason


@pytest.mark.parametrize("what", ["velocity", "torque"])
def test_a_spike_is_forgiven_and_an_excess_is_not(what):
    s, plant = active()

    def tick(factor):
        plant.now += DT
        plant.tick += 1
        state = plant.state()
        getattr(state, what)[7] = factor * getattr(GO2.limits, what)[7]
        s.update(plant.now, state, GO2.stand)

    for factor in (1.3, 0.5, 1.3, 1.3, 0.9, 1.3):
        tick(factor)
    assert s.mode is Mode.ACTIVE
    for _ in range(4):
        tick(1.3)
    assert s.mode is Mode.FAULT
    assert f"joint 7: {what} at" in s.reason


def test_fault_needs_a_human():
    s, plant = active()
    s.fault("e-stop by key")
    s.fault("something later")
    assert s.reason == "e-stop by key"
    with pytest.raises(RuntimeError, match="expected off"):
        s.start(plant.now, plant.state())
    s.stop("no")
    assert s.mode is Mode.FAULT
    s.reset()
    assert s.mode is Mode.OFF
    s.start(plant.now, plant.state())
    assert s.mode is Mode.SOFT_START


def test_a_robot_that_does_not_rise_is_a_fault():
    s, plant = supervisor(), Plant()
    s.start(plant.now, plant.state())
    for _ in range(160):
        plant.now += DT
        plant.tick += 1
        s.update(plant.now, plant.state(), None)  # it never leaves the floor
    assert s.mode is Mode.FAULT
    assert "from the stand" in s.reason


def test_torque_of_a_far_target_is_scaled_down():
    plant = Plant()
    soft = Supervisor(
        JointLimits(GO2.limits.lower, GO2.limits.upper, GO2.limits.velocity, np.full(12, 2.0),
                    GO2.limits.target_rate),
        GO2.stand, GO2.rest, GO2.kp, GO2.kd, DT,
    )  # fmt: skip
    soft.start(plant.now, plant.state())
    for _ in range(130):
        plant.now += DT
        plant.tick += 1
        state = plant.state()
        sent = soft.update(plant.now, state, GO2.stand)
        plant.position = sent.position.copy()
    far = plant.state()
    far.time, far.sequence = plant.now + DT, plant.tick + 1
    sent = soft.update(plant.now + DT, far, GO2.stand + 0.3)
    torque = sent.kp * (sent.position - far.position)
    assert np.abs(torque).max() == pytest.approx(2.0)


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="stand: outside"):
        Supervisor(GO2.limits, GO2.stand + 9, GO2.rest, GO2.kp, GO2.kd, DT)
    with pytest.raises(ValueError, match="dt"):
        Supervisor(GO2.limits, GO2.stand, GO2.rest, GO2.kp, GO2.kd, 0.0)
    with pytest.raises(ValueError, match="kp"):
        Supervisor(GO2.limits, GO2.stand, GO2.rest, -GO2.kp, GO2.kd, DT)
