"""The log of a deployment: MCAP with JSON messages, readable by Foxglove and by `read_log`.

/state, /command and /status each hold one message per tick of the control loop, /wish and /policy
one per action, /goal one whenever it changes, /timing one at the end. Chunks are written every
second, so a process that is killed leaves all but its last one.
"""

from __future__ import annotations

import contextlib
import json
import queue
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from mcap.reader import NonSeekingReader
from mcap.writer import CompressionType, Writer
from motoric.control.command import QUANTITIES, MotorCommand
from motoric.hardware.robot import Array, RobotState
from numpy.typing import NDArray

CHUNK = 128 * 1024  # bytes
WAITING = 30_000  # ticks held in memory for a slow disk: a minute at 500 Hz
NOT_FINITE = re.compile(r"NaN|-?Infinity")
MOST = 1024  # numbers of an array; of a larger one, an image, only shape and type are written
TOPICS = {
    "/state": "measured: joints rad, rad/s, N m; base in SI units, quaternion (w, x, y, z); time "
    "and sequence are the robot's own",
    "/wish": "of the policy, before the filters: rad, rad/s, N m/rad, N m s/rad, N m",
    "/command": "sent to the motors: rad, rad/s, N m/rad, N m s/rad, N m",
    "/policy": "observation (with the first action of an inference), action, seconds it took "
    "(null: late), and how many periods ago it was observed",
    "/goal": "what the policy is asked for from now on, by part, and the source it comes from",
    "/status": "mode of the supervisor, its reason, lateness of the tick in s",
    "/timing": "lateness of the loop, time of the policy and of its ticks: percentiles in ms, "
    "and how many were below each of below_s and not below the one before",
}


class LogError(ValueError):
    """A log that is missing, damaged from the start, or not one of ours."""


class LogWriter:
    """Writes from a thread of its own, so that a slow disk never delays the control loop.

    A disk error, or a disk too slow for a minute, ends the log, not the deployment: `error` says
    what happened. every: s between two chunks, the most that is lost when the process is killed.
    """

    def __init__(self, path: Path, metadata: dict[str, str], every: float = 1.0) -> None:
        try:
            self._file: BinaryIO = open(path, "xb")  # noqa: SIM115
        except OSError as error:
            raise LogError(f"log {path}: {error.strerror}") from None
        self.error: str | None = None
        self._every = every
        self._queue: queue.SimpleQueue[tuple[float, dict[str, Any]] | None] = queue.SimpleQueue()
        self._offset = time.time() - time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(metadata,), daemon=True)
        self._thread.start()

    def tick(
        self,
        now: float,
        tick: int,
        state: RobotState | None,
        sent: MotorCommand,
        policy: dict[str, Any] | None,
        status: dict[str, Any],
        *,
        wish: MotorCommand | None = None,
        goal: dict[str, Any] | None = None,
    ) -> None:
        """One tick of the loop at `now`, s on the monotonic clock. Returns at once.

        What is given must not be changed afterwards.
        """
        messages = {
            "tick": tick, "/state": state, "/wish": wish, "/command": sent, "/policy": policy,
            "/goal": goal, "/status": status,
        }  # fmt: skip
        self._put(now, messages)

    def timing(self, content: dict[str, Any]) -> None:
        """What the whole deployment took, at its end."""
        self._put(time.monotonic(), {"tick": -1, "/timing": content})

    def _put(self, now: float, messages: dict[str, Any]) -> None:
        if self.error is None:
            if self._queue.qsize() < WAITING:
                self._queue.put((now, messages))
            else:
                self.error = f"log: the disk is too slow, {WAITING} ticks are waiting"

    def close(self) -> None:
        """Finish the file. Safe to call more than once."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(10.0)
            if self._thread.is_alive():
                self.error = self.error or "log: the disk takes nothing"

    def _run(self, metadata: dict[str, str]) -> None:
        try:
            writer = Writer(self._file, chunk_size=CHUNK, compression=CompressionType.ZSTD)
            writer.start(profile="", library="motoric")
            writer.add_metadata("motoric", metadata)
            channels = {}
            for topic, text in TOPICS.items():
                schema = json.dumps({"type": "object", "title": topic[1:], "description": text})
                identity = writer.register_schema(topic[1:], "jsonschema", schema.encode())
                channels[topic] = writer.register_channel(topic, "json", identity)
            flushed = time.monotonic()
            while (item := self._queue.get()) is not None:
                now, messages = item
                stamp = int((now + self._offset) * 1e9)
                tick = messages.pop("tick")
                for topic, content in messages.items():
                    if content is not None:
                        writer.add_message(channels[topic], stamp, _json(tick, content), stamp)
                if now - flushed >= self._every:
                    writer.flush()
                    flushed = now
            writer.finish()
        except OSError as error:
            self.error = f"log: {error.strerror or error}"
        finally:
            with contextlib.suppress(OSError):  # what the full disk did not take
                self._file.close()


def _json(tick: int, content: Any) -> bytes:
    """A message. JSON has no NaN: what was not measured is null."""
    values = content if isinstance(content, dict) else vars(content)
    text = json.dumps({"tick": tick, **values}, default=_plain)
    texts = "reason" in values or "source" in values  # of people: they may say NaN
    if ("NaN" in text or "Infinity" in text) and not texts:
        text = NOT_FINITE.sub("null", text)
    return text.encode()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.size > MOST:
        return {"shape": value.shape, "dtype": str(value.dtype)}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(type(value).__name__)


@dataclass(frozen=True)
class Commands:
    """Motor commands of T ticks, [T, J] each; NaN in ticks without one."""

    position: Array
    velocity: Array
    kp: Array
    kd: Array
    torque: Array


@dataclass(frozen=True)
class Log:
    """A deployment of T ticks. States are NaN in ticks when none came.

    times [T], s from the first; position, velocity, torque [T, J] measured; orientation [T, 4];
    angular_velocity [T, 3]; base_velocity [T, 3], base_height [T] (NaN where not measured)
    robot_time [T], s, and sequence [T]: the robot's own clock and count
    wish: of the policy; command: what was sent in its place
    status, reason [T]
    goal: what was asked for, by part [T, k], NaN in ticks before the policy acts; texts [T]
    source [T]: of the goal, "" before
    metadata: robot, task, rate, ...; timing: as `LogWriter.timing` got it, None where it is missing
    """

    robot: str
    times: Array
    position: Array
    velocity: Array
    torque: Array
    orientation: Array
    angular_velocity: Array
    base_velocity: Array
    base_height: Array
    robot_time: Array
    sequence: Array
    wish: Commands
    command: Commands
    status: list[str]
    reason: list[str]
    goal: dict[str, NDArray[Any]]
    source: list[str]
    metadata: dict[str, str]
    timing: dict[str, Any] | None


def read_log(path: Path | str) -> Log:
    """Read a log; one that was cut off is read up to there. Raises LogError."""
    path = Path(path)
    found: dict[str, dict[int, dict[str, Any]]] = {topic: {} for topic in TOPICS}
    stamps: dict[int, int] = {}
    metadata: dict[str, str] = {}
    timing: dict[str, Any] | None = None
    try:
        with open(path, "rb") as file:
            try:
                reader = NonSeekingReader(file)
                for _, channel, message in reader.iter_messages(log_time_order=False):
                    content = json.loads(message.data)
                    if channel.topic == "/timing":
                        timing = content
                    elif channel.topic in found:
                        found[channel.topic][content["tick"]] = content
                        stamps[content["tick"]] = message.log_time
            except Exception as error:  # cut off or damaged: parsers raise what they will
                if not stamps:
                    raise LogError(f"log {path}: not a log of motoric") from error
        with open(path, "rb") as file:
            metadata = _metadata(file)
    except OSError as error:
        raise LogError(f"log {path}: {error.strerror}") from None
    ticks = [t for t in sorted(found["/status"]) if t in found["/command"]]
    if not found["/state"] or not ticks:
        raise LogError(f"log {path}: holds no states")
    like = next(iter(found["/state"].values()))

    def series(topic: str, key: str) -> Array:
        none = np.full_like(np.asarray(like.get(key, like["position"]), np.float64), np.nan)
        return np.array([found[topic].get(t, {}).get(key, none) for t in ticks], np.float64)

    def commands(topic: str) -> Commands:
        return Commands(*(series(topic, quantity) for quantity in QUANTITIES))

    goal, source = _goals(found["/goal"], ticks, [found["/status"][t]["mode"] for t in ticks])
    return Log(
        robot=metadata.get("robot", ""),
        times=np.array([(stamps[t] - stamps[ticks[0]]) * 1e-9 for t in ticks]),
        position=series("/state", "position"),
        velocity=series("/state", "velocity"),
        torque=series("/state", "torque"),
        orientation=series("/state", "orientation"),
        angular_velocity=series("/state", "angular_velocity"),
        base_velocity=series("/state", "base_velocity"),
        base_height=series("/state", "base_height"),
        robot_time=series("/state", "time"),
        sequence=series("/state", "sequence"),
        wish=commands("/wish"),
        command=commands("/command"),
        status=[found["/status"][t]["mode"] for t in ticks],
        reason=[found["/status"][t]["reason"] for t in ticks],
        goal=goal,
        source=source,
        metadata=metadata,
        timing=timing,
    )


def _goals(
    found: dict[int, dict[str, Any]], ticks: list[int], modes: list[str]
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The goal of every tick by part, and its source: each holds until the next, while active."""
    first = next(iter(found.values()), {"values": {}})["values"]
    goal: dict[str, NDArray[Any]] = {
        name: np.full(len(ticks), "", object) if isinstance(value, str)
        else np.full((len(ticks), len(value)), np.nan)
        for name, value in first.items()
    }  # fmt: skip
    source, present = [""] * len(ticks), None
    for i, (tick, mode) in enumerate(zip(ticks, modes, strict=True)):
        present = found.get(tick, present)
        if present is not None and mode == "active":
            source[i] = present["source"]
            for name, values in goal.items():
                values[i] = present["values"][name]
    return goal, source


def _metadata(file: BinaryIO) -> dict[str, str]:
    """Our metadata record, the first of the file."""
    from mcap.records import Metadata
    from mcap.stream_reader import StreamReader

    try:
        for record in StreamReader(file, skip_magic=False).records:
            if isinstance(record, Metadata) and record.name == "motoric":
                return dict(record.metadata)
    except Exception:  # cut off before it
        pass
    return {}
