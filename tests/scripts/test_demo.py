"""The demo's last three parts, on a policy that only stands."""

from __future__ import annotations

import json
from types import SimpleNamespace

from motoric.scripts import demo

from ..conftest import write_policy


def test_the_demo_says_what_was_reached(tmp_path, monkeypatch, capsys):
    write_policy(tmp_path / "run" / "bundle" / "best")
    trained = SimpleNamespace(stopped=None, folder=tmp_path / "run", seconds=2.0, steps=100)
    monkeypatch.setattr(demo, "train", lambda settings, say: trained)
    for name, value in (("EPISODES", 2), ("DRAWN", 4), ("SECONDS", 0.4)):
        monkeypatch.setattr(demo, name, value)
    said: list[str] = []
    assert demo.demo(said.append) == 1, "it does not walk"
    assert said[-1] == "the policy does not meet the bar"
    table = capsys.readouterr().out
    for words in ("velocity error", "the bar", "worst goals", "robot: fell", "robot: policy acted"):
        assert words in table
    told = json.loads((tmp_path / "run" / "demo.json").read_text())
    assert told["evaluation"]["velocity_error_mean"] > demo.ERROR
    assert told["deployment"]["metrics"]["fell"] == 0.0
    assert (tmp_path / "run" / "videos" / "demo.mp4").stat().st_size > 1000


def test_a_stopped_training_ends_it(monkeypatch, tmp_path):
    trained = SimpleNamespace(stopped=2, folder=tmp_path)
    monkeypatch.setattr(demo, "train", lambda settings, say: trained)
    said: list[str] = []
    assert demo.demo(said.append) == 130
    assert said[-1] == f"stopped; go on with: motoric train resume={tmp_path}"
