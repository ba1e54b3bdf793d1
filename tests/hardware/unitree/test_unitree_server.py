"""Simulated robots under programs of the SDK alone, in a process without any driver of ours."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = r"""
import sys, time
from unitree_sdk2py.comm.motion_switcher.motion_switcher_client import MotionSwitcherClient
from unitree_sdk2py.core.channel import (
    ChannelFactoryInitialize, ChannelPublisher, ChannelSubscriber,
)
from unitree_sdk2py.go2.sport.sport_client import SportClient
from unitree_sdk2py.idl.default import unitree_go_msg_dds__LowCmd_
from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_, LowState_, SportModeState_
from unitree_sdk2py.utils.crc import CRC

ChannelFactoryInitialize(int(sys.argv[1]), "lo")
crc, seen, body = CRC(), [], []
states = ChannelSubscriber("rt/lowstate", LowState_)
states.Init(lambda m: seen.append(m), 10)
sport_states = ChannelSubscriber("rt/sportmodestate", SportModeState_)
sport_states.Init(lambda m: body.append(m), 10)
publisher = ChannelPublisher("rt/lowcmd", LowCmd_)
publisher.Init()
STAND = [0.0, 0.67, -1.3] * 4
command = unitree_go_msg_dds__LowCmd_()
command.head[0], command.head[1], command.level_flag = 0xFE, 0xEF, 0xFF
for motor in command.motor_cmd:
    motor.mode, motor.q, motor.dq = 0x01, 2.146e9, 16000.0

def until(what, seconds=20.0):
    end = time.time() + seconds
    while not what():
        assert time.time() < end, "timed out"
        time.sleep(0.01)

def stand_up(seconds, checksum=0):
    start = [m.q for m in seen[-1].motor_state[:12]]
    begin = time.time()
    while time.time() - begin < seconds:
        share = min(1.0, (time.time() - begin) / (0.6 * seconds))
        for motor, a, b in zip(command.motor_cmd, start, STAND):
            motor.q, motor.dq = (1 - share) * a + share * b, 0.0
            motor.kp, motor.kd = 60.0, 5.0
        command.crc = crc.Crc(command) ^ checksum
        publisher.Write(command)
        time.sleep(0.004)
    return body[-1].position[2]

until(lambda: len(seen) > 5 and body)
state = seen[-1]
assert crc.Crc(state) == state.crc
assert abs(sum(x * x for x in state.imu_state.quaternion) - 1) < 1e-3
assert state.imu_state.quaternion[0] > 0.99, state.imu_state.quaternion
assert 9.0 < state.imu_state.accelerometer[2] < 10.6, state.imu_state.accelerometer
assert 0 < state.bms_state.soc <= 100 and 20 < state.power_v < 35
assert all(10 < m.temperature < 80 for m in state.motor_state[:12])
assert all(m.mode == 0 for m in state.motor_state[12:])

lying = body[-1].position[2]
assert lying < 0.15, lying
assert stand_up(1.5) < 0.15, "moved under the motion service"

switcher, sport = MotionSwitcherClient(), SportClient()
for client in (switcher, sport):
    client.SetTimeout(10.0)
    client.Init()
code, mode = switcher.CheckMode()
assert (code, mode["name"]) == (0, "normal"), (code, mode)
assert sport.StandUp() == 0
until(lambda: body[-1].position[2] > 0.22)
assert sport.StandDown() == 0
until(lambda: body[-1].position[2] < 0.15)
assert switcher.ReleaseMode()[0] == 0
code, mode = switcher.CheckMode()
assert (code, mode["name"]) == (0, ""), (code, mode)
assert sport.StandUp() != 0

assert stand_up(1.5, checksum=1) < 0.15, "moved by a command with a wrong checksum"
standing = stand_up(3.0)
assert standing > 0.25, standing
left = [m.q for m in seen[-1].motor_state[:12]]
assert max(abs(a - b) for a, b in zip(left, STAND)) < 0.25, left
until(lambda: body[-1].position[2] < 0.15)  # damped: no commands
stand_up(1.5)  # any valid command is taken up, as by the robot
torque = max(abs(m.tau_est) for m in seen[-1].motor_state[:12])
assert torque > 4, torque
ticks = [m.tick for m in seen]
assert all(b > a for a, b in zip(ticks, ticks[1:]))
print("stood", round(standing, 3))
"""


G1_PROGRAM = r"""
import sys, time
from unitree_sdk2py.comm.motion_switcher.motion_switcher_client import MotionSwitcherClient
from unitree_sdk2py.core.channel import (
    ChannelFactoryInitialize, ChannelPublisher, ChannelSubscriber,
)
from unitree_sdk2py.idl.default import unitree_hg_msg_dds__LowCmd_
from unitree_sdk2py.idl.unitree_hg.msg.dds_ import BmsState_, LowCmd_, LowState_
from unitree_sdk2py.utils.crc import CRC

ChannelFactoryInitialize(int(sys.argv[1]), "lo")
crc, seen, power = CRC(), [], []
states = ChannelSubscriber("rt/lowstate", LowState_)
states.Init(lambda m: seen.append(m), 10)
bms = ChannelSubscriber("rt/lf/bmsstate", BmsState_)
bms.Init(lambda m: power.append(m), 10)
publisher = ChannelPublisher("rt/lowcmd", LowCmd_)
publisher.Init()
ELBOW = 18

def until(what, seconds=20.0):
    end = time.time() + seconds
    while not what():
        assert time.time() < end, "timed out"
        time.sleep(0.01)

def bend(target, mode_machine, seconds=1.0):
    command = unitree_hg_msg_dds__LowCmd_()
    command.mode_machine, command.mode_pr = mode_machine, 0
    for index, motor in enumerate(command.motor_cmd[:29]):
        motor.mode, motor.q, motor.kp, motor.kd = 1, hold[index], 60.0, 2.0
    start, begin = seen[-1].motor_state[ELBOW].q, time.time()
    while time.time() - begin < seconds:
        share = min(1.0, (time.time() - begin) / (0.6 * seconds))
        command.motor_cmd[ELBOW].q = start + share * (target - start)
        command.crc = crc.Crc(command)
        publisher.Write(command)
        time.sleep(0.004)
    return seen[-1].motor_state[ELBOW].q

until(lambda: len(seen) > 5 and power)
state = seen[-1]
assert crc.Crc(state) == state.crc
assert power[-1].soc == 95
assert state.imu_state.quaternion[0] > 0.95, "it hangs upright"
assert all(m.mode == 0 for m in state.motor_state[29:])
hold = [m.q for m in state.motor_state]
switcher = MotionSwitcherClient()
switcher.SetTimeout(10.0)
switcher.Init()
assert switcher.ReleaseMode()[0] == 0
machine = state.mode_machine
# Without power the forearm hangs down, far from where it is sent.
assert abs(bend(0.2, machine + 1) - 0.2) > 0.3, "moved by a command for another machine"
bent = bend(0.2, machine, 2.0)
assert abs(bent - 0.2) < 0.2, bent
print("bent", round(bent, 2))
"""


def test_any_sdk_program_bends_the_elbow_of_a_g1(tmp_path, domain):
    assert "bent" in run_program("g1", G1_PROGRAM, tmp_path, str(domain))


def test_any_sdk_program_stands_it_up(tmp_path, domain):
    assert "stood" in run_program("go2", PROGRAM, tmp_path, str(domain))


def run_program(robot, code, tmp_path, domain: str) -> str:
    """What a program prints with a simulated robot beside it; it must end well."""
    program = tmp_path / "program.py"
    program.write_text(code)
    server = subprocess.Popen(
        [sys.executable, "-m", "motoric.hardware.unitree.server", robot, "--domain", domain],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        done = subprocess.run(
            [sys.executable, str(program), domain], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout
    finally:
        server.kill()
        server.wait()
        server.stdin.close()  # type: ignore[union-attr]
        server.stdout.close()  # type: ignore[union-attr]
