"""All commands on one robot task, as a user gives them one after the other."""

from __future__ import annotations

from .conftest import SMALL


def test_go2_from_training_to_robot(tmp_path, motoric, command, monkeypatch):
    """All commands on one robot task: train, evaluate, film, deploy, replay, list."""
    monkeypatch.chdir(tmp_path)
    command("train", "env=go2_velocity", *SMALL["ppo"], "total_steps=1500", "run=runs/a",
            "eval_episodes=2")  # fmt: skip
    done = command(
        "evaluate", "runs/a", "episodes=4", "seconds=0.5", "goal=[0.5,0,0]", "viewer=video",
        "viewer.seconds=0.2",
    )  # fmt: skip
    assert "velocity error" in done.stdout
    assert (tmp_path / "runs/a/videos/best_seed0.mp4").stat().st_size > 1000
    done = command("evaluate", "runs/a", "viewer=video", "viewer.out=walk.gif", check=False)
    assert done.returncode == 2
    assert "viewer.out: walk.gif, expected a name that ends with .mp4" in done.stderr
    command("evaluate", "runs/a", "episodes=1", "viewer=video", "viewer.seconds=0.1",
            "viewer.out=a film, (1).mp4")  # fmt: skip
    assert (tmp_path / "a film, (1).mp4").stat().st_size > 500
    done = motoric("deploy", "runs/a", "duration=0.5", "robot=sim_go2", cwd=tmp_path, check=False)
    assert done.returncode in (0, 1), done.stderr  # it has not learned to stand
    for words in ("control loop    500 Hz", "lateness", "policy tick", "< 1"):
        assert words in done.stdout
    (log,) = (tmp_path / "runs/a/logs").glob("*.mcap")
    assert f"motoric replay runs/a/logs/{log.name}" in done.stdout
    done = command("replay", log, "viewer=video", "viewer.width=160", "viewer.height=120")
    assert "soft_start -> active" in done.stdout
    assert log.with_suffix(".mp4").stat().st_size > 1000
    done = command("deploy", "runs/a", "goal=[9,0,0]", check=False)
    assert done.returncode == 2
    assert "forward 9, the policy was trained for -0.6 to 1\n" in done.stderr
    assert "runs/a  1," in command("list").stdout
