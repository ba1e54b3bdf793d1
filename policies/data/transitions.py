"""Sets of transitions on disk: a folder of memory-mapped arrays with a manifest.

    manifest.json       format, number of transitions, spaces, what they are of, checksums
    observations.npy    [T, ...]; observations.NAME.npy for each entry of a Dict
    next_observations*  after the step, before any reset
    actions, rewards, terminated, truncated [T]; starts [T]: the first of an episode

The rows of an episode follow each other, and its last is terminated or truncated. Reading parses
JSON and NumPy's array headers and nothing else: no pickle, no code. Sizes are bounded before
anything is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from gymnasium import spaces
from motoric.policies.data.spaces import from_json, to_json
from numpy.lib import format as npy
from numpy.typing import NDArray

FORMAT = "motoric-transitions/1"
MANIFEST = "manifest.json"
MOST_JSON = 2**24  # bytes
MOST_NESTED = 32
MOST_ENTRIES = 256  # of a Dict observation
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
PIECE = 2**16  # rows looked at together
FLAGS = ("terminated", "truncated", "starts")

Observed = NDArray[Any] | dict[str, NDArray[Any]]


class DataError(ValueError):
    """A set that is missing, damaged or cut off; one line says where."""


@dataclass(frozen=True)
class Transitions:
    """T transitions; arrays are memory maps, read as they are used.

    observations, next_observations [T, ...], a dict of them where there are several; actions
    [T, ...]; rewards [T]; terminated, truncated, starts [T] bool
    about: what they are of, by whoever recorded them: JSON values
    """

    path: Path
    observation_space: spaces.Space
    action_space: spaces.Space
    observations: Observed
    next_observations: Observed
    actions: NDArray[Any]
    rewards: NDArray[Any]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    starts: NDArray[np.bool_]
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.rewards)

    @classmethod
    def open(cls, path: Path | str, verify: bool = True) -> Transitions:
        """Open a set. Raises DataError.

        verify: checksums, numbers that are not finite, episodes that don't follow each other; it
        reads all there is, once
        """
        path = Path(path)
        try:
            manifest = _manifest(path)
            space, action = (from_json(manifest[k]) for k in ("observation_space", "action_space"))
            count, files = _count(manifest["transitions"]), manifest["files"]
            wanted = _wanted(space, action, count)
            if set(files) != set(wanted):
                raise DataError(f"{MANIFEST}: files {sorted(files)}, expected {sorted(wanted)}")
            arrays = {name: _map(path / f"{name}.npy", *wanted[name]) for name in wanted}
            if verify:
                for name, digest in files.items():
                    if _sha256(path / f"{name}.npy") != digest:
                        raise DataError(f"{name}.npy does not match its checksum")
                _check(arrays)
            if not isinstance(manifest["about"], dict):
                raise DataError(f"{MANIFEST}: about is not a mapping")
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise DataError(f"{path}: {MANIFEST}: {what}") from None
        seen = {k: _joined(space, k, arrays) for k in ("observations", "next_observations")}
        rest = {k: arrays[k] for k in ("actions", "rewards", *FLAGS)}
        return cls(path, space, action, **seen, **rest, about=manifest["about"])

    def episodes(self) -> Iterator[slice]:
        """Where each begins and ends."""
        first = np.flatnonzero(self.starts)
        for begin, end in zip(first, [*first[1:], len(self)], strict=True):
            yield slice(int(begin), int(end))

    def returns(self) -> NDArray[np.float64]:
        """Of the episodes, [E]."""
        return np.add.reduceat(self.rewards.astype(np.float64), np.flatnonzero(self.starts))


# ---------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------


def _manifest(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise DataError("is not a folder")
    try:
        with _regular(path / MANIFEST) as file:
            text = file.read(MOST_JSON + 1)
    except DataError as error:
        if "is missing" in str(error):
            raise DataError(f"{error}: no set of transitions, or its writing was cut off") from None
        raise
    if len(text) > MOST_JSON:
        raise DataError(f"{MANIFEST} has more than {MOST_JSON} bytes")
    if _depth(text) > MOST_NESTED:
        raise DataError(f"{MANIFEST} is nested more than {MOST_NESTED} deep")
    try:
        content = json.loads(text.decode(), parse_constant=_refuse)
    except ValueError as error:
        raise DataError(f"{MANIFEST} can't be read: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{MANIFEST}: format {str(found)[:40]!r}, expected {FORMAT!r}")
    stated = content.pop("sha256", None)
    if stated != _digest(content):
        raise DataError(f"{MANIFEST} does not match its checksum")
    return content


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _depth(text: bytes) -> int:
    """Of brackets, those in strings included: more than there are is on the safe side."""
    steps = {ord(b): s for b, s in (("[", 1), ("{", 1), ("]", -1), ("}", -1))}
    depth = deepest = 0
    for byte in text:
        depth += steps.get(byte, 0)
        deepest = max(deepest, depth)
    return deepest


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _count(value: Any) -> int:
    if type(value) is not int or not 0 < value < 2**40:
        raise DataError(f"{MANIFEST}: {value!r} transitions")
    return value


def _wanted(
    space: spaces.Space, action: spaces.Space, count: int
) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of each array, by name."""
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    for prefix in ("observations", "next_observations"):
        for name, inner in _entries(space):
            found[f"{prefix}{name}"] = (count, *_shape(inner)), _type(inner)
    found["actions"] = (count, *_shape(action)), _type(action)
    found["rewards"] = (count,), "float32"
    return found | {name: ((count,), "bool") for name in FLAGS}


def _entries(space: spaces.Space) -> list[tuple[str, spaces.Space]]:
    """Ends of the names of files, and what is in them."""
    if not isinstance(space, spaces.Dict):
        return [("", space)]
    if not 0 < len(space.spaces) <= MOST_ENTRIES:
        raise DataError(f"{len(space.spaces)} entries of an observation")
    for name, inner in space.spaces.items():
        if not NAME.fullmatch(name) or isinstance(inner, spaces.Dict):
            raise DataError(f"entry {name!r} of an observation is not allowed")
    return [(f".{name}", inner) for name, inner in space.spaces.items()]


def _shape(space: spaces.Space) -> tuple[int, ...]:
    shape = tuple(space.shape or ())
    if len(shape) > 8 or min(shape, default=1) < 1 or np.prod(shape, dtype=float) > 2**26:
        raise DataError(f"shape {shape} is not allowed")
    return shape


def _type(space: spaces.Space) -> str:
    return "int64" if isinstance(space, spaces.Discrete) else str(space.dtype)


def _regular(path: Path) -> BinaryIO:
    """A regular file to read; no link, no pipe is opened."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DataError(f"{path.name} is missing") from None
    except OSError as error:
        raise DataError(f"{path.name} can't be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise DataError(f"{path.name} is not a regular file")
    return open(number, "rb")


def _map(path: Path, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """An array of a file whose header and size are as they should be."""
    with _regular(path) as file:
        try:
            if npy.read_magic(file) != (1, 0):
                raise ValueError
            header = npy.read_array_header_1_0(file, max_header_size=4096)
        except ValueError:
            raise DataError(f"{path.name} is not an array of NumPy's") from None
        if header != (shape, False, np.dtype(dtype)):
            raise DataError(f"{path.name}: holds {header[2]}{header[0]}, expected {dtype}{shape}")
        offset = file.tell()
        size = offset + int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        if os.fstat(file.fileno()).st_size != size:
            raise DataError(f"{path.name}: {os.fstat(file.fileno()).st_size} bytes, not {size}")
        return np.memmap(file, np.dtype(dtype), "r", offset, shape)


def _sha256(path: Path) -> str:
    with _regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _check(arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            for begin in range(0, len(array), PIECE):
                wrong = ~np.isfinite(array[begin : begin + PIECE])
                if wrong.any():
                    row = begin + int(np.argwhere(wrong)[0][0])
                    raise DataError(f"{name}.npy: row {row} is not finite")
    ends = arrays["terminated"] | arrays["truncated"]
    first = np.concatenate([[True], ends[:-1]])
    wrong = np.flatnonzero(first != arrays["starts"])
    if len(wrong):
        raise DataError(f"starts.npy: row {wrong[0]} does not agree with the ends of episodes")
    if not ends[-1]:
        raise DataError("its last episode has no end")


def _joined(space: spaces.Space, prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Observed:
    if not isinstance(space, spaces.Dict):
        return arrays[prefix]
    return {name: arrays[f"{prefix}.{name}"] for name in space.spaces}


# ---------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------


class Writer:
    """Writes a new set, episode by episode; `close` puts it in its place, whole.

    Until then, and where it is cut off, it is a hidden folder beside it without a manifest.
    Raises DataError where there is something, OSError of the disk.
    """

    def __init__(
        self,
        path: Path | str,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        about: dict[str, Any],
    ) -> None:
        self.path, self.about = Path(path), about
        self.spaces = {"observation_space": observation_space, "action_space": action_space}
        self.count = 0
        self._wanted = _wanted(observation_space, action_space, 0)
        kept = {name: to_json(space) for name, space in self.spaces.items()}
        self._content = {"format": FORMAT} | kept
        if self.path.exists():
            raise DataError(f"{self.path} exists")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = tempfile.mkdtemp(prefix=f".{self.path.name}.new-", dir=self.path.parent)
        self._folder = Path(new)
        paths = {name: self._folder / f"{name}.npy" for name in self._wanted}
        self._files = {name: open(path, "wb") for name, path in paths.items()}  # noqa: SIM115
        for name in self._files:
            self._header(name)

    def _header(self, name: str) -> None:
        shape, dtype = self._wanted[name]
        said = {
            "descr": npy.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": (self.count, *shape[1:]),
        }
        file = self._files[name]
        file.seek(0)
        npy.write_array_header_1_0(file, said)  # NumPy leaves room for the first axis to grow
        file.seek(0, os.SEEK_END)

    def add(
        self,
        observations: Observed,
        next_observations: Observed,
        actions: Any,
        rewards: Any,
        terminated: bool,
    ) -> None:
        """One episode of L steps, arrays [L, ...]; terminated: by what happened, not by time.

        Raises ValueError for arrays of the wrong shape.
        """
        length = len(rewards)
        if length == 0:
            raise ValueError("an episode without a step")
        last = np.arange(length) == length - 1
        values = {"actions": actions, "rewards": rewards}
        values |= {"terminated": last & terminated, "truncated": last & (not terminated)}
        values["starts"] = np.arange(length) == 0
        both = {"observations": observations, "next_observations": next_observations}
        for prefix, seen in both.items():
            parts = seen.items() if isinstance(seen, dict) else [("", seen)]
            values |= {f"{prefix}.{name}" if name else prefix: part for name, part in parts}
        arrays = {}
        for name, (shape, dtype) in self._wanted.items():
            arrays[name] = array = np.ascontiguousarray(values[name], dtype)
            if array.shape != (length, *shape[1:]):
                wanted = (length, *shape[1:])
                raise ValueError(f"{name}: shape {array.shape}, expected {wanted}")
        for name, array in arrays.items():
            self._files[name].write(cast(Any, array.data))
        self.count += length

    def close(self) -> Path:
        """Finish and put it in its place; returns its path."""
        if self.count == 0:
            self.discard()
            raise DataError(f"{self.path}: no transition was recorded")
        for name, file in self._files.items():
            self._header(name)
            file.flush()
            os.fsync(file.fileno())
            file.close()
        digests = {name: _sha256(self._folder / f"{name}.npy") for name in self._files}
        content = self._content | {
            "transitions": self.count, "files": digests, "about": self.about,
        }  # fmt: skip
        content["sha256"] = _digest(content)
        with open(self._folder / MANIFEST, "w") as file:
            json.dump(content, file, indent=1, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        self._folder.chmod(0o755)
        self._folder.rename(self.path)
        return self.path

    def discard(self) -> None:
        """Leave nothing."""
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._folder, ignore_errors=True)
