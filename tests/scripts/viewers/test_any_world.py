"""What a viewer shows of other worlds than a robot's that walks: in a real browser, as a film."""

from __future__ import annotations

import threading

import imageio.v2 as imageio
import numpy as np
import pytest
from motoric.hardware.goals import text_of
from motoric.hardware.runtime.bundle import Bundle
from motoric.scripts.config import UserError
from motoric.scripts.viewers.live import Live
from motoric.scripts.viewers.native import show
from motoric.scripts.viewers.video import record_video
from motoric.scripts.viewers.web import LivePage

from .conftest import wait_until


@pytest.fixture
def serve(port):
    """Serve pages; they are closed at the end."""
    stop, pages = threading.Event(), []

    def run(live: Live) -> LivePage:
        page = LivePage(live, "test", "127.0.0.1", port)
        thread = threading.Thread(target=page.run, args=(stop,), daemon=True)
        thread.start()
        pages.append((page, thread))
        return page

    yield run
    stop.set()
    for page, thread in pages:
        thread.join(5)
        page.close()


@pytest.fixture
def mountain_car_bundle(mountain_car) -> Bundle:
    return Bundle.load(mountain_car / "bundle" / "best")


def test_agents_words_and_images_in_a_browser(discs_bundle, serve, browser, port):
    """Three agents in one world, a goal of two parts, and what they see."""
    live = Live(discs_bundle, {}, 0)
    page = serve(live)
    tab = browser.new_page(viewport={"width": 960, "height": 1200})
    errors = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(f"http://127.0.0.1:{port}")
    for text in ("x, m", "y, m", "words", "seen: camera", "distance left, m", "Say"):
        tab.get_by_text(text, exact=True).first.wait_for(timeout=60_000)
    assert tab.get_by_text("Push", exact=True).count() == 0, "no robot to push"
    assert len(np.unique(live.goal["place"])) == 2
    assert page.goal.auto.value, "each of several agents has a goal of its own"

    # All three discs are in the picture: dark, and nothing else is.
    def dark() -> np.ndarray:
        data = np.asarray(imageio.imread(tab.screenshot())[200:, :600, :3], int)
        return data.max(axis=2) < 90

    assert wait_until(lambda: (tab.wait_for_timeout(300), dark().sum())[1] > 300), dark().sum()

    # Given back and forth: the sliders hold one goal for all, and the words come with it.
    boxes = tab.get_by_role("textbox").all()
    box = next(box for box in boxes if not box.get_attribute("value"))
    box.fill("to the left")
    tab.get_by_role("checkbox").first.click()
    assert wait_until(lambda: not page.goal.auto.value)
    tab.get_by_text("Say", exact=True).click()
    assert wait_until(lambda: text_of(live.goal["instruction"]) == "to the left"), live.goal
    slider = next(
        s for s in tab.get_by_role("slider").all() if s.get_attribute("aria-valuemin") == "-2"
    )
    slider.focus()
    for _ in range(60):
        slider.press("ArrowRight")
    assert wait_until(lambda: live.goal["place"][1] == 2.0), live.goal
    assert wait_until(lambda: (live.pose[1::2] > 1.8).all()), "all of them go there"
    seen = page.seen["camera"].image
    assert seen.shape == (12 * 15, 16 * 15, 3), "enlarged to be seen"
    assert wait_until(lambda: "arrived 1" in page.status.content), page.status.content
    assert "distance left" in page.status.content
    asked, measured = page.metrics.lines("x")
    assert len(asked) == len(measured) > 10
    assert tab.locator(".uplot").count() == 1 + 3, "the reward, and all but whether it arrived"
    assert not errors


def test_words_too_long_are_cut_not_in_a_letter(discs_bundle):
    live = Live(discs_bundle, {}, 0)
    live.set_goal({"instruction": "é" * 39 + "\ud800", "place": [9, np.pi]})
    assert text_of(live.goal["instruction"]) == "é" * 20
    np.testing.assert_array_equal(live.goal["place"], [1.0, 2.0])
    live.set_goal(None)
    live.reset()
    assert (np.abs(live.goal["place"]) < [1.0, 2.0]).all(), "drawn again"


def test_an_environment_without_a_model_in_a_browser(mountain_car_bundle, serve, browser, port):
    live = Live(mountain_car_bundle, {}, 0)
    assert live.model is live.pose is live.unseen is None
    page = serve(live)
    tab = browser.new_page(viewport={"width": 1200, "height": 800})
    tab.goto(f"http://127.0.0.1:{port}")
    tab.get_by_text("Pause", exact=True).wait_for(timeout=60_000)
    image = tab.locator('img[src^="blob:"]')
    image.first.wait_for(timeout=30_000)
    assert wait_until(lambda: image.first.bounding_box()["width"] > 200)
    first = image.first.get_attribute("src")
    assert wait_until(lambda: image.first.get_attribute("src") != first), "it moves"
    assert wait_until(lambda: page.ended_early == 1), "it is over the mountain, and begins anew"
    assert tab.get_by_text("Goal", exact=True).count() == 0


def test_films(discs_bundle, mountain_car_bundle, tmp_path):
    goal = {"place": [1.0, 2.0]}
    count = record_video(discs_bundle, {}, tmp_path / "a.mp4", 1.0, 0, goal, 320, 240)
    frames = [np.asarray(f, int) for f in imageio.get_reader(tmp_path / "a.mp4")]
    assert len(frames) == count == 20
    assert np.abs(frames[-1] - frames[0]).max() > 40, "nothing moves"

    count = record_video(mountain_car_bundle, {}, tmp_path / "b.mp4", 1.0)
    frames = [np.asarray(f, int) for f in imageio.get_reader(tmp_path / "b.mp4")]
    assert len(frames) == count == 30
    assert frames[0].shape == (400, 600, 3), "its own picture"
    assert np.abs(frames[-1] - frames[0]).max() > 40


def test_what_can_not_be_pictured_says_why(mountain_car_bundle, tmp_path, monkeypatch, serve):
    from motoric.envs.gymnasium_env import GymnasiumEnvs

    def broken(self):
        raise RuntimeError("no pygame here\nand more")

    monkeypatch.setattr(GymnasiumEnvs, "render", broken)
    live = Live(mountain_car_bundle, {}, 0)
    assert live.unseen == "no pygame here"
    page = serve(live)
    assert wait_until(lambda: page.time > 0.2), "its numbers are there all the same"
    with pytest.raises(UserError, match=r"PicturedCar-v0 can't be filmed: no pygame here$"):
        record_video(mountain_car_bundle, {}, tmp_path / "b.mp4", 1.0)
    assert not (tmp_path / "b.mp4").exists()
    with pytest.raises(UserError, match="try viewer=web"):
        show(live)
