"""The wire format, byte for byte, and under damage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motoric.control.command import MotorCommand
from motoric.hardware.robot import RobotState
from motoric.hardware.simulated import packets
from motoric.hardware.simulated.packets import Decoder, Packet, encode


def test_golden_bytes():
    """Laid out by hand: magic, version 1, kind 3, 2 bytes, sequence 7, time 1.5, payload, CRC."""
    golden = bytes.fromhex("4d545243 01 03 0200 07000000 000000000000f83f abcd 732a9956")
    assert encode(Packet(3, 7, 1.5, b"\xab\xcd")) == golden
    assert Decoder().feed(golden) == [Packet(3, 7, 1.5, b"\xab\xcd")]


def state() -> RobotState:
    rng = np.random.default_rng(0)
    return RobotState(
        1.25, 9, *(rng.normal(size=12) for _ in range(3)), rng.normal(size=4),
        rng.normal(size=3), rng.normal(size=3), 0.3,
    )  # fmt: skip


def test_state_and_command_come_back():
    sent = state()
    (packet,) = Decoder().feed(packets.encode_state(sent))
    back = packets.decode_state(packet, 12)
    for name, value in vars(sent).items():
        np.testing.assert_array_equal(getattr(back, name), value, err_msg=name)
    order = MotorCommand(*np.random.default_rng(1).normal(size=(5, 12)), time=2.5, sequence=3)
    (packet,) = Decoder().feed(packets.encode_command(order))
    back = packets.decode_command(packet, 12)
    for name, value in vars(order).items():
        np.testing.assert_array_equal(getattr(back, name), value, err_msg=name)


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
    # Enough follows for a damaged length field to run out.
    tail = [Packet(2, 9, 9.0, bytes(64))] * 1100
    got = decoder.feed(b"".join(map(bytes, frames)) + b"".join(map(encode, tail)))
    assert sent[1] not in got
    assert got[0] == sent[0]
    assert sent[2] in got
    assert decoder.damaged >= 1


@given(st.binary(max_size=500))
def test_noise_is_no_packet(noise):
    assert Decoder().feed(noise) == []
