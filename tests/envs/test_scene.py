"""Scenes: robots that float or are bolted down, one or several, objects, terrain, cameras."""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np
import pytest
from motoric.control.command import MotorCommand, hold
from motoric.control.limits import JointLimits
from motoric.envs.engine import Physics, Start
from motoric.envs.engines.mujoco import MujocoSimulation
from motoric.envs.scene import Camera, Marker, Object, Placed, Scene, Sensor, Terrain
from motoric.hardware.models import load_model
from motoric.hardware.robot import RobotSpec
from motoric.hardware.robot import Sensor as RobotSensor
from motoric.hardware.specs.go2 import GO2

ARM = """
<mujoco>
  <compiler angle="radian" autolimits="true"/>
  <option timestep="0.002" integrator="implicitfast"/>
  <worldbody>
    <geom name="floor" type="plane" size="0 0 0.05"/>
    <light pos="0 0 3"/>
    <body name="base" pos="0 0 0.5">
      <geom type="box" size="0.05 0.05 0.05" mass="1"/>
      <camera name="eye" pos="0 0 2" xyaxes="1 0 0 0 1 0"/>
      <body name="link">
        <joint name="a" axis="0 0 1" range="-3 3" armature="0.1"/>
        <geom type="capsule" size="0.02" fromto="0.1 0 0 0.4 0 0" mass="0.2" contype="0" conaffinity="0"/>
        <body name="tool" pos="0.4 0 0">
          <joint name="b" axis="0 0 1" range="-3 3" armature="0.1"/>
          <geom name="tool" type="capsule" size="0.02" fromto="0 0 0 0.2 0 0" mass="0.1" contype="0" conaffinity="0"/>
          <site name="tool" pos="0.2 0 0"/>
        </body>
      </body>
    </body>
  </worldbody>
</mujoco>
"""  # noqa: E501


@pytest.fixture
def arm(tmp_path) -> RobotSpec:
    """Two joints about the vertical: gravity does nothing to them."""
    (tmp_path / "arm.xml").write_text(ARM)
    two = np.ones(2)
    return RobotSpec(
        "arm", ("a", "b"), JointLimits(-3 * two, 3 * two, 10 * two, 20 * two, 10 * two),
        stand=0 * two, rest=0 * two, kp=10 * two, kd=2 * two, damping=two,
        model=str(tmp_path / "arm.xml"), fixed=True,
        kp_max=100 * two, kd_max=20 * two,
    )  # fmt: skip


def begin(sim: MujocoSimulation, position: np.ndarray | None = None, **objects) -> None:
    rows, robot = sim.rows, sim.robot
    place = np.zeros((rows, 3))
    place[:, 2] = robot.base_height
    start = Start(
        base_position=place, orientation=np.tile([1.0, 0, 0, 0], (rows, 1)),
        base_velocity=np.zeros((rows, 6)),
        position=np.tile(robot.stand, (rows, 1)) if position is None else position,
        velocity=np.zeros((rows, len(robot.joints))), objects=objects,
    )  # fmt: skip
    sim.reset(np.arange(rows), start, Physics.nominal(rows))


def test_a_robot_alone_is_its_model_as_it_is():
    ours, loaded = Scene.of(GO2).model, load_model(GO2)
    for name in dir(loaded):
        value = getattr(loaded, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(ours, name), value, err_msg=name)


def test_all_five_quantities_reach_the_motors(arm):
    """tau = kp (q* - q) + kd (dq* - dq) + tau, row by row, gains of one row not another's."""
    rng = np.random.default_rng(0)
    rows = 6
    sim = MujocoSimulation(Scene.of(arm), rows, 1)
    begin(sim, rng.uniform(-0.5, 0.5, (rows, 2)))
    for _ in range(20):
        command = MotorCommand(
            rng.uniform(-1, 1, (rows, 2)), rng.uniform(-1, 1, (rows, 2)),
            rng.uniform(0, 30, (rows, 2)), rng.uniform(0, 5, (rows, 2)),
            rng.uniform(-2, 2, (rows, 2)),
        )  # fmt: skip
        command.kp[0], command.kd[0] = arm.kp, arm.kd
        command.velocity[0], command.torque[0] = 0.0, 0.0
        before = sim.measure()
        sim.step(command, 1)
        torque = command.kp * (command.position - before.position) + command.torque
        torque += command.kd * (command.velocity - before.velocity)
        np.testing.assert_allclose(sim.measure().torque, np.clip(torque, -20, 20), atol=1e-9)
    sim.step(hold(np.zeros((rows, 2)), arm.kp, arm.kd), 1)
    assert not sim._foreign.any(), "its own gains again"
    fresh = MujocoSimulation(Scene.of(arm), rows, 1)
    np.testing.assert_array_equal(sim._gain, fresh._gain)
    np.testing.assert_allclose(sim._bias, fresh._bias, atol=0)


def test_latency_delays_gains_too(arm):
    sim = MujocoSimulation(Scene.of(arm), 3, 1)
    begin(sim)
    sim.latency[:] = [0, 2, 5]
    stiff = hold(np.full((3, 2), 0.5), 5 * arm.kp, arm.kd)
    sim.step(stiff, 4)
    moved = sim.measure().position[:, 0]
    assert moved[0] > moved[1] > moved[2]
    assert moved[2] == pytest.approx(0, abs=1e-12)
    assert sim._gains[:, 0, 0, 0].tolist() == [50.0, 50.0, 50.0], "the last arrives for the next"


def test_a_bolted_base_stays_and_measures_as_one_at_rest(arm):
    scene = Scene((Placed(arm, position=(0.3, -0.2, 0.0), yaw=0.5),))
    sim = MujocoSimulation(scene, 2, 1)
    begin(sim)
    sim.push(np.ones((2, 3)))
    sim.step(hold(np.full((2, 2), 0.3), arm.kp, arm.kd), 50)
    measured = sim.measure()
    np.testing.assert_allclose(measured.base_position, [[0.3, -0.2, 0.5]] * 2)
    np.testing.assert_allclose(measured.orientation, [[np.cos(0.25), 0, 0, np.sin(0.25)]] * 2)
    assert not measured.base_velocity.any()
    assert not measured.angular_velocity.any()


def test_robots_of_one_world_are_rows(arm):
    """Two in each of three worlds, commanded by row; what one does, the other doesn't."""
    scene = Scene((Placed(arm, "left_"), Placed(arm, "right_", (0.0, 2.0, 0.0))))
    sim = MujocoSimulation(scene, 6, 1)
    assert sim.agents == 2
    begin(sim)
    target = np.zeros((6, 2))
    target[[1, 2]] = 0.7
    sim.step(hold(target, arm.kp, arm.kd), 3000)
    measured = sim.measure()
    np.testing.assert_allclose(measured.position, target, atol=0.01)
    np.testing.assert_allclose(measured.base_position[:, 1], np.tile([0, 2], 3))
    assert sim.poses.shape == (3, 4)
    saved = sim.save_state()
    other = MujocoSimulation(scene, 6, 1)
    other.load_state(saved)
    for one in (sim, other):
        one.step(hold(-target, 2 * arm.kp, arm.kd), 20)
    np.testing.assert_array_equal(sim.measure().position, other.measure().position)


def test_two_go2s_stand_in_one_world():
    scene = Scene((Placed(GO2, "a_"), Placed(GO2, "b_")))
    sim = MujocoSimulation(scene, 2, 1)
    start = Start(
        np.array([[0, 0, GO2.base_height], [0, 1.0, GO2.base_height]]),
        np.tile([1.0, 0, 0, 0], (2, 1)), np.zeros((2, 6)), np.tile(GO2.stand, (2, 1)),
        np.zeros((2, 12)),
    )  # fmt: skip
    sim.reset(np.arange(2), start, Physics.nominal(2))
    sim.push(np.array([[0, 0, 0], [0.3, 0, 0]]))
    sim.step(hold(start.position, GO2.kp, GO2.kd), 300)
    measured = sim.measure()
    weight = load_model(GO2).body_mass.sum() * 9.81
    np.testing.assert_allclose(measured.sensors["foot_force"].sum(1), weight, rtol=0.05)
    assert measured.base_position[1, 0] - measured.base_position[0, 0] > 0.005


def test_objects_markers_and_forces(arm):
    scene = Scene.of(
        arm,
        objects=(
            Object("cube", "box", (0.03, 0.03, 0.03), free=True, mass=0.2),
            Object("wall", "box", (0.01, 0.2, 0.2), position=(0.8, 0, 0.2)),
        ),
        markers=(Marker("goal"),),
        sensors=(Sensor("tool_position", "framepos", "site", "tool"),
                 Sensor("cube_speed", "framelinvel", "body", "cube")),
    )  # fmt: skip
    sim = MujocoSimulation(scene, 2, 1)
    pose = np.array([[0.5, 0, 0.3, 1, 0, 0, 0], [0.5, 0.1, 0.03, 1, 0, 0, 0]])
    begin(sim, cube=pose, goal=pose)
    sim.step(hold(np.zeros((2, 2)), arm.kp, arm.kd), 50)
    falling = sim.measure().sensors
    assert falling["cube_speed"][0, 2] == pytest.approx(-0.981 * 49 / 50, rel=1e-3)
    assert abs(falling["cube_speed"][1, 2]) < 0.02
    np.testing.assert_allclose(falling["tool_position"], [[0.6, 0, 0.5]] * 2, atol=1e-6)
    sim.step(hold(np.zeros((2, 2)), arm.kp, arm.kd), 500)
    np.testing.assert_allclose(sim.measure().sensors["cube"][:, 2], 0.03, atol=0.002)
    np.testing.assert_allclose(sim._mocap[:, 0], pose[:, :3])


def test_a_wrench_on_a_body():
    """Lifted with half its weight, a standing Go2 presses half as hard."""
    sim = MujocoSimulation(Scene.of(GO2), 2, 1)
    begin(sim)
    weight = sim.model.body_mass.sum() * 9.81
    sim.wrench("base", np.array([[0, 0, 0, 0, 0, 0], [0, 0, 0.5 * weight, 0, 0, 0.0]]))
    sim.step(hold(np.tile(GO2.stand, (2, 1)), GO2.kp, GO2.kd), 300)
    force = sim.measure().sensors["foot_force"].sum(1)
    np.testing.assert_allclose(force, [weight, 0.5 * weight], rtol=0.05)


def test_terrain_carries_a_robot():
    heights = tuple(tuple(0.2 * (x > 10) for x in range(21)) for _ in range(21))
    scene = Scene.of(GO2, terrain=Terrain(heights, (10.0, 10.0)))
    sim = MujocoSimulation(scene, 2, 1)
    begin(sim)
    sim.qpos[:, :3] += [[-2.5, 0, 0], [2.5, 0, 0.2]]  # the step is between them
    sim.step(hold(np.tile(GO2.stand, (2, 1)), GO2.kp, GO2.kd), 300)
    low, high = sim.measure().base_position[:, 2]
    assert 0.24 < low < 0.34
    assert high - low == pytest.approx(0.2, abs=0.005)


def test_cameras_see_what_is_there(arm):
    spec = dataclasses.replace(arm, sensors=(RobotSensor("eye", (32, 48, 3), "uint8"),))
    scene = Scene.of(
        spec,
        objects=(Object("red", "box", (0.1, 0.1, 0.1), free=True, rgba=(1, 0, 0, 1)),),
        cameras=(Camera("side", (0.0, -2.0, 0.5), (0.0, 0.0, 0.2)),),
    )
    sim = MujocoSimulation(scene, 2, 1)
    there = np.array([[0.3, 0.3, 0.8, 1, 0, 0, 0], [9, 9, 0.8, 1, 0, 0, 0.0]])
    begin(sim, red=there)
    seen = sim.measure().sensors["eye"].astype(int)
    assert seen.shape == (2, 32, 48, 3)
    red = ((seen[..., 0] > 100) & (seen[..., 1] < 60)).sum((1, 2))
    assert red[0] > 10
    assert red[1] == 0
    side = sim.render("side", 40, 60).astype(int)
    assert side.shape == (2, 40, 60, 3)
    assert np.abs(side[0] - side[1]).max() > 60, "it looks at the arm"
    assert sim.render("side", 20, 30, np.array([1])).shape == (1, 20, 30, 3)
    sim.close()
    sim.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda arm: Scene(()), "no robot"),
        (lambda arm: Scene((Placed(arm), Placed(arm))), "prefixes"),
        (lambda arm: Object("it", "pyramid", (1.0,)), "object it: 'pyramid'"),
        (lambda arm: Scene((Placed(arm, "a_"), Placed(GO2, "b_"))), "different joints"),
        (lambda arm: Scene.of(arm, sensors=(Sensor("x", "smell", "site", "tool"),)).model,
         "sensor x: no 'smell'"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_one_line(arm, make, words):
    with pytest.raises(ValueError, match=words):
        make(arm)


def test_rows_fill_whole_worlds(arm):
    scene = Scene((Placed(arm, "a_"), Placed(arm, "b_")))
    with pytest.raises(ValueError, match="rows: 3, expected a multiple of 2"):
        MujocoSimulation(scene, 3, 1)
    assert mujoco.__version__
