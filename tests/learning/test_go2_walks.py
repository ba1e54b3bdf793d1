"""The main job: from nothing to a robot that follows a velocity command."""

from __future__ import annotations

import numpy as np
import pytest
from motoric.hardware.runtime.bundle import Bundle
from motoric.scripts import config
from motoric.scripts.train import train
from motoric.scripts.training import evaluation


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_go2_learns_to_walk(tmp_path):
    """After two thirds of the demo's training it follows 0.5 m/s and stays up, in PyBullet too."""
    settings = config.load(
        "train", ["experiment=go2_walk", "total_steps=400000", "eval_every=1000000",
                  "checkpoint_every=1000000", "progress=false", f"run={tmp_path / 'run'}"],
    )  # fmt: skip
    train(settings, lambda text: None)
    bundle = Bundle.load(tmp_path / "run" / "bundle" / "best")
    for engine, count in (("mujoco", 20), ("pybullet", 5)):
        goal = [0.5, 0.0, 0.0]
        episodes = evaluation.run(bundle, {}, count, evaluation.TEST, goal, 10.0, engine)
        assert episodes.terminated.mean() <= 0.1, engine
        assert np.mean(episodes.metrics["velocity_error"]) < 0.25, engine
