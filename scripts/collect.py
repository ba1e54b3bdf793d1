"""Data sets: `motoric data record …` writes one, `motoric data info …` looks at it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from motoric.configs.commands import Info, Record
from motoric.envs.batched import Batch
from motoric.envs.registry import make_batch
from motoric.hardware.runtime.bundle import Bundle, find_bundle
from motoric.hardware.runtime.policy import Policy
from motoric.policies.data.transitions import DataError, Transitions, Writer
from motoric.scripts.config import UserError
from motoric.scripts.training import evaluation
from motoric.scripts.training.export import environment_of
from numpy.typing import NDArray


def record(settings: Record, say: Callable[[str], None] = print) -> Path:
    """Episodes of a run's policy, in the environment it was trained in or another; the folder.

    Raises UserError.
    """
    _, path = find_bundle(settings.run, settings.bundle)
    bundle = Bundle.load(path)
    training = bundle.spec.training
    name, worlds = bundle.spec.task, settings.num_envs
    engine, options = training.get("engine"), training.get("options", {})
    if settings.env is not None:
        name, worlds = settings.env.id, settings.env.num_envs
        engine, options = settings.env.engine, settings.env.options
    try:
        batch = make_batch(name, worlds, settings.seed, engine, options=options)
        try:
            evaluation.hold_goal(batch, settings.goal)
            about = {
                "environment": environment_of(batch), "options": options, "engine": engine,
                "policy": str(path), "noise": settings.noise, "seed": settings.seed,
            }  # fmt: skip
            writer = Writer(settings.out, batch.observation_space, batch.action_space, about)
            try:
                count = _record(bundle, batch, writer, settings)
                out = writer.close()
            except BaseException:
                writer.discard()
                raise
        finally:
            batch.close()
    except DataError as error:
        raise UserError(f"out: {error}") from None
    except (ValueError, ImportError) as error:
        raise UserError(str(error).split("\n")[0]) from None
    say(f"{out}: {writer.count:,} transitions of {name}, {count} episodes")
    return out


def _record(bundle: Bundle, batch: Batch, writer: Writer, settings: Record) -> int:
    """Episodes until there are enough; how many there are."""
    rows, space = batch.num_envs, batch.action_space
    policy = Policy(bundle, rows, settings.seed)
    random, noise = np.random.default_rng(settings.seed), settings.noise
    if noise and not isinstance(space, spaces.Box):
        raise ValueError(f"noise: {noise}, expected 0: {batch.name} has no continuous actions")
    running: list[list[tuple[Any, ...]]] = [[] for _ in range(rows)]
    count, seen = 0, batch.reset()
    while count < settings.episodes:
        action = policy.act(seen)
        if noise:
            assert isinstance(space, spaces.Box)
            action = action + noise * (space.high - space.low) / 2 * random.standard_normal(
                action.shape
            )
            action = np.clip(action, space.low, space.high).astype(space.dtype)
        after, reward, terminated, truncated, info = batch.step(action)
        final = after if info["final_obs"] is None else info["final_obs"]
        over = terminated | truncated
        for i in range(rows):
            there = final if over[i] else after
            running[i].append((_row(seen, i), _row(there, i), action[i], reward[i]))
            if over[i] and count < settings.episodes:
                first, then, did, paid = zip(*running[i], strict=True)
                writer.add(_stacked(first), _stacked(then), did, paid, bool(terminated[i]))
                count += 1
            if over[i]:
                running[i] = []
        if over.any():
            policy.begin(np.flatnonzero(over))
        seen = after
    return count


def _row(observation: Any, i: int) -> Any:
    """A copy, so that what a simulation writes next does not change it."""
    if isinstance(observation, dict):
        return {name: value[i].copy() for name, value in observation.items()}
    return observation[i].copy()


def _stacked(observations: tuple[Any, ...]) -> Any:
    first = observations[0]
    if isinstance(first, dict):
        return {name: np.stack([o[name] for o in observations]) for name in first}
    return np.stack(observations)


def info(settings: Info, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Check a set and say what is in it. Raises UserError."""
    try:
        data = Transitions.open(settings.path)
    except DataError as error:
        raise UserError(f"path: {error}") from None
    returns, ends = data.returns(), int(data.terminated.sum())
    lengths = np.array([e.stop - e.start for e in data.episodes()])
    found = {
        "of": str(data.about.get("environment", {}).get("task")),
        "transitions": f"{len(data):,}",
        "episodes": f"{len(returns)}, {ends} of them terminated",
        "length": _spread(lengths),
        "return": _spread(returns),
        "observation": str(data.observation_space),
        "action": str(data.action_space),
    }
    for name, value in found.items():
        say(f"  {name:<15} {value}")
    return found


def _spread(values: NDArray[Any]) -> str:
    return f"{values.mean():.1f} mean, {values.min():.1f} to {values.max():.1f}"


def run_record(settings: Record, say: Callable[[str], None]) -> int:
    """`motoric data record`."""
    record(settings, say)
    return 0


def run_info(settings: Info, say: Callable[[str], None]) -> int:
    """`motoric data info`."""
    info(settings, say)
    return 0


if __name__ == "__main__":
    from motoric.scripts.cli import main

    sys.exit(main(["data", *sys.argv[1:]]))
