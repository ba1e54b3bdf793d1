"""DDS on one network interface, through Eclipse Cyclone DDS (`pip install 'motoric[unitree]'`).

Samples are exchanged as serialised bytes, so that a fixed-size message costs microseconds; the
types are those of an SDK, for their names and for the match with the other side.
"""

from __future__ import annotations

import socket
import time
from typing import Any

# As Unitree's SDK configures it, without its trace file: one interface and no other.
CONFIG = """<CycloneDDS><Domain Id="any"><General><Interfaces>
<NetworkInterface name="{}" priority="default" multicast="default"/>
</Interfaces></General></Domain></CycloneDDS>"""


class DdsError(RuntimeError):
    """A domain that can't be joined on this interface."""


class Bytes:
    """A serialised sample, in the place of an IDL class."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.sample_info: Any = None

    @classmethod
    def deserialize(cls, data: bytes, **_: Any) -> Bytes:
        return cls(data)

    deserialize_key = deserialize

    def serialize(self, **_: Any) -> bytes:
        return self.data


class Writer:
    def __init__(self, participant: Any, topic: Any) -> None:
        from cyclonedds.pub import DataWriter

        self._writer = DataWriter(participant, topic)

    def write(self, data: bytes) -> None:
        self._writer.write(Bytes(data))

    @property
    def readers(self) -> int:
        """How many readers have been found."""
        return len(self._writer.get_matched_subscriptions())


class Reader:
    """depth: how many of the newest samples are kept until they are taken."""

    def __init__(self, participant: Any, topic: Any, depth: int, reliable: bool) -> None:
        from cyclonedds.qos import Policy, Qos
        from cyclonedds.sub import DataReader
        from cyclonedds.util import duration

        kind = (
            Policy.Reliability.Reliable(duration(milliseconds=100))
            if reliable
            else Policy.Reliability.BestEffort
        )
        self._depth = depth
        self._reader = DataReader(participant, topic, Qos(kind, Policy.History.KeepLast(depth)))

    def take(self) -> list[bytes]:
        """What has arrived since the last call, oldest first; doesn't wait."""
        return [s.data for s in self._reader.take(self._depth) if isinstance(s, Bytes)]

    @property
    def writers(self) -> int:
        """How many writers have been found."""
        return len(self._reader.get_matched_publications())


class Dds:
    """A participant of DDS domain `domain` on the network interface `interface`.

    Raises DdsError where there is no such interface, and ImportError without Cyclone DDS.
    """

    def __init__(self, interface: str, domain: int) -> None:
        names = [name for _, name in socket.if_nameindex()]
        if interface not in names:
            raise DdsError(
                f"interface: {interface!r} is not one of this machine, expected one of "
                f"{', '.join(names)}"
            )
        from cyclonedds.core import DDSException
        from cyclonedds.domain import Domain, DomainParticipant

        try:
            self._domain = Domain(domain, CONFIG.format(interface))
            self._participant = DomainParticipant(domain)
        except DDSException as error:
            raise DdsError(
                f"interface: {interface!r} can't be used for DDS domain {domain} "
                f"({error.msg or error}): is it up, and is the domain in use by this process?"
            ) from None
        self._topics: dict[str, Any] = {}

    def _topic(self, name: str, kind: Any) -> Any:
        from cyclonedds.topic import Topic

        if name not in self._topics:
            self._topics[name] = Topic(self._participant, name, kind)
            self._topics[name].data_type = Bytes
        return self._topics[name]

    def reader(self, topic: str, kind: Any, depth: int = 1, reliable: bool = False) -> Reader:
        """A reader of the IDL class `kind`."""
        return Reader(self._participant, self._topic(topic, kind), depth, reliable)

    def writer(self, topic: str, kind: Any) -> Writer:
        return Writer(self._participant, self._topic(topic, kind))

    def types(self, topic: str) -> set[str]:
        """Names of the types that are published on a topic, of whatever kind, as far as found."""
        from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication

        found = BuiltinDataReader(self._participant, BuiltinTopicDcpsPublication)
        time.sleep(0.1)
        return {
            str(sample.type_name)
            for sample in found.take(1000)
            if getattr(sample, "topic_name", None) == topic
        }
