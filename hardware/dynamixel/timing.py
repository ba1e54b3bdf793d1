"""How long a cycle of a Dynamixel chain takes on the bus, and how many of them fit into a second.

A cycle writes the goals of all servos in one packet (no answer), then reads all of them with one
sync read, to which each answers in its turn. Every byte takes ten bits on the wire. A servo, with
Return Delay Time 0, takes about 50 us to answer, this program as long to take its answer apart; a
USB adapter hands what came on once per period of its latency timer, 1 ms at best.
"""

from __future__ import annotations

from motoric.hardware.dynamixel.goals import GOAL_BYTES
from motoric.hardware.dynamixel.joints import Joint
from motoric.hardware.dynamixel.models import HEALTH, STATE, WATCHDOG

HEALTH_EVERY = 0.5  # s between readings of temperature and voltage
WATCHDOG_EVERY = 0.2  # s between looks at the bus watchdogs
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


def most_rate(joints: tuple[Joint, ...], baud: int, adapter: float = ADAPTER) -> float:
    """How often a second the goals can be written and the states read, Hz.

    adapter: s it may keep bytes back. The slow reads of health and watchdogs go off it.
    """
    count, modes = len(joints), [joint.mode for joint in joints]
    same = len({m.removeprefix("extended_") for m in modes}) == 1
    cycle = write_seconds([GOAL_BYTES[m] for m in modes], same, baud)
    cycle += read_seconds(count, STATE[1], baud, adapter)
    slow = ((HEALTH, HEALTH_EVERY), (WATCHDOG, WATCHDOG_EVERY))
    return most_cycles(
        cycle,
        [(read_seconds(count, place[1], baud, adapter), every) for place, every in slow],
    )
