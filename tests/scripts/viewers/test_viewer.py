"""The viewer: the page in a real browser, the video file, the scenes behind them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import imageio.v2 as imageio
import numpy as np
import pytest
from motoric.hardware.models import load_model
from motoric.hardware.runtime.bundle import Bundle
from motoric.hardware.specs.go2 import GO2
from motoric.scripts.config import UserError
from motoric.scripts.viewers.live import Live, asked_for, picture, step_of
from motoric.scripts.viewers.native import DOWN, LEFT, PAGE_UP, UP, Keys
from motoric.scripts.viewers.video import Camera, record_video
from motoric.scripts.viewers.web import LivePage

from ...conftest import TERMS, linear, write_policy
from .conftest import wait_until

OPTIONS = {"randomise": False}
FORWARD = 42  # where the goal is in the observation


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    """Stands; all thighs lean back in proportion to the forward velocity asked for."""
    weight = np.zeros((sum(t.size for t in TERMS), 12))
    weight[FORWARD, 1::3] = 0.4
    return Bundle.load(write_policy(tmp_path / "bundle", linear(weight, np.zeros(12))))


@pytest.fixture
def live(bundle, port):
    page = LivePage(Live(bundle, OPTIONS, 0), "go2_velocity", "127.0.0.1", port)
    stop = threading.Event()
    thread = threading.Thread(target=page.run, args=(stop,), daemon=True)
    thread.start()
    yield page
    stop.set()
    thread.join(5)
    page.close()


def screenshot(tab) -> np.ndarray:
    """The part of the page where nothing but the 3-D view is; int16 [H, W, 3]."""
    data = imageio.imread(tab.screenshot())[200:560, :620, :3]
    return np.asarray(data, np.int16)


def test_page_in_a_browser(live, browser, port):
    tab = browser.new_page(viewport={"width": 960, "height": 640})
    errors = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(f"http://127.0.0.1:{port}")
    tab.get_by_text("forward, m/s").first.wait_for(timeout=60_000)
    tab.get_by_text("Pause", exact=True).wait_for()

    # The robot is visible: its dark parts are there, and gone when its geometry is hidden.
    def dark() -> int:
        return int((screenshot(tab).max(axis=2) < 90).sum())

    assert wait_until(lambda: (tab.wait_for_timeout(300), dark())[1] > 300), dark()
    with_robot = dark()
    for group in live.page.scene._mesh_groups:
        group.handle.visible = False
    assert wait_until(lambda: (tab.wait_for_timeout(300), dark())[1] < with_robot / 3)
    for group in live.page.scene._mesh_groups:
        group.handle.visible = True

    # The real slider, by the keyboard: the goal changes, and the robot with it.
    before = live.live.pose[8]
    slider = tab.get_by_role("slider").nth(1)
    for candidate in tab.get_by_role("slider").all():
        if candidate.get_attribute("aria-valuemin") == "-0.6":
            slider = candidate
    slider.focus()
    for _ in range(20):
        slider.press("ArrowRight")
    assert wait_until(lambda: live.live.goal["velocity"][0] > 0.8), live.live.goal
    assert wait_until(lambda: live.live.pose[8] - before > 0.1), "the robot did not move"

    # Pause stops time, Step makes one step of it, Go on goes on.
    tab.get_by_text("Pause", exact=True).click()
    assert wait_until(lambda: live.paused)
    time.sleep(0.2)
    at = live.time
    time.sleep(0.5)
    assert live.time == at
    tab.get_by_text("Step", exact=True).click()
    assert wait_until(lambda: live.time == pytest.approx(at + 0.02))
    tab.get_by_text("Go on", exact=True).click()
    assert wait_until(lambda: live.time > at + 0.2)

    tab.get_by_text("Reset", exact=True).click()
    assert wait_until(lambda: live.time < at)
    assert tab.locator(".uplot").count() == 1 + 7  # the reward; all metrics but whether it fell
    (asked, measured) = live.metrics.lines("forward")
    assert asked[-1] == pytest.approx(live.live.goal["velocity"][0])
    assert np.isfinite(measured).all()
    assert not errors


def test_only_this_machine_can_reach_it(live, port):
    """Linux: the listening sockets of the port are all on 127.0.0.1."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    local = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")]
    assert local == [f"0100007F:{port:04X}"]
    with open("/proc/net/tcp6") as table:
        assert not [r for r in table.readlines()[1:] if f":{port:04X} " in r.split()[1] + " "
                    and r.split()[3] == "0A"]  # fmt: skip


def test_speed_is_real_time(live):
    live.speed.value = 1.0
    wait_until(lambda: live.time > 0.5)
    began, at = time.monotonic(), live.time
    time.sleep(2.0)
    assert (live.time - at) / (time.monotonic() - began) == pytest.approx(1.0, abs=0.3)


def test_a_port_in_use_is_one_line(bundle, port):
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(UserError, match=rf"viewer.port: {port} can't be used on 127.0.0.1"):
            LivePage(Live(bundle, OPTIONS, 0), "t", "127.0.0.1", port)


def test_a_goal_is_held_and_clipped(bundle):
    live = Live(bundle, OPTIONS, 0)
    live.set_goal({"velocity": [5.0, 0.0, 0.0]})
    np.testing.assert_array_equal(live.goal["velocity"], [1.0, 0.0, 0.0])
    assert set(live.step().metrics) == {metric.name for metric in live.metrics}
    np.testing.assert_array_equal(live.goal["velocity"], [1.0, 0.0, 0.0])
    live.push([0.0, 2.0, 0.0])
    assert abs(live.step().metrics["left"]) + abs(live.step().metrics["forward"]) > 0.3
    live.reset()
    np.testing.assert_array_equal(live.goal["velocity"], [1.0, 0.0, 0.0])
    with pytest.raises(UserError, match=r"goal\.velocity: forward 9, the policy was trained for"):
        Live(bundle, OPTIONS, 0, goal=[9.0, 0.0, 0.0])


def test_keys_of_the_native_window(bundle, capsys):
    live = Live(bundle, OPTIONS, 0, goal=[0.0, 0.0, 0.0])
    keys = Keys(live)
    assert keys.help.startswith("up/down: forward; left/right: turn; page up/down: left; space")
    keys(UP)
    keys(UP)
    keys(DOWN)
    np.testing.assert_allclose(
        live.goal["velocity"], 0.0, err_msg="changed from the window's thread"
    )
    keys.apply()
    np.testing.assert_allclose(live.goal["velocity"], [0.1, 0.0, 0.0])
    keys(LEFT)
    keys(PAGE_UP)
    keys(32)
    keys.apply()
    np.testing.assert_allclose(live.goal["velocity"], [0.1, 0.05, 0.1])
    assert capsys.readouterr().out.splitlines()[-1] == (
        "goal: forward +0.10 m/s, left +0.05 m/s, turn +0.10 rad/s"
    )
    assert keys.paused


def test_pieces(bundle):
    live = Live(bundle, OPTIONS, 0)
    part = live.goals[0]
    assert asked_for(live.goals, "turn") == asked_for(live.goals, "velocity.turn") == (part, 2)
    assert asked_for(live.goals, "speed") is None
    assert [step_of(0, size, 10) for size in (1, 2, 3, 0.4, 77)] == [0.1, 0.2, 0.5, 0.05, 10]
    grey, colour = np.zeros((1, 8, 9), np.uint8), np.zeros((8, 9, 3), np.uint8)
    stack = np.stack([np.full((8, 9), i, np.uint8) for i in range(4)])
    assert picture(grey).shape == picture(colour).shape == picture(stack).shape == (8, 9, 3)
    assert (picture(stack) == 3).all(), "the newest"
    assert picture(np.zeros(8, np.uint8)) is picture(colour.astype(np.float32)) is None


def test_native_without_a_screen_is_one_line(bundle, monkeypatch):
    from motoric.scripts.viewers.native import show

    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UserError, match="try viewer=web"):
        show(Live(bundle, OPTIONS, 0))


@pytest.fixture
def screen(tmp_path):
    """A virtual screen of 640 x 480; calling it gives its pixels."""
    program = shutil.which("Xvfb")
    if program is None:
        pytest.skip("no Xvfb here: .ci/system screen installs it")
    read, write = os.pipe()
    server = subprocess.Popen(
        [program, "-displayfd", str(write), "-screen", "0", "640x480x24", "-fbdir", str(tmp_path),
         "-nolisten", "tcp"], pass_fds=[write], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    with os.fdopen(read) as pipe:
        number = pipe.readline().strip()

    def pixels() -> np.ndarray:
        """From the X window dump the server keeps: a header, a colour map, 640 x 480 BGRx."""
        dump = (tmp_path / "Xvfb_screen0").read_bytes()
        header, colours = np.frombuffer(dump, ">u4", 25)[[0, 19]]
        image = np.frombuffer(dump, np.uint8, 640 * 480 * 4, int(header + 12 * colours))
        return image.reshape(480, 640, 4)[:, :, 2::-1].astype(int)

    yield f":{number}", pixels
    server.terminate()
    server.wait(10)


def test_native_window(bundle, tmp_path, screen):
    """`viewer=native` on a real X screen: the robot is in the window and it moves."""
    display, pixels = screen
    run = tmp_path / "run"
    shutil.copytree(tmp_path / "bundle", run / "bundle" / "best")
    window = subprocess.Popen(
        [sys.executable, "-m", "motoric.scripts.cli", "evaluate", f"run={run}", "viewer=native",
         "episodes=1"], env=os.environ | {"DISPLAY": display}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            shown = pixels()
            dark = (shown.max(axis=2) < 90) & (shown.max(axis=2) > 15)  # the trunk, not the screen
            if dark[120:360, 160:480].sum() > 300 and (shown > 150).all(axis=2).sum() > 30_000:
                break
            assert window.poll() is None, window.communicate()[1]
            assert time.monotonic() < deadline, "no robot in the window"
            time.sleep(0.3)
        moved = 0
        while moved < 200 and time.monotonic() < deadline:
            time.sleep(0.3)
            moved = (np.abs(pixels() - shown).max(axis=2) > 20).sum()
        assert moved >= 200
    finally:
        window.kill()
        window.communicate()


def test_video(bundle, tmp_path):
    path = tmp_path / "videos" / "a.mp4"
    count = record_video(
        bundle, OPTIONS, path, seconds=0.6, goal=[0.5, 0, 0], width=320, height=240
    )
    frames = [np.asarray(f) for f in imageio.get_reader(path)]
    assert len(frames) == count == 15
    assert frames[0].shape == (240, 320, 3)
    assert all(20 < f.mean() < 235 and f.std() > 15 for f in frames)
    assert np.abs(frames[-1].astype(int) - frames[0]).max() > 40, "nothing moves"


def test_the_camera_sees_the_robot():
    model = load_model(GO2)
    there = np.concatenate([[0, 0, 0.3, 1, 0, 0, 0], GO2.stand])
    with Camera(model, 320, 240) as camera:
        seen = camera.picture(there)
        model.geom_rgba[:, 3] = np.where(np.arange(model.ngeom) == model.geom("floor").id, 1, 0)
        empty = camera.picture(there)
    assert (np.abs(seen.astype(int) - empty).max(axis=2) > 40).mean() > 0.02
