"""Things by name: ours, and those of third-party packages, through entry points.

A package adds to a table by an entry point of the group `motoric.TABLE` in its pyproject.toml:

    [project.entry-points."motoric.interfaces"]
    my_interface = "my_package.interface:MyInterface"

Nothing is imported but what is asked for by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any


class Table(Mapping[str, Any]):
    """Names to objects; ours are given as `module:attribute`, and win over others' names.

    kind: what it holds, for messages; group: of entry points, `motoric.` is put before it
    """

    def __init__(self, kind: str, group: str, ours: dict[str, str]) -> None:
        self.kind, self.group, self._ours = kind, f"motoric.{group}", ours
        self._loaded: dict[str, Any] = {}

    @cached_property
    def _others(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            if name in self._ours:
                module, _, attribute = self._ours[name].partition(":")
                self._loaded[name] = getattr(import_module(module), attribute)
            elif name in self._others:
                self._loaded[name] = self._others[name].load()
            else:
                raise KeyError(name)
        return self._loaded[name]

    def find(self, name: str) -> Any:
        """The object of a name. Raises ValueError naming what there is."""
        if name not in self:
            raise ValueError(f"{self.kind} {name!r} is unknown, expected one of {', '.join(self)}")
        return self[name]

    def add(self, name: str, value: Any) -> None:
        """For this process only; a package uses an entry point."""
        self._loaded[name] = value

    def __contains__(self, name: object) -> bool:
        return name in self._loaded or name in self._ours or name in self._others

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._ours, *self._others, *self._loaded]))

    def __len__(self) -> int:
        return len(list(iter(self)))


INTERFACES = Table(
    "interface", "interfaces", {
        "impedance": "motoric.hardware.interfaces.impedance:Impedance",
        "joint_targets": "motoric.hardware.interfaces.joint_targets:JointTargets",
    },
)  # fmt: skip
