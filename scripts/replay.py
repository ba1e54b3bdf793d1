"""Show the log of a deployment: `motoric replay LOG`, or `python scripts/replay.py LOG`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from motoric.configs.commands import Replay
from motoric.hardware.drivers import ROBOTS
from motoric.hardware.fields import read_fields
from motoric.hardware.models import load_model
from motoric.hardware.robot import RobotSpec
from motoric.hardware.runtime.log import Log, LogError, read_log
from motoric.scripts.config import UserError
from motoric.scripts.viewers.logs import deployment


def replay(settings: Replay, say: Callable[[str], None] = print) -> None:
    """Show a log in the browser, in MuJoCo's window, or write it as MP4."""
    viewer, path = settings.viewer, Path(settings.log)
    if viewer.name == "none":
        raise UserError("viewer: 'none' shows nothing, expected web, native or video")
    try:
        log = read_log(path)
    except LogError as error:
        raise UserError(str(error)) from None
    try:
        robot = robot_of(log)
        shown = deployment(log, load_model(robot), robot)
    except ValueError as error:
        raise UserError(
            f"log: {error}; whatever reads MCAP shows its numbers (Foxglove, "
            "motoric.hardware.runtime.log.read_log)"
        ) from None
    modes = list(dict.fromkeys(log.status))
    say(f"{path}: {log.robot}, {log.times[-1]:.1f} s, {' -> '.join(modes)}")
    if log.reason[-1]:
        say(f"ended: {log.reason[-1]}")
    if viewer.name == "video":
        from motoric.scripts.viewers.video import record_log

        out = path.with_suffix(".mp4") if viewer.out is None else Path(viewer.out)
        record_log(shown, out, viewer.width, viewer.height)
        say(f"video: {out}")
    elif viewer.name == "web":
        from motoric.scripts.viewers.web import serve_log

        serve_log(shown, viewer.host, viewer.port)
    else:
        from motoric.scripts.viewers.native import show_poses

        show_poses(shown.model, shown.poses, log.times)


def robot_of(log: Log) -> RobotSpec:
    """The robot of a log, as it was then, or one of ours by its name. Raises ValueError."""
    text = log.metadata.get("spec")
    robot = ROBOTS.get(log.robot) if text is None else read_fields(RobotSpec, json.loads(text))
    if robot is None or robot.model is None:
        raise ValueError(f"robot {log.robot!r} has no model to show")
    return robot


def run(settings: Replay, say: Callable[[str], None]) -> int:
    """`motoric replay`."""
    replay(settings, say)
    return 0


if __name__ == "__main__":
    from motoric.scripts.cli import main

    sys.exit(main(["replay", *sys.argv[1:]]))
