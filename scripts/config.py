"""From command-line overrides to checked, typed configuration; every mistake is one line."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_module
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.plugins.search_path_plugin import SearchPathPlugin
from motoric.configs.commands import COMMANDS, Train
from motoric.configs.groups import VIEWERS, Dataset, Env, Robot
from motoric.configs.policy import POLICIES
from motoric.configs.schema import check
from motoric.hardware.registry import BrokenPlugin, Table
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

FILES = {"env": Env, "robot": Robot, "dataset": Dataset}  # groups of YAML files
TYPES = {"policy": POLICIES, "viewer": VIEWERS}  # groups whose choices are dataclasses


class UserError(Exception):
    """A mistake of the user's, said in one line: the key, the value and what would be right."""


PACKAGES = Table("configurations", "configs")  # packages with YAML files, by entry point
UNUSABLE: dict[str, str] = {}  # what of packages can't be imported, and why, a line each


class Packages(SearchPathPlugin):
    """YAML files of the packages with an entry point `motoric.configs`, found after our own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for name in PACKAGES.names:
            try:
                search_path.append(name, f"pkg://{PACKAGES[name].__name__}")
            except BrokenPlugin as error:
                UNUSABLE[f"motoric.configs {name}"] = str(error)


def register() -> None:
    """Make commands, groups and packages known to Hydra."""
    Plugins.instance().register(Packages)
    store = ConfigStore.instance()
    for name, command in COMMANDS.items():
        store.store(name=name, node=command.config)
    for group, kinds in TYPES.items():
        for name in kinds:
            try:
                store.store(group=group, name=name, node=kinds[name])
            except BrokenPlugin as error:
                UNUSABLE[f"{group}={name}"] = str(error)
            except Exception as error:  # Hydra's, of a package's that is no dataclass it can take
                UNUSABLE[f"{group}={name}"] = f"{group} {name!r}: {error}".split("\n")[0]
    for group, kind in FILES.items():
        store.store(group=group, name="schema", node=kind)


@contextmanager
def hydra() -> Iterator[None]:
    register()
    with initialize_config_module("motoric.configs", version_base="1.3"):
        yield


def loader() -> ConfigLoader:
    return GlobalHydra.instance().config_loader()


def group_choices(group: str) -> list[str]:
    """The choices of a config group, for messages and `motoric list`."""
    with hydra():
        return _choices(group)


def _choices(group: str) -> list[str]:
    return [name for name in loader().get_group_options(group) if name != "schema"]


def load(command: str, overrides: list[str]) -> Any:
    """The typed configuration of a command (a dataclass of `motoric.configs.commands`).

    With `train resume=DIR`, it is that of the run, with what may be changed of it. Raises UserError
    naming the key, the value and what is allowed.
    """
    with hydra():
        try:
            for group in (*FILES, *TYPES):
                if f"{group}=null" in overrides:
                    raise UserError(f"{group}: null, expected one of {', '.join(_choices(group))}")
            for override in overrides:
                if override in UNUSABLE:
                    raise UserError(UNUSABLE[override])
            config = compose(command, overrides)
            OmegaConf.resolve(config)
            missing = OmegaConf.missing_keys(config)
            if missing:
                key = min(missing)
                raise UserError(f"{key}: missing, give {key}=...")
            value = OmegaConf.to_object(config)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(explain(command, overrides, error)) from None
    settings = typed(value)
    if isinstance(settings, Train) and settings.resume is not None:
        return resumed(settings, overrides)
    return settings


WORDS = ("null", "true", "false", "nan", "inf")  # what means something else without quotes


def quoted(text: str) -> str:
    """A text in Hydra's grammar, taken literally: with spaces, commas, brackets and quotes."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", text) and text.lower() not in WORDS:
        return text
    return "'" + re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + (m[2] and "\\'"), text) + "'"


def typed(value: Any) -> Any:
    """Checked configuration whose groups are dataclasses too."""
    try:
        for group, kind in FILES.items():
            if isinstance(value.__dict__.get(group), dict):
                setattr(value, group, kind(**value.__dict__[group]))
        for group, kinds in TYPES.items():
            chosen = value.__dict__.get(group)
            if isinstance(chosen, dict):
                chosen = kinds[chosen["name"]](**chosen)
                setattr(value, group, chosen)
            if chosen is not None and type(chosen) is not kinds.get(chosen.name):
                raise ValueError(
                    f"{group}.name: {chosen.name!r}, choose it by {group}={chosen.name}"
                )
        check(value)
    except ValueError as error:
        raise UserError(str(error)) from None
    return value


# What may be given beside resume=DIR: nothing that would change the steps already taken.
RESUMABLE = (
    "total_steps", "checkpoint_every", "eval_every", "eval_episodes", "log_every", "progress",
)  # fmt: skip


def resumed(settings: Train, overrides: list[str]) -> Train:
    """The configuration of the run `settings.resume`, with what `overrides` may change of it."""
    assert settings.resume is not None
    kept = read(Path(settings.resume) / "config.yaml")
    given = [override.partition("=")[0] for override in overrides]
    for key in given:
        if key not in (*RESUMABLE, "resume"):
            raise UserError(
                f"{key}: can't be changed with resume=, only {', '.join(RESUMABLE)} can"
            )
    changed = {key: getattr(settings, key) for key in given if key in RESUMABLE}
    return dataclasses.replace(kept, resume=settings.resume, **changed)


def save(config: Any, path: Path) -> None:
    """Write a resolved configuration as YAML."""
    values = dataclasses.asdict(config)
    values.pop("defaults", None)
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def read(path: Path) -> Train:
    """A run's configuration, as `save` wrote it."""
    try:
        values = yaml.safe_load(path.read_text())
        values.pop("defaults", None)
        return typed(Train(**values))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"run: {path.parent} is not a run folder ({path.name} is missing)"
        ) from None
    except (OSError, TypeError, KeyError, AttributeError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"run: {path} can't be read: {error}") from None


def explain(command: str, overrides: list[str], error: Exception) -> str:
    """One line for what Hydra or OmegaConf found wrong."""
    first = str(error).split("\n")[0]
    if isinstance(error, OverrideParseException):
        return f"{error.override!r}: not of the form key=value ({first})"
    if isinstance(error, MissingConfigException) and "Could not find '" in first:
        group, _, value = first.split("'")[-2].rpartition("/")
        return f"{group}: {value!r} is unknown, expected one of {', '.join(_choices(group))}"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    cause = cause or (error if isinstance(error, OmegaConfBaseException) else None)
    if cause is not None and getattr(cause, "full_key", None):
        key = str(cause.full_key)
        given = [o.partition("=")[2] for o in overrides if o.partition("=")[0].lstrip("+~") == key]
        if "not in struct" in str(cause) or "not in '" in str(cause):
            parent = key.rpartition(".")[0]
            names = [k for k in _named(command, overrides) if k.rpartition(".")[0] == parent]
            near = difflib.get_close_matches(key, names, 1)
            hint = f", expected one of {', '.join(names)}" if names else ""
            hint = f", did you mean {near[0]}?" if near else hint
            return f"{key}: no such key{hint}"
        reason = str(cause).split("\n")[0]
        return f"{key}: {given[0]!r}: {reason}" if given else f"{key}: {reason}"
    if isinstance(error, ConfigCompositionException) and "No match in the defaults" in first:
        return f"{first.split(chr(39))[1]!r}: no such key"
    return first


def _named(command: str, overrides: list[str]) -> list[str]:
    """Keys that exist once the overrides that choose groups are applied."""
    given = [o.partition("=") for o in overrides]
    groups = [f"{k}={v}" for k, _, v in given if k in (*FILES, *TYPES) and not v.startswith("{")]
    keys: list[str] = []

    def walk(config: Any, prefix: str) -> None:
        for key in config:
            keys.append(f"{prefix}{key}")
            child = config._get_node(key)
            if OmegaConf.is_dict(child) and not child._is_missing() and not child._is_none():
                walk(child, f"{prefix}{key}.")

    walk(compose(command, groups), "")
    return keys
