"""The whole way in one command: train a Go2 to walk, evaluate, film, deploy (`make demo`)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from motoric.hardware.runtime.bundle import Bundle
from motoric.scripts import config
from motoric.scripts.deploy import deploy_run, rows
from motoric.scripts.train import train
from motoric.scripts.training import evaluation
from motoric.scripts.viewers.video import record_video
from rich.console import Console
from rich.table import Table

COMMAND = [0.5, 0.0, 0.0]  # forward m/s, left m/s, turn rad/s
EPISODES, SECONDS = 20, 10.0
# What the demo must reach: mean velocity error, and episodes without a fall.
ERROR, UPRIGHT = 0.15, 18


def demo(say: Callable[[str], None] = print) -> int:
    """Returns 0 when the walk meets the bar, 1 when it does not."""
    began = time.monotonic()
    say("1/4 training a Unitree Go2 to walk at a commanded velocity, from nothing")
    settings = config.load("train", ["experiment=go2_walk"])
    trained = train(settings, say)
    if trained.stopped is not None:
        say(f"stopped; go on with: motoric train resume={trained.folder}")
        return 128 + trained.stopped
    folder = trained.folder
    best = folder / "bundle" / "best"
    bundle = Bundle.load(best)
    options = settings.env.options

    say(f"2/4 evaluating: {EPISODES} episodes of {SECONDS:g} s at {COMMAND[0]} m/s, unseen seeds")
    episodes = evaluation.run(bundle, options, EPISODES, evaluation.TEST, COMMAND, SECONDS)
    summary = episodes.summary()

    video = folder / "videos" / "demo.mp4"
    say("3/4 filming")
    record_video(bundle, options, video, SECONDS, evaluation.TEST, COMMAND)

    say(f"4/4 the bundle on a simulated Go2 in its own process, {SECONDS:g} s in real time")
    deployment = config.load(
        "deploy", [f"run='{folder}'", "robot=sim_go2", f"duration={SECONDS}", f"command={COMMAND}"]
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
    table.add_row("return", f"{summary['return_mean']:.1f} ± {summary['return_std']:.1f} "
                  f"in {SECONDS:g} s")  # fmt: skip
    table.add_row("velocity error", f"{error:.3f} m/s mean (bar: {ERROR}), "
                  f"{summary['velocity_error_max']:.3f} m/s worst episode")  # fmt: skip
    table.add_row("without a fall", f"{upright} of {EPISODES} (bar: {UPRIGHT})")
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
    return 0 if met and report.fault is None and not report.fell else 1
