"""What a policy sees and how its action becomes a command: the same for one robot and for many."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motoric.hardware.fields import plain
from motoric.hardware.goals import Part, at_rest, checked
from motoric.hardware.interfaces.base import Metric
from motoric.hardware.interfaces.impedance import Impedance
from motoric.hardware.interfaces.joint_targets import JointTargets
from motoric.hardware.interfaces.terms import Term, projected_gravity
from motoric.hardware.measured import Measured, measured_by
from motoric.hardware.registry import INTERFACES
from motoric.hardware.robot import RobotState, Sensor
from motoric.hardware.specs.go2 import GO2

from ...conftest import GO2_INTERFACE, VELOCITY

GOLDEN = {
    k: np.array(v)
    for k, v in json.loads((Path(__file__).parent / "go2_golden.json").read_text()).items()
}
ARM = dataclasses.replace(
    GO2, kp_max=np.full(12, 80.0), kd_max=np.full(12, 4.0),
    sensors=(Sensor("wrist_force", (3,), unit="N"),),
)  # fmt: skip
TIP = Part("tip", ("x", "y", "z"), ("m", "m", "m"), (0.1, -0.3, 0.0), (0.5, 0.3, 0.5))
TEXT = Part("instruction", ("text",), ("text",), (0,), (20,))
IMPEDANCE = Impedance(
    ARM, 50.0,
    (Term("joint_position", 12), Term("goal.tip", 3), Term("sensor.wrist_force", 3, 0.1)),
    (0.5,) * 12, goals=(TIP,),
)  # fmt: skip


def measured(rows: int, seed: int = 0, **given) -> Measured:
    rng = np.random.default_rng(seed)
    orientation = rng.normal(size=(rows, 4))
    values = {
        "time": rng.uniform(0, 20, rows),
        "position": rng.normal(size=(rows, 12)),
        "velocity": rng.normal(size=(rows, 12)),
        "torque": rng.normal(size=(rows, 12)),
        "orientation": orientation / np.linalg.norm(orientation, axis=1, keepdims=True),
        "angular_velocity": rng.normal(size=(rows, 3)),
        "base_position": rng.normal(size=(rows, 3)),
        "base_velocity": rng.normal(size=(rows, 3)),
        "sensors": {"wrist_force": rng.normal(size=(rows, 3))},
    }
    return Measured(**values | given)


def test_a_go2_sees_and_does_what_it_did_before_interfaces():
    """Golden numbers, computed by the code that walked before."""
    rows = len(GOLDEN["phase"])
    names = ("orientation", "angular_velocity", "position", "velocity")
    seen = measured(rows, time=np.zeros(rows), **{name: GOLDEN[name] for name in names})
    memory = {"action": GOLDEN["action"], "phase": GOLDEN["phase"]}
    goal = {"velocity": GOLDEN["goal"]}
    found = GO2_INTERFACE.observe(seen, goal, memory)["observation"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, GOLDEN["observation"], rtol=0, atol=1e-6)
    # The clock goes on with the time since the policy began.
    later = dataclasses.replace(seen, time=np.full(rows, 0.1))
    memory["phase"] = GOLDEN["phase"] - 0.1 * GO2_INTERFACE.gait_frequency
    found = GO2_INTERFACE.observe(later, goal, memory)["observation"]
    np.testing.assert_allclose(found, GOLDEN["observation"], rtol=0, atol=1e-6)

    command, memory = GO2_INTERFACE.command(GOLDEN["carried_out"], seen, goal, memory)
    np.testing.assert_allclose(command.position, GOLDEN["wish"], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(memory["action"], GOLDEN["carried_out"].clip(-1, 1))
    assert command.kp.shape == command.torque.shape == (rows, 12)
    np.testing.assert_array_equal(command.kp[0], GO2.kp)
    np.testing.assert_array_equal(command.kd[-1], GO2.kd)
    assert not command.velocity.any()
    assert not command.torque.any()


@pytest.mark.parametrize("interface", [GO2_INTERFACE, IMPEDANCE], ids=lambda i: i.name)
def test_one_row_is_a_row_of_many(interface):
    """What the robot computes is what training computes: bit for bit, whatever the others do."""
    rows, rng = 1000, np.random.default_rng(0)
    many = measured(rows)
    goal = {p.name: rng.uniform(p.low, p.high, (rows, len(p.names))) for p in interface.goals}
    for array in goal.values():
        array *= rng.integers(0, 2, (rows, 1))
    size = len(interface.action_low)
    memory = {"action": rng.uniform(-1, 1, (rows, size)), "phase": rng.uniform(size=rows)}
    action = rng.uniform(-1.5, 1.5, (rows, size))
    seen, (command, after) = (
        interface.observe(many, goal, memory), interface.command(action, many, goal, memory),
    )  # fmt: skip
    for i in range(0, rows, 7):
        row = slice(i, i + 1)
        one, asked = many.rows(row), {k: v[row] for k, v in goal.items()}
        mine = {k: v[row] for k, v in memory.items()}
        for name, value in interface.observe(one, asked, mine).items():
            np.testing.assert_array_equal(value, seen[name][row])
        single, then = interface.command(action[row], one, asked, mine)
        for quantity in ("position", "velocity", "kp", "kd", "torque"):
            np.testing.assert_array_equal(
                getattr(single, quantity), getattr(command, quantity)[row]
            )
        for name, value in then.items():
            np.testing.assert_array_equal(value, after[name][row])


def test_functions_are_pure():
    """They change nothing they are given, and give the same again."""
    many, goal = measured(4), {"velocity": np.full((4, 3), 0.3)}
    memory = GO2_INTERFACE.begin(4)
    action = np.full((4, 12), 2.0)
    before = json.dumps([str(vars(many)), str(goal), str(memory), str(action)])
    first = GO2_INTERFACE.observe(many, goal, memory)["observation"]
    GO2_INTERFACE.command(action, many, goal, memory)
    np.testing.assert_array_equal(GO2_INTERFACE.observe(many, goal, memory)["observation"], first)
    assert json.dumps([str(vars(many)), str(goal), str(memory), str(action)]) == before


def test_standing_stops_the_gait_clock():
    many = measured(300)
    rng = np.random.default_rng(0)
    goal = {"velocity": rng.normal(size=(300, 3)) * rng.integers(0, 2, (300, 1))}
    found = GO2_INTERFACE.observe(many, goal, GO2_INTERFACE.begin(300))["observation"][:, -2:]
    assert found.shape == (300, 2)
    still = (np.abs(goal["velocity"]) <= 0.05).all(1)
    assert 100 < still.sum() < 200
    np.testing.assert_array_equal((found == 0).all(1), still)
    assert projected_gravity(np.array([[1.0, 0, 0, 0]])).tolist() == [[0, 0, -1]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=24, max_size=24), st.floats(0.01, 1.0))
def test_impedance_stays_within_the_robots_gains(action, softest):
    interface = dataclasses.replace(IMPEDANCE, softest=softest)
    command, _ = interface.command(np.array([action]), measured(1), {}, interface.begin(1))
    slack = 1e-9
    assert (command.kp >= softest * ARM.kp_max - slack).all()
    assert (command.kp <= ARM.kp_max + slack).all()
    assert (command.kd <= ARM.kd_max + slack).all()
    # One damping ratio: kd^2 / kp is the same for every stiffness.
    np.testing.assert_allclose(command.kd**2 / command.kp, ARM.kd_max[None] ** 2 / ARM.kp_max)
    assert (np.abs(command.position - ARM.stand) <= 0.5 + slack).all()


def test_impedance_by_hand():
    action = np.concatenate([np.full(12, 0.4), np.full(12, 1.0)])[None]
    command, memory = IMPEDANCE.command(action, measured(1), {}, IMPEDANCE.begin(1))
    np.testing.assert_allclose(command.position[0], ARM.stand + 0.2)
    np.testing.assert_allclose(command.kp[0], 80.0)
    np.testing.assert_allclose(command.kd[0], 4.0)
    np.testing.assert_array_equal(memory["action"], action)
    action[:, 12:] = -1.0
    command, _ = IMPEDANCE.command(action, measured(1), {}, IMPEDANCE.begin(1))
    np.testing.assert_allclose(command.kp[0], 4.0)
    np.testing.assert_allclose(command.kd[0], 4.0 * np.sqrt(0.05))
    assert IMPEDANCE.action_low.shape == IMPEDANCE.action_high.shape == (24,)
    assert IMPEDANCE.sensors == ("wrist_force",)
    assert IMPEDANCE.inputs[0].shape == (18,)


@pytest.mark.parametrize("interface", [GO2_INTERFACE, IMPEDANCE], ids=lambda i: i.name)
def test_an_interface_comes_back_from_its_parameters(interface):
    text = json.dumps(interface.parameters())
    again = INTERFACES.find(interface.name).make(interface.robot, interface.rate, json.loads(text))
    for field in dataclasses.fields(interface):
        assert getattr(again, field.name) == getattr(interface, field.name) or (
            field.name == "robot"
        )
    many, goal = measured(3), at_rest(interface.goals, 3)
    memory = interface.begin(3)
    np.testing.assert_array_equal(
        again.observe(many, goal, memory)["observation"],
        interface.observe(many, goal, memory)["observation"],
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"terms": 3}, "terms: 3, expected a list"),
        ({"terms": [{"name": "action"}]}, r"terms\[0\].size: is missing"),
        ({"terms": [{"name": "action", "size": "12"}]}, r"size: '12', expected an integer"),
        ({"terms": [{"name": "action", "size": True}]}, "size: True, expected an integer"),
        ({"terms": [{"name": "action", "size": -1}]}, r"terms\[0\]: observation term 'action'"),
        ({"terms": [{"name": "smell", "size": 2}]}, "'smell': unknown, expected goal.PART"),
        ({"terms": [{"name": "goal.pose", "size": 2}]}, "goal.pose: needed, the goal has goal.vel"),
        ({"terms": [{"name": "action", "size": 2**20}] * 9}, "terms: 9437184 numbers, expected 1"),
        ({"terms": []}, "terms: 0 numbers, expected 1 to"),
        (
            {"goals": [plain(TEXT) | {"high": [1e12]}]},
            r"goals\[0\]: goal instruction: has more than 65536",
        ),
        ({"action_scale": [1.0]}, "action_scale: 1 numbers, go2 has 12 joints"),
        ({"action_limit": float("nan")}, "action_limit: nan, expected a finite number"),
        ({"action_limit": 0}, "action_limit: 0.0, expected a positive number"),
        ({"measures": ["beauty"]}, "metric 'beauty': unknown"),
        ({"robot": "go2"}, "'robot': unknown, expected one of terms"),
        ({"smell": 1}, "'smell': unknown, expected one of"),
        ({"goals": [list(VELOCITY.names)]}, r"goals\[0\]: a list of 3, expected an object"),
    ],
)
def test_parameters_that_do_not_fit_are_named(change, words):
    parameters = json.loads(json.dumps(GO2_INTERFACE.parameters())) | change
    with pytest.raises(ValueError, match=words) as error:
        JointTargets.make(GO2, 50.0, parameters)
    assert "\n" not in str(error.value)


def test_a_term_of_another_size_is_named():
    interface = dataclasses.replace(
        GO2_INTERFACE, terms=(Term("action", 11), Term("joint_velocity", 13))
    )
    with pytest.raises(ValueError, match=r"'action': size \(12,\), expected 11"):
        interface.observe(measured(2), {"velocity": np.zeros((2, 3))}, interface.begin(2))


# -- metrics ----------------------------------------------------------------------------------


def test_metrics_of_a_fall_and_a_walk():
    many = measured(
        3,
        orientation=np.array([[1.0, 0, 0, 0], [np.cos(0.6), np.sin(0.6), 0, 0], [1, 0, 0, 0]]),
        base_position=np.array([[0, 0, 0.3], [0, 0, 0.3], [0, 0, 0.1]]),
        base_velocity=np.array([[0.3, 0.4, 9.0], [0.5, 0, 0], [0, 0, 0]]),
    )
    goal = {"velocity": np.array([[0.3, 0, 5.0], [0.5, 0, 0], [1, 0, 0]])}
    found = GO2_INTERFACE.measure(many, goal)
    np.testing.assert_allclose(found["velocity_error"], [0.4, 0, 1])
    np.testing.assert_allclose(found["distance"], [0.5 / 50, 0.5 / 50, 0])
    np.testing.assert_array_equal(found["fell"], [0, 1, 1])
    assert list(found) == [m.name for m in GO2_INTERFACE.metrics]


def test_what_a_robot_does_not_measure_is_not_a_fall():
    zero = np.zeros(12)
    state = RobotState(0.0, 0, GO2.stand, zero, zero, np.array([1.0, 0, 0, 0]), np.zeros(3))
    found = GO2_INTERFACE.measure(measured_by(state, 0.5), {"velocity": np.zeros((1, 3))})
    assert np.isnan(found["velocity_error"][0])
    assert found["fell"][0] == 0
    assert measured_by(state, 0.5).time == 0.5


@pytest.mark.parametrize(
    ("over", "total", "nothing"),
    [("mean", 2, np.nan), ("max", 3, np.nan), ("sum", 6, 0), ("last", 1, np.nan), ("any", 1, 0)],
)
def test_steps_become_an_episode(over, total, nothing):
    metric = Metric("m", "", over)
    assert metric.total([2.0, 3.0, 1.0]) == total
    np.testing.assert_equal(metric.total([]), nothing)
    if over != "any":
        assert np.isnan(metric.total([1.0, np.nan]))


# -- goals ------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=8,
    )
)
def test_any_value_is_checked_or_refused_in_a_line(value):
    for part in (VELOCITY, TEXT):
        problem = part.problem(value)
        if problem is None:
            array = part.array(value)
            assert array.shape == part.shape
            if not part.is_text:
                assert (array >= part.low).all()
                assert (array <= part.high).all()
        else:
            assert "\n" not in problem
            with pytest.raises(ValueError, match="goal"):
                part.array(value)


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        (VELOCITY, [0, 0], "expected finite numbers"),
        (VELOCITY, ["0", "0", "0"], "velocity: "),
        (VELOCITY, [True, True, False], "velocity: "),
        (VELOCITY, [10**400, 0, 0], "velocity: "),
        (VELOCITY, [0, 0.41, 0], "left 0.41, the policy was trained for -0.4 to 0.4"),
        (TEXT, "é" * 11, "22 bytes, expected at most 20"),
        (TEXT, 5, "5, expected a text"),
    ],
)
def test_a_wrong_value_is_named(part, value, words):
    assert words in part.problem(value)


def test_parts_that_are_left_out_are_at_rest():
    goal = checked((VELOCITY, TIP, TEXT), {"velocity": [0.1, 0, 0], "instruction": "öffne"}, 2)
    np.testing.assert_array_equal(goal["velocity"], [[0.1, 0, 0]] * 2)
    np.testing.assert_array_equal(goal["tip"], [[0.1, 0, 0]] * 2)  # as near to zero as it may be
    assert goal["instruction"].shape == (2, 20)
    with pytest.raises(ValueError, match="expected a mapping with the parts velocity, tip"):
        checked((VELOCITY, TIP), [0.1, 0, 0])
