"""What a viewer shows: one world with a policy acting in it, one step at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from motoric.hardware.goals import Goal, Part, text_of
from motoric.hardware.interfaces.base import Metric
from motoric.hardware.runtime.bundle import Bundle
from motoric.hardware.runtime.policy import Policy
from motoric.scripts.config import UserError
from motoric.scripts.training import evaluation
from numpy.typing import NDArray

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

FOREVER = 1e6  # s: in a viewer an episode ends by a failure, not by time, where a task has a say


@dataclass(frozen=True)
class Sample:
    """One step: reward and metrics by name, and whether and how the episode ended with it."""

    reward: float
    metrics: dict[str, float]
    terminated: bool
    truncated: bool


class Live:
    """A world of a bundle's environment, live. With several robots, numbers are the first one's.

    model: MuJoCo's; None: there is nothing in 3-D, see `frame`
    unseen: why there is no `frame` either
    dt: s per step; agents: robots in it
    goals: parts of the goal; metrics: what a step is measured by
    goal: held from the beginning; None: as the task draws it
    Raises UserError for an environment that can't be made, and a goal that it has not.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: dict[str, Any],
        seed: int,
        engine: str | None = None,
        goal: Any = None,
    ) -> None:
        try:
            self.batch = evaluation.make_worlds(bundle, options, 1, seed, FOREVER, engine)
            self.unseen = None if self.batch.model is not None else self._try_picture()
            if self.unseen is not None:
                self.batch = evaluation.make_worlds(bundle, options, 1, seed, FOREVER, engine)
            evaluation.hold_goal(self.batch, goal)
        except (ValueError, ImportError) as error:
            raise UserError(str(error).split("\n")[0]) from None
        self.model, self.dt = self.batch.model, self.batch.control_dt
        self.agents: int = self.batch.agents
        self.goals: tuple[Part, ...] = self.batch.goals
        self.metrics: tuple[Metric, ...] = self.batch.metrics
        self._policy = Policy(bundle, self.batch.num_envs, seed % 2**32)
        self._seed = seed
        self._observation = self.batch.reset()

    def _try_picture(self) -> str | None:
        """What hinders the environment's own picture, if anything."""
        try:
            return "has no picture of its own" if self.batch.render() is None else None
        except Exception as error:  # renderers raise what they will
            return str(error).split("\n")[0]

    @property
    def pose(self) -> Array | None:
        """MuJoCo's qpos of the world, [nq]."""
        poses = self.batch.poses
        return None if poses is None else poses[0]

    def frame(self) -> Image | None:
        """The environment's own picture, [height, width, 3], where there is no model."""
        return self.batch.render() if self.model is None and self.unseen is None else None

    @property
    def images(self) -> dict[str, Image]:
        """What the policy sees that is an image, [height, width, 3] each."""
        seen = self._observation
        seen = seen if isinstance(seen, dict) else {"observation": seen}
        found = {name: picture(np.asarray(value)[0]) for name, value in seen.items()}
        return {name: image for name, image in found.items() if image is not None}

    @property
    def goal(self) -> Goal:
        """The present one, held or drawn, each part without N."""
        return {name: value[0] for name, value in self.batch.goal.items()}

    def set_goal(self, values: dict[str, Any] | None) -> None:
        """Hold a goal, by part, moved into the trained range; None: as the task draws it."""
        if values is not None:
            values = {p.name: within(p, values[p.name]) for p in self.goals if p.name in values}
        self.batch.hold_goal(values)

    def hold_present(self) -> None:
        """Hold what is asked for now."""
        goal = self.goal
        self.batch.hold_goal({part.name: plain_goal(part, goal[part.name]) for part in self.goals})

    @property
    def can_push(self) -> bool:
        """Whether a kick moves anything: the robot's base isn't bolted down."""
        interface = self.batch.interface
        return interface is not None and not interface.robot.fixed

    def push(self, velocity: list[float]) -> None:
        """Kick the bases, m/s in the world."""
        self.batch.push(np.array(velocity))

    def reset(self) -> None:
        """Begin anew with other random numbers."""
        self._seed += 1
        self._policy.begin()
        self._observation = self.batch.reset(self._seed)

    def step(self) -> Sample:
        action = self._policy.act(self._observation)
        self._observation, reward, terminated, truncated, info = self.batch.step(action)
        ended = np.flatnonzero(terminated | truncated)
        if len(ended):
            self._policy.begin(ended)
        metrics = {name: float(value[0]) for name, value in info["metrics"].items()}
        return Sample(float(reward[0]), metrics, bool(terminated[0]), bool(truncated[0]))

    def close(self) -> None:
        self.batch.close()


def within(part: Part, value: Any) -> Any:
    """A value moved into what a part allows: numbers clipped, a text cut."""
    if part.is_text:
        return value.encode(errors="replace")[: part.shape[0]].decode(errors="ignore")
    return np.clip(np.asarray(value, np.float64), part.low, part.high).tolist()


def picture(value: NDArray[Any]) -> Image | None:
    """An observation as [height, width, 3], or None where it is no image.

    It is one if it is bytes in three dimensions; the channels (1, 3, or a stack of grey pictures,
    of which the newest is shown) come first or last.
    """
    if value.dtype != np.uint8 or value.ndim != 3:
        return None
    if value.shape[0] < min(value.shape[1:]):
        value = np.moveaxis(value, 0, -1)
    return value if value.shape[2] == 3 else np.repeat(value[:, :, -1:], 3, axis=2)


def plain_goal(part: Part, value: NDArray[Any]) -> Any:
    """A part of a goal as a user gives it: a list of numbers, or a text."""
    return text_of(value) if part.is_text else value.tolist()


def goal_text(part: Part, value: Any) -> str:
    """A part of a goal in a line; value: [k], or a text."""
    if part.is_text:
        return f"{part.name} {value if isinstance(value, str) else text_of(value)!r}"
    numbers = zip(part.names, value, part.units, strict=True)
    return ", ".join(f"{name} {v:+.2f} {unit}".rstrip() for name, v, unit in numbers)


def metric_text(metric: Metric, value: float) -> str:
    """A metric in a few words."""
    name = metric.text or metric.name
    return f"{name} {value:.3g} {metric.unit}".rstrip()


def asked_for(goals: tuple[Part, ...], metric: str) -> tuple[Part, int] | None:
    """The number of the goal that a metric measures: the one of its name, `NAME` or `PART.NAME`."""
    for part in goals:
        for i, name in enumerate(part.names):
            if metric in (name, f"{part.name}.{name}") and not part.is_text:
                return part, i
    return None


def step_of(low: float, high: float, steps: int) -> float:
    """A round number (1, 2 or 5 times a power of ten): a range in about so many steps."""
    least = max(high - low, 1e-9) / steps
    power = 10.0 ** np.floor(np.log10(least))
    return float(next(k * power for k in (1, 2, 5, 10) if k * power >= 0.999 * least))
