"""What a training writes, when, and that nothing it can do without ends it."""

from __future__ import annotations

import numpy as np
import pytest
from motoric.hardware.runtime.bundle import Bundle
from motoric.policies.contract import Exported
from motoric.scripts import config
from motoric.scripts.config import UserError
from motoric.scripts.training import checkpoint, evaluation, export, plots, run_folder
from motoric.scripts.training import run as module
from motoric.scripts.training.run import build, train
from motoric.scripts.training.run_folder import read_metrics
from motoric.scripts.training.watched import Watched

TINY = ["env=pendulum", "policy=ppo", "policy.n_steps=32", "policy.net_arch=[8]",
        "policy.n_epochs=1", "total_steps=96", "log_every=32", "eval_every=32", "eval_episodes=1",
        "checkpoint_every=32", "progress=false"]  # fmt: skip


def tiny(tmp_path, *words: str):
    return config.load("train", [*TINY, f"run={tmp_path / 'run'}", *words])


@pytest.mark.parametrize(
    ("place", "name", "said"),
    [
        (evaluation, "run", "evaluation failed: a bug"),
        (export, "export", "evaluation failed: a bug"),
        (plots, "learning_curves", "plots not written: a bug"),
    ],
)
def test_what_fails_beside_a_training_does_not_cost_it(tmp_path, monkeypatch, place, name, said):
    def broken(*_, **__):
        raise TypeError("a bug\nof many lines")

    monkeypatch.setattr(place, name, broken)
    lines: list[str] = []
    result = train(tiny(tmp_path), lines.append)
    assert result.steps == 96
    assert f"{said}; training goes on" in lines
    newest = checkpoint.steps(tmp_path / "run" / "checkpoints")[0]
    assert newest.name == "step_000000000096"
    checkpoint.verify(newest)


def test_a_checkpoint_comes_before_its_evaluation(tmp_path, monkeypatch):
    """And an evaluation that was cut off after it is made up for, in its row."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(tiny(tmp_path, f"run={whole}"), lambda _: None)
    real = evaluation.run

    class Killed(BaseException):
        pass

    def dies(*arguments, **keywords):
        if (killed / "checkpoints" / "step_000000000064").exists():
            raise Killed
        return real(*arguments, **keywords)

    monkeypatch.setattr(evaluation, "run", dies)
    with pytest.raises(Killed):
        train(tiny(tmp_path, f"run={killed}"), lambda _: None)
    assert "eval/return_mean" not in read_metrics(killed / "metrics.csv")[-1]
    monkeypatch.setattr(evaluation, "run", real)
    train(config.load("train", [f"resume={killed}"]), lambda _: None)
    rows = [read_metrics(folder / "metrics.csv") for folder in (whole, killed)]
    assert [row["step"] for row in rows[1]] == [32, 64, 96]
    assert all("eval/return_mean" in row for row in rows[1])
    # Pendulum can't be saved: what comes before the checkpoint is the same
    assert rows[0][1]["eval/return_mean"] == rows[1][1]["eval/return_mean"]


def test_what_can_not_be_exported_is_said_before_it_is_trained(tmp_path, monkeypatch):
    from motoric.policies.baselines import Baseline

    real = Baseline.exported
    monkeypatch.setattr(Baseline, "exported", lambda self: Exported((), real(self).action))
    with pytest.raises(UserError, match="policy: 'ppo' can't be exported: networks: 0"):
        train(tiny(tmp_path), lambda _: None)
    assert not (tmp_path / "run").exists()


def test_metrics_named_by_a_task_are_logged_and_evaluated(tmp_path):
    settings = tiny(
        tmp_path, "env=go2_velocity", "env.num_envs=2", "policy.n_steps=16",
        "+env.options.episode_seconds=0.4",
    )  # fmt: skip
    train(settings, lambda _: None)
    row = read_metrics(tmp_path / "run" / "metrics.csv")[-1]
    batch = build(settings).batch
    for metric in batch.metrics:
        assert f"task/{metric.name}" in row
        assert f"eval/{metric.name}_mean" in row
    assert any(key.startswith("reward/") for key in row)


def test_means_are_of_what_is_known():
    class Rows:
        name = "rows"

        def step(self, action):
            metric = {"seen": np.array([1.0, np.nan]), "never": np.full(2, np.nan)}
            info = {"terms": {"a": action}, "metrics": metric, "final_obs": None}
            return None, None, np.zeros(2, bool), np.zeros(2, bool), info

    watched = Watched(Rows())
    assert watched.name == "rows"
    watched.step(np.array([1.0, 3.0]))
    watched.step(np.array([3.0, 5.0]))
    assert watched.means() == {"reward/a": 3.0, "task/seen": 1.0}
    assert watched.means() == {}


def test_returns_are_of_episodes_that_ended(tmp_path):
    batch = Watched(build(tiny(tmp_path)).batch)
    batch.reset(0)
    for _ in range(201):
        batch.step(np.zeros((1, 1)))
    assert len(batch.returns) == 1


def test_a_row_is_one_step(tmp_path):
    metrics = run_folder.Metrics(tmp_path)
    metrics.write({"a": 1.0}, 10)
    metrics.write({"b": 2.0}, 10)
    metrics.close()
    assert read_metrics(tmp_path / "metrics.csv") == [{"step": 10, "a": 1.0, "b": 2.0}]


def test_a_bundle_says_where_it_is_from(tmp_path):
    train(tiny(tmp_path, "seed=3"), lambda _: None)
    spec = Bundle.load(tmp_path / "run" / "bundle" / "last").spec
    assert spec.task == "Pendulum-v1"
    assert spec.training["algorithm"] == "ppo"
    assert spec.training["seed"] == 3
    assert spec.training["steps"] == 96
    assert spec.versions["torch"]


def test_nothing_of_a_training_is_left_running(tmp_path, monkeypatch):
    """Environments are closed, whatever happened."""
    closed = []
    monkeypatch.setattr(
        "motoric.envs.gymnasium_env.GymnasiumEnvs.close", lambda self: closed.append(self)
    )

    def dies(self):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(module.Run, "go", dies)
    with pytest.raises(RuntimeError, match="in the middle"):
        train(tiny(tmp_path), lambda _: None)
    assert closed
