"""Evaluating and training in either physics engine."""

from __future__ import annotations

import json

import pytest
from motoric.envs.registry import ENGINES
from motoric.hardware.runtime.bundle import Bundle
from motoric.scripts.cli import main
from motoric.scripts.training import evaluation
from motoric.scripts.viewers.live import Live


@pytest.mark.parametrize("engine", ENGINES)
def test_episodes_tell_energy(bundle_folder, engine):
    bundle = Bundle.load(bundle_folder)
    still = {"randomise": False}
    episodes = evaluation.run(bundle, still, 2, 0, [0.0, 0.0, 0.0], 0.4, engine)
    power = episodes.metrics["power"]
    assert ((power > 0.1) & (power < 100)).all()
    summary = episodes.summary()
    assert summary["power_mean"] == pytest.approx(power.mean())
    assert summary["terminated"] == 0


@pytest.mark.parametrize("seconds", [0.1, 21.0])
def test_episodes_are_as_long_as_asked_for(bundle_folder, seconds):
    """Longer than the task's own 20 s, too."""
    options = {"randomise": False}
    episodes = evaluation.run(Bundle.load(bundle_folder), options, 1, 0, [0.0, 0.0, 0.0], seconds)
    assert episodes.lengths.tolist() == [round(50 * seconds)]


def test_evaluate_in_another_engine(bundle_folder, capsys):
    given = [f"run={bundle_folder}", "episodes=2", "seconds=0.1", "goal=[0,0,0]"]
    assert main(["evaluate", *given, "engine=pybullet"]) == 0
    assert "in pybullet" in capsys.readouterr().out
    assert json.loads((bundle_folder / "evaluation.json").read_text())["engine"] == "pybullet"
    assert main(["evaluate", *given]) == 0
    assert json.loads((bundle_folder / "evaluation.json").read_text())["engine"] == "mujoco"


def test_viewers_show_the_other_engine(bundle_folder):
    live = Live(Bundle.load(bundle_folder), {}, 0, "pybullet")
    before = live.pose.copy()
    live.push([0.5, 0.0, 0.0])
    live.step()
    assert live.pose.shape == (live.model.nq,)
    assert live.pose[0] > before[0]


def test_training_in_pybullet_is_evaluated_there(command, tmp_path):
    run = tmp_path / "run"
    command(
        "train", "policy=ppo", "env.engine=pybullet", "env.num_envs=2", "policy.n_steps=8",
        "policy.batch_size=16", "policy.net_arch=[8]", "total_steps=16", "eval_episodes=1",
        "progress=false", f"run={run}", "+env.options.episode_seconds=0.4",
    )  # fmt: skip
    bundle = Bundle.load(run / "bundle" / "last")
    assert evaluation.trained_on(bundle) == "pybullet"


def test_unknown_engines_are_named(bundle_folder, command, tmp_path):
    wrong = "engine: 'dart', go2_velocity runs in mujoco, pybullet only"
    for viewer in ("none", "video"):
        done = command("evaluate", bundle_folder, "engine=dart", f"viewer={viewer}", check=False)
        assert done.returncode == 2
        assert wrong in done.stderr
    done = command("train", "env.engine=dart", f"run={tmp_path / 'run'}", check=False)
    assert done.returncode == 2
    assert wrong in done.stderr
    assert not (tmp_path / "run").exists()
