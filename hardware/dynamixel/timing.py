"""How long a cycle of a Dynamixel chain takes on the bus, and how many of them fit into a second.

A cycle writes the goals of all servos in one packet (no answer), then reads all of them with one
sync read, to which each answers in its turn. Every byte takes ten bits on the wire. A servo, with
Return Delay Time 0, takes about 50 us to answer, this program as long to take its answer apart; a
USB adapter hands what came on once per period of its latency timer, 1 ms at best.
"""

from __future__ import annotations

BITS = 10  # on the wire per byte: start, eight, stop
ANSWER = 50e-6  # s a servo takes
PARSE = 50e-6  # s this program takes for it, measured with the SDK
ADAPTER = 1e-3  # s an adapter may keep bytes back
FRAME = 10  # bytes of a packet without parameters: header, id, length, instruction, CRC
STATUS = FRAME + 1  # and the error


def write_bytes(lengths: list[int], same: bool) -> int:
    """Size of a sync write (all servos the `same` register) or bulk write of `lengths` bytes."""
    if same:
        return FRAME + 4 + sum(1 + length for length in lengths)
    return FRAME + sum(5 + length for length in lengths)


def read_bytes(servos: int, length: int) -> int:
    """Size of a sync read of `length` bytes and all its answers."""
    return FRAME + 4 + servos + servos * (STATUS + length)


def read_seconds(servos: int, length: int, baud: int, adapter: float = ADAPTER) -> float:
    """From the question to the last answer."""
    return read_bytes(servos, length) * BITS / baud + servos * (ANSWER + PARSE) + adapter


def write_seconds(lengths: list[int], same: bool, baud: int) -> float:
    return write_bytes(lengths, same) * BITS / baud


def most_cycles(cycle: float, others: list[tuple[float, float]]) -> float:
    """Cycles a second, each `cycle` s long, beside reads given as (s each, s between two)."""
    return max(0.0, 1.0 - sum(seconds / every for seconds, every in others)) / cycle
