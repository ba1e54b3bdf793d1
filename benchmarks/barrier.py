"""The barrier filter measured: the figures, tables and picture of docs/barrier.md.

    python benchmarks/barrier.py qp       # small QPs per second, against daqp
    python benchmarks/barrier.py crowd    # 10 000 agents at 20 Hz; cost by number of agents
    python benchmarks/barrier.py one      # one robot's tick
    python benchmarks/barrier.py search [AGENT_STEPS]   # for contact, 10 million by default
    python benchmarks/barrier.py jitter   # what ticks off their time cost
    python benchmarks/barrier.py picture
    python benchmarks/barrier.py report   # write the tables from what was measured

daqp and numba are in an environment of their own, made on first use from requirements_barrier.txt.
All contenders solve the same problems in one process and thread, taking turns, so that a busy
moment of the machine meets all of them, and are measured in seconds of CPU; ratios are the fact.
One robot's tick is measured by the clock.
"""

from __future__ import annotations

import csv
import math
import os
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import barrier_search
import numpy as np
from contenders import make_venv
from motoric.control.barrier import Bodies, agents_near, filtered
from motoric.control.certificate import AccelerationControl, Dynamics, VelocityControl
from motoric.control.neighbours import neighbours
from motoric.control.qp import project, project_compiled
from motoric.control.second_order import textbook
from page import write_table
from qp_problems import enumerated, problems

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "benchmarks" / "barrier"
VENV = ROOT / "build" / "venv-barrier"
ROUNDS = 9
Array = np.ndarray


def write(name: str, fields: str, rows: Iterable[Iterable[Any]]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / f"{name}.csv").open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(fields.split())
        for row in rows:
            out.writerow([f"{v:.4g}" if isinstance(v, float) else v for v in row])


def read(name: str) -> list[dict[str, str]]:
    with (RESULTS / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def seconds(work: Callable[[], Any]) -> float:
    """Of CPU, so that others on the machine don't count."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def clock(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def in_venv() -> None:
    """Go on in the environment that has daqp and numba, with one thread."""
    if os.environ.get("BARRIER_BENCHMARK") == "1":
        return
    make_venv(VENV, "requirements_barrier.txt", over=sysconfig.get_path("purelib"))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, "1") | {"BARRIER_BENCHMARK": "1"}
    command = [VENV / "bin" / "python", Path(__file__), *sys.argv[1:]]
    raise SystemExit(subprocess.run(command, env=environment).returncode)


# -- small QPs ---------------------------------------------------------------------------------


def by_daqp(wish: Array, normals: Array, offsets: Array) -> Array:
    """One call per problem; the box, the last four rows, as daqp's simple bounds."""
    import daqp  # pyright: ignore[reportMissingImports]

    n, m = offsets.shape
    h, out = np.eye(2), np.empty((n, 2))
    a = np.ascontiguousarray(normals[:, :-4])
    low = np.concatenate([np.full((n, 2), -1.0), offsets[:, :-4]], axis=1)
    high = np.concatenate([np.full((n, 2), 1.0), np.full((n, m - 4), 1e30)], axis=1)
    sense, f = np.zeros(m - 2, np.int32), -wish
    for i in range(n):
        out[i] = daqp.solve(h, f[i], a[i], high[i], low[i], sense)[0]
    return out


def one_by_one(wish: Array, normals: Array, offsets: Array) -> Array:
    found = [project(wish[i : i + 1], normals[i : i + 1], offsets[i : i + 1])
             for i in range(len(wish))]  # fmt: skip
    return np.concatenate(found)


def measure_qp() -> None:
    """QPs per second, with the largest difference to exact enumeration of active sets."""
    in_venv()
    rows = []
    contenders = {  # with how many problems each is given
        "numpy": (project, 20_000), "numba": (project_compiled, 20_000),
        "daqp": (by_daqp, 4_000), "one at a time": (one_by_one, 1_000),
    }  # fmt: skip
    for m in (8, 32):
        problem = problems(20_000, m)
        exact = enumerated(problem[0][:4000], problem[1][:4000], problem[2][:4000])
        active = np.einsum("nmi,ni->nm", problem[1][:4000], exact) < problem[2][:4000] + 1e-9
        off = {}
        for name, (solve, n) in contenders.items():  # first touch and compilation are not timed
            some = min(n, 4000)
            off[name] = float(np.abs(solve(*(a[:some] for a in problem)) - exact[:some]).max())
        for turn in range(ROUNDS):
            for name, (solve, n) in contenders.items():
                took = seconds(lambda n=n, s=solve, p=problem: s(*(a[:n] for a in p)))
                share = float((active.sum(axis=1) >= 2).mean())
                rows.append((m, name, turn, n / took, off[name], share))
    write("qp", "neighbours solver round per_second error two_or_more_active", rows)


# -- crowds ------------------------------------------------------------------------------------


def crowd(n: int, dynamics: Dynamics, seed: int = 0) -> tuple[Array, ...]:
    """Agents of radius 0.2 m, about eight within 2 m of each: position, velocity, goal, gain."""
    random = np.random.default_rng(seed)
    side = math.ceil(math.sqrt(n))
    pitch = math.sqrt(math.pi * 2.0**2 / 8)
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)[:n]
    position = pitch * (grid + random.uniform(-0.3, 0.3, (n, 2)))
    goal = position + random.normal(size=(n, 2)) * 5
    return position, np.zeros((n, 2)), goal, np.exp(random.uniform(-1.6, 1.6, (n, 1)))


def advance(dynamics: Dynamics, state: tuple[Array, ...], solve: Any) -> tuple[Any, float, float]:
    """One tick: the next state, and s of CPU for the neighbours and for the filter."""
    position, velocity, goal, gain = state
    wish = goal - position
    if isinstance(dynamics, AccelerationControl):
        wish = 2 * (np.clip(wish, -0.7, 0.7) - velocity)
    begin = time.process_time()
    index = neighbours(position, 2.0)
    found = time.process_time()
    near = [agents_near(dynamics, position, velocity, 0.2, index, gain)]
    u = filtered(dynamics, position, velocity, 0.2, wish, near, solve=solve).command
    end = time.process_time()
    dt = dynamics.dt
    if isinstance(dynamics, AccelerationControl):
        position, velocity = position + velocity * dt + 0.5 * dt**2 * u, velocity + u * dt
    else:
        position = position + u * dt
    return (position, velocity, goal, gain), found - begin, end - found


def measure_crowd() -> None:
    in_venv()
    rows = []
    kinds = {
        "velocity": VelocityControl(0.05, 1.0),
        "acceleration": AccelerationControl(0.05, 1.0, 2.0, 1.5),
    }
    for n, ticks in ((100, 400), (1000, 100), (10_000, 60), (100_000, 8)):
        for name, dynamics in kinds.items():
            for solver, solve in (("numpy", project), ("numba", project_compiled)):
                state = crowd(n, dynamics)
                times = []
                for _ in range(ticks + 3):
                    state, search, act = advance(dynamics, state, solve)
                    times.append((search, act))
                search, act = np.array(times[3:]).T
                way = state[0][neighbours_pairs(state[0])]
                gap = np.linalg.norm(way[:, 0] - way[:, 1], axis=-1).min() - 0.4
                assert gap > 0, gap
                both = 1e3 * (search + act)
                rows.append((
                    n, name, solver, ticks, 1e3 * float(np.median(search)),
                    1e3 * float(np.median(act)), float(np.median(both)),
                    float(np.quantile(both, 0.95)), float(gap),
                ))  # fmt: skip
    write("crowd", "agents control solver ticks neighbours_ms filter_ms tick_ms tick_p95_ms gap",
          rows)  # fmt: skip


def neighbours_pairs(position: Array) -> Array:
    index = neighbours(position, 2.0)
    me, place = np.nonzero(index >= 0)
    return np.stack([me, index[me, place]], axis=1)


def measure_one() -> None:
    """One robot among 12 others, a disc, a wall and a box: its whole tick; and the QP alone."""
    in_venv()
    random, rows = np.random.default_rng(0), []
    for name, dynamics in (
        ("velocity", VelocityControl(0.05, 1.0)),
        ("acceleration", AccelerationControl(0.05, 1.0, 2.0, 1.5)),
    ):
        took = []
        for _ in range(5000):
            here, velocity = np.zeros((1, 2)), random.normal(size=(1, 2)) * 0.3
            angle = random.uniform(0, 2 * np.pi, (1, 12, 1))
            centre = np.stack([np.cos(angle), np.sin(angle)], -1)
            centre = centre * random.uniform(0.6, 3, (1, 12, 1, 1))
            points = centre + dynamics.hull(random.normal(size=(12, 2)) * 0.2)[None]
            things = [
                Bodies(points, 0.2, 2.0, share=0.5),
                Bodies(np.array([[[[1.5, 0.0]]]]), 0.3, 2.0),
                Bodies(np.array([[[[-2.0, 1.0], [2.0, 1.0]]]]), 0.05, 2.0),
                Bodies(np.array([[[[2, -2], [3, -2], [3, -1.0], [2, -1]]]]), 0.0, 2.0),
            ]
            wish = random.normal(size=(1, 2))
            took.append(clock(lambda d=dynamics, p=here, v=velocity, w=wish, t=things:
                                filtered(d, p, v, 0.2, w, t)))  # fmt: skip
        rows.append((f"{name}: filter", 1e6 * float(np.median(took)),
                     1e6 * float(np.quantile(took, 0.999))))  # fmt: skip
    problem = problems(5000, 12)
    took = [clock(lambda i=i: project(*(a[i : i + 1] for a in problem))) for i in range(5000)]
    rows.append(("QP of 16 rows", 1e6 * float(np.median(took)),
                 1e6 * float(np.quantile(took, 0.999))))  # fmt: skip
    write("one", "what p50_us p999_us", rows)


# -- contact -----------------------------------------------------------------------------------


def measure_search(steps: int) -> None:
    rows = []
    for name in ("velocity", "acceleration"):
        for dt in (0.1, 0.05):
            begin = time.process_time()
            found = barrier_search.search(name, dt, steps // 4, seed=2026)
            took = time.process_time() - begin
            rows.append((
                name, dt, found.steps, found.agents, found.obstacles, found.over,
                found.changed / found.steps, found.drawn_back / found.steps,
                found.braked / found.steps, found.steps / took,
            ))  # fmt: skip
            print(rows[-1], flush=True)
            assert not found.contact, "contact"
    write("search", "control dt agent_steps gap_agents gap_obstacles over_limit changed drawn_back"
          " braked steps_per_second", rows)  # fmt: skip


def measure_jitter() -> None:
    """Commands held for other times than the filter was told."""
    rows = []
    for name in ("velocity", "acceleration"):
        for dt in (0.1, 0.05):
            for low, high in ((1.0, 1.0), (0.05, 1.0), (0.95, 1.05)):
                found = barrier_search.search(name, dt, 200_000, seed=1, held=(low, high))
                rows.append((name, dt, low, high, found.agents, found.obstacles))
                print(rows[-1], flush=True)
    write("jitter", "control dt held_low held_high gap_agents gap_obstacles", rows)


# -- the picture -------------------------------------------------------------------------------


def swap(act: Callable[[Array, Array, Array], Array], seconds: float) -> tuple[Array, ...]:
    """Eight acceleration-controlled agents change places on a circle of 3 m: positions and
    velocities [T, 8, 2], least gap [T]. Whoever gets nowhere bears to the right."""
    dt, angle = 0.1, np.arange(8) * np.pi / 4
    p = 3 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    goal, v, lean, trace = -p, np.zeros((8, 2)), np.zeros(8), []
    for _ in range(round(seconds / dt)):
        way = goal - p
        far = np.linalg.norm(way, axis=-1)
        stuck = (np.linalg.norm(v, axis=-1) < 0.3) & (far > 0.3)
        lean = np.clip(lean + dt * np.where(stuck, 1.0, -0.5), 0, 1.5)
        c, s = np.cos(-lean), np.sin(-lean)
        way = np.stack([c * way[:, 0] - s * way[:, 1], s * way[:, 0] + c * way[:, 1]], axis=-1)
        speed = np.minimum(1.2, 0.7 * far) / np.maximum(far, 1e-9)
        wish = 3 * (way * speed[:, None] - v)
        wish *= np.minimum(1, 1 / np.maximum(np.linalg.norm(wish, axis=-1), 1e-9))[:, None]
        u = act(p, v, wish)
        middle = p + 0.5 * v * dt + u * dt * dt / 8
        p, v = p + v * dt + 0.5 * u * dt * dt, v + u * dt
        gap = min(pair_gap(middle), pair_gap(p))
        trace.append((p, v, gap))
    return tuple(np.array(column) for column in zip(*trace, strict=True))


def pair_gap(p: Array) -> float:
    return float((np.linalg.norm(p[:, None] - p, axis=-1) + 10 * np.eye(len(p))).min() - 0.4)


def draw() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Circle

    dynamics = AccelerationControl(0.1, speed=1.5, acceleration=1.0, braking=1.0)

    def ours(p: Array, v: Array, wish: Array) -> Array:
        near = [agents_near(dynamics, p, v, 0.2, neighbours(p, 10.0), 4.0)]
        return filtered(dynamics, p, v, 0.2, wish, near).command

    def theirs(gain: float) -> Callable[[Array, Array, Array], Array]:
        return lambda p, v, wish: textbook(p, v, 0.2, wish, neighbours(p, 10.0), gain, gain, 1.0)[0]

    runs = {f"textbook, gains {gain:g}": swap(theirs(gain), 25) for gain in (1.0, 4.0, 8.0)}
    runs["braking segments, gain 4"] = swap(ours, 25)
    rows = [(name, float(gap.min()), float(np.linalg.norm(p[-1] + p[0], axis=-1).max()))
            for name, (p, _, gap) in runs.items()]  # fmt: skip
    write("swap", "filter least_gap farthest_from_goal", rows)
    plt.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.1))
    p, v, _ = runs["braking segments, gain 4"]
    at = 20
    hulls = p[at][:, None] + dynamics.hull(v[at])
    for i in range(8):
        colour = plt.get_cmap("tab10")(i)
        left.plot(*p[:, i].T, color=colour, lw=0.7)
        left.add_patch(Circle(p[at, i], 0.2, color=colour, alpha=0.9, lw=0))
        left.add_patch(Circle(hulls[i, 1], 0.2, fill=False, color=colour, lw=0.7))
        left.plot(*hulls[i].T, color=colour, lw=1.5)
    left.set(aspect="equal", xlim=(-3.6, 3.6), ylim=(-3.4, 3.4), xlabel="m", ylabel="m",
             title="swap: where each would stop, at 2 s")  # fmt: skip
    for name, (_, _, gap) in runs.items():
        bold = 1.8 if name.startswith("braking") else 0.9
        right.plot(0.1 * np.arange(len(gap)), gap, lw=bold, label=name)
    right.axhline(0, color="black", lw=0.6)
    right.set(xlabel="s", ylabel="m", title="least gap between two agents", ylim=(-0.45, 1.0))
    right.legend(frameon=False, fontsize=7)
    figure.tight_layout()
    figure.savefig(RESULTS.with_suffix(".png"), dpi=110)


# -- the page ----------------------------------------------------------------------------------


def report() -> None:
    rows = read("qp")
    lines = ["| solver | 8 + 4 rows, per second | × daqp | largest error | 32 + 4 rows | × daqp |"
             " largest error |", "| --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip

    def rate(m: str, solver: str) -> float:
        return statistics.median(float(r["per_second"]) for r in rows
                                 if (r["neighbours"], r["solver"]) == (m, solver))  # fmt: skip

    def error(m: str, solver: str) -> str:
        return next(r["error"] for r in rows if (r["neighbours"], r["solver"]) == (m, solver))

    for solver in dict.fromkeys(r["solver"] for r in rows):
        cells = [solver]
        for m in ("8", "32"):
            each = rate(m, solver)
            cells += [f"{each / 1e3:,.0f} k", f"{each / rate(m, 'daqp'):.1f}",
                      f"{float(error(m, solver)):.0e}"]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    write_table("barrier.md", "qp", lines)

    lines = ["| agents | control | QP | neighbours, ms | filter, ms | tick, ms | µs per agent |",
             "| --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for r in read("crowd"):
        each = 1e3 * float(r["tick_ms"]) / int(r["agents"])
        lines.append(f"| {int(r['agents']):,} | {r['control']} | {r['solver']} |"
                     f" {float(r['neighbours_ms']):.2g} | {float(r['filter_ms']):.3g} |"
                     f" {float(r['tick_ms']):.3g} | {each:.1f} |")  # fmt: skip
    write_table("barrier.md", "crowd", lines)

    head = ("control", "dt, s", "agent-steps", "least gap, agents", "to obstacles",
            "changed by the QP", "drawn back", "braked")  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for r in read("search"):
        shares = " | ".join(f"{float(r[k]):.1%}" for k in ("changed", "drawn_back", "braked"))
        lines.append(f"| {r['control']} | {r['dt']} | {int(r['agent_steps']):,} |"
                     f" {1e6 * float(r['gap_agents']):.2f} µm |"
                     f" {1e6 * float(r['gap_obstacles']):.2f} µm | {shares} |")  # fmt: skip
    write_table("barrier.md", "search", lines)


def main() -> None:
    what, *more = sys.argv[1:] or [""]
    steps = int(more[0]) if more else 10_000_000
    commands: dict[str, Callable[[], None]] = {
        "qp": measure_qp, "crowd": measure_crowd, "one": measure_one, "jitter": measure_jitter,
        "search": lambda: measure_search(steps), "picture": draw, "report": report,
    }  # fmt: skip
    if what not in commands:
        raise SystemExit(f"what to measure: {what!r}, expected one of {', '.join(commands)}")
    commands[what]()


if __name__ == "__main__":
    main()
