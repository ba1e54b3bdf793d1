"""Sweeps: each job's share of its node, the sweep's folder, and the table at the end."""

from __future__ import annotations

import json
import sys

import pytest
from hydra import compose
from motoric.configs.commands import Train
from motoric.scripts import config
from motoric.scripts.config import UserError
from motoric.scripts.sweeps import ray_trials, sweep
from motoric.scripts.train import Result
from omegaconf import OmegaConf

RAY = {"num_cpus": 2, "num_gpus": 0.0}


@pytest.fixture
def trained(monkeypatch, tmp_path) -> list[Train]:
    """The settings of all trainings, none of which takes place."""
    seen: list[Train] = []

    def train(settings, say):
        seen.append(settings)
        return Result(tmp_path, 1, 2.0, None, {}, None)

    monkeypatch.setattr("motoric.scripts.train.train", train)
    return seen


@pytest.mark.parametrize(
    ("launcher", "arguments", "device"),
    [
        (RAY, [], "cpu"),
        (RAY, ["device=cuda"], "cuda"),
        (RAY | {"num_gpus": 0.5}, [], "auto"),
        ({}, [], "auto"),  # Hydra's own, one training after the other
    ],
)
def test_a_job_that_reserved_no_gpu_takes_none(
    tmp_path, monkeypatch, trained, launcher, arguments, device
):
    given = {
        "runtime": {"output_dir": str(tmp_path)}, "job": {"num": 0},
        "overrides": {"task": arguments}, "launcher": launcher,
    }  # fmt: skip
    monkeypatch.setattr(sweep.HydraConfig, "get", lambda: OmegaConf.create(given))
    with config.hydra():
        sweep.job(compose("train", arguments))
    assert trained[0].device == device
    assert trained[0].torch_threads == launcher.get("num_cpus", 0)


def test_runs_are_where_they_were_wanted_and_the_table_does_without_a_return(
    tmp_path, monkeypatch, trained
):
    """Where no bundle could be written, there is no evaluation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    said: list[str] = []
    assert sweep.run(["env=pendulum", "seed=1,2", "runs='else,where'"], said.append) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["else,where"]
    (folder,) = (tmp_path / "else,where" / "sweeps").iterdir()
    results = [json.loads((folder / f"job_{i}" / "result.json").read_text()) for i in range(2)]
    assert [result["best_return"] for result in results] == [None, None]
    assert [line.endswith("1 steps, 2 s, no evaluation") for line in said] == [False, True, True]


def test_over_seeds_leaves_out_what_was_not_evaluated():
    jobs = [["env=a", f"seed={i}"] for i in range(3)]
    results = [{"best_return": 1.0}, {"best_return": None}, {"best_return": 3.0}]
    (line,) = sweep._over_seeds(jobs, results)
    assert line.startswith("env=a  2 seeds: best return 2.0")


def test_a_sweep_has_one_folder_for_runs(tmp_path, monkeypatch, trained):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^runs: a, b, expected one folder"):
        sweep.run(["env=pendulum", "runs=a,b"], print)
    assert not list(tmp_path.iterdir())


def test_sweeps_of_one_second_have_a_folder_each(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda _: "now")
    names = [sweep._new_folder(tmp_path / "runs" / "sweeps").name for _ in range(3)]
    assert names == ["now", "now-2", "now-3"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^runs: .*/file/sweeps/now can't be made: Not a dir"):
        sweep._new_folder(tmp_path / "file" / "sweeps")


def test_a_trial_fits_on_one_node():
    nodes = [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}]
    for fits in ((8, 0.0), (2, 1.0), (1, 0.5)):
        ray_trials.check_fit(nodes, *fits)
    for num_cpus, num_gpus, words in (
        (9, 0.0, r"num_cpus: 9, but the largest node has 8 CPUs"),
        (1, 2.0, r"num_gpus: 2.0, but the largest node has 1 GPUs"),
        (4, 1.0, r"num_cpus: 4, but the largest node with num_gpus=1 has 2 CPUs"),
    ):
        with pytest.raises(UserError, match=rf"^hydra.launcher.{words}$"):
            ray_trials.check_fit(nodes, num_cpus, num_gpus)
