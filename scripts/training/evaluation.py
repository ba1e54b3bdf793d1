"""Episodes of a bundle with seeds that training never used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from motoric.envs.batched import BatchedEnv
from motoric.envs.registry import TASKS, make_task
from motoric.hardware.runtime.bundle import Bundle
from numpy.typing import NDArray

# First seeds of evaluations, far from those of training (its seed, plus the environment's number).
VALIDATION, TEST = 1 << 33, 1 << 32
MOVING = 0.1  # m/s: slower than this, cost of transport says nothing


@dataclass(frozen=True)
class Episodes:
    """E finished episodes.

    returns, lengths [E]; terminated [E]: ended early (a fall), not by time
    velocity_error [E]: mean |v - v*| in the plane while it lasted, m/s; None for other tasks
    power [E]: mean mechanical power of the motors, sum |tau dq|, W; None for other tasks
    transport [E]: cost of transport, power / (weight x speed); NaN where the robot hardly moves
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    velocity_error: NDArray[np.float64] | None
    power: NDArray[np.float64] | None = None
    transport: NDArray[np.float64] | None = None

    def summary(self) -> dict[str, Any]:
        """For JSON and tables."""
        result: dict[str, Any] = {
            "episodes": len(self.returns),
            "return_mean": float(self.returns.mean()),
            "return_std": float(self.returns.std()),
            "length_mean": float(self.lengths.mean()),
            "terminated": int(self.terminated.sum()),
        }
        if self.velocity_error is not None:
            result["velocity_error_mean"] = float(self.velocity_error.mean())
            result["velocity_error_max"] = float(self.velocity_error.max())
        if self.power is not None and self.transport is not None:
            result["power_mean"] = float(self.power.mean())
            walked = self.transport[np.isfinite(self.transport)]
            result["cost_of_transport"] = float(walked.mean()) if len(walked) else None
        return result


def run_task(
    bundle: Bundle,
    options: dict[str, Any],
    episodes: int,
    seed: int,
    command: list[float] | None = None,
    seconds: float | None = None,
    engine: str = "mujoco",
) -> Episodes:
    """All episodes of one of our tasks at once, one environment each.

    command: held throughout; None: as the task draws it. seconds: None: the task's own length.
    """
    if seconds is not None:
        options = options | {"episode_seconds": float(seconds)}
    task = make_task(bundle.spec.task, options)
    env = BatchedEnv(task, episodes, seed, engine=engine)
    weight = env.sim.mass * np.linalg.norm(env.model.opt.gravity)  # N
    env.hold_command(command)
    obs = env.reset()
    running = np.ones(episodes, bool)
    returns, error = np.zeros(episodes), np.zeros(episodes)
    power, speed = np.zeros(episodes), np.zeros(episodes)
    lengths, fell = np.zeros(episodes, np.int64), np.zeros(episodes, bool)
    for _ in range(task.episode_steps):
        obs, reward, terminated, truncated, info = env.step(bundle.act(obs))
        returns += reward * running
        power += info["power"] * running
        speed += info["speed"] * running
        error += info["velocity_error"] * running
        lengths += running
        fell |= terminated & running
        running &= ~(terminated | truncated)
        if not running.any():
            break
    power, speed = power / lengths, speed / lengths
    with np.errstate(divide="ignore"):
        transport = np.where(speed > MOVING, power / (weight * speed), np.nan)
    return Episodes(returns, lengths, fell, error / lengths, power, transport)


def run_gym(
    bundle: Bundle, env_id: str, options: dict[str, Any], episodes: int, seed: int
) -> Episodes:
    """Episodes of a Gymnasium environment, one after the other."""
    env = gym.make(env_id, **options)
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    terminations = np.zeros(episodes, bool)
    for i in range(episodes):
        obs, _ = env.reset(seed=seed + i)
        over = False
        while not over:
            action = act_once(bundle, obs, env.action_space)
            obs, reward, terminated, truncated, _ = env.step(action)
            returns[i] += float(reward)
            lengths[i] += 1
            over = bool(terminated or truncated)
            terminations[i] = bool(terminated)
    env.close()
    return Episodes(returns, lengths, terminations, None)


def act_once(bundle: Bundle, obs: Any, space: spaces.Space) -> Any:
    """The action for one unbatched observation, as the environment's action space wants it."""
    batch = (
        {k: np.asarray(v)[None] for k, v in obs.items()}
        if isinstance(obs, dict)
        else (np.asarray(obs)[None])
    )
    action = bundle.act(batch)[0]
    return int(action) if isinstance(space, spaces.Discrete) else action


def trained_on(bundle: Bundle) -> str:
    """The physics engine of a bundle's training."""
    return bundle.spec.training.get("engine") or "mujoco"


def run(
    bundle: Bundle,
    options: dict[str, Any],
    episodes: int,
    seed: int,
    command: list[float] | None = None,
    seconds: float | None = None,
    engine: str | None = None,
) -> Episodes:
    """Evaluate a bundle on its task. engine: None: the one it was trained on."""
    if bundle.spec.task in TASKS:
        engine = engine or trained_on(bundle)
        return run_task(bundle, options, episodes, seed, command, seconds, engine)
    return run_gym(bundle, bundle.spec.task.removeprefix("gym:"), options, episodes, seed)
