"""Train control policies in simulation, watch them, and run them on robots.

A function here is the command of its name, with the same keys and defaults (`motoric train --help`
lists them), and returns what the command prints of:

    import motoric

    run = motoric.train(policy="ppo", env="go2_velocity", total_steps=200_000)
    scores = motoric.evaluate(run.folder, episodes=20)
    report = motoric.deploy(run.folder, robot="sim_go2", goal=[0.5, 0, 0], duration=10)

    policy = motoric.load(run.folder)
    action = policy.act(observation)  # [1, ...] -> [1, ...]

Keys within a choice are given as a mapping with its name, or in the words of the command line:

    motoric.train(policy={"name": "ppo", "gamma": 0.97}, env="go2_velocity")
    motoric.train("experiment=go2_walk", "policy.gamma=0.97", total_steps=200_000)

`say` takes the lines that a command prints. What can't be done as asked raises `UserError`, of one
line. Importing this imports none of torch, gymnasium and mujoco; each function what it needs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

    from motoric.hardware.runtime.bundle import Bundle, BundleError
    from motoric.hardware.runtime.policy import Policy
    from motoric.hardware.runtime.report import DeployReport
    from motoric.scripts.config import UserError
    from motoric.scripts.train import Diverged, Result
    from numpy.typing import NDArray

__all__ = [
    "Bundle", "BundleError", "DeployReport", "Diverged", "Policy", "Result", "UserError",
    "__version__", "deploy", "evaluate", "export", "list", "load", "record", "train",
]  # fmt: skip
__version__ = version("motoric")

Run: TypeAlias = "str | os.PathLike[str]"  # a run folder; where no training is needed, a bundle too
Say: TypeAlias = Callable[[str], None]
Plain: TypeAlias = "bool | int | float | str | os.PathLike[str] | NDArray[Any] | None"
Value: TypeAlias = "Plain | Sequence[Value] | Mapping[str, Value]"


def train(*words: str, say: Say = print, **keys: Value) -> Result:
    """Train a policy in a new run folder, or go on in one (`resume=`).

    SIGINT and SIGTERM end it with everything saved. Raises Diverged where weights become infinite.
    """
    settings = _settings("train", words, keys)
    from motoric.scripts.train import train

    return train(settings, say)


def evaluate(run: Run, *words: str, say: Say = print, **keys: Value) -> dict[str, Any]:
    """Run episodes of a run's bundle; what `evaluation.json` holds."""
    settings = _settings("evaluate", words, keys | {"run": run})
    from motoric.scripts.evaluate import evaluate

    return evaluate(settings, say)


def export(run: Run, *words: str, say: Say = print, **keys: Value) -> Path:
    """Write the newest checkpoint's policy as a bundle; its folder."""
    settings = _settings("export", words, keys | {"run": run})
    from motoric.scripts.export import export_run

    return export_run(settings, say)


def record(run: Run, out: Run, *words: str, say: Say = print, **keys: Value) -> Path:
    """Record episodes of a run's policy as a set of transitions in the new folder `out`."""
    settings = _settings("data record", words, keys | {"run": run, "out": out})
    from motoric.scripts.collect import record

    return record(settings, say)


def deploy(run: Run, *words: str, say: Say = print, **keys: Value) -> DeployReport:
    """Run a bundle on a robot, through the safety supervisor."""
    settings = _settings("deploy", words, keys | {"run": run})
    from motoric.scripts.deploy import deploy_run

    return deploy_run(settings, say)


def load(run: Run, bundle: str = "best", rows: int = 1, seed: int = 0) -> Policy:
    """The policy of a run folder or a bundle folder, to act on observations [rows, ...].

    bundle: best or last, of a run; seed: of what the policy draws. Needs no torch.
    Raises BundleError for a bundle that is missing or damaged.
    """
    from motoric.hardware.runtime.bundle import Bundle, find_bundle
    from motoric.hardware.runtime.policy import Policy

    return Policy(Bundle.load(find_bundle(os.fspath(run), bundle)[1]), rows, seed)


def list() -> dict[str, Sequence[str]]:
    """What there is to choose from, other packages' included: `{"policy": ["dsac_t", …], …}`."""
    from motoric.scripts.listing import choices

    return choices()


def _settings(command: str, words: Sequence[str], keys: Mapping[str, Value]) -> Any:
    from motoric.configs.commands import COMMANDS
    from motoric.scripts import config

    groups = COMMANDS[command].groups
    return config.load(
        command, [*words, *(w for k, v in keys.items() for w in _words(k, v, groups))]
    )


def _words(key: str, value: Value, groups: Sequence[str]) -> Iterator[str]:
    """A key and its value as the command line has them. A mapping for a group, such as a policy
    with its own keys, is a choice and further keys; in its `options` are names nobody knows here.
    """
    group, _, inner = key.partition(".")
    if group in groups and isinstance(value, Mapping):
        if not inner and "name" in value:
            yield f"{group}={_text(value['name'])}"
        for name, item in value.items():
            if (inner, name) == ("", "name"):
                continue
            elif inner == "options":
                yield f"++{key}.{name}={_text(item)}"
            else:
                yield from _words(f"{key}.{name}", item, groups)
    else:
        yield f"{key}={_text(value)}"


def _text(value: Any) -> str:
    """A value in Hydra's grammar."""
    from motoric.scripts.config import UserError, quoted

    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        return _text(value.tolist())
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | os.PathLike):
        return quoted(os.fspath(value))
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_text(item)}" for name, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(map(_text, value)) + "]"
    raise UserError(f"{value!r}: expected a number, text, list or mapping")


_RESULTS = {
    "Bundle": "motoric.hardware.runtime.bundle",
    "BundleError": "motoric.hardware.runtime.bundle",
    "DeployReport": "motoric.hardware.runtime.report",
    "Diverged": "motoric.scripts.train",
    "Policy": "motoric.hardware.runtime.policy",
    "Result": "motoric.scripts.train",
    "UserError": "motoric.scripts.config",
}


def __getattr__(name: str) -> Any:
    """What the functions return and raise, imported where it is asked for."""
    if name in _RESULTS:
        return getattr(import_module(_RESULTS[name]), name)
    raise AttributeError(f"module 'motoric' has no attribute {name!r}")


def __dir__() -> Sequence[str]:
    return __all__
