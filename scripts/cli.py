"""The command `motoric`: finds the command in `motoric.configs.commands`, its configuration, and
runs it; every mistake is one line."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import sys
from importlib import import_module
from importlib.metadata import requires, version
from typing import Any

from motoric.configs.commands import COMMANDS, Command
from motoric.hardware.registry import BrokenPlugin
from motoric.hardware.runtime.bundle import BundleError
from motoric.scripts import config
from motoric.scripts.config import UserError
from omegaconf import MISSING

HELP = ("-h", "--help")
MANY = ("-m", "--multirun")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 (it failed), 2 (a mistake of the user's)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    first = words[0] if words else "help"
    if first in (*HELP, "help"):
        print(_usage(COMMANDS))
        return 0
    if first == "--version":
        print(f"motoric {version('motoric')}")
        return 0
    name = first
    try:
        command, words = command_of(words)
        name = command.name
        if any(word in HELP for word in words):
            print(_help(command, [word for word in words if not word.startswith("-")]))
            return 0
        return _run(command, words)
    except (UserError, BundleError, BrokenPlugin) as error:
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


def command_of(words: list[str]) -> tuple[Command, list[str]]:
    """The command that the words begin with, and the others. Its name may be two words."""
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in COMMANDS:
            return COMMANDS[name], words[count:]
    within = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    wrong = " ".join(words[: 2 if within else 1])
    raise UserError(f"{wrong!r} is not a command, expected one of {', '.join(within or COMMANDS)}")


def _run(command: Command, words: list[str]) -> int:
    if command.many is not None and any(word in MANY for word in words):
        return _function(command.many)([word for word in words if word not in MANY], _say)
    settings = settings_of(command, words)  # before what takes seconds to import
    return _function(command.run)(settings, _say)


def _function(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def _say(text: str) -> None:
    print(text, flush=True)


def settings_of(command: Command, words: list[str]) -> Any:
    """A command's configuration by the words after its name. Raises UserError.

    A lone word is the value of the command's first key.
    """
    given: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if word.startswith("-"):
            raise UserError(f"{word}: no such option, see motoric {command.name} --help")
        if not equals:
            first = command.first
            if first is None or any(g.startswith(f"{first}=") for g in given):
                raise UserError(f"{word!r}: expected key=value, see motoric {command.name} --help")
            key, value = first, word
        literal = key in command.paths and value not in ("null", "")
        given.append(f"{key}={config.quoted(value) if literal else value}")
    return config.load(command.name, given)


def _extra(module: str) -> str | None:
    """The extra of ours that brings a module, by the names of its packages."""
    package = module.partition(".")[0].replace("_", "-").lower()
    for requirement in requires("motoric") or []:
        found = re.match(r"([\w.-]+).*extra == [\"'](\w+)[\"']", requirement)
        if found is not None and found[1].replace("_", "-").lower() == package:
            return found[2]
    return None


# -- help -----------------------------------------------------------------------------------------


def _usage(commands: dict[str, Command]) -> str:
    width = max(map(len, commands))
    lines = ["usage: motoric COMMAND [key=value ...]", ""]
    lines += [f"  {name:<{width}} {command.help}" for name, command in commands.items()]
    lines += ["", "motoric COMMAND --help names its keys."]
    lines += ["Begin with: motoric train experiment=go2_walk"]
    return "\n".join(lines)


def _help(command: Command, words: list[str]) -> str:
    """What a command does and every key it takes, with its value under the given choices."""
    name, groups = command.name, command.groups
    keys = _keys(config.load(name, _placeholders(command, words)), "")
    lines = [f"usage: motoric {name}" + " [key=value ...]" * bool(keys), "", command.help]
    if any(command.examples):
        lines += ["", "examples:"]
        lines += [f"  motoric {name} {text}".rstrip() for text in command.examples]
    if groups:
        lines += ["", "choices:"]
        lines += [f"  {group}={'|'.join(config.group_choices(group))}" for group in groups]
    if keys:
        lines += ["", "keys:", *keys]
    if groups:
        lines += ["", f"{groups[0]}=NAME --help shows the keys of that choice."]
    if command.many is not None:
        lines += ["-m runs every combination of comma-separated values."]
    return "\n".join(lines)


def _placeholders(command: Command, words: list[str]) -> list[str]:
    """The choices among the words, and something for the keys that must be given."""
    fields = dataclasses.fields(command.config)
    missing = [f.name for f in fields if f.default == MISSING and "help" in f.metadata]
    chosen = [word for word in words if word.partition("=")[0] in command.groups]
    if "env=gym" in chosen:
        chosen.append("id=ID")
    if "dataset=local" in chosen:
        chosen.append("dataset.path=PATH")
    return [*chosen, *(f"{name}={name.upper()}" for name in missing)]


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
