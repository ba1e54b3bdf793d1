"""Pictures of a MuJoCo model without a screen: its renderer on EGL or OSMesa."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

MISSING = (
    "no software OpenGL for pictures; install it: sudo apt-get install libegl1 libgl1 "
    "libgl1-mesa-dri"
)


def gl_context(width: int, height: int) -> Any:
    """An off-screen OpenGL context, made current. Raises RuntimeError naming what is missing."""
    for module in ("mujoco.egl", "mujoco.osmesa"):
        try:
            context = import_module(module).GLContext(width, height)
            context.make_current()
        except Exception:  # a missing library shows as anything from ImportError to AttributeError
            continue
        return context
    raise RuntimeError(MISSING)


class Pictures:
    """Draws what the cameras of a model see, in one size. Raises RuntimeError without OpenGL."""

    def __init__(self, model: mujoco.MjModel, height: int, width: int) -> None:
        self._model, self._rect = model, mujoco.MjrRect(0, 0, width, height)
        # Software OpenGL pays for every pixel, of the frame buffer and of the shadow map: without
        # shadows a small picture takes a fiftieth.
        visual = model.vis
        visual.global_.offwidth, visual.global_.offheight = width, height
        visual.quality.shadowsize = visual.quality.offsamples = 0
        self._gl: Any = gl_context(width, height)
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, 2000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self._option, self._camera = mujoco.MjvOption(), mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED

    def take(self, data: mujoco.MjData, camera: str) -> NDArray[np.uint8]:
        """What a camera sees now, [height, width, 3], read-only."""
        self._gl.make_current()
        self._camera.fixedcamid = self._model.camera(camera).id
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, self._camera,
            mujoco.mjtCatBit.mjCAT_ALL.value, self._scene,
        )  # fmt: skip
        mujoco.mjr_render(self._rect, self._scene, self._context)
        pixels = np.empty((self._rect.height, self._rect.width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._rect, self._context)
        picture = pixels[::-1].copy()
        picture.flags.writeable = False
        return picture

    def close(self) -> None:
        """Let go of the context. Safe to call more than once."""
        if self._gl is not None:
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._gl = None
