"""The viewer in a browser: a world in 3-D, its policy live, goals, plots (mjviser, viser)."""

from __future__ import annotations

import contextlib
import io
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
from mjviser import ViserMujocoScene
from motoric.hardware.goals import Part, text_of
from motoric.hardware.interfaces.base import Metric
from motoric.scripts.config import UserError
from motoric.scripts.viewers.guard import Door, open_server
from motoric.scripts.viewers.live import Live, Sample, asked_for, goal_text, metric_text, step_of
from motoric.scripts.viewers.logs import Deployment
from numpy.typing import NDArray
from viser import uplot

HISTORY = 10.0  # s that the plots show
COLOURS = ("#2b6cb0", "#dd6b20", "#718096")
MOST_SLIDERS = 24  # a goal with more numbers is left to the task
STEPS = 40  # of a slider
PUSH = 0.8  # m/s
SMALL = 240  # pixels; a picture that is less wide is enlarged


class Page:
    """A web page with a model in it and a column of controls. Listens on `host` only.

    model: None: nothing in 3-D, the column alone
    """

    def __init__(self, model: mujoco.MjModel | None, title: str, host: str, port: int) -> None:
        _check_free(host, port)
        self.door = Door.of(host, port)
        self.server = open_server(self.door, title)
        if self.server.get_port() != port:  # another program took it in between: viser moved on
            self.server.stop()
            raise UserError(f"viewer.port: {port} is in use on {host}, give another one")
        self.server.gui.configure_theme(dark_mode=False, show_share_button=False)
        self.server.gui.main_panel.dock_right()
        self.gui = self.server.gui
        self.scene: ViserMujocoScene | None = None
        if model is not None:
            self.data, self.model = mujoco.MjData(model), model
            self.scene = ViserMujocoScene(self.server, model, num_envs=1)

    def camera_controls(self) -> None:
        """To be called last: the folder appears below the others."""
        if self.scene is not None:
            far = 2.5 * self.model.stat.extent
            self.scene.create_scene_gui(camera_distance=far, camera_azimuth=130.0)

    def pose(self, qpos: NDArray[np.float64] | None) -> None:
        """Show a pose [nq]."""
        if self.scene is None or qpos is None:
            return
        self.data.qpos[:] = qpos
        mujoco.mj_kinematics(self.model, self.data)
        with self.server.atomic():
            self.scene.update_from_mjdata(self.data)
        self.server.flush()

    def close(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # viser says so
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


def number(slider: Any) -> float:
    """What a slider says, whatever a visitor sent."""
    value = float(slider.value)
    return min(max(value, slider.min), slider.max) if math.isfinite(value) else slider.min


def enlarged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image whose pixels can be seen."""
    times = max(1, SMALL // image.shape[1])
    return image.repeat(times, 0).repeat(times, 1)


class Plot:
    """Lines over the last seconds."""

    def __init__(self, page: Page, title: str, lines: tuple[str, ...], unit: str) -> None:
        self.rows: deque[tuple[float, ...]] = deque()
        series: list[Any] = [uplot.Series(label="s")]
        for line, colour in zip(lines, COLOURS, strict=False):
            series.append(uplot.Series(label=line, stroke=colour, width=2))
        empty = tuple(np.zeros(1) for _ in range(1 + len(lines)))
        self._handle = page.gui.add_uplot(
            empty, tuple(series), title=f"{title}, {unit}" if unit else title, aspect=2.2,
            scales={"x": uplot.Scale(time=False, auto=True), "y": uplot.Scale(auto=True)},
        )  # fmt: skip

    def add(self, now: float, *values: float) -> None:
        self.rows.append((now, *values))
        while self.rows[0][0] < now - HISTORY:
            self.rows.popleft()

    def clear(self) -> None:
        self.rows.clear()

    def show(self) -> None:
        if self.rows:
            columns = np.array(self.rows, np.float64).T
            self._handle.data = tuple(np.ascontiguousarray(c) for c in columns)


class MetricPlots:
    """A plot of every metric but those that only happen; beside the number of the goal that it is
    named after, where there is one."""

    def __init__(self, page: Page, metrics: tuple[Metric, ...], goals: tuple[Part, ...]) -> None:
        self._plots: list[tuple[Metric, tuple[Part, int] | None, Plot]] = []
        for metric in metrics:
            if metric.over == "any":
                continue
            asked = asked_for(goals, metric.name)
            lines = ("measured",) if asked is None else ("asked for", "measured")
            plot = Plot(page, metric.text or metric.name, lines, metric.unit)
            self._plots.append((metric, asked, plot))

    def add(self, now: float, values: dict[str, float], goal: dict[str, Any]) -> None:
        """goal: by part, [k] each."""
        for metric, asked, plot in self._plots:
            value = values[metric.name]
            if asked is None:
                plot.add(now, value)
            else:
                plot.add(now, float(goal[asked[0].name][asked[1]]), value)

    @property
    def goals(self) -> set[tuple[str, int]]:
        """The numbers of the goal that are drawn, by part."""
        return {(asked[0].name, asked[1]) for _, asked, _ in self._plots if asked is not None}

    def lines(self, metric: str) -> NDArray[np.float64]:
        """What is drawn of a metric, [lines, T]."""
        plot = next(plot for m, _, plot in self._plots if m.name == metric)
        return np.array(plot.rows).T[1:]

    def clear(self) -> None:
        for _, _, plot in self._plots:
            plot.clear()

    def show(self) -> None:
        for _, _, plot in self._plots:
            plot.show()


class GoalControls:
    """A slider for every number of a goal, a line to type for every text."""

    def __init__(self, page: Page, live: Live, changed: Callable[[], None]) -> None:
        gui, self._live = page.gui, live
        self.auto: Any = gui.add_checkbox("Drawn by the task", initial_value=live.agents > 1)
        self.controls: dict[str, list[Any]] = {}
        for part in live.goals:
            with gui.add_folder(part.name):
                value = live.goal[part.name]
                if part.is_text:
                    box = gui.add_text(part.names[0], text_of(value))
                    gui.add_button("Say").on_click(lambda _: changed())
                    self.controls[part.name] = [box]
                    continue
                self.controls[part.name] = sliders = [
                    _slider(gui, part, i, float(value[i])) for i in range(len(part.names))
                ]
            for slider in sliders:
                slider.on_update(lambda _: changed())
        self.auto.on_update(lambda _: changed())

    def values(self) -> dict[str, Any] | None:
        """The goal they ask for; None: as the task draws it."""
        if self.auto.value:
            return None
        return {
            part.name: str(controls[0].value) if part.is_text else [number(c) for c in controls]
            for part, controls in zip(self._live.goals, self.controls.values(), strict=True)
        }


def _slider(gui: Any, part: Part, i: int, value: float) -> Any:
    low, high, step = part.low[i], part.high[i], step_of(part.low[i], part.high[i], STEPS)
    near = min(max(round(value / step) * step, low), high)
    label = f"{part.names[i]}, {part.units[i]}" if part.units[i] else part.names[i]
    return gui.add_slider(label, float(low), float(high), step, near, disabled=low == high)


class LivePage:
    """A policy acting in an environment, in real time, under the visitor's hands."""

    def __init__(self, live: Live, title: str, host: str, port: int) -> None:
        self.live = live
        self.page = page = Page(live.model, f"motoric: {title}", host, port)
        self.time = 0.0
        self.episode_return, self.episode_steps, self.ended_early = 0.0, 0, 0
        self._recent: deque[dict[str, float]] = deque(maxlen=max(1, round(HISTORY / live.dt)))
        self._lock = threading.Lock()  # callbacks come from viser's threads
        gui = page.gui
        self.status = gui.add_markdown(f"**{title}**")
        self.frame: Any = None
        frame = live.frame()
        if frame is not None:
            self.frame = gui.add_image(enlarged(frame), label=title)
        self.seen = {
            name: gui.add_image(enlarged(image), label=f"seen: {name}")
            for name, image in live.images.items()
        }
        with gui.add_folder("Run"):
            self.pause = gui.add_button("Pause")
            self.one_step = gui.add_button("Step", disabled=True)
            self.reset = gui.add_button("Reset")
            self.speed = gui.add_slider("Speed", 0.1, 4.0, 0.1, 1.0)
            self.push: Any = None
            if live.can_push:
                self.push = gui.add_button("Push")
                self.push.on_click(lambda _: self._push())
        self.paused = False
        self.pause.on_click(lambda _: self._toggle())
        self.one_step.on_click(lambda _: self.step())
        self.reset.on_click(lambda _: self._reset())
        self.goal: GoalControls | None = None
        if live.goals and sum(len(part.names) for part in live.goals) <= MOST_SLIDERS:
            with gui.add_folder("Goal"):
                self.goal = GoalControls(page, live, self._set_goal)
            if not self.goal.auto.value:
                live.hold_present()
        with gui.add_folder("Plots"):
            self.reward = Plot(page, "reward per step", ("reward",), "")
            self.metrics = MetricPlots(page, live.metrics, live.goals)
        page.camera_controls()
        self._show()

    def _toggle(self) -> None:
        self.paused = not self.paused
        self.pause.label = "Go on" if self.paused else "Pause"
        self.one_step.disabled = not self.paused

    def _reset(self) -> None:
        with self._lock:
            self.live.reset()
            self.time, self.ended_early = 0.0, 0
            self._begin_episode()
            self.reward.clear()
            self.metrics.clear()
            self._show()

    def _begin_episode(self) -> None:
        self.episode_return, self.episode_steps = 0.0, 0
        self._recent.clear()

    def _set_goal(self) -> None:
        if self.goal is not None:
            with self._lock:
                self.live.set_goal(self.goal.values())

    def _push(self) -> None:
        with self._lock:
            angle = 2 * np.pi * (self.time * 0.618 % 1.0)
            self.live.push([PUSH * np.cos(angle), PUSH * np.sin(angle), 0.0])

    def step(self) -> None:
        """One step of the environment."""
        with self._lock:
            goal = self.live.goal
            sample = self.live.step()
            self._count(sample)
            self.reward.add(self.time, sample.reward)
            self.metrics.add(self.time, sample.metrics, goal)
            if sample.terminated or sample.truncated:
                self.ended_early += sample.terminated
                self._begin_episode()
        if self.paused:
            self._show()

    def _count(self, sample: Sample) -> None:
        self.time += self.live.dt
        self.episode_return += sample.reward
        self.episode_steps += 1
        self._recent.append(sample.metrics)

    def _show(self) -> None:
        self.page.pose(self.live.pose)
        if self.frame is not None:
            frame = self.live.frame()
            if frame is not None:
                self.frame.image = enlarged(frame)
        for name, image in self.live.images.items():
            self.seen[name].image = enlarged(image)

    def show_numbers(self) -> None:
        """Plots and text; a few times a second is enough."""
        with self._lock:
            recent = list(self._recent)
            self.reward.show()
            self.metrics.show()
        lines = [
            f"{self.time:.1f} s · return {self.episode_return:.1f} in {self.episode_steps} steps"
            f" · {self.ended_early} ended early"
        ]
        if recent:
            lines += [
                metric_text(m, m.total([step[m.name] for step in recent]))
                for m in self.live.metrics
            ]
        self.status.content = " · ".join(lines)

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
                due += self.live.dt / number(self.speed)
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
            with self._lock:
                self._show()

    def close(self) -> None:
        self.page.close()
        self.live.close()


def serve(live: Live, host: str = "127.0.0.1", port: int = 8080, title: str = "policy") -> None:
    """Serve the live page until Ctrl-C."""
    page = LivePage(live, title, host, port)
    _until_interrupted(page.run, page.close, page.page.door)


def serve_log(shown: Deployment, host: str, port: int) -> None:
    """Serve the replay of a log until Ctrl-C."""
    page = LogPage(shown, host, port)
    _until_interrupted(page.run, page.page.close, page.page.door)


def serve_live(
    model: mujoco.MjModel, pose: Callable[[], NDArray[np.float64]], host: str, port: int, title: str
) -> None:
    """Serve what `pose` [nq] says, 30 times a second, until Ctrl-C."""
    page = Page(model, f"motoric: {title}", host, port)
    page.camera_controls()

    def show(stop: threading.Event) -> None:
        while not stop.wait(1 / 30):
            page.pose(pose())

    _until_interrupted(show, page.close, page.door)


def _until_interrupted(
    run: Callable[[threading.Event], None], close: Callable[[], None], door: Door
) -> None:
    print(f"{door.address} (Ctrl-C ends)", flush=True)
    stop = threading.Event()
    try:
        run(stop)
    except KeyboardInterrupt:
        stop.set()
    finally:
        close()


class LogPage:
    """A log with a time slider: what was measured, what the policy wished, what was sent instead,
    what was asked for, what the supervisor said."""

    def __init__(self, shown: Deployment, host: str, port: int) -> None:
        self.shown, self.log = shown, shown.log
        log = self.log
        self.page = page = Page(shown.model, f"motoric: log of {log.robot}", host, port)
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
        with gui.add_folder("Plots"):
            self.joint = gui.add_dropdown("Joint", list(shown.joints))
            self.joint_plots = {
                "position": Plot(page, "position", ("wished", "sent", "measured"), "rad"),
                "velocity": Plot(page, "velocity", ("sent", "measured"), "rad/s"),
                "torque": Plot(page, "torque", ("asked", "measured"), "N m"),
            }
            self.metrics = MetricPlots(page, shown.named, shown.goals)
            drawn = self.metrics.goals
            self.goals = [
                (part, i, Plot(page, f"{name} asked for", ("asked for",), part.units[i]))
                for part in shown.goals if not part.is_text
                for i, name in enumerate(part.names[:MOST_SLIDERS]) if (part.name, i) not in drawn
            ]  # fmt: skip
        page.camera_controls()
        self.show()

    def _toggle(self) -> None:
        self.paused = not self.paused
        self.pause.label = "Go on" if self.paused else "Pause"

    def _seek(self, event: Any) -> None:
        if event.client is not None:  # moved by the visitor, not by us
            self.at = number(self.time)
            self._moved = True

    def show(self) -> None:
        """The tick of now, and the seconds before it."""
        log, shown = self.log, self.shown
        i = shown.at(self.at)
        self.page.pose(shown.poses[i])
        first = int(np.searchsorted(log.times, log.times[i] - HISTORY))
        ticks = range(first, i + 1, 1 + (i - first) // 300)
        self._show_joint(ticks)
        self.metrics.clear()
        for k in ticks:
            goal = {name: values[k] for name, values in shown.goal.items()}
            self.metrics.add(log.times[k], {n: v[k] for n, v in shown.metrics.items()}, goal)
        self.metrics.show()
        for part, n, plot in self.goals:
            plot.clear()
            for k in ticks:
                plot.add(log.times[k], float(shown.goal[part.name][k, n]))
            plot.show()
        words = [f"**{log.robot}**", f"{log.times[i]:.2f} s", log.status[i], log.reason[i]]
        if log.source[i]:
            asked = ", ".join(goal_text(p, shown.goal[p.name][i]) for p in shown.goals)
            words.append(f"{log.source[i]}: {asked}")
        self.status.content = " · ".join(word for word in words if word)

    def _show_joint(self, ticks: range) -> None:
        log, name = self.log, self.joint.value
        j = self.shown.joints.index(name) if name in self.shown.joints else 0
        sent = log.command
        asked = (
            sent.kp * (sent.position - log.position) + sent.kd * (sent.velocity - log.velocity)
            + sent.torque
        )[:, j]  # fmt: skip
        for plot, columns in (
            (self.joint_plots["position"],
             (self.shown.wished[:, j], sent.position[:, j], log.position[:, j])),
            (self.joint_plots["velocity"], (sent.velocity[:, j], log.velocity[:, j])),
            (self.joint_plots["torque"], (asked, log.torque[:, j])),
        ):  # fmt: skip
            plot.clear()
            for k in ticks:
                plot.add(log.times[k], *(c[k] for c in columns))
            plot.show()

    def run(self, stop: threading.Event) -> None:
        last = time.monotonic()
        while not stop.is_set():
            time.sleep(0.04)
            now = time.monotonic()
            if not self.paused:
                self.at += (now - last) * number(self.speed)
                if self.at > self.log.times[-1]:
                    self.at = 0.0
                self.time.value = round(self.at, 2)
            if not self.paused or self._moved:
                self._moved = False
                self.show()
            last = now
