"""A chain of Dynamixel X-series servos on a pseudo-terminal, byte for byte.

It answers as the e-manual says: protocol 2.0 with stuffing and CRC, status levels and errors,
control tables with the models' factory values, stored registers locked while torque is on, bus
watchdog, return delay, and the time bytes take on the wire. Behind each table turns a simple
motor: torque falls linearly to zero at the no-load speed. The PWM limit bounds its voltage in every
mode, the current limit its torque in the two that control current. Bytes can be lost or corrupted
on the way in and out.

    python -m motoric.hardware.dynamixel.emulator 1:xl430-w250 2:xl330-m288

Not emulated: indirect addresses, backup, shadow ids, dual joints, velocity and time profiles
(except that Profile Velocity caps the speed).
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import select
import termios
import threading
import time
import tty
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from motoric.hardware.dynamixel import protocol
from motoric.hardware.dynamixel.models import (
    ANGLE,
    BAUD_RATES,
    CURRENT,
    CURRENT_POSITION,
    CURRENT_REGISTERS,
    MODELS,
    MODES,
    POSITION,
    PWM,
    PWM_FULL,
    REGISTERS,
    RESOLUTION,
    SPEED,
    TURNS,
    VELOCITY,
    WATCHDOG_UNIT,
    Model,
    from_bytes,
    to_bytes,
)
from motoric.hardware.dynamixel.protocol import BROADCAST, Decoder, Packet

STEP = 0.001  # s of physics
REBOOT_TIME = 0.3  # s a rebooting servo is silent
GAP = 0.005  # s of silence after which an unfinished packet is forgotten
FIRMWARE = 47
GOALS = ("goal_pwm", "goal_current", "goal_velocity", "goal_position")
AT = {register.address: name for name, register in REGISTERS.items()}


class Servo:
    """One servo: control table, protocol behaviour and motor.

    angle: of the output shaft, rad, counted on over several turns; velocity: rad/s
    load: torque from outside, N m; values: the control table by register name
    """

    def __init__(self, id: int, model: Model, position: int = RESOLUTION // 2) -> None:
        self.model = model
        self.angle, self.velocity, self.load = position * ANGLE, 0.0, 0.0
        self.torque = 0.0  # N m of the motor
        self.registered: tuple[int, bytes] | None = None
        self.awake = -math.inf  # time from which it answers
        self.started = 0.0  # time its tick counts from
        self._hold = self.angle  # where it stands after the bus watchdog bit
        self.values = dict.fromkeys(REGISTERS, 0) | {
            "model_number": model.number, "firmware_version": FIRMWARE, "id": id, "baud_rate": 1,
            "return_delay_time": 250, "secondary_id": 255, "protocol_type": 2,
            "moving_threshold": 10, "temperature_limit": model.temperature_limit,
            "max_voltage_limit": model.voltage_limits[1],
            "min_voltage_limit": model.voltage_limits[0], "pwm_limit": PWM_FULL,
            "current_limit": model.max_current, "velocity_limit": model.velocity_limit,
            "max_position_limit": RESOLUTION - 1, "operating_mode": POSITION, "shutdown": 52,
        }  # fmt: skip
        self._start()

    def _start(self) -> None:
        """Registers without storage as after power-on; the shaft is known within one turn."""
        for name, register in REGISTERS.items():
            if not register.stored:
                self.values[name] = 0
        self.angle %= 2 * math.pi
        self.registered = None
        self.values["status_return_level"] = 2
        self._reset_goals()

    def _reset_goals(self) -> None:
        p, i, d = self.model.gains
        self.values |= {
            "position_p_gain": p, "position_i_gain": i, "position_d_gain": d,
            "velocity_p_gain": 100, "velocity_i_gain": 1000, "profile_velocity": 0,
            "profile_acceleration": 0, "goal_pwm": self.values["pwm_limit"], "goal_velocity": 0,
            "goal_current": self.values["current_limit"], "goal_position": self.counts,
        }  # fmt: skip

    @property
    def counts(self) -> int:
        """Present Position."""
        return round(self.angle / ANGLE) + self.values["homing_offset"]

    # -- control table ------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        return self.model.current_unit is not None or name not in CURRENT_REGISTERS

    def _refresh(self, now: float) -> None:
        v, model = self.values, self.model
        v["realtime_tick"] = int((now - self.started) * 1000) % 32768
        v["moving"] = int(abs(self.velocity) > v["moving_threshold"] * SPEED)
        v["present_current"] = round(self.torque / model.torque_unit)
        v["present_velocity"] = round(self.velocity / SPEED)
        v["present_position"] = v["position_trajectory"] = self.counts
        v["present_pwm"] = round(PWM_FULL * self.torque / model.stall_torque)
        v["present_input_voltage"] = round(model.voltage * 10)
        v["present_temperature"] = 32

    def read(self, address: int, length: int, now: float) -> tuple[int, bytes]:
        """Error and bytes of the table."""
        self._refresh(now)
        content = bytearray()
        while len(content) < length:
            name = AT.get(address + len(content))
            if name is None or not self.has(name):
                return protocol.ACCESS, b""
            content += to_bytes(REGISTERS[name], self.values[name])
        return 0, bytes(content[:length])

    def _allowed(self, name: str) -> tuple[int, int]:
        v, model = self.values, self.model
        if name.endswith("_gain"):
            return 0, 16383
        turns = (0, RESOLUTION - 1)
        anywhere = (-TURNS * RESOLUTION + 1, TURNS * RESOLUTION - 1)
        single = (v["min_position_limit"], v["max_position_limit"])
        table = {
            "id": (0, protocol.LAST_ID), "baud_rate": (0, 7), "return_delay_time": (0, 254),
            "drive_mode": (0, 13), "operating_mode": (0, 16), "secondary_id": (0, 255),
            "protocol_type": (2, 2), "homing_offset": (-1_044_479, 1_044_479),
            "moving_threshold": (0, 1023), "temperature_limit": (0, 100),
            "max_voltage_limit": model.voltage_limits, "min_voltage_limit": model.voltage_limits,
            "pwm_limit": (0, PWM_FULL), "current_limit": (0, model.max_current),
            "velocity_limit": (0, model.max_velocity), "max_position_limit": turns,
            "min_position_limit": turns, "startup_configuration": (0, 3), "shutdown": (0, 255),
            "torque_enable": (0, 1), "led": (0, 1), "status_return_level": (0, 2),
            "bus_watchdog": (0, 127), "goal_pwm": (-v["pwm_limit"], v["pwm_limit"]),
            "goal_current": (-v["current_limit"], v["current_limit"]),
            "goal_velocity": (-v["velocity_limit"], v["velocity_limit"]),
            "profile_acceleration": (0, 32767), "profile_velocity": (0, 32767),
            "goal_position": single if v["operating_mode"] == POSITION else anywhere,
        }  # fmt: skip
        return table[name]

    def check(self, address: int, data: bytes) -> tuple[int, list[tuple[str, int]]]:
        """Error of writing these bytes, and the values they would set."""
        found: list[tuple[str, int]] = []
        at = 0
        while at < len(data):
            name = AT.get(address + at)
            if name is None or not self.has(name):
                return protocol.ACCESS, []
            register = REGISTERS[name]
            if not register.writable or (register.stored and self.values["torque_enable"]):
                return protocol.ACCESS, []
            if len(data) - at < register.size:
                return protocol.DATA_LENGTH, []
            value = from_bytes(register, data[at : at + register.size])
            low, high = self._allowed(name)
            modes = {PWM, *(MODES[m] for m in self.model.modes)}
            if name == "operating_mode" and value not in modes:
                return protocol.DATA_RANGE, []
            if name in GOALS and self.values["bus_watchdog"] < 0:
                return protocol.DATA_RANGE, []
            if not low <= value <= high:
                return protocol.DATA_LIMIT if name in GOALS else protocol.DATA_RANGE, []
            found.append((name, value))
            at += register.size
        return 0, found

    def write(self, address: int, data: bytes) -> int:
        """Write to the table, all or nothing; returns the error."""
        error, found = self.check(address, data)
        if error:
            return error
        for name, value in found:
            if name == "torque_enable" and value:
                if self.values["hardware_error_status"]:
                    return protocol.RESULT_FAIL  # only a reboot helps
                if not self.values["torque_enable"]:
                    self.values["goal_position"] = self.counts
            self.values[name] = value
            if name == "operating_mode":
                self.angle %= 2 * math.pi
                self._reset_goals()
            elif name in GOALS and self.values["drive_mode"] & 8:
                self.values["torque_enable"] = 1  # Torque On by Goal Update
        return 0

    def reboot(self, now: float) -> None:
        self._start()
        self.awake, self.started = now + REBOOT_TIME, now + REBOOT_TIME

    def fail(self, bit: int) -> None:
        """A hardware error: torque off until it is rebooted, if Shutdown names it."""
        self.values["hardware_error_status"] |= 1 << bit
        if self.values["shutdown"] >> bit & 1:
            self.values["torque_enable"] = 0

    # -- motor --------------------------------------------------------------------------------

    def step(self, silence: float) -> None:
        """One step of physics; silence: since the last instruction on the bus, s."""
        v, model = self.values, self.model
        on = v["torque_enable"] == 1
        if on and 0 < v["bus_watchdog"] < silence / WATCHDOG_UNIT:
            v["bus_watchdog"], self._hold = -1, self.angle
        stall, free = model.stall_torque, model.speed
        inertia = 0.05 * stall / free  # a time constant of 50 ms
        wish = 0.0
        if on:
            wish = self._controlled(stall, inertia)
            duty = v["goal_pwm"] if v["operating_mode"] != PWM else v["pwm_limit"]
            duty = min(abs(duty), v["pwm_limit"]) / PWM_FULL
            # A DC motor: full voltage gives the stall torque less what turning induces.
            ends = (-stall * (duty + self.velocity / free), stall * (duty - self.velocity / free))
            wish = min(max(wish, ends[0]), ends[1])
            if v["operating_mode"] in (CURRENT, CURRENT_POSITION):
                most = v["current_limit"] * model.torque_unit
                wish = min(max(wish, -most), most)
        self.torque = wish
        force = wish + self.load - 0.1 * stall / free * self.velocity
        friction = 0.03 * stall
        if abs(self.velocity) < 1e-3 and abs(force) <= friction:
            self.velocity = 0.0
            return
        drag = math.copysign(friction, self.velocity if self.velocity else force)
        velocity = self.velocity + STEP * (force - drag) / inertia
        if velocity * self.velocity < 0 and abs(force) <= friction:
            velocity = 0.0
        self.velocity = velocity
        self.angle += STEP * velocity

    def _controlled(self, stall: float, inertia: float) -> float:
        """Torque the operating mode asks for, N m."""
        v, mode = self.values, self.values["operating_mode"]
        stopped = v["bus_watchdog"] < 0
        stiff = 10 * stall
        damp = 2 * math.sqrt(stiff * inertia)
        if mode == CURRENT:
            return 0.0 if stopped else v["goal_current"] * self.model.torque_unit
        if mode == PWM:
            return 0.0 if stopped else stall * v["goal_pwm"] / PWM_FULL
        if mode == VELOCITY:
            goal = 0.0 if stopped else v["goal_velocity"] * SPEED
            return 20 * inertia / 0.05 * (goal - self.velocity)
        goal = self._hold if stopped else (v["goal_position"] - v["homing_offset"]) * ANGLE
        speed = stiff * (goal - self.angle) / damp
        if v["profile_velocity"]:
            most = v["profile_velocity"] * SPEED
            speed = min(max(speed, -most), most)
        wish = damp * (speed - self.velocity)
        if mode == CURRENT_POSITION:
            most = abs(v["goal_current"]) * self.model.torque_unit
            wish = min(max(wish, -most), most)
        return wish


@dataclass(frozen=True)
class Written:
    """Bytes a servo took into its table."""

    time: float
    id: int
    address: int
    data: bytes


class Chain:
    """Servos on one half-duplex bus.

    corrupt, lose: share of bytes that change a bit, or vanish, in either direction
    adapter: s for which a USB adapter keeps back what came
    written: what servos took, newest last; hold: s the next answer is late by (once)
    """

    def __init__(
        self,
        servos: list[Servo],
        corrupt: float = 0.0,
        lose: float = 0.0,
        adapter: float = 0.0,
        seed: int = 0,
    ) -> None:
        ids = [servo.values["id"] for servo in servos]
        if len(set(ids)) != len(ids):
            raise ValueError(f"servo ids {ids}: each must be there once")
        self.servos, self.corrupt, self.lose, self.adapter = servos, corrupt, lose, adapter
        self.written: deque[Written] = deque(maxlen=200_000)
        self.hold = 0.0
        self.packets = 0  # instructions understood
        self._rng = np.random.default_rng(seed)
        self._decoder = Decoder()
        self._now: float | None = None
        self._heard = self._free = -math.inf  # the last instruction; the end of the last byte

    def __getitem__(self, id: int) -> Servo:
        return next(s for s in self.servos if s.values["id"] == id)

    def advance(self, now: float) -> None:
        """Physics and bus watchdogs up to `now`, s."""
        if self._now is None:
            self._now = now
            for servo in self.servos:
                servo.started = now - servo.values["id"] * 1.234  # clocks that don't agree
        if now - self._now > 1.0:  # the machine slept
            self._now = now - 1.0
        while self._now + STEP <= now:
            self._now += STEP
            for servo in self.servos:
                servo.step(self._now - self._heard)

    def damage(self, data: bytes) -> bytes:
        """Bytes as they come out at the other end of the wire."""
        if not (self.corrupt or self.lose):
            return data
        changed = bytearray(data)
        draws = self._rng.random(len(changed))
        for i in np.flatnonzero(draws < self.corrupt):
            changed[i] ^= 1 << self._rng.integers(8)
        return bytes(b for b, kept in zip(changed, draws < 1 - self.lose, strict=True) if kept)

    def receive(self, data: bytes, now: float, baud: int = 57600) -> list[tuple[float, bytes]]:
        """Take bytes that arrive at `now`, s; returns answers as (s later, bytes)."""
        self.advance(now)
        if not data:
            self._decoder.reset()
            return []
        listening = [
            s for s in self.servos
            if BAUD_RATES.get(baud) == s.values["baud_rate"] and now >= s.awake
        ]  # fmt: skip
        packets = self._decoder.feed(self.damage(data))
        answers: list[bytes] = []
        delays: list[float] = []
        for id in self._decoder.rejected:
            for servo in listening:
                if servo.values["id"] == id:
                    self._status(servo, protocol.CRC_ERROR, b"", answers, delays)
        self._decoder.rejected.clear()
        for packet in packets:
            if packet.instruction == protocol.STATUS:
                continue
            if listening:
                self._heard, self.packets = now, self.packets + 1
            self._execute(packet, listening, now, answers, delays)
        if not listening:
            return []
        due = max(self._free - now, 0.0) + len(data) * 10 / baud  # half duplex: one after another
        if answers:
            due, self.hold = due + self.hold, 0.0
        result = []
        for answer, delay in zip(answers, delays, strict=True):
            due += delay + len(answer) * 10 / baud
            result.append((due + self.adapter, self.damage(answer)))
        self._free = now + due
        return result

    @property
    def unfinished(self) -> bool:
        return self._decoder.pending > 0

    def _status(
        self, servo: Servo, error: int, content: bytes, answers: list[bytes], delays: list[float],
        level: int = 2,
    ) -> None:  # fmt: skip
        if servo.values["status_return_level"] < level:
            return
        if servo.values["hardware_error_status"]:
            error |= protocol.ALERT
        packet = Packet(servo.values["id"], protocol.STATUS, content, error)
        answers.append(protocol.encode(packet))
        delays.append(servo.values["return_delay_time"] * 2e-6)

    def _write(self, servo: Servo, address: int, data: bytes, now: float) -> int:
        error = servo.write(address, data)
        if not error:
            self.written.append(Written(now, servo.values["id"], address, data))
        return error

    def _execute(
        self, packet: Packet, listening: list[Servo], now: float, answers: list[bytes],
        delays: list[float],
    ) -> None:  # fmt: skip
        p, instruction = packet.parameters, packet.instruction
        by_id = {s.values["id"]: s for s in listening}
        everybody = packet.id == BROADCAST
        if instruction in (protocol.SYNC_READ, protocol.FAST_SYNC_READ, protocol.BULK_READ):
            if everybody:
                self._group_read(instruction, p, by_id, now, answers, delays)
            return
        if instruction in (protocol.SYNC_WRITE, protocol.BULK_WRITE):
            for id, address, data in _group_writes(instruction, p) if everybody else []:
                if id in by_id:
                    self._write(by_id[id], address, data, now)
            return
        for id in sorted(by_id) if everybody else [packet.id] if packet.id in by_id else []:
            servo = by_id[id]
            error, content, level = 0, b"", 2
            address = int.from_bytes(p[:2], "little")
            if instruction == protocol.PING:
                level = 0
                content = bytes(servo.read(0, 2, now)[1]) + bytes([FIRMWARE])
            elif instruction == protocol.READ and len(p) == 4:
                level = 1
                error, content = servo.read(address, int.from_bytes(p[2:], "little"), now)
            elif instruction == protocol.WRITE and len(p) > 2:
                error = self._write(servo, address, p[2:], now)
            elif instruction == protocol.REG_WRITE and len(p) > 2:
                error, _ = servo.check(address, p[2:])
                if not error:
                    servo.registered = address, p[2:]
                    servo.values["registered_instruction"] = 1
            elif instruction == protocol.ACTION and servo.registered is not None:
                error = self._write(servo, *servo.registered, now)
                servo.registered, servo.values["registered_instruction"] = None, 0
            elif instruction == protocol.REBOOT:
                self._status(servo, 0, b"", answers, delays)
                servo.reboot(now)
                continue
            elif instruction == protocol.CLEAR and p == b"\x01DXL\x22":
                if abs(servo.velocity) > SPEED:
                    error = protocol.RESULT_FAIL
                else:
                    servo.angle %= 2 * math.pi
            elif instruction == protocol.FACTORY_RESET:
                error = protocol.RESULT_FAIL  # refused: it would lose id and baud rate
            else:
                error = protocol.INSTRUCTION_ERROR
            if not everybody or instruction == protocol.PING:
                self._status(servo, error, content, answers, delays, level)

    def _group_read(
        self, instruction: int, p: bytes, by_id: dict[int, Servo], now: float,
        answers: list[bytes], delays: list[float],
    ) -> None:  # fmt: skip
        """Each servo answers after the one before it: where one is missing, the rest is silent."""
        if instruction == protocol.BULK_READ:
            wishes = [(p[i], *_pair(p[i + 1 : i + 5])) for i in range(0, len(p) - 4, 5)]
        else:
            wishes = [(id, *_pair(p[:4])) for id in p[4:]]
        fast, crc = instruction == protocol.FAST_SYNC_READ, 0
        for number, (id, address, length) in enumerate(wishes):
            servo = by_id.get(id)
            if servo is None or servo.values["status_return_level"] < 1:
                return
            error, content = servo.read(address, length, now)
            if not fast:
                self._status(servo, error, content, answers, delays, 1)
                continue
            # One status packet, of which each servo sends its part, not stuffed.
            part = bytes([error, id]) + content.ljust(length, b"\0")
            if number == 0:
                size = (length + 4) * len(wishes) + 1
                head = protocol.HEADER + bytes([BROADCAST]) + size.to_bytes(2, "little")
                part = head + bytes([protocol.STATUS]) + part
            crc = protocol.crc16(part, crc)
            tail = crc.to_bytes(2, "little")
            crc = protocol.crc16(tail, crc)
            answers.append(part + tail)
            delays.append(servo.values["return_delay_time"] * 2e-6 if number == 0 else 0.0)


def _pair(data: bytes) -> tuple[int, int]:
    return int.from_bytes(data[:2], "little"), int.from_bytes(data[2:4], "little")


def _group_writes(instruction: int, p: bytes) -> list[tuple[int, int, bytes]]:
    """(id, address, bytes) of a sync or bulk write; nothing where its length does not fit."""
    found, at = [], 0
    if instruction == protocol.SYNC_WRITE:
        address, length = _pair(p)
        rest = p[4:]
        if length == 0 or len(rest) % (length + 1):
            return []
        for at in range(0, len(rest), length + 1):
            found.append((rest[at], address, rest[at + 1 : at + 1 + length]))
        return found
    while at + 5 < len(p):
        address, length = _pair(p[at + 1 : at + 5])
        data = p[at + 5 : at + 5 + length]
        if len(data) != length:
            return []
        found.append((p[at], address, data))
        at += 5 + length
    return found


_SPEEDS = {
    getattr(termios, f"B{baud}"): baud for baud in BAUD_RATES if hasattr(termios, f"B{baud}")
}


class Emulator:
    """A chain on a pseudo-terminal, served by a thread; `port` is what a client opens.

    Hold `lock` to look at or change the chain meanwhile. Use it in a `with` statement.
    """

    def __init__(self, chain: Chain) -> None:
        self.chain, self.lock = chain, threading.Lock()
        self._main: int | None
        self._main, self._terminal = os.openpty()
        tty.setraw(self._terminal)
        os.set_blocking(self._main, False)  # a client that doesn't read loses answers
        self.port = os.ttyname(self._terminal)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Emulator:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.unplug()
        os.close(self._terminal)

    def unplug(self) -> None:
        """The adapter is gone: the client's port gives errors from now on."""
        self._stop.set()
        self._thread.join()
        if self._main is not None:
            os.close(self._main)
            self._main = None

    def _serve(self) -> None:
        main, quiet_since = self._main, time.monotonic()
        assert main is not None
        while not self._stop.is_set():
            ready, _, _ = select.select([main], [], [], 0.002)
            now = time.monotonic()
            if not ready:
                with self.lock:
                    self.chain.advance(now)
                    if self.chain.unfinished and now - quiet_since > GAP:
                        self.chain.receive(b"", now)
                continue
            try:
                data = os.read(main, 65536)
                speed = _SPEEDS.get(termios.tcgetattr(main)[5], 0)
            except OSError:
                return
            quiet_since = now
            with self.lock:
                answers = self.chain.receive(data, now, speed)
            for later, answer in answers:
                wait = now + later - time.monotonic()
                if wait > 0:
                    time.sleep(wait)
                with contextlib.suppress(BlockingIOError):
                    os.write(main, answer)


def make_chain(
    servos: list[tuple[int, str]],
    baud: int = 1_000_000,
    corrupt: float = 0.0,
    lose: float = 0.0,
    adapter: float = 0.0,
) -> Chain:
    """Servos by id and model, all at one baud rate."""
    made = []
    for id, name in servos:
        if name not in MODELS:
            raise ValueError(f"model {name!r} is unknown, expected one of {', '.join(MODELS)}")
        made.append(Servo(id, MODELS[name]))
        made[-1].values["baud_rate"] = BAUD_RATES[baud]
    return Chain(made, corrupt, lose, adapter)


def main() -> None:
    parser = argparse.ArgumentParser(description="A chain of Dynamixel servos on a terminal.")
    parser.add_argument("servos", nargs="+", metavar="ID:MODEL", help=", ".join(MODELS))
    parser.add_argument("--baud", type=int, default=1_000_000, choices=sorted(BAUD_RATES))
    parser.add_argument("--corrupt", type=float, default=0.0, help="share of bytes changed")
    parser.add_argument("--lose", type=float, default=0.0, help="share of bytes lost")
    parser.add_argument("--link", type=Path, help="path to make a link to the terminal at")
    arguments = parser.parse_args()
    servos = []
    for text in arguments.servos:
        id, colon, model = text.partition(":")
        if not (colon and id.isdecimal() and model in MODELS):
            parser.error(f"{text!r}: expected ID:MODEL, a model of {', '.join(MODELS)}")
        servos.append((int(id), model))
    chain = make_chain(servos, arguments.baud, arguments.corrupt, arguments.lose)
    with Emulator(chain) as emulator:
        if arguments.link is not None:
            arguments.link.unlink(missing_ok=True)
            arguments.link.symlink_to(emulator.port)
        print(f"port {arguments.link or emulator.port} at {arguments.baud} baud", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
