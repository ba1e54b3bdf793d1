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
from motoric.control.supervisor import SafeCommand
from motoric.hardware.robot import RobotState
from motoric.hardware.runtime.log import LogError, LogWriter, read_log


def write(path, ticks=100):
    log = LogWriter(path, {"robot": "go2", "rate": "50"})
    rng = np.random.default_rng(0)
    for tick in range(ticks):
        state = RobotState(
            tick * 0.02, tick, *rng.normal(size=(3, 12)), np.array([1.0, 0, 0, 0]),
            np.zeros(3), np.array([0.5, 0, tick]), 0.3,
        )  # fmt: skip
        sent = SafeCommand(*rng.normal(size=(5, 12)))
        policy = {"observation": np.zeros(4), "action": None, "seconds": None,
                  "command": np.array([0.5, 0.0, 0.1])}  # fmt: skip
        log.tick(10 + tick * 0.02, tick, state, sent, policy if tick > 9 else None,
                 {"mode": "active", "reason": "", "late": 0.0})  # fmt: skip
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
    assert log.position.shape == log.target.shape == log.kp.shape == (100, 12)
    assert np.isnan(log.command[9]).all()
    np.testing.assert_array_equal(log.command[10], [0.5, 0.0, 0.1])
    assert log.status[0] == "active"
    assert log.timing is None


def test_any_mcap_tool_reads_it(tmp_path):
    write(tmp_path / "log.mcap")
    with open(tmp_path / "log.mcap", "rb") as file:
        reader = make_reader(file)
        summary = reader.get_summary()
        assert summary is not None
        topics = {c.topic: c.message_encoding for c in summary.channels.values()}
        kinds = ("/state", "/command", "/policy", "/status", "/timing")
        assert topics == dict.fromkeys(kinds, "json")
        counts = {}
        for schema, channel, message in reader.iter_messages():
            assert schema.encoding == "jsonschema"
            json.loads(message.data)
            counts[channel.topic] = counts.get(channel.topic, 0) + 1
    assert counts == {"/state": 100, "/command": 100, "/status": 100, "/policy": 90}


WRITER = """
import sys, time, numpy as np
from motoric.hardware.runtime.log import LogWriter
from motoric.hardware.robot import RobotState
from motoric.control.supervisor import SafeCommand
log = LogWriter(sys.argv[1], {"robot": "go2"})
for tick in range(100000):
    state = RobotState(tick * 0.001, tick, *np.random.normal(size=(3, 12)), np.ones(4), np.ones(3))
    log.tick(time.monotonic(), tick, state, SafeCommand(*np.random.normal(size=(5, 12))), None,
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
        log.tick(tick * 0.02, tick, None, SafeCommand(*np.zeros((5, 12))), None,
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
    log.tick(0.0, 0, state, SafeCommand(*np.zeros((5, 12))), None, status)
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
        log.tick(time.monotonic(), tick, None, SafeCommand(*np.zeros((5, 12))), None, status)
    assert log.error == "log: the disk is too slow, 50 ticks are waiting"
    assert log._queue.qsize() == 50
    stuck.set()
    log.close()
