"""The groups whose choices are YAML files, and the viewers: what their keys are.

A file of the group `env` has `defaults: [schema, _self_]`, and is then checked against `Env`; so
are those of `robot` and `dataset`. Packages bring files of their own by an entry point of the group
`motoric.configs` whose value is the package they are in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from motoric.configs.schema import COUNT, NOT_NEGATIVE, POSITIVE, Range, doc
from omegaconf import MISSING


@dataclass
class Env:
    """What to train in: a task, or any environment of Gymnasium's; without an id, nothing."""

    name: str = MISSING
    id: str | None = doc(None, "name of a task, or a Gymnasium id")
    num_envs: int = doc(1, "environments stepped together", COUNT)
    num_threads: int = doc(0, "cores for a batched simulation; 0: all", NOT_NEGATIVE)
    engine: str | None = doc(None, "physics of a task: mujoco or pybullet; null: the task's first")
    options: dict[str, Any] = doc({}, "arguments of the task or of gymnasium.make")
    training: dict[str, Any] = doc({}, "more of them in training alone: evaluation has none of it")


@dataclass
class Dataset:
    """What to learn from besides, or instead of, an environment; without a path, nothing."""

    name: str = MISSING
    path: str | None = doc(None, "folder of a set of transitions (motoric data record)")


@dataclass
class Robot:
    """The robot to deploy on."""

    name: str = MISSING
    driver: str = doc(MISSING, "a key of `motoric.hardware.drivers`, or a package's")
    model: str | None = doc(None, "its URDF or MJCF; null: the driver knows the robot")
    options: dict[str, Any] = doc({}, "arguments of the driver")

    def settle(self) -> None:
        if self.model is not None:
            self.options["model"] = self.model


@dataclass
class Viewer:
    """How to look at a robot: web, native, video or none."""

    name: str = MISSING


@dataclass
class Web(Viewer):
    """A page for the browser."""

    name: str = "web"
    host: str = doc("127.0.0.1", "address the page listens on")
    port: int = doc(8080, "of the page", Range(least=1, most=65535))


@dataclass
class Native(Viewer):
    """MuJoCo's own window."""

    name: str = "native"


@dataclass
class Video(Viewer):
    """An MP4, without a screen."""

    name: str = "video"
    out: str | None = doc(None, "file to write; null: RUN/videos/..., or beside the log")
    width: int = doc(640, "pixels, even", Range(least=16))
    height: int = doc(480, "pixels, even", Range(least=16))
    seconds: float = doc(10.0, "length, s", POSITIVE)


@dataclass
class NoViewer(Viewer):
    """Numbers only."""

    name: str = "none"


VIEWERS: dict[str, type[Viewer]] = {
    kind.name: kind for kind in (Web, Native, Video, NoViewer)
}  # fmt: skip
