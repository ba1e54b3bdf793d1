"""Things by name: ours, each a file of its own, and those of other packages, by entry points.

A file in a table's folder adds to it by naming what it holds (`INTERFACE = MyInterface`); nothing
else learns of it. A package adds by an entry point of the group `motoric.TABLE`:

    [project.entry-points."motoric.interfaces"]
    my_interface = "my_package.interface:MyInterface"

Nothing is imported but what is asked for by name, or listed.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any


class BrokenPlugin(ValueError):
    """A package's entry point that can't be loaded; one line names the package and the reason."""


class Table(Mapping[str, Any]):
    """Names to objects; ours win over others' names.

    kind: what it holds, for messages; group: of entry points, `motoric.` is put before it
    ours: given as `module:attribute`
    package: dotted name of our folder: each module in it with this `attribute` is one, under the
        module's name
    """

    def __init__(
        self,
        kind: str,
        group: str,
        ours: dict[str, str] | None = None,
        package: str | None = None,
        attribute: str = "",
    ) -> None:
        self.kind, self.group, self._given = kind, f"motoric.{group}", ours or {}
        self._package, self._attribute = package, attribute
        self._loaded: dict[str, Any] = {}

    @cached_property
    def _ours(self) -> dict[str, str]:
        found = dict(self._given)
        if self._package is not None:
            for module in pkgutil.iter_modules(import_module(self._package).__path__):
                found.setdefault(module.name, f"{self._package}.{module.name}:{self._attribute}")
        return found

    @cached_property
    def _others(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            found.setdefault(point.name, []).append(point)
        return found

    def __getitem__(self, name: str) -> Any:
        """Raises KeyError for an unknown name, BrokenPlugin for a package's that can't be had."""
        if name not in self._loaded:
            if self._is_ours(name):
                self._loaded[name] = self._load(name)
            elif name in self._others:
                self._loaded[name] = self._plugin(name)
            else:
                raise KeyError(name)
        return self._loaded[name]

    def _load(self, name: str) -> Any:
        module, _, attribute = self._ours[name].partition(":")
        return getattr(import_module(module), attribute, None)

    def _is_ours(self, name: str) -> bool:
        """Not where a module of the folder holds none; where it misses an extra, nobody knows."""
        if name not in self._ours or name in self._given:
            return name in self._given
        try:
            return self._load(name) is not None
        except ModuleNotFoundError:
            return True

    def _plugin(self, name: str) -> Any:
        points = self._others[name]
        packages = [p.value if p.dist is None else p.dist.name for p in points]
        if len(points) > 1:
            raise BrokenPlugin(
                f"{self.kind} {name!r} is in each of the packages {', '.join(sorted(packages))}"
            )
        try:
            return points[0].load()
        except Exception as error:  # another's code raises what it will
            raise BrokenPlugin(
                f"{self.kind} {name!r} of the package {packages[0]} can't be loaded: "
                f"{type(error).__name__}: {error}".split("\n")[0]
            ) from error

    @property
    def names(self) -> list[str]:
        """All names there may be, without importing what is behind them."""
        return list(dict.fromkeys([*self._ours, *self._others, *self._loaded]))

    def find(self, name: str) -> Any:
        """The object of a name. Raises ValueError naming what there is."""
        if name not in self:
            raise ValueError(f"{self.kind} {name!r} is unknown, expected one of {', '.join(self)}")
        return self[name]

    def add(self, name: str, value: Any) -> None:
        """For this process only; a package uses an entry point."""
        self._loaded[name] = value

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        return name in self._loaded or name in self._others or self._is_ours(name)

    def __iter__(self) -> Iterator[str]:
        ours = [name for name in self._ours if self._is_ours(name)]
        return iter(dict.fromkeys([*ours, *self._others, *self._loaded]))

    def __len__(self) -> int:
        return len(list(iter(self)))


INTERFACES = Table(
    "interface", "interfaces", package="motoric.hardware.interfaces", attribute="INTERFACE"
)
