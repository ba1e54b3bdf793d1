"""Environment steps per second against what people would use instead: tables of docs/benchmarks.md.

    python benchmarks/env_speed.py rates      # 256 environments on one and two cores
    python benchmarks/env_speed.py scaling    # 1 to 4096 environments on two cores, and memory
    python benchmarks/env_speed.py report     # tables and plot from what was measured

The contenders, each a process of its own, bound to the cores of the row, with random actions:

limit      raw mj_step of one simulation per core, with the actions that ours has, begun again as
           the task does; no observation, no reward: what the machine's cores can do with this model
ours       `motoric/...` through gymnasium.vector
rollout    mujoco.rollout, one call per step, with observation and reward in numpy (Ant: without
           the contact forces, which it doesn't give; Go2: physics alone)
async      gymnasium's AsyncVectorEnv with 16 processes
envpool    EnvPool, synchronous; from `.venv-bench` (benchmarks/requirements.txt, made on first use)

They take turns in rounds of half a second, so that a busy moment of the machine meets all of them,
each round begun by another.
Beside the rate by the clock there is the one per second of CPU, which other programs on the machine
hardly touch. An interrupted measurement goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from contenders import make_venv, running
from page import write_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "benchmarks" / "env_speed"
BENCH = ROOT / ".venv-bench"
TASKS = {  # random actions are uniform in plus and minus this
    "HalfCheetah-v5": 1.0,
    "Ant-v5": 1.0,
    "go2_velocity": 0.3,
    "go2_velocity nominal": 0.3,  # without randomised physics, noise and pushes, as the limit is
}
OURS = {"HalfCheetah-v5": "half_cheetah", "Ant-v5": "ant"}  # the tasks that are these
CONTENDERS = ("limit", "ours", "rollout", "async", "envpool")
LABELS = {"ours": "ours", "envpool": "EnvPool"}
MANY, PROCESSES, SECONDS = 256, 16, 0.5
SIZES = (1, 16, 256, 4096)
Measure = Callable[[float], tuple[float, float]]

# ---------------------------------------------------------------------------------------------
# Contenders: functions of a duration that return steps/s, and the share of it spent in physics
# ---------------------------------------------------------------------------------------------


def model_of(task: str):
    """Model, substeps, the controls that an action of zero means, and those per unit of action."""
    if task.startswith("go2"):
        from motoric.envs.tasks.go2_velocity import Go2Velocity
        from motoric.hardware.models import load_model
        from motoric.hardware.specs.go2 import GO2

        return load_model(GO2), 4, GO2.stand, Go2Velocity().interface.action_scale
    from motoric.envs.registry import make_task

    model = make_task(OURS[task]).model
    return model, 5, np.zeros(model.nu), np.ones(model.nu)


def start(task: str, model, data, rng) -> None:
    import mujoco

    mujoco.mj_resetData(model, data)
    if task.startswith("go2"):
        from motoric.hardware.specs.go2 import GO2

        data.qpos[2], data.qpos[7:] = GO2.base_height + 0.01, GO2.stand
        data.qpos[7:] += rng.uniform(-0.1, 0.1, model.nq - 7)
    else:
        data.qpos[:] += rng.uniform(-0.1, 0.1, model.nq)
        data.qvel[:] += 0.1 * rng.standard_normal(model.nv)


def fallen(task: str, qpos) -> bool:
    if task == "Ant-v5":
        return not 0.2 <= qpos[2] <= 1.0
    return task.startswith("go2") and qpos[2] < 0.15


def raw(task: str, seconds: float, seed: int) -> float:
    """Steps/s of one simulation, which has the actions of environment `seed`."""
    import mujoco

    model, substeps, zero, scale = model_of(task)
    data, rng = mujoco.MjData(model), np.random.default_rng(seed)
    controls = zero + scale * random_actions(task, MANY, model.nu)[:, seed]
    start(task, model, data, rng)
    steps, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for control in controls:
            data.ctrl[:] = control
            mujoco.mj_step(model, data, substeps)
            if fallen(task, data.qpos):
                start(task, model, data, rng)
            steps += 1
        if steps % 1024 == 0:
            start(task, model, data, rng)
    return steps / (time.perf_counter() - begun)


def make_limit(task: str, num_envs: int, threads: int) -> Measure:
    pool = ProcessPoolExecutor(threads, multiprocessing.get_context("fork"))

    def measure(seconds: float) -> tuple[float, float]:
        return sum(pool.map(raw, repeat(task), repeat(seconds), range(threads))), 1.0

    return measure


def stepped(step: Callable, actions: np.ndarray) -> Callable[[float], float]:
    """Steps/s of N environments stepped together."""

    def measure(seconds: float) -> float:
        steps, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            step(actions[steps % len(actions)])
            steps += 1
        return steps * actions.shape[1] / (time.perf_counter() - begun)

    return measure


def random_actions(task: str, num_envs: int, size: int) -> np.ndarray:
    draw = np.random.default_rng(0).uniform(-1, 1, (16, num_envs, size))
    return (TASKS[task] * draw).astype(np.float32)


def make_ours(task: str, num_envs: int, threads: int) -> Measure:
    import gymnasium as gym
    import motoric.envs  # noqa: F401

    name, *nominal = task.split()
    name = OURS.get(name, name)
    options: dict[str, Any] = {"randomise": False} if nominal else {}
    envs = gym.make_vec(
        f"motoric/{name}", num_envs=num_envs, vectorization_mode="vector_entry_point",
        num_threads=threads, **options,
    )  # fmt: skip
    envs.reset(seed=0)
    sim = envs.unwrapped.batch.sim  # type: ignore[attr-defined]
    inner, spent = sim.step, [0.0]

    def timed(*arguments) -> None:
        begun = time.perf_counter()
        inner(*arguments)
        spent[0] += time.perf_counter() - begun

    sim.step = timed
    assert envs.action_space.shape is not None
    rate = stepped(envs.step, random_actions(task, num_envs, envs.action_space.shape[1]))

    def measure(seconds: float) -> tuple[float, float]:
        spent[0], begun = 0.0, time.perf_counter()
        found = rate(seconds)
        return found, spent[0] / (time.perf_counter() - begun)

    return measure


def make_async(task: str, num_envs: int, threads: int) -> Measure:
    import gymnasium as gym

    name, *nominal = task.split()
    options: dict[str, Any] = {"randomise": False} if nominal else {}
    if task.startswith("go2"):
        name = f"motoric.envs:motoric/{name}"
    envs = gym.make_vec(name, num_envs=num_envs, vectorization_mode="async", **options)
    envs.reset(seed=0)
    actions = random_actions(task, num_envs, envs.action_space.shape[1])  # type: ignore[index]
    rate = stepped(envs.step, actions)
    return lambda seconds: (rate(seconds), 0.0)


def make_envpool(task: str, num_envs: int, threads: int) -> Measure:
    import envpool  # pyright: ignore[reportMissingImports]

    envs = envpool.make_gymnasium(task, num_envs=num_envs, num_threads=threads)
    envs.reset()
    rate = stepped(envs.step, random_actions(task, num_envs, envs.action_space.shape[0]))
    return lambda seconds: (rate(seconds), 0.0)


def make_rollout(task: str, num_envs: int, threads: int) -> Measure:
    import mujoco
    from mujoco.rollout import Rollout

    model, substeps, zero, scale = model_of(task)
    data = [mujoco.MjData(model) for _ in range(threads)]
    rng, full = np.random.default_rng(0), mujoco.mjtState.mjSTATE_FULLPHYSICS
    state = np.zeros((num_envs, mujoco.mj_stateSize(model, full)))

    def begin(i: int) -> None:
        start(task, model, data[0], rng)
        mujoco.mj_forward(model, data[0])
        mujoco.mj_getState(model, data[0], state[i], full)

    for i in range(num_envs):
        begin(i)
    nq, pool = model.nq, Rollout(nthread=threads)
    out = np.zeros((num_envs, substeps, state.shape[1]))

    def step(action: np.ndarray) -> tuple:
        control = np.repeat((zero + scale * action)[:, None], substeps, 1)
        pool.rollout(model, data, state, control, nstep=substeps, state=out)
        before = state[:, 1]
        state[:] = out[:, -1]
        observation = state[:, 2 : 1 + nq + model.nv].astype(np.float32)
        reward = (state[:, 1] - before) / 0.05 - 0.1 * np.sum(action**2, 1)
        if task != "HalfCheetah-v5":
            low, high = (0.2, 1.0) if task == "Ant-v5" else (0.15, np.inf)
            for i in np.flatnonzero((state[:, 3] < low) | (state[:, 3] > high)).tolist():
                begin(i)
        return observation, reward

    rate = stepped(step, random_actions(task, num_envs, model.nu))
    return lambda seconds: (rate(seconds), 0.0)


MAKE = {
    "limit": make_limit,
    "ours": make_ours,
    "rollout": make_rollout,
    "async": make_async,
    "envpool": make_envpool,
}


def processes() -> list[int]:
    return [os.getpid(), *(c.pid for c in multiprocessing.active_children() if c.pid is not None)]


def peak_memory() -> float:
    """MB of this process and its children at their peaks."""
    status = [Path(f"/proc/{process}/status").read_text() for process in processes()]
    return sum(int(text.split("VmHWM:")[1].split()[0]) for text in status) / 1024


def cpu_time() -> float:
    """Seconds of CPU this process and its children have had, all threads together."""
    ticks = 0
    for process in processes():
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def serve(contender: str, task: str, num_envs: int, threads: int) -> None:
    """In a process of its own: measure whenever a line with a duration comes in."""
    measure = MAKE[contender](task, num_envs, threads)
    measure(0.1)
    print("ready", flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), cpu_time()
        rate, share = measure(float(line))
        wall, cpu = time.perf_counter() - wall, cpu_time() - cpu
        print(rate, rate * wall / max(cpu, 0.01), share, peak_memory(), flush=True)
    for child in multiprocessing.active_children():
        child.terminate()


# ---------------------------------------------------------------------------------------------
# Measuring
# ---------------------------------------------------------------------------------------------


def rotated(names: list[str], turn: int) -> list[str]:
    """Each round begins with the next one: none is always the first, or behind the same."""
    first = turn % len(names)
    return names[first:] + names[:first]


def commands(task: str, num_envs: int, threads: int, names: tuple[str, ...]) -> dict[str, list]:
    """How each contender is started."""
    found: dict[str, list] = {}
    for name in names:
        if name == "envpool" and task.startswith("go2"):
            continue
        python = BENCH / "bin" / "python" if name == "envpool" else sys.executable
        number = min(num_envs, PROCESSES) if name == "async" else num_envs
        found[name] = [python, __file__, "serve", name, task, number, threads]
    return found


FIELDS = (
    "task", "num_envs", "threads", "round", "name", "rate", "cpu_rate", "physics", "peak_mb", "load"
)  # fmt: skip


def measure(what: str, rounds: int, plan: list[tuple]) -> None:
    """Fill `what`.csv, a row per round and contender; goes on with one that was interrupted."""
    make_venv(BENCH, "requirements.txt")
    path = RESULTS / f"{what}.csv"
    done = set(read(what)) if path.exists() else set()
    RESULTS.mkdir(parents=True, exist_ok=True)
    if not done:
        path.write_text(",".join(FIELDS) + "\n")
    for task, num_envs, threads, names in plan:
        if (task, num_envs, threads) in done:
            continue
        rows = []
        one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with running(commands(task, num_envs, threads, names), threads, one) as contenders:
            for turn in range(rounds):
                for name in rotated(list(contenders), turn):
                    rate, cpu_rate, share, peak = contenders[name].ask(SECONDS)
                    rows.append([task, num_envs, threads, turn, name, f"{rate:.6g}",
                                 f"{cpu_rate:.6g}", f"{share:.3f}", f"{peak:.0f}",
                                 f"{os.getloadavg()[0]:.1f}"])  # fmt: skip
        with path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        print(f"{task}, {num_envs} environments, {threads} cores: done", flush=True)


def rates(rounds: int) -> None:
    cores = min(2, len(os.sched_getaffinity(0)))
    plan = [(t, MANY, n, CONTENDERS) for t in TASKS for n in range(1, cores + 1)]
    measure("rates", rounds, plan)


def scaling(rounds: int) -> None:
    cores = min(2, len(os.sched_getaffinity(0)))
    tasks = [task for task in TASKS if "nominal" not in task]
    plan = [(t, n, cores, ("ours", "envpool")) for t in tasks for n in SIZES]
    measure("scaling", rounds, plan)


# ---------------------------------------------------------------------------------------------
# Report
# ---------------------------------------------------------------------------------------------


def read(what: str) -> dict[tuple[str, int, int], dict[str, list[dict[str, str]]]]:
    """Rows by (task, num_envs, threads) and contender."""
    found: dict[tuple[str, int, int], dict[str, list[dict[str, str]]]] = {}
    with (RESULTS / f"{what}.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            key = (row["task"], int(row["num_envs"]), int(row["threads"]))
            found.setdefault(key, {}).setdefault(row["name"], []).append(row)
    return found


def values(rows: list[dict[str, str]] | None, field: str = "rate") -> list[float]:
    return [float(row[field]) for row in rows or []]


def spread(rates: list[float]) -> str:
    """Median and range, in thousands."""
    if not rates:
        return "–"
    middle, low, high = statistics.median(rates) / 1e3, min(rates) / 1e3, max(rates) / 1e3
    return f"{middle:.1f} ({low:.1f}–{high:.1f})"


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median of each round's own ratio."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def rates_table() -> list[str]:
    """Of each contender the rate, and the median of ours divided by its, by the clock and per
    second of CPU."""
    lines = [
        "| task, cores | limit | ours | rollout | EnvPool | async | ours in physics | load |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (task, _, threads), rows in read("rates").items():
        cells = []
        for name in ("limit", "ours", "rollout", "envpool", "async"):
            text = spread(values(rows.get(name)))
            if name != "ours" and name in rows:
                by = [ratio(values(rows["ours"], f), values(rows[name], f))
                      for f in ("rate", "cpu_rate")]  # fmt: skip
                text += "<br>" + (
                    "{:.0%} / {:.0%}" if name == "limit" else "{:.2f} / {:.2f}"
                ).format(*by)
            cells.append(text)
        physics = statistics.median(values(rows["ours"], "physics"))
        load = statistics.median(values(rows["ours"], "load"))
        lines.append(f"| {task}, {threads} | {' | '.join(cells)} | {physics:.0%} | {load:.1f} |")
    return lines


def curves() -> dict[tuple[str, str], list[tuple[int, list[float], float]]]:
    """Number of environments, rates and MB of each task and contender."""
    found: dict[tuple[str, str], list[tuple[int, list[float], float]]] = {}
    for (task, num_envs, _), contenders in read("scaling").items():
        for name, rows in contenders.items():
            peak = max(float(row["peak_mb"]) for row in rows)
            found.setdefault((task, LABELS[name]), []).append((num_envs, values(rows), peak))
    return found


def scaling_table() -> list[str]:
    lines = [
        "| task | " + " | ".join(f"{n} environments" for n in SIZES) + " |",
        "|---" * (len(SIZES) + 1) + "|",
    ]
    for (task, label), points in curves().items():
        cells = [f"{statistics.median(p[1]) / 1e3:.1f}, {p[2]:.0f} MB" for p in points]
        lines.append(f"| {task}, {label} | " + " | ".join(cells) + " |")
    plot()
    return [*lines, "", "![steps/s over the number of environments](benchmarks/env_speed.png)"]


def plot() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = curves()
    tasks = list(dict.fromkeys(task for task, _ in found))
    figure, axes = plt.subplots(1, len(tasks), figsize=(4 * len(tasks), 3.2), squeeze=False)
    for axis, name in zip(axes[0], tasks, strict=True):
        for (task, label), points in found.items():
            if task == name:
                sizes, rates = [p[0] for p in points], [p[1] for p in points]
                (line,) = axis.plot(sizes, [statistics.median(r) for r in rates], "o-", label=label)
                low, high = [min(r) for r in rates], [max(r) for r in rates]
                axis.fill_between(sizes, low, high, alpha=0.2, color=line.get_color())
        axis.set(title=name, xlabel="environments", ylabel="steps/s", xscale="log", ylim=(0, None))
        axis.legend()
    figure.tight_layout()
    figure.savefig(RESULTS.parent / "env_speed.png", dpi=100)


def report() -> None:
    """Replace each table of docs/benchmarks.md, between its markers, that was measured."""
    for name, table in {"rates": rates_table, "scaling": scaling_table}.items():
        if (RESULTS / f"{name}.csv").exists():
            write_table("benchmarks.md", f"env {name}", table())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("rates", "scaling"):
        commands.add_parser(name).add_argument("--rounds", type=int, default=15)
    commands.add_parser("report", help="write tables and plot from the measurements so far")
    server = commands.add_parser("serve", help="used by the others: one contender")
    server.add_argument("contender", choices=CONTENDERS)
    server.add_argument("task", choices=TASKS)
    server.add_argument("num_envs", type=int)
    server.add_argument("threads", type=int)
    arguments = parser.parse_args()
    if arguments.command == "serve":
        serve(arguments.contender, arguments.task, arguments.num_envs, arguments.threads)
    elif arguments.command != "report":
        {"rates": rates, "scaling": scaling}[arguments.command](arguments.rounds)
        report()
    else:
        report()


if __name__ == "__main__":
    main()
