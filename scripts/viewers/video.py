"""Videos and pictures without a screen: MuJoCo's renderer on EGL or OSMesa, H.264 in MP4."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import imageio.v2 as imageio
import mujoco
import numpy as np
from motoric.hardware.runtime.bundle import Bundle
from motoric.scripts.config import UserError
from motoric.scripts.viewers.live import Live, Sample, goal_text, metric_text
from motoric.scripts.viewers.logs import Deployment
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Frame = NDArray[np.uint8]
FPS = 30.0  # at most


def _gl_context(width: int, height: int) -> Any:
    """An off-screen OpenGL context, made current. Raises UserError naming what is missing."""
    for module in ("mujoco.egl", "mujoco.osmesa"):
        try:
            context = __import__(module, fromlist=["GLContext"]).GLContext(width, height)
            context.make_current()
        except Exception:  # a missing library shows as anything from ImportError to AttributeError
            continue
        return context
    raise UserError(
        "viewer: no software OpenGL for videos; install it: sudo apt-get install libegl1 "
        "libgl1 libgl1-mesa-dri"
    )


class Camera:
    """Renders a model off screen, following its first moving body. Use it in `with`."""

    def __init__(self, model: mujoco.MjModel, width: int, height: int) -> None:
        self.model, self.data = model, mujoco.MjData(model)
        self._rect = mujoco.MjrRect(0, 0, width, height)
        # Software OpenGL pays for every pixel, of the frame buffer and of the shadow map.
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        shadow = min(model.vis.quality.shadowsize, 4 * max(width, height))
        model.vis.quality.shadowsize = shadow
        self._gl = _gl_context(width, height)
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, 2000)
        self._option, self._camera = mujoco.MjvOption(), mujoco.MjvCamera()
        track = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
        if track >= 0:
            self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            self._camera.fixedcamid = track
        else:
            self._camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
            self._camera.trackbodyid = min(1, model.nbody - 1)
            self._camera.distance = 3.0 * model.stat.extent
            self._camera.azimuth, self._camera.elevation = 130, -18
        self._pixels = np.zeros((height, width, 3), np.uint8)

    def __enter__(self) -> Camera:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._context.free()
        self._gl.free()

    def look(self, azimuth: float, elevation: float, distance: float) -> None:
        """Follow the first body from a given side, degrees and m."""
        self._camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
        self._camera.trackbodyid = min(1, self.model.nbody - 1)
        self._camera.azimuth, self._camera.elevation = azimuth, elevation
        self._camera.distance = distance

    def picture(self, qpos: NDArray[np.float64]) -> Frame:
        """What the camera sees of a pose, [height, width, 3]."""
        self.data.qpos[:] = qpos
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        mujoco.mjv_updateScene(
            self.model, self.data, self._option, None, self._camera,
            mujoco.mjtCatBit.mjCAT_ALL.value, self._scene,
        )  # fmt: skip
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._context)
        return self._pixels[::-1].copy()


def caption(frame: Frame, lines: list[str]) -> Frame:
    """Text in the upper left corner."""
    picture = Image.fromarray(frame)
    draw = ImageDraw.Draw(picture)
    size = max(11, frame.shape[0] // 32)
    font = ImageFont.load_default(size)
    for i, line in enumerate(lines):
        at = (12, 10 + i * 1.4 * size)
        draw.text(at, line, fill=(25, 28, 34), font=font)
    return np.asarray(picture)


def _writer(path: Path, fps: float, width: int, height: int) -> Any:
    if width % 2 or height % 2:
        raise UserError(f"viewer: width {width} and height {height} must be even for H.264")
    if path.suffix.lower() != ".mp4":
        raise UserError(f"viewer.out: {path}, expected a name that ends with .mp4")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("wb").close()  # ffmpeg, a process of its own, would say it later and at length
        return imageio.get_writer(
            path, format="FFMPEG", fps=fps, codec="libx264", macro_block_size=2,  # type: ignore[arg-type]
            output_params=["-pix_fmt", "yuv420p", "-crf", "26"], ffmpeg_log_level="error",
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"viewer.out: {path} can't be written: {error.strerror}") from None


def record_video(
    bundle: Bundle,
    options: dict[str, Any],
    path: Path,
    seconds: float = 10.0,
    seed: int = 0,
    goal: Any = None,
    width: int = 640,
    height: int = 480,
    progress: Callable[[float], None] | None = None,
    engine: str | None = None,
) -> int:
    """Film a policy acting; returns the number of frames.

    goal: held, None: the task's own; engine: None: the one it was trained on
    An environment without a model is filmed by its own pictures, in their size.
    """
    live = Live(bundle, options, seed, engine, goal)
    every = max(1, round(1.0 / (FPS * live.dt)))
    count = 0
    with (
        _pictures(live, width, height) as look,
        _writer(path, 1.0 / (every * live.dt), width, height) as writer,
    ):
        for step in range(max(1, round(seconds / live.dt))):
            goal = live.goal
            sample = live.step()
            if step % every:
                continue
            writer.append_data(look(_lines(live, goal, sample)))
            count += 1
            if progress is not None:
                progress(step * live.dt / seconds)
    live.close()
    return count


@contextlib.contextmanager
def _pictures(live: Live, width: int, height: int) -> Iterator[Callable[[list[str]], Frame]]:
    """What gives a picture of the present with lines of text in it."""
    if live.model is not None:
        with Camera(live.model, width, height) as camera:
            yield lambda lines: caption(camera.picture(np.asarray(live.pose)), lines)
        return
    if live.unseen is not None:
        raise UserError(f"viewer: 'video', {live.batch.name} can't be filmed: {live.unseen}")

    def own(lines: list[str]) -> Frame:
        frame = np.asarray(live.frame())
        return frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2]  # even, for H.264

    yield own


def _lines(live: Live, goal: dict[str, Any], sample: Sample) -> list[str]:
    """What was asked for in a step, and its metrics."""
    asked = [goal_text(part, goal[part.name]) for part in live.goals if len(part.names) < 8]
    measured = [metric_text(m, sample.metrics[m.name]) for m in live.metrics if m.over != "any"]
    lines = [f"goal  {text}" for text in asked]
    return lines + [",  ".join(measured[i : i + 3]) for i in range(0, len(measured), 3)]


def record_log(shown: Deployment, path: Path, width: int = 640, height: int = 480) -> int:
    """Film a log of a deployment; returns the number of frames."""
    log = shown.log
    times = np.arange(0.0, log.times[-1] + 1e-9, 1.0 / FPS)
    with (
        Camera(shown.model, width, height) as camera,
        _writer(path, FPS, width, height) as writer,
    ):
        for time in times:
            i = shown.at(time)
            text = f"{log.times[i]:6.2f} s  {log.status[i]}"
            lines = [text, log.reason[i]] if log.reason[i] else [text]
            writer.append_data(caption(camera.picture(shown.poses[i]), lines))
    return len(times)
