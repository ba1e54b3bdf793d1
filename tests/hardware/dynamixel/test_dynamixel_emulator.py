"""The emulated servos, as ROBOTIS' own SDK and the e-manual's examples see them."""

from __future__ import annotations

import math
import subprocess
import sys
import time

import dynamixel_sdk as sdk
import pytest
from motoric.hardware.dynamixel import protocol
from motoric.hardware.dynamixel.emulator import Chain, Emulator, Servo, make_chain
from motoric.hardware.dynamixel.models import ANGLE, MODELS, MODES, REGISTERS, SPEED
from motoric.hardware.dynamixel.protocol import Decoder, Packet, encode

BAUD = 1_000_000


@pytest.fixture
def emulator():
    with Emulator(make_chain([(1, "xl430-w250"), (2, "xl330-m288")])) as emulator:
        yield emulator


@pytest.fixture
def client(emulator):
    """The SDK's own port and packet handler, nothing of ours."""
    port = sdk.PortHandler(emulator.port)
    assert port.openPort()
    assert port.setBaudRate(BAUD)
    yield port, sdk.PacketHandler(2.0)
    port.closePort()


class Line:
    """A chain without a terminal, in simulated time."""

    def __init__(self, *servos: tuple[int, str]) -> None:
        self.chain, self.now = make_chain(list(servos)), 0.0
        self.chain.advance(0.0)

    def ask(self, id: int, instruction: int, parameters: bytes = b"") -> list[Packet]:
        frame = encode(Packet(id, instruction, parameters))
        answers = self.chain.receive(frame, self.now, BAUD)
        self.now += 0.001
        return Decoder().feed(b"".join(data for _, data in answers))

    def write(self, id: int, name: str, value: int, instruction: int = protocol.WRITE) -> int:
        register = REGISTERS[name]
        data = value.to_bytes(register.size, "little", signed=value < 0)
        (status,) = self.ask(id, instruction, register.address.to_bytes(2, "little") + data)
        return status.error

    def read(self, id: int, name: str) -> int:
        register = REGISTERS[name]
        where = register.address.to_bytes(2, "little") + register.size.to_bytes(2, "little")
        (status,) = self.ask(id, protocol.READ, where)
        assert status.error & ~protocol.ALERT == 0
        return int.from_bytes(status.parameters, "little", signed=register.signed)

    def wait(self, seconds: float, alive: bool = True) -> None:
        end = self.now + seconds
        while self.now < end:
            if alive:
                self.ask(200, protocol.PING)
            self.now = min(end, self.now + 0.01)
            self.chain.advance(self.now)


def test_fast_sync_read_is_the_example_of_the_manual():
    line = Line((3, "xc330-t288"), (7, "xc330-t288"), (4, "xc330-t288"))
    for id, counts in ((3, 166), (7, 2079), (4, 1023)):
        line.chain[id].angle = counts * ANGLE
    ask = bytes.fromhex("ff ff fd 00 fe 0a 00 8a 84 00 04 00 03 07 04 20 f2")
    assert [data for _, data in line.chain.receive(ask, 0.0, BAUD)] == [
        bytes.fromhex("fffffd00 fe 1900 55 00 03 a6000000 8408"),
        bytes.fromhex("00 07 1f080000 16ca"),
        bytes.fromhex("00 04 ff030000 d19e"),
    ]


def test_sync_and_bulk_read_are_the_examples_of_the_manual():
    line = Line((1, "xm430-w210"), (2, "xm430-w210"))
    line.chain[1].angle, line.chain[2].angle = 166 * ANGLE, 2079 * ANGLE
    ask = bytes.fromhex("ff ff fd 00 fe 09 00 82 84 00 04 00 01 02 ce fa")
    answers = [data for _, data in line.chain.receive(ask, 0.0, BAUD)]
    assert answers == [
        bytes.fromhex("fffffd00 01 0800 55 00 a6000000 8cc0"),
        bytes.fromhex("fffffd00 02 0800 55 00 1f080000 babe"),
    ]
    ask = bytes.fromhex("fffffd00 fe 0d00 92 01 9000 0200 02 9200 0100 1a05")
    answers = Decoder().feed(b"".join(d for _, d in line.chain.receive(ask, 0.0, BAUD)))
    assert [(a.id, len(a.parameters)) for a in answers] == [(1, 2), (2, 1)]


def test_the_sdk_talks_to_it(emulator, client):
    port, handler = client
    assert handler.ping(port, 1) == (1060, sdk.COMM_SUCCESS, 0)
    assert handler.ping(port, 2) == (1200, sdk.COMM_SUCCESS, 0)
    assert handler.ping(port, 3)[1] == sdk.COMM_RX_TIMEOUT
    found, result = handler.broadcastPing(port)
    assert (found, result) == ({1: [1060, 47], 2: [1200, 47]}, sdk.COMM_SUCCESS)
    for id in (1, 2):
        assert handler.write1ByteTxRx(port, id, 64, 1) == (sdk.COMM_SUCCESS, 0)
    goals = sdk.GroupSyncWrite(port, handler, 116, 4)
    for id, goal in ((1, 2500), (2, 1500)):
        assert goals.addParam(id, list(goal.to_bytes(4, "little")))
    assert goals.txPacket() == sdk.COMM_SUCCESS
    state = sdk.GroupSyncRead(port, handler, 126, 10)
    state.addParam(1), state.addParam(2)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if state.txRxPacket() == sdk.COMM_SUCCESS:
            a, b = state.getData(1, 132, 4), state.getData(2, 132, 4)
            if abs(a - 2500) < 15 and abs(b - 1500) < 15:
                break
    else:
        pytest.fail(f"goals not reached: {a}, {b}")
    assert state.fastSyncRead() == sdk.COMM_SUCCESS
    assert abs(state.getData(1, 132, 4) - 2500) < 15
    bulk = sdk.GroupBulkRead(port, handler)
    bulk.addParam(1, 144, 2), bulk.addParam(2, 146, 1)
    assert bulk.txRxPacket() == sdk.COMM_SUCCESS
    assert (bulk.getData(1, 144, 2), bulk.getData(2, 146, 1)) == (111, 32)
    write = sdk.GroupBulkWrite(port, handler)
    write.addParam(1, 65, 1, [1]), write.addParam(2, 116, 4, [0, 8, 0, 0])
    assert write.txPacket() == sdk.COMM_SUCCESS
    assert handler.read1ByteTxRx(port, 1, 65) == (1, sdk.COMM_SUCCESS, 0)
    assert handler.read4ByteTxRx(port, 2, 116) == (2048, sdk.COMM_SUCCESS, 0)
    assert handler.regWriteTxRx(port, 1, 116, 4, [0, 8, 0, 0]) == (sdk.COMM_SUCCESS, 0)
    assert handler.read1ByteTxRx(port, 1, 69)[0] == 1
    handler.action(port, 1)
    time.sleep(0.02)  # its answer, which the SDK does not wait for, is thrown away below
    assert handler.read4ByteTxRx(port, 1, 116)[0] == 2048
    assert handler.factoryReset(port, 1, 1) == (sdk.COMM_SUCCESS, protocol.RESULT_FAIL)
    assert handler.reboot(port, 1) == (sdk.COMM_SUCCESS, 0)
    assert handler.ping(port, 1)[1] == sdk.COMM_RX_TIMEOUT
    assert handler.write1ByteTxRx(port, 2, 64, 0) == (sdk.COMM_SUCCESS, 0)
    time.sleep(0.4)
    assert handler.read1ByteTxRx(port, 1, 64) == (0, sdk.COMM_SUCCESS, 0)


def test_another_baud_rate_is_not_heard(emulator, client):
    port, handler = client
    port.setBaudRate(57600)
    assert handler.ping(port, 1)[1] == sdk.COMM_RX_TIMEOUT
    port.setBaudRate(BAUD)
    assert handler.ping(port, 1)[1] == sdk.COMM_SUCCESS


@pytest.mark.parametrize("name", MODELS)
def test_control_tables(name):
    line, model = Line((1, name)), MODELS[name]
    assert line.read(1, "model_number") == model.number
    assert line.read(1, "return_delay_time") == 250
    assert line.read(1, "operating_mode") == 3
    assert line.read(1, "velocity_limit") == model.velocity_limit
    assert line.read(1, "position_p_gain") == model.gains[0]
    if model.current_unit is not None:
        assert line.read(1, "current_limit") == model.max_current
        assert line.write(1, "operating_mode", 0) == 0
    else:
        assert line.write(1, "goal_current", 0) == protocol.ACCESS
        assert line.write(1, "operating_mode", 0) == protocol.DATA_RANGE


def test_errors():
    line = Line((1, "xl330-m288"))
    assert line.write(1, "present_position", 0) == protocol.ACCESS
    assert line.write(1, "torque_enable", 2) == protocol.DATA_RANGE
    assert line.ask(1, protocol.WRITE, b"\x74\x00\x00\x08")[0].error == protocol.DATA_LENGTH
    assert line.ask(1, protocol.READ, b"\x20\x03\x04\x00")[0].error == protocol.ACCESS
    assert line.ask(1, 0x33)[0].error == protocol.INSTRUCTION_ERROR
    assert line.ask(1, protocol.ACTION)[0].error == protocol.INSTRUCTION_ERROR
    assert line.write(1, "max_position_limit", 3000) == 0
    assert line.write(1, "goal_position", 3001) == protocol.DATA_LIMIT
    assert line.write(1, "torque_enable", 1) == 0
    assert line.write(1, "max_position_limit", 4000) == protocol.ACCESS  # locked
    assert line.write(1, "goal_current", 1751) == protocol.DATA_LIMIT
    broken = bytearray(encode(Packet(1, protocol.PING)))
    broken[-1] ^= 1
    ((_, answer),) = line.chain.receive(bytes(broken), line.now, BAUD)
    assert Decoder().feed(answer)[0].error == protocol.CRC_ERROR
    line.ask(1, protocol.WRITE, b"\x44\x00\x01")  # answers to reading only
    assert line.ask(1, protocol.WRITE, b"\x41\x00\x01") == []
    assert line.read(1, "led") == 1
    assert line.ask(protocol.BROADCAST, protocol.WRITE, b"\x41\x00\x00") == []
    assert line.read(1, "led") == 0


def test_a_hardware_error_switches_off_until_reboot():
    line = Line((1, "xl330-m288"))
    assert line.write(1, "torque_enable", 1) == 0
    line.chain[1].fail(5)
    assert line.read(1, "hardware_error_status") == 32
    assert line.read(1, "torque_enable") == 0
    assert line.write(1, "torque_enable", 1) == protocol.RESULT_FAIL | protocol.ALERT
    line.ask(1, protocol.REBOOT)
    line.wait(0.5)
    assert line.write(1, "torque_enable", 1) == 0


@pytest.mark.parametrize("mode", ["velocity", "position", "current"])
def test_the_bus_watchdog_of_the_manual(mode):
    """The e-manual's example: silence stops it, goals are refused until it is cleared."""
    line, number = Line((1, "xm430-w350")), {"velocity": 1, "position": 3, "current": 0}[mode]
    line.write(1, "operating_mode", number)
    line.write(1, "goal_current", 0)
    line.write(1, "torque_enable", 1)
    goal = {"velocity": ("goal_velocity", 50), "position": ("goal_position", 4000),
            "current": ("goal_current", 100)}[mode]  # fmt: skip
    line.write(1, *goal)
    line.write(1, "bus_watchdog", 5)
    line.wait(0.15)
    assert abs(line.chain[1].velocity) > 0.3
    line.wait(0.09, alive=False)
    assert line.chain[1].values["bus_watchdog"] == 5
    line.wait(0.6, alive=False)
    assert line.read(1, "bus_watchdog") == -1
    assert abs(line.chain[1].velocity) < 0.05
    assert line.write(1, *goal) == protocol.DATA_RANGE
    assert line.write(1, "bus_watchdog", 0) == 0
    assert line.write(1, *goal) == 0


def test_motor():
    """No-load speed, velocity control, current limit, and a shaft that stays with torque off."""
    line, model = Line((1, "xm430-w350")), MODELS["xm430-w350"]
    line.write(1, "operating_mode", 16)
    line.write(1, "torque_enable", 1)
    line.write(1, "goal_pwm", 885)
    line.wait(1.0)
    assert line.chain[1].velocity == pytest.approx(model.speed, rel=0.15)
    line.write(1, "torque_enable", 0)
    line.wait(3.0)
    assert line.chain[1].velocity == 0
    line.write(1, "operating_mode", 1)
    line.write(1, "torque_enable", 1)
    line.write(1, "goal_velocity", 100)
    line.wait(1.0)
    assert line.read(1, "present_velocity") == pytest.approx(100, abs=8)
    assert line.chain[1].velocity == pytest.approx(100 * SPEED, rel=0.08)
    line.write(1, "torque_enable", 0)
    line.write(1, "operating_mode", 5)
    line.write(1, "torque_enable", 1)
    line.write(1, "goal_current", 50)
    line.write(1, "goal_position", line.read(1, "present_position") + 3000)
    line.wait(0.5)
    assert abs(line.read(1, "present_current")) <= 51


@pytest.mark.parametrize("mode", MODES)
def test_what_limits_the_torque_at_standstill(mode):
    """The PWM Limit in every mode, the Current Limit in the two modes that control current."""
    line, model = Line((1, "xm430-w350")), MODELS["xm430-w350"]
    servo, at = line.chain[1], line.chain[1].angle
    step = servo.step

    def blocked(silence):
        step(silence)
        servo.angle, servo.velocity = at, 0.0

    servo.step = blocked
    by_current = 400 * model.torque_unit if mode in ("current", "current_position") else math.inf
    for limit, expected in ((400, by_current), (model.max_current, math.inf)):
        line.write(1, "torque_enable", 0)
        for name, value in (
            ("pwm_limit", 442), ("current_limit", limit), ("operating_mode", MODES[mode]),
            ("torque_enable", 1), ("goal_current", limit), ("goal_velocity", 150),
            ("goal_position", 4000),
        ):  # fmt: skip
            assert line.write(1, name, value) == 0
        line.wait(0.05)
        assert servo.torque == pytest.approx(min(expected, 442 / 885 * model.stall_torque))


def test_turns_are_forgotten_without_power():
    line = Line((1, "xl330-m288"))
    line.write(1, "operating_mode", 4)
    line.chain[1].angle = 5000 * ANGLE
    assert line.read(1, "present_position") == 5000
    line.ask(1, protocol.REBOOT)
    line.wait(0.5)
    assert line.read(1, "present_position") == 5000 - 4096
    line.chain[1].angle = 9000 * ANGLE
    assert line.ask(1, protocol.CLEAR, b"\x01DXL\x22")[0].error == 0
    assert line.read(1, "present_position") == 9000 - 2 * 4096


def test_a_missing_servo_silences_those_behind_it():
    line = Line((1, "xl330-m288"), (3, "xl330-m288"))
    answers = line.ask(protocol.BROADCAST, protocol.SYNC_READ, b"\x84\x00\x04\x00\x01\x02\x03")
    assert [a.id for a in answers] == [1]


def test_answers_take_their_time_on_the_wire():
    line = Line((1, "xl330-m288"), (2, "xl330-m288"))
    ask = encode(Packet(protocol.BROADCAST, protocol.SYNC_READ, b"\x84\x00\x04\x00\x01\x02"))
    first, second = (later for later, _ in line.chain.receive(ask, 0.0, BAUD))
    asked, each = len(ask) * 10 / BAUD, 0.0005 + 15 * 10 / BAUD
    assert first == pytest.approx(asked + each)
    assert second == pytest.approx(asked + 2 * each)
    line.chain.adapter = 0.001
    (third, _) = (later for later, _ in line.chain.receive(ask, 0.0001, BAUD))  # it must wait
    assert third == pytest.approx(second - 0.0001 + asked + each + 0.001)


def test_damage_rates():
    chain = Chain([Servo(1, MODELS["xl330-m288"])], corrupt=0.02, lose=0.03)
    data = bytes(200_000)
    damaged = chain.damage(data)
    assert len(damaged) == pytest.approx(0.97 * len(data), rel=0.01)
    assert sum(b != 0 for b in damaged) == pytest.approx(0.02 * len(damaged), rel=0.1)


def test_it_runs_by_itself(tmp_path):
    link = tmp_path / "arm"
    process = subprocess.Popen(
        [sys.executable, "-m", "motoric.hardware.dynamixel.emulator", "4:xl330-m077",
         "--baud", "57600", "--link", str(link)], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"port {link} at 57600 baud\n"
        port, handler = sdk.PortHandler(str(link)), sdk.PacketHandler(2.0)
        assert port.setBaudRate(57600)
        assert handler.ping(port, 4) == (1190, sdk.COMM_SUCCESS, 0)
        port.closePort()
    finally:
        process.kill()
        process.wait()
    done = subprocess.run(
        [sys.executable, "-m", "motoric.hardware.dynamixel.emulator", "4:xl999"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "'4:xl999': expected ID:MODEL, a model of xl330-m077" in done.stderr


def test_torque_constants_are_those_of_the_stall_point():
    model = MODELS["xl330-m288"]
    assert model.torque_unit == pytest.approx(0.001 * 0.52 / 1.47)
    assert math.isclose(MODELS["xl430-w250"].torque_unit, 0.0014)
