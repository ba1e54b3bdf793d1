"""The models are the robots: every mass, inertia, armature, friction and limit is a published one.

The tables hold the figures as they were published, link by link; links that are fixed to each
other are one body of ours. A number that is changed in a model, or here, is seen.
"""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from motoric.hardware.models import load_model
from motoric.hardware.specs.b2 import B2
from motoric.hardware.specs.g1 import G1
from motoric.hardware.specs.go2 import GO2

# A link: mass kg, centre of mass in the frame of the body it belongs to m, inertia about it
# (xx, yy, zz, xy, xz, yz) kg m2.
Link = tuple[float, tuple[float, float, float], tuple[float, ...]]
LEGS = {"FL": (1, 1), "FR": (1, -1), "RL": (-1, 1), "RR": (-1, -1)}  # front, left


def ball(inertia: float) -> tuple[float, ...]:
    return (inertia, inertia, inertia, 0, 0, 0)


def go2() -> dict[str, list[Link]]:
    """unitree_ros, robots/go2_description/urdf/go2_description.urdf at a3b70ca."""
    about_x = (0.000111842, 0.000059647, 0.000059647, 0, 0, 0)  # rotors
    about_y = (0.000059647, 0.000111842, 0.000059647, 0, 0, 0)
    base = (0.02448, 0.098077, 0.107, 0.00012166, 0.0014849, -3.12e-5)
    bodies: dict[str, list[Link]] = {
        "base": [
            (6.921, (0.021112, 0, -0.005366), base),
            (0.001, (0.285, 0, 0.01), ball(9.6e-6)),
            (0.001, (0.293, 0, -0.06), ball(9.6e-6)),
            *((0.089, (0.11215 * x, 0.04675 * y, 0), about_x) for x, y in LEGS.values()),
        ]
    }
    for leg, (x, y) in LEGS.items():
        hip = (0.00048, 0.000884, 0.000596, -3.01e-6 * x * y, 1.11e-6 * x, -1.42e-6 * y)
        thigh = (0.00584, 0.0058, 0.00103, 8.72e-5 * y, -0.000289, 0.000808 * y)
        calf = (0.00108, 0.0011, 3.29e-5, 3.4e-7 * y, 1.72e-5, 8.28e-6 * y)
        bodies[f"{leg}_hip"] = [
            (0.678, (-0.0054 * x, 0.00194 * y, -0.000105), hip),
            (0.089, (0, -0.00015 * y, 0), about_y),
        ]
        bodies[f"{leg}_thigh"] = [
            (1.152, (-0.00374, -0.0223 * y, -0.0327), thigh),
            (0.089, (0, -0.03235 * y, 0), about_y),
        ]
        bodies[f"{leg}_calf"] = [
            (0.154, (0.00548, -0.000975 * y, -0.115), calf),
            (0.04, (0, 0, -0.213), ball(9.6e-6)),
        ]
    return bodies


def b2() -> dict[str, list[Link]]:
    """unitree_ros, robots/b2_description/urdf/b2_description.urdf at d2a7fac."""
    rotor = (0.000144463, 0.000144463, 0.000263053, 0, 0, 0)
    trunk = (0.27466, 1.0618, 1.1825, -0.000622, 0.00315, -0.00139)
    head = (0.026455, 0.029221, 0.010918, 3.15e-5, 0.00166, -3.27e-5)
    tail = (0.0028118, 0.0047506, 0.0029154, 1.95e-5, -7.87e-6, -1.57e-5)
    bodies: dict[str, list[Link]] = {
        "base": [
            (35.86, (0.000458, 0.005261, 0.000665), trunk),
            (3.6885, (0.33989, -0.000168, 0.12029), head),
            (0.795, (-0.37448, 0.000488, 0.006495), tail),
            *((0.2734, (0.20205 * x, 0.072 * y, 0), rotor) for x, y in LEGS.values()),
        ]
    }
    # As published: hips of a diagonal are alike, those of a side are not.
    hip_a = (0.0033188, 0.0048743, 0.0037087, 7.16e-5)
    hip_b = (0.0026431, 0.0046728, 0.0034208, -0.00019234)
    hips: dict[str, Link] = {
        "FL": (2.673, (-0.003841, -0.009068, 0), (*hip_a, -3.77e-7, 4e-9)),
        "FR": (2.673, (-0.009305, 0.010228, 0.000264), (*hip_b, -6.76e-6, 7.16e-6)),
        "RL": (2.673, (0.009305, -0.010228, 0.000264), (*hip_b, 6.76e-6, -7.16e-6)),
        "RR": (2.673, (0.003841, 0.009068, 0), (*hip_a, 3.77e-7, -4e-9)),
    }
    for leg, (_, y) in LEGS.items():
        thigh = (0.062299, 0.061399, 0.0081997, 0.00087781 * y, -0.0036475, 0.0083537 * y)
        foot = (-0.006511, -8.6984e-5 if leg == "RR" else 0, -0.35 - 0.010144)
        bodies[f"{leg}_hip"] = [hips[leg], (0.2734, (0, -0.00798 * y, 0), rotor)]
        bodies[f"{leg}_thigh"] = [
            (4.536, (-0.006279, -0.032049 * y, -0.057835), thigh),
            (0.2734, (0, -0.05788 * y, 0), rotor),
        ]
        bodies[f"{leg}_calf"] = [
            (0.404, (0.012422, 0, -0.12499), (0.01143, 0.011534, 0.000331, 0, 0.000643, 0)),
            (0.126, foot, (3.8e-5, 4.1e-5, 4.2e-5, 0, 1.1e-5, 0)),
        ]
    return bodies


def g1() -> dict[str, list[Link]]:
    """unitree_ros, robots/g1_description/g1_29dof_rev_1_0.urdf at 1ab5f1e."""
    torso = (0.05905, 0.047014, 0.025652, 3.3302e-5, -0.0017715, -2.2399e-5)
    head = (0.004085051, 0.004185212, 0.001807911, -2.543e-6, -6.9455e-5, -3.726e-6)
    bodies: dict[str, list[Link]] = {
        "base": [
            (3.813, (0, 0, -0.07605), (0.010549, 0.0093089, 0.0079184, 0, 2.1e-6, 0)),
        ],
        "waist_yaw_link": [(
            0.214, (0.003494, 0.000233, 0.018034),
            (0.00010673, 0.00010422, 0.0001625, 2.703e-6, -7.631e-6, -2.01e-7),
        )],
        "waist_roll_link": [
            (0.086, (0, 2.3e-5, 0), (7.079e-6, 6.339e-6, 8.245e-6, 0, 0, 0))
        ],
        "torso_link": [
            (6.78, (0.000931, 0.000346, 0.15082), torso),
            (1.036, (0.005267 + 0.0039635, 0.000299, 0.449869 - 0.044), head),
            (0.001, (0.0039635, 0, -0.044), ball(1e-7)),
        ],
    }  # fmt: skip
    left: dict[str, list[Link]] = {
        "hip_pitch": [(
            1.35, (0.002741, 0.047791, -0.02606),
            (0.001811, 0.0014193, 0.0012812, 3.68e-5, -3.44e-5, 0.000171),
        )],
        "hip_roll": [(
            1.52, (0.029812, -0.001045, -0.087934),
            (0.0023773, 0.0024123, 0.0016595, -3.8e-6, -0.0003908, 1.84e-5),
        )],
        "hip_yaw": [(
            1.702, (-0.057709, -0.010981, -0.15078),
            (0.0057774, 0.0076124, 0.003149, -0.0005411, -0.0023948, -0.0007072),
        )],
        "knee": [(
            1.932, (0.005457, 0.003964, -0.12074),
            (0.011329, 0.011277, 0.0015168, 4.82e-5, -4.49e-5, -0.0007146),
        )],
        "ankle_pitch": [
            (0.074, (-0.007269, 0, 0.011137), (8.4e-6, 1.89e-5, 1.26e-5, 0, -2.9e-6, 0))
        ],
        "ankle_roll": [(
            0.608, (0.026505, 0, -0.016425),
            (0.0002231, 0.0016161, 0.0016667, 2e-7, 8.91e-5, -1e-7),
        )],
        "shoulder_pitch": [(
            0.718, (0, 0.035892, -0.011628),
            (0.0004291, 0.000453, 0.000423, -9.2e-6, 6.4e-6, 2.26e-5),
        )],
        "shoulder_roll": [(
            0.643, (-0.000227, 0.00727, -0.063243),
            (0.0006177, 0.0006912, 0.0003894, -1e-6, 8.7e-6, -5.3e-6),
        )],
        "shoulder_yaw": [(
            0.734, (0.010773, -0.002949, -0.072009),
            (0.0009988, 0.0010605, 0.0004354, 7.9e-6, 0.0001412, -2.86e-5),
        )],
        "elbow": [(
            0.6, (0.064956, 0.004454, -0.010062),
            (0.0002891, 0.0004152, 0.0004197, 6.53e-5, 1.72e-5, -5.6e-6),
        )],
        "wrist_roll": [(
            0.08544498, (0.01713944778, 0.00053759094, 4.8864e-7),
            (4.821544e-5, 3.722899e-5, 5.482107e-5, -4.24511e-6, 5.106e-9, -1.235e-9),
        )],
        "wrist_pitch": [(
            0.48404956, (0.02299989837, -0.00111685314, -0.00111658096),
            (0.0001657965, 0.0004295406, 0.000429537, -1.231207e-5, 1.231699e-5, 8.14177e-7),
        )],
        "wrist_yaw": [
            (
                0.08457647, (0.02200381568, 0.00049485096, 0.00053861123),
                (4.929129e-5, 5.973338e-5, 3.928084e-5, -4.573549e-7, 4.458676e-6, 4.32172e-7),
            ),
            (
                0.17, (0.0415 + 0.05361310808, 0.003 - 0.0029590524, 0.00215413091),
                (0.0001009949, 0.0002813587, 0.0002189477, 3.618591e-5, -7.430151e-7, 3.301897e-6),
            ),
        ],
    }  # fmt: skip
    for part, links in left.items():
        bodies[f"left_{part}_link"] = links
        bodies[f"right_{part}_link"] = [mirrored(link) for link in links]
    ((mass, centre, inertia),) = bodies["right_knee_link"]
    as_published = (*inertia[:4], 4.49e-5, inertia[5])  # xz is not the left one's
    bodies["right_knee_link"] = [(mass, centre, as_published)]
    return bodies


def mirrored(link: Link) -> Link:
    mass, (x, y, z), (xx, yy, zz, xy, xz, yz) = link
    return mass, (x, -y, z), (xx, yy, zz, -xy, xz, -yz)


def together(links: list[Link]) -> tuple[float, np.ndarray, np.ndarray]:
    """Mass, centre of mass and inertia about it of links that are one body."""
    mass = sum(link[0] for link in links)
    centre = sum(link[0] * np.array(link[1]) for link in links) / mass
    inertia = np.zeros((3, 3))
    for part, position, (xx, yy, zz, xy, xz, yz) in links:
        arm = np.array(position) - centre
        inertia += np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        inertia += part * (arm @ arm * np.eye(3) - np.outer(arm, arm))
    return mass, centre, inertia


def gear(rotor: float, ratio: float) -> float:
    return rotor * ratio**2


def two_stages(rotor: float, second: float, third: float, first_gear: float, gear: float) -> float:
    """Of a planetary gear of two stages, at its output: each part's inertia by its own ratio."""
    return rotor * (first_gear * gear) ** 2 + second * gear**2 + third


ROBOTS = {
    "go2": (GO2, go2(), 16.087),
    "b2": (B2, b2(), 74.5803),
    "g1": (G1, g1(), 33.34),
}


@pytest.mark.parametrize(("robot", "bodies", "total"), ROBOTS.values(), ids=ROBOTS)
def test_every_body_has_its_published_mass_centre_and_inertia(robot, bodies, total):
    model = load_model(robot)
    assert model.body_mass.sum() == pytest.approx(total, abs=1e-3)
    assert {model.body(i).name for i in range(1, model.nbody)} == set(bodies)
    for name, links in bodies.items():
        mass, centre, inertia = together(links)
        body = model.body(name).id
        turn = np.zeros(9)
        mujoco.mju_quat2Mat(turn, model.body_iquat[body])
        turn = turn.reshape(3, 3)
        ours = turn @ np.diag(model.body_inertia[body]) @ turn.T
        assert model.body_mass[body] == pytest.approx(mass, rel=1e-5), name
        np.testing.assert_allclose(model.body_ipos[body], centre, atol=1e-6, err_msg=name)
        scale = np.abs(inertia).max()
        np.testing.assert_allclose(ours, inertia, atol=1e-4 * scale, err_msg=name)


# Joint by a part of its name: armature kg m2, damping N m s/rad, friction N m.
JOINTS = {
    # unitree_rl_mjlab, src/assets/robots/unitree_go2/go2_constants.py; unitree_mujoco, go2.xml
    "go2": {"hip": (0.01, 0.1, 0.2), "thigh": (0.01, 0.1, 0.2), "calf": (0.02, 0.1, 0.2)},
    # unitree_rl_mjlab, src/assets/robots/unitree_b2/xmls/b2.xml; friction: our estimate
    "b2": {"": (0.1, 1.0, 0.5)},
    # unitree_rl_mjlab, src/assets/robots/unitree_g1/g1_constants.py; unitree_mujoco, g1_29dof.xml
    "g1": {
        part: (armature, 0.001, 0.1)
        for motor, armature in {
            "5020": two_stages(0.139e-4, 0.017e-4, 0.169e-4, 1 + 46 / 18, 1 + 56 / 16),
            "7520-14": two_stages(0.489e-4, 0.098e-4, 0.533e-4, 4.5, 1 + 48 / 22),
            "7520-22": two_stages(0.489e-4, 0.109e-4, 0.738e-4, 4.5, 5),
            "4010": two_stages(0.068e-4, 0.0, 0.0, 5, 5),
            "two 5020": 2 * two_stages(0.139e-4, 0.017e-4, 0.169e-4, 1 + 46 / 18, 1 + 56 / 16),
        }.items()
        for part in {
            "5020": ("shoulder", "elbow", "wrist_roll"),
            "7520-14": ("hip_pitch", "hip_yaw", "waist_yaw"),
            "7520-22": ("hip_roll", "knee"),
            "4010": ("wrist_pitch", "wrist_yaw"),
            "two 5020": ("ankle", "waist_roll", "waist_pitch"),
        }[motor]
    },
}


@pytest.mark.parametrize("name", ROBOTS)
def test_every_joint_has_its_published_armature_damping_and_friction(name):
    robot, model = ROBOTS[name][0], load_model(ROBOTS[name][0])
    for joint in robot.joints:
        (wanted,) = (value for part, value in JOINTS[name].items() if part in joint)
        dof = model.joint(joint).dofadr[0]
        ours = model.dof_armature[dof], model.dof_damping[dof], model.dof_frictionloss[dof]
        assert ours == pytest.approx(wanted, rel=1e-4), joint


def test_armature_of_the_go2_is_between_the_rotors_alone_and_what_unitree_learns_with():
    """GO-M8010-6 has a gear of 6.33, the calf a linkage of 45.43 / 23.7 more."""
    armature = load_model(GO2).dof_armature[6:9]
    rotor = np.array([gear(0.000111842, 6.33)] * 2 + [gear(0.000111842, 6.33 * 45.43 / 23.7)])
    np.testing.assert_allclose(rotor, [0.00448, 0.00448, 0.01647], atol=1e-5)
    assert (rotor < armature).all()
    assert (armature <= [0.01, 0.01, 0.02]).all()


# Lower, upper rad, torque N m, velocity rad/s, as in the URDF named above.
LIMITS = {
    "go2": {
        "hip": (-1.0472, 1.0472, 23.7, 30.1),
        "F*_thigh": (-1.5708, 3.4907, 23.7, 30.1),
        "R*_thigh": (-0.5236, 4.5379, 23.7, 30.1),
        "calf": (-2.7227, -0.83776, 45.43, 15.70),
    },
    "b2": {
        "hip": (-0.87, 0.87, 200, 23),
        "thigh": (-0.94, 4.69, 200, 23),
        "calf": (-2.82, -0.43, 320, 14),
    },
    "g1": {
        "hip_pitch": (-2.5307, 2.8798, 88, 32),
        "left_hip_roll": (-0.5236, 2.9671, 139, 20),
        "right_hip_roll": (-2.9671, 0.5236, 139, 20),
        "hip_yaw": (-2.7576, 2.7576, 88, 32),
        "knee": (-0.087267, 2.8798, 139, 20),
        "ankle_pitch": (-0.87267, 0.5236, 35, 30),
        "ankle_roll": (-0.2618, 0.2618, 35, 30),
        "waist_yaw": (-2.618, 2.618, 88, 32),
        "waist_roll": (-0.52, 0.52, 35, 30),
        "waist_pitch": (-0.52, 0.52, 35, 30),
        "shoulder_pitch": (-3.0892, 2.6704, 25, 37),
        "left_shoulder_roll": (-1.5882, 2.2515, 25, 37),
        "right_shoulder_roll": (-2.2515, 1.5882, 25, 37),
        "shoulder_yaw": (-2.618, 2.618, 25, 37),
        "elbow": (-1.0472, 2.0944, 25, 37),
        "wrist_roll": (-1.972222054, 1.972222054, 25, 37),
        "wrist_pitch": (-1.614429558, 1.614429558, 5, 22),
        "wrist_yaw": (-1.614429558, 1.614429558, 5, 22),
    },
}


def fits(part: str, joint: str) -> bool:
    start, star, end = part.partition("*")
    return (joint.startswith(start) and end in joint) if star else part in joint


@pytest.mark.parametrize("name", ROBOTS)
def test_every_joint_has_its_published_limits(name):
    robot, model = ROBOTS[name][0], load_model(ROBOTS[name][0])
    for j, joint in enumerate(robot.joints):
        (wanted,) = (value for part, value in LIMITS[name].items() if fits(part, joint))
        limits = robot.limits
        ours = limits.lower[j], limits.upper[j], limits.torque[j], limits.velocity[j]
        assert ours == pytest.approx(wanted, rel=1e-5), joint
        assert model.joint(joint).range == pytest.approx(wanted[:2], rel=1e-5), joint
