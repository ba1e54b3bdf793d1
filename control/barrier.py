"""Barrier filter: of all commands that keep clear of others and of obstacles, the one nearest to
the wish. For agents in the plane whose command is a velocity or an acceleration.

Every body near an agent gives a half-plane that the agent promises to stay within, hull and all
(`motoric.control.certificate`). How much of the free gap h it may use up in one step says its gain:

    normal . x  >=  near - share gain dt h       share 1/2: the other agent has the other half

Both gaps then shrink to no less than (1 - dt mean gain) h: never below zero for gains in
[0, 1 / dt], whatever they are, however they jump and differ, with no message and no agreement.
What a network says is clipped to that range, and 1 where it is no number.

A QP proposes, and float64 arithmetic of its own disposes: what fails the check is drawn towards
braking until it passes. Braking always does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from motoric.control.certificate import (
    AccelerationControl,
    Array,
    Dynamics,
    Mask,
    Promise,
    VelocityControl,
    holds,
    support,
)
from motoric.control.command import MotorCommand
from motoric.control.convex import separation
from motoric.control.filters import Context, Fault, State
from motoric.control.qp import least_violation, project
from numpy.typing import NDArray

MARGIN = 1e-6  # m, kept to every body for what rounding and the QP's tolerance add up to
TOLERANCE = 1e-10  # m a step, on a promise that a gain below the highest makes
SHRINK = 0.6  # of the way to braking that a command is drawn back by, each time it fails
TRIES = 8
JITTER = 0.05  # of the period, that a tick under acceleration control may be late or early
BLOCK = 2000  # agents at a time: what is known of them stays in the cache
LINEARISATIONS = 2  # of an acceleration's braking segment, for one command


@dataclass(frozen=True)
class Bodies:
    """What N agents have near them: for each K convex bodies, hulls of V points plus a radius.

    points [N, K, V, 2]: m, in the world, in turn around; a disc has one, a wall two, a box four
    radius: m · gain: 1 / s · [N, K] or what broadcasts to it
    share: of the gap, that this agent may use: 1/2 between two that both run this filter, else 1
    speed: m/s, what it moves at most where it does not run this filter. Against one that comes
        nearer the agent retreats while it can, which is no guarantee
    doubt: m, how far it may be from where it is said to be, in any direction
    present: bool [N, K], False where there is none and the rest is meaningless
    """

    points: Array
    radius: Array | float
    gain: Array | float
    share: Array | float = 1.0
    speed: Array | float = 0.0
    doubt: Array | float = 0.0
    present: Mask | None = None

    def rows(self, ids: slice) -> Bodies:
        """Of some agents only."""
        shape = self.points.shape[:2]
        values = {
            f.name: np.broadcast_to(value, shape)[ids]
            for f in dataclasses.fields(self)
            if f.name != "points" and (value := getattr(self, f.name)) is not None
        }
        return Bodies(self.points[ids], **values)


def agents_near(
    dynamics: Dynamics, position: Array, velocity: Array, radius: Array | float,
    index: NDArray[np.intp], gain: Array | float,
) -> Bodies:  # fmt: skip
    """The neighbours of N agents that all run this filter, as bodies.

    position, velocity: [N, 2]; radius: [N] or a number
    index: [N, K], which are whose neighbours, -1 for none (`motoric.control.neighbours`)
    gain: [N, K] or what broadcasts to it, of the one that acts
    """
    points = position[:, None] + dynamics.hull(velocity)
    radius = np.broadcast_to(radius, len(position))[index]
    return Bodies(points[index], radius, gain, share=0.5, present=index >= 0)


def sensing_radius(dynamics: Dynamics, radius: float) -> float:
    """How far off another agent may be noticed at the latest, centre to centre, m.

    radius: of the largest agent. Gains below the highest act from as far as agents are sensed.
    """
    fastest = np.array([[dynamics.speed, 0.0]])
    hull = dynamics.hull(fastest)
    return 2 * (radius + dynamics.speed * dynamics.dt + float(hull.max())) + 2 * MARGIN


def highest_gain(dt: float) -> float:
    """The gain with which the whole gap may be used up in one step, 1 / s."""
    return 1.0 / dt


def usable_gain(gain: Array | float, dt: float) -> Array:
    """Any numbers made gains: NaN is 1, the rest is clipped to [0, 1 / dt]."""
    gain = np.asarray(gain, np.float64)
    return np.clip(np.where(np.isnan(gain), 1.0, gain), 0.0, highest_gain(dt))


def promised(
    dynamics: Dynamics, position: Array, velocity: Array, radius: Array | float,
    bodies: Sequence[Bodies],
) -> tuple[Promise, Array, Array]:  # fmt: skip
    """What N agents must promise; the bounds [N, K] that are wished for; the gaps [N, K], m.

    A wished bound is above that of the promise where the agent should retreat.
    """
    n, dt = len(position), dynamics.dt
    hull = dynamics.hull(velocity)
    leash = np.full(n, np.inf)
    normals, bounds, wished, gaps = [np.empty((n, 0, 2))], *([np.empty((n, 0))] for _ in range(3))
    for group in bodies:
        shape = group.points.shape[:2]
        here = np.ones(shape, bool) if group.present is None else group.present
        points = group.points - position[:, None, None]
        points = points if group.present is None else np.where(here[..., None, None], points, 1e3)
        if not np.isfinite(points).all():
            row, which = np.argwhere(~np.isfinite(points))[0, :2]
            raise ValueError(f"barrier: agent {row} or its body {which} is at no finite position")
        normal, near, far = separation(hull, points)
        gap = near - far - np.reshape(radius, (-1, 1)) - group.radius - group.doubt
        wish = group.share * usable_gain(group.gain, dt) * np.maximum(gap - MARGIN, 0.0)
        most = group.share * highest_gain(dt) * np.maximum(gap - MARGIN / 2, 0.0)
        wish, most = dt * (wish - group.speed), dt * (most - group.speed)
        allowed = np.maximum(np.minimum(wish + TOLERANCE, most), 0.0)
        bound = near - allowed
        # Where pictures differ so may directions, and only the way itself can be bounded; where a
        # body is surely apart in one direction, and stays where it is, that one will do.
        doubtful = np.broadcast_to(group.doubt, shape) > 0
        doubtful = doubtful & here & ((np.asarray(group.share) < 1) | (allowed <= 0))
        if doubtful.any():
            leash = np.minimum(leash, np.where(doubtful, allowed, np.inf).min(axis=1))
        here = here & ~doubtful
        normals.append(normal)
        bounds.append(np.where(here, bound, -np.inf))
        wished.append(np.where(here, near - wish, -np.inf))
        gaps.append(np.where(here | doubtful, gap, np.inf))
    normal, bound, wish, gap = (np.concatenate(a, axis=1) for a in (normals, bounds, wished, gaps))
    return Promise(normal, bound, leash), wish, gap


@dataclass(frozen=True)
class Outcome:
    """command [N, 2]: what N agents should do
    kept [N]: share of the last proposal that passed the check, 1: all of it
    braked [N]: whether nothing but braking was left
    gap [N]: to the nearest body, m, inf where there is none
    """

    command: Array
    kept: Array
    braked: Mask
    gap: Array


def filtered(
    dynamics: Dynamics, position: Array, velocity: Array, radius: Array | float, wish: Array,
    bodies: Sequence[Bodies], fence: tuple[Array, Array] | None = None,
    solve: Callable[[Array, Array, Array, float], Array] = project,
) -> Outcome:  # fmt: skip
    """The safe commands nearest to the wishes of N agents, all from one snapshot of the world.

    position, velocity, wish: [N, 2], m, m/s, and the dynamics' unit; what is sensed, never what
    somebody said. A wish that is not finite brakes. radius: m, [N] or a number.
    fence: normal [N, R, 2] and bound [N, R] of more half-planes to be in after this step, relative
        to the agent's position, m; it must be inside
    solve: what proposes: `project` or `project_compiled`
    """
    if fence is not None and (fence[1] > 0).any():
        raise ValueError(f"barrier: a fence's bound is {fence[1].max()}, expected none above 0")
    position, velocity, wish = (
        np.asarray(a, np.float64).reshape(-1, 2) for a in (position, velocity, wish)
    )
    n = len(position)
    radius = np.broadcast_to(radius, (n,))
    outcome = Outcome(np.empty((n, 2)), np.empty(n), np.empty(n, bool), np.empty(n))
    for at in range(0, n, BLOCK):
        part = slice(at, at + BLOCK)
        found = _filtered(
            dynamics, position[part], velocity[part], radius[part], wish[part],
            [group.rows(part) for group in bodies],
            None if fence is None else (fence[0][part], fence[1][part]), solve,
        )  # fmt: skip
        for whole, piece in zip(vars(outcome).values(), vars(found).values(), strict=True):
            whole[part] = piece
    return outcome


def _filtered(
    dynamics: Dynamics, position: Array, velocity: Array, radius: Array, wish: Array,
    bodies: Sequence[Bodies], fence: tuple[Array, Array] | None,
    solve: Callable[[Array, Array, Array, float], Array],
) -> Outcome:  # fmt: skip
    """Of one block."""
    promise, wished, gap = promised(dynamics, position, velocity, radius, bodies)
    if fence is not None:
        normal, bound = fence
        promise = Promise(
            np.concatenate([promise.normal, normal], axis=1),
            np.concatenate([promise.bound, bound - TOLERANCE], axis=1),
            promise.leash,
        )
        wished = np.concatenate([wished, bound], axis=1)
    brake = dynamics.brake(velocity)
    finite = np.isfinite(wish).all(axis=1)
    command = np.where(np.reshape(finite, (-1, 1)), wish, brake)
    kept = np.ones(len(wish))
    away = np.any(wished > promise.bound + TOLERANCE, axis=1)  # should do more than promised
    todo = np.flatnonzero(finite & ~(holds(dynamics, velocity, command, promise) & ~away))
    if len(todo):
        promise, v, at = promise.rows(todo), velocity[todo], brake[todo]
        command[todo], kept[todo] = _nearest(
            dynamics, v, wish[todo], at, promise, wished[todo], solve
        )
    nearest = gap.min(axis=1, initial=np.inf)
    return Outcome(command, kept, ~finite | ((kept < 1) & (command == brake).all(axis=1)), nearest)


def velocity_box(low: Array, high: Array, yaw: Array, dt: float) -> tuple[Array, Array]:
    """Bounds on the velocity in the body's frame as a fence for `filtered`.

    low, high: [2], forward and left, m/s, of which 0 is inside; yaw: of N robots, rad, [N]
    """
    if (np.asarray(low) > 0).any() or (np.asarray(high) < 0).any():
        raise ValueError(f"barrier: velocities {low} to {high}, expected 0 among them")
    forward = np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)
    left = np.stack([-np.sin(yaw), np.cos(yaw)], axis=-1)
    normal = np.stack([forward, left, -forward, -left], axis=1)
    bound = dt * np.concatenate([low, -np.asarray(high)])
    return normal, np.broadcast_to(bound, normal.shape[:2])


def _nearest(
    dynamics: Dynamics, velocity: Array, wish: Array, brake: Array, promise: Promise,
    wished: Array, solve: Callable[[Array, Array, Array, float], Array],
) -> tuple[Array, Array]:  # fmt: skip
    """The QP's answers as far as they pass, [N, 2], and how far that is, [N].

    Rows are linearised at a command that passes, braking at first, so that there is an answer.
    Where it is too bold for the hull's curve, they are once more at what was left of it.
    """
    command, kept = brake.copy(), np.zeros(len(wish))
    for turn in range(LINEARISATIONS if dynamics.curved else 1):
        todo = np.flatnonzero(kept < 1)
        if not len(todo):
            break
        v, at, part = velocity[todo], command[todo], promise.rows(todo)
        bound = wished[todo]
        if turn:  # a little inside what is checked, where `at` is
            reach = support(part.normal, dynamics.hull_after(v, at))
            bound = np.minimum(part.bound + TOLERANCE, reach)
        proposal = _proposed(dynamics, v, at, wish[todo], part, bound, solve)
        command[todo], kept[todo] = _drawn_back(dynamics, v, proposal, at, part)
    return command, kept


def _proposed(
    dynamics: Dynamics, velocity: Array, at: Array, wish: Array, promise: Promise, wished: Array,
    solve: Callable[[Array, Array, Array, float], Array],
) -> Array:  # fmt: skip
    """The command nearest to the wish that keeps all bounds, linearised at `at`; NaN for none."""
    normals, offsets = _rows(dynamics, velocity, at, promise.normal, wished)
    found = solve(wish, normals, offsets, dynamics.limit)
    lost = np.isnan(found[:, 0])
    soft = wished[lost] > promise.bound[lost] + TOLERANCE  # asked for, but not promised
    if soft.any() and not dynamics.curved:
        found[lost] = least_violation(
            wish[lost], normals[lost], offsets[lost], dynamics.limit, soft
        )
    return found


def _rows(
    dynamics: Dynamics, velocity: Array, u: Array, normal: Array, bound: Array
) -> tuple[Array, Array]:
    """Half-planes of the hull after this step as unit rows on the command, linearised at u."""
    hull, jacobian = dynamics.hull_after(velocity, u), dynamics.jacobian(velocity, u)
    limit_normals, limit_offsets = dynamics.limit_rows(velocity, u)
    x, y = normal[..., 0], normal[..., 1]
    rows = [(limit_normals[..., 0], limit_normals[..., 1], limit_offsets)]
    for p in range(hull.shape[1]):
        j = jacobian[:, p]
        at = hull[:, p] - (j @ u[..., None])[..., 0]
        ax = x * j[:, 0, 0, None] + y * j[:, 0, 1, None]
        ay = x * j[:, 1, 0, None] + y * j[:, 1, 1, None]
        length = np.sqrt(ax * ax + ay * ay)  # at least dt^2 / 2
        offset = bound - x * at[:, 0, None] - y * at[:, 1, None]
        rows.append((ax / length, ay / length, offset / length))
    ax, ay, offsets = (np.concatenate(column, axis=1) for column in zip(*rows, strict=True))
    return np.stack([ax, ay], axis=-1), offsets


def _drawn_back(
    dynamics: Dynamics, velocity: Array, proposal: Array, safe: Array, promise: Promise
) -> tuple[Array, Array]:
    """From commands [N, 2] that are safe towards proposals, as far as passes; and how far, [N]."""
    command, kept = safe.copy(), np.zeros(len(proposal))
    todo = np.flatnonzero(np.isfinite(proposal).all(axis=1))
    share = 1.0
    for _ in range(TRIES):
        if not len(todo):
            break
        u = proposal[todo] if share == 1 else safe[todo] + share * (proposal - safe)[todo]
        passed = holds(dynamics, velocity[todo], u, promise.rows(todo))
        command[todo[passed]], kept[todo[passed]] = u[passed], share
        todo, share = todo[~passed], share * SHRINK
    return command, kept


@dataclass(frozen=True)
class Barrier:
    """The filter of robots in the plane: `motoric.control.filters.Filter`.

    Their joints are x and y. Under velocity control a command is its `velocity`, under
    acceleration control its `torque`, a force; position targets would be another wish beside it,
    and are a fault.

    dynamics: dt is the filter's own period: at most that under velocity control, exactly that under
        acceleration control, whose braking is counted in steps
    radius: m, of the robot; mass: kg, torque per acceleration
    around: what is sensed near the robot(s), with the gains that a policy has for them
    """

    dynamics: VelocityControl | AccelerationControl
    radius: float
    around: Callable[[State], Sequence[Bodies]]
    mass: float = 1.0
    name: str = "barrier"
    deadline: float = 0.005

    def __call__(self, state: State, wish: MotorCommand, context: Context) -> MotorCommand:
        jitter = JITTER if self.dynamics.curved else 1e-6
        late = context.dt > self.dynamics.dt * (1 + jitter)
        early = self.dynamics.curved and context.dt < self.dynamics.dt * (1 - jitter)
        if late or early:
            raise Fault(
                f"barrier: {context.dt:.4g} s since the last command, expected"
                f" {'' if self.dynamics.curved else 'at most '}{self.dynamics.dt:.4g} s"
            )
        if wish.kp.any():
            raise Fault(f"barrier: kp is {wish.kp.max():g}, expected no position target")
        quantity = "torque" if self.dynamics.curved else "velocity"
        scale = self.mass if self.dynamics.curved else 1.0
        asked = getattr(wish, quantity)
        if asked.shape[-1] != 2:
            raise Fault(f"barrier: {asked.shape[-1]} joints, expected 2, x and y")
        if not (np.isfinite(state.position).all() and np.isfinite(state.velocity).all()):
            raise Fault("barrier: the robot's position or velocity is not finite")
        outcome = filtered(
            self.dynamics, state.position, state.velocity, self.radius, asked / scale,
            self.around(state),
        )  # fmt: skip
        command = (scale * outcome.command).reshape(asked.shape)
        return dataclasses.replace(wish, **{quantity: command})
