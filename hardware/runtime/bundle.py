"""The policy bundle: a folder with `bundle.json` and ONNX networks, all a robot needs to act.

`bundle.json` says what the networks expect and what their outputs mean (`BundleSpec`); it carries
SHA-256 checksums of them and of itself. Loading parses JSON and ONNX and nothing else: no pickle,
no code. Sizes, nesting and kinds of files are bounded before anything is parsed.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from motoric.control import rotation
from motoric.control.limits import JointLimits
from motoric.hardware.fields import plain, read_fields
from motoric.hardware.goals import at_rest
from motoric.hardware.interfaces.base import Interface, Tensor
from motoric.hardware.measured import measured_by
from motoric.hardware.registry import INTERFACES
from motoric.hardware.robot import RobotSpec, RobotState
from motoric.hardware.runtime import onnx_files
from motoric.hardware.runtime.spec import BundleSpec, Chunk, Input, Network
from numpy.typing import NDArray

__all__ = [
    "Bundle", "BundleError", "BundleSpec", "Chunk", "Input", "Network", "Tensor", "check_robot",
    "find_bundle", "read_spec", "write_bundle",
]  # fmt: skip

FORMAT = "motoric-bundle/2"
MOST_JSON, MOST_ONNX = 2**22, 2**30  # bytes of a file
MOST_NESTED = 32  # objects and lists within one another in bundle.json
ORT_NAMES = {"float32": "float", "float64": "double"}  # where onnxruntime's differ from numpy's
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


class BundleError(ValueError):
    """A bundle that is missing, damaged, or not for this robot; one line names the difference."""


# -- files ------------------------------------------------------------------------------------


def write_bundle(folder: Path, files: Mapping[str, bytes], spec: BundleSpec) -> None:
    """Write a bundle in place of any older one; a crash leaves the old or the new, never a mix.

    files: the ONNX bytes of each network's file. Raises ValueError where they are not those of
    `spec`.
    """
    if set(files) != {n.file for n in spec.networks}:
        named = sorted(n.file for n in spec.networks)
        raise ValueError(f"bundle: files {sorted(files)}, the networks are in {named}")
    networks = tuple(
        dataclasses.replace(n, sha256=hashlib.sha256(files[n.file]).hexdigest())
        for n in spec.networks
    )
    content = {"format": FORMAT} | plain(dataclasses.replace(spec, networks=networks))
    content["sha256"] = _digest(content)
    text = json.dumps(content, indent=1, allow_nan=False)
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.new*"):  # cut off while it was written
        shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.new", dir=folder.parent))
    try:
        new.chmod(0o755)
        for name, data in (*files.items(), ("bundle.json", text.encode())):
            with open(new / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        raise
    old = _backup(folder)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old)
    else:
        new.rename(folder)


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _backup(folder: Path) -> Path:
    """Where a bundle is while its successor takes its place."""
    return folder.with_name(f".{folder.name}.old")


def find_bundle(run: str, which: str) -> tuple[Path, Path]:
    """The run folder and the bundle in it; `run` may be a bundle folder itself.

    Raises BundleError where there is none.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise BundleError(f"run: {run} is not a folder, see motoric list")
    if (folder / "bundle.json").exists():
        return folder, folder
    bundle = folder / "bundle" / which
    if not bundle.exists() and not _backup(bundle).exists():
        there = sorted(p.parent.name for p in folder.glob("bundle/[!.]*/bundle.json"))
        hint = f"it has {', '.join(there)}" if there else "none yet: motoric export makes one"
        raise BundleError(f"bundle: {folder} has no bundle {which!r}, {hint}")
    return folder, bundle


def read_spec(folder: Path) -> tuple[BundleSpec, dict[str, bytes]]:
    """Spec of a bundle and ONNX bytes by file, checksums verified. Raises BundleError."""
    folder = Path(folder)
    if not folder.exists() and _backup(folder).exists():  # cut off between the two renames
        folder = _backup(folder)
    try:
        spec = _parse(_read(folder / "bundle.json", MOST_JSON))
        files = {n.file: _read(folder / n.file, MOST_ONNX) for n in spec.networks}
        for network in spec.networks:
            found = hashlib.sha256(files[network.file]).hexdigest()
            if found != network.sha256:
                raise BundleError(
                    f"{network.file} has checksum {found[:12]}, expected {network.sha256[:12]}"
                )
            problem = onnx_files.problem(files[network.file])
            if problem is not None:
                raise BundleError(f"{network.file}: {problem}")
    except BundleError as error:
        raise BundleError(f"bundle {folder}: {error}") from None
    return spec, files


def _read(path: Path, most: int) -> bytes:
    """A regular file of at most `most` bytes; no link, no pipe is opened."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(number, "rb") as file:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise BundleError(f"{path.name} is not a regular file")
            data = file.read(most + 1)
    except FileNotFoundError:
        raise BundleError(f"{path.name} is missing") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BundleError(f"{path.name} is not a regular file") from None
        raise BundleError(f"{path.name} can't be read: {error.strerror}") from None
    if len(data) > most:
        raise BundleError(f"{path.name} has more than {most} bytes")
    return data


def _parse(text: bytes) -> BundleSpec:
    depth = deepest = 0
    for match in _BRACKETS.finditer(text):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(match.group(), 0)
        deepest = max(deepest, depth)
    if deepest > MOST_NESTED:
        raise BundleError(f"bundle.json is nested more than {MOST_NESTED} deep")
    try:
        content = json.loads(text.decode(), parse_constant=_refuse)
    except ValueError as error:
        raise BundleError(f"bundle.json can't be read: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise BundleError(f"format {str(found)[:40]!r}, expected {FORMAT!r}")
    stated = content.pop("sha256", None)
    if stated != _digest(content):
        raise BundleError(f"bundle.json does not match its checksum {str(stated)[:64]!r}")
    del content["format"]
    try:
        return read_fields(BundleSpec, content)
    except ValueError as error:
        raise BundleError(f"bundle.json: {error}") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


# -- the robot it is for ----------------------------------------------------------------------


def check_robot(spec: BundleSpec, robot: RobotSpec) -> None:
    """Raise BundleError unless the bundle was made for this robot: name, joints, limits, gains."""
    if spec.robot != robot.name:
        raise BundleError(f"bundle is for robot {spec.robot!r}, expected {robot.name!r}")
    if spec.joints != robot.joints:
        pairs = zip(spec.joints, robot.joints, strict=False)
        first = next((pair for pair in pairs if pair[0] != pair[1]), None)
        detail = f"{first[0]!r}, expected {first[1]!r}" if first else f"{len(spec.joints)} joints"
        raise BundleError(f"bundle joints differ: {detail}")
    if spec.limits is None:
        raise BundleError("bundle has no joint limits")
    for limit in dataclasses.fields(JointLimits):
        ours, theirs = getattr(robot.limits, limit.name), getattr(spec.limits, limit.name)
        if not np.allclose(ours, theirs, rtol=1e-6):
            joint = robot.joints[int(np.argmax(np.abs(ours - theirs)))]
            raise BundleError(f"bundle limit {limit.name!r} differs at {joint}")
    for name, ours in (("kp", robot.kp), ("kd", robot.kd), ("stand", robot.stand)):
        if not np.allclose(ours, getattr(spec, name), rtol=1e-6):
            raise BundleError(f"bundle {name} differs from the robot's")


def interface_of(spec: BundleSpec, robot: RobotSpec) -> Interface:
    """The bundle's interface to a robot; what it gives is what the policy takes.

    Raises BundleError for a bundle that has none, and for what does not fit.
    """
    if spec.interface is None or spec.rate is None:
        raise BundleError(f"bundle: {spec.task} has no interface to a robot")
    name = spec.interface["name"]
    try:
        kind = INTERFACES.find(name)
        interface: Interface = kind.make(robot, spec.rate, spec.interface["parameters"])
        _try(interface, spec)
    except Exception as error:  # it may be anyone's
        raise BundleError(f"bundle interface {name!r}: {str(error).split(chr(10))[0]}") from None
    return interface


def _try(interface: Interface, spec: BundleSpec) -> None:
    """Observe and command once, standing. Raises ValueError for what the networks don't take."""
    robot = interface.robot
    sensors = {s.name: np.zeros(s.shape, s.dtype) for s in robot.sensors}
    for name in interface.sensors:
        if name not in sensors:
            raise ValueError(f"{robot.name} has no sensor {name!r}")
    zero = np.zeros(len(robot.joints))
    state = RobotState(
        0.0, 0, robot.stand, zero, zero, rotation.IDENTITY, np.zeros(3), sensors=sensors
    )
    measured, goal = measured_by(state, 0.0), at_rest(interface.goals, 1)
    memory = interface.begin(1)
    given = interface.observe(measured, goal, memory)
    for tensor in spec.observations:
        value = given.get(tensor.name)
        if value is None or (value.shape[1:], str(value.dtype)) != (tensor.shape, tensor.dtype):
            found = "not given" if value is None else f"{value.dtype}{value.shape[1:]}"
            raise ValueError(
                f"{tensor.name} is {found}, the network takes {tensor.dtype}{tensor.shape}"
            )
    low = interface.action_low
    if spec.action.shape != low.shape:
        raise ValueError(f"takes {low.shape}, the network gives {spec.action.shape}")
    command, _ = interface.command(np.clip(np.zeros((1, *low.shape)), low, interface.action_high),
                                   measured, goal, memory)  # fmt: skip
    if command.position.shape != (1, len(robot.joints)):
        raise ValueError(f"commands {command.position.shape[1:]}, expected {zero.shape}")


# -- networks ---------------------------------------------------------------------------------


class Bundle:
    """Loaded networks. Each is for one thread at a time and computes in that thread alone."""

    def __init__(self, spec: BundleSpec, files: Mapping[str, bytes]) -> None:
        self.spec = spec
        self._sessions = {n.name: Session(n, files[n.file]) for n in spec.networks}

    @classmethod
    def load(cls, folder: Path | str, robot: RobotSpec | None = None) -> Bundle:
        """Load and verify a bundle; with `robot`, also that it was made for it."""
        spec, files = read_spec(Path(folder))
        if robot is not None:
            check_robot(spec, robot)
            interface_of(spec, robot)
        return cls(spec, files)

    def run(self, network: str, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs [N, ...] of a network by name, for all of its inputs [N, ...]."""
        return self._sessions[network].run(feed)


class Session:
    """One network in onnxruntime."""

    def __init__(self, network: Network, onnx: bytes) -> None:
        import onnxruntime

        self.network, file = network, network.file
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            self._session = onnxruntime.InferenceSession(
                onnx, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises its own unnamed types
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BundleError(f"{file} can't be loaded: {line}") from None
        takes, gives = self._session.get_inputs(), self._session.get_outputs()
        actual, wanted = ({t.name: tuple(t.shape[1:]) for t in takes}, _shapes(network.inputs))
        if actual != wanted:
            raise BundleError(f"{file} takes {actual}, bundle.json says {wanted}")
        actual, wanted = {t.name: tuple(t.shape[1:]) for t in gives}, _shapes(network.outputs)
        if {name: actual.get(name) for name in wanted} != wanted:
            raise BundleError(f"{file} gives {actual}, bundle.json says {wanted}")
        types = {t.name: t.type for t in (*takes, *gives)}
        for tensor in (*network.inputs, *network.outputs):
            if types[tensor.name] != f"tensor({ORT_NAMES.get(tensor.dtype, tensor.dtype)})":
                raise BundleError(
                    f"{file}: {tensor.name} is {types[tensor.name]}, bundle.json says "
                    f"{tensor.dtype}"
                )
        self._names = [t.name for t in network.outputs]
        self._inputs = [(t.name, t.shape, np.dtype(t.dtype)) for t in network.inputs]

        # A single row goes through memory bound once: a third less time per call.
        self._one = {t.name: np.zeros((1, *t.shape), t.dtype) for t in network.inputs}
        self._out = {t.name: np.zeros((1, *t.shape), t.dtype) for t in network.outputs}
        self._binding = self._session.io_binding()
        for name, array in self._one.items():
            self._binding.bind_cpu_input(name, array)
        for name, array in self._out.items():
            self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Raises ValueError for a shape that is not the network's."""
        rows, values = None, {}
        for name, shape, dtype in self._inputs:
            value = np.asarray(feed[name], dtype)
            if value.shape[1:] != shape or (rows is not None and len(value) != rows):
                raise ValueError(f"{name}: shape {value.shape}, expected (N, {shape})")
            values[name], rows = value, len(value)
        if rows != 1:
            found = self._session.run(self._names, values)
            return {n: np.asarray(v) for n, v in zip(self._names, found, strict=True)}
        for name, value in values.items():
            self._one[name][:] = value
        self._session.run_with_iobinding(self._binding)
        return {name: array.copy() for name, array in self._out.items()}


def _shapes(tensors: tuple[Tensor, ...]) -> dict[str, tuple[int, ...]]:
    return {t.name: t.shape for t in tensors}
