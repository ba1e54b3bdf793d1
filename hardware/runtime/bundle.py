"""The policy bundle: a folder with `policy.onnx` and `bundle.json`, all a robot needs to act.

`bundle.json` says what the network expects and what its output means; both files carry SHA-256
checksums. Loading parses JSON and ONNX and nothing else: no pickle, no code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from motoric.control.limits import JointLimits
from motoric.hardware.interfaces.terms import TERMS, Term, observation_size
from motoric.hardware.robot import RobotSpec
from numpy.typing import NDArray

FORMAT = "motoric-bundle/1"
ORT_NAMES = {"float32": "float", "float64": "double"}  # where onnxruntime's differ from numpy's


class BundleError(ValueError):
    """A bundle that is missing, damaged, or not for this robot; one line names the difference."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of the network: shape without the batch axis."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class BundleSpec:
    """What a bundle says of its network.

    task: a task's name, or "gym:<id>"; robot: name of the robot, None for Gymnasium tasks
    rate: of the policy, Hz; None where the environment sets it
    inputs: one tensor "observation", or one per key of a Dict observation
    action: the output; action_low, action_high: its bounds where it is continuous
    terms: what "observation" is made of (robot tasks)
    joints, stand, action_scale, kp, kd, limits: joint target = stand + action_scale * action,
        held by the motors with kp and kd (robot tasks; rad, N m/rad, N m s/rad)
    command_low, command_high: range of velocity commands the policy was trained on
    gait_frequency: of the gait clock, Hz
    normalisation: of the observations, for reading; the network contains it
    training, versions: where the policy comes from
    """

    task: str
    inputs: tuple[Tensor, ...]
    action: Tensor
    robot: str | None = None
    rate: float | None = None
    action_low: tuple[float, ...] | None = None
    action_high: tuple[float, ...] | None = None
    terms: tuple[Term, ...] = ()
    joints: tuple[str, ...] = ()
    stand: tuple[float, ...] = ()
    action_scale: tuple[float, ...] = ()
    kp: tuple[float, ...] = ()
    kd: tuple[float, ...] = ()
    limits: JointLimits | None = None
    command_low: tuple[float, ...] = ()
    command_high: tuple[float, ...] = ()
    gait_frequency: float = 0.0
    normalisation: dict[str, Any] | None = None
    training: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def _plain(value: Any) -> Any:
    """Dataclasses and arrays as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_bundle(folder: Path, onnx: bytes, spec: BundleSpec) -> None:
    """Write a bundle in place of any older one; a crash leaves the old or the new, never a mix."""
    content = {"format": FORMAT, "policy_sha256": hashlib.sha256(onnx).hexdigest()} | _plain(spec)
    content["sha256"] = _digest(content)
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.new*"):  # cut off while it was written
        shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.new", dir=folder.parent))
    try:
        new.chmod(0o755)
        for name, data in (
            ("policy.onnx", onnx),
            ("bundle.json", json.dumps(content, indent=1).encode()),
        ):
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


def _backup(folder: Path) -> Path:
    """Where a bundle is while its successor takes its place."""
    return folder.with_name(f".{folder.name}.old")


def read_spec(folder: Path) -> tuple[BundleSpec, bytes]:
    """Spec and ONNX bytes of a bundle, checksums verified. Raises BundleError."""
    folder = Path(folder)
    if not folder.exists() and _backup(folder).exists():  # cut off between the two renames
        folder = _backup(folder)
    try:
        content = json.loads((folder / "bundle.json").read_text())
        onnx = (folder / "policy.onnx").read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"bundle {folder}: {Path(error.filename).name} is missing") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BundleError(f"bundle {folder}: bundle.json can't be read: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise BundleError(f"bundle {folder}: format {found!r}, expected {FORMAT!r}")
    stated = content.pop("sha256", None)
    if stated != _digest(content):
        raise BundleError(f"bundle {folder}: bundle.json does not match its checksum {stated}")
    digest = hashlib.sha256(onnx).hexdigest()
    if digest != content["policy_sha256"]:
        raise BundleError(
            f"bundle {folder}: policy.onnx has checksum {digest[:12]}, "
            f"expected {content['policy_sha256'][:12]}"
        )
    try:
        return _parse(content), onnx
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"bundle {folder}: bundle.json: {error}") from None


def _parse(content: dict[str, Any]) -> BundleSpec:
    values = {f.name: content[f.name] for f in dataclasses.fields(BundleSpec)}

    def tensor(t: dict[str, Any]) -> Tensor:
        return Tensor(t["name"], tuple(t["shape"]), t["dtype"])

    values["inputs"] = tuple(tensor(t) for t in values["inputs"])
    values["action"] = tensor(values["action"])
    values["terms"] = tuple(Term(**t) for t in values["terms"])
    if values["limits"] is not None:
        values["limits"] = JointLimits(**{k: np.array(v) for k, v in values["limits"].items()})
    for name in ("joints", "stand", "action_scale", "kp", "kd", "command_low", "command_high"):
        values[name] = tuple(values[name])
    for name in ("action_low", "action_high"):
        values[name] = None if values[name] is None else tuple(values[name])
    return BundleSpec(**values)


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


class Bundle:
    """A loaded policy: observation in, deterministic action out, one thread of onnxruntime."""

    def __init__(self, spec: BundleSpec, onnx: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.spec = spec
        try:
            self._session = onnxruntime.InferenceSession(
                onnx, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises its own unnamed types
            raise BundleError(f"policy.onnx can't be loaded: {error}") from None
        actual = {i.name: tuple(i.shape[1:]) for i in self._session.get_inputs()}
        wanted = {t.name: t.shape for t in spec.inputs}
        if actual != wanted:
            raise BundleError(f"policy.onnx takes {actual}, bundle.json says {wanted}")
        tensors = (*self._session.get_inputs(), *self._session.get_outputs())
        types = {i.name: i.type for i in tensors}
        for tensor in (*spec.inputs, spec.action):
            expected = f"tensor({ORT_NAMES.get(tensor.dtype, tensor.dtype)})"
            if types.get(tensor.name, expected) != expected:
                raise BundleError(
                    f"policy.onnx: {tensor.name} is {types[tensor.name]}, bundle.json says "
                    f"{tensor.dtype}"
                )
        outputs = {o.name: tuple(o.shape[1:]) for o in self._session.get_outputs()}
        if outputs.get(spec.action.name) != spec.action.shape:
            wanted_out = {spec.action.name: spec.action.shape}
            raise BundleError(f"policy.onnx gives {outputs}, bundle.json says {wanted_out}")
        if spec.terms:
            unknown = [t.name for t in spec.terms if t.name not in TERMS]
            if unknown:
                raise BundleError(
                    f"observation term {unknown[0]!r} is unknown, expected one of "
                    f"{', '.join(TERMS)}"
                )
            size = observation_size(spec.terms)
            if wanted.get("observation") != (size,):
                raise BundleError(
                    f"observation terms give {size} numbers, the network takes "
                    f"{wanted.get('observation')}"
                )

        # A single observation goes through memory bound once: a third less time per call.
        self._one = {t.name: np.zeros((1, *t.shape), t.dtype) for t in spec.inputs}
        self._action = np.zeros((1, *spec.action.shape), spec.action.dtype)
        self._binding = self._session.io_binding()
        for name, array in self._one.items():
            self._binding.bind_cpu_input(name, array)
        self._binding.bind_output(
            spec.action.name, "cpu", 0, self._action.dtype, self._action.shape,
            self._action.ctypes.data,
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path | str, robot: RobotSpec | None = None) -> Bundle:
        """Load and verify a bundle; with `robot`, also that it was made for it."""
        spec, onnx = read_spec(Path(folder))
        if robot is not None:
            check_robot(spec, robot)
        return cls(spec, onnx)

    def act(self, observation: NDArray | dict[str, NDArray]) -> NDArray:
        """Deterministic actions [N, A] for observations [N, ...] (a dict for Dict observations).

        For one thread at a time.
        """
        if not isinstance(observation, dict):
            observation = {self.spec.inputs[0].name: observation}
        feed, single = {}, True
        for tensor in self.spec.inputs:
            value = np.asarray(observation[tensor.name], dtype=tensor.dtype)
            if value.shape[1:] != tensor.shape:
                raise ValueError(
                    f"{tensor.name}: shape {value.shape}, expected (N, {tensor.shape})"
                )
            feed[tensor.name] = value
            single &= len(value) == 1
        if not single:
            return np.asarray(self._session.run([self.spec.action.name], feed)[0])
        for name, value in feed.items():
            self._one[name][:] = value
        self._session.run_with_iobinding(self._binding)
        return self._action.copy()
