"""Each fault with its reason, and attempts to get past the supervisor one by one.

Arbitrary input, for every robot: `test_supervisor_properties.py`.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from motoric.control.command import QUANTITIES, MotorCommand, hold
from motoric.control.filters import Context, Fault
from motoric.control.limits import JointLimits
from motoric.control.supervisor import Mode, Supervisor, Thresholds
from motoric.hardware.specs.go2 import GO2

DT = 0.02
UPRIGHT = np.array([1.0, 0.0, 0.0, 0.0])
ZERO = np.zeros(12)


def to(position=GO2.stand, **others) -> MotorCommand:
    """A wish at the robot's own gains, unless told otherwise."""
    own = hold(GO2.stand, GO2.kp, GO2.kd)
    return dataclasses.replace(own, **{"position": np.array(position)} | others)


STAND = to()


@dataclass
class Measured:
    time: float
    sequence: int
    position: np.ndarray
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(12))
    torque: np.ndarray = field(default_factory=lambda: np.zeros(12))
    orientation: np.ndarray = field(default_factory=UPRIGHT.copy)
    angular_velocity: np.ndarray = field(default_factory=lambda: np.zeros(3))


def supervisor(filters=(), kp_max=None, kd_max=None, clock=None, **thresholds) -> Supervisor:
    return Supervisor(
        GO2.limits, GO2.stand, GO2.rest, GO2.kp, GO2.kd, GO2.damping, DT, Thresholds(**thresholds),
        kp_max, kd_max, filters, **({} if clock is None else {"clock": clock}),
    )  # fmt: skip


class Plant:
    """A robot whose joints are where they were told to be, one tick later."""

    def __init__(self) -> None:
        self.now, self.tick, self.position = 100.0, 0, GO2.rest.copy()

    def state(self) -> Measured:
        return Measured(self.now, self.tick, self.position.copy())

    def run(self, s: Supervisor, ticks: int, wish: Any = STAND):
        for _ in range(ticks):
            self.now += DT
            self.tick += 1
            sent = s.update(self.now, self.state(), wish)
            if sent.kp.any():
                self.position = sent.position.copy()
        return sent


def active(**settings) -> tuple[Supervisor, Plant]:
    s, plant = supervisor(**settings), Plant()
    s.start(plant.now, plant.state())
    plant.run(s, 130)
    assert s.mode is Mode.ACTIVE
    return s, plant


def safe(sent) -> bool:
    return not sent.kp.any() and not sent.torque.any() and (sent.kd > 0).all()


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
        (broken("angular_velocity", np.inf), "angular_velocity is not finite"),
        (broken("angular_velocity", np.nan), "angular_velocity is not finite"),
        (broken("orientation", 3.0), "not a unit quaternion"),
        (broken("position", 9.0), "joint 4: position 9.000 rad, limits -1.571 to 3.491"),
        (broken("velocity", 61.0), "joint 4: velocity at 203% of its limit"),
        (lambda s: setattr(s, "orientation", np.array([0.6, 0.8, 0, 0])), "tilted by 106 degrees"),
        (lambda s: setattr(s, "position", np.zeros(11)), "position has shape (11,)"),
        (lambda s: setattr(s, "angular_velocity", np.zeros(4)), "angular_velocity has shape (4,)"),
    ],
)
def test_a_bad_state_is_a_fault_that_names_it(change, words):
    s, plant = active()
    plant.now += DT
    plant.tick += 1
    state = plant.state()
    change(state)
    sent = s.update(plant.now, state, STAND)
    assert s.mode is Mode.FAULT
    assert words in s.reason
    assert safe(sent)
    assert safe(plant.run(s, 20)), "a fault is latched"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.full(12, np.nan), "action: not finite: {}"),
        (np.where(np.arange(12) == 7, -np.inf, 0.0), "action: not finite: {}"),
        (np.zeros(11), "action: {} has shape (11,), expected (12,)"),
        (np.zeros((1, 12)), "action: {} has shape (1, 12), expected (12,)"),
        (np.zeros(12, complex), "action: {} holds complex128, expected numbers"),
        (np.zeros(12, bool), "action: {} holds bool, expected numbers"),
        (None, "action: {} has shape (), expected (12,)"),
    ],
)
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_a_bad_action_is_a_fault(quantity, value, words):
    s, plant = active()
    sent = plant.run(s, 1, to(**{quantity: value}))
    words = words.format(quantity)
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
        s.update(plant.now, state, STAND)
        if s.mode is Mode.FAULT:
            break
    assert "old, at most 0.1" in s.reason
    assert tick * DT == pytest.approx(0.12, abs=DT)


def test_a_paused_loop_is_a_fault():
    s, plant = active()
    plant.now += 0.2
    plant.tick += 1
    s.update(plant.now, plant.state(), STAND)
    assert "control loop paused for 0.200 s" in s.reason


@pytest.mark.parametrize("what", ["velocity", "torque"])
def test_a_spike_is_forgiven_and_an_excess_is_not(what):
    s, plant = active()

    def tick(factor):
        plant.now += DT
        plant.tick += 1
        state = plant.state()
        getattr(state, what)[7] = factor * getattr(GO2.limits, what)[7]
        s.update(plant.now, state, STAND)

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
        GO2.stand, GO2.rest, GO2.kp, GO2.kd, GO2.damping, DT,
    )  # fmt: skip
    soft.start(plant.now, plant.state())
    for _ in range(130):
        plant.now += DT
        plant.tick += 1
        state = plant.state()
        sent = soft.update(plant.now, state, STAND)
        plant.position = sent.position.copy()
    far = plant.state()
    far.time, far.sequence = plant.now + DT, plant.tick + 1
    sent = soft.update(plant.now + DT, far, to(GO2.stand + 0.3))
    torque = sent.kp * (sent.position - far.position)
    assert np.abs(torque).max() == pytest.approx(2.0)


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="stand: outside"):
        Supervisor(GO2.limits, GO2.stand + 9, GO2.rest, GO2.kp, GO2.kd, GO2.damping, DT)
    with pytest.raises(ValueError, match="dt"):
        Supervisor(GO2.limits, GO2.stand, GO2.rest, GO2.kp, GO2.kd, GO2.damping, 0.0)
    with pytest.raises(ValueError, match="kp"):
        Supervisor(GO2.limits, GO2.stand, GO2.rest, -GO2.kp, GO2.kd, GO2.damping, DT)
    for damping in (0.0, -2.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="damping: must be finite and positive"):
            Supervisor(GO2.limits, GO2.stand, GO2.rest, GO2.kp, GO2.kd, damping, DT)
    for name in ("kp_max", "kd_max"):
        for value, words in ((0.5 * GO2.kd, "below kp, kd or damping"), (np.inf, name)):
            with pytest.raises(ValueError, match=words):
                supervisor(**{name: value})
    for name, value in (("stale", 0.0), ("damp", np.inf), ("late", np.nan), ("tilt", 3.2)):
        with pytest.raises(ValueError, match=f"thresholds.{name}"):
            Thresholds(**{name: value})


# -- the five quantities ------------------------------------------------------------------------


def test_a_torque_command_passes_as_it_is():
    """kp = 0: the target is where the joint is, so that nothing pulls when stiffness returns."""
    s, plant = active()
    wish = to(GO2.stand + 1.0, kp=ZERO, kd=0.1 * GO2.kd, torque=ZERO + 3.0)
    for _ in range(5):
        plant.position = plant.position + 0.03
        sent = plant.run(s, 1, wish)
        np.testing.assert_array_equal(sent.position, plant.position)
        np.testing.assert_array_equal(sent.torque, 3.0)
        np.testing.assert_array_equal(sent.kd, wish.kd)
        assert not sent.kp.any()
    s.stop("finished")
    sent = plant.run(s, 1)
    assert np.abs(sent.position - plant.position).max() < 0.01, "it lies down from where it is"
    np.testing.assert_array_equal(sent.kp, GO2.kp)
    assert not sent.torque.any()


def test_stiffness_that_comes_back_pulls_from_where_the_joint_is():
    s, plant = active()
    away = np.clip(GO2.stand - 0.4, GO2.limits.lower, GO2.limits.upper)
    plant.position = away.copy()
    plant.run(s, 3, to(kp=ZERO))
    plant.position = away.copy()
    sent = plant.run(s, 1)
    reach = GO2.limits.target_rate * DT
    assert (np.abs(sent.position - away) <= reach + 1e-12).all()


def test_a_velocity_command_passes_up_to_the_limit():
    s, plant = active()
    sent = plant.run(s, 1, to(kp=ZERO, velocity=ZERO + 2.0))
    np.testing.assert_array_equal(sent.velocity, 2.0)
    sent = plant.run(s, 1, to(kp=ZERO, velocity=-9 * GO2.limits.velocity))
    np.testing.assert_array_equal(sent.velocity, -GO2.limits.velocity)
    asked = np.abs(sent.kd * sent.velocity)
    assert (asked <= GO2.limits.torque * (1 + 1e-12)).all()
    assert (asked < 0.8 * 9 * GO2.limits.velocity).all()


def test_gains_up_to_their_maxima():
    s, plant = active()
    sent = plant.run(s, 1, to(kp=9 * GO2.kp, kd=9 * GO2.kd))
    np.testing.assert_array_equal(sent.kp, GO2.kp)  # unless given: the robot's own
    np.testing.assert_array_equal(sent.kd, np.maximum(GO2.kd, GO2.damping))
    s, plant = active(kp_max=2 * GO2.kp, kd_max=3 * GO2.kd)
    sent = plant.run(s, 1, to(kp=9 * GO2.kp, kd=9 * GO2.kd))
    np.testing.assert_array_equal(sent.kp, 2 * GO2.kp)
    np.testing.assert_array_equal(sent.kd, 3 * GO2.kd)
    sent = plant.run(s, 1, to(kp=-GO2.kp, kd=-GO2.kd))
    assert not sent.kp.any()
    assert not sent.kd.any()


def test_torque_of_all_terms_together_is_scaled_down():
    s, plant = active()
    wish = to(GO2.stand + 0.5, velocity=ZERO + 5.0, torque=GO2.limits.torque)
    sent = plant.run(s, 1, wish)
    before = GO2.stand
    torque = sent.kp * (sent.position - before) + sent.kd * sent.velocity + sent.torque
    np.testing.assert_allclose(torque, GO2.limits.torque)
    np.testing.assert_allclose(sent.torque / GO2.limits.torque, sent.kp / GO2.kp)


def test_a_fault_at_the_last_moment_damps_a_torque_command_too():
    """It has no stiffness, and is yet not the safe one."""
    s, plant = at_the_stand(4)
    push = to(kp=ZERO, torque=ZERO + 5.0)
    with Between(0) as whole:
        plant.run(s, 1, push)
    for line in range(1, whole.lines):
        s, plant = at_the_stand(4)
        with Between(line, lambda s=s: s.fault("asked")) as between:
            sent = plant.run(s, 1, push)
        between.finish()
        assert safe(sent), line


# -- filters ------------------------------------------------------------------------------------


@dataclass
class Step:
    """A filter; `seen` keeps what it was given."""

    name: str
    change: Callable[[Any, MotorCommand, Context], Any] = lambda state, wish, context: wish
    deadline: float = 30.0  # s; a busy machine is no fault
    seen: list[Any] = field(default_factory=list)

    def __call__(self, state, wish, context):
        self.seen.append((state, wish, context))
        return self.change(state, wish, context)


def half(state, wish, context):
    return dataclasses.replace(wish, kp=0.5 * wish.kp)


def test_filters_come_in_order_and_the_limits_last():
    barrier, reflex = Step("barrier", half), Step("reflex", half)
    s, plant = active(filters=(barrier, reflex))
    barrier.seen.clear()
    reflex.seen.clear()
    sent = plant.run(s, 1, to(kp=9 * GO2.kp))
    np.testing.assert_array_equal(barrier.seen[0][1].kp, GO2.kp)
    np.testing.assert_array_equal(reflex.seen[0][1].kp, 0.5 * GO2.kp)
    np.testing.assert_array_equal(sent.kp, 0.25 * GO2.kp)
    wild = to(GO2.limits.upper + 5, velocity=ZERO + 1e3, kp=ZERO + 1e6, kd=ZERO + 1e6,
              torque=ZERO + 1e6)  # fmt: skip
    reflex.change = lambda *_: wild
    sent = plant.run(s, 1)
    assert (sent.kp <= GO2.kp).all()
    assert (np.abs(sent.position - GO2.stand) <= GO2.limits.target_rate * DT + 1e-12).all()
    assert (np.abs(sent.torque) <= GO2.limits.torque).all()
    assert s.mode is Mode.ACTIVE


def test_what_a_filter_writes_over_is_its_own():
    """It halves its wish in place, tick for tick: the policy's, which is held, stays as it was."""

    def change(state, wish, context):
        wish.kp = 0.5 * wish.kp
        context.previous.position = wish.position + 9.0
        state.position = wish.position + 9.0
        return wish

    one = Step("one")
    s, plant = active(filters=(one,))
    one.change = change
    plant.run(s, 1, to(GO2.stand + 0.1))
    for _ in range(2):
        sent = plant.run(s, 1, None)
        np.testing.assert_array_equal(sent.kp, 0.5 * GO2.kp)
        np.testing.assert_allclose(sent.position, GO2.stand + 0.1)


def test_what_a_filter_is_given():
    """The measurement, the wish and the command sent last, in arrays nobody can write to."""
    one = Step("one")
    s, plant = active(filters=(one,))
    before = plant.run(s, 1)
    plant.now, plant.tick = plant.now + 0.005, plant.tick + 1
    state = plant.state()
    state.velocity[3], state.sensors = 0.7, {"force": np.ones(3)}
    s.update(plant.now, state, None)
    seen, wish, context = one.seen[-1]
    for name in ("position", "velocity", "torque", "orientation", "angular_velocity"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(state, name))
        with pytest.raises(ValueError, match="read-only"):
            getattr(seen, name)[:] = 0.0
    assert seen.sensors is state.sensors
    assert context.dt == pytest.approx(0.005)
    for quantity in QUANTITIES:
        np.testing.assert_array_equal(getattr(wish, quantity), getattr(STAND, quantity))
        for command in (wish, context.previous):
            with pytest.raises(ValueError, match="read-only"):
                getattr(command, quantity)[:] = 0.0
    np.testing.assert_array_equal(context.previous.position, before.position)


def test_filters_are_asked_only_while_the_policy_acts():
    one = Step("one", half)
    s, plant = supervisor(filters=(one,)), Plant()
    plant.run(s, 1)
    s.start(plant.now, plant.state())
    plant.run(s, 50)
    assert s.mode is Mode.SOFT_START
    assert not one.seen
    plant.run(s, 60)
    assert s.mode is Mode.ACTIVE
    acted = len(one.seen)
    assert acted > 0
    s.stop("finished")
    plant.run(s, 200)
    assert len(one.seen) == acted


def raising(error):
    def change(*_):
        raise error

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (raising(Fault("0.02 m to agent 3")), "reflex: 0.02 m to agent 3"),
        (raising(ValueError("a bug")), "reflex: ValueError: a bug"),
        (raising(RecursionError), "reflex: RecursionError: "),
        (lambda *_: None, "reflex: AttributeError"),
        (lambda *_: to(ZERO + np.nan), "reflex: not finite: position"),
        (lambda *_: to(torque=ZERO - np.inf), "reflex: not finite: torque"),
        (lambda *_: to(kp=np.zeros(11)), "reflex: kp has shape (11,), expected (12,)"),
        (lambda *_: to(kd=np.zeros(12, complex)), "reflex: kd holds complex128"),
        (lambda s, w, c: w.kp.fill(1e6), "reflex: ValueError: "),
        (lambda s, w, c: s.position.fill(0.0), "reflex: ValueError: "),
    ],
)
def test_a_filter_that_fails_is_a_fault_that_names_it(change, words):
    after = Step("after")
    reflex = Step("reflex")
    s, plant = active(filters=(reflex, after))
    reflex.change = change
    asked = len(after.seen)
    sent = plant.run(s, 1)
    assert s.mode is Mode.FAULT
    assert words in s.reason
    assert safe(sent)
    assert len(after.seen) == asked
    assert safe(plant.run(s, 5)), "a fault is latched"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exit_inside_a_filter_is_a_fault_and_goes_on(error):
    one = Step("one")
    s, plant = active(filters=(one,))
    one.change = raising(error)
    with pytest.raises(error):
        plant.run(s, 1)
    assert s.mode is Mode.FAULT
    assert s.busy_since is None
    assert safe(plant.run(s, 1))


def test_a_late_filter_is_a_fault():
    now = [0.0]
    took = {"barrier": 0.0, "reflex": 0.0}

    def step(name, deadline):
        def change(state, wish, context):
            now[0] += took[name]
            return wish

        return Step(name, change, deadline)

    filters = step("barrier", 0.002), step("reflex", 0.005)
    s, plant = active(filters=filters, clock=lambda: now[0])
    took.update(barrier=0.0019, reflex=0.0049)
    plant.run(s, 5)
    assert s.mode is Mode.ACTIVE
    took.update(barrier=0.0, reflex=0.0051)
    assert safe(plant.run(s, 1))
    assert s.reason == "reflex: took 5.1 ms, allowed 5.0 ms"


def test_a_filter_that_hangs_does_not_keep_the_robot():
    """The guard thread sees it, and damps, without the lock that the update holds."""
    hangs, goes_on = threading.Event(), threading.Event()

    def change(state, wish, context):
        if hangs.is_set():
            return wish
        hangs.set()
        goes_on.wait(10.0)
        return wish

    one = Step("reflex")
    s, plant = active(filters=(one,))
    assert s.busy_since is None
    one.change = change
    sent = []
    thread = threading.Thread(target=lambda: sent.append(plant.run(s, 1)))
    thread.start()
    assert hangs.wait(10.0)
    assert s.busy_since is not None
    assert s.busy_with == "reflex"
    s.fault(f"{s.busy_with}: hangs")
    damped = s.blind()
    assert safe(damped)
    assert (damped.kd * GO2.limits.velocity <= GO2.limits.torque * (1 + 1e-12)).all()
    with pytest.raises(ValueError, match="read-only"):
        damped.kd[:] = 0.0
    goes_on.set()
    thread.join(10.0)
    assert safe(sent[0])
    assert s.reason == "reflex: hangs"
    assert s.busy_since is None
    assert s.busy_with == ""


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ((Step("one"), Step("one")), "one, one: a name is there twice"),
        ((Step("limits"),), "limits: a name is there twice"),
        ((Step(""),), "name '', expected a text"),
        ((Step("one", deadline=0.0),), "filter one: deadline 0.0, expected a positive number"),
        ((Step("one", deadline=np.inf),), "filter one: deadline inf"),
        ((Step("one", deadline=None),), "filter one: deadline None"),
    ],
)
def test_filters_that_make_no_sense(filters, words):
    with pytest.raises(ValueError, match=words):
        supervisor(filters=filters)


# -- from every side ----------------------------------------------------------------------------


class Between:
    """Lets somebody act just before the n-th line that the supervisor runs, in another thread.

    Whoever has to wait for the supervisor acts after it: `finish`. lines: run so far.
    """

    def __init__(self, line: int, act=lambda: None) -> None:
        self.lines, self.line = 0, line
        self.thread = threading.Thread(target=act, daemon=True)

    def __enter__(self) -> Between:
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _enter(self, frame, event, argument):
        return self._line if "control/supervisor" in frame.f_code.co_filename else None

    def _line(self, frame, event, argument):
        if event == "line":
            self.lines += 1
            if self.lines == self.line:
                self.thread.start()
                self.thread.join(0.002)
        return self._line

    def finish(self) -> None:
        self.thread.join(5.0)
        assert not self.thread.is_alive()


def at_the_stand(ticks: int) -> tuple[Supervisor, Plant]:
    s, plant = supervisor(soft_start=0.05), Plant()
    plant.position = GO2.stand.copy()
    s.start(plant.now, plant.state())
    plant.run(s, ticks)
    return s, plant


@pytest.mark.parametrize("ticks", [2, 4], ids=["becoming active", "active"])
@pytest.mark.parametrize("asked", ["fault", "fault and reset", "stop"])
def test_another_thread_may_act_at_any_line_of_an_update(ticks, asked):
    s, plant = at_the_stand(ticks)
    with Between(0) as whole:
        plant.run(s, 1)
    assert s.mode is Mode.ACTIVE
    assert whole.lines > 50
    # At the last line the command is decided, and it lets go of the lock.
    for line in range(1, whole.lines):
        s, plant = at_the_stand(ticks)

        def act(s=s):
            if asked == "stop":
                s.stop("asked")
            else:
                s.fault("asked")
                if asked != "fault":
                    s.reset()

        with Between(line, act) as between:
            sent = plant.run(s, 1)
        between.finish()
        after = plant.run(s, 1)
        if asked == "stop":
            assert s.mode is Mode.STOPPING, line
        else:
            assert s.mode is (Mode.FAULT if asked == "fault" else Mode.OFF), line
            assert safe(sent), line
            assert safe(after), line


class Meddling(Measured):
    """A state that, when it is looked at, does something to the supervisor."""

    do = None

    @property
    def torque(self):
        if self.do is not None:
            self.do()
        return np.zeros(12)

    @torque.setter
    def torque(self, value):
        pass


@pytest.mark.parametrize("call", ["reset", "start", "update"])
def test_nobody_re_activates_it_from_inside(call):
    s, plant = active()
    plant.now += DT
    state = Meddling(plant.now, plant.tick + 1, plant.position.copy())

    def do():
        state.do = None
        if call == "update":
            s.update(plant.now, plant.state(), STAND)
            return
        s.fault("e-stop")
        s.reset()
        if call == "start":
            s.start(plant.now, plant.state())

    state.do = do
    assert safe(s.update(plant.now, state, STAND))
    assert s.mode is Mode.FAULT
    assert safe(plant.run(s, 2))


def test_a_fault_never_waits():
    """Not even for an update that hangs in the reading of a state."""
    s, plant = active()
    hangs, goes_on = threading.Event(), threading.Event()
    state = Meddling(plant.now + DT, plant.tick + 1, plant.position.copy())

    def hang():
        hangs.set()
        goes_on.wait(10.0)

    state.do = hang
    sent = []
    thread = threading.Thread(target=lambda: sent.append(s.update(plant.now + DT, state, None)))
    thread.start()
    assert hangs.wait(10.0)
    s.fault("e-stop")
    assert s.mode is Mode.FAULT
    goes_on.set()
    thread.join(10.0)
    assert safe(sent[0])


@pytest.mark.parametrize("what", ["stale", "clock back", "no state", "not finite"])
def test_a_speed_that_is_not_known_is_taken_for_the_highest(what):
    """Damping 2 is within the torque limit at a measured 0 rad/s, and far beyond at 30."""
    s, plant = active()
    s.fault("e-stop")
    assert (plant.run(s, 1).kd == 2.0).all()
    plant.now += -0.5 if what == "clock back" else 0.5
    state = Measured(plant.now - 0.5, plant.tick, plant.position.copy())
    if what == "not finite":
        state = Measured(plant.now, plant.tick + 1, plant.position.copy(), np.full(12, np.nan))
    sent = s.update(plant.now, None if what == "no state" else state, STAND)
    assert safe(sent)
    assert (sent.kd * GO2.limits.velocity <= GO2.limits.torque * (1 + 1e-12)).all()


class Untold(Exception):
    def __str__(self):
        raise ValueError("not even that")


@pytest.mark.parametrize("error", [Untold, KeyboardInterrupt, SystemExit, RecursionError])
def test_an_error_inside_is_a_fault(error):
    s, plant = active()

    class Broken(Measured):
        @property
        def velocity(self):
            raise error

        @velocity.setter
        def velocity(self, value):
            pass

    plant.now += DT
    state = Broken(plant.now, plant.tick + 1, plant.position.copy())
    if issubclass(error, Exception):
        assert safe(s.update(plant.now, state, STAND))
    else:
        with pytest.raises(error):
            s.update(plant.now, state, STAND)
    assert s.mode is Mode.FAULT
    assert error.__name__ in s.reason
    assert safe(plant.run(s, 3))


def test_a_clock_that_goes_on_after_it_was_read():
    """The caller's number may be an array that it counts up in place."""
    s, plant = active()
    clock = np.array(plant.now + DT)
    for _ in range(2):
        plant.tick += 1
        s.update(clock, plant.state(), STAND)  # type: ignore[arg-type]
        clock += 0.5
        plant.now = float(clock)
    assert "control loop paused for 0.500 s" in s.reason


def test_a_counter_is_read_once():
    """A frozen robot must not look alive because its counter reads differently twice."""
    s, plant = active()

    class Odd(Measured):
        @property
        def sequence(self):
            self.reads = getattr(self, "reads", 0) + 1
            return 10**6 if self.reads % 2 else -self.reads

        @sequence.setter
        def sequence(self, value):
            pass

    state = Odd(plant.now + 1.0, 0, plant.position.copy())
    for _ in range(12):
        plant.now += DT
        state.time += DT
        s.update(plant.now, state, STAND)
    assert "old, at most 0.1 allowed" in s.reason


@pytest.mark.parametrize("count", [np.nan, 3.5, "7", None, np.zeros(3)])
def test_a_counter_that_is_none_is_a_fault(count):
    s, plant = active()
    plant.now += DT
    state = Measured(plant.now, count, plant.position.copy())
    assert safe(s.update(plant.now, state, STAND))
    assert s.reason.startswith("state: TypeError")


def test_what_was_checked_can_not_be_written_over():
    """Gains, poses and commands; a target and a state may be, by their owners."""
    s, plant = active()
    wish, state = to(GO2.stand + 0.05, torque=ZERO + 0.1), plant.state()
    wish.kp, wish.kd = 0.8 * GO2.kp, 0.9 * GO2.kd
    plant.now += DT
    state.time, state.sequence = plant.now, plant.tick + 1
    sent = s.update(plant.now, state, wish)
    kept = sent.position.copy()
    own = s.kp, s.kd, s.damping, s.stand, s.rest
    for array in (*own, *(getattr(sent, q) for q in QUANTITIES), *vars(s.limits).values()):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = np.nan
    for array in (state.position, state.velocity, *(getattr(wish, q) for q in QUANTITIES)):
        array[:] = np.nan
    plant.tick += 1
    again = plant.run(s, 1, None)
    assert s.mode is Mode.ACTIVE
    np.testing.assert_allclose(again.position, GO2.stand + 0.05)
    np.testing.assert_allclose(again.kp, 0.8 * GO2.kp)
    np.testing.assert_array_equal(sent.position, kept)


@pytest.mark.parametrize("reason", ["", None, 0, 5, np.zeros(2)])
def test_a_fault_always_has_a_reason(reason):
    s, _ = active()
    s.fault(reason)
    assert s.mode is Mode.FAULT
    assert s.reason == "fault"


def test_huge_gains_and_tiny_limits_stay_finite():
    for kp, torque in ((1e308, 5e-324), (1e308, 1e308), (5e-324, 5e-324)):
        limits = JointLimits(GO2.limits.lower, GO2.limits.upper, GO2.limits.velocity,
                             np.full(12, torque), GO2.limits.target_rate)  # fmt: skip
        s = Supervisor(limits, GO2.stand, GO2.rest, np.full(12, kp), kp, GO2.damping, DT)
        plant = Plant()
        s.start(plant.now, plant.state())
        for _ in range(5):
            plant.now, plant.tick = plant.now + DT, plant.tick + 1
            state = plant.state()
            state.velocity[:] = 5e-324
            with np.errstate(all="ignore"):
                sent = s.update(plant.now, state, STAND)
            assert s.mode is Mode.SOFT_START
            for quantity in QUANTITIES:
                assert np.isfinite(getattr(sent, quantity)).all()


def test_stopping_turns_stiffness_into_damping():
    s, plant = at_the_stand(4)
    s.stop("finished")
    sent = [plant.run(s, 1) for _ in range(120)]
    kp, kd = (np.array([getattr(c, name)[0] for c in sent]) for name in ("kp", "kd"))
    np.testing.assert_allclose(kp[:74], GO2.kp[0])
    np.testing.assert_allclose(kp[75:120] / GO2.kp[0], 1 - np.arange(1, 46) * DT, atol=0.03)
    assert (np.diff(kd[75:]) > 0).all()
