"""The Go2 in PyBullet is the Go2 of MuJoCo: masses, lengths, dynamics, motors."""

from __future__ import annotations

import subprocess
import sys

import mujoco
import numpy as np
import pybullet
import pytest
from motoric.control.command import MotorCommand
from motoric.control.rotation import rotate_inverse
from motoric.hardware.drivers import make_robot
from motoric.hardware.models import load_model
from motoric.hardware.models.urdf import GEAR, floor_friction, roll_pitch_yaw
from motoric.hardware.runtime.bundle import Bundle
from motoric.hardware.runtime.deploy import deploy
from motoric.hardware.simulated.body import Body
from motoric.hardware.simulated.pybullet_body import PyBulletBody
from motoric.hardware.simulated.pybullet_world import PyBulletWorld
from motoric.hardware.simulated.robot import SimRobot
from motoric.hardware.specs.go2 import GO2

MODEL = load_model(GO2)


@pytest.fixture(scope="module")
def world() -> PyBulletWorld:
    return PyBulletWorld(GO2, MODEL, 0.001)


def somewhere(seed: int, spread: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """qpos and qvel in the air."""
    rng = np.random.default_rng(seed)
    qpos = np.concatenate(
        [[0.3, -0.2, 5.0], rng.normal(size=4), GO2.stand + rng.uniform(-spread, spread, 12)]
    )
    qpos[3:7] /= np.linalg.norm(qpos[3:7])
    return qpos, rng.normal(size=18)


def in_mujoco(qpos: np.ndarray, qvel: np.ndarray) -> mujoco.MjData:
    data = mujoco.MjData(MODEL)
    data.qpos[:], data.qvel[:] = qpos, qvel
    mujoco.mj_forward(MODEL, data)
    return data


def link_of(world: PyBulletWorld, joint: str) -> int:
    return world._joints[GO2.joints.index(joint)]


def test_every_link_has_its_mass_and_inertia(world):
    total = 0.0
    for body in range(1, MODEL.nbody):
        index = MODEL.body_jntadr[body]
        link = -1 if body == 1 else link_of(world, MODEL.joint(index).name)
        mass, _, inertia, where, turn, *_ = pybullet.getDynamicsInfo(
            world._body, link, **world._call
        )
        total += mass
        assert mass == MODEL.body_mass[body]
        np.testing.assert_allclose(inertia, MODEL.body_inertia[body], rtol=1e-12)
        np.testing.assert_allclose(where, MODEL.body_ipos[body], atol=1e-12)
        np.testing.assert_allclose(
            np.abs(np.dot(turn, MODEL.body_iquat[body][[1, 2, 3, 0]])), 1.0, atol=1e-12
        )
    links = range(-1, pybullet.getNumJoints(world._body, **world._call))
    masses = [pybullet.getDynamicsInfo(world._body, i, **world._call)[0] for i in links]
    assert sum(masses) == pytest.approx(MODEL.body_mass.sum(), abs=1e-12)
    assert total == pytest.approx(MODEL.body_mass.sum(), abs=1e-12)


def test_joints_have_their_limits_and_shapes_their_friction(world):
    for name, lower, upper in zip(GO2.joints, GO2.limits.lower, GO2.limits.upper, strict=True):
        info = pybullet.getJointInfo(world._body, link_of(world, name), **world._call)
        assert info[8:10] == (lower, upper)
    foot = MODEL.geom("FL").id
    assert floor_friction(MODEL, foot) == 0.8, "the feet's, which have priority"
    assert floor_friction(MODEL, MODEL.geom("trunk").id) == 0.8, "the larger: the floor's"


@pytest.mark.parametrize("seed", range(5))
def test_state_and_feet_agree(world, seed):
    qpos, qvel = somewhere(seed)
    world.set_state(qpos, qvel)
    back_qpos, back_qvel = world.state()
    back_qpos[3:7] *= np.sign(back_qpos[3:7] @ qpos[3:7])
    np.testing.assert_allclose(back_qpos, qpos, atol=1e-12)
    np.testing.assert_allclose(back_qvel, qvel, atol=1e-12)
    data = in_mujoco(qpos, qvel)
    height, velocity, force = world.feet()
    sites = [MODEL.site(f).id for f in GO2.feet]
    radius = MODEL.geom_size[[MODEL.geom(f).id for f in GO2.feet], 0]
    np.testing.assert_allclose(height, data.site_xpos[sites, 2] - radius, atol=1e-6)
    speeds = [data.sensor(f"{f}_velocity").data for f in GO2.feet]
    np.testing.assert_allclose(velocity, speeds, atol=1e-9)
    assert (force == 0).all()
    states = pybullet.getLinkStates(world._body, world._feet, **world._call)
    places = np.array([s[4] for s in states])
    np.testing.assert_allclose(places, data.site_xpos[sites], atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_mass_matrix_and_gravity_torques_agree(tmp_path, seed):
    """Without rotors and armature: joints' rows of M, and the torques that hold against gravity."""
    qpos, _ = somewhere(seed)
    qpos[3:7] = [1, 0, 0, 0]
    data = in_mujoco(qpos, np.zeros(18))
    mass = np.zeros((18, 18))
    for i, unit in enumerate(np.eye(18)):
        mujoco.mj_mulM(MODEL, data, mass[i], unit)
    mass[6:, 6:] -= np.diag(MODEL.dof_armature[6:])
    body, call = without_rotors(tmp_path)
    try:
        pybullet.resetBasePositionAndOrientation(
            body, qpos[:3] + MODEL.body_ipos[1], MODEL.body_iquat[1][[1, 2, 3, 0]], **call
        )
        ours = np.array(pybullet.calculateMassMatrix(body, qpos[7:].tolist(), **call))
        np.testing.assert_allclose(ours[6:, 6:], mass[6:, 6:], atol=1e-9)
        assert ours[3, 3] == pytest.approx(MODEL.body_mass.sum())
    finally:
        pybullet.disconnect(**call)
    body, call = without_rotors(tmp_path, fixed=True)
    try:
        zero = [0.0] * 12
        torque = pybullet.calculateInverseDynamics(body, qpos[7:].tolist(), zero, zero, **call)
        np.testing.assert_allclose(torque, data.qfrc_bias[6:], atol=1e-6)
    finally:
        pybullet.disconnect(**call)


def without_rotors(folder, fixed: bool = False) -> tuple[int, dict]:
    """The URDF's links but the rotors, in a world without contacts."""
    from xml.etree import ElementTree

    from motoric.hardware.models.urdf import to_urdf

    root = ElementTree.fromstring(to_urdf(MODEL, GO2))
    for element in list(root):
        if element.get("name", "").endswith("_rotor"):
            root.remove(element)
    path = folder / "go2.urdf"
    path.write_text(ElementTree.tostring(root, encoding="unicode"))
    call = {"physicsClientId": pybullet.connect(pybullet.DIRECT)}
    # calculateInverseDynamics wants gravity in the frame of the base's inertia
    down = rotate_inverse(MODEL.body_iquat[1:2], np.array([[0, 0, -9.81]]))[0]
    pybullet.setGravity(*down, **call)
    body = pybullet.loadURDF(
        str(path), [0, 0, 1], useFixedBase=fixed, flags=pybullet.URDF_USE_INERTIA_FROM_FILE, **call
    )
    return body, call


def test_swings_freely_as_in_mujoco():
    """Half a second in the air without motors: armature, damping, friction and gravity agree."""
    model = load_model(GO2)
    model.opt.timestep = dt = 0.0005
    model.actuator_gainprm[:] = model.actuator_biasprm[:] = 0
    world = PyBulletWorld(GO2, model, dt)
    qpos, qvel = somewhere(1, 0.2)
    qvel[6:] *= 3.0
    world.set_state(qpos, qvel)
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = qpos, qvel
    for _ in range(1000):
        mujoco.mj_step(model, data)
        world.step(np.zeros(12))
    moved = np.abs(data.qpos[7:] - qpos[7:]).max()
    assert moved > 0.5
    np.testing.assert_allclose(world.joints()[0], data.qpos[7:], atol=0.02 * moved)


def test_rotors_are_the_armature():
    """A torque's first acceleration is M^-1 tau, with armature in M."""
    model = load_model(GO2)
    model.dof_damping[:] = model.dof_frictionloss[:] = 0
    model.opt.gravity[:] = 0
    world = PyBulletWorld(GO2, model, 1e-4)
    qpos, _ = somewhere(2)
    world.set_state(qpos, np.zeros(18))
    torque = np.random.default_rng(0).uniform(-3, 3, 12)
    world.step(torque)
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_forward(model, data)
    wanted = np.zeros((1, 18))
    force = np.concatenate([np.zeros(6), torque])[None]
    mujoco.mj_solveM(model, data, wanted, force)
    np.testing.assert_allclose(
        world.joints()[1] / 1e-4, wanted[0, 6:], rtol=5e-3, atol=5e-3 * np.abs(wanted).max()
    )
    speeds = world.save()[-12:]
    np.testing.assert_allclose(speeds, GEAR * world.joints()[1], rtol=1e-6)


def test_stands_with_its_weight_on_its_feet():
    world = PyBulletWorld(GO2, MODEL, 0.0025)
    world.set_physics(friction=0.8, payload=2.0)
    qpos = np.concatenate([[0, 0, 0.33, 1, 0, 0, 0], GO2.stand])
    world.set_state(qpos, np.zeros(18))
    for _ in range(800):
        position, velocity = world.joints()
        world.step(GO2.kp * (GO2.stand - position) - GO2.kd * velocity)
    height, _, force = world.feet()
    assert np.abs(height).max() < 0.002
    assert force.sum() == pytest.approx((MODEL.body_mass.sum() + 2.0) * 9.81, rel=0.02)


def test_slippery_feet_slide():
    speed = {}
    for friction in (0.05, 1.0):
        world = PyBulletWorld(GO2, MODEL, 0.0025)
        world.set_physics(friction, 0.0)
        qpos = np.concatenate([[0, 0, 0.31, 1, 0, 0, 0], GO2.stand])
        world.set_state(qpos, np.concatenate([[0.5, 0, 0], np.zeros(15)]))
        for _ in range(60):
            position, velocity = world.joints()
            world.step(GO2.kp * (GO2.stand - position) - GO2.kd * velocity)
        speed[friction] = np.median(np.abs(world.feet()[1][:, 0]))
    assert speed[0.05] > 0.2
    assert speed[1.0] < 0.02


def test_roll_pitch_yaw_turn_back_into_the_matrix():
    rng = np.random.default_rng(3)
    quaternions = [*rng.normal(size=(20, 4)), [1, 0, 1, 0], [1, 0, -1, 0], [0.5, 0.5, 0.5, -0.5]]
    for q in quaternions:
        q = np.array(q) / np.linalg.norm(q)
        wanted, got = np.zeros(9), np.zeros(9)
        mujoco.mju_quat2Mat(wanted, q)
        x, y, z, w = pybullet.getQuaternionFromEuler(roll_pitch_yaw(q).tolist())
        mujoco.mju_quat2Mat(got, np.array([w, x, y, z]))
        np.testing.assert_allclose(got, wanted, atol=1e-7)


def command(simulation, position, kp: float, kd: float) -> MotorCommand:
    ones = np.ones(12)
    return MotorCommand(
        np.asarray(position), 0 * ones, kp * ones, kd * ones, 0 * ones, simulation.time, 1
    )


@pytest.mark.parametrize("kind", [Body, PyBulletBody])
def test_the_simulated_robot_is_the_same_in_both_engines(kind):
    robot = kind(GO2)
    state = robot.state()
    assert state.base_height < 0.15, "it lies"
    assert np.abs(state.velocity).max() < 0.1
    assert (state.torque == 0).all(), "its motors are off"
    robot.on = True
    start = state.position
    for i in range(600):
        robot.take(command(robot, start + min(1.0, i / 400) * (GO2.stand - start), 60.0, 2.0))
        robot.step()
    state = robot.state()
    assert 0.25 < state.base_height < 0.36, "it stood up"
    assert (np.abs(state.torque) <= GO2.limits.torque).all()
    assert state.time == pytest.approx(1.0 + 600 * 0.0025)
    robot.disturb(push=(0.0, 0.4, 0.0))
    assert robot.state().base_velocity[1] == pytest.approx(0.4, abs=0.05)
    for _ in range(50):  # no command for 125 ms: it damps
        velocity = robot.state().velocity
        robot.step()
    np.testing.assert_allclose(robot.state().torque, -2.0 * velocity, atol=1e-9)
    robot.disturb(joint=(2, -1.0), roll=0.5, lift=0.3)
    state = robot.state()
    assert state.position[2] == pytest.approx(-1.0)
    assert state.base_height > 0.3


def test_unknown_engine_is_named():
    with pytest.raises(ValueError, match="engine: 'dart', expected one of mujoco, pybullet"):
        SimRobot(engine="dart")


def test_a_bundle_stands_on_the_robot_in_pybullet(bundle_folder, tmp_path, quick):
    robot = make_robot("sim", engine="pybullet")
    try:
        bundle = Bundle.load(bundle_folder, robot.spec)
        report = deploy(bundle, robot, 1.0, [0.0, 0.0, 0.0], tmp_path / "log.mcap", keys=False)
    finally:
        robot.close()
    assert report.fault is None
    assert report.metrics["fell"] == 0
    assert report.ticks >= 40


def test_importing_it_prints_nothing():
    """PyBullet itself tells when it was built."""
    code = (
        "from motoric.hardware.simulated.pybullet_world import import_quietly\n"
        "print(import_quietly().DIRECT)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("2\n", "")
