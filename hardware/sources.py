"""Where a goal comes from: fixed, keyboard, gamepad, file, network, or typed text.

A source is asked again and again while a policy acts, and never makes it wait. Every value is
checked by its `Part`: one that is not allowed is told in a line, and the last good one stays.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from motoric.hardware.goals import Goal, Part, at_rest, checked

SAY_EVERY = 1.0  # s between two lines about the same source
MOST_FILE = 2**24  # bytes


class Source:
    """Where a goal comes from; this one says nothing new, its subclasses do.

    name: for `make_source` and the log; help: its keys, for the operator
    goal: the newest, each part [1, k]; a new dict whenever it changes
    typing: whether it takes every key, since a line is being typed
    """

    name: ClassVar[str]
    help: ClassVar[str] = ""
    needs_keys: ClassVar[bool] = False

    def __init__(self, start: Any = None) -> None:
        """start: values as `goals.checked` takes them; None: at rest."""
        self._start = start
        self.parts: tuple[Part, ...] = ()
        self.goal: Goal = {}
        self.typing = False
        self.say: Callable[[str], None] = lambda line: print(line, flush=True)
        self._told = -np.inf

    def open(self, parts: tuple[Part, ...]) -> None:
        """Before anything moves. Raises ValueError for a start, device or file that isn't right."""
        self.parts = parts
        self.goal = at_rest(parts, 1) if self._start is None else checked(parts, self._start)

    def poll(self, elapsed: float) -> None:
        """Look for something new. elapsed: s since the policy began, 0 before. Never waits."""

    def press(self, key: bytes) -> None:
        """A key of the operator's that has no meaning of its own."""

    def close(self) -> None:
        """Let go of devices. Safe to call more than once."""

    def set(self, values: Any) -> bool:
        """Change some parts, all of the given ones or none. False for what is not allowed."""
        try:
            self.goal = self.goal | _parts(self.parts, values)
        except ValueError as error:
            self.tell(str(error))
            return False
        return True

    def rest(self) -> None:
        self.goal = at_rest(self.parts, 1)

    def tell(self, line: str) -> None:
        """Say a line, not more often than once in a while."""
        now = time.monotonic()
        if now - self._told >= SAY_EVERY:
            self._told = now
            self.say(f"{self.name}: {line}".split("\n")[0][:200])


def _parts(parts: tuple[Part, ...], values: Any) -> Goal:
    """Only the parts that are given, [1, k] each. Raises ValueError."""
    goal = checked(parts, values)
    return {k: v for k, v in goal.items() if not isinstance(values, dict) or k in values}


class Fixed(Source):
    """A goal that stays as it began."""

    name = "fixed"


class _Numbers(Source):
    """A source that moves the numbers of a goal, in the order of its parts, one by one."""

    def open(self, parts: tuple[Part, ...]) -> None:
        super().open(parts)
        self._numbers = [
            (part, i) for part in parts if not part.is_text for i in range(len(part.names))
        ]
        if not self._numbers:
            raise ValueError(f"source={self.name}: the policy's goal has no numbers")

    def _change(self, number: int, value: float) -> None:
        """Set one number, within what the policy was trained for."""
        part, i = self._numbers[number]
        array = self.goal[part.name].copy()
        array[0, i] = min(max(value, part.low[i]), part.high[i])
        self.goal = self.goal | {part.name: array}


class Keyboard(_Numbers):
    """Keys in pairs: one number of the goal up and down by a tenth of its range; x: rest."""

    name = "keyboard"
    needs_keys = True
    PAIRS = (b"ws", b"ad", b"jl", b"ik", b"uo", b"rf", b"tg", b"yh")  # none of the operator's
    SHARE = 0.1

    @property
    def help(self) -> str:  # type: ignore[override]
        pairs = zip(self._numbers, self.PAIRS, strict=False)
        keys = ", ".join(f"{k.decode()[0]}/{k.decode()[1]} {p.names[i]}" for (p, i), k in pairs)
        return f"{keys}, x rest"

    def press(self, key: bytes) -> None:
        if key == b"x":
            self.rest()
            return
        for number, (pair, (part, i)) in enumerate(zip(self.PAIRS, self._numbers, strict=False)):
            if key in (pair[:1], pair[1:]):
                step = self.SHARE * (part.high[i] - part.low[i])
                value = self.goal[part.name][0, i] + (step if key == pair[:1] else -step)
                # Steps up and down meet at zero, as long as it is among them.
                self._change(number, 0.0 if abs(value) < 0.5 * step else float(value))


class Gamepad(_Numbers):
    """Sticks of a Linux joystick: up and left are positive. One that is gone asks for rest."""

    name = "gamepad"
    AXES = (1, 0, 3, 4)  # of the device, for the goal's numbers in order
    DEAD = 0.08  # share of the way that is still the middle
    EVENT = struct.Struct("<IhBB")  # ms, value, kind, number

    def __init__(self, device: str = "/dev/input/js0", start: Any = None) -> None:
        super().__init__(start)
        self._device, self._file = device, -1

    def open(self, parts: tuple[Part, ...]) -> None:
        super().open(parts)
        try:
            self._file = os.open(self._device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ValueError(f"source=gamepad: {self._device}: {error.strerror}") from None

    def poll(self, elapsed: float) -> None:
        for _ in range(64):
            if self._file < 0:
                return
            try:
                data = os.read(self._file, self.EVENT.size)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if len(data) < self.EVENT.size:
                self.close()
                self.rest()
                self.tell("the gamepad is gone, at rest")
                return
            _, value, kind, axis = self.EVENT.unpack(data)
            if kind & 0x7F == 2 and axis in self.AXES[: len(self._numbers)]:
                self._tilt(self.AXES.index(axis), -value / 32767)

    def _tilt(self, number: int, share: float) -> None:
        part, i = self._numbers[number]
        share = 0.0 if abs(share) < self.DEAD else share
        self._change(number, share * part.high[i] if share > 0 else -share * part.low[i])

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class File(Source):
    """A timeline: each row holds from its time on, s since the policy began.

    CSV with the columns `time` and names of numbers (`forward`, or `PART.NAME` where two parts
    have one), or JSON, a list of {"time": s, PART: value}. A part that a row leaves out stays.
    """

    name = "file"

    def __init__(self, path: str, start: Any = None) -> None:
        super().__init__(start)
        self._path = Path(path)

    def open(self, parts: tuple[Part, ...]) -> None:
        super().open(parts)
        try:
            if self._path.stat().st_size > MOST_FILE:
                raise ValueError(f"has more than {MOST_FILE} bytes")
            text = self._path.read_text()
            rows = _csv_rows(parts, text) if self._path.suffix == ".csv" else _json_rows(text)
            self._rows = [(time, _parts(parts, values)) for time, values in _in_time(rows)]
        except OSError as error:
            raise ValueError(f"source={self.name}: {self._path}: {error.strerror}") from None
        except (ValueError, RecursionError, csv.Error) as error:
            raise ValueError(f"source={self.name}: {self._path}: {error}") from None
        self._next = 0
        self.poll(0.0)

    def poll(self, elapsed: float) -> None:
        while self._next < len(self._rows) and self._rows[self._next][0] <= elapsed:
            self.goal = self.goal | self._rows[self._next][1]
            self._next += 1


def _in_time(rows: list[tuple[Any, dict[str, Any]]]) -> list[tuple[float, dict[str, Any]]]:
    """Rows with their times checked."""
    found: list[tuple[float, dict[str, Any]]] = []
    for number, (at, values) in enumerate(rows):
        good = isinstance(at, int | float) and 0 <= at < 1e9
        if not good or (found and at < found[-1][0]):
            raise ValueError(f"row {number}: time {at!r}, expected s that never fall")
        found.append((float(at), values))
    if not found:
        raise ValueError("holds no rows")
    return found


def _json_rows(text: str) -> list[tuple[Any, dict[str, Any]]]:
    rows = json.loads(text)
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise ValueError('expected a list of {"time": s, PART: value}')
    return [(r.get("time"), {k: v for k, v in r.items() if k != "time"}) for r in rows]


def _csv_rows(parts: tuple[Part, ...], text: str) -> list[tuple[Any, dict[str, Any]]]:
    lines = list(csv.reader(text.splitlines()))
    header = [name.strip() for name in (lines[0] if lines else [])]
    places = {}
    for part in parts:
        columns = [
            next((header.index(n) for n in (f"{part.name}.{name}", name) if n in header), None)
            for name in part.names
        ]
        if None not in columns:
            places[part.name] = part, columns
    unknown = set(header) - {"time"} - {header[c] for _, cs in places.values() for c in cs}
    if "time" not in header or unknown:
        names = ", ".join(name for part in parts for name in part.names)
        raise ValueError(f"columns {', '.join(header)}, expected time, {names}")
    rows = []
    for line in lines[1:]:
        if len(line) != len(header):
            raise ValueError(f"a row of {len(line)} values, expected {len(header)}")
        rows.append((
            float(line[header.index("time")]),
            {
                name: line[cs[0]] if part.is_text else [float(line[c]) for c in cs]
                for name, (part, cs) in places.items()
            },
        ))  # fmt: skip
    return rows


class Network(Source):
    """Datagrams (UDP) of JSON: {"sequence": 7, "goal": {PART: value}}; sequence must grow.

    Whoever can reach the port is obeyed, within what the policy was trained for: it is this
    machine alone unless another address is given. One that falls silent for `SILENT` s asks for
    rest, and may then begin again with any sequence.
    """

    name = "network"
    MOST, EACH, NESTED = 4096, 32, 8  # bytes of a datagram, of them at a time, JSON's depth
    SILENT = 0.5  # s

    def __init__(self, host: str = "127.0.0.1", port: int = 7240, start: Any = None) -> None:
        super().__init__(start)
        self.address = (host, port)
        self._socket: socket.socket | None = None
        self._sequence, self._heard = -1, -np.inf
        self.clock = time.monotonic

    def open(self, parts: tuple[Part, ...]) -> None:
        super().open(parts)
        try:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._socket.bind(self.address)
        except (OSError, OverflowError) as error:
            self.close()
            raise ValueError(f"source={self.name}: {self.address}: {error}") from None
        self.address = self._socket.getsockname()

    def poll(self, elapsed: float) -> None:
        for _ in range(self.EACH):
            if self._socket is None:
                break
            try:
                data = self._socket.recv(self.MOST + 1)
            except BlockingIOError:
                break
            except OSError as error:
                self.tell(errno.errorcode.get(error.errno or 0, str(error)))
                break
            self._take(data)
        if self._sequence >= 0 and self.clock() - self._heard > self.SILENT:
            self._sequence = -1
            self.rest()
            self.tell(f"silent for {self.SILENT} s, at rest")

    def _take(self, data: bytes) -> None:
        if len(data) > self.MOST or data.count(b"[") + data.count(b"{") > 10 * self.NESTED:
            self.tell("a datagram is too big")
            return
        try:
            content = json.loads(data.decode())
            sequence, goal = content["sequence"], content["goal"]
        except (ValueError, KeyError, TypeError, RecursionError):
            self.tell('a datagram is not {"sequence": n, "goal": {...}}')
            return
        if not isinstance(sequence, int) or isinstance(sequence, bool) or sequence < 0:
            self.tell("a datagram's sequence is no number")
        elif sequence > self._sequence and self.set(goal):
            self._sequence, self._heard = sequence, self.clock()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Text(Source):
    """Typed lines: `:` begins one, Enter ends it, and its text becomes the goal's."""

    name = "text"
    needs_keys = True
    help = ": types a line, Enter sends it; while it is typed, Escape and Ctrl-C are the e-stop"

    def open(self, parts: tuple[Part, ...]) -> None:
        super().open(parts)
        texts = [p.name for p in parts if p.is_text]
        if not texts:
            raise ValueError(f"source={self.name}: the policy's goal has no text")
        self._part, self._line = texts[0], bytearray()

    def press(self, key: bytes) -> None:
        if not self.typing:
            self.typing = key == b":"
            self._line.clear()
        elif key in (b"\r", b"\n"):
            self.typing = False
            text = self._line.decode(errors="replace").strip()
            if self.set({self._part: text}):
                self.say(f"asked for {text!r}")
        elif key in (b"\x7f", b"\b"):
            del self._line[-1:]
        elif key >= b" " and len(self._line) < 1000:
            self._line += key


SOURCES: dict[str, type[Source]] = {
    kind.name: kind for kind in (Fixed, Keyboard, Gamepad, File, Network, Text)
}


def make_source(text: str, start: Any = None) -> Source:
    """A source by name and, after a colon, what it needs: `keyboard`, `gamepad:/dev/input/js1`,
    `file:goal.csv`, `network:7240`, `network:HOST:7240`. Raises ValueError."""
    name, _, detail = text.partition(":")
    if name not in SOURCES:
        raise ValueError(f"source: {name!r}, expected one of {', '.join(SOURCES)}")
    if name == "file":
        if not detail:
            raise ValueError("source: file needs a path, as in source=file:goal.csv")
        return File(detail, start)
    if name == "gamepad" and detail:
        return Gamepad(detail, start)
    if name == "network" and detail:
        host, _, port = detail.rpartition(":")
        if not port.isdigit() or int(port) > 65535:
            raise ValueError(f"source: port {port!r}, expected 0 to 65535")
        return Network(host or "127.0.0.1", int(port), start)
    if detail:
        raise ValueError(f"source: {name} takes no {detail!r}")
    return SOURCES[name](start=start)
