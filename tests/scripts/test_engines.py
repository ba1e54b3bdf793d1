"""Evaluating and training in either physics engine."""

from __future__ import annotations

import json

import numpy as np
import pytest
from motoric.envs.registry import ENGINES
from motoric.hardware.runtime.bundle import Bundle
from motoric.scripts import config
from motoric.scripts.cli import main
from motoric.scripts.config import UserError
from motoric.scripts.training import evaluation
from motoric.scripts.viewers.live import make_scene


@pytest.mark.parametrize("engine", ENGINES)
def test_episodes_tell_energy(bundle_folder, engine):
    bundle = Bundle.load(bundle_folder)
    still = {"randomise": False}
    episodes = evaluation.run(bundle, still, 2, 0, [0.0, 0.0, 0.0], 0.4, engine)
    assert episodes.power is not None
    assert ((episodes.power > 0.1) & (episodes.power < 100)).all()
    summary = episodes.summary()
    assert summary["power_mean"] == pytest.approx(episodes.power.mean())
    assert summary["terminated"] == 0


@pytest.mark.parametrize("seconds", [0.1, 21.0])
def test_episodes_are_as_long_as_asked_for(bundle_folder, seconds):
    """Longer than the task's own 20 s, too."""
    options = {"randomise": False}
    episodes = evaluation.run_task(
        Bundle.load(bundle_folder), options, 1, 0, [0.0, 0.0, 0.0], seconds
    )
    assert episodes.lengths.tolist() == [round(50 * seconds)]


def test_cost_of_transport_is_power_over_weight_and_speed():
    speeds = np.array([0.5, np.nan])
    episodes = evaluation.Episodes(
        np.ones(2), np.ones(2, int), np.zeros(2, bool), np.ones(2), np.array([75.0, 3.0]), speeds
    )
    assert episodes.summary()["cost_of_transport"] == 0.5, "the one that stood doesn't count"


def test_evaluate_in_another_engine(bundle_folder, capsys):
    given = [f"run={bundle_folder}", "episodes=2", "seconds=0.1", "command=[0,0,0]"]
    assert main(["evaluate", *given, "engine=pybullet"]) == 0
    assert "in pybullet" in capsys.readouterr().out
    assert json.loads((bundle_folder / "evaluation.json").read_text())["engine"] == "pybullet"
    assert main(["evaluate", *given]) == 0
    assert json.loads((bundle_folder / "evaluation.json").read_text())["engine"] == "mujoco"


def test_viewers_show_the_other_engine(bundle_folder):
    scene = make_scene(Bundle.load(bundle_folder), {}, 0, "pybullet")
    before = scene.qpos.copy()
    scene.push([0.5, 0.0, 0.0])
    scene.step()
    assert scene.qpos.shape == (scene.model.nq,)
    assert scene.qpos[0] > before[0]


def test_training_in_pybullet_is_evaluated_there(command, tmp_path):
    run = tmp_path / "run"
    command(
        "train", "policy=ppo", "env.engine=pybullet", "env.num_envs=2", "policy.n_steps=8",
        "policy.batch_size=16", "policy.net_arch=[8]", "total_steps=16", "eval_episodes=1",
        "progress=false", f"run={run}", "+env.options.episode_seconds=0.4",
    )  # fmt: skip
    bundle = Bundle.load(run / "bundle" / "last")
    assert evaluation.trained_on(bundle) == "pybullet"


@pytest.mark.parametrize(
    ("command", "given", "message"),
    [
        ("train", "env.engine=dart", "env.engine: 'dart', expected one of null, mujoco, pybullet"),
        ("evaluate", "engine=dart", "engine: 'dart', expected one of null, mujoco, pybullet"),
    ],
)
def test_unknown_engines_are_named(command, given, message):
    with pytest.raises(UserError, match=message):
        config.load(command, [given] + (["run=x"] if command == "evaluate" else []))
