"""A killed training goes on bit for bit; a damaged checkpoint is passed over."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from motoric.hardware.runtime.bundle import read_spec, write_bundle
from motoric.scripts.training import checkpoint
from motoric.scripts.training.run_folder import read_metrics

from ..conftest import SMALL

STEPS = ["total_steps=6000", "checkpoint_every=1000", "eval_every=2000", "eval_episodes=2",
         "log_every=500", "progress=false", "+env.options.episode_seconds=2"]  # fmt: skip


def weights(run: Path) -> dict:
    newest = checkpoint.steps(run / "checkpoints")[0]
    checkpoint.verify(newest)
    return torch.load(newest / "tensors.pt", weights_only=True)


def flat(value, prefix="") -> dict[str, torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return {prefix: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {
        k: v
        for key, item in items
        if isinstance(item, dict | list | torch.Tensor)
        for k, v in flat(item, f"{prefix}/{key}").items()
    }


def same(a: Path, b: Path) -> None:
    """Both runs are in the same state, down to the last bit, and logged the same."""
    one, two = flat(weights(a)), flat(weights(b))
    assert one.keys() == two.keys()
    assert len(one) > 10
    for name in one:
        assert torch.equal(one[name], two[name]), name
    arrays = [np.load(checkpoint.steps(r / "checkpoints")[0] / "arrays.npz") for r in (a, b)]
    assert set(arrays[0].files) == set(arrays[1].files)
    for name in arrays[0].files:
        np.testing.assert_array_equal(arrays[0][name], arrays[1][name], err_msg=name)
    rows = [read_metrics(r / "metrics.csv") for r in (a, b)]
    assert [r["step"] for r in rows[0]] == [r["step"] for r in rows[1]]
    for row, other in zip(*rows, strict=True):
        for key in row:
            if not key.startswith("time/"):
                assert row[key] == other[key], key


def start(run: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "motoric.scripts.cli", "train", *arguments, f"run={run}"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_steps(run: Path, steps: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = checkpoint.steps(run / "checkpoints")
        if found and int(found[0].name[5:]) >= steps:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    pytest.fail("no checkpoint was written")


@pytest.mark.parametrize("policy", ["ppo", "dsac_t", "sac"])
def test_killed_run_resumes_bit_for_bit(trained, tmp_path, command, policy):
    arguments = ["env=go2_velocity", *SMALL[policy], *STEPS]
    whole, steps = trained, 6000
    if policy != "ppo":
        whole, steps = tmp_path / "whole", 3000
        arguments.append(f"total_steps={steps}")
        command("train", *arguments, f"run={whole}")
    killed = tmp_path / "killed"
    process = start(killed, *arguments)
    wait_for_steps(killed, 1000, process)
    time.sleep(random.random() * 0.2)
    process.kill()
    process.wait()
    assert int(checkpoint.steps(killed / "checkpoints")[0].name[5:]) < steps
    command("train", f"resume={killed}")
    same(whole, killed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_and_leaves_a_resumable_run(trained, tmp_path, command, number):
    """The checkpoint a signal forces lies between the scheduled ones, and is exact too."""
    arguments = ["env=go2_velocity", *SMALL["ppo"], *STEPS]
    run = tmp_path / "stopped"
    process = start(run, *arguments)
    wait_for_steps(run, 1000, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert f"motoric train resume={run}" in out
    assert "Traceback" not in err
    assert (run / "bundle" / "last" / "policy.onnx").exists()
    command("train", f"resume={run}")
    one, two = flat(weights(trained)), flat(weights(run))
    assert all(torch.equal(one[k], two[k]) for k in one)


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize("name", ["tensors.pt", "arrays.npz", "state.json", "manifest.json"])
def test_damaged_checkpoint_is_passed_over(trained, tmp_path, damage, name):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    newest, before = checkpoint.steps(run / "checkpoints")
    damage(newest / name)
    said: list[str] = []
    assert checkpoint.newest(run / "checkpoints", said.append) == before
    assert len(said) == 1
    assert newest.name in said[0]
    assert name in said[0] or name == "manifest.json"  # a wrong checksum blames its file


def test_resume_from_the_checkpoint_before_a_damaged_one(trained, tmp_path, command):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    flip(checkpoint.steps(run / "checkpoints")[0] / "tensors.pt")
    done = command("train", f"resume={run}")
    assert "does not match its checksum" in done.stdout
    same(trained, run)


def test_all_damaged_is_one_line(trained, tmp_path, command):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for path in checkpoint.steps(run / "checkpoints"):
        cut(path / "arrays.npz")
    done = command("train", f"resume={run}", check=False)
    assert done.returncode == 2
    assert "every checkpoint" in done.stderr
    assert done.stderr.count("\n") == 1


def test_training_goes_on_beyond_its_first_end(trained, tmp_path, command):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    command("train", f"resume={run}", "total_steps=7000")
    steps = [row["step"] for row in read_metrics(run / "metrics.csv")]
    assert steps == sorted(set(steps))
    assert steps[-1] >= 7000


def test_a_better_bundle_than_the_checkpoint_knows_is_kept(trained, tmp_path, command):
    """A run killed after its best evaluation, and before the checkpoint that would have told."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    best = run / "bundle" / "best"
    spec, onnx = read_spec(best)
    assert spec.training["return_mean"] == pytest.approx(
        max(row.get("eval/return_mean", -np.inf) for row in read_metrics(run / "metrics.csv"))
    )
    spec.training["return_mean"] = 1e6
    write_bundle(best, onnx, spec)
    command("train", f"resume={run}", "total_steps=7000")
    assert read_spec(best)[0].training["return_mean"] == 1e6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["policy.gamma=0.5"], ["policy.gamma", "can't be changed"]),
        ([], ["total_steps", "6000"]),
    ],
)
def test_resume_mistakes_are_one_line(trained, tmp_path, command, arguments, words):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    done = command("train", f"resume={run}", *arguments, check=False)
    assert done.returncode == 2
    assert all(word in done.stderr for word in words)
    assert done.stderr.count("\n") == 1


def test_a_folder_in_use_is_refused(trained, tmp_path, command):
    from motoric.scripts.training import run_folder

    run = tmp_path / "run"
    shutil.copytree(trained, run)
    handle = run_folder.lock(run)
    done = command("train", f"resume={run}", "total_steps=7000", check=False)
    os.close(handle)
    assert done.returncode == 2
    assert "in use" in done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    process = start(run, "env=go2_velocity", *SMALL["ppo"], *STEPS)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return run
