"""Arbitrary states, actions, timings and operators, for every robot there is a config for.

`oracle.py` says of each command whether it may leave, and of each tick whether it must, may or
must not end in a fault.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from motoric import configs
from motoric.control.command import QUANTITIES, MotorCommand
from motoric.control.filters import Context, Fault
from motoric.control.limits import Limits, limit_target, torque_scale
from motoric.control.supervisor import Mode, Supervisor, Thresholds
from motoric.hardware.drivers import make_robot
from motoric.hardware.robot import Robot, RobotSpec
from motoric.hardware.runtime.deploy import ticks_per_action
from motoric.scripts import config

from .oracle import STIFF, Measured, Oracle

CONFIGS = sorted(
    path.stem for path in (Path(configs.__path__[0]) / "robot").glob("*.yaml")
)  # a new one is covered by being there
DT = 0.02  # of the policy, s
QUICK = {"soft_start": 0.06, "lie_down": 0.06, "damp": 0.04}
REPEATABLE = {"deadline": None, "derandomize": True, "database": None,
              "suppress_health_check": list(HealthCheck)}  # fmt: skip


@functools.cache
def robot(name: str) -> Robot:
    """As `motoric deploy robot=<name>` makes it; not connected."""
    made = config.load("deploy", ["run=none", f"robot={name}"]).robot
    return make_robot(made.driver, **made.options)


@functools.cache
def tick_of(name: str) -> float:
    """Of the control loop, s."""
    return DT / ticks_per_action(1 / DT, None, robot(name).loop_rate)


def different() -> list[str]:
    """Configurations whose robots differ in anything that the supervisor knows."""
    found = {}
    for name in CONFIGS:
        spec = robot(name).spec
        arrays = (*vars(spec.limits).values(), spec.stand, spec.rest, spec.kp, spec.kd,
                  spec.damping, spec.kp_max, spec.kd_max)  # fmt: skip
        found.setdefault((tick_of(name), *(a.tobytes() for a in arrays)), name)
    return list(found.values())


every_robot = pytest.mark.parametrize("name", different())


def test_every_config_makes_a_robot():
    assert config.group_choices("robot") == CONFIGS
    assert {robot(name).spec.name for name in CONFIGS} >= {"go2", "b2", "g1", "x_arm6"}


# -- what may come in ---------------------------------------------------------------------------

extreme = st.sampled_from(
    [math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, -1e-310, 1e-9, 1e9, 1.7e308, -1.7e308]
)
number = st.one_of(extreme, st.floats(-10, 10), st.floats())
SHARES = (0.0, 0.0, 0.01, 0.3, 0.99, 1.0, 1.01, 1.19, 1.21, 1.9, 2.1)


@st.composite
def around(draw, base: np.ndarray, reach: np.ndarray, most: int = 2) -> Any:
    """Numbers around base by up to a share of reach, a few of them arbitrary, in any type."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    share = draw(st.sampled_from(SHARES))
    value = base + share * reach * rng.uniform(-1, 1, len(base))
    if draw(st.booleans()):
        value[rng.integers(len(base))] = (base + share * reach)[0]
    for index, other in draw(
        st.lists(st.tuples(st.integers(0, len(base) - 1), number), max_size=most)
    ):
        value[index] = other
    form = draw(st.sampled_from(["plain"] * 6 + ["list", "float32", "longdouble", "int", "view"]))
    with np.errstate(all="ignore"):
        if form == "list":
            return value.tolist()
        if form == "view":
            return np.stack([value, value], axis=1)[:, 0]
        if form == "int":
            return np.nan_to_num(value, posinf=1e6, neginf=-1e6).clip(-1e6, 1e6).astype(np.int32)
        return value if form == "plain" else value.astype(form)


class Raises:
    """An array, or a number, that can't be read."""

    def __array__(self, *arguments, **named):
        raise ValueError("no array here")

    def __getattr__(self, name):
        raise OSError("device gone")


def misshapen(joints: int) -> st.SearchStrategy[Any]:
    fields = (
        "position", "velocity", "torque", "orientation", "angular_velocity", "sequence", "time",
    )  # fmt: skip
    wrong = st.sampled_from([
        None, "text", Raises(), np.zeros(joints + 1), np.zeros((joints, 1)), np.zeros(0), [],
        np.array(["x"] * joints), np.zeros(joints, complex), np.zeros(joints, bool), {},
        np.zeros(joints, object), np.zeros(joints, "datetime64[s]"),
    ])  # fmt: skip
    some = st.tuples(st.sampled_from(fields), wrong).map(lambda pair: {pair[0]: pair[1]})
    return st.one_of(st.just(Raises()), st.just("a state"), st.just(7), some)


def command(spec: RobotSpec, position: Any = None, **others: Any) -> MotorCommand:
    """The robot's own gains, unless told otherwise."""
    zero = np.zeros(len(spec.joints))
    values = {"position": spec.stand if position is None else position, "velocity": zero,
              "kp": spec.kp, "kd": spec.kd, "torque": zero}  # fmt: skip
    return MotorCommand(**values | others)


@st.composite
def commands(draw, spec: RobotSpec, most: int = 0) -> MotorCommand:
    """Any of the five quantities, within or beyond what is allowed."""
    limits, span = spec.limits, spec.limits.upper - spec.limits.lower
    zero = np.zeros(len(spec.joints))
    scale = draw(st.sampled_from([0.05, 1.0]))
    return MotorCommand(
        draw(around(spec.stand, scale * span, most)),
        draw(st.one_of(st.just(zero.copy()), around(zero, limits.velocity, most))),
        draw(st.one_of(
            st.just(spec.kp.copy()), st.just(zero.copy()),
            around(0.5 * spec.kp_max, spec.kp_max, most),
            st.just(np.where(np.arange(len(zero)) % 2, spec.kp_max, 0.0)),
        )),
        draw(st.one_of(st.just(spec.kd.copy()), around(0.5 * spec.kd_max, spec.kd_max, most))),
        draw(st.one_of(st.just(zero.copy()), around(zero, limits.torque, most))),
    )  # fmt: skip


def wishes(spec: RobotSpec) -> st.SearchStrategy[Any]:
    joints = len(spec.joints)
    good = command(spec)
    wrong = st.sampled_from([
        np.full(joints, np.nan), np.zeros(joints - 1), np.zeros((1, joints)), "x", Raises(), None,
        np.zeros(joints, complex), np.zeros(joints, bool), np.full(joints, 1e308), [],
    ])  # fmt: skip
    return st.one_of(
        st.none(), commands(spec), commands(spec), commands(spec, most=2),
        st.tuples(st.sampled_from(QUANTITIES), wrong).map(
            lambda pair: dataclasses.replace(good, **{pair[0]: pair[1]})
        ),
        st.sampled_from([
            command(spec, spec.limits.lower), command(spec, spec.limits.upper), spec.stand, "x",
            Raises(), 7,
        ]),
    )  # fmt: skip


def own(wish: Any) -> Any:
    """The same in arrays of its own."""
    if not isinstance(wish, MotorCommand):
        return _own(wish)
    return MotorCommand(**{q: _own(getattr(wish, q)) for q in QUANTITIES})


def _own(value: Any) -> Any:
    return np.array(value) if isinstance(value, np.ndarray) else value


ORIENTATIONS = [
    np.array([1.0, 0.0, 0.0, 0.0]), np.array([-1.0, 0.0, 0.0, 0.0]),
    np.array([math.cos(0.5), 0.0, math.sin(0.5), 0.0]),  # 57 degrees
    np.array([math.cos(0.55), math.sin(0.55), 0.0, 0.0]),  # 63
    np.array([math.cos(1.2), 0.0, 0.0, math.sin(1.2)]),  # turned, upright
    np.array([0.0, 1.0, 0.0, 0.0]), np.zeros(4), np.full(4, 0.6), np.array([1.0, math.nan, 0, 0]),
]  # fmt: skip


class Bench:
    """A supervisor, a robot whose joints go where they are told, a clock, and the oracle.

    damping: of every joint, N m s / rad; None: the robot's. Its highest gains are above its own.
    """

    def __init__(
        self, name: str, damping: float | None = None, filters: tuple[Any, ...] = (),
        **thresholds: float,
    ) -> None:  # fmt: skip
        spec = robot(name).spec
        if damping is not None:
            spec = dataclasses.replace(
                spec, damping=np.full(len(spec.joints), damping), kd_max=None
            )
        spec = dataclasses.replace(spec, kp_max=1.7 * spec.kp_max, kd_max=1.3 * spec.kd_max)
        self.spec, at = spec, Thresholds(**thresholds)
        self.supervisor = Supervisor(
            spec.limits, spec.stand, spec.rest, spec.kp, spec.kd, spec.damping, DT, at,
            spec.kp_max, spec.kd_max, filters,
        )  # fmt: skip
        self.oracle = Oracle(spec, DT, at, filtered=bool(filters))
        self.now, self.step, self.count = 1000.0, tick_of(name), 0
        self.position, self.velocity = spec.rest.copy(), np.zeros(len(spec.joints))
        self.time = 0.0

    def sound(self) -> Measured:
        """A new measurement."""
        self.count, self.time = self.count + 1, self.time + 1e-3
        zero = np.zeros(len(self.spec.joints))
        return Measured(self.time, self.count, self.position.copy(), self.velocity.copy(), zero)

    def start(self, state: object) -> None:
        self.supervisor.start(self.now, state)  # type: ignore[arg-type]
        s = self.supervisor
        self.oracle.started(self.now, state, s.mode, s.reason)

    def ask(self, what: str, *reason: Any) -> None:
        s = self.supervisor
        getattr(s, what)(*reason)
        self.oracle.asked(what, s.mode, s.reason)

    def tick(self, pause: float, state: object, wish: Any = None) -> None:
        """One tick; afterwards the owners of what was given write over it."""
        s = self.supervisor
        now = self.now + pause
        self.now = now if math.isfinite(now) and abs(pause) < 1e6 else self.now
        with np.errstate(all="ignore"):
            given = own(wish)
            sent = s.update(now, state, given)  # type: ignore[arg-type]
            self.oracle.tick(now, state, wish, sent, s.mode, s.reason)
        for owner in (state, given):
            arrays = vars(owner).values() if isinstance(owner, Measured | MotorCommand) else [owner]
            for array in arrays:
                if isinstance(array, np.ndarray) and array.dtype.kind == "f":
                    array[:] = np.nan
        if sent.kp.any() and 0 < pause < 1:
            move = np.clip(sent.position - self.position, -0.9 * self.spec.limits.velocity * pause,
                           0.9 * self.spec.limits.velocity * pause)  # fmt: skip
            self.position, self.velocity = self.position + move, move / pause
        else:
            self.velocity = np.zeros(len(self.spec.joints))

    def run(self, ticks: int, wish: Any = None, step: float | None = None) -> None:
        for _ in range(ticks):
            self.tick(step or self.step, self.sound(), command(self.spec) if wish is None else wish)

    def until(self, mode: Mode) -> None:
        """From off to a mode."""
        if mode is Mode.OFF:
            return
        self.position = self.spec.stand.copy()  # there already: it needs few ticks
        self.start(self.sound())
        self.run(1, step=DT)
        if mode is not Mode.SOFT_START:
            self.run(3, step=DT)
            assert self.supervisor.mode is Mode.ACTIVE
        if mode is Mode.STOPPING:
            self.ask("stop", "asked")
            self.run(1, step=DT)
        elif mode is Mode.FAULT:
            self.ask("fault", "asked")
        assert self.supervisor.mode is mode


def states(bench: Bench) -> st.SearchStrategy[Any]:
    """None, one of no form, or one that may be anything between sound and absurd."""
    limits, zero = bench.spec.limits, np.zeros(len(bench.spec.joints))
    span = limits.upper - limits.lower

    @st.composite
    def made(draw) -> Any:
        kind = draw(st.sampled_from(["sound", "frozen", "odd", "odd", "limit", "none", "form"]))
        if kind == "none":
            return None
        state = bench.sound()
        if kind == "frozen":
            state.sequence -= draw(st.sampled_from([1, 1, 1000]))
            state.time -= draw(st.sampled_from([0.0, 1e-3, 1e3]))
        elif kind == "form":
            change = draw(misshapen(len(zero)))
            bench.count += 1
            return SimpleNamespace(**vars(state) | change) if isinstance(change, dict) else change
        elif kind == "limit":
            low, margin = draw(st.booleans()), draw(st.sampled_from([0.0, 0.0999, 0.1001]))
            state.position = limits.lower - margin if low else limits.upper + margin
        elif kind == "odd":
            which = draw(st.sampled_from(
                ["position", "velocity", "torque", "orientation", "angular_velocity", "all"]
            ))  # fmt: skip
            if which in ("position", "all"):
                state.position = draw(around(state.position, span))
            if which in ("velocity", "all"):
                state.velocity = draw(around(zero, limits.velocity))
            if which in ("torque", "all"):
                state.torque = draw(around(zero, limits.torque))
            if which in ("orientation", "all"):
                state.orientation = draw(st.sampled_from(ORIENTATIONS)).copy()
            if which in ("angular_velocity", "all"):
                state.angular_velocity = draw(around(np.zeros(3), np.full(3, 10.0)))
        return state

    return made()


pauses = st.sampled_from([None] * 6 + [DT, 0.0, 1e-9, 0.05, 0.099, 0.101, 0.5, -1e-3, -5.0, 1e9,
                                       1e300, math.inf, -math.inf, math.nan])  # fmt: skip
MODES = [Mode.OFF, Mode.SOFT_START, Mode.ACTIVE, Mode.ACTIVE, Mode.STOPPING, Mode.FAULT]


# -- the properties -----------------------------------------------------------------------------


@every_robot
@settings(max_examples=60, **REPEATABLE)
@given(data=st.data())
def test_whatever_comes_in_no_command_leaves_the_limits(name, data):
    """A few arbitrary ticks from any mode."""
    bench = Bench(name, **QUICK)
    bench.until(data.draw(st.sampled_from(MODES)))
    for _ in range(data.draw(st.integers(1, 5))):
        pause = data.draw(pauses)
        state, wish = data.draw(states(bench)), data.draw(wishes(bench.spec))
        bench.tick(bench.step if pause is None else pause, state, wish)


@every_robot
@settings(max_examples=20, **REPEATABLE)
@given(data=st.data())
def test_after_a_fault_only_a_human_brings_stiffness_back(name, data):
    """Whatever comes, it damps until `reset` and `start`; the first reason stays."""
    bench = Bench(name, **QUICK)
    bench.until(data.draw(st.sampled_from([Mode.SOFT_START, Mode.ACTIVE, Mode.STOPPING])))
    first = data.draw(st.sampled_from(["asked", "", None, 5]))
    bench.ask("fault", first)
    reason = bench.supervisor.reason
    for _ in range(data.draw(st.integers(1, 6))):
        what = data.draw(st.sampled_from(["tick", "tick", "sound", "stop", "fault", "start"]))
        if what == "tick":
            state, wish = data.draw(states(bench)), data.draw(wishes(bench.spec))
            bench.tick(data.draw(pauses) or bench.step, state, wish)
        elif what == "sound":
            bench.run(3)
        elif what == "start":
            with pytest.raises(RuntimeError, match="expected off"):
                bench.supervisor.start(bench.now, bench.sound())
        else:
            bench.ask(what, "later")
        assert bench.supervisor.mode is Mode.FAULT
        assert bench.supervisor.reason == reason
    bench.ask("reset")
    bench.run(2)
    assert bench.supervisor.mode is Mode.OFF
    bench.start(bench.sound())
    bench.run(1)
    assert bench.supervisor.mode is Mode.SOFT_START


@every_robot
@settings(max_examples=30, **REPEATABLE)
@given(data=st.data())
def test_the_limits_by_themselves(name, data):
    spec = robot(name).spec
    limits, span = spec.limits, spec.limits.upper - spec.limits.lower
    finite = around(spec.stand, span, 0).map(lambda v: np.asarray(v, np.float64))
    q, target = data.draw(finite), data.draw(finite)
    dq = data.draw(around(np.zeros(len(span)), limits.velocity, 0).map(np.float64))
    previous = np.clip(q, limits.lower, limits.upper)
    dt = data.draw(st.floats(0, 1))
    moved = limit_target(limits, target, previous, dt)
    assert ((limits.lower <= moved) & (moved <= limits.upper)).all()
    assert (np.abs(moved - previous) <= limits.target_rate * dt + 1e-12).all()
    inside = np.clip(target, limits.lower, limits.upper)
    near = np.abs(inside - previous) <= limits.target_rate * dt
    assert (moved[near] == inside[near]).all()
    scale = torque_scale(limits, moved, 0.0, spec.kp, spec.kd, 0.0, q, dq)
    assert ((scale > 0) & (scale <= 1)).all()
    for turn in (-1.0, -0.5, 0.0, 0.5, 1.0):
        torque = scale * (spec.kp * (moved - q) - spec.kd * turn * dq)
        assert (np.abs(torque) <= limits.torque * (1 + 1e-12)).all()
    most = np.abs(spec.kp * (moved - q)) + np.abs(spec.kd * dq)
    assert (scale[most <= limits.torque] == 1.0).all()


@every_robot
@pytest.mark.parametrize("margin", [0.0, 0.0999, 0.1001])
def test_each_joint_on_each_side_of_its_limits(name, margin):
    """Just inside the margin it goes on, and may start there; just outside it is a fault."""
    limits = robot(name).spec.limits
    for joint in range(len(limits.lower)):
        for edge in (limits.lower[joint] - margin, limits.upper[joint] + margin):
            bench = Bench(name, **QUICK)
            bench.until(Mode.ACTIVE)
            state = bench.sound()
            state.position[joint] = edge
            bench.tick(bench.step, state, command(bench.spec))
            assert (bench.supervisor.mode is Mode.FAULT) == (margin > 0.1)
            bench = Bench(name, **QUICK)
            state = bench.sound()
            state.position[joint] = edge
            bench.start(state)
            assert (bench.supervisor.mode is Mode.FAULT) == (margin > 0.1)
            bench.tick(bench.step, bench.sound(), command(bench.spec))


@every_robot
@settings(max_examples=40, **REPEATABLE)
@given(data=st.data())
def test_the_limits_of_many_rows_are_those_of_each(name, data):
    """The filter of training is the filter of the robot: N rows give what N robots give."""
    spec = robot(name).spec
    spec = dataclasses.replace(spec, kp_max=1.7 * spec.kp_max, kd_max=1.3 * spec.kd_max)
    limits = Limits(spec.limits, spec.kp_max, spec.kd_max)
    rng, rows = np.random.default_rng(data.draw(st.integers(0, 999))), data.draw(st.integers(1, 4))
    span, shape = spec.limits.upper - spec.limits.lower, (rows, len(spec.joints))

    def some(least: Any, most: Any) -> np.ndarray:
        return rng.uniform(np.broadcast_to(least, shape), np.broadcast_to(most, shape))

    reach = data.draw(st.sampled_from([0.01, 0.5, 2.0]))
    kp = some(-0.2 * spec.kp_max, 1.2 * spec.kp_max) * (rng.random(shape) < 0.7)
    wish = MotorCommand(
        some(spec.stand - reach * span, spec.stand + reach * span),
        reach * some(-spec.limits.velocity, spec.limits.velocity), kp,
        some(-0.2 * spec.kd_max, 1.2 * spec.kd_max),
        reach * some(-spec.limits.torque, spec.limits.torque),
    )  # fmt: skip
    if data.draw(st.booleans()):  # one row for all, as `hold` makes it
        for q in ("velocity", "kp", "kd", "torque"):
            setattr(wish, q, np.broadcast_to(getattr(wish, q)[0], shape))
    q, dq = some(spec.limits.lower, spec.limits.upper), some(-spec.limits.velocity, 0.0)
    before = MotorCommand(some(spec.limits.lower, spec.limits.upper), *np.zeros((4, *shape)))
    dt = data.draw(st.sampled_from([0.0, 0.002, 0.02]))
    state = SimpleNamespace(position=q, velocity=dq)
    found = limits(state, wish, Context(before, dt))
    for row in range(rows):
        one = SimpleNamespace(position=q[row], velocity=dq[row])
        alone = limits(one, wish.rows(row), Context(before.rows(row), dt))
        for name in QUANTITIES:
            assert getattr(found, name).shape == shape
            np.testing.assert_array_equal(getattr(found, name)[row], getattr(alone, name))
    assert (found.kp is wish.kp) <= (np.asarray(found.torque) == wish.torque).all()


class Arbitrary:
    """A filter that answers with anything."""

    deadline = 10.0

    def __init__(self, name: str) -> None:
        self.name, self.answer = name, None

    def __call__(self, state: Any, wish: MotorCommand, context: Context) -> Any:
        if self.answer is None:
            return wish
        if isinstance(self.answer, Exception):
            raise self.answer
        for thing in (state, wish, context.previous):  # nothing that it does to them counts
            for q in ("position", "velocity", "kp", "kd"):
                if hasattr(thing, q) and self.answer != "as it was":
                    setattr(thing, q, np.full(len(wish.torque), 1e6))
        return wish if self.answer == "as it was" else self.answer


@every_robot
@settings(max_examples=40, **REPEATABLE)
@given(data=st.data())
def test_no_filter_loosens_the_limits(name, data):
    """Whatever filters answer, and whatever they write over, the oracle's rules hold."""
    filters = Arbitrary("barrier"), Arbitrary("reflex")
    bench = Bench(name, filters=filters, **QUICK)
    bench.until(data.draw(st.sampled_from([Mode.ACTIVE, Mode.ACTIVE, Mode.SOFT_START])))
    answers = st.one_of(
        commands(bench.spec, most=1), wishes(bench.spec), st.just("as it was"),
        st.sampled_from([Fault("no way"), RuntimeError("bug")]),
    )  # fmt: skip
    for _ in range(data.draw(st.integers(1, 4))):
        for one in filters:
            one.answer = data.draw(answers)
        state, wish = data.draw(states(bench)), data.draw(wishes(bench.spec))
        bench.tick(bench.step, state, wish)


# -- the machine --------------------------------------------------------------------------------


class Life(RuleBasedStateMachine):
    """A supervisor's life: any order of starts, stops, faults, resets and ticks."""

    name = ""

    @initialize(
        slow=st.booleans(), damping=st.sampled_from([None, None, 0.05, 40.0]),
        step=st.sampled_from(["loop", "policy", "odd"]), start=st.sampled_from(["rest", "stand"]),
    )  # fmt: skip
    def make(self, slow, damping, step, start):
        times = {"soft_start": 0.4, "lie_down": 0.2, "damp": 0.1} if slow else QUICK
        self.bench = Bench(self.name, damping, **times)
        self.bench.step = {"loop": self.bench.step, "policy": DT, "odd": 0.0137}[step]
        self.bench.position = getattr(self.bench.spec, start).copy()

    @property
    def mode(self) -> Mode:
        return self.bench.supervisor.mode

    @precondition(lambda self: self.mode is Mode.OFF)
    @rule(data=st.data(), sound=st.sampled_from([True, True, True, False]))
    def start(self, data, sound):
        self.bench.start(self.bench.sound() if sound else data.draw(states(self.bench)))

    @precondition(lambda self: self.mode is not Mode.OFF)
    @rule()
    def start_twice(self):
        with pytest.raises(RuntimeError, match="expected off"):
            self.bench.supervisor.start(self.bench.now, self.bench.sound())

    @precondition(lambda self: self.mode not in STIFF)
    @rule()
    def activate_and_rise(self):
        if self.mode is Mode.FAULT:
            self.bench.ask("reset")
        bench, spec = self.bench, self.bench.spec
        near = np.clip(bench.position, spec.limits.lower, spec.limits.upper)
        bench.position = near
        bench.start(bench.sound())
        for _ in range(60):
            bench.tick(DT, bench.sound(), command(spec))
            if self.mode is not Mode.SOFT_START:
                break

    @rule(ticks=st.integers(1, 12), data=st.data())
    def run(self, ticks, data):
        """Sound ticks with one wish of the policy."""
        wish = data.draw(commands(self.bench.spec))
        for _ in range(ticks):
            self.bench.tick(self.bench.step, self.bench.sound(), wish)

    @rule(ticks=st.integers(1, 4))
    def hesitate(self, ticks):
        for _ in range(ticks):
            self.bench.tick(self.bench.step, self.bench.sound(), None)

    @rule(ticks=st.integers(1, 6), what=st.sampled_from(["velocity", "torque"]),
          share=st.sampled_from([0.95, 1.05, 1.25, 1.95]), joint=st.integers(0, 99))  # fmt: skip
    def exceed(self, ticks, what, share, joint):
        for _ in range(ticks):
            state = self.bench.sound()
            most = getattr(self.bench.spec.limits, what)
            getattr(state, what)[joint % len(most)] = -share * most[joint % len(most)]
            self.bench.tick(DT, state, command(self.bench.spec))

    @rule(ticks=st.integers(1, 8), none=st.booleans())
    def freeze(self, ticks, none):
        state = self.bench.sound()
        for _ in range(ticks):
            again = None if none else Measured(**{k: np.copy(v) if isinstance(v, np.ndarray) else v
                                                  for k, v in vars(state).items()})  # fmt: skip
            self.bench.tick(DT, again, command(self.bench.spec))

    @rule(data=st.data(), pause=pauses)
    def anything(self, data, pause):
        state, wish = data.draw(states(self.bench)), data.draw(wishes(self.bench.spec))
        self.bench.tick(self.bench.step if pause is None else pause, state, wish)

    @rule(reason=st.sampled_from(["asked", ""]))
    def stop(self, reason):
        self.bench.ask("stop", reason)

    @rule(reason=st.sampled_from(["asked", "", None]))
    def fault(self, reason):
        self.bench.ask("fault", reason)

    @rule()
    def reset(self):
        self.bench.ask("reset")


@every_robot
def test_a_life_of_any_order(name):
    machine = type(f"Life_{name}", (Life,), {"name": name})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=25, stateful_step_count=25, **REPEATABLE)
    )
