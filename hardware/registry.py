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
    def _others(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            found = self._load(name)
            if found is None:
                raise KeyError(name)
            self._loaded[name] = found
        return self._loaded[name]

    def _load(self, name: str) -> Any:
        """None: there is no such thing."""
        if name in self._ours:
            module, _, attribute = self._ours[name].partition(":")
            return getattr(import_module(module), attribute, None)
        if name in self._others:
            point = self._others[name]
            try:
                return point.load()
            except Exception as error:  # another's code raises what it will
                package = point.dist.name if point.dist is not None else point.value
                raise BrokenPlugin(
                    f"{self.kind} {name!r} of the package {package} can't be loaded: "
                    f"{type(error).__name__}: {error}".split("\n")[0]
                ) from error
        return None

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
        if name in self._loaded or name in self._others:
            return True
        return name in self._ours and (name in self._given or self._load(name) is not None)

    def __iter__(self) -> Iterator[str]:
        ours = [name for name in self._ours if name in self]
        return iter(dict.fromkeys([*ours, *self._others, *self._loaded]))

    def __len__(self) -> int:
        return len(list(iter(self)))


INTERFACES = Table(
    "interface", "interfaces", package="motoric.hardware.interfaces", attribute="INTERFACE"
)
