"""Show the log of a deployment: `motoric replay LOG`, or `python scripts/replay.py LOG`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from motoric.hardware.drivers import ROBOTS
from motoric.hardware.models import load_model
from motoric.hardware.runtime.log import Log, LogError, read_log
from motoric.scripts.config import UserError
from numpy.typing import NDArray


def base_positions(log: Log) -> NDArray[np.float64]:
    """Where the base was, [T, 3]: measured height, and the plane by integrating velocity."""
    w, x, y, z = log.orientation.T
    forward = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z)], 1)
    left = np.stack([2 * (x * y - w * z), 1 - 2 * (x * x + z * z)], 1)
    up = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x)], 1)
    v = np.nan_to_num(log.base_velocity)
    world = v[:, :1] * forward + v[:, 1:2] * left + v[:, 2:3] * up
    result = np.zeros((len(log.times), 3))
    steps = np.nan_to_num(world[:-1]) * np.diff(log.times)[:, None]
    result[1:, :2] = np.cumsum(steps, 0)
    result[:, 2] = log.base_height
    return result


def poses(log: Log, default_height: float) -> NDArray[np.float64]:
    """MuJoCo positions [T, nq]; where no state came the last one is held."""
    base = base_positions(log)
    base[np.isnan(base[:, 2]), 2] = default_height
    found = np.concatenate([base, log.orientation, log.position], axis=1)
    good = np.asarray(np.isfinite(found).all(axis=1))
    last = np.maximum.accumulate(np.where(good, np.arange(len(good)), -1))
    return found[np.maximum(last, int(np.argmax(good)))]


def replay(
    log_path: Path, viewer: str, host: str, port: int, out: Path | None,
    width: int = 640, height: int = 480,
) -> None:  # fmt: skip
    """Show a log in the browser, in MuJoCo's window, or write it as MP4 of that size."""
    try:
        log = read_log(log_path)
    except LogError as error:
        raise UserError(str(error)) from None
    if log.robot not in ROBOTS:
        raise UserError(
            f"log: robot {log.robot!r} has no model to show, expected one of {', '.join(ROBOTS)}; "
            "whatever reads MCAP shows its numbers (Foxglove, "
            "motoric.hardware.runtime.log.read_log)"
        )
    robot = ROBOTS[log.robot]
    model, path = load_model(robot), poses(log, robot.base_height)
    modes = list(dict.fromkeys(log.status))
    print(f"{log_path}: {log.robot}, {log.times[-1]:.1f} s, {' -> '.join(modes)}")
    if log.reason[-1]:
        print(f"ended: {log.reason[-1]}")
    if viewer == "video":
        from motoric.scripts.viewers.video import record_log

        out = log_path.with_suffix(".mp4") if out is None else out
        record_log(log, model, path, out, width, height)
        print(f"video: {out}")
    elif viewer == "web":
        from motoric.scripts.viewers.web import serve_log

        serve_log(log, model, path, host, port)
    else:
        from motoric.scripts.viewers.native import show_poses

        show_poses(model, path, log.times)


if __name__ == "__main__":
    from motoric.scripts.cli import main

    sys.exit(main(["replay", *sys.argv[1:]]))
