"""Search for a contact: worlds of agents that try their worst through the barrier filter.

Agents among a disc, a wall and a box wish what an adversary wishes: to run into their nearest
neighbour or obstacle, to press on side by side, to cross, anything at all; their gains are no
better: 0 or the highest by coin, random, NaN, infinite, anew at each step. Gaps are looked at five
times a step by formulas of their own (`gap_between`, `gap_to_obstacles`), commands at each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from motoric.control import barrier
from motoric.control.certificate import AccelerationControl, Dynamics, VelocityControl
from motoric.control.neighbours import neighbours
from motoric.control.qp import project

Array = np.ndarray
LARGEST = 0.16  # m, radius of an agent
HALF = 1.6  # m, of the arena that agents start in and are drawn to
DISC, DISC_RADIUS = np.array([0.5, 0.3]), 0.25
WALL, WALL_RADIUS = np.array([[-1.2, -0.9], [-0.2, -0.6]]), 0.05
BOX_CENTRE, BOX_HALF, BOX_TURN = np.array([-0.5, 0.9]), np.array([0.35, 0.15]), 0.5


def dynamics_named(name: str, dt: float) -> Dynamics:
    if name == "velocity":
        return VelocityControl(dt, speed=1.0)
    return AccelerationControl(dt, speed=1.5, acceleration=2.0, braking=1.5)


def box_corners() -> Array:
    c, s = np.cos(BOX_TURN), np.sin(BOX_TURN)
    corners = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * BOX_HALF
    return BOX_CENTRE + corners @ np.array([[c, s], [-s, c]])


def gap_to_obstacles(p: Array, radius: Array) -> Array:
    """The least of the distances of discs [..., 2] to the three obstacles, m."""
    disc = np.linalg.norm(p - DISC, axis=-1) - DISC_RADIUS
    edge = WALL[1] - WALL[0]
    t = np.clip((p - WALL[0]) @ edge / (edge @ edge), 0, 1)
    wall = np.linalg.norm(p - WALL[0] - t[..., None] * edge, axis=-1) - WALL_RADIUS
    c, s = np.cos(BOX_TURN), np.sin(BOX_TURN)
    local = np.abs((p - BOX_CENTRE) @ np.array([[c, -s], [s, c]])) - BOX_HALF
    box = np.linalg.norm(np.maximum(local, 0), axis=-1) + np.minimum(local.max(axis=-1), 0)
    return np.minimum(np.minimum(disc, wall), box) - radius


def gap_between(p: Array, radius: Array) -> Array:
    """The least distance of agents [W, A, 2] of radius [W, A] in each world, m, [W]."""
    way = p[:, :, None] - p[:, None]
    gap = np.sqrt(way[..., 0] ** 2 + way[..., 1] ** 2) - radius[:, :, None] - radius[:, None]
    gap[:, np.arange(p.shape[1]), np.arange(p.shape[1])] = np.inf
    return gap.min(axis=(1, 2))


@dataclass
class Found:
    """steps: of agents; the least gap between agents and to obstacles, m; the most that a command
    was beyond its limit, relative; shares of the commands that the QP changed, that the check drew
    back, and that braked"""

    steps: int = 0
    agents: float = np.inf
    obstacles: float = np.inf
    over: float = -np.inf
    changed: int = 0
    drawn_back: int = 0
    braked: int = 0

    @property
    def contact(self) -> bool:
        return min(self.agents, self.obstacles) < 0


def search(
    name: str, dt: float, steps: int, seed: int, worlds: int = 100, agents: int = 10,
    episode: int = 150, obstacles: bool = True, lanes: float = 0.2,
    solve: Callable[..., Array] = project, held: tuple[float, float] = (1.0, 1.0),
) -> Found:  # fmt: skip
    """About `steps` agent-steps. lanes: share of the worlds where all press on side by side.
    held: the range of times that commands are really held for, in dt, the same for all each step.
    """
    random, found, dynamics = np.random.default_rng(seed), Found(), dynamics_named(name, dt)
    while found.steps < steps:
        position, radius = _start(random, worlds, agents)
        velocity = np.zeros_like(position)
        kind = random.random((worlds, agents))
        lane = random.random(worlds) < lanes
        heading = random.uniform(0, 2 * np.pi, (worlds, 1)) + random.normal(0, 1e-6, kind.shape)
        for _ in range(min(episode, -(-(steps - found.steps) // (worlds * agents)))):
            wish = _wish(random, dynamics, position, velocity, kind, lane, heading)
            velocity, position = _step(
                random,
                dynamics,
                position,
                velocity,
                radius,
                wish,
                found,
                obstacles,
                solve,
                dynamics.dt * random.uniform(*held),
            )
    return found


def _start(random: np.random.Generator, worlds: int, agents: int) -> tuple[Array, Array]:
    """Positions [W, A, 2] that touch nothing, and radii [W, A]."""
    radius = random.uniform(0.08, LARGEST, (worlds, agents))
    position = np.full((worlds, agents, 2), 1e3) + np.arange(agents)[:, None] * 10
    for a in range(agents):
        bad = np.arange(worlds)
        while len(bad):
            position[bad, a] = random.uniform(-HALF, HALF, (len(bad), 2))
            way = np.linalg.norm(position[bad, a, None] - position[bad], axis=-1)
            way[:, a] = np.inf
            free = (way - radius[bad, a, None] - radius[bad]).min(axis=1) > 1e-3
            free &= gap_to_obstacles(position[bad, a], radius[bad, a]) > 1e-3
            bad = bad[~free]
    return position, radius


def _wish(
    random: np.random.Generator, dynamics: Dynamics, position: Array, velocity: Array,
    kind: Array, lane: Array, heading: Array,
) -> Array:  # fmt: skip
    """What each agent wishes, [W, A, 2], up to twice its limit, sometimes no number."""
    worlds, agents = kind.shape
    ahead = position + 0.3 * velocity
    way = ahead[:, None] - ahead[:, :, None]  # [W, me, other, 2]
    distance = np.linalg.norm(way, axis=-1)
    distance[:, np.arange(agents), np.arange(agents)] = np.inf
    nearest = np.take_along_axis(way, distance.argmin(axis=2)[..., None, None], axis=2)[:, :, 0]
    things = np.array([DISC, WALL.mean(axis=0), BOX_CENTRE])
    thing = things[(kind * 1e3).astype(int) % 3] - position
    noise = random.normal(size=position.shape)
    inwards = -position
    mode = kind[..., None]
    wish = np.where(mode < 0.45, nearest, np.where(mode < 0.65, thing, inwards))
    wish = np.where(mode > 0.85, noise, wish)
    beside = np.stack([np.cos(heading), np.sin(heading)], axis=-1)  # all one way, then back
    middle = position.mean(axis=1, keepdims=True)
    side = np.sum((middle - position) * beside[..., ::-1] * [-1, 1], axis=-1, keepdims=True)
    drift = np.where(np.sum(middle * beside, axis=-1, keepdims=True) > 2.5, -1.0, 1.0)
    lanes = drift * beside + 3 * side * beside[..., ::-1] * [-1, 1]
    wish = np.where(lane[:, None, None], lanes, wish)
    wish /= np.maximum(np.linalg.norm(wish, axis=-1, keepdims=True), 1e-12)
    wish *= dynamics.limit * random.choice([0.3, 1.0, 2.0], (worlds, agents, 1))
    wish[random.random((worlds, agents)) < 1e-3] = np.nan
    return wish


def _gains(random: np.random.Generator, shape: tuple[int, ...], dt: float) -> Array:
    coin = np.where(random.random(shape) < 0.5, 0.0, barrier.highest_gain(dt))
    wild = random.choice([np.nan, np.inf, -np.inf, -3.0, 1e9], shape)
    fair = np.exp(random.uniform(np.log(0.05), np.log(1 / dt), shape))
    pick = random.random(shape[:1] + (1,) * (len(shape) - 1))
    return np.where(pick < 0.6, coin, np.where(pick < 0.7, wild, fair))


def _step(
    random: np.random.Generator, dynamics: Dynamics, position: Array, velocity: Array,
    radius: Array, wish: Array, found: Found, obstacles: bool, solve: Callable[..., Array],
    time: float,
) -> tuple[Array, Array]:  # fmt: skip
    worlds, agents = radius.shape
    n, dt = worlds * agents, dynamics.dt
    p, v, r, u0 = (a.reshape(n, *a.shape[2:]) for a in (position, velocity, radius, wish))
    sensed = barrier.sensing_radius(dynamics, LARGEST)
    index = neighbours(p, sensed, world=np.repeat(np.arange(worlds), agents))
    gain = _gains(random, index.shape, dt)
    near = [barrier.agents_near(dynamics, p, v, r, index, gain)]
    if obstacles:
        for points, grown in (
            (DISC[None], DISC_RADIUS), (WALL, WALL_RADIUS), (box_corners(), 0.0),
        ):  # fmt: skip
            hulls = np.broadcast_to(points, (n, 1, *points.shape))
            near.append(barrier.Bodies(hulls, grown, _gains(random, (n, 1), dt)))
    outcome = barrier.filtered(dynamics, p, v, r, u0, near, solve=solve)
    u = outcome.command.reshape(position.shape)
    found.steps += n
    found.changed += int((outcome.command != u0).any(axis=1).sum())
    found.drawn_back += int((outcome.kept < 1).sum())
    found.braked += int(outcome.braked.sum())
    found.over = max(found.over, float(np.linalg.norm(u, axis=-1).max() / dynamics.limit - 1))
    if not np.isfinite(u).all():
        found.over = np.inf
    for share in (0.2, 0.4, 0.6, 0.8, 1.0):
        t = share * time
        if isinstance(dynamics, VelocityControl):
            after = position + u * t
        else:
            after = position + velocity * t + u * (0.5 * t * t)
        found.agents = min(found.agents, float(gap_between(after, radius).min()))
        if obstacles:
            found.obstacles = min(found.obstacles, float(gap_to_obstacles(after, radius).min()))
    if isinstance(dynamics, VelocityControl):
        return u, after
    return velocity + u * time, after
