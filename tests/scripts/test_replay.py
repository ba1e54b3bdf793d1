"""The log of a deployment, shown: of a robot of ours, and of any arm whose model is a file."""

from __future__ import annotations

import dataclasses
import json

import imageio.v2 as imageio
import numpy as np
import pytest
from motoric.control.command import MotorCommand
from motoric.control.limits import JointLimits
from motoric.control.rotation import from_axis_angle, from_yaw
from motoric.hardware.fields import plain
from motoric.hardware.models import load_model
from motoric.hardware.robot import RobotSpec, RobotState
from motoric.hardware.runtime.log import LogWriter, read_log
from motoric.hardware.specs.go2 import GO2
from motoric.scripts.replay import robot_of
from motoric.scripts.viewers.logs import base_positions, deployment, poses
from motoric.scripts.viewers.web import LogPage

from ..conftest import GO2_INTERFACE

ARM = """<mujoco><worldbody><light pos="0 0 3"/><geom type="plane" size="1 1 .1"/>
<body name="upper" pos="0 0 .1"><joint name="shoulder" axis="0 1 0" range="-2 2"/>
<geom type="capsule" fromto="0 0 0 0 0 .4" size=".04" rgba=".1 .1 .2 1"/>
<body name="lower" pos="0 0 .4"><joint name="elbow" axis="0 1 0" range="-2 2"/>
<geom type="capsule" fromto="0 0 0 0 0 .3" size=".03" rgba=".1 .1 .2 1"/></body></body>
</worldbody><actuator><position joint="shoulder" kp="5"/><position joint="elbow" kp="5"/></actuator>
</mujoco>"""
WALK = (0.5, 0.1, 0.2)


@pytest.fixture
def arm(tmp_path) -> RobotSpec:
    (tmp_path / "arm.xml").write_text(ARM)
    two = np.ones(2)
    limits = JointLimits(-2 * two, 2 * two, 5 * two, 4 * two, 5 * two)
    return RobotSpec(
        "my_arm", ("shoulder", "elbow"), limits, 0 * two, 0 * two, 5 * two, 0.1 * two, 0.1 * two,
        model=str(tmp_path / "arm.xml"), fixed=True,
    )  # fmt: skip


def write(path, robot: RobotSpec, ticks=200, **metadata):
    """A log at 100 Hz: waits for 0.2 s, then walks in a circle, or bends; a tick is missing."""
    joints = len(robot.joints)
    log = LogWriter(path, {
        "robot": robot.name, "task": "test", "rate": "50", "joints": ",".join(robot.joints),
        "spec": json.dumps(plain(robot)), **metadata,
    })  # fmt: skip
    for tick in range(ticks):
        active = tick >= 20
        now = 0.01 * tick
        state = RobotState(
            now, tick, robot.stand + 0.3 * now, np.full(joints, 0.3), np.full(joints, 0.5),
            from_yaw(np.array(0.2 * now)), np.array([0.0, 0.0, 0.2]), np.array([0.4, 0.0, 0.0]),
            0.29,
        )  # fmt: skip
        one = np.ones(joints)
        sent = MotorCommand(robot.stand + 0.4 * now, 0.1 * one, 10 * one, one, 0.2 * one)
        acts = active and tick % 2 == 0
        log.tick(
            50 + now, tick, None if tick == 60 else state, sent, {"action": None} if acts else None,
            {"mode": "active" if active else "soft_start", "reason": "", "late": 0.0},
            wish=dataclasses.replace(sent, position=robot.stand + 0.5 * now) if acts else None,
            goal={"source": "fixed", "values": {"velocity": np.array(WALK)}}
            if tick == 20 else None,
        )  # fmt: skip
    log.close()
    assert log.error is None
    return path


@pytest.fixture
def walk(tmp_path):
    interface = {"name": GO2_INTERFACE.name, "parameters": GO2_INTERFACE.parameters()}
    return write(tmp_path / "walk.mcap", GO2, interface=json.dumps(interface))


def test_the_base_goes_where_its_velocity_leads(walk):
    """An arc: 0.4 m/s at 0.2 rad/s is a circle of 2 m."""
    log = read_log(walk)
    base = base_positions(log)
    angle = 0.2 * log.times[-1]
    expected = 2.0 * np.array([np.sin(angle), 1 - np.cos(angle)])
    np.testing.assert_allclose(base[-1, :2], expected, atol=0.01)
    np.testing.assert_array_equal(base[:60, 2], 0.29)


def test_a_velocity_is_turned_by_the_whole_orientation(walk):
    log = read_log(walk)
    up = from_axis_angle(np.array([0.0, 1.0, 0.0]), np.array(-np.pi / 2))  # forward is up
    climbing = dataclasses.replace(log, orientation=np.tile(up, (len(log.times), 1)))
    np.testing.assert_allclose(base_positions(climbing)[:, :2], 0.0, atol=1e-12)


def test_a_log_is_shown_as_its_robot_was(walk):
    shown = deployment(read_log(walk), load_model(GO2), GO2)
    assert shown.poses.shape == (200, 19)
    np.testing.assert_allclose(shown.poses[100, 7:], GO2.stand + 0.3)
    np.testing.assert_array_equal(shown.poses[60], shown.poses[59]), "no state came: it is held"
    assert [m.name for m in shown.named] == list(GO2_INTERFACE.measures)
    assert [p.name for p in shown.goals] == ["velocity"]
    # Metrics are those of the interface, computed anew; before the policy acts there are none.
    wanted = np.hypot(WALK[0] - 0.4, WALK[1])
    np.testing.assert_allclose(shown.metrics["velocity_error"][20:60], wanted)
    assert np.isnan(shown.metrics["velocity_error"][[19, 60]]).all()
    assert shown.metrics["distance"][30] == pytest.approx(0.4 / 50)
    # A wish holds until the next.
    np.testing.assert_allclose(shown.wished[41], GO2.stand + 0.5 * 0.4)
    assert np.isnan(shown.wished[:20]).all()


def test_an_arm_stays_where_it_is_bolted(tmp_path, arm):
    log = read_log(write(tmp_path / "arm.mcap", arm))
    robot = robot_of(log)
    assert robot.model == arm.model
    shown = deployment(log, load_model(robot), robot)
    assert shown.poses.shape == (200, 2)
    np.testing.assert_allclose(shown.poses[100], 0.3)
    assert shown.named == ()
    assert shown.goals[0].names == ("velocity 0", "velocity 1", "velocity 2")
    with pytest.raises(ValueError, match="joint 'wrist' is not in the model"):
        poses(log, load_model(robot), ("shoulder", "wrist"))


@pytest.mark.parametrize("which", ["walk", "arm"])
def test_the_command_films_it(which, walk, arm, tmp_path, command):
    path = walk if which == "walk" else write(tmp_path / "arm.mcap", arm)
    done = command("replay", path, "viewer=video", "viewer.width=160", "viewer.height=120")
    assert "2.0 s, soft_start -> active" in done.stdout
    frames = [np.asarray(f, int) for f in imageio.get_reader(path.with_suffix(".mp4"))]
    assert len(frames) == 60
    assert np.abs(frames[-1] - frames[0]).max() > 40, "nothing moves"


def test_what_can_not_be_shown_is_one_line(tmp_path, arm, command):
    bare = write(tmp_path / "bare.mcap", dataclasses.replace(arm, model=None))
    gone = write(tmp_path / "gone.mcap", dataclasses.replace(arm, model="/nowhere/arm.xml"))
    bent = write(tmp_path / "bent.mcap", arm, spec='{"name": 3}')
    for path, words in (
        (bare, "log: robot 'my_arm' has no model to show;"),
        (gone, "/nowhere/arm.xml"),
        (bent, "name"),
    ):
        done = command("replay", path, "viewer=video", check=False)
        assert done.returncode == 2
        assert words in done.stderr
        assert "MCAP" in done.stderr
        assert done.stderr.count("\n") == 1
    done = command("replay", bare, "viewer=none", check=False)
    assert "viewer: 'none' shows nothing" in done.stderr


def test_the_page(walk, port):
    """What it draws at a moment: the chosen joint, the goal beside what is measured."""
    page = LogPage(deployment(read_log(walk), load_model(GO2), GO2), "127.0.0.1", port)
    try:
        page.at = 1.0
        page.joint.value = GO2.joints[4]
        page.show()
        wished, sent, measured = np.array(page.joint_plots["position"].rows).T[1:]
        stand = GO2.stand[4]
        assert wished[-1] == pytest.approx(stand + 0.5)
        assert sent[-1] == pytest.approx(stand + 0.4)
        assert measured[-1] == pytest.approx(stand + 0.3)
        asked, torque = np.array(page.joint_plots["torque"].rows).T[1:]
        assert asked[-1] == pytest.approx(10 * 0.1 + 1 * (0.1 - 0.3) + 0.2)
        assert torque[-1] == 0.5
        (error,) = page.metrics.lines("velocity_error")
        assert error[-1] == pytest.approx(np.hypot(0.1, 0.1))
        assert "fixed: forward +0.50 m/s, left +0.10 m/s" in page.status.content
        assert len(page.goals) == 3, "no metric of this interface is named after them"
        page.joint._impl.value = "no joint"  # whatever a visitor sent
        page.show()
    finally:
        page.page.close()
