"""A training from its configuration: what learns, in what, and all that is written on the way."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

# Threads that wait awake for the next small product hold up each other, and the simulation's, on
# a machine that has anything else to do: 26 s became 6 s. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from motoric.configs.commands import Train
from motoric.envs.registry import make_batch
from motoric.envs.vector import BatchVecEnv
from motoric.hardware.runtime.bundle import Bundle, BundleError, read_spec, write_bundle
from motoric.policies.contract import Learner
from motoric.policies.data.transitions import DataError, Transitions
from motoric.scripts import config
from motoric.scripts.config import UserError
from motoric.scripts.training import checkpoint, evaluation, export, plots, run_folder
from motoric.scripts.training.show import Show
from motoric.scripts.training.watched import Watched

EVERY = ("log_every", "eval_every", "checkpoint_every")


@dataclass(frozen=True)
class Result:
    """A finished (or stopped) training.

    steps: done in all, of the learner's `unit`; seconds: of this call; best_return: of the
    evaluations, None before any; evaluation: summary of the last one; stopped: the signal that
    ended it early
    """

    folder: Path
    steps: int
    seconds: float
    best_return: float | None
    evaluation: dict[str, Any] | None
    stopped: int | None
    unit: str = Learner.unit


class Stopped(Exception):
    """A signal asked to stop, and everything is saved."""


class Diverged(Exception):
    """The weights are not finite any more."""


# ---------------------------------------------------------------------------------------------
# What a configuration describes
# ---------------------------------------------------------------------------------------------


@dataclass
class Training:
    """A configuration, and what learns as it says.

    batch: what it learns in, a `Watched`, which is a `Batch` too; None without environments
    environment: what a bundle says of it (fields of `BundleSpec`)
    origin: what a bundle says of the training
    """

    settings: Train
    learner: Learner
    batch: Any
    environment: dict[str, Any]
    origin: dict[str, Any]


def build(settings: Train) -> Training:
    """As it is before the first step. Raises UserError."""
    env = settings.env
    origin = {"algorithm": settings.policy.name, "seed": settings.seed}
    try:
        data = None if settings.dataset.path is None else Transitions.open(settings.dataset.path)
        batch: Any = None
        if env.id is not None:
            options = env.options | env.training
            batch = Watched(
                make_batch(
                    env.id, env.num_envs, settings.seed, env.engine, env.num_threads, options
                )
            )
            environment = export.environment_of(batch)
            origin |= {"options": env.options, "engine": env.engine}
        if data is not None:
            if batch is None:
                environment = data.about.get("environment")
                if not isinstance(environment, dict):
                    raise DataError(f"{data.path} does not say which environment it is of")
                origin |= {k: data.about[k] for k in ("options", "engine") if k in data.about}
            else:
                _check_spaces(data, batch)
        learner = _function(settings.policy.learner)(
            settings.policy, None if batch is None else BatchVecEnv(batch), data, settings.seed,
            settings.device,
        )  # fmt: skip
    except DataError as error:
        raise UserError(f"dataset.path: {error}") from None
    except MemoryError as error:
        raise UserError(f"policy.buffer_size: too large for this machine: {error}") from None
    except (ValueError, NotImplementedError, AssertionError) as error:  # the latter two are SB3's
        what = str(error).split("\n")[0] or type(error).__name__
        raise UserError(what if ":" in what else f"env: {what}") from None
    return Training(settings, learner, batch, environment, origin)


def _check_spaces(data: Transitions, batch: Any) -> None:
    """Raise ValueError unless a data set is of such an environment."""
    for what in ("observation_space", "action_space"):
        theirs, own = getattr(data, what), getattr(batch, what)
        if theirs != own:
            raise ValueError(f"dataset.path: {what} is {theirs}, that of {batch.name} {own}")


def _function(name: str) -> Callable[..., Learner]:
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def _check_device(device: str) -> None:
    try:
        kind = torch.device("cpu" if device == "auto" else device)
    except RuntimeError:
        raise UserError(f"device: {device!r}, expected auto, cpu or cuda") from None
    if kind.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device: {device!r}, but no CUDA GPU is found; try device=cpu")
    if kind.type not in ("cpu", "cuda"):
        raise UserError(f"device: {device!r}, expected auto, cpu or cuda")


def _check_export(training: Training) -> None:
    """Raise UserError for what could be trained and not exported."""
    try:
        export.checked(training.learner, training.environment, training.origin, 100)
    except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        first = str(error).split("\n")[0]
        name = training.settings.policy.name
        raise UserError(f"policy: {name!r} can't be exported: {first}") from None


def restored(folder: Path, say: Callable[[str], None]) -> Training:
    """A run's training, as its newest checkpoint has it. Raises UserError."""
    settings = config.read(folder / "config.yaml")
    if not checkpoint.steps(folder / "checkpoints"):
        raise UserError(f"run: {folder} has no checkpoint yet")
    training = build(settings)
    _restore(folder, training, say)
    return training


def _restore(folder: Path, training: Training, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Load a run's newest whole checkpoint; the caller's values in it, None where there is none."""
    checkpoints = folder / "checkpoints"
    if not checkpoint.steps(checkpoints):
        if (folder / "config.yaml").exists():
            say(f"{folder} has no checkpoint yet: it starts from the beginning")
        return None
    newest = checkpoint.newest(checkpoints, say)
    if newest is None:
        raise UserError(f"resume: every checkpoint in {checkpoints} is damaged")
    try:
        extra = checkpoint.load(newest, training.learner, training.batch)
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        first = str(error).split("\n")[0]
        raise UserError(f"resume: {newest} does not fit the run's config.yaml: {first}") from None
    if training.batch is not None and training.batch.save_state() is None:
        say("its environments can't be saved: new episodes begin, with new seeds")
    return extra


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


def train(settings: Train, say: Callable[[str], None] = print) -> Result:
    """Train as configured in a new run folder, or go on in `settings.resume`.

    To resume, `settings` is the run's own configuration, as `config.load` gives it.

    SIGINT and SIGTERM save a checkpoint and a bundle and end the training; a second one ends it
    at once. Raises UserError for what the user can put right, Diverged where weights become
    infinite or NaN; nothing of such a policy is written.
    """
    started = time.monotonic()
    _check_device(settings.device)
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    training = build(settings)
    _check_export(training)
    learner, batch = training.learner, training.batch
    folder = Path(settings.resume) if settings.resume else run_folder.new_folder(settings)
    handle = run_folder.lock(folder)
    try:
        extra = _restore(folder, training, say)
        if extra is None:
            whole = replace(settings, resume=None, run=str(folder))
            config.save(whole, folder / "config.yaml")
            run_folder.write_origin(folder, export.versions())
        if settings.total_steps <= learner.done:
            raise UserError(
                f"total_steps: {settings.total_steps}, but {folder} already has {learner.done}; "
                "give a larger one"
            )
        run = Run(training, folder, extra, say)
        say(f"training {folder}" if extra is None
            else f"resuming {folder} at step {learner.done:,}")  # fmt: skip
        advice = learner.advice(settings.total_steps)
        if advice is not None:
            say(advice)
        with _signals(run):
            run.go()
        _attempt(run.draw, "plots not written", say, Exception)
        return Result(
            folder, learner.done, time.monotonic() - started, run.best_return, run.last_summary,
            run.signal, learner.unit,
        )  # fmt: skip
    finally:
        os.close(handle)
        if batch is not None:
            batch.close()


def _attempt(
    write: Callable[[], Any], said: str, say: Callable[[str], None],
    errors: type[Exception] = OSError,
) -> None:  # fmt: skip
    """Do what a training can do without: a full disk is said, not died of."""
    try:
        write()
    except errors as error:
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        say(f"{said}: {reason or type(error).__name__}; training goes on")


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


class Run:
    """Logs, saves, exports and evaluates where a learner has nothing half done.

    So a checkpoint taken there can be gone on with exactly. It is written before anything that may
    fail: export, evaluation, pictures.
    """

    def __init__(
        self,
        training: Training,
        folder: Path,
        extra: dict[str, Any] | None,
        say: Callable[[str], None],
    ) -> None:
        self.settings, self.learner, self.batch = (
            training.settings, training.learner, training.batch,
        )  # fmt: skip
        self.training, self.folder, self.say = training, folder, say
        self.best_return = _best_return(folder)
        self.last_summary: dict[str, Any] | None = None
        self.signal: int | None = None
        self.writer = run_folder.Metrics(folder, None if extra is None else self.learner.done)
        self.show = Show(self.settings, self.learner, self.batch, say)
        # An evaluation comes after its checkpoint: one that was cut off is made up for.
        self.evaluated = 0 if extra is None else extra["evaluated"]
        self.due = {what: 0 for what in EVERY}
        for what in EVERY:
            self._schedule(what, self.evaluated if what == "eval_every" else self.learner.done)

    def _schedule(self, what: str, after: int) -> None:
        every = getattr(self.settings, what)
        self.due[what] = (after // every + 1) * every

    def go(self) -> None:
        """Learn until the end, or a signal. Raises Diverged."""
        if self.batch is not None:
            self.batch.on_step = self.show.update
        self.show.start()
        try:
            self.learner.learn(self.settings.total_steps, self.between)
            self._pause(EVERY)
        except Stopped:
            pass
        except (ValueError, RuntimeError):  # what an algorithm makes of weights that are not finite
            self.check_finite()
            raise
        finally:
            self.show.close()
            self.writer.close()

    def between(self) -> None:
        """Called where nothing is half done."""
        if self.signal is not None:
            self._pause(EVERY)
            raise Stopped
        self.show.update()
        due = tuple(what for what in EVERY if self.learner.done >= self.due[what])
        if due:
            self._pause(due)

    def _pause(self, due: tuple[str, ...]) -> None:
        self.check_finite()
        for what in due:
            self._schedule(what, self.learner.done)
        self._write(self._row())  # before a checkpoint: what was added up is not in it
        if "checkpoint_every" in due:
            _attempt(self._save, "checkpoint not written", self.say)
        if "eval_every" in due:
            # Whatever goes wrong there: what has been learned is saved, and learning goes on.
            _attempt(self._evaluate, "evaluation failed", self.say, Exception)

    def check_finite(self) -> None:
        """Raise Diverged if a weight is infinite or NaN."""
        if not self.learner.is_finite():
            raise Diverged(
                f"the training diverged: weights are not finite at step "
                f"{self.learner.done:,}; try a smaller policy.learning_rate. "
                f"What was saved before is in {self.folder}"
            )

    def _row(self) -> dict[str, float]:
        means = {} if self.batch is None else self.batch.means()
        return self.learner.metrics() | means

    def _write(self, row: dict[str, float]) -> None:
        done = self.learner.done
        _attempt(lambda: self.writer.write(row, done), "metrics not written", self.say)

    def _save(self) -> None:
        extra = {"best_return": self.best_return, "evaluated": self.evaluated}
        checkpoint.save(self.learner, self.batch, self.folder / "checkpoints", extra)

    def _evaluate(self) -> None:
        """Export the policy, act with what was exported, and keep the best."""
        self.evaluated, settings, training = self.learner.done, self.settings, self.training
        last, best = (self.folder / "bundle" / name for name in ("last", "best"))
        bundle = export.export(self.learner, training.environment, training.origin, last)
        if self.batch is None:  # nothing to compare by: the newest is the best there is
            self._copy(bundle, last, best)
            return
        seed = evaluation.VALIDATION + settings.seed * 1_000_000
        episodes = evaluation.run(bundle, settings.env.options, settings.eval_episodes, seed)
        self.last_summary = summary = episodes.summary()
        known = {f"eval/{name}": value for name, value in summary.items() if value is not None}
        self._write(known)
        self.show.evaluated(episodes)
        if self.best_return is None or summary["return_mean"] > self.best_return:
            self.best_return = summary["return_mean"]
            self._copy(bundle, last, best, return_mean=self.best_return)

    def _copy(self, bundle: Bundle, last: Path, best: Path, **noted: Any) -> None:
        _, files = read_spec(last)
        write_bundle(best, files, export.note(bundle.spec, **noted))

    def draw(self) -> None:
        metrics = () if self.batch is None else self.batch.metrics
        plots.learning_curves(self.folder, metrics, self.learner.unit)


def _best_return(folder: Path) -> float | None:
    """Of the best bundle that is there: it may be of steps that a killed run takes once more."""
    try:
        return read_spec(folder / "bundle" / "best")[0].training.get("return_mean")
    except BundleError:
        return None
