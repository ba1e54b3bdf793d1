"""The whole way in one command: train a Go2 to walk, evaluate, film, deploy (`make demo`)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from motoric.configs.commands import Demo
from motoric.hardware.runtime.bundle import Bundle
from motoric.scripts import config, evaluate
from motoric.scripts.deploy import deploy_run, rows
from motoric.scripts.train import train
from motoric.scripts.training import evaluation
from motoric.scripts.viewers.video import record_video
from rich.console import Console
from rich.table import Table

GOAL = [0.5, 0.0, 0.0]  # forward m/s, left m/s, turn rad/s
EPISODES, SECONDS = 20, 10.0
DRAWN = 100  # episodes with goals that the task draws
# What the demo must reach: mean velocity error, and episodes without a fall.
ERROR, UPRIGHT = 0.15, 18


def demo(say: Callable[[str], None] = print) -> int:
    """Returns 0 when the walk meets the bar, 1 when it does not."""
    began = time.monotonic()
    say("1/4 training a Unitree Go2 to walk at the velocity it is asked for, from nothing")
    settings = config.load("train", ["experiment=go2_walk"])
    trained = train(settings, say)
    if trained.stopped is not None:
        say(f"stopped; go on with: motoric train resume={trained.folder}")
        return 128 + trained.stopped
    folder = trained.folder
    best = folder / "bundle" / "best"
    bundle = Bundle.load(best)
    options = settings.env.options

    say(f"2/4 evaluating: {EPISODES} episodes of {SECONDS:g} s at {GOAL[0]} m/s, unseen seeds")
    episodes = evaluation.run(bundle, options, EPISODES, evaluation.TEST, GOAL, SECONDS)
    summary = episodes.summary()

    # One goal an episode, drawn from all it was trained for: where is it weakest?
    drawn = evaluation.run(bundle, options, DRAWN, evaluation.TEST, seconds=5.0)

    video = folder / "videos" / "demo.mp4"
    say("3/4 filming")
    record_video(bundle, options, video, SECONDS, evaluation.TEST, GOAL)

    say(f"4/4 the bundle on a simulated Go2 in its own process, {SECONDS:g} s in real time")
    deployment = config.load(
        "deploy", [f"run='{folder}'", "robot=sim_go2", f"duration={SECONDS}", f"goal={GOAL}"]
    )
    report = deploy_run(deployment, lambda text: None, keys=False)

    upright = EPISODES - summary["terminated"]
    error = summary["velocity_error_mean"]
    met = error < ERROR and upright >= UPRIGHT
    (folder / "demo.json").write_text(
        json.dumps(
            {
                "training_seconds": trained.seconds,
                "steps": trained.steps,
                "evaluation": summary,
                "deployment": report.summary(),
                "seconds": time.monotonic() - began,
            },
            indent=1,
        )
    )
    table = Table(show_header=False)
    table.add_row("training", f"{trained.seconds:.0f} s, {trained.steps:,} steps, "
                  f"{trained.steps / trained.seconds:,.0f} steps/s")  # fmt: skip
    for name, value in evaluate.rows(episodes).items():
        table.add_row(name, value)
    table.add_row("the bar", f"velocity error {error:.3f} < {ERROR} m/s, "
                  f"{upright} of {EPISODES} without a fall, {UPRIGHT} or more")  # fmt: skip
    table.add_row("worst goals", evaluate.worst(drawn, evaluation.by_cell(drawn, 2)))
    for name, value in rows(report).items():
        table.add_row(f"robot: {name}", value)
    Console(width=100 if not sys.stdout.isatty() else None).print(table)
    say(f"policy bundle   {best}")
    say(f"video           {video}")
    say(f"learning curve  {folder / 'plots' / 'learning_curve.png'}")
    say(f"robot log       {report.log}")
    say(f"watch it        motoric evaluate run={folder} viewer=web")
    if not met:
        say("the policy does not meet the bar")
    return 0 if met and report.fault is None and not report.metrics["fell"] else 1


def run(settings: Demo, say: Callable[[str], None]) -> int:
    """`motoric demo`."""
    return demo(say)
