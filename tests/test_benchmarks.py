"""What the benchmarks have in common: contenders, their environments, whole files."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import contenders
import env_speed
import latency
import numpy as np
import pytest
import sim_to_sim


def test_a_contender_that_dies_is_named():
    """In the middle of an answer, and where it had died before."""
    dies = [sys.executable, "-c", "print('ready', flush=True); input()"]
    with contenders.running({"theirs": dies}, 1, {}) as found:
        for _ in range(2):
            with pytest.raises(SystemExit, match=r"^theirs died: .*print"):
                found["theirs"].ask(0.5)
    starts = [sys.executable, "-c", "print('sorry')"]
    with (
        pytest.raises(SystemExit, match=r"^theirs did not start"),
        contenders.running({"theirs": starts}, 1, {}),
    ):
        pass


def test_an_environment_is_whole_or_made_again(tmp_path, monkeypatch):
    """A half made one has a Python already."""
    made, codes = [], [1, 0, 0]

    def create(folder, with_pip, clear):
        made.append(folder)
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / "bin" / "python").touch()
        (folder / "lib" / "python3" / "site-packages").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr("venv.create", create)
    monkeypatch.setattr(subprocess, "run", lambda _: SimpleNamespace(returncode=codes.pop(0)))
    folder = tmp_path / "venv"
    with pytest.raises(SystemExit, match=r"benchmarks/requirements\.txt can't be installed"):
        contenders.make_venv(folder, "requirements.txt")
    for _ in range(2):
        contenders.make_venv(folder, "requirements.txt", over="/base")
    assert made == [folder, folder]
    (path,) = folder.rglob("base.pth")
    assert "'/base'" in path.read_text()


def test_every_contender_is_first_once(monkeypatch, tmp_path):
    asked = []

    class Contender:
        def __init__(self, name):
            self.name = name

        def ask(self, _):
            asked.append(self.name)
            return [1.0, 1.0, 1.0, 1.0]

    class running:
        def __init__(self, commands, *_):
            self.found = {name: Contender(name) for name in commands}

        def __enter__(self):
            return self.found

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(env_speed, "make_venv", lambda *_: None)
    monkeypatch.setattr(env_speed, "running", running)
    monkeypatch.setattr(env_speed, "RESULTS", tmp_path)
    env_speed.measure("rates", 3, [("Ant-v5", 4, 1, ("limit", "ours", "rollout"))])
    assert asked[:3] == ["limit", "ours", "rollout"]
    assert asked[3:6] == ["ours", "rollout", "limit"]
    assert asked[6:] == ["rollout", "limit", "ours"]


def test_calls_take_turns(monkeypatch):
    """One cold and one warm call of each, then the next round."""
    order: list[str] = []
    monkeypatch.setattr(latency, "CALLS", 2)
    monkeypatch.setattr(latency, "WARMING", 1)
    monkeypatch.setattr("time.sleep", lambda _: order.append("sleep"))
    rows = latency.time_calls({name: lambda n=name: order.append(n) for name in ("a", "b")})
    assert order == ["sleep", "a", "a", "a", "sleep", "b", "b", "b"] * 2
    assert [row[:2] for row in rows] == [[n, how] for n in ("a", "b") for how in ("cold", "warm")]


def test_an_interrupted_measurement_leaves_the_last_whole_one(monkeypatch, tmp_path):
    monkeypatch.setattr(latency, "FOLDER", tmp_path)
    (tmp_path / "calls.csv").write_text("old")

    def interrupted():
        with latency.new_csv("calls") as writer:
            writer.writerow(["new"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "calls.csv").read_text() == "old"
    with latency.new_csv("calls") as writer:
        writer.writerow(["new"])
    assert (tmp_path / "calls.csv").read_text().split() == ["new"]
    assert os.listdir(tmp_path) == ["calls.csv"]


def test_cost_of_transport_is_power_over_weight_and_speed():
    cost = sim_to_sim.cost_of_transport(np.array([75.0, 3.0]), np.array([1.0, 0.05]), 150.0)
    np.testing.assert_array_equal(cost, [0.5, np.nan], "the one that stood doesn't count")
