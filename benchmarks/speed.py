"""Speed against what people would use instead: the tables of docs/benchmarks.md.

    python benchmarks/speed.py updates    # measure
    python benchmarks/speed.py report     # write the tables from what was measured

``updates``: gradient updates per second of DSAC-T, stable-baselines3's SAC and sbx's SAC on
transitions of HalfCheetah's shape, one update per call as at one update per step, and the limit:
the FLOPs of a DSAC-T update at the rate of a 256 x 256 x 256 float32 product. Each algorithm is a
process of its own; they take turns, so that a busy moment of the machine meets all of them.
sbx runs in `.venv-bench`, made from benchmarks/requirements.txt on first use.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import resource
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "benchmarks" / "speed"
PAGE = ROOT / "docs" / "benchmarks.md"
BENCH = ROOT / ".venv-bench"
N_OBS, N_ACTION, BATCH = 17, 6, 256  # HalfCheetah-v5

# ---------------------------------------------------------------------------------------------
# Updates per second
# ---------------------------------------------------------------------------------------------

NETWORKS = {"3x256 GELU": ([256, 256, 256], "gelu"), "2x256 ReLU": ([256, 256], "relu")}
CONTENDERS = ("product", "dsac_t", "sb3_sac", "sbx_sac")


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
    """Rate of the product in FLOP/s, over about as long as `n` updates take."""
    import torch

    a, b, c = (torch.randn(256, 256) for _ in range(3))

    def run(n: int) -> float:
        start = time.perf_counter()
        for _ in range(40 * n):
            torch.mm(a, b, out=c)
        return 40 * n * 2 * 256**3 / (time.perf_counter() - start)

    return run


def make_algorithm(contender: str, network: str) -> Callable[[int], float]:
    """Updates per second over `n` calls of train(1), with 100 000 random transitions to sample."""
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

        if contender == "dsac_t":
            from motoric.policies.dsac_t import DSACT as algorithm
        else:
            from stable_baselines3 import SAC as algorithm
        functions = {"gelu": torch.nn.GELU, "relu": torch.nn.ReLU}
        policy_kwargs["activation_fn"] = functions[activation]

    class Shape(gym.Env):
        observation_space = spaces.Box(-np.inf, np.inf, (N_OBS,), np.float32)
        action_space = spaces.Box(-1, 1, (N_ACTION,), np.float32)

    size = 100_000
    model = algorithm(
        "MlpPolicy", Shape(), buffer_size=size + 1, seed=0, policy_kwargs=policy_kwargs
    )
    model.set_logger(Logger(None, []))
    buffer, rng = model.replay_buffer, np.random.default_rng(0)
    for array in (buffer.observations, buffer.next_observations, buffer.rewards):
        array[:size] = rng.normal(size=array[:size].shape)
    buffer.actions[:size] = rng.uniform(-1, 1, size=buffer.actions[:size].shape)
    buffer.pos = size

    def run(n: int) -> float:
        start = time.perf_counter()
        for _ in range(n):
            model.train(gradient_steps=1, batch_size=BATCH)
        return n / (time.perf_counter() - start)

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
        rate = run(int(line))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(rate, peak, flush=True)


@contextlib.contextmanager
def servers(network: str, threads: int) -> Iterator[dict[str, subprocess.Popen]]:
    """One process per contender, ready to measure."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "JAX_PLATFORMS": "cpu",
    }
    cores = sorted(os.sched_getaffinity(0))[:threads]  # JAX takes as many threads as cores
    found: dict[str, subprocess.Popen] = {}
    try:
        for contender in CONTENDERS:
            python = BENCH / "bin" / "python" if contender == "sbx_sac" else sys.executable
            command = [python, __file__, "serve", contender, network, str(threads)]
            found[contender] = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )
        for contender, process in found.items():
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise SystemExit(f"{contender} did not start")
        yield found
    finally:
        for process in found.values():
            process.kill()
            process.wait()


def ask(process: subprocess.Popen, n: int) -> list[float]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{n}\n")
    process.stdin.flush()
    return [float(value) for value in process.stdout.readline().split()]


def updates(rounds: int) -> None:
    """Measure updates per second; writes updates.csv, a row per round and contender."""
    if not (BENCH / "bin" / "python").exists():
        venv.create(BENCH, with_pip=True)
        pip = [BENCH / "bin" / "python", "-m", "pip", "install", "-q", "-r"]
        subprocess.run([*pip, ROOT / "benchmarks" / "requirements.txt"], check=True)
    rows = []
    for threads in range(1, len(os.sched_getaffinity(0)) + 1)[:2]:
        for network in NETWORKS:
            with servers(network, threads) as processes:
                for turn in range(rounds):
                    for contender, process in processes.items():
                        rate, peak = ask(process, 20)
                        load = os.getloadavg()[0]
                        rows.append([threads, network, turn, contender, rate, peak, load])
            print(f"{network}, {threads} threads: done", flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    with open(RESULTS / "updates.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["threads", "network", "round", "name", "rate", "peak_mb", "load"])
        writer.writerows(
            [*row[:4], f"{row[4]:.6g}", *(f"{v:.2f}" for v in row[5:])] for row in rows
        )


def updates_table() -> list[str]:
    """Medians and ranges over the rounds; shares and ratios are medians of each round's own."""
    with open(RESULTS / "updates.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [
        "| networks, threads | limit | DSAC-T | of the limit | SB3 SAC | DSAC-T / SB3 | sbx SAC "
        "| DSAC-T / sbx | peak MB: DSAC-T, SB3, sbx | load |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for threads, network in dict.fromkeys((row["threads"], row["network"]) for row in rows):
        here = [r for r in rows if (r["threads"], r["network"]) == (threads, network)]
        rate = {c: [float(r["rate"]) for r in here if r["name"] == c] for c in CONTENDERS}
        flops = update_flops(NETWORKS[network][0])
        limit = [product / flops for product in rate["product"]]
        peak = [max(float(r["peak_mb"]) for r in here if r["name"] == c) for c in CONTENDERS[1:]]
        load = statistics.median(float(r["load"]) for r in here)
        ours = rate["dsac_t"]
        lines.append(
            f"| {network}, {threads} | {spread(limit)} | {spread(ours)} "
            f"| {statistics.median(a / b for a, b in zip(ours, limit, strict=True)):.0%} "
            f"| {spread(rate['sb3_sac'])} | {ratio(ours, rate['sb3_sac'])} "
            f"| {spread(rate['sbx_sac'])} | {ratio(ours, rate['sbx_sac'])} "
            f"| {', '.join(f'{value:.0f}' for value in peak)} | {load:.1f} |"
        )
    return lines


# ---------------------------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------------------------

TABLES: dict[str, Callable[[], list[str]]] = {"updates": updates_table}


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.0f} ({min(values):.0f}–{max(values):.0f})"


def ratio(ours: list[float], theirs: list[float]) -> str:
    return f"{statistics.median(a / b for a, b in zip(ours, theirs, strict=True)):.2f}"


def report() -> None:
    """Replace each table of docs/benchmarks.md, between its markers, that was measured."""
    for name, table in TABLES.items():
        if (RESULTS / f"{name}.csv").exists():
            lines = table()
            print("\n".join(lines))
            begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
            head, rest = PAGE.read_text().split(begin)
            PAGE.write_text("\n".join([head + begin, *lines, end + rest.split(end)[1]]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("updates", help="gradient updates per second")
    measure.add_argument("--rounds", type=int, default=15)
    commands.add_parser("report", help="write the tables from the measurements so far")
    server = commands.add_parser("serve", help="used by updates: one contender")
    server.add_argument("contender", choices=CONTENDERS)
    server.add_argument("network", choices=NETWORKS)
    server.add_argument("threads", type=int)
    arguments = parser.parse_args()
    if arguments.command == "updates":
        updates(arguments.rounds)
    elif arguments.command == "serve":
        serve(arguments.contender, arguments.network, arguments.threads)
    if arguments.command != "serve":
        report()


if __name__ == "__main__":
    main()
