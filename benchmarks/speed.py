"""Speed against what people would use instead: the table of docs/update_speed.md.

    python benchmarks/speed.py updates    # measure
    python benchmarks/speed.py report     # write the table from what was measured

``updates``: gradient updates per second of DSAC-T (eager and compiled), stable-baselines3's SAC and
sbx's SAC on transitions of HalfCheetah's shape, one update per call as at one update per step, and
the limit: the FLOPs of a DSAC-T update at the rate of a 256 x 256 x 256 float32 product. Each
algorithm is a process of its own; they take turns, so that a busy moment of the machine meets all
of them, and each measures by the clock and in seconds of CPU. sbx runs in `.venv-jax`, made on
first use: benchmarks/requirements_jax.txt on top of the packages of this environment, so that both
have the same torch and stable-baselines3.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import resource
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from contenders import make_venv, running
from page import write_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "benchmarks" / "update_speed"
JAX = ROOT / ".venv-jax"
N_OBS, N_ACTION, BATCH = 17, 6, 256  # HalfCheetah-v5

NETWORKS = {"3x256 GELU": ([256, 256, 256], "gelu"), "2x256 ReLU": ([256, 256], "relu")}
CONTENDERS = ("product", "dsac_t", "dsac_t_compiled", "sb3_sac", "sbx_sac")


def update_flops(hidden: list[int], delay: int = 2) -> float:
    """FLOPs in the matrix products of one DSAC-T update, averaged over a delay period."""

    def products(n_in: int, n_out: int, inputs: int) -> tuple[int, int, int]:
        """Forward, weight gradients and, for `inputs` of the inputs, input gradients."""
        sizes = [n_in, *hidden, n_out]
        forward = sum(2 * BATCH * a * b for a, b in pairwise(sizes))
        first = 2 * BATCH * hidden[0]
        return forward, forward, forward - first * (n_in - inputs)

    actor, actor_weights, actor_inputs = products(N_OBS, 2 * N_ACTION, 0)
    critic, critic_weights, critic_hidden = products(N_OBS + N_ACTION, 2, 0)
    _, _, critic_actions = products(N_OBS + N_ACTION, 2, N_ACTION)
    every = actor + 2 * critic + 2 * (critic + critic_weights + critic_hidden)
    delayed = actor + 2 * (critic + critic_actions) + actor_weights + actor_inputs
    return every + delayed / delay


def make_product() -> Callable[[int], float]:
    """FLOPs of as many products as take about as long as `n` updates."""
    import torch

    a, b, c = (torch.randn(256, 256) for _ in range(3))

    def run(n: int) -> float:
        for _ in range(40 * n):
            torch.mm(a, b, out=c)
        return 40 * n * 2 * 256**3

    return run


def make_algorithm(contender: str, network: str) -> Callable[[int], float]:
    """`n` updates in as many calls of train, with 100 000 random transitions to sample."""
    import gymnasium as gym
    import numpy as np
    from gymnasium import spaces
    from stable_baselines3.common.logger import Logger

    hidden, activation = NETWORKS[network]
    policy_kwargs: dict[str, Any] = {"net_arch": hidden}
    algorithm: Any
    if contender == "sbx_sac":
        import flax.linen  # pyright: ignore[reportMissingImports]
        from sbx import SAC as algorithm  # pyright: ignore[reportMissingImports]

        if activation == "gelu":  # flax's is the cheaper approximation by tanh
            policy_kwargs["activation_fn"] = flax.linen.gelu
    else:
        import torch

        if contender.startswith("dsac_t"):
            from motoric.policies.dsac_t import DSACT as algorithm
        else:
            from stable_baselines3 import SAC as algorithm
        functions = {"gelu": torch.nn.GELU, "relu": torch.nn.ReLU}
        policy_kwargs["activation_fn"] = functions[activation]

    class Shape(gym.Env):
        observation_space = spaces.Box(-np.inf, np.inf, (N_OBS,), np.float32)
        action_space = spaces.Box(-1, 1, (N_ACTION,), np.float32)

    size = 100_000
    options = {"compile": True} if contender == "dsac_t_compiled" else {}
    model = algorithm(
        "MlpPolicy", Shape(), buffer_size=size + 1, seed=0, policy_kwargs=policy_kwargs, **options
    )
    model.set_logger(Logger(None, []))
    buffer, rng = model.replay_buffer, np.random.default_rng(0)
    for array in (buffer.observations, buffer.next_observations, buffer.rewards):
        array[:size] = rng.normal(size=array[:size].shape)
    buffer.actions[:size] = rng.uniform(-1, 1, size=buffer.actions[:size].shape)
    buffer.pos = size

    def run(n: int) -> float:
        for _ in range(n):
            model.train(gradient_steps=1, batch_size=BATCH)
        return n

    return run


def serve(contender: str, network: str, threads: int) -> None:
    """In a process of its own: measure whenever a line with a number of updates comes in."""
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(threads)
    run = make_product() if contender == "product" else make_algorithm(contender, network)
    run(20)  # compiles what is compiled
    print("ready", flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        work = run(int(line))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(work / wall, work / cpu, peak, flush=True)


def commands(network: str, threads: int) -> dict[str, list]:
    """How each contender is started."""
    python = dict.fromkeys(CONTENDERS, sys.executable) | {"sbx_sac": JAX / "bin" / "python"}
    return {name: [python[name], __file__, "serve", name, network, threads] for name in CONTENDERS}


def make_jax() -> None:
    """Make `.venv-jax`: JAX on top of the packages of this environment."""
    make_venv(JAX, "requirements_jax.txt", over=sysconfig.get_path("purelib"))


def updates(rounds: int, threads: list[int]) -> None:
    """Measure updates per second into updates.csv, a row per round and contender.

    What the file holds already is kept, so that a run can be resumed: delete it to start anew.
    """
    make_jax()
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / "updates.csv"
    if not path.exists():
        path.write_text("threads,network,round,name,rate,cpu_rate,peak_mb,load\n")
    with open(path, newline="") as file:
        measured = {(int(row["threads"]), row["network"]) for row in csv.DictReader(file)}
    for n, network in product(threads, NETWORKS):
        if (n, network) in measured:
            continue
        rows = []
        # JAX takes as many threads as cores
        environment = {
            "OMP_NUM_THREADS": str(n), "MKL_NUM_THREADS": str(n), "JAX_PLATFORMS": "cpu",
        }  # fmt: skip
        with running(commands(network, n), n, environment) as contenders:
            for turn in range(rounds):
                for name, contender in contenders.items():
                    values = *contender.ask(20), os.getloadavg()[0]
                    rows.append([n, network, turn, name, *(f"{v:.6g}" for v in values)])
        with open(path, "a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        print(f"{network}, {n} threads: done", flush=True)


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.0f} ({min(values):.0f}–{max(values):.0f})"


def table() -> list[str]:
    """Medians and ranges over the rounds; shares and ratios are medians of each round's own."""
    with open(RESULTS / "updates.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [
        "| networks, threads | limit | DSAC-T | of the limit | / SB3 | / sbx | SB3 SAC | sbx SAC "
        "| peak MB: DSAC-T, SB3, sbx | load |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for threads, network in dict.fromkeys((row["threads"], row["network"]) for row in rows):
        here = [r for r in rows if (r["threads"], r["network"]) == (threads, network)]
        column = {
            (name, key): [float(r[key]) for r in here if r["name"] == name]
            for name in CONTENDERS
            for key in ("rate", "cpu_rate", "peak_mb")
        }
        flops = update_flops(NETWORKS[network][0])
        limit = [rate / flops for rate in column["product", "rate"]]
        load = statistics.median(float(r["load"]) for r in here)
        for name, title in (("dsac_t", network), ("dsac_t_compiled", f"{network}, compiled")):

            def over(other: str, scale: float = 1.0, column: Any = column, name: str = name) -> str:
                """DSAC-T over another contender, by the clock and per second of CPU."""
                ratios = [
                    statistics.median(
                        scale * a / b
                        for a, b in zip(column[name, key], column[other, key], strict=True)
                    )
                    for key in ("rate", "cpu_rate")
                ]
                return " / ".join(
                    f"{ratio:.0%}" if other == "product" else f"{ratio:.2f}" for ratio in ratios
                )

            peak = [max(column[each, "peak_mb"]) for each in (name, "sb3_sac", "sbx_sac")]
            lines.append(
                f"| {title}, {threads} | {spread(limit)} | {spread(column[name, 'rate'])} "
                f"| {over('product', flops)} | {over('sb3_sac')} | {over('sbx_sac')} "
                f"| {spread(column['sb3_sac', 'rate'])} | {spread(column['sbx_sac', 'rate'])} "
                f"| {', '.join(f'{value:.0f}' for value in peak)} | {load:.1f} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("updates", help="gradient updates per second")
    measure.add_argument("--rounds", type=int, default=15)
    cores = len(os.sched_getaffinity(0))
    measure.add_argument("--threads", type=int, nargs="+", default=[1, 2][:cores])
    commands.add_parser("report", help="write the tables from the measurements so far")
    server = commands.add_parser("serve", help="used by updates: one contender")
    server.add_argument("contender", choices=CONTENDERS)
    server.add_argument("network", choices=NETWORKS)
    server.add_argument("threads", type=int)
    arguments = parser.parse_args()
    if arguments.command == "updates":
        updates(arguments.rounds, arguments.threads)
    elif arguments.command == "serve":
        serve(arguments.contender, arguments.network, arguments.threads)
    if arguments.command != "serve":
        write_table("update_speed.md", "updates", table())


if __name__ == "__main__":
    main()
