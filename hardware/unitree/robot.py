"""Unitree robots over SDK2: low-level motor commands and states on DDS (`motoric[unitree]`).

The robots differ in a `Wire`: which messages they speak and which motor moves which joint. The
driver sends the last command again and again at 500 Hz, as Unitree's programs do; when no new
one came for 0.1 s it damps the motors instead, and stays so until it is activated anew.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import dataclass

import numpy as np
from motoric.control import rotation
from motoric.control.command import MotorCommand
from motoric.hardware.robot import (
    Array,
    MotorsDamped,
    Robot,
    RobotError,
    RobotSpec,
    RobotState,
    command_problem,
)
from motoric.hardware.specs.b2 import B2
from motoric.hardware.specs.g1 import G1
from motoric.hardware.specs.go2 import GO2
from motoric.hardware.unitree import messages, rpc
from motoric.hardware.unitree.dds import Dds, DdsError, Reader, Writer

PERIOD = 0.002  # s between commands on the wire
STALE = 0.1  # s without a new command until the motors are damped
DAMP_SECONDS = 1.0  # damped before the motors are switched off
HEAR_SECONDS = 5.0  # to find the robot
RELEASE_SECONDS = 15.0  # for the built-in motion service to let go
STILL_SECONDS = 7.0  # of them, to come to rest lying down
CALL_SECONDS = 3.0  # for an answer of a service
NEAR_REST = 0.8  # rad from the rest pose a joint of a lying robot may be: its hips lie as they fall

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wire:
    """What a robot speaks.

    family: its messages
    motors: the motor of each joint of the spec, [J]
    lies_down: its motion service lies it down when asked, before it is released
    """

    family: messages.Family
    motors: tuple[int, ...]
    lies_down: bool


# Motors are counted FR, FL, RR, RL; our joints FL, FR, RL, RR.
LEGGED = (3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8)
GO2_WIRE = Wire(messages.GO, LEGGED, lies_down=True)
B2_WIRE = Wire(messages.GO, LEGGED, lies_down=True)
G1_WIRE = Wire(messages.HG, tuple(range(29)), lies_down=False)


def encode_command(
    wire: Wire, mode_machine: int, position: Array, velocity: Array, kp: Array, kd: Array,
    torque: Array, mode: int = messages.SERVO,
) -> bytes:  # fmt: skip
    """A command [J] as bytes for `rt/lowcmd`; motors without a joint stay off.

    Without stiffness the position is PosStopF, without damping the velocity VelStopF.
    """
    message = messages.new_command(wire.family, mode_machine)
    motor, index = message["motor_cmd"], np.array(wire.motors)
    motor["mode"][index] = mode
    motor["q"][index] = np.where(kp > 0, position, messages.POSITION_STOP)
    motor["dq"][index] = np.where(kd > 0, velocity, messages.VELOCITY_STOP)
    motor["tau"][index], motor["kp"][index], motor["kd"][index] = torque, kp, kd
    return messages.seal(wire.family.command, message)


def decode_state(wire: Wire, message: np.ndarray) -> RobotState:
    """A message of `rt/lowstate` as a measurement; time and sequence are the robot's own tick."""
    motor, imu = message["motor_state"][np.array(wire.motors)], message["imu_state"]
    tick = int(message["tick"])
    temperature = motor["temperature"].astype(np.float64)
    go = wire.family is messages.GO
    return RobotState(
        time=tick * 1e-3,
        sequence=tick,
        position=motor["q"].astype(np.float64),
        velocity=motor["dq"].astype(np.float64),
        torque=motor["tau_est"].astype(np.float64),
        orientation=imu["quaternion"].astype(np.float64),  # (w, x, y, z), as ours
        angular_velocity=imu["gyroscope"].astype(np.float64),
        battery=float(message["bms_state"]["soc"]) if go else float("nan"),
        temperature=temperature if temperature.ndim == 1 else temperature.max(axis=1),
    )


class UnitreeRobot(Robot):
    """One robot on one network interface.

    interface: of this computer, the one the robot is on; domain: of DDS
    min_battery: %, max_temperature: degrees Celsius of any motor: beyond these it is not switched
        on, and says so once while it runs
    hear_seconds: how long `configure` waits for the robot
    damaged: states dropped for their checksum
    Raises ValueError for a number out of its range; 0 % and 200 degrees switch those checks off.
    """

    loop_rate = 500.0

    def __init__(
        self,
        spec: RobotSpec,
        wire: Wire,
        interface: str | None = None,
        domain: int = 0,
        min_battery: float = 20.0,
        max_temperature: float = 80.0,
        hear_seconds: float = HEAR_SECONDS,
    ) -> None:
        if isinstance(domain, bool) or not isinstance(domain, int) or not 0 <= domain <= 232:
            raise ValueError(f"domain: {domain!r}, expected a whole number from 0 to 232")
        for key, value, low, high in (
            ("min_battery", min_battery, 0, 100), ("max_temperature", max_temperature, 0, 200),
            ("hear_seconds", hear_seconds, 0.1, 600),
        ):  # fmt: skip
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not low <= value <= high:  # NaN too
                raise ValueError(f"{key}: {value!r}, expected a number from {low} to {high}")
        self.spec, self.wire = spec, wire
        self.interface, self.domain = interface, domain
        self.min_battery, self.max_temperature = min_battery, max_temperature
        self.hear_seconds = hear_seconds
        self.damaged = 0
        self._dds: Dds | None = None
        self._states: Reader | None = None
        self._commands: Writer | None = None
        self._sport: Reader | None = None
        self._bms: Reader | None = None
        self._switcher: rpc.Client | None = None
        self._sport_service: rpc.Client | None = None
        self._state: RobotState | None = None
        self._message: np.ndarray | None = None
        self._velocity: tuple[float, Array, float] | None = None
        self._battery = float("nan")
        self._warned = False
        self._kd = spec.blind_damping
        # Shared with the sending thread, under the lock:
        self._lock = threading.Lock()
        self._sender: threading.Thread | None = None
        self._sending = False
        self._bytes = b""
        self._fresh = 0.0  # when the command was given, s; infinite: hold it
        self._lapsed = False
        self._error = ""

    # -- connection -------------------------------------------------------------------------

    def configure(self) -> None:
        if self.interface is None:
            raise RobotError(f"interface: missing, name the one {self.spec.name} is on, e.g. eth0")
        self.close()
        try:
            import cyclonedds  # noqa: F401
            import unitree_sdk2py  # noqa: F401
        except ImportError as error:
            raise RobotError(
                f"{self.spec.name}: {error.name} is missing, pip install 'motoric[unitree]'"
            ) from None
        from unitree_sdk2py.idl.unitree_go.msg.dds_ import SportModeState_

        go = self.wire.family is messages.GO
        if go:
            from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_, LowState_
        else:
            from unitree_sdk2py.idl.unitree_hg.msg.dds_ import BmsState_, LowCmd_, LowState_
        try:
            dds = self._dds = Dds(self.interface, self.domain)
        except DdsError as error:
            raise RobotError(str(error)) from None
        self._states = dds.reader("rt/lowstate", LowState_)
        self._commands = dds.writer("rt/lowcmd", LowCmd_)
        if go:
            self._sport = dds.reader("rt/sportmodestate", SportModeState_)
        else:
            self._bms = dds.reader("rt/lf/bmsstate", BmsState_)
        self._switcher = rpc.Client(dds, rpc.MOTION_SWITCHER)
        self._sport_service = rpc.Client(dds, rpc.SPORT)
        try:
            self._hear()
        except RobotError:
            self.close()
            raise

    def _hear(self) -> None:
        """Wait for states, and check that they are of this robot."""
        assert self._dds is not None
        assert self._states is not None
        assert self._commands is not None
        where = f"{self.interface} (DDS domain {self.domain})"
        until = time.monotonic() + self.hear_seconds
        while self._message is None or not self._commands.readers:
            if time.monotonic() > until:
                break
            self._receive()
            time.sleep(0.01)
        if self._message is None:
            spoken = self._dds.types("rt/lowstate")
            family = self.wire.family.name
            if spoken and not any(family in name for name in spoken):
                other = sorted(spoken)[0].split("::")[0].split(".")[0]
                raise RobotError(
                    f"the robot on {where} speaks {other!r}, {self.spec.name} speaks {family!r}"
                )
            if self.damaged:
                raise RobotError(f"{self.spec.name}: {self.damaged} states on {where}, all damaged")
            raise RobotError(
                f"no {self.spec.name} heard on {where} within {self.hear_seconds:.0f} s"
            )
        if not self._commands.readers:
            raise RobotError(f"{self.spec.name} on {where} takes no commands on rt/lowcmd")
        if self._states.writers > 1:
            raise RobotError(f"{self._states.writers} robots on {where}, expected one")
        motor = self._message["motor_state"]
        alive = np.zeros(len(motor), bool)
        for name in ("mode", "q", "dq", "temperature"):
            value = motor[name] != 0
            alive |= value if value.ndim == 1 else value.any(axis=1)
        wanted = np.zeros(len(motor), bool)
        wanted[list(self.wire.motors)] = True
        if (alive != wanted).any():
            index = int(np.argmax(alive != wanted))
            what = "answers and should not exist" if alive[index] else "does not answer"
            raise RobotError(
                f"the robot on {where} has {alive.sum()} motors, {self.spec.name} has "
                f"{wanted.sum()}: motor {index} {what}"
            )

    def close(self) -> None:
        self._stop_sending()
        self._states = self._commands = self._sport = self._bms = None
        self._switcher = self._sport_service = None
        self._dds = None
        self._state, self._message, self._velocity = None, None, None

    # -- control ----------------------------------------------------------------------------

    def activate(self) -> None:
        """Check battery and temperatures, release the motion service, damp the motors.

        Raises RobotError, with the motors as they were, where that is refused.
        """
        if self._commands is None:
            raise RobotError(f"{self.spec.name} is not connected")
        state = self.read()
        problem = self._health(state)
        if problem is not None:
            raise RobotError(f"{self.spec.name}: {problem}")
        self._release()
        with self._lock:
            self._bytes, self._fresh = self._damped(), time.monotonic()
            self._sending, self._lapsed, self._error = True, False, ""
        if self._sender is None:
            self._sender = threading.Thread(target=self._send, daemon=True)
            self._sender.start()

    def _health(self, state: RobotState) -> str | None:
        if state.battery < self.min_battery:
            return f"battery at {state.battery:.0f} %, at least {self.min_battery:.0f} % expected"
        hot = state.temperature.max()
        if hot > self.max_temperature:
            joint = self.spec.joints[int(np.argmax(state.temperature))]
            return f"{joint} at {hot:.0f} degrees, at most {self.max_temperature:.0f} expected"
        return None

    def _release(self) -> None:
        """Have the built-in motion service lie the robot down and let go of the motors.

        Raises RobotError, with the service as it was, where the robot does not lie still.
        """
        assert self._switcher is not None
        assert self._sport_service is not None
        until = time.monotonic() + RELEASE_SECONDS
        lain, code, name = False, 0, ""
        while time.monotonic() < until:
            code, data = self._switcher.call(rpc.CHECK_MODE, {}, CALL_SECONDS)
            if code == rpc.TIMEOUT:
                break
            if code == 0:
                try:
                    name = str(json.loads(data)["name"])
                except (ValueError, KeyError, TypeError):
                    raise RobotError(
                        f"{self.spec.name}: the motion switcher answers {data[:80]!r}"
                    ) from None
                if not name:
                    return
                if self.wire.lies_down and not lain:
                    self._lie_down()
                    lain = True
                code, _ = self._switcher.call(rpc.RELEASE_MODE, {}, CALL_SECONDS)
            time.sleep(0.2)
        if code == rpc.TIMEOUT:
            raise RobotError(f"{self.spec.name}: its motion switcher does not answer")
        raise RobotError(
            f"{self.spec.name}: its motion service {name!r} can't be released (code {code}); "
            "stop it by hand, then try again"
        )

    def _lie_down(self) -> None:
        """Released standing it would collapse. Raises RobotError where it does not lie still."""
        assert self._sport_service is not None
        code, _ = self._sport_service.call(rpc.STAND_DOWN, {}, CALL_SECONDS)
        still, off = self._wait_until_still(), np.abs(self.read().position - self.spec.rest)
        far = int(np.argmax(off))
        if not still:
            why = f"it does not come to rest within {STILL_SECONDS:.0f} s"
        elif code != 0 and off[far] > NEAR_REST:
            why = f"{self.spec.joints[far]} is {off[far]:.2f} rad from its rest"
        else:
            return
        raise RobotError(
            f"{self.spec.name} did not lie down (code {code}): {why}; lay it down by hand (with "
            "the app or the remote), then try again"
        )

    def _wait_until_still(self) -> bool:
        """Whether it comes to rest, by states that go on coming."""
        until = time.monotonic() + STILL_SECONDS
        still_since, sequence = time.monotonic() + 0.3, None
        while time.monotonic() < until:
            state = self.read()
            if state.sequence == sequence or np.abs(state.velocity).max() > 0.1:
                still_since = time.monotonic()
            sequence = state.sequence
            if time.monotonic() - still_since > 0.5:
                return True
            time.sleep(0.02)
        return False

    def read(self) -> RobotState:
        if self._states is None:
            raise RobotError(f"{self.spec.name} is not connected")
        if self._error:
            raise RobotError(f"{self.spec.name}: {self._error}")
        self._receive()
        if self._state is None:
            raise RobotError(f"{self.spec.name}: no state yet")
        if self._sending and not self._warned:
            problem = self._health(self._state)
            if problem is not None:
                log.warning("%s: %s", self.spec.name, problem)
                self._warned = True
        return self._state

    def _receive(self) -> None:
        """Take what has arrived; the newest sound state is kept."""
        assert self._states is not None
        self._receive_extras()
        for data in self._states.take():
            try:
                message = self.wire.family.state.decode(data)
            except ValueError:
                self.damaged += 1
                continue
            if messages.crc(message) != int(message["crc"]):
                self.damaged += 1
                continue
            state = decode_state(self.wire, message)
            if self._bms is not None:
                state.battery = self._battery
            if self._velocity is not None and time.monotonic() - self._velocity[0] < STALE:
                velocity = rotation.rotate_inverse(state.orientation, self._velocity[1])
                state.base_velocity = velocity
                state.base_height = self._velocity[2]
            self._message, self._state = message, state

    def _receive_extras(self) -> None:
        if self._sport is not None:
            for data in self._sport.take():
                sport = messages.SPORT_STATE.decode(data)
                velocity = sport["velocity"].astype(np.float64)
                self._velocity = time.monotonic(), velocity, float(sport["position"][2])
        if self._bms is not None:
            for data in self._bms.take():
                self._battery = float(messages.HG_BMS.decode(data)["soc"])

    def write(self, command: MotorCommand) -> None:
        if not self._sending:
            raise RobotError(f"{self.spec.name} is not active")
        if self._error:
            raise RobotError(f"{self.spec.name}: {self._error}")
        wrong = command_problem(command, self.spec)
        if wrong is not None:
            raise RobotError(f"{self.spec.name}: command: {wrong}")
        data = encode_command(
            self.wire, self._mode_machine, command.position, command.velocity, command.kp,
            command.kd, command.torque,
        )  # fmt: skip
        with self._lock:
            # Also where the whole process was stopped, and the sender has not woken up yet.
            self._lapsed |= time.monotonic() - self._fresh > STALE
            if not self._lapsed:
                self._bytes, self._fresh = data, time.monotonic()
                if self._sending:
                    self._transmit()
                return
            self._bytes = self._damped()
        if not command.damps:
            raise MotorsDamped(
                f"{self.spec.name}: no command for {STALE} s, its motors are damped; activate it"
            )

    @property
    def joints(self) -> int:
        return len(self.spec.joints)

    def deactivate(self) -> None:
        if not self._sending:
            return
        with self._lock:
            # The sender goes on with it by itself: this is not a command that may lapse.
            self._bytes, self._fresh, self._lapsed = self._damped(), float("inf"), True
        time.sleep(DAMP_SECONDS)
        with self._lock:
            zero = np.zeros(self.joints)
            self._bytes = encode_command(
                self.wire, self._mode_machine, zero, zero, zero, zero, zero, messages.OFF
            )
        time.sleep(0.1)
        self._stop_sending()

    # -- the sending thread -----------------------------------------------------------------

    @property
    def _mode_machine(self) -> int:
        if self.wire.family is messages.GO or self._message is None:
            return 0
        return int(self._message["mode_machine"])

    def _damped(self) -> bytes:
        zero = np.zeros(self.joints)
        return encode_command(self.wire, self._mode_machine, zero, zero, zero, self._kd, zero)

    def _transmit(self) -> None:
        assert self._commands is not None
        try:
            self._commands.write(self._bytes)
        except Exception as error:  # whatever the DDS library raises
            self._error = f"can't send: {error}"
        self._sent = time.monotonic()

    _sent = 0.0

    def _send(self) -> None:
        self.realtime.enter(above=-1)
        due = time.monotonic()
        damped = self._damped()
        while True:
            due = max(due + PERIOD, time.monotonic() - PERIOD)
            time.sleep(max(0.0, due - time.monotonic()))
            with self._lock:
                if not self._sending:
                    return
                now = time.monotonic()
                if now - self._fresh > STALE and not self._lapsed:
                    self._bytes, self._lapsed = damped, True
                if now - self._sent >= 0.75 * PERIOD:
                    self._transmit()

    def _stop_sending(self) -> None:
        with self._lock:
            self._sending = False
        if self._sender is not None:
            self._sender.join(1.0)
            self._sender = None


def go2(interface: str | None = None, **options: float) -> UnitreeRobot:
    return UnitreeRobot(GO2, GO2_WIRE, interface, **options)  # pyright: ignore


def b2(interface: str | None = None, **options: float) -> UnitreeRobot:
    return UnitreeRobot(B2, B2_WIRE, interface, **options)  # pyright: ignore


def g1(interface: str | None = None, **options: float) -> UnitreeRobot:
    return UnitreeRobot(G1, G1_WIRE, interface, **options)  # pyright: ignore
