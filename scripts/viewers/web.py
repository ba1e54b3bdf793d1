"""The viewer in a browser: the robot in 3-D, its policy live, sliders, plots (mjviser, viser)."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import viser
from mjviser import ViserMujocoScene
from motoric.hardware.runtime.log import Log
from motoric.scripts.config import UserError
from motoric.scripts.viewers.live import Scene
from numpy.typing import NDArray
from viser import uplot

HISTORY = 10.0  # s that the plots show
COLOURS = ("#2b6cb0", "#dd6b20", "#718096")
UNITS = {"forward": "m/s", "left": "m/s", "turn": "rad/s"}


class Page:
    """A web page with a model in it and a column of controls. Listens on `host` only."""

    def __init__(self, model: mujoco.MjModel, title: str, host: str, port: int) -> None:
        for name in ("websockets.server", "websockets"):
            logging.getLogger(name).setLevel(logging.ERROR)
        _check_free(host, port)
        with contextlib.redirect_stdout(io.StringIO()):  # viser's own greeting
            self.server = viser.ViserServer(host=host, port=port, label=title, verbose=False)
        actual = self.server.get_port()
        if actual != port:  # another program took it in between: viser moved on
            self.server.stop()
            raise UserError(f"viewer.port: {port} is in use on {host}, give another one")
        self.model, self.data = model, mujoco.MjData(model)
        self.server.gui.configure_theme(dark_mode=False)
        self.server.gui.main_panel.dock_right()
        self.scene = ViserMujocoScene(self.server, model, num_envs=1)
        self.gui = self.server.gui

    def camera_controls(self) -> None:
        """To be called last: the folder appears below the others."""
        self.scene.create_scene_gui(camera_distance=2.2, camera_azimuth=130.0)

    def pose(self, qpos: NDArray[np.float64]) -> None:
        """Show a pose [nq]."""
        self.data.qpos[:] = qpos
        mujoco.mj_kinematics(self.model, self.data)
        with self.server.atomic():
            self.scene.update_from_mjdata(self.data)
        self.server.flush()

    def close(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.server.stop()


def _check_free(host: str, port: int) -> None:
    try:
        kind = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror:
        raise UserError(f"viewer.host: {host!r} is not an address of this machine") from None
    with socket.socket(kind[0], socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(kind[4])
        except OSError as error:
            raise UserError(
                f"viewer.port: {port} can't be used on {host}: {error.strerror}; give another one"
            ) from None


class Plot:
    """Lines over the last seconds."""

    def __init__(self, page: Page, title: str, lines: tuple[str, ...], unit: str) -> None:
        self._rows: deque[tuple[float, ...]] = deque()
        self._width = len(lines)
        series: list[Any] = [uplot.Series(label="s")]
        for line, colour in zip(lines, COLOURS, strict=False):
            series.append(uplot.Series(label=line, stroke=colour, width=2))
        empty = tuple(np.zeros(1) for _ in range(1 + len(lines)))
        self._handle = page.gui.add_uplot(
            empty, tuple(series), title=f"{title}, {unit}" if unit else title, aspect=2.2,
            scales={"x": uplot.Scale(time=False, auto=True), "y": uplot.Scale(auto=True)},
        )  # fmt: skip

    def add(self, now: float, *values: float) -> None:
        self._rows.append((now, *values))
        while self._rows[0][0] < now - HISTORY:
            self._rows.popleft()

    def clear(self) -> None:
        self._rows.clear()

    def show(self) -> None:
        if self._rows:
            columns = np.array(self._rows, np.float64).T
            self._handle.data = tuple(np.ascontiguousarray(c) for c in columns)


class LivePage:
    """A policy acting in an environment, in real time, under the visitor's hands."""

    def __init__(self, scene: Scene, title: str, host: str, port: int) -> None:
        self.scene = scene
        self.page = page = Page(scene.model, f"motoric: {title}", host, port)
        self.time = 0.0
        self.episode_return, self.episode_steps, self.falls = 0.0, 0, 0
        self._lock = threading.Lock()  # callbacks come from viser's threads
        gui = page.gui
        self.status = gui.add_markdown(f"**{title}**")
        with gui.add_folder("Run"):
            self.pause = gui.add_button("Pause")
            self.one_step = gui.add_button("Step", disabled=True)
            self.reset = gui.add_button("Reset")
            self.speed = gui.add_slider("Speed", 0.1, 4.0, 0.1, 1.0)
        self.paused = False
        self.pause.on_click(lambda _: self._toggle())
        self.one_step.on_click(lambda _: self.step())
        self.reset.on_click(lambda _: self._reset())
        self.sliders: list[Any] = []
        self.auto: Any = None
        if scene.commands:
            with gui.add_folder("Command"):
                self.auto = gui.add_checkbox("Drawn by the task", initial_value=False)
                for name, low, high in zip(scene.commands, scene.low, scene.high, strict=True):
                    value = float(scene.command[len(self.sliders)])
                    self.sliders.append(
                        gui.add_slider(f"{name}, {UNITS[name]}", low, high, 0.05,
                                       round(min(max(value, low), high) / 0.05) * 0.05)
                    )  # fmt: skip
                self.push = gui.add_button("Push")
            for slider in self.sliders:
                slider.on_update(lambda _: self._command())
            self.auto.on_update(lambda _: self._command())
            self.push.on_click(lambda _: self._push())
            self._command()
        with gui.add_folder("Plots"):
            self.reward = Plot(page, "reward per step", ("reward",), "")
            self.tracking = [
                Plot(page, name, ("commanded", "actual"), UNITS[name]) for name in scene.commands
            ]
        page.camera_controls()
        self._show()

    def _toggle(self) -> None:
        self.paused = not self.paused
        self.pause.label = "Go on" if self.paused else "Pause"
        self.one_step.disabled = not self.paused

    def _reset(self) -> None:
        with self._lock:
            self.scene.reset()
            self.time, self.episode_return, self.episode_steps, self.falls = 0.0, 0.0, 0, 0
            for plot in (self.reward, *self.tracking):
                plot.clear()
            self._show()

    def _command(self) -> None:
        with self._lock:
            held = None if self.auto.value else [slider.value for slider in self.sliders]
            self.scene.set_command(held)

    def _push(self) -> None:
        with self._lock:
            angle = 2 * np.pi * (self.time * 0.618 % 1.0)
            self.scene.push([0.8 * np.cos(angle), 0.8 * np.sin(angle), 0.0])

    def step(self) -> None:
        """One step of the environment."""
        with self._lock:
            sample = self.scene.step()
            self.time += self.scene.dt
            self.episode_return += sample.reward
            self.episode_steps += 1
            self.reward.add(self.time, sample.reward)
            if sample.velocity is not None:
                for plot, wanted, actual in zip(
                    self.tracking, self.scene.command, sample.velocity, strict=True
                ):
                    plot.add(self.time, float(wanted), actual)
            self.falls += sample.terminated
            if sample.terminated or sample.truncated:
                self.episode_return, self.episode_steps = 0.0, 0
        if self.paused:
            self._show()

    def _show(self) -> None:
        self.page.pose(self.scene.qpos)

    def show_numbers(self) -> None:
        """Plots and text; a few times a second is enough."""
        for plot in (self.reward, *self.tracking):
            plot.show()
        self.status.content = (
            f"{self.time:.1f} s · return {self.episode_return:.1f} in {self.episode_steps} steps"
            f" · {self.falls} ended early"
        )

    def run(self, stop: threading.Event) -> None:
        """Act in real time (times speed) until `stop` is set."""
        due = shown = time.monotonic()
        while not stop.is_set():
            now = time.monotonic()
            if self.paused:
                due = now
                time.sleep(0.02)
            elif due > now:
                time.sleep(min(due - now, 0.02))
            else:
                self.step()
                due += self.scene.dt / self.speed.value
                if now - due > 0.2:  # slower than asked for: don't race to catch up
                    due = now
                self._frame(now)
            if now - shown > 0.2:
                self.show_numbers()
                shown = now

    _framed = 0.0

    def _frame(self, now: float) -> None:
        if now - self._framed > 0.03:
            self._framed = now
            self._show()

    def close(self) -> None:
        self.page.close()
        self.scene.close()


def serve(scene: Scene, host: str = "127.0.0.1", port: int = 8080, title: str = "policy") -> None:
    """Serve the live page until Ctrl-C."""
    page = LivePage(scene, title, host, port)
    _until_interrupted(page.run, page.close, host, port)


def serve_log(
    log: Log, model: mujoco.MjModel, poses: NDArray[np.float64], host: str, port: int
) -> None:
    """Serve the replay of a log, poses [T, nq], until Ctrl-C."""
    page = LogPage(log, model, poses, host, port)
    _until_interrupted(page.run, page.page.close, host, port)


def serve_live(
    model: mujoco.MjModel, pose: Callable[[], NDArray[np.float64]], host: str, port: int, title: str
) -> None:
    """Serve what `pose` [nq] says, 30 times a second, until Ctrl-C."""
    page = Page(model, f"motoric: {title}", host, port)
    page.camera_controls()

    def show(stop: threading.Event) -> None:
        while not stop.wait(1 / 30):
            page.pose(pose())

    _until_interrupted(show, page.close, host, port)


def _until_interrupted(
    run: Callable[[threading.Event], None], close: Callable[[], None], host: str, port: int
) -> None:
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{port} (Ctrl-C ends)", flush=True)
    stop = threading.Event()
    try:
        run(stop)
    except KeyboardInterrupt:
        stop.set()
    finally:
        close()


class LogPage:
    """A log with a time slider: what was measured, what was sent, what the supervisor said."""

    def __init__(
        self, log: Log, model: mujoco.MjModel, poses: NDArray[np.float64], host: str, port: int
    ) -> None:
        self.log, self.poses = log, poses
        self.page = page = Page(model, f"motoric: log of {log.robot}", host, port)
        gui = page.gui
        self.status = gui.add_markdown("")
        end = max(float(log.times[-1]), 0.02)
        with gui.add_folder("Replay"):
            self.pause = gui.add_button("Pause")
            self.time = gui.add_slider("Time, s", 0.0, round(end, 2), 0.01, 0.0)
            self.speed = gui.add_slider("Speed", 0.1, 4.0, 0.1, 1.0)
        self.paused, self._moved = False, False
        self.pause.on_click(lambda _: self._toggle())
        self.time.on_update(self._seek)
        self.at = 0.0
        joints = log.metadata.get("joints", "").split(",")
        if len(joints) != log.position.shape[1]:
            joints = [f"joint {i}" for i in range(log.position.shape[1])]
        with gui.add_folder("Plots"):
            self.joint = gui.add_dropdown("Joint", joints)
            self.position = Plot(page, "position", ("sent", "measured"), "rad")
            self.torque = Plot(page, "torque", ("measured",), "N m")
            self.velocity = Plot(page, "forward", ("commanded", "actual"), "m/s")
        self._joints = joints
        page.camera_controls()
        self.show()

    def _toggle(self) -> None:
        self.paused = not self.paused
        self.pause.label = "Go on" if self.paused else "Pause"

    def _seek(self, event: Any) -> None:
        if event.client is not None:  # moved by the visitor, not by us
            self.at = float(self.time.value)
            self._moved = True

    def show(self) -> None:
        """The tick of now, and the seconds before it."""
        log = self.log
        i = int(np.clip(np.searchsorted(log.times, self.at, "right") - 1, 0, len(log.times) - 1))
        self.page.pose(self.poses[i])
        joint = self._joints.index(self.joint.value)
        first = int(np.searchsorted(log.times, log.times[i] - HISTORY))
        for plot, columns in (
            (self.position, (log.target[:, joint], log.position[:, joint])),
            (self.torque, (log.torque[:, joint],)),
            (self.velocity, (log.command[:, 0], log.base_velocity[:, 0])),
        ):
            plot.clear()
            for k in range(first, i + 1, 1 + (i - first) // 300):
                plot.add(log.times[k], *(c[k] for c in columns))
            plot.show()
        reason = f" · {log.reason[i]}" if log.reason[i] else ""
        self.status.content = f"**{log.robot}** · {log.times[i]:.2f} s · {log.status[i]}{reason}"

    def run(self, stop: threading.Event) -> None:
        last = time.monotonic()
        while not stop.is_set():
            time.sleep(0.04)
            now = time.monotonic()
            if not self.paused:
                self.at += (now - last) * self.speed.value
                if self.at > self.log.times[-1]:
                    self.at = 0.0
                self.time.value = round(self.at, 2)
            if not self.paused or self._moved:
                self._moved = False
                self.show()
            last = now
