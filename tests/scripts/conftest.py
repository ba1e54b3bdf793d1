"""Trainings small enough for a test."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from motoric.scripts.cli import main

from .toys import discs, discs_bundle, mountain_car

__all__ = ["discs", "discs_bundle", "mountain_car"]  # fixtures

SMALL = {
    "ppo": [
        "policy=ppo", "env.num_envs=16", "policy.n_steps=16", "policy.batch_size=128",
        "policy.n_epochs=2", "policy.net_arch=[32]", "policy.normalize_observation=true",
        "policy.learning_rate_end=1e-4",
    ],
    "dsac_t": [
        "policy=dsac_t", "env.num_envs=16", "policy.net_arch=[32,32]", "policy.buffer_size=4000",
        "policy.learning_starts=200", "policy.train_freq=16", "policy.gradient_steps=4",
        "policy.batch_size=64", "policy.normalize_observation=true",
        "policy.normalize_reward=true", "policy.replay=device",
    ],
    "sac": [
        "policy=sac", "env.num_envs=16", "policy.net_arch=[32]", "policy.buffer_size=4000",
        "policy.learning_starts=200", "policy.train_freq=16", "policy.gradient_steps=4",
        "policy.batch_size=64",
    ],
}  # fmt: skip


@pytest.fixture
def port() -> int:
    """One that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def motoric():
    """Run the command as a user would: `motoric(arguments…)`, a finished process."""

    def run(*arguments: object, cwd: Path | None = None, check: bool = True, **kwargs):
        done = subprocess.run(
            [sys.executable, "-m", "motoric.scripts.cli", *map(str, arguments)],
            cwd=cwd, capture_output=True, text=True, timeout=240,
            env=os.environ | {"OMP_NUM_THREADS": "1"}, **kwargs,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def command(capsys):
    """The same within this process, which has its imports behind it: no signals, no kills."""

    def run(*arguments: object, check: bool = True):
        code = main([str(argument) for argument in arguments])
        done = subprocess.CompletedProcess(arguments, code, *capsys.readouterr())
        if check:
            assert code == 0, done.stderr
        return done

    return run
