"""What a bundle says of its networks, as typed data; everything is checked when it is made."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from motoric.control.limits import JointLimits
from motoric.hardware.interfaces.base import Tensor

SOURCES = ("observation", "memory", "network", "noise", "uniform")
FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.onnx")
NAME = re.compile(r"[A-Za-z0-9_.:/ -]{1,200}")
MOST_RATE = 1e4  # Hz
MOST_NETWORKS = 16
MOST_TENSORS = 256  # of one network
MOST_NUMBERS = 2**27  # in all tensors of one network, in one row
MOST_CHUNK = 1000  # actions


@dataclass(frozen=True)
class Input(Tensor):
    """An input of a network, and where it comes from.

    source: "observation": of that name, of the interface or environment
        "memory": the network's own output `feedback` of the call before, zeros at the beginning
        "network": `feedback` = "NETWORK.OUTPUT", the newest of a network named before
        "noise": normal, "uniform": between 0 and 1, drawn anew for each call
    """

    source: str = "observation"
    feedback: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source not in SOURCES:
            raise ValueError(f"source {self.source!r} of {self.name}, expected one of {SOURCES}")
        if bool(self.feedback) != (self.source in ("memory", "network")):
            raise ValueError(f"feedback {self.feedback!r} of {self.name}, a {self.source} input")
        if self.source in ("noise", "uniform") and not self.dtype.startswith("float"):
            raise ValueError(f"{self.name}: {self.source} of type {self.dtype}, expected floats")


@dataclass(frozen=True)
class Network:
    """One ONNX file. rate: how often it runs, Hz; None: once for each inference.

    sha256: of the file; `write_bundle` fills it in
    """

    name: str
    file: str
    inputs: tuple[Input, ...]
    outputs: tuple[Tensor, ...]
    rate: float | None = None
    sha256: str = ""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name) or "." in self.name:
            raise ValueError(f"name {self.name!r}, expected letters, digits and _")
        if not FILE.fullmatch(self.file):
            raise ValueError(f"file {self.file!r}, expected the name of an .onnx file beside it")
        if not 0 < len(self.inputs) <= MOST_TENSORS or not 0 < len(self.outputs) <= MOST_TENSORS:
            raise ValueError(f"{self.name}: expected 1 to {MOST_TENSORS} inputs and outputs")
        if sum(math.prod(t.shape) for t in (*self.inputs, *self.outputs)) > MOST_NUMBERS:
            raise ValueError(f"{self.name}: more than {MOST_NUMBERS} numbers in a row")
        for tensors in (self.inputs, self.outputs):
            _unique(f"{self.name}: tensor", [t.name for t in tensors])
        if self.rate is not None and not 0 < self.rate <= MOST_RATE:
            raise ValueError(f"rate {self.rate} of {self.name}, expected up to {MOST_RATE:g} Hz")
        outputs = {t.name: t for t in self.outputs}
        for tensor in self.inputs:
            if tensor.source == "memory":
                _same(tensor, outputs.get(tensor.feedback), self.name)


@dataclass(frozen=True)
class Chunk:
    """An action for each of `length` periods, of which `execute` are carried out before the next
    inference begins: action k is for the time of the observation + k / rate."""

    length: int
    execute: int

    def __post_init__(self) -> None:
        if not 1 <= self.execute <= self.length <= MOST_CHUNK:
            raise ValueError(
                f"length {self.length}, execute {self.execute}: expected 1 <= execute <= length "
                f"<= {MOST_CHUNK}"
            )


@dataclass(frozen=True)
class BundleSpec:
    """What a bundle says of its policy.

    task: a task's name, or a Gymnasium id; robot: name of the robot, None where there is none
    rate: of actions, Hz; None where the environment sets it
    networks: "policy" is the one that acts; it uses the others through its inputs' `feedback`,
        or they stand for themselves ("critic")
    action: the output of "policy" that is one action; [length, *shape] with a `chunk`
    action_low, action_high: its bounds, flat, where it is continuous
    interface: {"name", "parameters"}: what the observations are and what an action means
    joints, stand, kp, kd, limits: of the robot it was trained for: rad, N m/rad, N m s/rad
    normalisation: of the observations, for reading; the network contains it
    training, versions: where the policy comes from
    """

    task: str
    networks: tuple[Network, ...]
    action: Tensor
    robot: str | None = None
    rate: float | None = None
    action_low: tuple[float, ...] | None = None
    action_high: tuple[float, ...] | None = None
    chunk: Chunk | None = None
    interface: dict[str, Any] | None = None
    joints: tuple[str, ...] = ()
    stand: tuple[float, ...] = ()
    kp: tuple[float, ...] = ()
    kd: tuple[float, ...] = ()
    limits: JointLimits | None = None
    normalisation: dict[str, Any] | None = None
    training: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 < self.rate <= MOST_RATE:
            raise ValueError(f"rate: {self.rate}, expected more than 0 and up to {MOST_RATE:g} Hz")
        self._check_networks()
        size = math.prod(self.action.shape)
        for name in ("action_low", "action_high"):
            bound = getattr(self, name)
            if bound is not None and len(bound) != size:
                raise ValueError(f"{name}: {len(bound)} numbers, the action has {size}")
        if self.action_low is not None and self.action_high is not None:
            pairs = zip(self.action_low, self.action_high, strict=True)
            if not all(low <= high for low, high in pairs):
                raise ValueError("action_low: must not be above action_high")
        for name in ("stand", "kp", "kd"):
            if len(getattr(self, name)) != len(self.joints):
                raise ValueError(
                    f"{name}: {len(getattr(self, name))} numbers for {len(self.joints)} joints"
                )
        if self.limits is not None and len(self.limits.lower) != len(self.joints):
            raise ValueError(f"limits: {len(self.limits.lower)} for {len(self.joints)} joints")
        if self.interface is not None:
            kinds = {k: type(v) for k, v in self.interface.items()}
            if kinds != {"name": str, "parameters": dict}:
                raise ValueError("interface: expected its name and parameters")

    def _check_networks(self) -> None:
        if not 0 < len(self.networks) <= MOST_NETWORKS:
            raise ValueError(f"networks: {len(self.networks)}, expected 1 to {MOST_NETWORKS}")
        _unique("network", [n.name for n in self.networks])
        _unique("file", [n.file for n in self.networks])
        if "policy" not in {n.name for n in self.networks}:
            raise ValueError("networks: none is named 'policy'")
        found: dict[str, Tensor] = {}
        observations: dict[str, Input] = {}
        for network in self.networks:
            if network.rate is not None and self.rate is None:
                raise ValueError(f"network {network.name}: has a rate, the actions have none")
            for tensor in network.inputs:
                if tensor.source == "network":
                    _same(tensor, found.get(tensor.feedback), network.name)
                elif tensor.source == "observation":
                    _same(tensor, observations.setdefault(tensor.name, tensor), network.name)
            found |= {f"{network.name}.{t.name}": t for t in network.outputs}
        length = () if self.chunk is None else (self.chunk.length,)
        wanted = Tensor(self.action.name, (*length, *self.action.shape), self.action.dtype)
        _same(wanted, found.get(f"policy.{self.action.name}"), "policy")

    def network(self, name: str) -> Network:
        """Raises ValueError for a name that there isn't."""
        for network in self.networks:
            if network.name == name:
                return network
        names = ", ".join(n.name for n in self.networks)
        raise ValueError(f"network {name!r}: the bundle has {names}")

    @property
    def observations(self) -> tuple[Input, ...]:
        """What the policy sees: the observations among the inputs of all networks it uses."""
        tensors = (t for n in self.acting for t in n.inputs if t.source == "observation")
        return tuple({t.name: t for t in tensors}.values())

    @property
    def acting(self) -> tuple[Network, ...]:
        """The networks that have a part in an action, in the order in which they run."""
        needed = {"policy"}
        for network in reversed(self.networks):
            if network.name in needed:
                sources = (t.feedback for t in network.inputs if t.source == "network")
                needed |= {source.partition(".")[0] for source in sources}
        return tuple(n for n in self.networks if n.name in needed)


def _unique(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{what} {name!r}: named twice")


def _same(tensor: Tensor, other: Tensor | None, network: str) -> None:
    """Raise ValueError unless an input and what it comes from are of one shape and type."""
    if other is None:
        source = tensor.feedback if isinstance(tensor, Input) else tensor.name
        raise ValueError(f"network {network}: {tensor.name}: there is no output {source!r}")
    if (tensor.shape, tensor.dtype) != (other.shape, other.dtype):
        raise ValueError(
            f"network {network}: {tensor.name} is {tensor.dtype}{list(tensor.shape)}, expected "
            f"{other.dtype}{list(other.shape)} as {other.name}"
        )
