"""Show the log of a deployment: `motoric replay LOG`, or `python scripts/replay.py LOG`."""

from __future__ import annotations

import sys
from pathlib import Path

import mujoco
from motoric.hardware.drivers import ROBOTS
from motoric.hardware.models import load_model
from motoric.hardware.robot import RobotSpec
from motoric.hardware.runtime.log import Log, LogError, read_log
from motoric.scripts.config import UserError
from motoric.scripts.viewers.logs import deployment


def model_of(log: Log) -> tuple[mujoco.MjModel, RobotSpec | None]:
    """The model of a log's robot, and the robot where it is one of ours. Raises ValueError."""
    if log.robot in ROBOTS:
        robot = ROBOTS[log.robot]
        return load_model(robot), robot
    path = Path(log.metadata.get("model", ""))
    if not path.is_file():
        raise ValueError(
            f"log: robot {log.robot!r} has no model to show, expected one of {', '.join(ROBOTS)} "
            "or one whose file is here"
        )
    return mujoco.MjModel.from_xml_path(str(path)), None


def replay(
    log_path: Path, viewer: str, host: str, port: int, out: Path | None,
    width: int = 640, height: int = 480,
) -> None:  # fmt: skip
    """Show a log in the browser, in MuJoCo's window, or write it as MP4 of that size."""
    try:
        log = read_log(log_path)
    except LogError as error:
        raise UserError(str(error)) from None
    try:
        shown = deployment(log, *model_of(log))
    except ValueError as error:
        raise UserError(
            f"{error}; whatever reads MCAP shows the log's numbers (Foxglove, "
            "motoric.hardware.runtime.log.read_log)"
        ) from None
    modes = list(dict.fromkeys(log.status))
    print(f"{log_path}: {log.robot}, {log.times[-1]:.1f} s, {' -> '.join(modes)}")
    if log.reason[-1]:
        print(f"ended: {log.reason[-1]}")
    if viewer == "video":
        from motoric.scripts.viewers.video import record_log

        out = log_path.with_suffix(".mp4") if out is None else out
        record_log(shown, out, width, height)
        print(f"video: {out}")
    elif viewer == "web":
        from motoric.scripts.viewers.web import serve_log

        serve_log(shown, host, port)
    else:
        from motoric.scripts.viewers.native import show_poses

        show_poses(shown.model, shown.poses, log.times)


if __name__ == "__main__":
    from motoric.scripts.cli import main

    sys.exit(main(["replay", *sys.argv[1:]]))
