"""How a training goes: a progress bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from motoric.configs.commands import Train
from motoric.policies.contract import Learner
from motoric.scripts.training.evaluation import Episodes
from motoric.scripts.training.watched import Watched
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

BAR, LINE = 0.2, 30.0  # s between two pictures of the bar, and two lines


class Show:
    def __init__(
        self, settings: Train, learner: Learner, batch: Watched | None, say: Callable[[str], None]
    ) -> None:
        self.total, self.learner, self.batch, self.say = settings.total_steps, learner, batch, say
        self.unit = learner.unit.rpartition(" ")[2]  # "environment steps" are steps
        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        self.next = 0.0
        if settings.progress and self.console.is_terminal:
            self.bar = Progress(
                BarColumn(None),
                TaskProgressColumn(),
                TextColumn(f"{{task.completed:,.0f}} {self.unit}"),
                TextColumn(f"{{task.fields[rate]}} {self.unit}/s"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[score]}"),
                console=self.console,
                refresh_per_second=5,
                redirect_stdout=True,
            )
        self.plain = settings.progress and self.bar is None

    def start(self) -> None:
        self.first_done, self.first_time = self.learner.done, time.monotonic()
        self.next_line = self.first_time + LINE
        if self.bar is not None:
            self.task = self.bar.add_task(
                "", total=self.total, completed=self.first_done, rate="-", score=""
            )
            self.bar.start()

    def update(self) -> None:
        now = time.monotonic()
        if now < self.next:
            return
        self.next, done = now + BAR, self.learner.done
        rate = (done - self.first_done) / max(now - self.first_time, 1e-9)
        returns = [] if self.batch is None else self.batch.returns
        score = f"return {np.mean(returns):.1f}" if len(returns) else ""
        if self.bar is not None:
            self.bar.update(self.task, completed=done, rate=f"{rate:,.0f}", score=score)
        elif self.plain and now >= self.next_line:
            self.next_line = now + LINE
            left = (self.total - done) / max(rate, 1e-9)
            self.say(f"{done:,} of {self.total:,} {self.unit}, {rate:,.0f} {self.unit}/s, "
                     f"{_clock(left)} left{score and f', {score}'}")  # fmt: skip

    def evaluated(self, episodes: Episodes) -> None:
        if not (self.plain or self.bar is not None):
            return
        summary = episodes.summary()
        count, told = (
            summary["episodes"],
            [f"{summary['terminated']} of {summary['episodes']} ended early"],
        )
        for metric in episodes.named:
            mean, name = summary[f"{metric.name}_mean"], metric.text or metric.name
            if mean is not None and metric.over == "any":
                told.append(f"{name} {round(mean * count)} of {count}")
            elif mean is not None:
                told.append(f"{name} {mean:.3f} {metric.unit}".rstrip())
        self.say(f"{self.learner.done:,} {self.unit}: return {summary['return_mean']:.1f} "
                 f"± {summary['return_std']:.1f}, {', '.join(told)}")  # fmt: skip

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
