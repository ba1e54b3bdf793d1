"""Episodes of any environment on one face: agents of a world, goals of parts, named metrics."""

from __future__ import annotations

import json

import numpy as np
import pytest
from motoric.hardware.interfaces.base import Metric
from motoric.scripts.training import evaluation

from .toys import PLACE


def test_every_agent_is_an_episode_measured_as_its_metrics_say(discs_bundle):
    goal = {"place": [0.5, -1.0], "instruction": "there"}
    episodes = evaluation.run(discs_bundle, {}, 2, 0, goal)
    assert episodes.lengths.tolist() == [80] * 6
    start = episodes.metrics["travelled"]  # straight there
    np.testing.assert_allclose(episodes.metrics["distance"], 0.015, atol=0.015)
    assert ((start > 0.8) & (start < 1.3)).all()
    assert episodes.metrics["arrived"].tolist() == [1.0] * 6
    assert (episodes.metrics["x"] < 0.5).all(), "a mean over the way there"
    assert not episodes.terminated.any()
    summary = episodes.summary()
    assert summary["distance_max"] == episodes.metrics["distance"].max()
    assert summary["arrived_mean"] == 1.0
    assert "travelled_max" not in summary
    assert not any(name in str(summary) for name in ("velocity", "fell"))


class Away:
    """The first of all leaves the floor; in the world's next episode the second would."""

    def __init__(self) -> None:
        self.steps = 0

    def act(self, observation):
        self.steps += 1
        action = np.zeros((len(observation["observation"]), 2))
        action[0 if self.steps < 70 else 1] = [1.0, 0.0]
        return action


def test_agents_of_a_world_end_together_and_only_what_was_counts(discs_bundle):
    batch = evaluation.make_worlds(discs_bundle, {}, 2, 0, 10.0)
    episodes = evaluation.episodes_of(Away(), batch)
    assert episodes.terminated.tolist() == [True] + [False] * 5
    assert len(set(episodes.lengths[:3])) == 1
    assert episodes.lengths[0] < 62
    assert episodes.lengths[3:].tolist() == [200] * 3
    assert episodes.metrics["x"][0] == pytest.approx(1.5, abs=0.15)
    alone = evaluation.episodes_of(Away(), evaluation.make_worlds(discs_bundle, {}, 1, 0, 10.0))
    np.testing.assert_array_equal(alone.returns, episodes.returns[:3])


def test_unknown_values_are_not_counted():
    named = (Metric("a", "m"), Metric("b", "", "any"), Metric("c", "J", "sum"))
    metrics = {"a": np.array([1.0, np.nan]), "b": np.array([1.0, 0.0]), "c": np.full(2, np.nan)}
    episodes = evaluation.Episodes(
        np.ones(2), np.ones(2, int), np.zeros(2, bool), named, metrics, (), {}
    )
    summary = episodes.summary()
    assert summary["a_mean"] == summary["a_max"] == 1.0
    assert summary["b_mean"] == 0.5
    assert summary["c_mean"] is None


def test_the_worst_cell_of_the_goals_range(discs_bundle):
    episodes = evaluation.run(discs_bundle, {}, 40, 0)
    cells = evaluation.by_cell(episodes, 2)
    assert [cell["return_mean"] for cell in cells] == sorted(c["return_mean"] for c in cells)
    assert sum(cell["episodes"] for cell in cells) == 120
    assert {tuple(map(tuple, cell["goal"].values())) for cell in cells} == {
        (x, y) for x in ((-1.0, 0.0), (0.0, 1.0)) for y in ((-2.0, 0.0), (0.0, 2.0))
    }
    assert list(cells[0]["goal"]) == ["place.x", "place.y"]
    for cell in cells:
        inside = np.ones(120, bool)
        for i, (low, high) in enumerate(cell["goal"].values()):
            asked = episodes.goal["place"][:, i]
            inside &= (asked >= low) & (asked < high)
        assert inside.sum() == cell["episodes"]
        assert episodes.returns[inside].mean() == pytest.approx(cell["return_mean"])
        distance = episodes.metrics["distance"][inside].mean()
        assert distance == pytest.approx(cell["distance_mean"])


def test_the_command_prints_and_writes_what_is_named(discs, command):
    done = command("evaluate", discs, "episodes=4", "goal={place:[0.2,0.3],instruction:go}")
    for line in ("arrived         12 of 12", "ended early     0 of 12"):
        assert line in done.stdout
    assert "  distance left   0.0" in done.stdout
    result = json.loads((discs / "evaluation.json").read_text())
    assert result["goal"] == {"place": [0.2, 0.3], "instruction": "go"}
    assert len(result["metrics"]["travelled"]) == 12
    done = command("evaluate", discs, "episodes=20", "cells=2")
    assert "worst goals     place.x" in done.stdout
    assert json.loads((discs / "evaluation.json").read_text())["cells"][0]["episodes"] > 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("goal=[0,0]", "goal: [0, 0], expected a mapping with the parts place, instruction"),
        ("goal={place:[9,0]}", "goal.place: x 9, the policy was trained for -1 to 1"),
        ("goal={instruction:3}", "goal.instruction: 3, expected a text"),
        ("goal={speed:1}", "goal.speed: no such part, expected place, instruction"),
        ("engine=pybullet", "engine: 'pybullet', discs runs in mujoco only"),
    ],
)
def test_a_goal_that_is_wrong_is_one_line(discs, command, given, words):
    for viewer in ("none", "video"):
        done = command("evaluate", discs, given, f"viewer={viewer}", check=False)
        assert done.returncode == 2
        assert done.stderr == f"motoric evaluate: {words}\n"


def test_a_gymnasium_environment_is_evaluated_in_the_same_way(mountain_car, command):
    done = command("evaluate", mountain_car, "episodes=3")
    assert "ended early     3 of 3" in done.stdout, "on the mountain"
    result = json.loads((mountain_car / "evaluation.json").read_text())
    assert result["return_mean"] > 80
    assert result["metrics"] == {}
    command("evaluate", mountain_car, "episodes=2", "seconds=1")
    result = json.loads((mountain_car / "evaluation.json").read_text())
    assert result["lengths"] == [30, 30]
    for given, words in (
        ("goal=[1]", "PicturedCar-v0 has no goal to set"),
        ("engine=mujoco", "engine: 'mujoco'"),
        ("cells=3", "has no range"),
    ):
        done = command("evaluate", mountain_car, given, "episodes=1", check=False)
        assert done.returncode == 2
        assert words in done.stderr


def test_episodes_do_not_depend_on_how_many_there_are(discs_bundle):
    few, many = (evaluation.run(discs_bundle, {}, n, 5) for n in (2, 4))
    np.testing.assert_array_equal(few.returns, many.returns[:6])
    np.testing.assert_array_equal(few.goal["place"], many.goal["place"][:6])
    assert (np.abs(few.goal["place"]) <= PLACE.high).all()
