"""The barrier filter: its laws, a search for contact, and faults that the search has to find."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from unittest.mock import patch

import barrier_search
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motoric.control import barrier, certificate
from motoric.control.barrier import Barrier, Bodies, agents_near, filtered
from motoric.control.certificate import (
    AccelerationControl,
    Promise,
    VelocityControl,
    holds,
    stopping_distance,
    strayed,
)
from motoric.control.command import MotorCommand
from motoric.control.convex import separation
from motoric.control.filters import Context, Fault
from motoric.control.neighbours import neighbours
from motoric.control.qp import project_compiled
from motoric.control.second_order import textbook
from motoric.control.unicycle import drive, grown_radius, point_ahead

VELOCITY = VelocityControl(dt=0.05, speed=1.0)
ACCELERATION = AccelerationControl(dt=0.05, speed=1.5, acceleration=2.0, braking=1.5)
BOTH = pytest.mark.parametrize(
    "dynamics", [VELOCITY, ACCELERATION], ids=["velocity", "acceleration"]
)


def crowd(dynamics, n=60, seed=0, spread=4.0):
    """Agents that touch nobody, moving as they may: position, velocity, neighbours."""
    random = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(n)))
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)[:n]
    position = grid * spread / side + random.uniform(-0.1, 0.1, (n, 2))
    velocity = random.normal(size=(n, 2)) * 0.05 * isinstance(dynamics, AccelerationControl)
    return position, velocity, neighbours(position, 2.0)


def moved(dynamics, position, velocity, u, share=1.0):
    t = share * dynamics.dt
    if isinstance(dynamics, VelocityControl):
        return position + u * t, u
    return position + velocity * t + 0.5 * u * t * t, velocity + u * t


def gaps(position, radius):
    way = np.linalg.norm(position[:, None] - position, axis=-1) - 2 * radius
    np.fill_diagonal(way, np.inf)
    return way


# -- the search --------------------------------------------------------------------------------


@pytest.mark.parametrize("dt", [0.1, 0.05])
@pytest.mark.parametrize("name", ["velocity", "acceleration"])
def test_search_finds_no_contact_and_no_command_outside_limits(name, dt):
    found = barrier_search.search(name, dt, 120_000, seed=round(dt * 100))
    assert not found.contact, found
    assert found.over < 1e-9, found
    assert found.changed > 0.5 * found.steps, "the adversary does not press"


def usual_segments(own, body):
    """Nearest points of two segments by clamped line parameters, as it is usually written."""
    if own.shape[1] == 1 or body.shape[2] > 2:
        return separation(own, body)
    p, q = own[:, None, 0], body[:, :, 0]
    d, e, r = own[:, None, 1] - p, body[:, :, -1] - q, p - q
    dd, ee, de = np.sum(d * d, -1), np.sum(e * e, -1), np.sum(d * e, -1)
    dr, er = np.sum(d * r, -1), np.sum(e * r, -1)
    determinant = dd * ee - de * de
    oblique = determinant > 1e-9
    s = np.where(oblique, (de * er - dr * ee) / np.where(oblique, determinant, 1), 0).clip(0, 1)
    t = (de * s + er) / np.maximum(ee, 1e-300)
    end = np.where(t > 1, (de - dr) / np.maximum(dd, 1e-300), -dr / np.maximum(dd, 1e-300))
    s = np.where((t < 0) | (t > 1) | (ee == 0), end.clip(0, 1), s)
    way = r + s[..., None] * d - t.clip(0, 1)[..., None] * e
    distance = np.linalg.norm(way, axis=-1)
    normal = way / distance[..., None]
    near = np.einsum("nki,npi->nkp", normal, own).min(axis=-1)
    return normal, near, near - distance


def unchecked(dynamics, velocity, proposal, safe, promise):
    lost = np.isnan(proposal[:, :1])
    return np.where(lost, safe, proposal), np.ones(len(proposal))


FAULTS = {
    "stopping distance v^2/2a": (
        certificate,
        "stopping_distance",
        lambda v, a, dt: v * v / (2 * a),
    ),
    "no check": (barrier, "_drawn_back", unchecked),
    "gain above 1/dt": (barrier, "highest_gain", lambda dt: 2.5 / dt),
    "usual segment formula": (barrier, "separation", usual_segments),
    "noticed too late": (barrier, "sensing_radius", lambda dynamics, radius: 2 * radius + 0.1),
}
VELOCITY_TOO = {"gain above 1/dt", "noticed too late"}


@pytest.mark.parametrize("fault", FAULTS)
def test_search_finds_every_deliberate_fault(fault):
    with patch.object(*FAULTS[fault]):
        for name in ["acceleration", "velocity"] if fault in VELOCITY_TOO else ["acceleration"]:
            found = barrier_search.Found()
            for seed in range(8):
                found = barrier_search.search(name, 0.1, 60_000, seed)
                if found.contact:
                    break
            assert found.contact, f"{name}: {found}"


def test_the_textbook_barrier_fails():
    """Eight agents swap places on a circle: small gains find no command, larger ones collide."""
    dt, most, contact, contradiction = 0.1, 1.0, {}, {}
    for gain in (1.0, 4.0, 8.0):
        angle = np.linspace(0, 2 * np.pi, 8, endpoint=False) + 0.01 * np.arange(8)
        p = 3 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        goal, v, least, none = -p, np.zeros((8, 2)), np.inf, 0.0
        for _ in range(300):
            wish = np.clip(goal - p, -1, 1) - 1.5 * v
            index = neighbours(p, 10.0)
            u, contradicted = textbook(p, v, 0.2, wish, index, gain, gain, most)
            assert (np.linalg.norm(u, axis=-1) <= most + 1e-9).all()
            none += contradicted.mean() / 300
            p, v = p + v * dt + 0.5 * u * dt * dt, v + u * dt
            v *= np.minimum(1, 1.5 / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9))
            least = min(least, gaps(p, 0.2).min())
        contact[gain], contradiction[gain] = least, none
    assert contact[8.0] < -0.01
    assert contradiction[1.0] > 0.01


# -- its laws ----------------------------------------------------------------------------------


@BOTH
def test_a_safe_wish_is_left_alone_to_the_bit(dynamics):
    position, velocity, index = crowd(dynamics)
    near = [agents_near(dynamics, position, velocity, 0.1, index, 1.0)]
    wish = np.random.default_rng(1).normal(size=position.shape) * 0.02
    outcome = filtered(dynamics, position, velocity, 0.1, wish, near)
    same = (outcome.command == wish).all(axis=1)
    assert same.mean() > 0.5
    again = filtered(dynamics, position, velocity, 0.1, outcome.command, near)
    np.testing.assert_array_equal(again.command, outcome.command)
    nobody = filtered(dynamics, position, velocity, 0.1, wish, [])
    np.testing.assert_array_equal(nobody.command, wish)
    assert (nobody.gap == np.inf).all()


@BOTH
def test_with_no_gain_nobody_comes_nearer(dynamics):
    position, velocity, _ = crowd(dynamics, seed=2)
    velocity, random = 0 * velocity, np.random.default_rng(3)
    before = gaps(position, 0.1)
    for _ in range(60):
        index = neighbours(position, 10.0)
        near = [agents_near(dynamics, position, velocity, 0.1, index, 0.0)]
        wish = random.normal(size=position.shape) * dynamics.limit
        u = filtered(dynamics, position, velocity, 0.1, wish, near).command
        position, velocity = moved(dynamics, position, velocity, u)
        after = gaps(position, 0.1)
        hulls = position[:, None] + dynamics.hull(velocity)
        if isinstance(dynamics, VelocityControl):
            assert (after >= before - 1e-9).all()
        else:  # braking segments don't; who was moving may
            assert (after > 0).all()
        before = after
    assert np.isfinite(hulls).all()


@given(st.floats(0, 30), st.floats(1e-3, 3.0))
@settings(max_examples=50, deadline=None)
def test_head_on_the_gap_shrinks_by_its_gain_exactly(gain, gap):
    position = np.array([[0.0, 0.0], [0.4 + gap, 0.0]])
    index, rest = np.array([[1], [0]]), np.zeros((2, 2))
    dynamics = VelocityControl(dt=0.05, speed=1e3)
    near = [agents_near(dynamics, position, rest, 0.2, index, gain)]
    wish = np.array([[900.0, 0.0], [-900.0, 0.0]])
    u = filtered(dynamics, position, rest, 0.2, wish, near).command
    after = np.diff(position[:, 0] + u[:, 0] * 0.05)[0] - 0.4 - barrier.MARGIN
    kept = 1 - min(gain, 20) * 0.05
    assert after == pytest.approx(kept * (gap - barrier.MARGIN), abs=1e-9)


@BOTH
def test_gains_of_any_kind(dynamics):
    """No number counts as 1, and what is out of range as its end."""
    position, velocity, index = crowd(dynamics)
    wish = np.random.default_rng(0).normal(size=position.shape) * 2

    def of(gain):
        near = agents_near(dynamics, position, velocity, 0.1, index, gain)
        return filtered(dynamics, position, velocity, 0.1, wish, [near]).command

    assert (of(0.0) != of(1.0)).any()
    for wild, tame in ((np.nan, 1.0), (np.inf, 20.0), (1e300, 20.0), (-np.inf, 0.0), (-1.0, 0.0)):
        np.testing.assert_array_equal(of(wild), of(tame))


@BOTH
def test_the_world_has_no_preferred_place_direction_or_agent(dynamics):
    position, velocity, index = crowd(dynamics)
    random = np.random.default_rng(0)
    wish, gain = random.normal(size=position.shape) * 2, random.uniform(0, 20, (len(position), 1))

    def command(position, velocity, index, wish, gain):
        near = agents_near(dynamics, position, velocity, 0.1, index, gain)
        return filtered(dynamics, position, velocity, 0.1, wish, [near]).command

    u = command(position, velocity, index, wish, gain)
    c, s = np.cos(0.7), np.sin(0.7)
    turn = np.array([[c, s], [-s, c]])
    turned = command(position @ turn + [5.0, -3.0], velocity @ turn, index, wish @ turn, gain)
    np.testing.assert_allclose(turned, u @ turn, atol=1e-7)
    order = random.permutation(len(position))
    at = neighbours(position[order], 2.0)
    permuted = command(position[order], velocity[order], at, wish[order], gain[order])
    np.testing.assert_allclose(permuted, u[order], atol=1e-9)


@BOTH
def test_numba_proposes_the_same(dynamics):
    pytest.importorskip("numba")
    position, velocity, index = crowd(dynamics, 400)
    wish = np.random.default_rng(0).normal(size=position.shape) * 2
    near = [agents_near(dynamics, position, velocity, 0.1, index, 2.0)]
    ours, theirs = (
        filtered(dynamics, position, velocity, 0.1, wish, near, **how)
        for how in ({}, {"solve": project_compiled})
    )
    np.testing.assert_allclose(theirs.command, ours.command, atol=1e-12)


def test_any_solver_may_propose():
    """What it says is checked: it can be wrong, or nothing at all."""
    random = np.random.default_rng(0)

    def wrong(wish, normals, offsets, radius):
        found = random.normal(size=wish.shape) * 2 * radius
        found[::5] = np.nan
        return found

    for name in ("velocity", "acceleration"):
        found = barrier_search.search(name, 0.1, 30_000, seed=0, solve=wrong)
        assert not found.contact
        assert found.over < 1e-9


# -- the certificate ---------------------------------------------------------------------------


@given(st.floats(0, 3), st.floats(0.2, 5), st.floats(0.01, 0.2))
@settings(max_examples=200, deadline=None)
def test_stopping_distance_is_that_of_simulated_braking(speed, braking, dt):
    dynamics = AccelerationControl(dt, 10.0, braking, braking)
    position, velocity = np.zeros((1, 2)), np.array([[speed, 0.0]])
    steps = 0
    while velocity.any() and steps < 10_000:
        u = dynamics.brake(velocity)
        assert np.linalg.norm(u) <= braking * (1 + 1e-12)
        before = dynamics.hull(velocity)
        assert strayed(before, dynamics.hull_after(velocity, u)) < 1e-12
        position, velocity = moved(dynamics, position, velocity, u)
        velocity[np.abs(velocity) < 1e-13] = 0
        steps += 1
    assert position[0, 0] == pytest.approx(
        stopping_distance(np.array(speed), braking, dt), rel=1e-12, abs=1e-12
    )
    assert position[0, 0] >= speed**2 / (2 * braking) - 1e-12


@BOTH
def test_braking_always_passes_and_a_billionth_too_far_never(dynamics):
    random, n = np.random.default_rng(0), 20_000
    velocity = random.normal(size=(n, 2)) * 0.5 * isinstance(dynamics, AccelerationControl)
    angle = random.uniform(0, 2 * np.pi, (n, 6))
    normal = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    support = np.einsum("nki,npi->nkp", normal, dynamics.hull(velocity)).min(axis=-1)
    promise = Promise(normal, support - 1e-10, np.full(n, 1e-10))
    brake = dynamics.brake(velocity)
    assert holds(dynamics, velocity, brake, promise).all()
    u = brake + random.normal(size=(n, 2)) * 0.1
    reach = np.einsum("nki,npi->nkp", normal, dynamics.hull_after(velocity, u)).min(axis=-1)
    free, inside = np.full(n, np.inf), dynamics.within_limits(velocity, u)
    assert inside.sum() > 100
    exact, beyond = Promise(normal, reach - 1e-12, free), Promise(normal, reach.copy(), free)
    np.testing.assert_array_equal(holds(dynamics, velocity, u, exact), inside)
    beyond.bound[np.arange(n), random.integers(0, 6, n)] += 1e-9
    assert not holds(dynamics, velocity, u, beyond).any()
    way = strayed(dynamics.hull(velocity), dynamics.hull_after(velocity, u))
    nothing = np.full((n, 6), -np.inf)
    kept = holds(dynamics, velocity, u, Promise(normal, nothing, way))
    np.testing.assert_array_equal(kept, inside)
    assert not holds(dynamics, velocity, u, Promise(normal, nothing, way - 1e-9)).any()
    assert not holds(dynamics, velocity, u * np.nan, exact).any()


def test_linearisation_is_the_derivative():
    random = np.random.default_rng(0)
    velocity, u = random.normal(size=(50, 2)), random.normal(size=(50, 2))
    velocity[0], u[0] = 0, 0
    for dynamics in (VELOCITY, ACCELERATION):
        for i in range(2):
            step = np.zeros(2)
            step[i] = 1e-6
            ahead, back = (dynamics.hull_after(velocity, u + s * step) for s in (1, -1))
            column = dynamics.jacobian(velocity, u)[..., i]
            np.testing.assert_allclose((ahead - back) / 2e-6, column, atol=1e-6)


@given(st.integers(0, 10**6), st.sampled_from([1, 2]), st.sampled_from([1, 2, 3, 4]))
@settings(max_examples=60, deadline=None)
def test_separation_is_the_distance_of_hulls(seed, mine, theirs):
    random = np.random.default_rng(seed)
    own = random.normal(size=(5, mine, 2))
    angle = np.sort(random.uniform(0, 2 * np.pi, (5, 3, theirs)), axis=-1)
    body = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * 0.8  # convex, in turn
    body = body + random.normal(size=(5, 3, 1, 2)) * 2.5
    normal, near, far = separation(own, body)
    np.testing.assert_allclose(np.linalg.norm(normal, axis=-1), 1, atol=1e-12)
    weights = (
        random.dirichlet(np.full(mine, 0.3), 3000),
        random.dirichlet(np.full(theirs, 0.3), 3000),
    )
    a, b = np.einsum("sp,npi->nsi", weights[0], own), np.einsum("sv,nkvi->nksi", weights[1], body)
    sampled = np.linalg.norm(a[:, None] - b, axis=-1).min(axis=-1)
    assert (near - far <= sampled + 1e-12).all(), "more than a distance that there is"
    apart = sampled > 0.5
    ways = np.linspace(0, 2 * np.pi, 20_000)
    ways = np.stack([np.cos(ways), np.sin(ways)], axis=-1)
    low = np.einsum("wi,npi->nwp", ways, own).min(axis=-1)[:, None]
    high = np.einsum("wi,nkvi->nkwv", ways, body).max(axis=-1)
    best = (low - high).max(axis=-1)  # over all directions: the distance, where that is positive
    assert (near - far >= best - 1e-12)[apart].all(), "less than another direction proves"
    np.testing.assert_allclose((near - far)[apart], best[apart], atol=1e-3)


# -- what it meets -----------------------------------------------------------------------------


def test_a_slower_stranger_never_reaches_a_velocity_controlled_agent():
    """It does not run the filter; the agent gives way, walls allowing."""
    rest, position, stranger = np.zeros((1, 2)), np.zeros((1, 2)), np.array([2.0, 0.3])
    least = np.inf
    for _ in range(400):
        body = Bodies(stranger[None, None, None], 0.2, 4.0, share=1.0, speed=0.6)
        u = filtered(VELOCITY, position, rest, 0.2, np.array([[1.0, 0.0]]), [body]).command
        stranger = stranger + 0.05 * 0.6 * (position[0] - stranger) / np.linalg.norm(
            position[0] - stranger
        )
        position = position + 0.05 * u
        least = min(least, np.linalg.norm(position[0] - stranger) - 0.4)
    assert least >= 0
    assert np.linalg.norm(position) > 1, "it was driven off"


@BOTH
@pytest.mark.parametrize("doubt", [0.0, 0.025])
def test_pictures_that_differ(dynamics, doubt):
    """Everybody sees the others up to 25 mm off, anew each tick: safe if that is known. One who
    believes what it sees is not."""
    random, least = np.random.default_rng(0), np.inf
    for _ in range(3):
        position, velocity, _ = crowd(dynamics, 25, seed=4, spread=3.0)
        velocity = 0 * velocity
        for _ in range(150):
            index = neighbours(position, 5.0)
            near = agents_near(dynamics, position, velocity, 0.1, index, 20.0)
            off = random.normal(size=(*index.shape, 1, 2))
            off *= 0.025 / np.linalg.norm(off, axis=-1, keepdims=True)
            near = dataclasses.replace(near, points=near.points + off, doubt=doubt)
            wish = -position * 5
            u = filtered(dynamics, position, velocity, 0.1, wish, [near]).command
            position, velocity = moved(dynamics, position, velocity, u)
            least = min(least, gaps(position, 0.1).min())
    assert (least >= 0) == (doubt > 0)


def test_an_obstacle_in_doubt_is_passed_but_not_touched():
    random, position, rest = np.random.default_rng(0), np.array([[-2.0, -0.5]]), np.zeros((1, 2))
    wall = np.array([[0.0, -1.0], [0.0, -0.3]])
    for _ in range(300):
        seen = wall + random.uniform(-1, 1, 2) * 0.01
        body = Bodies(seen[None, None], 0.05, 5.0, doubt=0.02)
        wish = np.array([[1.0, 0.3]])
        u = filtered(VELOCITY, position, rest, 0.2, wish, [body]).command
        position = position + 0.05 * u
        t = np.clip(position[0, 1], -1.0, -0.3)
        assert np.hypot(position[0, 0], position[0, 1] - t) - 0.25 >= 0
    assert position[0, 0] > 1


def test_a_velocity_box_in_the_robots_frame():
    """As of a walking robot: 0.4 m/s sideways, 0.6 backwards."""
    random = np.random.default_rng(0)
    low, high, yaw = np.array([-0.6, -0.4]), np.array([1.0, 0.4]), random.uniform(-3, 3, 500)
    fence = barrier.velocity_box(low, high, yaw, VELOCITY.dt)
    position, rest = random.normal(size=(500, 2)) * 5, np.zeros((500, 2))
    body = Bodies(position[:, None, None] + [0.5, 0.0], 0.2, 1.0)
    wish = random.normal(size=(500, 2)) * 2
    u = filtered(VELOCITY, position, rest, 0.2, wish, [body], fence).command
    c, s = np.cos(yaw), np.sin(yaw)
    local = np.stack([c * u[:, 0] + s * u[:, 1], c * u[:, 1] - s * u[:, 0]], axis=-1)
    assert (local >= low - 1e-8).all()
    assert (local <= high + 1e-8).all()
    assert (u[:, 0] <= 0.1 + 1e-8).all()
    assert (np.abs(local - low) < 1e-7).any(axis=0).all()
    with pytest.raises(ValueError, match="expected 0 among them"):
        barrier.velocity_box(np.array([0.1, 0]), high, yaw, 0.05)


@BOTH
def test_what_is_no_world_is_refused(dynamics):
    here, rest = np.zeros((1, 2)), np.zeros((1, 2))
    disc = Bodies(np.array([[[[1.0, 0.0]]]]), 0.2, 1.0)
    touching = filtered(dynamics, here, rest, 0.8, np.array([[1.0, 1.0]]), [disc])
    assert touching.command[0, 0] <= 0
    assert touching.gap == pytest.approx(0)
    overlapping = filtered(dynamics, here, rest, 0.9, np.array([[1.0, 0.0]]), [disc])
    assert overlapping.command[0, 0] <= 0
    nowhere = filtered(dynamics, here, rest, 0.2, np.array([[np.nan, 1.0]]), [disc])
    np.testing.assert_array_equal(nowhere.command, dynamics.brake(rest))
    with pytest.raises(ValueError, match="coincides"):
        filtered(dynamics, here, rest, 0.2, rest, [Bodies(np.zeros((1, 1, 1, 2)), 0.2, 1.0)])
    with pytest.raises(ValueError, match="no finite position"):
        filtered(dynamics, here, rest, 0.2, rest, [Bodies(np.full((1, 1, 1, 2), np.nan), 0.2, 1.0)])
    absent = Bodies(np.full((1, 1, 1, 2), np.nan), 0.2, 1.0, present=np.zeros((1, 1), bool))
    wish = np.array([[0.5, 0.0]])
    np.testing.assert_array_equal(filtered(dynamics, here, rest, 0.2, wish, [absent]).command, wish)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="dt is 0, expected a positive number"):
        VelocityControl(0, 1.0)
    with pytest.raises(ValueError, match=r"braking 3\.0, expected at most the acceleration 2.0"):
        AccelerationControl(0.1, 1.0, 2.0, 3.0)


# -- the filter --------------------------------------------------------------------------------


def planar(position, velocity):
    return SimpleNamespace(position=np.array(position), velocity=np.array(velocity))


def command(velocity=(0.0, 0.0), torque=(0.0, 0.0), kp=(0.0, 0.0), kd=(5.0, 5.0)):
    return MotorCommand(np.zeros(2), *(np.array(a, np.float64) for a in (velocity, kp, kd, torque)))


def test_filter_of_a_planar_robot():
    wall = Bodies(np.array([[[[1.0, -3.0], [1.0, 3.0]]]]), 0.1, 2.0)
    context = Context(command(), 0.05)
    by_velocity = Barrier(VELOCITY, 0.3, lambda state: [wall])
    sent = by_velocity(planar([0.5, 0.0], [0.0, 0.0]), command(velocity=[1.0, 0.3]), context)
    np.testing.assert_allclose(sent.velocity, [2.0 * (0.1 - barrier.MARGIN), 0.3], atol=1e-8)
    np.testing.assert_array_equal(sent.kd, [5.0, 5.0])
    by_force = Barrier(ACCELERATION, 0.3, lambda state: [wall], mass=10.0)
    position, velocity = np.zeros(2), np.zeros(2)
    for _ in range(200):
        sent = by_force(planar(position, velocity), command(torque=[50.0, 0.0], kd=[0, 0]), context)
        u = sent.torque / 10
        assert np.linalg.norm(u) <= 2.0 + 1e-8
        position, velocity = position + velocity * 0.05 + u * 0.00125, velocity + u * 0.05
        assert position[0] <= 0.6
    assert position[0] == pytest.approx(0.6, abs=1e-2)
    free = Barrier(VELOCITY, 0.3, lambda state: [])
    wish = command(velocity=[0.2, 0.1])
    np.testing.assert_array_equal(
        free(planar([0, 0.0], [0, 0.0]), wish, context).velocity, [0.2, 0.1]
    )


def test_filter_says_what_it_cannot_make_safe():
    free = Barrier(ACCELERATION, 0.3, lambda state: [])
    here, context = planar([0.0, 0.0], [0.0, 0.0]), Context(command(), 0.05)
    for bad, says in (
        ((here, command(kp=[5, 5]), context), "kp is 5, expected no position target"),
        ((here, command(), Context(command(), 0.1)), r"0\.1 s since .* expected 0\.05 s"),
        ((here, command(), Context(command(), 0.002)), r"0\.002 s since .* expected 0\.05 s"),
        ((planar([np.nan, 0.0], [0.0, 0.0]), command(), context), "not finite"),
    ):
        with pytest.raises(Fault, match=f"barrier: .*{says}"):
            free(*bad)
    faster = Barrier(VELOCITY, 0.3, lambda state: [])
    faster(here, command(), Context(command(), 0.002))


# -- neighbours and unicycles ------------------------------------------------------------------


@given(st.integers(0, 10**6), st.integers(0, 80), st.floats(0.05, 30), st.booleans())
@settings(max_examples=100, deadline=None)
def test_neighbours_are_all_within_the_radius(seed, n, radius, worlds):
    random = np.random.default_rng(seed)
    position = random.normal(size=(n, 2)) * random.choice([0.1, 1, 100])
    world = random.integers(0, 4, n) if worlds else None
    index = neighbours(position, radius, world)
    for i in range(n):
        near = np.linalg.norm(position - position[i], axis=-1) <= radius
        near[i] = False
        if world is not None:
            near &= world == world[i]
        assert sorted(index[i][index[i] >= 0]) == np.flatnonzero(near).tolist()
    assert index.shape[1] == ((index >= 0).sum(axis=1).max() if n else 0)


def test_neighbours_of_what_is_nowhere_are_refused():
    with pytest.raises(ValueError, match="non-finite"):
        neighbours(np.array([[0.0, np.nan], [1.0, 1.0]]), 1.0)
    with pytest.raises(ValueError, match="radius -1"):
        neighbours(np.zeros((2, 2)), -1)


def test_a_unicycles_point_moves_as_asked():
    random, ahead, dt = np.random.default_rng(0), 0.1, 0.05
    yaw, axle = random.uniform(-3, 3, 2000), random.normal(size=(2000, 2))
    u = random.normal(size=(2000, 2))
    u *= random.uniform(0, 1, (2000, 1)) / np.linalg.norm(u, axis=-1, keepdims=True)
    v, w = drive(u, yaw, ahead, dt)

    def point(v, w, t):
        """Of the exact arc, by its closed form."""
        chord, middle = v * t * np.sinc(w * t / 2 / np.pi), yaw + w * t / 2
        moved = axle + chord[:, None] * np.stack([np.cos(middle), np.sin(middle)], axis=-1)
        return point_ahead(moved, yaw + w * t, ahead)

    begin = point_ahead(axle, yaw, ahead)
    np.testing.assert_allclose(point(v, w, dt), begin + u * dt, atol=1e-12)
    way = u / np.linalg.norm(u, axis=-1, keepdims=True)
    extra = grown_radius(0.2, ahead, 1.0, dt) - 0.2 - ahead
    for t in np.linspace(0, dt, 11):
        off = point(v, w, t) - begin
        beside = np.abs(off[:, 0] * way[:, 1] - off[:, 1] * way[:, 0])
        assert (beside <= extra).all()
    assert extra < 0.004
    c, s = np.cos(yaw), np.sin(yaw)
    usual = c * u[:, 0] + s * u[:, 1], (c * u[:, 1] - s * u[:, 0]) / ahead
    assert np.linalg.norm(point(*usual, dt) - begin - u * dt, axis=-1).max() > 0.01
    with pytest.raises(ValueError, match="unicycle"):
        drive(np.array([[3.0, 0.0]]), np.zeros(1), 0.1, 0.05)
