"""The wire format, byte for byte, and under damage."""

from __future__ import annotations

import dataclasses
import hashlib
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motoric.control.command import MotorCommand
from motoric.hardware.robot import RobotState, Sensor
from motoric.hardware.simulated import packets
from motoric.hardware.simulated.packets import Decoder, Packet, encode
from motoric.hardware.specs.go2 import GO2

STATE_BYTES = "bdb8433da33bbaafa21b7f818513bab5a12e39de751e0a2d602a1043922e5dda"
COMMAND_BYTES = "f171cbbe851a0ec211c7e63c1d90ba8be5a9ffdcff397359ec3feff2a88274dc"


def test_golden_bytes():
    """Laid out by hand: magic, version 2, kind 3, 2 bytes, sequence 7, time 1.5, CRC of these;
    payload, CRC."""
    golden = bytes.fromhex(
        "4d545243 02 03 02000000 07000000 000000000000f83f 1cb58a03 abcd 8c7ae419"
    )
    assert encode(Packet(3, 7, 1.5, b"\xab\xcd")) == golden
    assert Decoder().feed(golden) == [Packet(3, 7, 1.5, b"\xab\xcd")]


def state() -> RobotState:
    rng = np.random.default_rng(0)
    return RobotState(
        1.25, 9, *(rng.normal(size=12) for _ in range(3)), rng.normal(size=4),
        rng.normal(size=3), rng.normal(size=3), 0.3,
    )  # fmt: skip


def read(reader: packets.StateReader, data: bytes) -> RobotState | None:
    (packet,) = Decoder().feed(data)
    assert packet.kind == packets.STATE
    return reader.read(packet.time, packet.sequence, packet.payload)


def test_state_and_command_come_back():
    sent = state()
    data = packets.StateWriter(GO2).payload(sent)
    assert hashlib.sha256(data).hexdigest() == STATE_BYTES, "as version 1 had it"
    back = read(packets.StateReader(GO2), packets.StateWriter(GO2).encode(sent))
    for name, value in vars(sent).items():
        np.testing.assert_array_equal(getattr(back, name), value, err_msg=name)
    order = MotorCommand(*np.random.default_rng(1).normal(size=(5, 12)), time=2.5, sequence=3)
    data = packets.command_payload(order)
    assert hashlib.sha256(data).hexdigest() == COMMAND_BYTES, "as version 1 had it"
    (packet,) = Decoder().feed(packets.encode_command(order))
    back = packets.decode_command(packet, 12)
    for name, value in vars(order).items():
        np.testing.assert_array_equal(getattr(back, name), value, err_msg=name)


def test_a_state_that_does_not_fit_is_refused():
    data = packets.StateWriter(GO2).payload(state())
    reader = packets.StateReader(GO2)
    for wrong in (data[:-8], data[:-1], data + bytes(8), b""):
        with pytest.raises(ValueError, match=f"state of {len(wrong)} bytes, expected {len(data)}"):
            reader.read(0.0, 1, wrong)


# -- sensors ------------------------------------------------------------------------------------

SENSING = dataclasses.replace(
    GO2,
    sensors=(
        Sensor("wrist", (96, 96, 3), "uint8"), Sensor("force", (3,), "float64", "N"),
        Sensor("contact", (2, 2), "int32"),
    ),
)  # fmt: skip


def sensed(seed: int, **same) -> RobotState:
    rng, found = np.random.default_rng(seed), state()
    found.sensors = {
        "wrist": rng.integers(0, 256, (96, 96, 3)).astype(np.uint8), "force": rng.normal(size=3),
        "contact": rng.integers(-9, 9, (2, 2)).astype(np.int32),
    } | same  # fmt: skip
    return found


def same(a: RobotState | None, b: RobotState) -> None:
    assert a is not None
    for name, value in b.sensors.items():
        assert a.sensors[name].dtype == value.dtype
        assert not a.sensors[name].flags.writeable
        np.testing.assert_array_equal(a.sensors[name], value)


def test_sensors_come_back_and_an_image_is_sent_once():
    writer, reader = packets.StateWriter(SENSING), packets.StateReader(SENSING)
    first = sensed(0)
    data = writer.encode(first)
    assert len(data) > 96 * 96 * 3
    same(read(reader, data), first)
    second = sensed(1, wrist=first.sensors["wrist"])
    data = writer.encode(second)
    assert len(data) < 600
    same(read(reader, data), second)
    third = sensed(2)
    same(read(reader, writer.encode(third)), third)


def test_who_missed_an_image_gets_it_again():
    writer, reader = packets.StateWriter(SENSING), packets.StateReader(SENSING)
    shown = sensed(0)
    lost = [writer.encode(shown) for _ in range(3)]
    assert read(reader, lost[1]) is None, "no state before all sensors are known"
    for tick in range(packets.WHOLE_EVERY):
        found = read(reader, writer.encode(sensed(tick, wrist=shown.sensors["wrist"])))
        if found is not None:
            break
    assert tick == packets.WHOLE_EVERY - 3
    np.testing.assert_array_equal(found.sensors["wrist"], shown.sensors["wrist"])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "sensor force: missing, expected float64 of shape (3,)"),
        (np.zeros(4), "sensor force: float64 of shape (4,), expected"),
        (np.zeros(3, np.float32), "sensor force: float32 of shape (3,), expected float64"),
    ],
)
def test_a_sensor_that_is_not_as_the_spec_says(value, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        packets.StateWriter(SENSING).payload(sensed(0, force=value))


def test_sensors_that_do_not_fit_are_refused():
    writer, reader = packets.StateWriter(SENSING), packets.StateReader(SENSING)
    data = writer.payload(sensed(0))
    assert len(data) == packets.most_bytes(SENSING)
    bare = packets.most_bytes(GO2)
    for wrong in (
        data[:-1], data + b"\0", data[:bare], data[: bare + 3],
        data[:bare] + b"\xff\xff\xff\xff" + data[bare + 4 :],
        data[:bare] + b"\x0f\0\0\0" + data[bare + 4 :],
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"state of {len(wrong)} bytes"):
            reader.read(0.0, 1, wrong)
    many = tuple(Sensor(f"s{i}", (1,)) for i in range(33))
    with pytest.raises(ValueError, match="33 sensors, a state carries 32 at most"):
        packets.StateWriter(dataclasses.replace(GO2, sensors=many))


def test_a_command_that_does_not_fit_is_refused():
    (packet,) = Decoder().feed(packets.encode_command(MotorCommand(*np.zeros((5, 12)))))
    with pytest.raises(ValueError, match="60 numbers, expected 55"):
        packets.decode_command(packet, 11)
    (packet,) = Decoder().feed(packets.encode_command(MotorCommand(*np.full((5, 12), np.nan))))
    with pytest.raises(ValueError, match="not finite"):
        packets.decode_command(packet, 12)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6), st.integers(1, 30))
def test_any_split_of_the_stream(payloads, size):
    sent = [Packet(2, i, float(i), p) for i, p in enumerate(payloads)]
    stream = b"".join(map(encode, sent))
    decoder, got = Decoder(), []
    for i in range(0, len(stream), size):
        got += decoder.feed(stream[i : i + size])
    assert got == sent
    assert decoder.damaged == 0


@given(st.integers(0, 10_000), st.integers(0, 7), st.binary(max_size=30))
def test_a_flipped_bit_costs_that_packet_alone(position, bit, noise):
    sent = [Packet(2, i, float(i), bytes(range(20))) for i in range(3)]
    frames = [bytearray(encode(p)) for p in sent]
    position %= len(frames[1])
    frames[1][position] ^= 1 << bit
    decoder = Decoder()
    got = decoder.feed(b"".join(map(bytes, frames)))  # a damaged length does not hold up the rest
    assert got == [sent[0], sent[2]]
    assert decoder.damaged >= 1


@given(st.binary(max_size=500))
def test_noise_is_no_packet(noise):
    assert Decoder().feed(noise) == []
