"""What a simulated robot makes of the safe state, and a simulated robot of any name."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from motoric.control.command import MotorCommand
from motoric.hardware.drivers import ROBOTS, make_robot
from motoric.hardware.robot import RobotError, RobotSpec, Sensor
from motoric.hardware.simulated.body import Body
from motoric.hardware.simulated.sensors import FRAMES
from motoric.hardware.specs.go2 import GO2
from motoric.hardware.specs.x_arm6 import X_ARM6


def damped_fall(spec: RobotSpec) -> tuple[float, float]:
    """From the stand: the highest speed of a joint as a share of its limit, and the time the base
    takes for the first half of its height as a multiple of that of free fall."""
    simulation = Body(spec)
    simulation.model.tendon_limited[:] = False  # a rope that holds nothing
    simulation.on, data, zero = True, simulation.data, np.zeros(len(spec.joints))
    data.qpos[:7] = [0, 0, spec.base_height, 1, 0, 0, 0]
    data.qpos[7:], data.qvel[:] = spec.stand, 0
    for _ in range(100):  # it comes to stand on its feet
        simulation.take(MotorCommand(spec.stand, zero, 3.0 * spec.kp, 3.0 * spec.kd, zero))
        simulation.step()
    simulation.command = None
    assert simulation.mode == "damped"
    height, began, fastest, half = data.qpos[2], data.time, 0.0, np.inf
    while data.time < began + 3.0:
        simulation.step()
        fastest = max(fastest, (np.abs(data.qvel[6:]) / spec.limits.velocity).max())
        if data.qpos[2] < 0.5 * height:
            half = min(half, data.time - began)
    return fastest, half / np.sqrt(height / 9.81)


LEGGED = [spec for spec in ROBOTS.values() if not spec.fixed]


@pytest.mark.parametrize("spec", LEGGED, ids=[spec.name for spec in LEGGED])
def test_a_damped_robot_sinks_and_does_not_fall(spec):
    """B2 with 2 N m s/rad, which suit a Go2, falls in 1.25 times the time of free fall."""
    fastest, slower = damped_fall(spec)
    assert slower > 1.7
    assert fastest < 0.5


@pytest.mark.parametrize("name", ["go2", "b2"])
def test_a_simulated_robot_of_any_name(name):
    robot = make_robot("sim", robot=name)
    try:
        robot.configure()
        assert robot.spec is ROBOTS[name]
        assert robot.read().base_height < 0.6 * robot.spec.base_height, "it lies"
    finally:
        robot.close()


@pytest.mark.parametrize("name", ["spot", None, ["go2"]])
def test_a_robot_that_can_not_be_simulated(name):
    with pytest.raises(ValueError, match=r"robot: .*, expected one of b2, g1, go2"):
        make_robot("sim", robot=name)


# -- bolted down --------------------------------------------------------------------------------


def test_an_arm_lies_at_rest_with_its_motors_off():
    body = Body(X_ARM6)
    before = body.state()
    for _ in range(400):
        body.step()
    state = body.state()
    np.testing.assert_allclose(state.position, before.position, atol=5e-3)
    np.testing.assert_allclose(state.position, X_ARM6.rest, atol=0.2)
    assert np.abs(state.velocity).max() < 0.01
    np.testing.assert_array_equal(state.orientation, [1.0, 0.0, 0.0, 0.0])
    assert not state.angular_velocity.any()
    assert np.isnan(state.base_height)
    assert np.isnan(state.base_velocity).all()


def test_an_arm_rises_and_holds_its_stand_within_its_torque():
    body = Body(X_ARM6)
    body.on, zero, start = True, np.zeros(6), body.state().position
    for step in range(1600):
        share = min(step / 800, 1.0)
        target = start + share * (X_ARM6.stand - start)
        body.take(MotorCommand(target, zero, X_ARM6.kp, X_ARM6.kd, zero))
        body.step()
    state = body.state()
    assert np.abs(state.position - X_ARM6.stand).max() < 0.1
    assert np.abs(state.velocity).max() < 0.02
    assert (np.abs(state.torque) < 0.6 * X_ARM6.limits.torque).all()


def test_a_push_does_not_move_what_is_bolted_down():
    body = Body(X_ARM6)
    before = body.state()
    body.disturb(push=(5.0, 0.0, 0.0), roll=1.0, lift=0.5)
    body.step()
    state = body.state()
    np.testing.assert_array_equal(state.orientation, before.orientation)
    np.testing.assert_allclose(state.position, before.position, atol=1e-3)
    body.disturb(joint=(2, 0.3))
    assert body.state().position[2] == 0.3


def test_a_floating_robot_is_put_where_it_is_asked():
    body = Body(GO2)
    height = body.state().base_height
    body.disturb(push=(0.5, 0.0, 0.0), roll=0.4, lift=0.3)
    state = body.state()
    assert state.base_height == pytest.approx(height + 0.3)
    assert state.base_velocity[0] == pytest.approx(0.5, abs=0.01)
    assert 2 * np.arccos(state.orientation[0]) == pytest.approx(0.4, abs=0.02)


# -- sensors ------------------------------------------------------------------------------------

MODEL = """
<mujoco><compiler angle="radian"/><option timestep="0.0025"/>
<worldbody><light pos="0 0 2"/><geom type="plane" size="1 1 .1" rgba="0 0.3 0 1"/>
<camera name="over" pos="0.1 0 0.8" xyaxes="1 0 0 0 1 0"/>
<body name="arm" pos="0 0 .2"><joint name="turn" axis="0 0 1" range="-1.5 1.5"/>
<geom type="capsule" size=".02" fromto="0 0 0 .2 0 0" mass=".3" rgba="1 0 0 1"/>
<site name="tip" pos=".2 0 0"/></body></worldbody>
<sensor><framepos name="place" objtype="site" objname="tip"/></sensor></mujoco>
"""


@pytest.fixture
def seeing(tmp_path) -> RobotSpec:
    """A user's arm under a camera."""
    (tmp_path / "arm.xml").write_text(MODEL)
    spec = make_robot(
        "sim", model=str(tmp_path / "arm.xml"), torque=2.0, velocity=5.0, kp=4.0, kd=0.4
    ).spec
    sensors = Sensor("over", (48, 64, 3), "uint8"), Sensor("place", (3,), "float64", "m")
    return dataclasses.replace(spec, sensors=sensors)


def test_sensors_and_images_of_what_is(seeing):
    body = Body(seeing)
    try:
        state = body.state()
        np.testing.assert_allclose(state.sensors["place"], [0.2, 0.0, 0.2], atol=1e-6)
        image = state.sensors["over"]
        assert image.shape == (48, 64, 3)
        assert image.dtype == np.uint8
        assert not image.flags.writeable
        red = image[..., 0].astype(int) - image[..., 1] > 60
        assert red.sum() > 20
        # A new image each 1/30 s of simulated time, and no sooner.
        images, began = [], body.time
        while body.time < began + 0.5:
            body.step()
            images.append(body.state().sensors["over"])
        assert len({id(i) for i in images}) == pytest.approx(0.5 * FRAMES, abs=1.1)
        body.disturb(joint=(0, 1.2))
        for _ in range(20):
            body.step()
        moved = body.state()
        np.testing.assert_allclose(
            moved.sensors["place"][:2], 0.2 * np.array([np.cos(1.2), np.sin(1.2)]), atol=0.02
        )
        red_now = moved.sensors["over"][..., 0].astype(int) - moved.sensors["over"][..., 1] > 60
        assert np.argwhere(red_now)[:, 0].mean() < np.argwhere(red)[:, 0].mean() - 5
    finally:
        body.close()


def test_a_users_robot_with_a_camera_in_a_process_of_its_own(seeing):
    robot = make_robot("sim", robot=seeing)
    try:
        robot.configure()
        robot.activate()
        zero, images, ends = np.zeros(1), [], time.monotonic() + 1.5
        while time.monotonic() < ends:
            state = robot.read()
            robot.write(MotorCommand(zero + 0.8, zero, seeing.kp, seeing.kd, zero))
            images.append(state.sensors["over"])
            time.sleep(0.01)
        assert state.position[0] == pytest.approx(0.8, abs=0.05)
        np.testing.assert_allclose(
            state.sensors["place"][:2], 0.2 * np.array([np.cos(0.8), np.sin(0.8)]), atol=0.02
        )
        assert len({i.tobytes() for i in images}) > 5
        assert robot.damaged == 0
    finally:
        robot.close()


@pytest.mark.parametrize(
    ("sensor", "words"),
    [
        (Sensor("under", (8, 8, 3), "uint8"), "arm.xml has no camera 'under'"),
        (Sensor("force", (3,)), "arm.xml has no sensor 'force'"),
        (Sensor("place", (4,)), "sensor 'place' of .*arm.xml has 3 numbers, the robot's spec 4"),
    ],
)
def test_a_sensor_that_the_model_has_not(seeing, sensor, words):
    spec = dataclasses.replace(seeing, sensors=(sensor,))
    with pytest.raises(ValueError, match=words):
        Body(spec)
    robot = make_robot("sim", robot=spec)
    with pytest.raises(RobotError, match=f"simulated arm: .*{words}"):
        robot.configure()
    assert robot.process is None
