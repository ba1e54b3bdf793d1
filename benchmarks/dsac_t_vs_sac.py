"""DSAC-T against stable-baselines3's SAC, and the ablation of DSAC-T's three refinements.

    python benchmarks/dsac_t_vs_sac.py run --jobs 2   # whatever is not finished yet
    python benchmarks/dsac_t_vs_sac.py report         # curves and tables from what is there

Every run is one process with one torch thread and writes one CSV under ``docs/benchmarks/``, a row
per evaluation. Finished runs are skipped and interrupted ones start over, so each curve is one
uninterrupted run of its seed. The setting is the same for all tasks, nothing is tuned per task:

both    1 update per environment step, two hidden layers of 256 (SAC's default size), batch 256,
        Adam 3e-4 for actor, critics and temperature, gamma 0.99, tau 0.005, initial temperature 1,
        1000 uniform steps before learning
SAC     stable-baselines3's defaults otherwise (ReLU; everything is stepped at every update)
DSAC-T  the paper's values otherwise (GELU; Gaussian loss; actor, temperature and targets are
        stepped at every second update)
"""

import argparse
import csv
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import matplotlib
import numpy as np
import torch as th
from motoric.policies.dsac_t import DSACT
from page import write_table
from scipy.stats import trim_mean
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).resolve().parent.parent / "docs"
SEEDS = (0, 1, 2)
EPISODES = 10  # deterministic, from the same initial states at every evaluation

# task: (environment steps, steps between evaluations)
TASKS = {
    "InvertedDoublePendulum-v5": (50_000, 2_500),
    "Hopper-v5": (50_000, 2_500),
    "HalfCheetah-v5": (100_000, 5_000),
}
COMMON = {"learning_starts": 1_000, "train_freq": 1, "device": "cpu"}
NET = {"policy_kwargs": {"net_arch": [256, 256]}}
VERSUS = {
    "dsac_t": (
        DSACT,
        COMMON
        | NET
        | {
            "learning_rate": 3e-4,
            "alpha_learning_rate": 3e-4,
            "log_alpha_init": 0.0,
            "warmup": "uniform",
        },
    ),
    "sac": (SAC, COMMON | NET | {"learning_rate": 3e-4}),
}

# The ablation's task. The initial temperature follows the reward scale: a temperature of 1 with
# rewards of 0.01 would only measure how fast the temperature can fall.
ABLATION_TASK, ABLATION_STEPS, ABLATION_EVERY = "Pendulum-v1", 15_000, 1_500
ABLATION = {
    "full": {},
    "no_R1": {"expected_value_target": False},
    "no_R2": {"twin_critics": False},
    "no_R3": {"variance_adjustment": False},
    "full_scale_0.01": {"reward_scale": 0.01},
    "no_R3_scale_0.01": {"reward_scale": 0.01, "variance_adjustment": False},
    "full_scale_100": {"reward_scale": 100.0},
    "no_R3_scale_100": {"reward_scale": 100.0, "variance_adjustment": False},
}


def csv_path(group: str, name: str, seed: int) -> Path:
    folder = "dsac_t_vs_sac" if group != "ablation" else "dsac_t_ablation"
    prefix = "" if group == "ablation" else f"{group}_"
    return DOCS / "benchmarks" / folder / f"{prefix}{name}_seed{seed}.csv"


def jobs() -> list[tuple[str, str, int]]:
    """(task or "ablation", algorithm or variant, seed), seeds interleaved, slow ones last."""
    *short, long = TASKS
    queue = [(task, algo, seed) for seed in SEEDS for task in short for algo in VERSUS]
    queue += [("ablation", name, seed) for seed in SEEDS for name in ABLATION]
    return queue + [(long, algo, seed) for seed in SEEDS for algo in VERSUS]


def budget(group: str) -> tuple[int, int]:
    return (ABLATION_STEPS, ABLATION_EVERY) if group == "ablation" else TASKS[group]


def read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


def finished(group: str, name: str, seed: int) -> bool:
    rows = read(csv_path(group, name, seed))
    return bool(rows) and int(rows[-1]["step"]) >= budget(group)[0]


# ---------------------------------------------------------------------------------------------
# One run
# ---------------------------------------------------------------------------------------------


def soft_return_bias(model: DSACT, task: str, envs: int = 10, states: int = 200) -> float:
    """Mean of Q(s, a) minus the Monte-Carlo soft return, over the policy's own states.

    Q is the mean of the critics. The soft return from (s, a) is r plus the discounted
    r - alpha log pi of all later steps, as in the definition of Q; episodes run on until what
    the discount cuts off is below 1e-3 of a return. In units of the unscaled reward.
    """
    horizon = states + math.ceil(math.log(1e-3) / math.log(model.gamma))
    env = make_vec_env(
        task, n_envs=envs, seed=20_000, env_kwargs={"max_episode_steps": horizon + 1}
    )
    obs = env.reset()
    alpha = model.policy.log_alpha.exp().item()
    q_values, rewards, bonuses = [], [], []
    for _ in range(horizon):
        assert isinstance(obs, np.ndarray)
        with th.no_grad():
            tensor = th.as_tensor(obs)
            action, logp = model.actor.action_log_prob(tensor)
            q_values.append(model.critic(tensor, action)[0].mean(dim=0).numpy())
        obs, reward, done, _ = env.step(model.policy.unscale_action(action.numpy()))
        assert not done.any(), "the bias is measured on tasks without termination"
        rewards.append(model.reward_scale * reward)
        bonuses.append(-alpha * (logp.numpy() - model.log_scale))
    env.close()
    soft = np.zeros(envs)  # sum of gamma^k (r - alpha log pi) from the next step on
    error = np.zeros((horizon, envs))
    for t in reversed(range(horizon)):
        error[t] = q_values[t] - (rewards[t] + model.gamma * soft)
        soft = rewards[t] + bonuses[t] + model.gamma * soft
    return float(error[:states].mean() / model.reward_scale)


class Evaluate(BaseCallback):
    """Appends a row every ``every`` steps. Evaluation draws no random number of the training."""

    def __init__(self, task: str, path: Path, every: int, last: int, bias: bool):
        super().__init__()
        self.env = make_vec_env(task, n_envs=EPISODES)
        self.task, self.path, self.every, self.last, self.bias = task, path, every, last, bias
        self.start = time.perf_counter()

    def _on_step(self) -> bool:
        if self.num_timesteps % self.every == 0:
            seconds, cpu = time.perf_counter() - self.start, time.process_time()
            self.env.seed(10_000)
            returns, _ = evaluate_policy(
                self.model, self.env, n_eval_episodes=EPISODES, return_episode_rewards=True
            )
            row = [self.num_timesteps, f"{seconds:.1f}", f"{cpu:.1f}"]
            row += [f"{value:.3f}" for value in returns]  # type: ignore[union-attr]
            if self.bias:
                assert isinstance(self.model, DSACT)
                last = self.num_timesteps >= self.last
                row.append(f"{soft_return_bias(self.model, self.task):.3f}" if last else "")
            with self.path.open("a") as file:
                csv.writer(file, lineterminator="\n").writerow(row)
        return True


def run_one(group: str, name: str, seed: int) -> None:
    th.set_num_threads(1)
    steps, every = budget(group)
    ablation = group == "ablation"
    if ablation:
        task, algorithm, kwargs = ABLATION_TASK, DSACT, VERSUS["dsac_t"][1] | ABLATION[name]
        kwargs |= {"learning_rate": 1e-3, "alpha_learning_rate": 1e-3}
        kwargs |= {"log_alpha_init": math.log(kwargs.get("reward_scale", 1.0))}
    else:
        task, (algorithm, kwargs) = group, VERSUS[name]
    path = csv_path(group, name, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = ["step", "seconds", "cpu_seconds", *(f"return_{k}" for k in range(EPISODES))]
    path.write_text(",".join(header + ["q_bias"] * ablation) + "\n")
    model = algorithm("MlpPolicy", gym.make(task), buffer_size=steps, seed=seed, **kwargs)
    model.learn(steps, callback=Evaluate(task, path, every, steps, bias=ablation))


def run_all(n_jobs: int) -> None:
    queue = [job for job in jobs() if not finished(*job)]
    running: list[tuple[subprocess.Popen, tuple[str, str, int]]] = []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    while queue or running:
        while queue and len(running) < n_jobs:
            job = queue.pop(0)
            command = [sys.executable, __file__, "one", job[0], job[1], str(job[2])]
            running.append((subprocess.Popen(command, env=environment), job))
            print("started", *job, flush=True)
        time.sleep(2)
        for process, job in running[:]:
            if process.poll() is not None:
                running.remove((process, job))
                print("ended", *job, "exit code", process.returncode, flush=True)


# ---------------------------------------------------------------------------------------------
# Report
# ---------------------------------------------------------------------------------------------


def curve(group: str, name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps and mean returns of a run's evaluations so far, each ``[evaluations]``."""
    rows = read(csv_path(group, name, seed))
    returns = [[float(row[f"return_{k}"]) for k in range(EPISODES)] for row in rows]
    mean = np.array(returns).reshape(len(rows), EPISODES).mean(axis=1)
    return np.array([int(row["step"]) for row in rows], dtype=int), mean


def iqm(scores: np.ndarray) -> float:
    """Interquartile mean of all scores (Agarwal et al. 2021, arXiv 2108.13264)."""
    return float(trim_mean(scores.ravel(), 0.25))


def interval(strata: list[np.ndarray], draws: int = 2000) -> tuple[float, float]:
    """95 % percentile interval of the IQM: runs are redrawn within each task (stratified)."""
    rng = np.random.default_rng(0)
    values = [
        iqm(np.concatenate([rng.choice(runs, size=len(runs)) for runs in strata]))
        for _ in range(draws)
    ]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def runs_of(group: str, name: str, partial: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    curves = [curve(group, name, s) for s in SEEDS if partial or finished(group, name, s)]
    return [c for c in curves if len(c[0])]


def final_scores(group: str, name: str) -> np.ndarray:
    """Mean return over the last fifth of the evaluations, one per finished run."""
    last = budget(group)[0] // budget(group)[1] // 5
    return np.array([returns[-last:].mean() for _, returns in runs_of(group, name, partial=False)])


def draw(axis, group: str, name: str, label: str) -> None:
    """IQM over seeds with its 95 % interval, where all started runs have been evaluated."""
    curves = runs_of(group, name, partial=True)
    if not curves:
        return
    steps = min((c[0] for c in curves), key=len)
    scores = np.stack([returns[: len(steps)] for _, returns in curves])  # [runs, evaluations]
    middle = [iqm(column) for column in scores.T]
    low, high = np.array([interval([column], 500) for column in scores.T]).T
    (line,) = axis.plot(steps, middle, label=f"{label} ({len(curves)} seeds)")
    axis.fill_between(steps, low, high, alpha=0.2, color=line.get_color())


def entry(scores: np.ndarray) -> str:
    if not len(scores):
        return "–"
    low, high = interval([scores])
    return f"{iqm(scores):.1f} [{low:.1f}, {high:.1f}] ({len(scores)})"


def report() -> None:
    """Writes the figures and replaces the tables in docs/dsac_t.md between their markers."""
    labels = {"dsac_t": "DSAC-T", "sac": "SAC"}
    figure, axes = plt.subplots(1, len(TASKS), figsize=(4.2 * len(TASKS), 3.4))
    for axis, task in zip(axes, TASKS, strict=True):
        for algo, label in labels.items():
            draw(axis, task, algo, label)
        axis.set(title=task, xlabel="environment steps", ylabel="return")
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(DOCS / "benchmarks" / "dsac_t_vs_sac.png", dpi=110)

    figure, axes = plt.subplots(1, 3, figsize=(12.6, 3.4))
    groups = ("", "_scale_0.01", "_scale_100")
    for axis, suffix in zip(axes, groups, strict=True):
        for name in ABLATION:
            if name.endswith(suffix) if suffix else "scale" not in name:
                draw(axis, "ablation", name, name.removesuffix(suffix))
        scale = suffix.removeprefix("_scale_") or "1"
        axis.set(title=f"{ABLATION_TASK}, reward scale {scale}", xlabel="environment steps")
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(DOCS / "benchmarks" / "dsac_t_ablation.png", dpi=110)

    lines = [
        "| task (steps) | DSAC-T | SAC | best evaluation, DSAC-T / SAC | CPU min per run |",
        "|---|---|---|---|---|",
    ]
    strata: dict[str, list[np.ndarray]] = {algo: [] for algo in VERSUS}
    for task, (steps, _) in TASKS.items():
        scores = {algo: final_scores(task, algo) for algo in VERSUS}
        best, minutes = [], []
        for algo in VERSUS:
            curves = runs_of(task, algo, partial=False)
            best.append(f"{np.mean([c[1].max() for c in curves]):.1f}" if curves else "–")
            cpu = [
                float(read(csv_path(task, algo, seed))[-1]["cpu_seconds"]) / 60
                for seed in SEEDS
                if finished(task, algo, seed)
            ]
            minutes.append(f"{np.mean(cpu):.0f}" if cpu else "–")
        lines.append(
            f"| {task} ({steps // 1000} k) | {entry(scores['dsac_t'])} | {entry(scores['sac'])} "
            f"| {' / '.join(best)} | {' / '.join(minutes)} |"
        )
        if all(len(runs) for runs in scores.values()):
            for algo in VERSUS:
                strata[algo].append(scores[algo] / scores["sac"].mean())
    if strata["sac"]:
        cells = []
        for algo in VERSUS:
            low, high = interval(strata[algo])
            cells.append(f"{iqm(np.concatenate(strata[algo])):.2f} [{low:.2f}, {high:.2f}]")
        tasks = len(strata["sac"])
        lines.append(f"| {tasks} tasks, SAC's mean = 1 | {cells[0]} | {cells[1]} | | |")
    write_table("dsac_t.md", "versus", lines)

    lines = ["| variant | final return | Q bias |", "|---|---|---|"]
    for name in ABLATION:
        bias = [
            float(read(csv_path("ablation", name, seed))[-1]["q_bias"])
            for seed in SEEDS
            if finished("ablation", name, seed)
        ]
        cell = f"{np.mean(bias):+.1f} ({min(bias):+.1f} to {max(bias):+.1f})" if bias else "–"
        lines.append(f"| {name} | {entry(final_scores('ablation', name))} | {cell} |")
    write_table("dsac_t.md", "ablation", lines)

    done = sum(finished(*job) for job in jobs())
    print(f"{done} of {len(jobs())} runs are finished")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run everything that is not finished")
    run.add_argument("--jobs", type=int, default=2, help="processes at a time")
    one = commands.add_parser("one", help="a single run, from its start")
    one.add_argument("group", help="a task, or 'ablation'")
    one.add_argument("name", help="an algorithm, or an ablation variant")
    one.add_argument("seed", type=int)
    commands.add_parser("report", help="figures and tables from the runs so far")
    arguments = parser.parse_args()
    if arguments.command == "run":
        run_all(arguments.jobs)
    elif arguments.command == "one":
        run_one(arguments.group, arguments.name, arguments.seed)
    else:
        report()
