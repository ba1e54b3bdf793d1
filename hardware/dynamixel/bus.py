"""A Dynamixel bus through ROBOTIS' SDK, made fit for a control loop.

What is replaced of the SDK (4.1): it waits awake and by the wall clock, allows 34 ms to every
answer, takes an answer of the wrong length, sends a packet that needs stuffing without it, and
takes bytes for stuffing that are none (FF FF FD xx FF FD FD comes out one byte short, with a good
CRC). Needs dynamixel-sdk.
"""

from __future__ import annotations

import contextlib
import os
import select
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dynamixel_sdk as sdk
import serial
from motoric.hardware.dynamixel import protocol
from motoric.hardware.dynamixel.models import BAUD_RATES, REGISTERS, from_bytes, to_bytes
from motoric.hardware.robot import RobotError

TRIES = 12  # of a single read or write before it has failed
PATIENCE = 0.05  # s an answer about a single register may be late, and silence after none
QUIET = 0.003  # s without a byte after which the bus is taken for free in the control loop
BABBLE = 0.05  # s that are waited for that, at most


class Port(sdk.PortHandler):
    """The SDK's serial port: sleeps until bytes come, monotonic clock, a given latency.

    latency: how much later than the time on the wire an answer may be, s
    """

    def __init__(self, name: str, latency: float) -> None:
        super().__init__(name)
        self.latency, self.adapter, self.abandoned = latency, 0.0, False
        self._out = 0.0  # ms, when the last byte has gone out: the system keeps them until then

    def setupPort(self, cflag: int) -> bool:
        if self.is_open:
            self.closePort()
        # exclusive: two programs on one bus would answer each other's questions
        self.ser = serial.Serial(
            self.port_name, self.baudrate, timeout=0, write_timeout=1.0, exclusive=True
        )
        with contextlib.suppress(ValueError, OSError, NotImplementedError):
            self.ser.set_low_latency_mode(True)  # USB adapters otherwise collect for 16 ms
        self.adapter = _adapter_latency(self.port_name)
        self.is_open = True
        self.ser.reset_input_buffer()
        self.tx_time_per_byte = 10_000.0 / self.baudrate
        return True

    def getCurrentTime(self) -> float:
        return time.monotonic() * 1000

    def setPacketTimeout(self, packet_length: int) -> None:
        late = 1000 * (self.latency + self.adapter) + max(self._out - self.getCurrentTime(), 0.0)
        self.setPacketTimeoutMillis(self.tx_time_per_byte * packet_length + late)

    def writePort(self, packet: list[int]) -> int:
        now, sent = self.getCurrentTime(), self.ser.write(bytes(packet)) or 0
        self._out = max(self._out, now) + self.tx_time_per_byte * sent
        return sent

    def readPort(self, length: int) -> bytes:
        if self.abandoned:
            raise OSError("given up")
        if length <= 0:
            return b""
        left = (self.packet_timeout - self.getTimeSinceStart()) / 1000
        select.select([self.ser.fileno()], [], [], max(left, 0.0))
        return self.ser.read(length)


class PacketHandler(sdk.Protocol2PacketHandler):
    """The SDK's protocol 2.0; `alerts` collects ids whose status reports a hardware error."""

    def __init__(self) -> None:
        super().__init__()
        self.alerts: set[int] = set()

    def addStuffing(self, packet: list[int]) -> list[int]:
        end = 7 + int.from_bytes(bytes(packet[5:7]), "little") - 2
        body = protocol.stuff(bytes(packet[7:end]))
        packet[5:] = [*(len(body) + 2).to_bytes(2, "little"), *body, 0, 0]  # in place
        return packet

    def removeStuffing(self, packet: list[int]) -> list[int]:
        frame = bytes(packet)
        body = protocol.unstuff(frame[7:-2])
        return list(frame[:5] + (len(body) + 2).to_bytes(2, "little") + body + frame[-2:])

    def readRx(self, port: Port, dxl_id: int, length: int) -> tuple[list[int], int, int]:
        """COMM_RX_FAIL: a good packet that answers something else."""
        packet, result = self.rxPacket(port, False)
        if result != sdk.COMM_SUCCESS:
            return [], result, 0
        if packet[4] != dxl_id:
            return [], sdk.COMM_RX_FAIL, 0
        error = packet[8]
        if error & protocol.ALERT:
            self.alerts.add(dxl_id)
        if error & ~protocol.ALERT == 0 and len(packet) != 11 + length:
            return [], sdk.COMM_RX_FAIL, 0
        return packet[9:-2], result, error & ~protocol.ALERT


class Bus:
    """One open port. Raises RobotError when it can't be opened or is gone.

    failures: transfers that got no good answer
    """

    def __init__(self, name: str, baud: int, latency: float) -> None:
        self.name, self.failures = name, 0
        self.port, self.handler = Port(name, latency), PacketHandler()
        try:
            if not self.port.setBaudRate(baud):
                raise RobotError(f"baud {baud} is not supported, expected one of {_rates()}")
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None)
            text = os.strerror(number) if number else str(error)
            if "exclusively lock" in str(error):
                text = "another program has it open"
            raise RobotError(f"port {name} can't be opened: {text}") from None

    def close(self) -> None:
        if self.port.is_open:
            self.port.closePort()

    def transfer(self, action: Callable[[], Any]) -> Any:
        """Do something with the SDK; a port that is gone is a RobotError."""
        try:
            return action()
        except (OSError, termios.error) as error:
            raise RobotError(f"port {self.name} is gone: {error}") from None
        finally:
            self.port.is_using = False

    def resync(self, quiet: float = QUIET) -> None:
        """After a failed transfer: wait for silence."""
        self.failures += 1
        self.drain(quiet)

    def drain(self, quiet: float = QUIET) -> None:
        """Wait until nothing came for `quiet` s, throwing away what comes.

        A late answer would otherwise be taken for that to the next question: they have no numbers.
        """

        def discard() -> None:
            until = time.monotonic() + quiet + BABBLE
            while time.monotonic() < until:
                if not select.select([self.port.ser.fileno()], [], [], quiet)[0]:
                    return
                if not self.port.ser.read(4096):
                    raise OSError("no data")

        self.transfer(discard)

    def patiently(self, action: Callable[[], Any]) -> Any:
        """Do something that is not in a hurry."""
        usual, self.port.latency = self.port.latency, max(self.port.latency, PATIENCE)
        try:
            return self.transfer(action)
        finally:
            self.port.latency = usual

    def ping(self, id: int, tries: int = 5) -> int | None:
        """Model number of the servo with this id; None where it does not answer."""
        for _ in range(tries):
            number, result, _ = self.patiently(lambda: self.handler.ping(self.port, id))
            if result == sdk.COMM_SUCCESS:
                return number
            self.resync()  # a late answer bears its id
        return None

    def read(self, id: int, name: str, tries: int = TRIES) -> int:
        """A register of a servo."""
        register = REGISTERS[name]

        def ask() -> tuple[list[int], int, int]:
            result = self.handler.readTx(self.port, id, register.address, register.size)
            if result != sdk.COMM_SUCCESS:
                return [], result, 0
            return self.handler.readRx(self.port, id, register.size)

        data = self._insist(ask, tries, f"servo {id}: {name} can't be read")
        return from_bytes(register, data)

    def write(self, id: int, name: str, value: int, tries: int = TRIES) -> None:
        """Write a register of a servo; it has confirmed it."""
        register = REGISTERS[name]
        data = list(to_bytes(register, value))

        def tell() -> tuple[list[int], int, int]:
            result, error = self.handler.writeTxRx(
                self.port, id, register.address, register.size, data
            )
            if error & protocol.ALERT:
                self.handler.alerts.add(id)
            return [], result, error & ~protocol.ALERT

        self._insist(tell, tries, f"servo {id}: {name} can't be set to {value}")

    def set(self, id: int, name: str, value: int, tries: int = TRIES) -> None:
        """Write a register unless it holds the value already (stored ones wear), and check it."""
        if self.read(id, name, tries) == value:
            return
        self.write(id, name, value, tries)
        held = self.read(id, name, tries)
        if held != value:
            raise RobotError(f"servo {id}: {name} was set to {value}, but holds {held}")

    def send(self, id: int, name: str, value: int) -> None:
        """Write a register without waiting for an answer."""
        register = REGISTERS[name]
        data = list(to_bytes(register, value))
        self.transfer(
            lambda: self.handler.writeTxOnly(self.port, id, register.address, register.size, data)
        )

    def _insist(
        self, action: Callable[[], tuple[list[int], int, int]], tries: int, what: str
    ) -> list[int]:
        reason = ""
        for _ in range(tries):
            data, result, error = self.patiently(action)
            if result == sdk.COMM_SUCCESS and error == 0:
                return data
            if result == sdk.COMM_SUCCESS and error != protocol.CRC_ERROR:
                raise RobotError(f"{what}: {protocol.ERRORS.get(error, f'error {error}')}")
            reason = "no good answer" if result != sdk.COMM_SUCCESS else protocol.ERRORS[error]
            # Where the answer may still be on its way, it must not meet the next question.
            self.resync(QUIET if result == sdk.COMM_RX_CORRUPT else PATIENCE)
        raise RobotError(f"{what}: {reason} in {tries} tries")

    def answering_rate(self, id: int) -> int | None:
        """A baud rate at which the servo answers, tried after it did not at ours."""
        ours = self.port.getBaudRate()
        try:
            for baud in BAUD_RATES:
                changed = baud != ours and self.transfer(lambda b=baud: self.port.setBaudRate(b))
                if changed and self.ping(id, tries=2) is not None:
                    return baud
            return None
        finally:
            self.transfer(lambda: self.port.setBaudRate(ours))


def _rates() -> str:
    return ", ".join(map(str, BAUD_RATES))


def _adapter_latency(name: str) -> float:
    """s for which a USB adapter (FTDI) may hold bytes back; 0 where there is no such thing."""
    path = Path("/sys/class/tty") / Path(name).resolve().name / "device/latency_timer"
    try:
        return int(path.read_text()) / 1000
    except (OSError, ValueError):
        return 0.0
