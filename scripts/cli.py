"""The command `motoric`."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from motoric.configs import schema
from motoric.hardware.runtime.bundle import BundleError
from motoric.scripts import config
from motoric.scripts.config import UserError

EXAMPLES = {
    "train": (
        "experiment=go2_walk",
        "policy=dsac_t env=half_cheetah seed=1 total_steps=300000",
        "policy=sac env=gym id=Ant-v5",
        "-m policy=dsac_t,sac env=hopper seed=1,2,3",
        "-m hydra/launcher=ray policy=sac env=hopper seed=1,2,3",
        "resume=runs/DIR",
    ),
    "evaluate": ("run=runs/DIR episodes=20", "run=runs/DIR viewer=web"),
    "export": ("run=runs/DIR",),
    "deploy": (
        "run=runs/DIR robot=sim_go2 duration=10 command=[0.5,0,0]",
        "run=runs/DIR robot=go2 interface=eth0 command=[0.3,0,0]",
    ),
    "serve": ("robot=sim_go2", "robot=sim_go2 host=0.0.0.0 key_file=robot.key"),
    "check": ("robot=go2 interface=eth0", "robot=x_arm6 duration=10"),
    "calibrate": ("robot=x_arm6", "robot=x_arm6 robot.options.port=/dev/ttyUSB1 seconds=30"),
    "simulate": (
        "robot=go2 interface=lo",
        "robot=go2 viewer=web",
        "robot=x_arm6 port=/tmp/arm lose=0.0001",
    ),
    "replay": ("runs/DIR/logs/LOG.mcap", "log=LOG.mcap viewer=video"),
    "demo": ("",),
}
GROUPS = {
    "train": ("policy", "env", "experiment"),
    "evaluate": ("viewer",),
    "deploy": ("robot",),
    "serve": ("robot",),
    "check": ("robot",),
    "calibrate": ("robot",),
    "simulate": ("robot", "viewer"),
    "replay": ("viewer",),
}
PATHS = ("run", "log", "out", "resume", "runs", "key_file", "record", "viewer.out")
OTHERS = {
    "list": "List policies, environments, robots, experiments and runs.",
    "demo": "Train a Go2 to walk, evaluate it, film it and deploy it on a simulated robot.",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 (it failed), 2 (a mistake of the user's)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = arguments.pop(0) if arguments else "--help"
    try:
        if name in ("-h", "--help", "help"):
            print(_usage())
            return 0
        if name == "--version":
            from importlib.metadata import version

            print(f"motoric {version('motoric')}")
            return 0
        if name not in (*schema.COMMANDS, *OTHERS):
            raise UserError(
                f"{name!r} is not a command, expected one of "
                f"{', '.join((*schema.COMMANDS, *OTHERS))}"
            )
        if any(a in ("-h", "--help") for a in arguments):
            print(_help(name, [a for a in arguments if not a.startswith("-")]))
            return 0
        return COMMANDS[name](arguments)
    except (UserError, BundleError) as error:
        print(f"motoric {name}: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        extra = _extra(error.name or "")
        if extra is None:
            raise
        needs = f"{error.name} is not installed: pip install 'motoric[{extra}]'"
        print(f"motoric {name}: {needs}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"motoric {name}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename is None:
            raise
        print(f"motoric {name}: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2


def _extra(module: str) -> str | None:
    """The extra of ours that brings a module, by the names of its packages."""
    from importlib.metadata import requires

    package = module.partition(".")[0].replace("_", "-").lower()
    for requirement in requires("motoric") or []:
        found = re.match(r"([\w.-]+).*extra == [\"'](\w+)[\"']", requirement)
        if found is not None and found[1].replace("_", "-").lower() == package:
            return found[2]
    return None


def _say(text: str) -> None:
    print(text, flush=True)


def _load(name: str, arguments: list[str]) -> Any:
    """A command's configuration. A lone word is the run (or the log)."""
    first = {"evaluate": "run", "export": "run", "deploy": "run", "replay": "log"}.get(name)
    given = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if argument.startswith("-"):
            raise UserError(f"{argument}: no such option, see motoric {name} --help")
        if not equals:
            if first is None or any(g.startswith(f"{first}=") for g in given):
                raise UserError(f"{argument!r}: expected key=value, see motoric {name} --help")
            key, value = first, argument
        given.append(f"{key}={_quoted(key, value)}")
    return config.load(name, given)


def _quoted(key: str, value: str) -> str:
    """Paths as they are: Hydra's grammar would stumble over spaces, commas and brackets."""
    if key not in PATHS or value in ("null", ""):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


# ---------------------------------------------------------------------------------------------
# Commands
# ---------------------------------------------------------------------------------------------


def _train(arguments: list[str]) -> int:
    if any(a in ("-m", "--multirun") for a in arguments):
        from motoric.scripts.sweeps import sweep

        return sweep.run([a for a in arguments if a not in ("-m", "--multirun")], _say)
    settings = _load("train", arguments)
    if settings.resume is not None:
        settings = config.resumed(settings, arguments)
    from motoric.scripts.train import Diverged, train

    try:
        result = train(settings, _say)
    except Diverged as error:
        print(f"motoric train: {error}", file=sys.stderr)
        return 1
    best = "" if result.best_return is None else f", best return {result.best_return:.1f}"
    _say(f"{result.steps:,} steps in {result.seconds:.0f} s{best}: {result.folder}")
    if result.stopped is not None:
        _say(f"go on with: motoric train resume={result.folder}")
        return 128 + result.stopped
    return 0


def _evaluate(arguments: list[str]) -> int:
    settings = _load("evaluate", arguments)
    from motoric.scripts.evaluate import evaluate

    evaluate(settings, _say)
    return 0


def _export(arguments: list[str]) -> int:
    settings = _load("export", arguments)
    from motoric.scripts.export import export_run

    export_run(settings, _say)
    return 0


def _deploy(arguments: list[str]) -> int:
    settings = _load("deploy", arguments)
    from motoric.scripts.deploy import deploy_run

    return 0 if deploy_run(settings, _say).fault is None else 1


def _serve(arguments: list[str]) -> int:
    settings = _load("serve", arguments)
    from motoric.scripts.serve import serve

    return serve(settings, _say)


def _check(arguments: list[str]) -> int:
    settings = _load("check", arguments)
    from motoric.scripts.check import check

    return check(settings, _say)


def _calibrate(arguments: list[str]) -> int:
    settings = _load("calibrate", arguments)
    from motoric.scripts.calibrate import calibrate_robot

    calibrate_robot(settings, _say)
    return 0


def _simulate(arguments: list[str]) -> int:
    settings = _load("simulate", arguments)
    from motoric.scripts.simulate import simulate

    simulate(settings, _say)
    return 0


def _replay(arguments: list[str]) -> int:
    settings = _load("replay", arguments)
    from motoric.scripts.replay import replay

    viewer = settings.viewer
    if viewer.name == "none":
        raise UserError("viewer: 'none' shows nothing, expected web, native or video")
    out = Path(viewer.out) if viewer.name == "video" and viewer.out is not None else None
    host, port = (viewer.host, viewer.port) if viewer.name == "web" else ("127.0.0.1", 8080)
    size = (viewer.width, viewer.height) if viewer.name == "video" else ()
    replay(Path(settings.log), viewer.name, host, port, out, *size)
    return 0


def _demo(arguments: list[str]) -> int:
    if arguments:
        raise UserError(f"{arguments[0]!r}: demo takes no arguments")
    from motoric.scripts.demo import demo

    return demo(_say)


def _list(arguments: list[str]) -> int:
    if arguments:
        raise UserError(f"{arguments[0]!r}: list takes no arguments")
    for group in ("policy", "env", "robot", "viewer", "experiment"):
        print(f"{group}: {', '.join(config.group_choices(group))}")
    runs = sorted(Path("runs").glob("**/config.yaml"), key=lambda p: p.stat().st_mtime)
    print(f"runs: {len(runs)}")
    for path in runs[-20:]:
        print(f"  {path.parent}  {_progress(path.parent)}")
    return 0


def _progress(folder: Path) -> str:
    """One line of how far a run got."""
    steps = sorted((folder / "checkpoints").glob("step_*"))
    done = f"{int(steps[-1].name[5:]):,} steps" if steps else "no checkpoint"
    try:
        state = json.loads((steps[-1] / "state.json").read_text())
        return f"{done}, best return {state['extra']['best_return']:.1f}"
    except (IndexError, OSError, ValueError, KeyError, TypeError):
        return done


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "export": _export,
    "deploy": _deploy,
    "serve": _serve,
    "check": _check,
    "calibrate": _calibrate,
    "simulate": _simulate,
    "replay": _replay,
    "list": _list,
    "demo": _demo,
}


# ---------------------------------------------------------------------------------------------
# Help
# ---------------------------------------------------------------------------------------------


def _usage() -> str:
    summary = {name: (kind.__doc__ or "").strip() for name, kind in schema.COMMANDS.items()}
    lines = ["usage: motoric COMMAND [key=value ...]", ""]
    lines += [f"  {name:<9} {text}" for name, text in (summary | OTHERS).items()]
    lines += ["", "motoric COMMAND --help names its keys."]
    lines += ["Begin with: motoric train experiment=go2_walk"]
    return "\n".join(lines)


def _help(name: str, arguments: list[str]) -> str:
    """What a command does and every key it takes, with its value under the given choices."""
    if name in OTHERS:
        return f"usage: motoric {name}\n\n{OTHERS[name]}"
    kind = schema.COMMANDS[name]
    lines = [f"usage: motoric {name} [key=value ...]", "", (kind.__doc__ or "").strip(), ""]
    lines += ["examples:"] + [f"  motoric {name} {text}".rstrip() for text in EXAMPLES[name]]
    groups = GROUPS.get(name, ())
    if groups:
        lines += ["", "choices:"]
        lines += [f"  {group}={'|'.join(config.group_choices(group))}" for group in groups]
    chosen = [a for a in arguments if a.partition("=")[0] in groups]
    if any(a == "env=gym" for a in chosen):
        chosen.append("id=ID")
    values = config.load(name, chosen + _placeholders(kind))
    lines += ["", "keys:", *_keys(values, "")]
    if groups:
        lines += ["", f"{groups[0]}=NAME --help shows the keys of that choice."]
    if name == "train":
        lines += ["-m trains every combination of comma-separated values."]
    return "\n".join(lines)


def _placeholders(kind: type) -> list[str]:
    from omegaconf import MISSING

    return [
        f"{item.name}={item.name.upper()}"
        for item in dataclasses.fields(kind)
        if item.default == MISSING and "help" in item.metadata
    ]


def _keys(values: Any, prefix: str) -> list[str]:
    lines = []
    for item in dataclasses.fields(values):
        value = getattr(values, item.name)
        if dataclasses.is_dataclass(value):
            lines += _keys(value, f"{prefix}{item.name}.")
        elif "help" in item.metadata:
            text = item.metadata["help"]
            shown = "" if value == item.name.upper() else _shown(value)
            lines.append(f"  {prefix + item.name + '=' + shown:<38} {text}")
    return lines


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).replace(" ", "")


if __name__ == "__main__":
    sys.exit(main())
