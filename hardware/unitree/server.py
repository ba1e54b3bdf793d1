"""A simulated Unitree robot on DDS: MuJoCo in real time behind the topics of SDK2.

`rt/lowcmd` in, `rt/lowstate` out at 500 Hz, `rt/sportmodestate` at 100 Hz (a G1 has
`rt/lf/bmsstate` at 20 Hz instead), and the services `motion_switcher` and `sport`, so that any SDK2
program can talk to it. The built-in motion service begins active, as on the robot: it holds the
robot lying (a G1: hanging), can be asked to stand it up or down, and low-level commands are ignored
until it is released. A command with a wrong checksum is dropped, and so is one to a G1 that does
not repeat its `mode_machine`. Without commands for 0.1 s the motors damp.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import signal
import sys
import threading
from typing import Any

import numpy as np
from motoric.control import rotation
from motoric.control.command import MotorCommand
from motoric.hardware.robot import RobotSpec
from motoric.hardware.simulated.body import Body, real_time
from motoric.hardware.simulated.recording import Recording
from motoric.hardware.simulated.stand_in import StandIn
from motoric.hardware.specs.b2 import B2
from motoric.hardware.specs.g1 import G1
from motoric.hardware.specs.go2 import GO2
from motoric.hardware.unitree.dds import Dds
from motoric.hardware.unitree.robot import B2_WIRE, G1_WIRE, GO2_WIRE, Wire, messages, rpc

TIMESTEP = 0.002  # s
WIRES: dict[str, Wire] = {"go2": GO2_WIRE, "b2": B2_WIRE, "g1": G1_WIRE}
MODE_MACHINE = 5  # of a G1 with 29 joints
AMBIENT = 35  # degrees Celsius of a motor at rest
RAMP = 1.5  # s to stand up or lie down
BUSY, RELEASE_FAILED = 7002, 7008
WRONG = ("stuck", "refuses", "treads")


class MotionService:
    """The built-in service: holds a pose, or damps, while it is active.

    wrong: what it does wrong (tests), one of `WRONG`: it does not let go of the motors; refuses to
        lie down; says that it lies down and treads instead
    """

    def __init__(self, spec: RobotSpec, wrong: str = "") -> None:
        self.spec, self.wrong = spec, wrong
        self.name = "normal"
        self.damps = self.treads = False
        self._from = self._to = spec.rest
        self._began = -np.inf

    def switch(self, api: int, parameter: dict[str, Any]) -> tuple[int, str]:
        """Requests to `motion_switcher`."""
        if api == rpc.CHECK_MODE:
            return 0, json.dumps({"form": "0", "name": self.name})
        if api == rpc.RELEASE_MODE:
            if self.wrong == "stuck":
                return RELEASE_FAILED, ""
            self.name = ""
            return 0, ""
        if api == rpc.SELECT_MODE:
            self.name, self.damps = str(parameter.get("name", "")) or "normal", True
            return 0, ""
        return rpc.NOT_IMPLEMENTED, ""

    def sport(self, now: float, position: np.ndarray, api: int) -> tuple[int, str]:
        """Requests to `sport`; now: simulated time, s."""
        if not self.name:
            return BUSY, ""
        if api == rpc.STAND_DOWN and self.wrong == "refuses":
            return rpc.NOT_IMPLEMENTED, ""
        if api == rpc.STAND_DOWN and self.wrong == "treads":
            self.treads = True
            return 0, ""
        if api in (rpc.STAND_UP, rpc.STAND_DOWN):
            self._from, self._began, self.damps = position.copy(), now, False
            self._to = self.spec.stand if api == rpc.STAND_UP else self.spec.rest
            return 0, ""
        if api == rpc.DAMP:
            self.damps = True
            return 0, ""
        return rpc.NOT_IMPLEMENTED, ""

    def command(self, now: float) -> MotorCommand | None:
        """What it wants of the motors; None: damping."""
        if self.damps:
            return None
        share = min(max((now - self._began) / RAMP, 0.0), 1.0)
        smooth = share * share * (3.0 - 2.0 * share)
        zero = np.zeros(len(self.spec.joints))
        target = self._from + smooth * (self._to - self._from)
        if self.treads:
            target = target + 0.1 * np.sin(2 * np.pi * now)
        return MotorCommand(target, zero, 2.0 * self.spec.kp, 2.0 * self.spec.kd, zero, now)


class SimulatedUnitree(StandIn):
    """The robot's side of the wire.

    battery: %; temperature: of the motors above that of the air, degrees Celsius
    corrupt, lose: share of states and of commands with a wrong checksum, or that vanish
    wrong: see `MotionService`; record: file for what its motors did
    damaged, ignored: commands dropped for their checksum; because the service was active
    """

    def __init__(
        self,
        spec: RobotSpec,
        interface: str,
        domain: int,
        battery: int = 95,
        temperature: int = AMBIENT,
        corrupt: float = 0.0,
        lose: float = 0.0,
        wrong: str = "",
        record: str | None = None,
    ) -> None:
        from unitree_sdk2py.idl.unitree_go.msg.dds_ import SportModeState_

        self.wire = WIRES[spec.name]
        self._go = self.wire.family is messages.GO
        if self._go:
            from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_, LowState_
        else:
            from unitree_sdk2py.idl.unitree_hg.msg.dds_ import BmsState_, LowCmd_, LowState_
        self.simulation = Body(spec, TIMESTEP)
        self.simulation.on = True
        self.service = MotionService(spec, wrong)
        self._battery, self._temperature = battery, temperature
        self._corrupt, self._lose = corrupt, lose
        self._rng = np.random.default_rng(0)
        self._motors = np.array(self.wire.motors)
        self.damaged = self.ignored = 0
        dds = self._dds = Dds(interface, domain)  # the topics live as long as it does
        self._commands = dds.reader("rt/lowcmd", LowCmd_)
        self._states = dds.writer("rt/lowstate", LowState_)
        if self._go:
            self._sport_states = dds.writer("rt/sportmodestate", SportModeState_)
        else:
            self._bms_states = dds.writer("rt/lf/bmsstate", BmsState_)
        self._services = (
            rpc.Server(dds, rpc.MOTION_SWITCHER, "1.0.0.1", self.service.switch),
            rpc.Server(dds, rpc.SPORT, "1.0.0.1", self._sport),
        )
        self._recording = None if record is None else Recording(record, self.simulation)
        pose = "lying" if self.wire.lies_down else "hanging on a rope"
        self.where = f"on {interface}, DDS domain {domain}: {pose}, its motion service active"
        self.reach = (f"interface={interface}",)
        self.model = self.simulation.model

    def pose(self) -> np.ndarray:
        return self.simulation.data.qpos.copy()

    def run(self, stop: threading.Event) -> None:
        for _ in real_time(TIMESTEP):
            if stop.is_set():
                return
            self.step()

    def _sport(self, api: int, parameter: dict[str, Any]) -> tuple[int, str]:
        return self.service.sport(self.simulation.time, self.simulation.state().position, api)

    def step(self) -> None:
        """One time step: requests and commands in, physics, states out."""
        simulation = self.simulation
        if simulation.steps % 5 == 0:
            for service in self._services:
                service.serve()
        self._take_command()
        if self.service.name:
            wish = self.service.command(simulation.data.time)
            simulation.command = wish
            simulation.commanded_at = simulation.data.time
        if self._recording is not None:
            name = self.service.name
            self._recording.step(f"motion service: {name}" if name else "")
        simulation.step()
        for data in self._damage([self._low_state()]):
            self._states.write(data)
        if self._go and simulation.steps % 5 == 0:
            self._sport_states.write(self._sport_state())
        if not self._go and simulation.steps % 25 == 0:
            bms = messages.HG_BMS.new()
            bms["soc"] = self._battery
            self._bms_states.write(messages.HG_BMS.encode(bms))

    def close(self) -> None:
        """Finish the recording, leave the domain."""
        if self._recording is not None:
            self._recording.close()
        for name in ("_commands", "_states", "_sport_states", "_bms_states", "_services", "_dds"):
            vars(self).pop(name, None)
        gc.collect()  # now, not while the interpreter ends, which Cyclone DDS does not survive

    def _take_command(self) -> None:
        for data in self._damage(self._commands.take()):
            try:
                message = self.wire.family.command.decode(data)
            except ValueError:
                self.damaged += 1
                continue
            if messages.crc(message) != int(message["crc"]) or not self._for_us(message):
                self.damaged += 1
            elif self.service.name:
                self.ignored += 1
            else:
                self.simulation.take(self._decode(message))

    def _for_us(self, message: np.ndarray) -> bool:
        """unitree_hg names the machine, and here the joints in series only."""
        return self._go or (message["mode_machine"], message["mode_pr"]) == (MODE_MACHINE, 0)

    def _decode(self, message: np.ndarray) -> MotorCommand:
        motor = message["motor_cmd"][self._motors]
        number = {n: motor[n].astype(np.float64) for n in ("q", "dq", "tau", "kp", "kd")}
        on = motor["mode"] == messages.SERVO
        for name in ("tau", "kp", "kd"):
            number[name] = np.where(on & np.isfinite(number[name]), number[name], 0.0)
        # A stop value means that this part of the control law is left out.
        follows = on & (np.abs(number["q"]) < 1e3)
        turns = on & (np.abs(number["dq"]) < messages.VELOCITY_STOP)
        return MotorCommand(
            position=np.where(follows, number["q"], 0.0),
            velocity=np.where(turns, number["dq"], 0.0),
            kp=np.where(follows, number["kp"], 0.0),
            kd=np.where(turns, number["kd"], 0.0),
            torque=number["tau"],
            time=self.simulation.data.time,
        )

    def _imu(self, imu: np.ndarray) -> None:
        data = self.simulation.data
        quaternion = data.qpos[3:7] / np.linalg.norm(data.qpos[3:7])
        imu["quaternion"], imu["gyroscope"] = quaternion, data.qvel[3:6]
        felt = data.qacc[:3] - self.simulation.model.opt.gravity
        imu["accelerometer"] = rotation.rotate_inverse(quaternion, felt)
        imu["rpy"] = rotation.to_euler(quaternion)
        imu["temperature"] = AMBIENT

    def _low_state(self) -> bytes:
        layout, state = self.wire.family.state, self.simulation.state()
        message = layout.new()
        self._imu(message["imu_state"])
        motor = message["motor_state"]
        motor["mode"][self._motors] = messages.SERVO
        motor["q"][self._motors], motor["dq"][self._motors] = state.position, state.velocity
        motor["tau_est"][self._motors] = state.torque
        motor["temperature"][self._motors] = self._temperature
        if self._go:
            message["head"], message["level_flag"] = messages.HEAD, messages.LOW_LEVEL
            message["bms_state"]["soc"] = self._battery
            message["power_v"] = 25.2 + 0.04 * self._battery
            message["power_a"] = 1.0 + 0.05 * np.abs(state.torque).sum()
        else:
            message["mode_machine"] = MODE_MACHINE
        message["tick"] = round(state.time * 1e3) % 2**32
        return messages.seal(layout, message)

    def _damage(self, given: list[bytes]) -> list[bytes]:
        """Messages as they come out at the other end of the wire."""
        kept = []
        for data in given:
            draw = self._rng.random()
            if draw < self._corrupt:
                changed = bytearray(data)
                changed[self._rng.integers(4, len(changed))] ^= 0x10
                kept.append(bytes(changed))
            elif draw < 1.0 - self._lose:
                kept.append(data)
        return kept

    def _sport_state(self) -> bytes:
        data = self.simulation.data
        message = messages.SPORT_STATE.new()
        message["sec"], message["nanosec"] = int(data.time), int(data.time % 1 * 1e9)
        self._imu(message["imu_state"])
        message["position"], message["velocity"] = data.qpos[:3], data.qvel[:3]
        message["body_height"], message["yaw_speed"] = data.qpos[2], data.qvel[5]
        return messages.SPORT_STATE.encode(message)


def _simulated(
    spec: RobotSpec,
    options: dict[str, Any],
    interface: str = "lo",
    lose: float = 0.0,
    corrupt: float = 0.0,
    record: str | None = None,
) -> SimulatedUnitree:
    """In the place of the robot of these driver's options."""
    return SimulatedUnitree(
        spec, interface, int(options["domain"]), lose=lose, corrupt=corrupt, record=record
    )


go2, b2, g1 = (functools.partial(_simulated, spec) for spec in (GO2, B2, G1))


def main() -> None:
    """A robot for tests and tools: says `ready`, ends when its standard input closes."""
    from motoric.hardware.drivers import ROBOTS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("robot", choices=sorted(WIRES))
    parser.add_argument("--interface", default="lo")
    parser.add_argument("--domain", type=int, default=0)
    parser.add_argument("--battery", type=int, default=95, help="%%")
    parser.add_argument("--temperature", type=int, default=AMBIENT, help="degrees Celsius")
    parser.add_argument("--corrupt", type=float, default=0.0, help="share of damaged states")
    parser.add_argument("--wrong", choices=WRONG, default="", help="what the service does wrong")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    robot = SimulatedUnitree(
        ROBOTS[options.robot], options.interface, options.domain, options.battery,
        options.temperature, options.corrupt, wrong=options.wrong,
    )  # fmt: skip

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
    print("ready", flush=True)
    robot.run(threading.Event())


if __name__ == "__main__":
    main()
