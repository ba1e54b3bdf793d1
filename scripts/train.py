"""Train a policy: `motoric train …`, or `python scripts/train.py …`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Threads that wait awake for the next small product hold up each other, and the simulation's, on
# a machine that has anything else to do: 26 s became 6 s. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from motoric.configs import schema
from motoric.envs.make import make_vec
from motoric.envs.registry import TASKS
from motoric.envs.vector import BatchedVecEnv
from motoric.hardware.runtime.bundle import Bundle, BundleError, read_spec, write_bundle
from motoric.scripts import config, export
from motoric.scripts.config import UserError
from motoric.scripts.training import algorithms, checkpoint, evaluation, plots, run_folder
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished (or stopped) training.

    steps: taken in all; seconds: of this call; best_return: of the evaluations, None before any;
    evaluation: summary of the last one; stopped: the signal that ended it early
    """

    folder: Path
    steps: int
    seconds: float
    best_return: float | None
    evaluation: dict[str, Any] | None
    stopped: int | None


class Stopped(Exception):
    """A signal asked to stop, and everything is saved."""


class Diverged(Exception):
    """The weights are not finite any more."""


def train(settings: schema.Train, say: Callable[[str], None] = print) -> Result:
    """Train as configured in a new run folder, or go on in `settings.resume`.

    To resume, `settings` is the run's own configuration (`config.resumed`).

    SIGINT and SIGTERM save a checkpoint and a bundle and end the training; a second one ends it
    at once. Raises UserError for what the user can put right, Diverged where weights become
    infinite or NaN; nothing of such a policy is written.
    """
    started = time.monotonic()
    _check_device(settings.device)
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    model = _build(settings)
    folder = Path(settings.resume) if settings.resume else run_folder.new_folder(settings)
    handle = run_folder.lock(folder)
    try:
        extra, resumed = _restore(settings, folder, model, say)
        if not resumed:
            config.save(dataclasses.replace(settings, resume=None, run=str(folder)),
                        folder / "config.yaml")  # fmt: skip
            run_folder.write_origin(folder, export.versions())
        run = Run(settings, folder, extra, say)
        left = settings.total_steps - model.num_timesteps
        if left <= 0:
            raise UserError(
                f"total_steps: {settings.total_steps}, but {folder} already has "
                f"{model.num_timesteps}; give a larger one"
            )
        metrics = run_folder.MetricsCsv(
            folder / "metrics.csv", model.num_timesteps if resumed else None
        )
        model.set_logger(
            Logger(None, [Guarded(metrics, say), Guarded(_tensorboard(folder, model), say)])
        )
        say(f"{'resuming' if resumed else 'training'} {folder}"
            + (f" at step {model.num_timesteps:,}" if resumed else ""))  # fmt: skip
        _hint(settings, say)
        with _signals(run):
            try:
                model.learn(left, run, log_interval=None, reset_num_timesteps=not resumed)  # type: ignore[arg-type]
            except Stopped:
                pass
            except (ValueError, RuntimeError):  # stable-baselines3 acts with what it has
                run.check_finite()
                raise
            finally:
                run.show.close()
        _attempt("plots", lambda: plots.learning_curves(folder), say)
        env = model.get_env()
        assert env is not None
        env.close()
        return Result(
            folder, model.num_timesteps, time.monotonic() - started,
            run.best_return, run.last_summary, run.signal,
        )  # fmt: skip
    finally:
        os.close(handle)


def _hint(settings: schema.Train, say: Callable[[str], None]) -> None:
    """Say so where there will hardly be an update."""
    policy = settings.policy
    if isinstance(policy, schema.PPO):
        each = algorithms.rollout_steps(policy, settings.env.num_envs)
        steps = each * settings.env.num_envs
        if 10 * steps > settings.total_steps:
            say(
                f"policy.n_steps: {each} steps of {settings.env.num_envs} environments "
                f"are {steps:,} per update, {-(-settings.total_steps // steps)} updates in all; "
                "a smaller one learns sooner (experiment=go2_walk has 24)"
            )


def _check_device(device: str) -> None:
    try:
        kind = torch.device("cpu" if device == "auto" else device)
    except RuntimeError:
        raise UserError(f"device: {device!r}, expected auto, cpu or cuda") from None
    if kind.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device: {device!r}, but no CUDA GPU is found; try device=cpu")
    if kind.type not in ("cpu", "cuda"):
        raise UserError(f"device: {device!r}, expected auto, cpu or cuda")


def _build(settings: schema.Train) -> BaseAlgorithm:
    """Environment and algorithm of a configuration, as they are before the first step."""
    if settings.env.id in TASKS:
        raise UserError(
            f"id: {settings.env.id!r} is a task of ours, expected env={settings.env.id}"
        )
    try:
        env: VecEnv = make_vec(
            str(settings.env.task or settings.env.id),
            settings.env.num_envs,
            settings.seed,
            settings.env.engine,
            settings.env.num_threads,
            **settings.env.options,
        )
        policy = settings.policy
        if policy.normalize_observation or policy.normalize_reward:
            env = VecNormalize(
                env,
                norm_obs=policy.normalize_observation,
                norm_reward=policy.normalize_reward,
                gamma=policy.gamma,
            )
        return algorithms.build(policy, env, settings.seed, settings.device)
    except MemoryError as error:
        raise UserError(f"policy.buffer_size: too large for this machine: {error}") from None
    except (ValueError, NotImplementedError, AssertionError) as error:  # the latter two are SB3's
        what = str(error).split("\n")[0] or type(error).__name__
        raise UserError(what if ":" in what else f"env: {what}") from None


def restore_run(
    folder: Path, say: Callable[[str], None]
) -> tuple[schema.Train, BaseAlgorithm, dict[str, Any]]:
    """A run's configuration, and its algorithm as the newest checkpoint has it."""
    settings = config.read(folder / "config.yaml")
    if not checkpoint.steps(folder / "checkpoints"):
        raise UserError(f"run: {folder} has no checkpoint yet")
    model = _build(settings)
    extra, _ = _restore(settings, folder, model, say)
    return settings, model, extra


def _restore(
    settings: schema.Train, folder: Path, model: BaseAlgorithm, say: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    """Load the newest whole checkpoint of a run that is resumed: the caller's values, and if so."""
    checkpoints = folder / "checkpoints"
    if not checkpoint.steps(checkpoints):
        if (folder / "config.yaml").exists():
            say(f"{folder} has no checkpoint yet: it starts from the beginning")
        return {}, False
    newest = checkpoint.newest(checkpoints, say)
    if newest is None:
        raise UserError(f"resume: every checkpoint in {checkpoints} is damaged")
    try:
        extra = checkpoint.load(newest, model)
    except (KeyError, ValueError, RuntimeError) as error:
        first = str(error).split("\n")[0]
        raise UserError(f"resume: {newest} does not fit the run's config.yaml: {first}") from None
    env = model.get_env()
    if env is not None and not isinstance(env.unwrapped, BatchedVecEnv):
        say("its environments can't be saved: new episodes begin, with new seeds")
    return extra, True


def _best_return(folder: Path, extra: dict[str, Any]) -> float | None:
    """Of the best bundle that is there: it may be of steps that a killed run takes once more."""
    try:
        training = read_spec(folder / "bundle" / "best")[0].training
    except BundleError:
        return None
    return training.get("return_mean", extra.get("best_return"))


def _tensorboard(folder: Path, model: BaseAlgorithm) -> TensorBoardOutputFormat:
    writer = TensorBoardOutputFormat(str(folder / "tensorboard"))
    if model.num_timesteps:  # hides what was logged after the checkpoint that is resumed
        from torch.utils.tensorboard.writer import SummaryWriter

        writer.writer.close()
        writer.writer = SummaryWriter(
            log_dir=str(folder / "tensorboard"), purge_step=model.num_timesteps + 1
        )
    return writer


def _attempt(what: str, write: Callable[[], Any], say: Callable[[str], None]) -> bool:
    """Write something a training can do without; a full disk is said, not died of."""
    try:
        write()
    except (OSError, export.ExportError) as error:
        say(f"{what} not written: {getattr(error, 'strerror', None) or error}; training goes on")
        return False
    return True


class Guarded(KVWriter):
    """A writer of metrics whose disk may fill up."""

    def __init__(self, writer: KVWriter, say: Callable[[str], None]) -> None:
        self.writer, self.say = writer, say

    def write(self, key_values: dict, key_excluded: dict, step: int = 0) -> None:
        _attempt("metrics", lambda: self.writer.write(key_values, key_excluded, step), self.say)

    def close(self) -> None:
        self.writer.close()


@contextlib.contextmanager
def _signals(run: Run) -> Iterator[None]:
    """The first SIGINT or SIGTERM asks `run` to stop; the second acts as always."""

    def handler(number: int, frame: Any) -> None:
        run.signal = number
        signal.signal(number, previous[number])
        run.say("stopping: a checkpoint is being saved (once more to stop at once)")

    previous: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.getsignal(number)
            signal.signal(number, handler)
    except ValueError:  # not in the main thread: the caller's signals are its own
        previous.clear()
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


class Run(BaseCallback):
    """Logs, evaluates, exports and saves where an algorithm is between two updates.

    All of it happens before a rollout begins, when nothing is half done; so a checkpoint taken
    there can be gone on with exactly.
    """

    def __init__(
        self,
        settings: schema.Train,
        folder: Path,
        extra: dict[str, Any],
        say: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.settings, self.folder = settings, folder
        self.say = say
        self.best_return = _best_return(folder, extra)
        self.last_summary: dict[str, Any] | None = None
        self.signal: int | None = None
        self.due: dict[str, int] = {}
        self.sums: dict[str, float] = {}
        self.sum_steps = 0
        self.show = Show(settings, say)

    def _init_callback(self) -> None:
        for what in ("log_every", "eval_every", "checkpoint_every"):
            self._schedule(what)

    def _schedule(self, what: str) -> None:
        every = getattr(self.settings, what)
        self.due[what] = (self.model.num_timesteps // every + 1) * every

    def _is_due(self, what: str) -> bool:
        return self.model.num_timesteps >= self.due[what]

    def _on_training_start(self) -> None:
        self.batched = self.model.get_env()
        self.batched = None if self.batched is None else self.batched.unwrapped
        self.show.start(self.model.num_timesteps)

    def _on_rollout_start(self) -> None:
        if self.signal is not None:
            self._finish()
            raise Stopped
        logs, evaluates = self._is_due("log_every"), self._is_due("eval_every")
        if logs or evaluates or self._is_due("checkpoint_every"):
            self.check_finite()
        if evaluates:
            self._evaluate()
        if logs or evaluates:
            self._log()
        if self._is_due("checkpoint_every"):
            self._checkpoint()

    def check_finite(self) -> None:
        """Raise Diverged if a weight is infinite or NaN."""
        if not all(bool(p.isfinite().all()) for p in self.model.policy.parameters()):
            raise Diverged(
                f"the training diverged: weights are not finite at step "
                f"{self.model.num_timesteps:,}; try a smaller policy.learning_rate. "
                f"What was saved before is in {self.folder}"
            )

    def _on_training_end(self) -> None:
        self._finish()

    def _finish(self) -> None:
        self.check_finite()
        self._evaluate()
        self._log()
        self._checkpoint()

    def _on_step(self) -> bool:
        if isinstance(self.batched, BatchedVecEnv):
            info = self.batched.last_info
            names = ("velocity_error", "speed")
            values = info["terms"] | {name: info[name] for name in names if name in info}
            for name, value in values.items():
                self.sums[name] = self.sums.get(name, 0.0) + float(np.mean(value))
            self.sum_steps += 1
        self.show.update(self.model)
        return True

    def _log(self) -> None:
        self._schedule("log_every")
        for name, total in self.sums.items():
            self.logger.record(f"task/{name}", total / max(1, self.sum_steps))
        self.sums, self.sum_steps = {}, 0
        if isinstance(self.model, OnPolicyAlgorithm):
            self.model.dump_logs(0)
        else:
            self.model.dump_logs()  # type: ignore[attr-defined]

    def _evaluate(self) -> None:
        """Export the policy, act with what was exported, and keep the best."""
        self._schedule("eval_every")
        settings, last = self.settings, self.folder / "bundle" / "last"
        if not _attempt("bundle", lambda: export.export(settings, self.model, last), self.say):
            return
        episodes = evaluation.run(
            Bundle.load(last),
            settings.env.options,
            settings.eval_episodes,
            evaluation.VALIDATION + settings.seed * 1_000_000,
        )
        self.last_summary = summary = episodes.summary()
        for name, value in summary.items():
            self.logger.record(f"eval/{name}", value)
        if self.best_return is None or summary["return_mean"] > self.best_return:
            self.best_return = summary["return_mean"]
            spec, onnx = read_spec(last)
            spec.training["return_mean"] = self.best_return
            best = self.folder / "bundle" / "best"
            _attempt("bundle", lambda: write_bundle(best, onnx, spec), self.say)
        self.show.evaluated(self.model.num_timesteps, summary)

    def _checkpoint(self) -> None:
        self._schedule("checkpoint_every")
        extra = {"best_return": self.best_return}
        folder = self.folder / "checkpoints"
        _attempt("checkpoint", lambda: checkpoint.save(self.model, folder, extra), self.say)


class Show:
    """How the training goes: a progress bar on a terminal, a line now and then elsewhere."""

    def __init__(self, settings: schema.Train, say: Callable[[str], None]) -> None:
        self.total, self.say = settings.total_steps, say
        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        self.next = 0.0
        if settings.progress and self.console.is_terminal:
            self.bar = Progress(
                BarColumn(None),
                TaskProgressColumn(),
                TextColumn("{task.completed:,.0f} steps"),
                TextColumn("{task.fields[rate]} steps/s"),
                TimeRemainingColumn(),
                TextColumn("return {task.fields[score]}"),
                console=self.console,
                refresh_per_second=5,
                redirect_stdout=True,
            )
        self.plain = settings.progress and self.bar is None

    def start(self, steps: int) -> None:
        self.first_steps, self.first_time = steps, time.monotonic()
        self.next_line = self.first_time + 30.0
        if self.bar is not None:
            self.task = self.bar.add_task(
                "", total=self.total, completed=steps, rate="-", score="-"
            )
            self.bar.start()

    def update(self, model: BaseAlgorithm) -> None:
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + 0.2
        rate = (model.num_timesteps - self.first_steps) / max(now - self.first_time, 1e-9)
        returns = [info["r"] for info in model.ep_info_buffer or []]
        score = f"{np.mean(returns):.1f}" if returns else "-"
        if self.bar is not None:
            self.bar.update(
                self.task, completed=model.num_timesteps, rate=f"{rate:,.0f}", score=score
            )
        elif self.plain and now >= self.next_line:
            self.next_line = now + 30.0
            left = (self.total - model.num_timesteps) / max(rate, 1e-9)
            self.say(f"{model.num_timesteps:,} of {self.total:,} steps, {rate:,.0f} steps/s, "
                     f"{_clock(left)} left, return {score}")  # fmt: skip

    def evaluated(self, steps: int, summary: dict[str, Any]) -> None:
        if not (self.plain or self.bar is not None):
            return
        extra = ""
        if "velocity_error_mean" in summary:
            extra = (f", velocity error {summary['velocity_error_mean']:.3f} m/s, "
                     f"{summary['terminated']} of {summary['episodes']} fell")  # fmt: skip
        self.say(f"{steps:,} steps: return {summary['return_mean']:.1f} "
                 f"± {summary['return_std']:.1f}{extra}")  # fmt: skip

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


if __name__ == "__main__":
    from motoric.scripts.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
