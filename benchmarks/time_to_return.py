"""Time to a good policy: CPU seconds until HalfCheetah-v5 returns 4000, of DSAC-T and others.

    python benchmarks/time_to_return.py run [--jobs 2]   # whatever is not finished yet: hours
    python benchmarks/time_to_return.py report           # the table in docs/benchmarks.md

Every run is one process on one core with one thread and writes one CSV, a row per evaluation: the
mean of 10 deterministic episodes from the same initial states each time. A run ends with the first
evaluation that reaches the threshold, or after `LIMIT` s. Evaluations are not counted, imports and
compilation are. Seconds of CPU are what is compared, since other programs hardly touch them; on an
idle machine they are those of the clock. Finished runs are skipped, interrupted ones start over.

dsac_t        one update per environment step, as benchmarks/dsac_t_vs_sac.py
dsac_t_quick  8 environments simulated together, an update per step of all of them, learning rates
              of 1e-3: sooner there, with more environment steps
sb3_sac       stable-baselines3's SAC, its defaults
sbx_sac       sbx's SAC (JAX), its defaults; in `.venv-jax`, as for benchmarks/speed.py
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "benchmarks" / "time_to_return"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- time to return: begin -->", "<!-- time to return: end -->"
TASK, THRESHOLD, LIMIT = "HalfCheetah-v5", 4000.0, 2400.0
EVERY, EPISODES = 30.0, 10  # s of CPU between evaluations
SEEDS = (0, 1, 2)
CONTENDERS = ("dsac_t_quick", "dsac_t", "sbx_sac", "sb3_sac")
ENDED = "ended"  # the last line of a finished CSV


def make(contender: str, seed: int) -> Any:
    """The algorithm, ready to learn."""
    if contender == "sbx_sac":
        from sbx import SAC  # pyright: ignore[reportMissingImports]

        return SAC("MlpPolicy", TASK, seed=seed)
    import torch

    torch.set_num_threads(1)
    if contender == "sb3_sac":
        from stable_baselines3 import SAC

        return SAC("MlpPolicy", TASK, seed=seed, device="cpu")
    from motoric.envs.make import make_vec
    from motoric.policies.dsac_t import DSACT

    quick = contender == "dsac_t_quick"
    rate = 1e-3 if quick else 3e-4
    return DSACT(
        "MlpPolicy", make_vec(TASK, 8 if quick else 1, seed, num_threads=1), seed=seed,
        device="cpu", learning_rate=rate, alpha_learning_rate=rate, log_alpha_init=0.0,
        warmup="uniform", learning_starts=1000, train_freq=1,
        policy_kwargs={"net_arch": [256, 256]},
    )  # fmt: skip


def learn(contender: str, seed: int) -> None:
    """One run, to its CSV."""
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    began, cpu_before = time.perf_counter(), time.process_time()
    test = make_vec_env(TASK, EPISODES, seed=1000)
    path = RESULTS / f"{contender}_seed{seed}.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["cpu_seconds", "seconds", "steps", "updates", "return_mean"])

        class Watch(BaseCallback):
            """Evaluates now and then, and ends the run."""

            evaluated = evaluated_cpu = last = 0.0

            def _on_step(self) -> bool:
                cpu = time.process_time() - cpu_before - self.evaluated_cpu
                if cpu - self.last < EVERY:
                    return True
                self.last, seconds = cpu, time.perf_counter() - began - self.evaluated
                start, cpu_start = time.perf_counter(), time.process_time()
                test.seed(1000)  # the same initial states every time
                reached = float(evaluate_policy(self.model, test, EPISODES)[0])  # type: ignore
                self.evaluated += time.perf_counter() - start
                self.evaluated_cpu += time.process_time() - cpu_start
                model: Any = self.model
                values = [cpu, seconds, model.num_timesteps, model._n_updates, reached]
                writer.writerow(f"{value:.6g}" for value in values)
                file.flush()
                return reached < THRESHOLD and cpu < LIMIT

        make(contender, seed).learn(10**9, callback=Watch())
        writer.writerow([ENDED])


def finished(contender: str, seed: int) -> bool:
    path = RESULTS / f"{contender}_seed{seed}.csv"
    return path.exists() and path.read_text().rstrip().endswith(ENDED)


def run(jobs: int, contenders: list[str]) -> None:
    """All runs that are not finished, `jobs` at a time."""
    from speed import JAX, make_jax

    if "sbx_sac" in contenders:
        make_jax()
    RESULTS.mkdir(parents=True, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))
    free = list(cores)
    one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}

    def start(which: tuple[int, str]) -> None:
        seed, contender = which
        core = free.pop()
        python = str(JAX / "bin" / "python") if contender == "sbx_sac" else sys.executable
        done = subprocess.run(
            [python, __file__, "learn", contender, str(seed)], env=os.environ | one,
            preexec_fn=lambda: os.sched_setaffinity(0, [core]),
        )  # fmt: skip
        free.append(core)
        print(
            f"{contender} seed {seed}: {'done' if done.returncode == 0 else 'FAILED'}", flush=True
        )

    missing = [(s, c) for s, c in product(SEEDS, contenders) if not finished(c, s)]
    with ThreadPoolExecutor(min(jobs, len(cores))) as pool:
        list(pool.map(start, missing))


def report() -> None:
    """Write the table into the page."""
    lines = [
        "| algorithm | CPU s to 4000, per seed | median | environment steps | updates |",
        "| --- | --- | --- | --- | --- |",
    ]
    for contender in CONTENDERS:
        last = []
        for seed in SEEDS:
            if finished(contender, seed):
                with open(RESULTS / f"{contender}_seed{seed}.csv", newline="") as file:
                    last.append([r for r in csv.DictReader(file) if r["return_mean"]][-1])
        if not last:
            continue
        reached = [float(row["return_mean"]) >= THRESHOLD for row in last]
        times = [float(row["cpu_seconds"]) for row in last]
        shown = [
            f"{t:.0f}" if there else f"> {t:.0f} ({float(row['return_mean']):.0f})"
            for t, there, row in zip(times, reached, last, strict=True)
        ]
        middle = statistics.median_high(times)
        sure = sum(reached) > len(reached) / 2
        ranges = [
            f"{min(values):.0f}–{max(values):.0f} k"
            for key in ("steps", "updates")
            if (values := [float(row[key]) / 1000 for row in last])
        ]
        lines.append(
            f"| {contender} | {', '.join(shown)} | {'' if sure else '> '}{middle:.0f} | "
            f"{' | '.join(ranges)} |"
        )
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text("\n".join([before + BEGIN, "", *lines, "", END + rest.split(END)[1]]))
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    every = commands.add_parser("run", help="what is not finished yet")
    every.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    every.add_argument("contenders", nargs="*", choices=[[], *CONTENDERS], default=[])
    commands.add_parser("report", help="write the table from the finished runs")
    one = commands.add_parser("learn", help="used by run: one contender, one seed")
    one.add_argument("contender", choices=CONTENDERS)
    one.add_argument("seed", type=int)
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments.jobs, list(arguments.contenders) or list(CONTENDERS))
    elif arguments.command == "learn":
        learn(arguments.contender, arguments.seed)
    else:
        report()


if __name__ == "__main__":
    main()
