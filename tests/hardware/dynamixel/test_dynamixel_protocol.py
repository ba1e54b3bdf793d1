"""Protocol 2.0 framing: the e-manual's examples, the SDK's own packets, and damage."""

from __future__ import annotations

import dynamixel_sdk as sdk
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motoric.hardware.dynamixel import protocol
from motoric.hardware.dynamixel.bus import PacketHandler
from motoric.hardware.dynamixel.protocol import Decoder, Packet, encode

DXL = bytes.fromhex("01 44 58 4c 22")  # what Clear must say

# ROBOTIS' e-manual, protocol 2.0: examples of instructions and of the answers to them
GOLDEN = {
    "ping": ("ff fffd 00 01 0300 01 19 4e", Packet(1, 1)),
    "its status": ("fffffd00 01 0700 55 00 06 04 26 65 5d", Packet(1, 0x55, b"\x06\x04\x26")),
    "ping all": ("fffffd00 fe 0300 01 31 42", Packet(0xFE, 1)),
    "read": ("fffffd00 01 0700 02 8400 0400 1d 15", Packet(1, 2, bytes.fromhex("84000400"))),
    "position": (
        "fffffd00 01 0800 55 00 a6000000 8c c0", Packet(1, 0x55, bytes.fromhex("a6000000"))
    ),
    "write": (
        "fffffd00 01 0900 03 7400 00020000 ca 89", Packet(1, 3, bytes.fromhex("740000020000"))
    ),
    "written": ("fffffd00 01 0400 55 00 a1 0c", Packet(1, 0x55)),
    "reg write": (
        "fffffd00 01 0900 04 6800 c8000000 ae 8e", Packet(1, 4, bytes.fromhex("6800c8000000"))
    ),
    "action": ("fffffd00 01 0300 05 02 ce", Packet(1, 5)),
    "factory reset": ("fffffd00 01 0400 06 01 a1 e6", Packet(1, 6, b"\x01")),
    "reboot": ("fffffd00 01 0300 08 2f 4e", Packet(1, 8)),
    "clear": ("fffffd00 01 0800 10 0144584c22 b1 dc", Packet(1, 0x10, DXL)),
    "sync read": (
        "fffffd00 fe 0900 82 8400 0400 01 02 ce fa",
        Packet(0xFE, 0x82, bytes.fromhex("840004000102")),
    ),
    "sync write": (
        "fffffd00 fe 1100 83 7400 0400 01 96000000 02 aa000000 82 87",
        Packet(0xFE, 0x83, bytes.fromhex("74000400 0196000000 02aa000000")),
    ),
    "bulk read": (
        "fffffd00 fe 0d00 92 01 9000 0200 02 9200 0100 1a 05",
        Packet(0xFE, 0x92, bytes.fromhex("0190000200 0292000100")),
    ),
    "bulk write": (
        "fffffd00 fe 1000 93 01 2000 0200 a000 02 1f00 0100 50 b7 68",
        Packet(0xFE, 0x93, bytes.fromhex("0120000200a000 021f00010050")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_examples_of_the_manual(name):
    text, packet = GOLDEN[name]
    golden = bytes.fromhex(text)
    assert encode(packet) == golden
    assert Decoder().feed(golden) == [packet]


class Wire:
    """Stands in for the SDK's port, and keeps what is sent."""

    is_using = False

    def __init__(self, answer: bytes = b"") -> None:
        self.sent, self.answer = b"", bytearray(answer)

    def clearPort(self):
        pass

    def setPacketTimeout(self, length):
        pass

    def isPacketTimeout(self):
        return not self.answer

    def writePort(self, packet):
        self.sent += bytes(packet)
        return len(packet)

    def readPort(self, length):
        data, self.answer = self.answer[:length], self.answer[length:]
        return bytes(data)


BODIES = st.lists(st.sampled_from([0xFF, 0xFF, 0xFD, 0x00, 0x42]), max_size=40).map(bytes)


@given(st.integers(0, 252), st.integers(0, 600), st.binary(min_size=1, max_size=40) | BODIES)
def test_the_sdk_sends_the_same_bytes(id, address, data):
    packet = encode(Packet(id, 3, address.to_bytes(2, "little") + data))
    wire = Wire()
    PacketHandler().writeTxOnly(wire, id, address, len(data), list(data))
    assert wire.sent == packet
    if protocol.STUFFED not in packet:  # which the SDK itself forgets to send
        wire = Wire()
        sdk.PacketHandler(2.0).writeTxOnly(wire, id, address, len(data), list(data))
        assert wire.sent == packet


@given(st.integers(0, 252), st.lists(st.sampled_from([0xFF, 0xFD, 0x00, 0x55]), max_size=30))
def test_our_packet_handler_reads_any_status(id, data):
    answer = encode(Packet(id, protocol.STATUS, bytes(data)))
    got, result, error = PacketHandler().readRx(Wire(answer), id, len(data))
    assert (bytes(got), result, error) == (bytes(data), sdk.COMM_SUCCESS, 0)


def test_why_the_sdk_does_not_handle_stuffing_itself():
    """It sends none where some is needed, and takes a byte off that was never stuffed."""
    wire = Wire()
    sdk.PacketHandler(2.0).writeTxOnly(wire, 1, 116, 4, [0xFF, 0xFF, 0xFD, 0xFF])
    assert wire.sent != encode(Packet(1, 3, bytes.fromhex("7400fffffdff")))
    data = bytes.fromhex("fffffd05fffdfd01")
    packet = list(encode(Packet(1, protocol.STATUS, data)))
    assert bytes(sdk.Protocol2PacketHandler().removeStuffing(list(packet)))[9:17] != data


def test_our_packet_handler_takes_no_answer_of_another_length_or_servo():
    answer = encode(Packet(3, protocol.STATUS, bytes(16)))
    assert PacketHandler().readRx(Wire(answer), 3, 16)[1] == sdk.COMM_SUCCESS
    assert PacketHandler().readRx(Wire(answer), 3, 4)[1] == sdk.COMM_RX_FAIL
    assert PacketHandler().readRx(Wire(answer), 4, 16)[1] == sdk.COMM_RX_FAIL


PACKETS = st.builds(Packet, st.integers(0, 252), st.integers(1, 0x20), BODIES)


@given(BODIES)
def test_stuffing_comes_off_again(body):
    stuffed = protocol.stuff(body)
    assert protocol.unstuff(stuffed) == body
    assert protocol.HEADER not in stuffed


@given(st.lists(PACKETS, max_size=5), st.integers(1, 30), st.binary(max_size=60))
def test_packets_are_found_in_any_pieces_after_garbage(packets, size, garbage):
    garbage = garbage.replace(b"\xff", b"\x00")
    stream = garbage + b"".join(map(encode, packets))
    decoder, got = Decoder(), []
    for i in range(0, len(stream), size):
        got += decoder.feed(stream[i : i + size])
    assert got == packets


@given(PACKETS, PACKETS, st.data())
def test_a_damaged_packet_is_none(first, second, data):
    """A changed byte, or one that is lost: never another packet, and the next one is found."""
    frame = bytearray(encode(first))
    at = data.draw(st.integers(0, len(frame) - 1))
    if data.draw(st.booleans()):
        del frame[at]
    else:
        frame[at] ^= data.draw(st.integers(1, 255))
    decoder = Decoder()
    # Enough follows for a damaged length to run out.
    stream = bytes(frame) + encode(second) * 120
    got = decoder.feed(stream)
    if encode(first) not in stream:  # a lost last byte may be the one that the next begins with
        assert all(packet == second for packet in got)
    assert second in got


@given(st.binary(max_size=400))
def test_noise_is_no_packet(noise):
    assert Decoder().feed(noise) == []
