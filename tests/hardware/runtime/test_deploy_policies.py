"""Deployments of policies with chunks, cameras, memory, sources of goals; filters that hang."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
import time

import numpy as np
import pytest
from motoric.hardware.interfaces.base import Tensor
from motoric.hardware.interfaces.joint_targets import JointTargets
from motoric.hardware.registry import INTERFACES
from motoric.hardware.robot import Robot, RobotState, Sensor
from motoric.hardware.runtime.bundle import (
    Bundle,
    BundleError,
    Chunk,
    Input,
    Network,
    read_spec,
    write_bundle,
)
from motoric.hardware.runtime.deploy import deploy
from motoric.hardware.runtime.log import read_log
from motoric.hardware.sources import File
from motoric.hardware.sources import Network as NetworkSource
from motoric.hardware.specs.go2 import GO2

from ...conftest import GO2_INTERFACE, TERMS, go2_spec, graph, write_policy

pytestmark = pytest.mark.usefixtures("quick")

CAMERA = Sensor("camera", (48, 64, 3), "uint8")
SEEING = dataclasses.replace(GO2, sensors=(CAMERA,))


class Puppet(Robot):
    """A robot that is always where it is told to be, and has a camera."""

    spec = SEEING

    def __init__(self):
        self.position, self.count, self.sent, self.active = GO2.rest.copy(), 0, [], False

    def configure(self):
        pass

    close = configure

    def activate(self):
        self.active = True

    def read(self):
        self.count += 1
        zero, up = np.zeros(12), np.array([1.0, 0.0, 0.0, 0.0])
        image = np.full(CAMERA.shape, self.count % 256, np.uint8)
        return RobotState(
            time.monotonic(), self.count, self.position, zero, zero, up, np.zeros(3),
            sensors={"camera": image},
        )  # fmt: skip

    def write(self, command):
        self.sent.append(command)
        if command.kp.any():
            self.position = command.position.copy()

    def deactivate(self):
        self.active = False


@dataclasses.dataclass(frozen=True)
class Seeing(JointTargets):
    """Joint targets with a camera beside the terms; `hangs`: a filter that may hang."""

    name = "seeing"
    hangs = None

    @property
    def inputs(self):
        return (*super().inputs, Tensor("camera", CAMERA.shape, "uint8"))

    @property
    def sensors(self):
        return ("camera",)

    def observe(self, measured, goal, memory):
        camera = measured.sensors["camera"]
        return super().observe(measured, goal, memory) | {"camera": camera}

    def filters(self, run):
        return () if self.hangs is None else (self.hangs,)


@pytest.fixture(autouse=True)
def seeing():
    INTERFACES.add("seeing", Seeing)
    yield
    INTERFACES._loaded.pop("seeing")
    Seeing.hangs = None


INTERFACE = Seeing(
    SEEING, 20.0, TERMS, (0.6, 1.0, 1.0) * 4, goals=GO2_INTERFACE.goals,
    measures=("velocity_error", "fell"),
)  # fmt: skip


class Paced(Bundle):
    """A policy that takes its time, and after some inferences hangs for good."""

    def __init__(self, folder, seconds, hangs_after=10**9):
        super().__init__(*read_spec(folder))
        self.seconds, self.left, self.calls, self.times = seconds, hangs_after, 0, []

    def run(self, network, feed):
        self.calls += 1
        self.times.append(time.monotonic())
        if self.calls > self.left:
            threading.Event().wait()
        time.sleep(self.seconds)
        return super().run(network, feed)


@pytest.fixture
def recorded(tmp_path):
    """A chunk policy with a camera and noise: action k of 8 is k / 100, of which 4 are played."""
    inputs = (
        Input("observation", (47,)), Input("camera", CAMERA.shape, "uint8"),
        Input("z", (8, 12), source="noise"),
    )  # fmt: skip
    out = Tensor("action", (8, 12))
    onnx = graph(
        [
            ("Mul", ["z", "nothing"], ["silence"], {}),
            ("Cast", ["camera"], ["pixels"], {"to": 1}),
            ("ReduceMean", ["pixels"], ["light"], {"axes": [1, 2, 3], "keepdims": 0}),
            ("Unsqueeze", ["light", "axes"], ["lights"], {}),
            ("Mul", ["lights", "nothing"], ["dark"], {}),
            ("Add", ["silence", "dark"], ["none"], {}),
            ("Add", ["none", "k"], ["action"], {}),
        ],
        inputs, (out,),
        [("nothing", np.float32([0])), ("axes", np.array([1, 2])),
         ("k", np.repeat(np.arange(8, dtype=np.float32) / 100, 12).reshape(1, 8, 12))],
    )  # fmt: skip
    network = Network("policy", "policy.onnx", inputs, (out,))
    spec = go2_spec(INTERFACE, networks=(network,), chunk=Chunk(8, 4))
    write_bundle(tmp_path / "b", {"policy.onnx": onnx}, spec)
    return tmp_path / "b"


@pytest.mark.parametrize("loop_rate", [20, 200])
def test_60_ms_of_inference_at_20_hz_run_through(recorded, tmp_path, loop_rate):
    """A chunk policy with a camera: an action in every period, none late, none for another."""
    robot = Puppet()
    report = deploy(
        Paced(recorded, 0.06), robot, 2.0, [0.0] * 3, tmp_path / "log.mcap", keys=False,
        loop_rate=loop_rate,
    )  # fmt: skip
    assert report.fault is None
    assert report.ended == "finished"
    assert report.inference == "thread"
    assert report.seconds == pytest.approx(2.0, abs=0.1)
    assert report.policy_ms["p50"] == pytest.approx(60, abs=8)
    assert len(report.metrics) == 2
    log = read_log(tmp_path / "log.mcap")
    acted = np.isfinite(log.wish.position[:, 0])
    active = np.array(log.status) == "active"
    assert acted.sum() >= 2.0 * 20 - 4, "all but the first periods have an action"
    assert not (acted & ~active).any()
    gaps = np.diff(log.times[acted])
    assert gaps.max() < 0.1, "no period without one"
    # k / 100 rad hip: 4 + (0.06 s, two periods) later at most, so action 6, and never an old one.
    k = np.round((log.wish.position[acted, 0] - GO2.stand[0]) / 0.6 * 100).astype(int)
    assert k.min() >= 1
    assert k.max() <= 6
    steps = np.diff(k)
    assert (steps[steps > 0] == 1).all(), "each in its turn"
    assert 6 <= (steps < 0).sum() <= 10, "a new chunk every four periods"


def test_a_slow_policy_sees_the_beginnings_of_periods(recorded, tmp_path):
    """Its actions are counted from there, however often the loop runs in between."""
    spec, files = read_spec(recorded)
    write_bundle(recorded, files, dataclasses.replace(spec, chunk=Chunk(8, 1)))
    bundle = Paced(recorded, 0.06)
    report = deploy(bundle, Puppet(), 1.5, [0.0] * 3, keys=False, loop_rate=200)
    assert report.fault is None
    begun = np.array(bundle.times[11:])  # the first are timed before anything moves
    assert len(begun) == pytest.approx(15, abs=2), "every other period: it takes longer than one"
    late = (begun - begun[0] + 0.025) % 0.05 - 0.025
    assert np.median(np.abs(late)) < 0.004


def test_a_chunk_policy_that_hangs_ends_safe(recorded):
    robot = Puppet()
    report = deploy(Paced(recorded, 0.06, 14), robot, 5.0, [0.0] * 3, keys=False, loop_rate=200)
    assert "policy late: no action for 0.1" in report.fault
    assert report.seconds < 2.0
    assert not robot.sent[-1].kp.any()
    assert not robot.active
    gaps = np.diff([c.time for c in robot.sent])
    assert np.percentile(gaps, 95) < 0.02, "commands went on at their rate"


def test_a_policy_too_slow_is_refused_before_anything_moves(bundle_folder):
    robot = Puppet()
    with pytest.raises(ValueError, match=r"takes \d+ ms, at most 16 ms are bridged by chunks of 1"):
        deploy(Paced(bundle_folder, 0.03), robot, 1.0, keys=False)
    assert not robot.sent


@pytest.mark.parametrize("inference", ["inline", "thread"])
def test_both_kinds_of_inference_do_the_same(bundle_folder, inference):
    robot = Puppet()
    report = deploy(
        Bundle.load(bundle_folder), robot, 0.5, keys=False, loop_rate=500, inference=inference
    )
    assert report.fault is None
    assert report.inference == inference
    assert sum(report.histograms["policy"]) == pytest.approx(25, abs=3)


def test_pictures_are_not_in_the_log(recorded, tmp_path):
    path = tmp_path / "log.mcap"
    deploy(Paced(recorded, 0.0), Puppet(), 0.3, [0.0] * 3, path, keys=False, loop_rate=20)
    from mcap.reader import make_reader

    with open(path, "rb") as file:
        found = [
            json.loads(m.data) for _, c, m in make_reader(file).iter_messages(topics="/policy")
        ]
    seen = [f["observation"] for f in found if f["observation"] is not None]
    assert seen
    assert len(seen) < len(found), "with the first action of a chunk only"
    assert seen[0]["camera"] == {"shape": [1, 48, 64, 3], "dtype": "uint8"}
    assert len(seen[0]["observation"][0]) == 47
    assert path.stat().st_size < 200_000


def test_a_recurrent_policy_remembers_on_the_robot(tmp_path):
    """The joints move on by 0.01 of the action with every period."""
    inputs = (
        Input("observation", (47,)), Input("h", (12,), source="memory", feedback="action"),
    )  # fmt: skip
    out = Tensor("action", (12,))
    onnx = graph(
        [("Mul", ["observation", "none"], ["o"], {}),
         ("ReduceSum", ["o", "axis"], ["s"], {"keepdims": 1}),
         ("Add", ["h", "s"], ["same"], {}), ("Add", ["same", "step"], ["action"], {})],
        inputs, (out,),
        [("none", np.float32([0])), ("axis", np.array([1])), ("step", np.float32([0.01]))],
    )  # fmt: skip
    network = Network("policy", "policy.onnx", inputs, (out,))
    write_policy(tmp_path / "b", onnx, go2_spec(networks=(network,)))
    robot = Puppet()
    bundle = Bundle.load(tmp_path / "b", GO2)
    report = deploy(bundle, robot, 0.5, None, tmp_path / "log.mcap", keys=False, loop_rate=100)
    assert report.fault is None
    log = read_log(tmp_path / "log.mcap")
    wish = log.wish.position[np.isfinite(log.wish.position[:, 0]), 0] - GO2.stand[0]
    np.testing.assert_allclose(wish, 0.006 * np.arange(1, len(wish) + 1), atol=1e-6)


# -- filters ----------------------------------------------------------------------------------


class Hang:
    """A filter that comes back for a while, and then no more."""

    name, deadline = "reflex", 0.01

    def __init__(self, calls, seconds=None):
        self.left, self.free = calls, threading.Event()
        self.seconds = seconds

    def __call__(self, state, wish, context):
        self.left -= 1
        if self.left == 0:
            self.free.wait(self.seconds)
        return wish


@pytest.mark.parametrize("seconds", [None, 0.3], ids=["for good", "for a while"])
@pytest.mark.parametrize("calls", [30, 31])
def test_a_filter_that_hangs_ends_damped_by_the_guard(recorded, seconds, calls):
    """In the rehearsal or in the tick itself."""
    Seeing.hangs = Hang(calls, seconds)
    robot = Puppet()
    began = time.monotonic()
    report = deploy(
        Paced(recorded, 0.0), robot, 5.0, [0.0] * 3, keys=False, loop_rate=20, inference="inline"
    )
    Seeing.hangs.free.set()
    assert report.fault == "reflex: no answer for 0.05 s"
    assert time.monotonic() - began < 5.0
    assert not robot.active
    stiff = [bool(c.kp.any()) for c in robot.sent]
    last = max(i for i, s in enumerate(stiff) if s)
    assert not any(stiff[last + 1 :])
    gap = robot.sent[last + 1].time - robot.sent[last].time
    assert gap < 0.05 + 0.05 + 0.12, "within its patience and a period of the guard"
    damped = [c.time for c in robot.sent[last + 1 :]]
    assert damped[-1] - damped[0] == pytest.approx(0.5, abs=0.15)
    assert np.diff(damped).max() < 0.1


def test_a_filter_stands_before_the_limits(recorded, tmp_path):
    """The wish is the policy's, the command what the filter made of it, both in the log."""

    class Softer:
        name, deadline = "softer", 0.05

        def __call__(self, state, wish, context):
            return dataclasses.replace(wish, kp=0.5 * wish.kp)

    Seeing.hangs = Softer()
    report = deploy(
        Paced(recorded, 0.0), Puppet(), 0.5, [0.0] * 3, tmp_path / "log.mcap", keys=False,
        loop_rate=20,
    )  # fmt: skip
    assert report.fault is None
    log = read_log(tmp_path / "log.mcap")
    acted = np.isfinite(log.wish.kp[:, 0])
    np.testing.assert_array_equal(log.wish.kp[acted][0], GO2.kp)
    np.testing.assert_allclose(log.command.kp[acted], 0.5 * log.wish.kp[acted])


def test_a_sensor_the_robot_has_not_is_named(recorded):
    with pytest.raises(BundleError, match="go2 has no sensor 'camera'"):
        Bundle.load(recorded, GO2)


# -- goals ------------------------------------------------------------------------------------


def test_a_timeline_is_followed_and_logged(bundle_folder, tmp_path):
    path = tmp_path / "goal.csv"
    path.write_text("time,forward,left,turn\n0,0.1,0,0\n0.3,0.2,0,0.5\n")
    report = deploy(
        Bundle.load(bundle_folder), Puppet(), 0.6, File(str(path)), tmp_path / "log.mcap",
        keys=False, loop_rate=100,
    )  # fmt: skip
    assert report.fault is None
    log = read_log(tmp_path / "log.mcap")
    asked, at = log.goal["velocity"], np.array(log.source) == "file"
    assert at.any()
    begun = log.times - log.times[at][0]
    np.testing.assert_array_equal(asked[at & (begun < 0.25)][:, 0], 0.1)
    np.testing.assert_array_equal(asked[at & (begun > 0.36) & (begun < 0.58)][:, 2], 0.5)
    np.testing.assert_array_equal(asked[at][-1], 0.0)  # halted before it lies down
    assert np.isnan(asked[~at]).all()


def test_a_network_source_that_falls_silent_goes_to_rest(bundle_folder, tmp_path):
    source = NetworkSource(port=0)
    told = []
    source.say = told.append
    ends = threading.Event()

    def send():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        n, since = 0, time.monotonic()
        while not ends.wait(0.05) and time.monotonic() - since < 1.6:
            if source.address[1]:
                n += 1
                goal = {"velocity": [0.3, 0, 0]}
                sender.sendto(json.dumps({"sequence": n, "goal": goal}).encode(), source.address)
        sender.close()

    thread = threading.Thread(target=send)
    thread.start()
    report = deploy(
        Bundle.load(bundle_folder), Puppet(), 2.0, source, tmp_path / "log.mcap", keys=False,
        loop_rate=100,
    )  # fmt: skip
    ends.set()
    thread.join()
    assert report.fault is None
    log = read_log(tmp_path / "log.mcap")
    asked = log.goal["velocity"][np.array(log.source) == "network", 0]
    assert asked[10] == 0.3
    assert asked[-1] == 0.0
    assert told == ["network: silent for 0.5 s, at rest"]


def test_a_source_that_breaks_is_a_fault(bundle_folder):
    class Broken(File):
        name = "broken"

        def open(self, parts):
            self.goal = {"velocity": np.zeros((1, 3))}

        def poll(self, elapsed):
            if elapsed > 0.2:
                raise KeyError("velocity")

    robot = Puppet()
    report = deploy(Bundle.load(bundle_folder), robot, 2.0, Broken(""), keys=False, loop_rate=100)
    assert report.fault == "source broken: KeyError: 'velocity'"
    assert not robot.sent[-1].kp.any()
