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
from motoric.scripts.config import UserError
from motoric.scripts.viewers.live import Scene
from numpy.typing import NDArray

SPACE, BACKSPACE, RIGHT, LEFT, DOWN, UP = 32, 259, 262, 263, 264, 265  # GLFW's key codes
STEP = 0.1  # of a command, per key press


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

    HELP = "arrows: command (up, down forward; left, right turn); space: pause; backspace: reset"

    def __init__(self, scene: Scene) -> None:
        self.scene, self.paused = scene, False
        self._pressed: SimpleQueue[int] = SimpleQueue()

    def __call__(self, key: int) -> None:
        self._pressed.put(key)

    def apply(self) -> None:
        """Do what the keys since the last call ask for."""
        while not self._pressed.empty():
            self._apply(self._pressed.get())

    def _apply(self, key: int) -> None:
        change = {UP: (0, STEP), DOWN: (0, -STEP), LEFT: (2, STEP), RIGHT: (2, -STEP)}.get(key)
        if key == SPACE:
            self.paused = not self.paused
        elif key == BACKSPACE:
            self.scene.reset()
        elif change is not None and self.scene.commands:
            command = self.scene.command.copy()
            command[change[0]] += change[1]
            self.scene.set_command(command.tolist())
            wanted = ", ".join(f"{v:+.2f}" for v in self.scene.command)
            print(f"command: {wanted}", flush=True)


def show(scene: Scene) -> None:
    """Show a scene in real time until the window is closed."""
    data = mujoco.MjData(scene.model)
    keys = Keys(scene)
    print(Keys.HELP, flush=True)
    with _launch(scene.model, data, keys) as window:
        follow(window)
        due = time.monotonic()
        while window.is_running():
            keys.apply()
            if not keys.paused:
                scene.step()
            due = max(due + scene.dt, time.monotonic() - 0.1)
            draw(window, scene.model, data, scene.qpos)
            time.sleep(max(0.0, due - time.monotonic()))
    scene.close()


def show_poses(
    model: mujoco.MjModel, poses: NDArray[np.float64], times: NDArray[np.float64]
) -> None:
    """Show poses [T, nq] at their times [T], over and over, until the window is closed."""
    data = mujoco.MjData(model)
    with _launch(model, data, None) as window:
        follow(window)
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
        follow(window)
        while window.is_running():
            draw(window, model, data, pose())
            time.sleep(1 / 30)


def follow(window: Any) -> None:
    """The camera follows the first moving body."""
    window.cam.type = mujoco.mjtCamera.mjCAMERA_TRACKING
    window.cam.trackbodyid = 1
    window.cam.distance, window.cam.elevation, window.cam.azimuth = 2.0, -18, 130


def draw(
    window: Any, model: mujoco.MjModel, data: mujoco.MjData, qpos: NDArray[np.float64]
) -> None:
    with window.lock():
        data.qpos[:] = qpos
        mujoco.mj_forward(model, data)
    window.sync()
