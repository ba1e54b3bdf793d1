"""Sweeps on a Ray cluster: two nodes of one CPU each, started here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

import pytest
import ray
from motoric.scripts.sweeps import ray_trials

TINY = [
    "policy=ppo", "policy.n_steps=32", "policy.batch_size=32", "policy.n_epochs=1",
    "policy.net_arch=[8]", "eval_episodes=1", "total_steps=64",
]  # fmt: skip
COMMAND = [sys.executable, "-m", "motoric.scripts.cli", "train", "-m", "hydra/launcher=ray"]
# An environment whose process dies in the middle, as one does that runs out of memory.
DEADLY = """
import os
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv
class Deadly(PendulumEnv):
    def step(self, action):
        os._exit(9)
gymnasium.register("Deadly-v0", Deadly, max_episode_steps=200)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    from ray.cluster_utils import Cluster

    modules = tmp_path_factory.mktemp("modules")
    (modules / "deadly.py").write_text(DEADLY)
    changed = pytest.MonkeyPatch()
    # of the nodes, and so of their workers
    changed.setenv("PYTHONPATH", str(modules), prepend=os.pathsep)
    changed.setenv("RAY_USAGE_STATS_ENABLED", "0")
    small = {"num_cpus": 1, "object_store_memory": 80 << 20}
    one = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    one.add_node(**small)
    yield one
    one.shutdown()
    changed.undo()


def test_two_nodes_train_and_a_trial_that_dies_is_reported(tmp_path, cluster):
    """Run folders come to where the command was typed, though the nodes train elsewhere."""
    scratch = tmp_path / "scratch"
    done = subprocess.run(
        [*COMMAND, f"hydra.launcher.address={cluster.address}", f"hydra.launcher.scratch={scratch}",
         *TINY, "env=gym", "seed=1,2", "id=Pendulum-v1,deadly:Deadly-v0"],
        cwd=tmp_path, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    (folder,) = (tmp_path / "runs" / "sweeps").iterdir()
    results = [json.loads((folder / f"job_{i}" / "result.json").read_text()) for i in range(4)]
    assert [("error" in r) for r in results] == [False, True, False, True]
    assert "died" in results[1]["error"]
    for i in (0, 2):
        assert results[i]["steps"] == 64
        run = folder / f"job_{i}" / "run"
        for name in ("config.yaml", "metrics.csv", "bundle/best/policy.onnx",
                     "checkpoints/step_000000000064/manifest.json"):  # fmt: skip
            assert (run / name).is_file(), name
        assert "device: cpu" in (run / "config.yaml").read_text(), "it has reserved no GPU"
        assert f"training {scratch}" in (folder / f"job_{i}" / "output.txt").read_text()
    nodes = re.findall(r"job_\d on \S+ \(node (\w+)\): (?:finished|failed)", done.stdout)
    assert len(nodes) == 4
    assert len(set(nodes)) == 2, "both nodes worked"
    assert done.stdout.count("2 seeds: best return") == 1
    assert not list(scratch.glob("*/job_[02]")), "nothing is left on the nodes"


def test_ctrl_c_saves_a_checkpoint(tmp_path, cluster):
    process = subprocess.Popen(
        [*COMMAND, f"hydra.launcher.address={cluster.address}", *TINY, "total_steps=100000000",
         "env=pendulum", f"hydra.launcher.scratch={tmp_path}/scratch"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        started = time.monotonic()
        while not list((tmp_path / "scratch").glob("*/job_0/run/tensorboard/*")):
            assert time.monotonic() < started + 100
            time.sleep(0.1)
        process.send_signal(2)
        out = process.communicate(timeout=100)[0]
    finally:
        process.kill()
    assert process.returncode == 130, out
    (run,) = (tmp_path / "runs" / "sweeps").glob("*/job_0/run")
    assert f"motoric train resume={run.relative_to(tmp_path)}" in out
    assert list(run.glob("checkpoints/step_*/manifest.json"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hydra.launcher.num_cpus=999"], ["hydra.launcher.num_cpus: 999", "largest node has 1"]),
        (["hydra.launcher.num_cpus=0"], ["num_cpus: 0", "at least 1"]),
        (["hydra.launcher.address=ray://h:1"], ["hydra.launcher.address", "host:port or auto"]),
        (["hydra/launcher=slurmy"], ["hydra/launcher", "'slurmy'", "basic, ray"]),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys, cluster, arguments, words):
    from motoric.scripts.cli import main

    monkeypatch.chdir(tmp_path)
    address = [f"hydra.launcher.address={cluster.address}", "hydra/launcher=ray"]
    keys = [argument.partition("=")[0] for argument in arguments]
    address = [
        a for a in address if a.partition("=")[0] not in keys and "slurmy" not in arguments[0]
    ]
    try:
        assert main(["train", "-m", *TINY, *address, *arguments]) == 2
    finally:
        ray.shutdown()
    error = capsys.readouterr().err
    assert error.strip().count("\n") == 0, error
    for word in words:
        assert word in error
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_shared_is_written_to(tmp_path):
    (tmp_path / ray_trials.MARK).write_text("ours")
    with ray_trials._workplace(tmp_path, "ours", None, None) as place:
        assert place == tmp_path
    with ray_trials._workplace(tmp_path, "another's", None, None) as place:
        assert place != tmp_path


class Here:
    """An inbox without Ray around it."""

    def __init__(self, folder) -> None:
        self.inbox, self.calls = ray_trials.Inbox(str(folder)), []
        self.write, self.remove = self._remote("write"), self._remote("remove")

    def _remote(self, name):
        def call(*arguments):
            self.calls.append((name, *arguments[:2]))
            getattr(self.inbox, name)(*arguments)

        return type("Method", (), {"remote": staticmethod(call)})


def test_mirror_sends_what_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "get", lambda done: done)
    monkeypatch.setattr(ray_trials, "PIECE", 10)
    node, here = tmp_path / "node", tmp_path / "here"
    (node / "a" / ".writing-x").mkdir(parents=True)
    (node / "a" / ".writing-x" / "half").write_text("half")
    (node / "empty").touch()
    (node / "a" / "large").write_bytes(bytes(range(25)))
    inbox, sent = Here(here), {}
    ray_trials.mirror(node, inbox, sent)
    assert {str(p.relative_to(here)) for p in here.rglob("*")} == {"a", "empty", "a/large"}
    assert (here / "a" / "large").read_bytes() == bytes(range(25))
    assert ("write", "a/large", 20) in inbox.calls
    inbox.calls.clear()
    ray_trials.mirror(node, inbox, sent)
    assert not inbox.calls, "what has not changed is not sent again"
    (node / "a" / "large").unlink()
    (node / "empty").write_text("no more")
    os.utime(node / "empty", (1, 1))
    ray_trials.mirror(node, inbox, sent)
    assert (here / "empty").read_text() == "no more"
    assert not (here / "a").exists()
