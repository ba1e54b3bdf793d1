"""The command line: what it does, and one clear line for every mistake."""

from __future__ import annotations

import dataclasses
import json
import re
import runpy
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import yaml
from motoric.configs.commands import COMMANDS, Command, Train
from motoric.configs.groups import VIEWERS, Dataset, Env, Robot
from motoric.configs.policies import dsac_t
from motoric.configs.policy import POLICIES
from motoric.configs.schema import COUNT, doc
from motoric.scripts import config
from motoric.scripts.cli import main, settings_of
from motoric.scripts.config import UserError
from motoric.scripts.training import checkpoint
from motoric.scripts.training.run_folder import MetricsCsv, read_metrics
from omegaconf import MISSING

ROOT = Path(__file__).resolve().parents[2]


def test_names_and_defaults():
    settings = config.load("train", ["policy=dsac_t", "env=half_cheetah", "seed=1"])
    assert isinstance(settings.policy, dsac_t.Config)
    assert settings.env.id == "HalfCheetah-v5"
    assert settings.seed == 1


@pytest.mark.parametrize("name", config.group_choices("policy"))
@pytest.mark.parametrize("env", config.group_choices("env"))
def test_every_policy_with_every_environment(name, env):
    extra = ["id=Pendulum-v1"] if env == "gym" else []
    extra += ["dataset=local", "dataset.path=data"] if env == "none" else []
    settings = config.load("train", [f"policy={name}", f"env={env}", *extra])
    assert settings.policy.name == name


def test_the_experiment():
    settings = config.load("train", ["experiment=go2_walk", "policy.n_epochs=4"])
    written = yaml.safe_load((ROOT / "configs/experiment/go2_walk.yaml").read_text())
    assert settings.total_steps == written["total_steps"] != Train().total_steps
    assert config.load("train", ["total_steps=7", "experiment=go2_walk"]).total_steps == 7
    assert settings.policy.gamma == 0.97
    assert settings.policy.n_epochs == 4


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        ("train", ["policy=dsac"], ["policy", "'dsac'", "dsac_t", "ppo", "sac", "td3"]),
        ("train", ["env=go3"], ["env", "'go3'", "go2_velocity"]),
        ("train", ["total_step=5"], ["total_step", "did you mean total_steps"]),
        ("train", ["policy.gama=0.5"], ["policy.gama", "did you mean policy.gamma"]),
        ("train", ["policy.gamma=high"], ["policy.gamma", "high"]),
        ("train", ["policy.gamma=1.5"], ["policy.gamma", "1.5", "at most 1"]),
        ("train", ["policy.gamma=nan"], ["policy.gamma", "nan", "finite"]),
        ("train", ["policy.net_arch=[64,-1]"], ["policy.net_arch", "[64, -1]", "at least 1"]),
        ("train", ["policy.learning_rate=0"], ["policy.learning_rate", "more than 0"]),
        ("train", ["env=pendulum", "policy=sac", "policy.ent_coef=x"], ["'x'", "auto or a number"]),
        (
            "train",
            ["env=pendulum", "policy=sac", "policy.buffer_size=1000000000000"],
            ["policy.buffer_size", "TiB"],
        ),
        (
            "train",
            ["policy=dsac_t", "policy.buffer_size=1000000000000000", "policy.replay=device"],
            ["buffer_size", "don't fit into the memory of cpu"],
        ),
        (
            "train",
            ["policy=dsac_t", "policy.replay=device", "policy.n_steps=3"],
            ["policy.replay", "try 'host'"],
        ),
        ("train", ["total_steps=-5"], ["total_steps", "-5", "at least 1"]),
        ("train", ["policy.activation=sine"], ["policy.activation", "sine", "tanh"]),
        ("train", ["seed=many"], ["seed", "many"]),
        ("train", ["env=gym"], ["id: missing", "id=Ant-v5"]),
        ("train", ["id=Ant-v5"], ["id", "only with env=gym"]),
        ("train", ["env=gym", "id=Ant-v99"], ["Ant-v99"]),
        ("train", ["device=tpu"], ["device", "'tpu'", "auto, cpu or cuda"]),
        ("train", ["hello"], ["'hello'", "key=value"]),
        ("train", ["--fast"], ["--fast", "no such option"]),
        ("train", ["seed=[1"], ["seed=[1"]),
        ("train", ["+env.options.speed=1"], ["env.options.speed", "randomise"]),
        ("train", ["+env.options.randomise=3"], ["env.options.randomise", "bool"]),
        ("train", ["policy=sac", "env=gym", "id=CartPole-v1"], ["sac", "continuous", "ppo"]),
        ("train", ["resume=/nowhere"], ["/nowhere", "not a run folder"]),
        ("train", ["policy=null"], ["policy: null", "dsac_t"]),
        ("train", ["policy.name=sac"], ["policy.name", "'sac'", "policy=sac"]),
        ("train", ["policy=dsac_t", "policy.rho_range=[2,1]"], ["policy.rho_range", "[low, high]"]),
        ("train", ["policy=dsac_t", "policy.rho_range=[0.1]"], ["policy.rho_range", "[low, high]"]),
        ("train", ["env=gym", "id=Blackjack-v1"], ["env", "Tuple"]),
        ("train", ["env=ant", "+env.options.xml_file=/typo.xml"], ["env", "/typo.xml"]),
        (
            "train",
            ["policy=sac", "env.num_envs=3", "policy.train_freq=2"],
            ["policy.train_freq", "2 steps", "3 environments"],
        ),
        ("train", [f"resume={__file__}"], [__file__, "not a run folder"]),
        ("evaluate", [], ["run: missing"]),
        ("evaluate", ["run=/nowhere"], ["/nowhere", "not a folder"]),
        ("evaluate", ["run=/", "viewer=tv"], ["viewer", "'tv'", "web"]),
        ("evaluate", ["run=/", "viewer.name=video"], ["viewer.name", "viewer=video"]),
        ("evaluate", ["run=/", "episodes=0"], ["episodes", "0", "at least 1"]),
        ("evaluate", ["run=/", "goal=[nan]"], ["goal", "nan", "finite"]),
        ("evaluate", ["run=/", "command=[1]"], ["command", "no such key"]),
        ("evaluate", ["run=/"], ["no bundle 'best'"]),
        ("deploy", ["run=/", "robot=spot"], ["robot", "'spot'", "sim_go2"]),
        ("deploy", ["run=/", "duration=-1"], ["duration", "-1"]),
        ("serve", ["robot=sim_go2", "interface=lo", "host=192.0.2.1"], ["interface", "lo", "none"]),
        ("replay", ["/nowhere.mcap"], ["/nowhere.mcap", "No such file"]),
        ("train", ["env=none"], ["env", "'none'", "dataset=local dataset.path=FOLDER"]),
        ("train", ["env=none", "dataset=local"], ["dataset.path=FOLDER"]),
        ("train", ["dataset=local"], ["dataset.path: missing"]),
        ("train", ["++policy.gama=0.5"], ["policy.gama", "no such key"]),
        ("train", ["policy={gama:0.5}"], ["policy", "no such key"]),
        ("fly", [], ["'fly'", "train", "deploy", "data record"]),
        ("data", [], ["'data'", "data record", "data info"]),
        ("data", ["burn"], ["'data burn'", "data record", "data info"]),
        ("list", ["runs"], ["'runs'", "key=value"]),
        ("list", ["runs=a"], ["runs", "no such key"]),
        ("demo", ["now"], ["'now'", "key=value"]),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys, command, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main([command, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    for word in words:
        assert word in error, error
    assert not list(tmp_path.iterdir()), "a mistake leaves nothing behind"


def test_help(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +\w", text, re.M) for name in COMMANDS)
    assert main(["train", "policy=dsac_t", "--help"]) == 0
    text, policies = capsys.readouterr().out, "|".join(config.group_choices("policy"))
    for key in ("policy.expected_value_target=true", "policy.critic_loss=gaussian",
                "env=ant|", "|go2_velocity", "total_steps=1000000", f"policy={policies}",
                "-m runs every combination"):  # fmt: skip
        assert key in text
    for choice in ("env=gym", "env=none dataset=local"):
        assert main(["train", *choice.split(), "--help"]) == 0
        capsys.readouterr()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_explained(capsys, name):
    command = COMMANDS[name]
    assert main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: motoric {name}")
    assert command.help in text
    for example in command.examples:
        assert f"motoric {name} {example}".rstrip() in text
        words = example.replace("RUN", "runs/x").split()
        if "-m" not in words and "resume=runs/DIR" not in words:
            settings_of(command, words)
    for group in command.groups:
        assert f"  {group}=" in text
    for path in command.paths:
        assert path.partition(".")[0] in {f.name for f in dataclasses.fields(command.config)}
    if command.first is not None:
        assert command.first in {f.name for f in dataclasses.fields(command.config)}


def test_the_command_table_is_all_there_is(monkeypatch, capsys):
    """A command is an entry there: no other place knows its name."""
    done = []

    @dataclasses.dataclass
    class Greet:
        """Say hello."""

        whom: str = doc(MISSING, "somebody")
        times: int = doc(1, "how often", COUNT)

    module = types.ModuleType("a_module_of_a_command")
    module.run = lambda settings, say: done.append(settings) or say("hello") or 1
    monkeypatch.setitem(sys.modules, module.__name__, module)
    greet = Command("greet politely", Greet, f"{module.__name__}:run", ("world",), first="whom")
    monkeypatch.setitem(COMMANDS, greet.name, greet)
    assert main(["greet", "politely", "world", "times=3"]) == 1
    assert (done[0].whom, done[0].times) == ("world", 3)
    assert capsys.readouterr().out == "hello\n"
    assert main(["greet"]) == 2
    assert "expected one of greet politely" in capsys.readouterr().err
    assert main(["greet", "politely", "world", "times=0"]) == 2
    assert "times: 0, expected at least 1" in capsys.readouterr().err
    assert main(["greet", "politely", "--help"]) == 0
    assert "  whom= " in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "greet politely Say hello." in capsys.readouterr().out


SIGNS = (
    "a b",
    "it's",
    "a\\b",
    "a\\",
    "a\\'b",
    "\\\\'",
    "a,[b]",
    "{x: 1}",
    "1e5",
    "TRUE",
    "nan",
    "a=b",
)


@pytest.mark.parametrize("text", SIGNS)
def test_a_path_is_taken_as_it_is(text):
    assert settings_of(COMMANDS["export"], [f"run={text}"]).run == text
    assert settings_of(COMMANDS["export"], [f"run={text}", "out=null"]).out is None


def test_every_key_has_a_line_of_help():
    kinds = [c.config for c in COMMANDS.values()] + [POLICIES[name] for name in POLICIES]
    for kind in (*kinds, *VIEWERS.values(), Env, Robot, Dataset):
        for item in dataclasses.fields(kind):
            groups = ("policy", "env", "robot", "viewer", "dataset")
            if item.name not in ("defaults", "name", *groups):
                assert item.metadata.get("help"), f"{kind.__name__}.{item.name}"


def test_list(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    listed = dict(line.split(": ", 1) for line in text.splitlines())
    assert {"ppo", "dsac_t", "bc"} <= set(listed["policy"].split(", "))
    assert {"go2_velocity", "half_cheetah"} <= set(listed["task"].split(", "))
    assert {"mujoco", "pybullet"} <= set(listed["engine"].split(", "))
    assert {"sim_go2", "x_arm6"} <= set(listed["robot"].split(", "))
    assert {"joint_targets", "impedance"} <= set(listed["interface"].split(", "))
    assert {"sim", "dynamixel"} <= set(listed["driver"].split(", "))
    assert listed["runs"] == "0"


@pytest.mark.parametrize("name", ["evaluate", "export", "deploy", "replay"])
def test_scripts_do_the_same(monkeypatch, capsys, name):
    script = str(ROOT / "scripts" / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert not ended.value.code
    assert f"usage: motoric {name}" in capsys.readouterr().out


def test_a_script_alone(tmp_path):
    """Python looks for modules in its folder first: none of ours may hide another one."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), "--help"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert "usage: motoric train" in done.stdout, done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A short training of a Gymnasium environment, with the CLI."""
    folder = tmp_path_factory.mktemp("cli")
    done = subprocess.run(
        [sys.executable, "-m", "motoric.scripts.cli", "train", "policy=dsac_t", "env=pendulum",
         "total_steps=600", "policy.learning_starts=100", "policy.net_arch=[32,32]",
         "eval_every=300", "eval_episodes=2", "log_every=200", "checkpoint_every=300",
         "policy.buffer_size=1000", "policy.normalize_observation=true",
         "run=a run, with [odd] name"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "a run, with [odd] name"


def test_run_folder(run):
    files = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    for name in ("config.yaml", "git.json", "versions.json", "metrics.csv",
                 "bundle/best/policy.onnx", "bundle/best/bundle.json", "bundle/last/policy.onnx",
                 "plots/learning_curve.png"):  # fmt: skip
        assert name in files
    assert any(f.startswith("tensorboard/events") for f in files)
    assert len(list((run / "checkpoints").glob("step_*"))) == 2
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert written["policy"]["learning_starts"] == 100
    assert written["env"]["id"] == "Pendulum-v1"
    assert json.loads((run / "versions.json").read_text())["torch"]
    rows = read_metrics(run / "metrics.csv")
    assert [r["step"] for r in rows] == [200, 300, 400, 600]
    assert "eval/return_mean" in rows[-1]


def test_tensorboard_reads_the_events(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert "eval/return_mean" in events.Tags()["scalars"]
    assert events.Scalars("eval/return_mean")[-1].step == 600


def test_evaluate_export_and_list(run, command, tmp_path):
    command("evaluate", f"run={run}", "episodes=3")
    result = json.loads((run / "evaluation.json").read_text())
    assert result["episodes"] == len(result["returns"]) == 3
    assert result["length_mean"] == 200
    again = command("evaluate", run, "episodes=3", "bundle=best")
    assert json.loads((run / "evaluation.json").read_text()) == result
    assert "episodes        3\n" in again.stdout
    done = command("export", run, f"out={tmp_path / 'exported'}")
    difference = float(done.stdout.rsplit(" ", 1)[1])
    assert difference < 1e-5
    assert (tmp_path / "exported" / "bundle.json").exists()
    done = command("deploy", f"run={run}", check=False)
    assert done.returncode == 2
    assert "no robot to deploy on" in done.stderr
    done = command("evaluate", f"run={run}", "goal=[0.5,0,0]", check=False)
    assert done.returncode == 2
    assert "goal: [0.5, 0, 0], Pendulum-v1 has no goal to set" in done.stderr


def test_a_run_is_never_overwritten(run, command):
    done = command("train", "env=pendulum", f"run={run}", check=False)
    assert done.returncode == 2
    assert "resume=" in done.stderr


def test_resume_of_a_gymnasium_environment(run, command, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    command("train", f"resume={copy}", "total_steps=800")
    assert read_metrics(copy / "metrics.csv")[-1]["step"] == 800


def test_sweep(tmp_path, motoric):
    """Every combination runs; one that fails is reported and the rest finish."""
    done = motoric(
        "train", "-m", "env=gym", "id=Pendulum-v1,CartPole-v1", "policy=sac", "seed=1,2",
        "total_steps=300", "policy.learning_starts=250", "policy.net_arch=[16]",
        "eval_episodes=1", "policy.buffer_size=1000", cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    (sweep,) = (tmp_path / "runs" / "sweeps").iterdir()
    results = [json.loads((sweep / f"job_{i}" / "result.json").read_text()) for i in range(4)]
    assert [("error" in r) for r in results] == [False, False, True, True]
    assert "continuous actions" in results[2]["error"]
    assert results[0]["steps"] == 300
    assert results[0]["best_return"] != results[1]["best_return"]
    assert done.stdout.count("failed:") == 2
    assert "Traceback" not in done.stdout + done.stderr


def test_a_wrong_job_stops_a_sweep_before_it_begins(tmp_path, motoric):
    done = motoric("train", "-m", "policy=ppo,nonsense", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "nonsense" in done.stderr
    assert not (tmp_path / "runs").exists()


# -- pieces -------------------------------------------------------------------------------------


def test_metrics_columns_appear_and_lines_survive(tmp_path):
    path = tmp_path / "metrics.csv"
    metrics = MetricsCsv(path)
    metrics.write({"a": 1.0}, 10)
    metrics.write({"a": 2.0, "b": np.float32(0.5)}, 20)
    metrics.write({"b": 3}, 30)
    assert read_metrics(path) == [
        {"step": 10, "a": 1.0}, {"step": 20, "a": 2.0, "b": 0.5}, {"step": 30, "b": 3.0},
    ]  # fmt: skip
    with open(path, "a") as file:
        file.write("40,4.0")  # cut off by a crash
    resumed = MetricsCsv(path, resume_at=20)
    assert [r["step"] for r in read_metrics(path)] == [10, 20]
    resumed.write({"a": 9.0}, 30)
    assert read_metrics(path)[-1] == {"step": 30, "a": 9.0}
    resumed.write({"b": 1.0}, 30)  # more of the same step
    assert read_metrics(path)[-1] == {"step": 30, "a": 9.0, "b": 1.0}
    assert [r["step"] for r in read_metrics(path)] == [10, 20, 30]


def test_a_full_disk_does_not_end_a_training(tmp_path, monkeypatch, capsys):
    from motoric.scripts import train

    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    settings = config.load(
        "train", ["env=pendulum", "policy=ppo", "total_steps=128", "policy.n_steps=64",
                  "eval_episodes=1", f"run={tmp_path / 'run'}"],
    )  # fmt: skip
    said: list[str] = []
    result = train.train(settings, said.append)
    assert result.steps == 128
    assert any("checkpoint not written: No space left" in line for line in said)


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_a_training_that_diverges_says_so_and_saves_nothing_of_it(tmp_path, name, capsys):
    extra = ["policy.n_steps=256"] if name == "ppo" else ["policy.learning_starts=100"]
    code = main(["train", "env=pendulum", f"policy={name}", "policy.learning_rate=1e30", *extra,
                 "total_steps=2000", "eval_every=500", f"run={tmp_path / 'run'}"])  # fmt: skip
    assert code == 1
    error = capsys.readouterr().err
    assert "diverged" in error
    assert "smaller policy.learning_rate" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run" / "bundle").exists()
    assert not checkpoint.steps(tmp_path / "run" / "checkpoints")


def test_a_configuration_survives_writing(tmp_path):
    settings = config.load("train", ["experiment=go2_walk", "+env.options.randomise=false"])
    config.save(settings, tmp_path / "config.yaml")
    back = config.read(tmp_path / "config.yaml")
    assert back.policy == settings.policy
    assert back.env == settings.env
    (tmp_path / "config.yaml").write_text("policy: [")
    with pytest.raises(UserError, match="can't be read"):
        config.read(tmp_path / "config.yaml")
