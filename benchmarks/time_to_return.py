"""Time to a good policy: CPU seconds until a task is solved, of ours and others.

    python benchmarks/time_to_return.py run [--jobs 2]   # whatever is not finished yet: hours
    python benchmarks/time_to_return.py report           # table and plot in docs/benchmarks.md

HalfCheetah-v5  a mean return of 4000 in 10 episodes from the same initial states each time
go2_velocity    the bar of `make demo`: at 0.5 m/s for 10 s a mean velocity error under 0.15 m/s,
                and 18 of 20 episodes without a fall

Policies act deterministically when they are evaluated. Every run has one core, one thread, and
writes one CSV, a row per evaluation. A run ends with the first evaluation that solves the task, or
at the task's limit. Evaluations are not counted, imports and compilation are. Seconds of CPU are
what is compared (with those of the processes that simulate), since other programs hardly touch
them; on an idle machine they are those of the clock. Finished runs are skipped, interrupted ones
start over.

dsac_t        one update per environment step, as benchmarks/dsac_t_vs_sac.py
dsac_t_quick  32 environments simulated together, two updates per step of all of them, learning
              rates of 1e-3: sooner there, with more environment steps
sb3_sac       stable-baselines3's SAC, its defaults
sbx_sac       sbx's SAC (JAX), its defaults; in `.venv-jax`, as for benchmarks/speed.py
ppo           stable-baselines3's PPO on 128 environments simulated together, as in `GO2_PPO`
sb3_ppo       the same with 8 environments in processes (SubprocVecEnv), as many steps per update
sbx_ppo       as sb3_ppo with sbx's PPO
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
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from page import write_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "benchmarks" / "time_to_return"
PLOT = ROOT / "docs" / "benchmarks" / "time_to_return.png"
SEEDS = (0, 1, 2)
ENDED = "ended"  # the last line of a finished CSV


@dataclass(frozen=True)
class Task:
    """contenders: ours first; every, limit: s of CPU between evaluations, and in all;
    steps: at most, and what schedules are for"""

    name: str
    goal: str
    contenders: tuple[str, ...]
    every: float
    limit: float
    steps: int


CHEETAH = Task(
    "HalfCheetah-v5", "4000", ("dsac_t_quick", "dsac_t", "sbx_sac", "sb3_sac"), 30, 2400, 10**9
)
GO2 = Task("go2_velocity", "the demo's bar", ("ppo", "sbx_ppo", "sb3_ppo"), 30, 400, 1_100_000)
TASK_OF = {contender: task for task in (CHEETAH, GO2) for contender in task.contenders}
PROCESSES = 8
GO2_PPO = (
    "policy=ppo", "env=go2_velocity", "env.num_envs=128", "policy.net_arch=[128,128]",
    "policy.activation=elu", "policy.n_steps=24", "policy.batch_size=1536", "policy.n_epochs=5",
    "policy.gamma=0.97", "policy.learning_rate=1e-3", "policy.learning_rate_end=3e-4",
    "policy.vf_coef=1.0", "policy.max_grad_norm=1.0", "policy.log_std_init=-1.0",
    "policy.normalize_observation=true",
)  # fmt: skip


def make_cheetah(contender: str, seed: int) -> Any:
    """An algorithm for HalfCheetah, ready to learn."""
    if contender == "sbx_sac":
        from sbx import SAC  # pyright: ignore[reportMissingImports]

        return SAC("MlpPolicy", CHEETAH.name, seed=seed)
    if contender == "sb3_sac":
        from stable_baselines3 import SAC

        return SAC("MlpPolicy", CHEETAH.name, seed=seed, device="cpu")
    from motoric.envs.registry import make_batch
    from motoric.envs.vector import BatchVecEnv
    from motoric.policies.dsac_t import DSACT

    quick = contender == "dsac_t_quick"
    rate = 1e-3 if quick else 3e-4
    env = BatchVecEnv(make_batch(CHEETAH.name, 32 if quick else 1, seed, num_threads=1))
    return DSACT(
        "MlpPolicy", env, seed=seed,
        device="cpu", learning_rate=rate, alpha_learning_rate=rate, log_alpha_init=0.0,
        warmup="uniform", learning_starts=1000, train_freq=1, gradient_steps=2 if quick else 1,
        policy_kwargs={"net_arch": [256, 256]},
    )  # fmt: skip


def make_go2(contender: str, seed: int) -> Any:
    """An algorithm for the Go2, ready to learn; all with the same hyperparameters."""
    from motoric.envs.registry import make_batch
    from motoric.envs.vector import BatchVecEnv
    from motoric.policies import baselines
    from motoric.scripts import config
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecNormalize

    settings = config.load("train", list(GO2_PPO))
    policy: Any = settings.policy
    env: VecEnv
    if contender == "ppo":
        env = BatchVecEnv(make_batch("go2_velocity", settings.env.num_envs, seed, num_threads=1))
    else:
        policy.n_steps *= settings.env.num_envs // PROCESSES
        name = "motoric.envs:motoric/go2_velocity"
        env = make_vec_env(name, PROCESSES, seed, vec_env_cls=SubprocVecEnv)
    if contender != "sbx_ppo":
        return baselines.ppo(policy, env, None, seed, "cpu").model
    env = VecNormalize(env, norm_reward=False, gamma=policy.gamma)
    import flax.linen  # pyright: ignore[reportMissingImports]
    from sbx import PPO  # pyright: ignore[reportMissingImports]

    start, end = policy.learning_rate, policy.learning_rate_end
    same = (
        "n_steps", "batch_size", "n_epochs", "gamma", "gae_lambda", "clip_range", "ent_coef",
        "vf_coef", "max_grad_norm",
    )  # fmt: skip
    return PPO(
        "MlpPolicy", env, seed=seed, learning_rate=lambda left: end + (start - end) * left,
        policy_kwargs={
            "net_arch": policy.net_arch, "activation_fn": flax.linen.elu,
            "log_std_init": policy.log_std_init,
        },
        **{key: getattr(policy, key) for key in same},
    )  # fmt: skip


def judge_cheetah(model: Any, test: list[Any]) -> dict[str, float]:
    """The mean return. test: keeps the environments from call to call."""
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    if not test:
        test.append(make_vec_env(CHEETAH.name, 10, seed=1000))
    test[0].seed(1000)
    return {"return_mean": float(evaluate_policy(model, test[0], 10)[0])}  # type: ignore[arg-type]


def judge_go2(model: Any, test: list[Any]) -> dict[str, float]:
    """What the demo measures."""
    from motoric.envs.registry import make_batch
    from motoric.scripts import demo
    from motoric.scripts.training import evaluation

    normalize = model.get_vec_normalize_env().normalize_obs
    policy: Any = SimpleNamespace(
        act=lambda obs: model.predict(normalize(obs), deterministic=True)[0]
    )
    options = {"episode_seconds": demo.SECONDS}
    batch = make_batch("go2_velocity", demo.EPISODES, evaluation.TEST, options=options)
    batch.hold_goal(demo.GOAL)
    summary = evaluation.episodes_of(policy, batch).summary()
    return {
        "return_mean": summary["return_mean"],
        "velocity_error": summary["velocity_error_mean"],
        "upright": demo.EPISODES - summary["terminated"],
    }


def solves(task: Task, row: dict[str, Any]) -> bool:
    """Whether an evaluation meets the task's goal."""
    if task is CHEETAH:
        return float(row["return_mean"]) >= float(task.goal)
    from motoric.scripts import demo

    return float(row["velocity_error"]) < demo.ERROR and float(row["upright"]) >= demo.UPRIGHT


def cpu_seconds(children: list[int]) -> float:
    """Of this process and of those it has started."""
    ticks = 0
    for pid in children:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime, stime
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def learn(contender: str, seed: int) -> None:
    """One run, to its CSV."""
    began, cpu_before = time.perf_counter(), time.process_time()
    if not contender.startswith("sbx"):
        import torch

        torch.set_num_threads(1)
    from stable_baselines3.common.callbacks import BaseCallback

    task = TASK_OF[contender]
    make, judge = (make_go2, judge_go2) if task is GO2 else (make_cheetah, judge_cheetah)
    test: list[Any] = []
    with open(RESULTS / f"{contender}_seed{seed}.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")

        class Watch(BaseCallback):
            """Evaluates now and then, and ends the run."""

            evaluated = evaluated_cpu = last = 0.0
            children: list[int]

            def _on_training_start(self) -> None:
                processes = getattr(self.training_env.unwrapped, "processes", [])
                self.children = [process.pid for process in processes]

            def _on_step(self) -> bool:
                cpu = cpu_seconds(self.children) - cpu_before - self.evaluated_cpu
                if cpu - self.last < task.every:
                    return True
                seconds = time.perf_counter() - began - self.evaluated
                start, cpu_start = time.perf_counter(), time.process_time()
                found = judge(self.model, test)
                self.evaluated += time.perf_counter() - start
                self.evaluated_cpu += time.process_time() - cpu_start
                model: Any = self.model
                row = {
                    "cpu_seconds": cpu, "seconds": seconds, "steps": model.num_timesteps,
                    "updates": model._n_updates, **found,
                }  # fmt: skip
                if not self.last:
                    writer.writerow(row)
                self.last = cpu
                writer.writerow(f"{value:.6g}" for value in row.values())
                file.flush()
                return not solves(task, row) and cpu < task.limit

        model = make(contender, seed)
        model.learn(task.steps, callback=Watch())
        writer.writerow([ENDED])
        model.get_env().close()


def finished(contender: str, seed: int) -> bool:
    path = RESULTS / f"{contender}_seed{seed}.csv"
    return path.exists() and path.read_text().rstrip().endswith(ENDED)


def run(jobs: int, contenders: list[str]) -> None:
    """All runs that are not finished, `jobs` at a time."""
    from speed import JAX, make_jax

    if any(contender.startswith("sbx") for contender in contenders):
        make_jax()
    RESULTS.mkdir(parents=True, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))
    free = list(cores)
    one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}

    def start(which: tuple[int, str]) -> None:
        seed, contender = which
        core = free.pop()
        python = str(JAX / "bin" / "python") if contender.startswith("sbx") else sys.executable
        done = subprocess.run(
            [python, __file__, "learn", contender, str(seed)], env=os.environ | one,
            preexec_fn=lambda: os.sched_setaffinity(0, [core]),
        )  # fmt: skip
        free.append(core)
        print(
            f"{contender} seed {seed}: {'done' if done.returncode == 0 else 'FAILED'}", flush=True
        )

    missing = [(s, c) for s in SEEDS for c in contenders if not finished(c, s)]
    with ThreadPoolExecutor(min(jobs, len(cores))) as pool:
        list(pool.map(start, missing))


def runs(contender: str) -> list[list[dict[str, str]]]:
    """The evaluations of each finished run."""
    found = []
    for seed in SEEDS:
        if finished(contender, seed):
            with open(RESULTS / f"{contender}_seed{seed}.csv", newline="") as file:
                found.append([r for r in csv.DictReader(file) if r["return_mean"]])
    return found


def plot() -> None:
    """Every run's return over its seconds of CPU, a colour per contender."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for task, ax in zip((CHEETAH, GO2), axes, strict=True):
        for i, contender in enumerate(task.contenders):
            for j, rows in enumerate(runs(contender)):
                label = contender if j == 0 else None
                x, y = ([float(r[k]) for r in rows] for k in ("cpu_seconds", "return_mean"))
                ax.plot(x, y, color=f"C{i}", label=label, marker="o", markevery=[-1])
        ax.set(title=task.name, xlabel="seconds of CPU, one core", ylabel="return")
        ax.set(xlim=(0, None))
        ax.grid(alpha=0.3)
        ax.legend(frameon=False)
    figure.savefig(PLOT, dpi=110)


def thousands(values: list[float]) -> str:
    """Their range, in thousands."""
    digits = 0 if max(values) >= 10_000 else 2
    return f"{min(values) / 1000:.{digits}f}–{max(values) / 1000:.{digits}f} k"


def report() -> None:
    """Write the table into the page."""
    lines = [
        "| task, goal | algorithm | CPU s, per seed | median | over ours | clock s, per seed "
        "| environment steps | updates |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    ours: dict[str, float] = {}
    for contender, task in TASK_OF.items():
        last = [rows[-1] for rows in runs(contender)]
        if not last:
            continue
        solved = [solves(task, row) for row in last]
        times = [float(row["cpu_seconds"]) for row in last]
        shown = [
            f"{t:.0f}" if there else f"> {t:.0f} ({float(row['return_mean']):.0f})"
            for t, there, row in zip(times, solved, last, strict=True)
        ]
        middle = statistics.median_high(times)
        first = ours.setdefault(task.name, middle)
        at_least = "" if sum(solved) > len(solved) / 2 else "> "
        clock = ", ".join(f"{float(row['seconds']):.0f}" for row in last)
        ranges = [thousands([float(row[key]) for row in last]) for key in ("steps", "updates")]
        lines.append(
            f"| {task.name}, {task.goal} | {contender} | {', '.join(shown)} "
            f"| {at_least}{middle:.0f} | {at_least}{middle / first:.1f} "
            f"| {clock} | {' | '.join(ranges)} |"
        )
    plot()
    lines += ["", "![return over CPU seconds](benchmarks/time_to_return.png)"]
    write_table("benchmarks.md", "time to return", lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    every = commands.add_parser("run", help="what is not finished yet")
    every.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    every.add_argument("contenders", nargs="*", choices=[[], *TASK_OF], default=[])
    commands.add_parser("report", help="write the table from the finished runs")
    one = commands.add_parser("learn", help="used by run: one contender, one seed")
    one.add_argument("contender", choices=TASK_OF)
    one.add_argument("seed", type=int)
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments.jobs, list(arguments.contenders) or list(TASK_OF))
    elif arguments.command == "learn":
        learn(arguments.contender, arguments.seed)
    else:
        report()


if __name__ == "__main__":
    main()
