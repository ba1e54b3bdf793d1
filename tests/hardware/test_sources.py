"""Goals from keys, sticks, files, datagrams and typed lines: checked, and never in the way."""

from __future__ import annotations

import json
import os
import socket
import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motoric.hardware.goals import Part, text_of
from motoric.hardware.runtime.operator import END, STOP, Operator
from motoric.hardware.sources import (
    SOURCES,
    File,
    Fixed,
    Gamepad,
    Keyboard,
    Network,
    Source,
    Text,
    make_source,
)

from ..conftest import VELOCITY

TEXT = Part("instruction", ("text",), ("text",), (0,), (30,))
HEIGHT = Part("height", ("up",), ("m",), (0.2,), (0.4,))
PARTS = (VELOCITY, HEIGHT)


def opened(source: Source, parts=PARTS) -> tuple[Source, list[str]]:
    told: list[str] = []
    source.say = told.append
    source.open(parts)
    return source, told


def velocity(source) -> list[float]:
    return np.round(source.goal["velocity"][0], 6).tolist()


# -- all of them ------------------------------------------------------------------------------


def test_a_goal_begins_at_its_start_or_at_rest():
    source, _ = opened(Fixed({"velocity": [0.5, 0, 0]}))
    assert velocity(source) == [0.5, 0, 0]
    assert source.goal["height"].tolist() == [[0.2]]  # as near to zero as it may be
    assert opened(Fixed())[0].goal["velocity"].tolist() == [[0, 0, 0]]
    assert opened(Fixed(), ())[0].goal == {}
    with pytest.raises(ValueError, match=r"goal\.velocity: forward 9, the policy was trained"):
        Fixed({"velocity": [9, 0, 0]}).open(PARTS)


def test_a_bad_value_is_told_and_the_last_good_one_stays():
    source, told = opened(Fixed({"velocity": [0.5, 0, 0]}))
    assert not source.set({"velocity": [7, 0, 0], "height": [0.3]})
    assert velocity(source) == [0.5, 0, 0]
    assert source.goal["height"][0, 0] == 0.2, "all of the parts or none"
    assert told == ["fixed: goal.velocity: forward 7, the policy was trained for -0.6 to 1"]
    for _ in range(100):
        source.set({"smell": 1})
    assert len(told) == 1, "not more often than once in a while"
    before = source.goal
    assert source.set({"height": [0.3]})
    assert velocity(source) == [0.5, 0, 0], "parts that are left out stay"
    assert source.goal is not before
    assert before["height"][0, 0] == 0.2, "nobody's array is changed"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("fixed", Fixed), ("keyboard", Keyboard), ("gamepad", Gamepad), ("text", Text),
        ("gamepad:/dev/input/js3", Gamepad), ("file:goal.csv", File), ("network", Network),
        ("network:8000", Network), ("network:0.0.0.0:8000", Network),
    ],
)  # fmt: skip
def test_sources_by_name(text, kind):
    source = make_source(text, [0.1, 0, 0])
    assert type(source) is kind
    assert SOURCES[kind.name] is kind
    if kind is Network:
        assert source.address[1] in (7240, 8000)
        assert (source.address[0] == "0.0.0.0") == ("0.0.0.0" in text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("telepathy", "source: 'telepathy', expected one of fixed, keyboard, gamepad, file, netw"),
        ("file", "source: file needs a path"),
        ("network:abc", "source: port 'abc', expected 0 to 65535"),
        ("network:70000", "source: port '70000'"),
        ("keyboard:fast", "source: keyboard takes no 'fast'"),
    ],
)
def test_a_wrong_source_is_named(text, words):
    with pytest.raises(ValueError, match=words):
        make_source(text)


# -- keys -------------------------------------------------------------------------------------


def test_keys_move_numbers_within_their_range():
    source, _ = opened(Keyboard({"velocity": [0.5, 0, 0]}))
    source.press(b"w")
    assert velocity(source) == [0.66, 0, 0]
    for _ in range(9):
        source.press(b"w")
    assert velocity(source) == [1.0, 0, 0]
    for _ in range(3):
        source.press(b"d")
    assert velocity(source) == [1.0, -0.24, 0]
    source.press(b"i")
    assert source.goal["height"][0, 0] == pytest.approx(0.22)
    for key in (b"\x1b", b"[", b"A", b"7", b"\xff"):
        source.press(key)
    assert velocity(source) == [1.0, -0.24, 0]
    source.press(b"x")
    assert velocity(source) == [0, 0, 0]


def test_keys_up_and_down_meet_at_zero():
    source, _ = opened(Keyboard())
    for key in (b"j", b"j", b"l", b"l"):
        source.press(key)
    assert source.goal["velocity"].tolist() == [[0, 0, 0]]


def test_no_key_of_a_source_is_one_of_the_operators():
    keys = b"x" + b"".join(Keyboard.PAIRS)
    assert not set(keys) & set(STOP + END)
    assert len(set(keys)) == len(keys)
    source, _ = opened(Keyboard())
    assert source.help == ("w/s forward, a/d left, j/l turn, i/k up, x rest")


@pytest.fixture
def terminal(monkeypatch):
    """A pseudo-terminal stands for the operator's."""
    main, slave = os.openpty()
    with os.fdopen(slave) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield lambda keys: os.write(main, keys)
    os.close(main)


def operate(terminal, source, keys):
    stopped: list[str] = []
    operator = Operator(True, stopped.append, source)
    with operator.listen():
        terminal(keys)
        time.sleep(0.05)
        operator.poll()
    return stopped, operator.end


def test_the_operators_keys_and_a_sources_live_together(terminal):
    source, _ = opened(Keyboard())
    stopped, ends = operate(terminal, source, b"wwa")
    assert (stopped, ends) == ([], False)
    assert velocity(source) == [0.32, 0.08, 0]
    assert operate(terminal, source, b"wq") == ([], True)
    assert velocity(source) == [0.48, 0.08, 0]
    for key in STOP:
        assert operate(terminal, source, b"a" + bytes([key]))[0] == ["e-stop by key"], key


def test_a_line_is_typed_and_the_e_stop_still_works(terminal):
    source, told = opened(Text(), (TEXT,))
    stopped, ends = operate(terminal, source, b":open the queer box\x7f\x7fg\r")
    assert (stopped, ends) == ([], False), "space, e and q are letters while a line is typed"
    assert text_of(source.goal["instruction"][0]) == "open the queer bg"
    assert told == ["asked for 'open the queer bg'"]
    assert operate(terminal, source, b"e")[0] == ["e-stop by key"]
    assert operate(terminal, source, b":ope\x1b")[0] == ["e-stop by key"], "Escape while typing"
    source.press(b"\r")
    assert operate(terminal, source, b":" + b"y" * 31 + b"\n")[0] == []
    assert text_of(source.goal["instruction"][0]) == "ope", "31 bytes are too many"
    assert "31 bytes, expected at most 30" in told[-1]


def test_sources_that_do_not_fit_the_goal_are_named():
    with pytest.raises(ValueError, match="source=text: the policy's goal has no text"):
        Text().open(PARTS)
    with pytest.raises(ValueError, match="source=keyboard: the policy's goal has no numbers"):
        Keyboard().open((TEXT,))


# -- gamepad ----------------------------------------------------------------------------------


def event(axis, value, kind=2):
    return struct.pack("<IhBB", 0, value, kind, axis)


def test_sticks_are_the_goal(tmp_path):
    pipe = tmp_path / "js0"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(pipe, os.O_WRONLY)
    source, told = opened(Gamepad(str(pipe)))
    os.close(reader)
    source.poll(0.0)
    assert velocity(source) == [0, 0, 0]
    os.write(writer, event(1, -32767) + event(0, 16384) + event(3, 1000) + event(9, 32767))
    source.poll(0.0)
    assert velocity(source) == [1.0, -0.200006, 0.0], "up, half right, the middle, no such axis"
    os.write(writer, event(1, 32767, 0x82) + event(1, 32767, 1))
    source.poll(0.0)
    assert velocity(source)[0] == -0.6
    os.close(writer)
    source.poll(0.0)
    assert velocity(source) == [0, 0, 0]
    assert told == ["gamepad: the gamepad is gone, at rest"]
    source.poll(0.0)
    source.close()
    source.close()


def test_a_gamepad_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="source=gamepad: /dev/input/js99: No such file"):
        Gamepad("/dev/input/js99").open(PARTS)


# -- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("g.csv", "time, forward,left,turn,height.up\n0,0.1,0,0,0.3\n1.5,0.2,0,0,0.4\n"),
        ("g.json", '[{"time": 0, "velocity": [0.1, 0, 0], "height": [0.3]},'
                   ' {"time": 1.5, "velocity": [0.2, 0, 0]}, {"time": 1.5, "height": [0.4]}]'),
    ],
)  # fmt: skip
def test_a_timeline(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    source, _ = opened(File(str(tmp_path / name)))
    for elapsed, forward, up in ((0, 0.1, 0.3), (1.4, 0.1, 0.3), (1.5, 0.2, 0.4), (9, 0.2, 0.4)):
        source.poll(elapsed)
        assert velocity(source)[0] == forward
        assert source.goal["height"][0, 0] == up


def test_a_timeline_of_texts(tmp_path):
    path = tmp_path / "g.csv"
    path.write_text('time,text\n0,"lift, then wait"\n2,put it down\n')
    source, _ = opened(File(str(path)), (TEXT,))
    assert text_of(source.goal["instruction"][0]) == "lift, then wait"
    source.poll(2.0)
    assert text_of(source.goal["instruction"][0]) == "put it down"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("g.csv", "", "expected time, forward, left, turn, up"),
        ("g.csv", "time,forward\n0,1\n", "columns time, forward, expected time, forward, left"),
        ("g.csv", "time,forward,left,turn\n", "holds no rows"),
        ("g.csv", "time,forward,left,turn\n0,1\n", "a row of 2 values, expected 4"),
        ("g.csv", "time,forward,left,turn\n0,x,0,0\n", "could not convert"),
        ("g.csv", "time,forward,left,turn\n0,5,0,0\n", "forward 5, the policy was trained"),
        ("g.csv", "time,forward,left,turn\n1,0,0,0\n0,0,0,0\n", "row 1: time 0.0, expected s"),
        ("g.csv", "time,forward,left,turn\nnan,0,0,0\n", "row 0: time nan"),
        ("g.json", "{}", 'expected a list of {"time": s, PART: value}'),
        ("g.json", '[{"velocity": [0, 0, 0]}]', "row 0: time None"),
        ("g.json", "[" * 100_000, "recursion"),
        ("g.json", '[{"time": 0, "smell": 1}]', "goal.smell: no such part"),
    ],
)
def test_a_wrong_timeline_is_named_before_anything_moves(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r"^source=file: .*") as error:
        File(str(tmp_path / name)).open(PARTS)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_timeline_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"source=file: .*No such file"):
        File(str(tmp_path / "none.csv")).open(PARTS)


# -- network ----------------------------------------------------------------------------------


@pytest.fixture
def network():
    source, told = opened(Network(port=0))
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(source.address)

    def send(content):
        sender.send(content if isinstance(content, bytes) else json.dumps(content).encode())
        time.sleep(0.002)
        source._told = -np.inf
        source.poll(0.0)

    yield source, told, send
    sender.close()
    source.close()


def test_datagrams_set_the_goal(network):
    source, told, send = network
    assert source.address[0] == "127.0.0.1", "this machine alone, unless told otherwise"
    send({"sequence": 1, "goal": {"velocity": [0.5, 0, 0]}})
    assert velocity(source) == [0.5, 0, 0]
    send({"sequence": 3, "goal": {"height": [0.3]}})
    assert velocity(source) == [0.5, 0, 0]
    send({"sequence": 2, "goal": {"velocity": [0.1, 0, 0]}})
    assert velocity(source) == [0.5, 0, 0], "it came too late"
    assert told == []


def test_silence_asks_for_rest_and_a_sender_may_begin_again(network):
    source, told, send = network
    now = [100.0]
    source.clock = lambda: now[0]
    send({"sequence": 50, "goal": {"velocity": [0.5, 0, 0]}})
    now[0] += 0.45
    source.poll(0.0)
    assert velocity(source) == [0.5, 0, 0]
    now[0] += 0.1
    source.poll(0.0)
    assert velocity(source) == [0, 0, 0]
    assert told == ["network: silent for 0.5 s, at rest"]
    send({"sequence": 1, "goal": {"velocity": [0.2, 0, 0]}})
    assert velocity(source) == [0.2, 0, 0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"nonsense", 'a datagram is not {"sequence": n'),
        (b"\xff\xfe", "a datagram is not"),
        (b"5", "a datagram is not"),
        (b"[" * 4000, "too big"),
        (b"x" * 5000, "too big"),
        (b'{"sequence": 1e999, "goal": {}}', "sequence is no number"),
        ({"sequence": True, "goal": {}}, "sequence is no number"),
        ({"sequence": -1, "goal": {}}, "sequence is no number"),
        ({"sequence": 9, "goal": {"velocity": [9, 0, 0]}}, "forward 9"),
        ({"sequence": 9, "goal": {"velocity": [10**400, 0, 0]}}, "goal.velocity"),
        ({"sequence": 9, "goal": [1, 2, 3]}, "expected a mapping"),
        ({"sequence": 9, "goal": None}, "expected a mapping"),
    ],
)
def test_a_bad_datagram_is_told_and_changes_nothing(network, content, words):
    source, told, send = network
    send({"sequence": 1, "goal": {"velocity": [0.5, 0, 0]}})
    send(content)
    assert velocity(source) == [0.5, 0, 0]
    assert len(told) == 1
    assert words in told[0]
    assert "\n" not in told[0]
    send({"sequence": 2, "goal": {"velocity": [0.1, 0, 0]}})
    assert velocity(source) == [0.1, 0, 0], "a refused one doesn't use up its sequence"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_datagram_raises(data):
    source, _ = opened(Network(port=0))
    source._take(data)
    source.close()


def test_a_flood_is_taken_in_bounded_steps(network):
    source, _, _ = network
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for n in range(1, 101):
        goal = {"velocity": [n / 1000, 0, 0]}
        sender.sendto(json.dumps({"sequence": n, "goal": goal}).encode(), source.address)
    sender.close()
    time.sleep(0.02)
    source.poll(0.0)
    assert velocity(source)[0] == 0.032


def test_a_port_in_use_is_named(network):
    source, _, _ = network
    with pytest.raises(ValueError, match=r"source=network: .*in use"):
        Network(port=source.address[1]).open(PARTS)
