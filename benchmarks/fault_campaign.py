"""Faults on purpose while a policy walks, judged on the robot's side: does each one end safe?

    python benchmarks/fault_campaign.py run BUNDLE [RUNS]   # every fault on every robot; an hour
    python benchmarks/fault_campaign.py run BUNDLE RUNS "NaN go2"   # some of them, to look at
    python benchmarks/fault_campaign.py report              # the table in docs/safety.md

The robots are simulated, everything between policy and motors is what a user runs: `motoric deploy`
on sim_go2 (TCP); on go2 against `motoric simulate` (Unitree's DDS topics); on remote_go2 against
`motoric serve`, through a UDP proxy that spoils the network. The verdict comes from the simulated
robot's own record of what its motors did in every time step (`hardware/simulated/recording.py`),
not from what the deployment says of itself: that only adds the exit code and the reason.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from mcap.exceptions import EndOfFile
from mcap.records import Channel, Message
from mcap.stream_reader import StreamReader
from motoric.control.limits import JointLimits
from motoric.hardware.specs.go2 import GO2
from page import write_table
from proxy import Proxy

ROOT = Path(__file__).resolve().parent.parent

TABLE = ROOT / "docs" / "benchmarks" / "fault_campaign.csv"
DAMPED = 0.1  # s, of the robot's own watchdog, of the link, of the supervisor
SUNK, SETTLED = 0.8, 1.5  # s without stiffness after which it must be down, and lie still
FALLS = 0.3  # s for which it must be damped before the motors may be off
UP, LIES, FALLEN = 0.24, 0.2, 0.18  # m, height of the base
START_SECONDS = 60.0  # for all processes to start and the robot to stand
DOMAIN = 1 + os.getpid() % 98  # of DDS


# ---------------------------------------------------------------------------------------------
# What the robot's motors did
# ---------------------------------------------------------------------------------------------


class Record:
    """A simulated robot's record, read while it is being written.

    After `read`, columns of T steps: at, s (the clock of `time.time`); mode, reason; position,
    velocity, torque, target, kp, kd, offset [T, J]; height, upright, speed [T]
    """

    def __init__(self, path: Path) -> None:
        self._path, self._next = path, 8  # behind the magic
        self._topics: dict[int, str] = {}
        self._steps: dict[int, dict[str, Any]] = {}
        self.rows: list[dict[str, Any]] = []  # complete ones

    def read(self) -> None:
        """Take what has been added since."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._next)
                data = file.read()
        except FileNotFoundError:
            return
        end = 0  # of the last whole record: an opcode, the length of what follows, that
        while end + 9 <= len(data):
            length = int.from_bytes(data[end + 1 : end + 9], "little")
            if end + 9 + length > len(data):
                break
            end += 9 + length
        self._next += end
        with contextlib.suppress(EndOfFile):
            for record in StreamReader(io.BytesIO(data[:end]), skip_magic=True).records:
                if isinstance(record, Channel):
                    self._topics[record.id] = record.topic
                elif isinstance(record, Message):
                    self._take(record)

    def _take(self, message: Message) -> None:
        content = json.loads(message.data)
        step = self._steps.setdefault(content["tick"], {"at": message.log_time * 1e-9})
        step[self._topics[message.channel_id]] = content
        if len(step) == 4:
            self.rows.append(self._steps.pop(content["tick"]))

    def column(self, topic: str, key: str) -> np.ndarray:
        return np.array([row[topic][key] for row in self.rows], np.float64)

    @property
    def at(self) -> np.ndarray:
        return np.array([row["at"] for row in self.rows])

    @property
    def obeyed(self) -> np.ndarray:
        """Steps with stiffness that a client asked for, not the robot's own motion service. [T]"""
        own = np.array([bool(row["/status"]["reason"]) for row in self.rows])
        return self.column("/command", "kp").any(axis=1) & ~own

    def standing_since(self) -> float | None:
        """Since when the newest step has been under full stiffness of a client, s."""
        for row in reversed(self.rows):
            stiff = max(row["/command"]["kp"]) > 0.9 * GO2.kp[0] and not row["/status"]["reason"]
            if not stiff:
                return row["at"] if row is not self.rows[-1] else None
        return self.rows[0]["at"] if self.rows else None


def upright(orientation: np.ndarray) -> np.ndarray:
    """Cosine of the tilt, of quaternions (w, x, y, z) [T, 4]."""
    return 1.0 - 2.0 * (orientation[:, 1] ** 2 + orientation[:, 2] ** 2)


# ---------------------------------------------------------------------------------------------
# A robot that walks
# ---------------------------------------------------------------------------------------------


class Failed(RuntimeError):
    """It did not come to the fault: nothing can be said."""


class Scene:
    """All processes of one deployment; their ids by role: policy, simulator, server.

    robot: sim_go2, go2, remote_go2, or remote_go2+go2: served from a robot on DDS
    wrong: how the policy goes wrong when the process gets SIGUSR1: late or nan; "": never
    small_disk: the log is on a file system of its own of 8 MB
    listen: to the commands on a DDS robot's wire; options: more of `motoric deploy`
    lossy: both sides of DDS lose this share of the packets they send, from the start
    """

    def __init__(
        self,
        folder: Path,
        bundle: Path,
        robot: str,
        duration: float,
        command: list[float],
        wrong: str = "",
        small_disk: bool = False,
        listen: bool = False,
        lossy: float = 0.0,
        options: tuple[str, ...] = (),
        domain: int = DOMAIN,
    ) -> None:
        self._motoric = [sys.executable, "-m", "motoric.scripts.cli"]
        if lossy:
            self._motoric = [sys.executable, str(Path(__file__)), "lossy", str(lossy)]
        self.folder, self.robot, self.command, self.domain = folder, robot, command, domain
        self.run = folder / "run"
        self.run.mkdir(parents=True)
        for name in ("bundle.json", "policy.onnx"):
            shutil.copy(bundle / name, self.run)
        (self.run / "logs").mkdir()
        self.record = Record(folder / "motors.mcap")
        self.pid: dict[str, int] = {}
        self.proxy: Proxy | None = None
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._terminal, inside = os.openpty()
        try:
            options = (*self._surroundings(robot), *options)
            if listen and "go2" in (robot, robot.partition("+")[2]):
                program = [str(Path(__file__)), "listen", str(self.domain)]
                self._start("listener", [sys.executable, *program])
            if wrong:
                program = [sys.executable, str(Path(__file__)), "deploy", wrong]
            else:
                program = [*self._motoric, "deploy"]
            arguments = [
                *program, f"run={self.run}", f"duration={duration}",
                f"goal={json.dumps(command).replace(' ', '')}", *options,
            ]  # fmt: skip
            if small_disk:
                arguments = [*own_disk(self.run / "logs"), *arguments]
            self._start("policy", arguments, inside)
        except BaseException:
            self.close()
            raise
        finally:
            os.close(inside)

    def _surroundings(self, robot: str) -> list[str]:
        """Start the robot's side; what `motoric deploy` is told of it."""
        record, motoric = self.folder / "motors.mcap", self._motoric
        dds = [f"robot.options.domain={self.domain}"]
        if robot == "sim_go2":
            return ["robot=sim_go2", f"robot.options.record={record}"]
        if robot in ("go2", "remote_go2+go2"):
            self._start("simulator", [*motoric, "simulate", "robot=go2", f"record={record}", *dds])
            self.said("simulator", "simulated go2")
        if robot == "go2":
            return ["robot=go2", "interface=lo", *dds]
        if robot == "remote_go2":
            served = ["robot=sim_go2", f"robot.options.record={record}"]
        else:
            served = ["robot=go2", "robot.options.interface=lo", *dds]
        self._start("server", [*motoric, "serve", "port=0", *served])
        port = int(re.findall(r"serving go2 on .*:(\d+)", self.said("server", "serving go2"))[0])
        proxy = self.proxy = Proxy(("127.0.0.1", port), seed=port)
        return ["robot=remote_go2", f"robot.options.port={proxy.port}"]

    def _start(self, role: str, arguments: list[str], stdin: int = subprocess.DEVNULL) -> None:
        with open(self.folder / f"{role}.txt", "wb") as said:
            self._processes[role] = subprocess.Popen(
                arguments, stdin=stdin, stdout=said, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self.pid[role] = self._processes[role].pid

    def said(self, role: str, words: str = "") -> str:
        """What a process has printed; with `words`, once it has said them."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            text = (self.folder / f"{role}.txt").read_text(errors="replace")
            if words in text:
                return text
            if time.monotonic() > deadline or self._processes[role].poll() is not None:
                raise Failed(f"{role} says {text.strip()[-200:]!r}")
            time.sleep(0.05)

    def wait_until_it_walks(self, seconds: float) -> None:
        """Return when the policy has acted for about `seconds` s."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.record.read()
            since = self.record.standing_since()
            # Full stiffness comes after half of the soft start, a second before the policy.
            newest = self.record.rows[-1] if self.record.rows else {}
            stiff_for = newest["at"] - since if since is not None else 0.0
            if stiff_for > 1.0 + seconds and newest["/state"]["base_height"] > UP:
                break
            if self._processes["policy"].poll() is not None:
                raise Failed(f"the policy ended: {why(self) or self.said('policy')[-200:]}")
            time.sleep(0.1)
        else:
            raise Failed("it never walked")
        if "simulator" not in self.pid:
            self.pid["simulator"] = child(self.pid["server" if self.proxy else "policy"])

    def type(self, key: bytes) -> None:
        os.write(self._terminal, key)

    def close_terminal(self) -> None:
        os.close(self._terminal)
        self._terminal = -1

    def fill_disk(self) -> None:
        """Of the log, as seen by the process that writes it."""
        if (self.run / "logs" / OWN).exists():  # no permission to mount: a limit in its place
            hard = resource.prlimit(self.pid["policy"], resource.RLIMIT_FSIZE)[1]
            resource.prlimit(self.pid["policy"], resource.RLIMIT_FSIZE, (0, hard))
            return
        seen = Path(f"/proc/{self.pid['policy']}/root{self.run / 'logs'}")
        with contextlib.suppress(OSError), open(seen / "filler", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def wait_for_policy(self, seconds: float) -> int | None:
        """Its exit code; None: it does not end."""
        try:
            return self._processes["policy"].wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> list[str]:
        """End what goes on by itself, then look: processes that should be gone and are not."""
        for role in ("server", "simulator", "listener"):
            if role in self._processes and self._processes[role].poll() is None:
                self._processes[role].send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._processes[role].wait(10.0)
        deadline = time.monotonic() + 5.0
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.record.read()
        return list(left.values())

    def _left(self) -> dict[int, str]:
        """Running processes of this scene: each names its folder, or is one we started."""
        found = {p.pid: r for r, p in self._processes.items() if p.poll() is None}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().decode(errors="replace").split("\0")
                if any(str(self.folder) in word for word in words):
                    found[int(path.parent.name)] = " ".join(words[:4])
        found.pop(os.getpid(), None)
        return found

    def close(self) -> None:
        for pid in self._left():
            for number in (signal.SIGCONT, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        for process in self._processes.values():
            process.wait()
        if self.proxy is not None:
            self.proxy.close()
        if self._terminal >= 0:
            self.close_terminal()


OWN = ".not_mounted"


def own_disk(folder: Path) -> list[str]:
    """What to put before a command so that `folder` is a small file system of its own to it."""
    for how in (["unshare", "-m"], ["unshare", "-r", "-m"]):
        with contextlib.suppress(OSError):
            mount = f"mount -t tmpfs -o size=8m none '{folder}'"
            if subprocess.run([*how, "sh", "-c", mount], capture_output=True).returncode == 0:
                return [*how, "sh", "-c", f'{mount} && exec "$@"', "sh"]
    (folder / OWN).touch()
    return []


def child(pid: int) -> int:
    """The simulator that a process has started."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            command = (path.parent / "cmdline").read_bytes()
            if parent == pid and b"motoric.hardware.simulated.server" in command:
                return int(path.parent.name)
    raise Failed("no simulator is running")


@contextlib.contextmanager
def scene(bundle: Path, robot: str, duration: float, **options: Any) -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="fault_campaign_") as folder:
        made = Scene(Path(folder), bundle, robot, duration, **options)
        try:
            yield made
        finally:
            made.close()


# ---------------------------------------------------------------------------------------------
# Faults
# ---------------------------------------------------------------------------------------------


def kill(role: str) -> Callable[[Scene], None]:
    return lambda scene: os.kill(scene.pid[role], signal.SIGKILL)


def pause(role: str, seconds: float = 0.2) -> Callable[[Scene], None]:
    def inject(scene: Scene) -> None:
        os.kill(scene.pid[role], signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(scene.pid[role], signal.SIGCONT)

    return inject


def spoil(**shares: float) -> Callable[[Scene], None]:
    def inject(scene: Scene) -> None:
        assert scene.proxy is not None
        for name, share in shares.items():
            setattr(scene.proxy, name, share)

    return inject


def stall(seconds: float) -> Callable[[Scene], None]:
    def inject(scene: Scene) -> None:
        assert scene.proxy is not None
        scene.proxy.stall(seconds)

    return inject


def misbehave(scene: Scene) -> None:
    os.kill(scene.pid["policy"], signal.SIGUSR1)


SAFE, ON = "safe", "went on"
ALL = ("sim_go2", "go2", "remote_go2")


@dataclass(frozen=True)
class Fault:
    """A fault, where it can happen, and what has to come of it.

    ends: which outcomes are right; within: s after the fault until the motors have to be without
    stiffness; after: s of walking that are watched where it goes on
    exits: with which code the deploying process has to end; -9: it was killed
    """

    name: str
    robots: tuple[str, ...]
    inject: Callable[[Scene], None]
    ends: tuple[str, ...] = (SAFE,)
    within: float = DAMPED + 0.1
    after: float = 3.0
    exits: int = 1
    wrong: str = ""
    small_disk: bool = False
    listen: bool = False
    lossy: float = 0.0


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("policy process killed", ALL, kill("policy"), exits=-9),
        Fault("policy process stopped for 200 ms", ALL, pause("policy")),
        Fault("policy 200 ms late", ALL, misbehave, wrong="late"),
        Fault("policy returns NaN", ALL, misbehave, wrong="nan"),
        Fault("simulator killed", ALL, kill("simulator"), listen=True),
        Fault("simulator stopped for 200 ms", ALL, pause("simulator"), within=0.2 + DAMPED),
        Fault("robot server killed", ("remote_go2+go2",), kill("server")),
        Fault("robot server stopped for 200 ms", ("remote_go2",), pause("server")),
        Fault(
            "10 % of packets lost", ("remote_go2",), spoil(drop=0.1), (ON, SAFE), within=10.5,
            after=10.0,
        ),
        Fault(
            "10 % of packets lost, from the start", ("go2",), lambda scene: None, (ON, SAFE),
            within=10.5, after=10.0, lossy=0.1,
        ),
        Fault("10 % of packets damaged", ("remote_go2",), spoil(corrupt=0.1), (ON,), exits=0),
        Fault("network stalls for 100 ms", ("remote_go2",), stall(0.1), (ON, SAFE)),
        Fault("network stalls for 300 ms", ("remote_go2",), stall(0.3)),
        Fault("network gone", ("remote_go2",), spoil(drop=1.0)),
        Fault(
            "disk full while logging", ALL, Scene.fill_disk, (ON,), exits=0, small_disk=True
        ),
        Fault("e-stop by key", ALL, lambda scene: scene.type(b" ")),
        Fault("terminal closed", ("sim_go2",), Scene.close_terminal),
    )
}  # fmt: skip


# ---------------------------------------------------------------------------------------------
# The verdict
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What came of one fault.

    outcome: safe, went on, or UNSAFE; problem: what was not as it must be, "" for nothing
    damped: s from the fault to the first step without stiffness after which none has any; nan
        where it went on
    torque, speed: the largest afterwards, as a share of the joint's limit
    exit: code of the deploying process; reason: of the stop, as the processes say
    """

    fault: str
    robot: str
    run: int
    outcome: str
    damped: float
    torque: float
    speed: float
    exit: int | None
    reason: str
    problem: str


def outside(record: Record, limits: JointLimits) -> str:
    """What reached the motors, or came of it, that must never: over the whole record."""
    stiff, target = record.obeyed, record.column("/command", "position")
    if not stiff.any():
        return "the motors never obeyed"
    for topic, key in (
        ("/command", "position"), ("/command", "kp"), ("/command", "kd"), ("/command", "torque"),
        ("/state", "position"), ("/state", "velocity"), ("/state", "torque"),
    ):  # fmt: skip
        if not np.isfinite(record.column(topic, key)).all():
            return f"{topic} {key} is not finite"
    beyond = np.maximum(limits.lower - target, target - limits.upper)[stiff].max()
    if beyond > 1e-5:  # float32 on the wire
        return f"a target {beyond:.3g} rad outside the limits"
    for key in ("kp", "kd"):
        if record.column("/command", key).min() < 0:
            return f"negative {key}"
    share = np.abs(record.column("/state", "torque") / limits.torque).max()
    if share > 1.0 + 1e-6:
        return f"torque at {share:.0%} of its limit"
    return ""


def judge(
    fault: Fault, scene: Scene, when: float, exit: int | None, left: list[str], run: int = 0,
    slack: float = 0.0,
) -> Verdict:  # fmt: skip
    """From the robot's record, and from what is left of the processes.

    when: of the fault, s by `time.time`; slack: s that a busy machine may add to a time limit
    """
    record, problems = scene.record, []
    at, stiff = record.at, record.obeyed
    after = at > when
    height, tilt = record.column("/state", "base_height"), record.column("/state", "orientation")
    problem = outside(record, GO2.limits)
    if problem:
        problems.append(problem)
    shares = [
        np.abs(record.column("/state", key) / limit)[after]
        for key, limit in (("torque", GO2.limits.torque), ("velocity", GO2.limits.velocity))
    ]
    torque, speed = (float(share.max()) if share.size else float("nan") for share in shares)
    if speed > 1.0:
        problems.append(f"a joint at {speed:.0%} of its speed limit")
    # Up to the first step that is not stiff any more: a robot that is stopped keeps its torque.
    step = int(np.flatnonzero(stiff)[-1]) if stiff.any() else 0
    last, gone = float(at[min(step + 1, len(at) - 1)]), fault.listen
    if "listener" in scene.pid:  # the robot can't say any more what it was told
        heard = [line.split() for line in scene.said("listener").splitlines()]
        if not any(stiff == "1" for _, stiff in heard):
            problems.append("no stiffness was ever heard on the wire")
        last = max((float(at) for at, stiff in heard if stiff == "1"), default=when)
    damped, said = last - when, scene.said("policy")
    went_on = exit == 0 and damped > fault.after
    walked = after & (at < when + fault.after)
    if went_on and not walked.any():
        outcome = ON
        problems.append("the deployment went on without a robot")
    elif went_on:
        outcome = ON
        if height[walked].min() < FALLEN or upright(tilt[walked]).min() < 0.5:
            problems.append("it fell")
        speeds = record.column("/state", "base_velocity")[walked]
        reached, wished = float(speeds[:, 0].mean()), scene.command[0]
        if reached < 0.5 * wished:
            problems.append(f"it moved at {reached:.2f} m/s, {wished:.2f} were asked for")
    else:
        outcome = SAFE
        if damped > fault.within + slack:
            problems.append(f"stiff for {damped:.3f} s after the fault")
        own = record.column("/state", "time")  # the robot's: on a busy machine it falls more slowly
        rest = float(own[-1] - own[min(step + 1, len(at) - 1)])
        modes = [row["/status"]["mode"] for row in record.rows]
        if not gone and "off" in [
            m for m, t in zip(modes, at, strict=True) if 0 < t - last < FALLS
        ]:
            problems.append("its motors were off while it fell")
        if not gone and rest > SUNK and height[-1] > LIES:
            problems.append(f"the base is {height[-1]:.2f} m high at the end")
        # Or when the motors went off: a limp leg that stood on edge may fall over any time later.
        joints = np.abs(record.column("/state", "velocity")).max(1)
        off = next((i for i, m in enumerate(modes) if at[i] > last and m == "off"), len(at))
        moving = float(min(joints[-1], joints[off - 1]))
        if not gone and rest > SETTLED and moving > 0.5:
            problems.append(f"a joint still moves at {moving:.1f} rad/s")
    if upright(tilt).min() < 0.5:
        problems.append("it tipped over")
    if outcome not in fault.ends:
        problems.append(f"it {outcome}" if outcome == ON else "it did not go on")
    wanted = 0 if outcome == ON else fault.exits or 1
    if exit != wanted:
        problems.append(f"the deploying process ended with {exit}, expected {wanted}")
    if fault.small_disk and outcome == ON and "log incomplete" not in said:
        problems.append("nobody says that the log is incomplete")
    problems += [f"left running: {name}" for name in left]
    reason = why(scene, ended=exit == 0)
    if fault.exits == 1 and outcome == SAFE and not reason:
        problems.append("no reason was given")
    if problems:
        outcome = "UNSAFE"
    unknown = went_on or (gone and "listener" not in scene.pid)
    damped = float("nan") if unknown else max(damped, 0.0)
    return Verdict(
        fault.name, scene.robot, run, outcome, damped, torque, speed, exit, reason,
        "; ".join(problems),
    )  # fmt: skip


def why(scene: Scene, ended: bool = False) -> str:
    """The reason of the end: the deployment's, or the robot server's where that was killed."""
    said = scene.said("policy")
    for pattern in (r"^  fault +(.*)$", r"^motoric deploy: (.*)$", r"^  log incomplete +(.*)$"):
        found = re.findall(pattern, said, re.M)
        if found:
            return found[-1]
    if "server" in scene.pid and not ended:
        damped = re.findall(r"^motors (damped: .*)$", scene.said("server"), re.M)
        return f"server: {damped[0]}" if damped else ""
    return ""


def try_fault(
    fault: Fault,
    robot: str,
    bundle: Path,
    command: list[float],
    run: int = 0,
    walk: float = 1.0,
    before: tuple[Fault, ...] = (),
    slack: float = 0.0,
    keep: Path | None = None,
    options: tuple[str, ...] = (),
    domain: int = DOMAIN,
) -> Verdict:
    """Walk for `walk` s, inject the fault, watch what comes of it.

    before: faults that must not end it, injected first, half a second each
    keep: where the files of a scene go whose verdict has a problem; options: of `motoric deploy`
    Raises Failed where it does not come to the fault.
    """
    every = (fault, *before)
    with scene(
        bundle, robot, walk + 0.5 * len(before) + fault.after + 0.7, command=command,
        wrong=fault.wrong, small_disk=any(f.small_disk for f in every), listen=fault.listen,
        lossy=fault.lossy, options=options, domain=domain,
    ) as made:  # fmt: skip
        made.wait_until_it_walks(walk)
        for first in before:
            first.inject(made)
            time.sleep(0.5)
        if before and made.wait_for_policy(0.0) is not None:
            raise Failed(f"one of the faults before ended it: {why(made)}")
        when = time.time()
        fault.inject(made)
        exit = made.wait_for_policy(fault.after + 20.0)
        left = max(0.0, when + SETTLED + 1.0 - time.time())
        time.sleep(left if {"server", "simulator"} & set(made._processes) else 0.0)
        running = made.end()
        walked = made.record.obeyed[made.record.at <= when]
        if not walked.any() or not walked[-1]:
            raise Failed(f"it had ended before: {why(made)}")
        verdict = judge(fault, made, when, exit, running, run, slack)
        if keep is not None and verdict.problem:
            shutil.copytree(made.folder, keep / f"{fault.name} {robot} {run}".replace(" ", "_"))
        return verdict


# ---------------------------------------------------------------------------------------------
# The campaign
# ---------------------------------------------------------------------------------------------


def campaign(bundle: Path, runs: int, only: str = "", keep: Path | None = None) -> None:
    """Every fault on every robot, `runs` times at different moments of the gait.

    What the table has is not run again: a campaign that was interrupted goes on.
    only: those whose name and robot contain this, printed and not written to the table
    """
    names = [item.name for item in fields(Verdict)]
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    done: set[tuple[str, ...]] = set()
    if TABLE.exists() and not only:
        with TABLE.open() as file:
            done = {(row["fault"], row["robot"], row["run"]) for row in csv.DictReader(file)}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leave nothing behind
    # A shell that runs this with & has it, and every process it starts, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(os.devnull if only else TABLE, "a", newline="") as file:
        writer = csv.writer(file)
        if not done:
            writer.writerow(names)
        for run, fault in itertools.product(range(runs), FAULTS.values()):
            for robot in fault.robots:
                which = f"{fault.name} {robot}"
                if only not in which or (fault.name, robot, str(run)) in done:
                    continue
                walk = np.random.default_rng([run, zlib.crc32(which.encode())]).uniform(0.7, 1.7)
                try:
                    verdict = try_fault(fault, robot, bundle, [0.5, 0.0, 0.0], run, walk, keep=keep)
                except Failed as error:
                    print(f"{which}: not injected: {error}", flush=True)
                    continue
                values = [getattr(verdict, name) for name in names]
                writer.writerow([f"{v:.4f}" if isinstance(v, float) else v for v in values])
                file.flush()
                print(*values, sep=" | ", flush=True)


def report() -> None:
    """Write the table into the page."""
    with TABLE.open() as file:
        rows = list(csv.DictReader(file))
    lines = [
        "| fault | robot | runs | outcome | damped after, median (worst) | torque | speed "
        "| reason |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for fault, robot in ((f.name, robot) for f in FAULTS.values() for robot in f.robots):
        chosen = [row for row in rows if (row["fault"], row["robot"]) == (fault, robot)]
        if not chosen:
            continue
        outcomes = [row["outcome"] for row in chosen]
        counts = ", ".join(f"{outcomes.count(o)} {o}" for o in dict.fromkeys(outcomes))
        times = np.array([float(row["damped"]) for row in chosen])
        times = 1e3 * times[np.isfinite(times)]
        torque, speed = (np.fmax.reduce([float(r[k]) for r in chosen]) for k in ("torque", "speed"))
        reasons = [re.sub(r"[\d.]+:\d+|\d+\.\d+", "…", row["reason"]) for row in chosen]
        common = max(set(reasons), key=reasons.count)
        lines.append(
            f"| {fault} | {robot} | {len(chosen)} | {counts} | "
            + (f"{np.median(times):.0f} ms ({times.max():.0f} ms)" if len(times) else "–")
            + f" | {_share(torque)} | {_share(speed)} | {f'`{common}`' if common else '–'} |"
        )
    write_table("safety.md", "table", lines)


def _share(value: float) -> str:
    return f"{value:.0%}" if np.isfinite(value) else "–"


def deploy(wrong: str, arguments: list[str]) -> int:
    """`motoric deploy`, with a policy that goes wrong once the process gets SIGUSR1."""
    from motoric.hardware.runtime.bundle import Bundle
    from motoric.scripts import cli
    from motoric.scripts import deploy as command

    asked = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: asked.set())

    class Wrong(Bundle):
        def run(self, network: str, feed: Any) -> Any:
            out = super().run(network, feed)
            if asked.is_set() and wrong == "nan":
                out = {name: value * np.nan for name, value in out.items()}
            elif asked.is_set():
                asked.clear()
                time.sleep(0.2)
            return out

    command.Bundle = Wrong
    return cli.main(["deploy", *arguments])


def lossy(share: float, arguments: list[str]) -> int:
    """`motoric …` where DDS loses this share of the packets it sends."""
    from motoric.hardware.unitree import dds
    from motoric.scripts import cli

    loss = f"<Internal><Test><XmitLossiness>{1000 * share:.0f}</XmitLossiness></Test></Internal>"
    dds.CONFIG = dds.CONFIG.replace("</General>", f"</General>{loss}")
    return cli.main(arguments)


def listen(domain: int) -> None:
    """Print time and stiffness (0 or 1) of commands on DDS, whenever that changes or is stiff."""
    from motoric.hardware.unitree.dds import Dds
    from motoric.hardware.unitree.robot import GO2_WIRE
    from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_

    dds = Dds("lo", domain)
    commands = dds.reader("rt/lowcmd", LowCmd_, depth=100)
    before = False
    while True:
        for data in commands.take():
            message = GO2_WIRE.family.command.decode(data)
            stiff = bool(message["motor_cmd"]["kp"].any())
            if stiff or before:
                print(f"{time.time():.4f} {int(stiff)}", flush=True)
            before = stiff
        time.sleep(0.001)


def main(arguments: list[str]) -> int | str:
    match arguments:
        case ["run", bundle]:
            campaign(Path(bundle), 5)
        case ["run", bundle, runs]:
            campaign(Path(bundle), int(runs))
        case ["run", bundle, runs, only]:
            campaign(Path(bundle), int(runs), only, Path(tempfile.mkdtemp()))
        case ["report"]:
            report()
        case ["listen", domain]:
            with contextlib.suppress(KeyboardInterrupt):
                listen(int(domain))
        case ["deploy", wrong, *rest]:
            return deploy(wrong, rest)
        case ["lossy", share, *rest]:
            return lossy(float(share), rest)
        case _:
            return str(__doc__)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
