"""The log is MCAP, survives a kill, and a full disk never stops the robot."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from mcap.reader import make_reader
from motoric.control.command import MotorCommand
from motoric.hardware.robot import RobotState
from motoric.hardware.runtime.log import LogError, LogWriter, read_log

GOALS = {
    10: {"source": "fixed", "values": {"velocity": np.array([0.5, 0.0, 0.1]), "text": "go"}},
    50: {"source": "keyboard", "values": {"velocity": np.array([0.2, 0.0, 0.0]), "text": "stop"}},
}


def write(path, ticks=100):
    log = LogWriter(path, {"robot": "go2", "rate": "50"})
    rng = np.random.default_rng(0)
    for tick in range(ticks):
        state = RobotState(
            tick * 0.02, tick, *rng.normal(size=(3, 12)), np.array([1.0, 0, 0, 0]),
            np.zeros(3), np.array([0.5, 0, tick]), 0.3,
        )  # fmt: skip
        sent = MotorCommand(*rng.normal(size=(5, 12)))
        policy = {"observation": np.zeros(4), "action": None, "seconds": None}
        acts = tick > 9
        log.tick(
            10 + tick * 0.02, tick, state, sent, policy if acts else None,
            {"mode": "active" if tick < 90 else "stopping", "reason": "", "late": 0.0},
            wish=MotorCommand(*np.full((5, 12), float(tick))) if acts else None,
            goal=GOALS.get(tick),
        )  # fmt: skip
    log.close()
    return log


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "log.mcap"
    assert write(path).error is None
    log = read_log(path)
    assert log.robot == "go2"
    assert log.metadata["rate"] == "50"
    np.testing.assert_allclose(log.times, np.arange(100) * 0.02, atol=1e-6)
    np.testing.assert_array_equal(log.base_velocity[:, 2], np.arange(100))
    assert log.position.shape == log.command.position.shape == log.wish.kp.shape == (100, 12)
    np.testing.assert_allclose(log.robot_time, np.arange(100) * 0.02)
    np.testing.assert_array_equal(log.sequence, np.arange(100))
    for quantity in ("position", "velocity", "kp", "kd", "torque"):
        wish = getattr(log.wish, quantity)
        assert np.isnan(wish[:10]).all(), "no action, no wish"
        np.testing.assert_array_equal(wish[10:, 3], np.arange(10, 100))
        assert np.isfinite(getattr(log.command, quantity)).all()
    velocity = log.goal["velocity"]
    assert np.isnan(velocity[9]).all()
    np.testing.assert_array_equal(velocity[10:50], [[0.5, 0.0, 0.1]] * 40)
    np.testing.assert_array_equal(velocity[50:90], [[0.2, 0.0, 0.0]] * 40)
    assert np.isnan(velocity[90:]).all(), "it lies down"
    assert list(log.goal["text"][[9, 10, 49, 50, 90]]) == ["", "go", "go", "stop", ""]
    assert [log.source[i] for i in (9, 10, 50, 90)] == ["", "fixed", "keyboard", ""]
    assert log.status[0] == "active"
    assert log.timing is None


def test_any_mcap_tool_reads_it(tmp_path):
    write(tmp_path / "log.mcap")
    with open(tmp_path / "log.mcap", "rb") as file:
        reader = make_reader(file)
        summary = reader.get_summary()
        assert summary is not None
        topics = {c.topic: c.message_encoding for c in summary.channels.values()}
        kinds = ("/state", "/wish", "/command", "/policy", "/goal", "/status", "/timing")
        assert topics == dict.fromkeys(kinds, "json")
        counts = {}
        for schema, channel, message in reader.iter_messages():
            assert schema.encoding == "jsonschema"
            json.loads(message.data)
            counts[channel.topic] = counts.get(channel.topic, 0) + 1
    ticks = dict.fromkeys(("/state", "/command", "/status"), 100)
    assert counts == ticks | {"/policy": 90, "/wish": 90, "/goal": 2}


def test_the_topics_hold_what_they_always_hold(tmp_path):
    """The keys that other tools read; a picture is told by its shape."""
    log = LogWriter(tmp_path / "log.mcap", {"robot": "go2"})
    state = RobotState(
        7.25, 41, *np.zeros((3, 2)), np.array([1.0, 0, 0, 0]), np.zeros(3), battery=50.0,
        sensors={"wrist": np.array([1.0, 2.0]), "camera": np.zeros((48, 64, 3), np.uint8)},
    )  # fmt: skip
    sent = MotorCommand(*np.ones((5, 2)), 12.5, 3)
    policy = {"observation": {"a": np.zeros((1, 2))}, "action": np.zeros(2), "seconds": 0.01,
              "periods_old": 2}  # fmt: skip
    status = {"mode": "active", "reason": "", "late": 0.001}
    log.tick(1.0, 0, state, sent, policy, status, wish=sent, goal=GOALS[10])
    log.close()
    with open(tmp_path / "log.mcap", "rb") as file:
        found = {c.topic: json.loads(m.data) for _, c, m in make_reader(file).iter_messages()}
    command = {"position": [1, 1], "velocity": [1, 1], "kp": [1, 1], "kd": [1, 1],
               "torque": [1, 1], "time": 12.5, "sequence": 3}  # fmt: skip
    assert found == {
        "/state": {
            "tick": 0, "time": 7.25, "sequence": 41, "position": [0, 0], "velocity": [0, 0],
            "torque": [0, 0], "orientation": [1, 0, 0, 0], "angular_velocity": [0, 0, 0],
            "base_velocity": [None] * 3, "base_height": None, "battery": 50, "temperature": [],
            "sensors": {"wrist": [1, 2], "camera": {"shape": [48, 64, 3], "dtype": "uint8"}},
        },
        "/wish": {"tick": 0} | command,
        "/command": {"tick": 0} | command,
        "/policy": {"tick": 0, "observation": {"a": [[0, 0]]}, "action": [0, 0], "seconds": 0.01,
                    "periods_old": 2},
        "/goal": {"tick": 0, "source": "fixed",
                  "values": {"velocity": [0.5, 0, 0.1], "text": "go"}},
        "/status": {"tick": 0, "mode": "active", "reason": "", "late": 0.001},
    }  # fmt: skip


WRITER = """
import sys, time, numpy as np
from motoric.hardware.runtime.log import LogWriter
from motoric.hardware.robot import RobotState
from motoric.control.command import MotorCommand
log = LogWriter(sys.argv[1], {"robot": "go2"})
for tick in range(100000):
    state = RobotState(tick * 0.001, tick, *np.random.normal(size=(3, 12)), np.ones(4), np.ones(3))
    log.tick(time.monotonic(), tick, state, MotorCommand(*np.random.normal(size=(5, 12))), None,
             {"mode": "active", "reason": "", "late": 0.0})
    time.sleep(0.001)
"""


def test_a_killed_process_leaves_a_readable_log(tmp_path):
    path = tmp_path / "log.mcap"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not path.exists() or path.stat().st_size < 200_000):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    log = read_log(path)
    assert len(log.times) > 50
    assert log.robot == "go2"


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_cut_off_log_is_read_up_to_there(tmp_path, share):
    path = tmp_path / "log.mcap"
    write(path, 1000)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert len(read_log(path).times) > 1000 * share * 0.5


@pytest.mark.parametrize("content", [b"", b"nonsense", os.urandom(5000), None])
def test_not_a_log_is_one_line(tmp_path, content):
    path = tmp_path / "log.mcap"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LogError) as error:
        read_log(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_full_disk_ends_the_log_only():
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    log = LogWriter.__new__(LogWriter)
    import builtins
    from unittest import mock

    real = builtins.open
    with mock.patch("builtins.open", lambda path, mode, **k: real("/dev/full", "wb", **k)):
        log.__init__("full.mcap", {"robot": "go2"})
    for tick in range(200):
        log.tick(tick * 0.02, tick, None, MotorCommand(*np.zeros((5, 12))), None,
                 {"mode": "active", "reason": "", "late": 0.0})  # fmt: skip
    log.close()
    assert log.error is not None
    assert "No space" in log.error


def test_an_existing_log_is_never_overwritten(tmp_path):
    write(tmp_path / "log.mcap", 3)
    with pytest.raises(LogError, match="exists"):
        LogWriter(tmp_path / "log.mcap", {})


def test_what_was_not_measured_is_null_in_json(tmp_path):
    log = LogWriter(tmp_path / "log.mcap", {"robot": "go2"})
    state = RobotState(0.0, 1, *np.zeros((3, 12)), np.ones(4), np.ones(3))
    state.velocity[3] = -np.inf
    status = {"mode": "fault", "reason": "action: NaN, [NaN]", "late": 0.0}
    log.tick(0.0, 0, state, MotorCommand(*np.zeros((5, 12))), None, status)
    log.timing({"ticks": 1})
    log.close()
    with open(tmp_path / "log.mcap", "rb") as file:
        texts = [m.data.decode() for _, _, m in make_reader(file).iter_messages()]

    def refuse(constant):
        raise AssertionError(constant)

    for text in texts:
        json.loads(text, parse_constant=refuse)
    read = read_log(tmp_path / "log.mcap")
    assert np.isnan(read.base_velocity).all()
    assert np.isnan(read.base_height).all()
    assert np.isnan(read.velocity[0, 3])
    assert read.timing == {"tick": -1, "ticks": 1}


def test_a_disk_that_takes_nothing_does_not_fill_the_memory(tmp_path, monkeypatch):
    stuck = threading.Event()

    class Disk(io.BytesIO):
        def write(self, data):
            stuck.wait()
            return super().write(data)

    monkeypatch.setattr("builtins.open", lambda *a, **k: Disk())
    log = LogWriter(tmp_path / "log.mcap", {"robot": "go2"})
    monkeypatch.undo()
    monkeypatch.setattr("motoric.hardware.runtime.log.WAITING", 50)
    status = {"mode": "off", "reason": "", "late": 0.0}
    for tick in range(100):
        log.tick(time.monotonic(), tick, None, MotorCommand(*np.zeros((5, 12))), None, status)
    assert log.error == "log: the disk is too slow, 50 ticks are waiting"
    assert log._queue.qsize() == 50
    stuck.set()
    log.close()
