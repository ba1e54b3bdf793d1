"""MuJoCo's own window: the policy live under the arrow keys, or the replay of a log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import mujoco
import numpy as np
from motoric.hardware.goals import Part
from motoric.scripts.config import UserError
from motoric.scripts.viewers.live import Live, goal_text, plain_goal, step_of
from numpy.typing import NDArray

# GLFW's key codes
SPACE, BACKSPACE, INSERT, DELETE, RIGHT, LEFT, DOWN, UP = 32, 259, 260, 261, 262, 263, 264, 265
PAGE_UP, PAGE_DOWN, HOME, END = 266, 267, 268, 269
# More and less of a number of the goal: of the first, the last, and those between in order.
PAIRS = ((UP, DOWN), (LEFT, RIGHT), (PAGE_UP, PAGE_DOWN), (HOME, END), (INSERT, DELETE))
NAMES = ("up/down", "left/right", "page up/down", "home/end", "insert/delete")
STEPS = 20  # key presses through a range


def _launch(model: mujoco.MjModel, data: mujoco.MjData, keys: Any) -> Any:
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform == "linux" and not screen:
        raise UserError("viewer: 'native' needs a screen and there is none here; try viewer=web")
    import mujoco.viewer

    try:
        return mujoco.viewer.launch_passive(
            model, data, key_callback=keys, show_left_ui=False, show_right_ui=False
        )
    except RuntimeError as error:  # on macOS it wants to be started by mjpython
        raise UserError(f"viewer: {error}".split("\n")[0]) from None


class Keys:
    """What the keys of the window do. They come from its thread; `apply` does it in ours."""

    def __init__(self, live: Live) -> None:
        self.live, self.paused = live, False
        self._pressed: SimpleQueue[int] = SimpleQueue()
        numbers = [(p, i) for p in live.goals if not p.is_text for i in range(len(p.names))]
        self._numbers = [numbers[0], *numbers[:0:-1][:1], *numbers[1:-1]] if numbers else []

    @property
    def help(self) -> str:
        keys = [f"{k}: {p.names[i]}" for k, (p, i) in zip(NAMES, self._numbers, strict=False)]
        return "; ".join([*keys, "space: pause", "backspace: reset"])

    def __call__(self, key: int) -> None:
        self._pressed.put(key)

    def apply(self) -> None:
        """Do what the keys since the last call ask for."""
        while not self._pressed.empty():
            self._apply(self._pressed.get())

    def _apply(self, key: int) -> None:
        if key == SPACE:
            self.paused = not self.paused
        elif key == BACKSPACE:
            self.live.reset()
        for (more, less), (part, i) in zip(PAIRS, self._numbers, strict=False):
            if key in (more, less):
                step = step_of(part.low[i], part.high[i], STEPS)
                self._change(part, i, step if key == more else -step)

    def _change(self, part: Part, i: int, change: float) -> None:
        goal = {p.name: plain_goal(p, self.live.goal[p.name]) for p in self.live.goals}
        goal[part.name][i] += change
        self.live.set_goal(goal)
        parts = [goal_text(p, self.live.goal[p.name]) for p in self.live.goals]
        print(f"goal: {', '.join(parts)}", flush=True)


def show(live: Live) -> None:
    """Show a policy in real time until the window is closed."""
    if live.model is None:
        raise UserError("viewer: 'native' shows MuJoCo models and there is none; try viewer=web")
    data = mujoco.MjData(live.model)
    keys = Keys(live)
    print(keys.help, flush=True)
    with _launch(live.model, data, keys) as window:
        follow(window, live.model)
        due = time.monotonic()
        while window.is_running():
            keys.apply()
            if not keys.paused:
                live.step()
            due = max(due + live.dt, time.monotonic() - 0.1)
            if live.pose is not None:
                draw(window, live.model, data, live.pose)
            time.sleep(max(0.0, due - time.monotonic()))
    live.close()


def show_poses(
    model: mujoco.MjModel, poses: NDArray[np.float64], times: NDArray[np.float64]
) -> None:
    """Show poses [T, nq] at their times [T], over and over, until the window is closed."""
    data = mujoco.MjData(model)
    with _launch(model, data, None) as window:
        follow(window, model)
        began = time.monotonic()
        while window.is_running():
            at = (time.monotonic() - began) % max(times[-1] + 1.0, 1.0)
            index = min(int(np.searchsorted(times, at)), len(times) - 1)
            draw(window, model, data, poses[index])
            time.sleep(0.02)


def show_live(model: mujoco.MjModel, pose: Callable[[], NDArray[np.float64]]) -> None:
    """Show what `pose` [nq] says until the window is closed."""
    data = mujoco.MjData(model)
    with _launch(model, data, None) as window:
        follow(window, model)
        while window.is_running():
            draw(window, model, data, pose())
            time.sleep(1 / 30)


def follow(window: Any, model: mujoco.MjModel) -> None:
    """The camera follows the first body."""
    window.cam.type = mujoco.mjtCamera.mjCAMERA_TRACKING
    window.cam.trackbodyid = 1
    window.cam.distance = 2.2 * model.stat.extent
    window.cam.elevation, window.cam.azimuth = -18, 130


def draw(
    window: Any, model: mujoco.MjModel, data: mujoco.MjData, qpos: NDArray[np.float64]
) -> None:
    with window.lock():
        data.qpos[:] = qpos
        mujoco.mj_forward(model, data)
    window.sync()
