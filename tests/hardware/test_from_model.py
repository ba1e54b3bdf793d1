"""A user's own robot from its URDF or MJCF alone."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest
from motoric.hardware.models import load_model
from motoric.hardware.specs.from_model import spec_from_model

ARM = """
<mujoco model="arm">
  <compiler angle="radian" autolimits="true"/>
  <worldbody>
    <body name="base" pos="0 0 0.1">
      <geom type="cylinder" size="0.05 0.1" mass="1"/>
      <body name="upper" pos="0 0 0.1">
        <joint name="lift" axis="0 1 0" range="-1 2"/>
        <geom type="capsule" size="0.03" fromto="0 0 0 0.3 0 0" mass="0.5"/>
        <body name="lower" pos="0.3 0 0">
          <joint name="flex" axis="0 1 0" range="0.2 1.5"/>
          <geom type="capsule" size="0.02" fromto="0 0 0 0.2 0 0" mass="0.3"/>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor joint="lift" ctrlrange="-1 1" forcerange="-8 8"/>
    <motor joint="flex" ctrlrange="-1 1" forcerange="-4 4"/>
  </actuator>
</mujoco>
"""
URDF = """
<robot name="slider">
  <link name="base"><inertial><mass value="1"/><inertia ixx="0.01" iyy="0.01" izz="0.01"
    ixy="0" ixz="0" iyz="0"/></inertial></link>
  <link name="hand"><inertial><mass value="0.5"/><inertia ixx="0.01" iyy="0.01" izz="0.01"
    ixy="0" ixz="0" iyz="0"/></inertial>
    <collision><geometry><box size="0.1 0.1 0.1"/></geometry></collision></link>
  <joint name="slide" type="prismatic"><parent link="base"/><child link="hand"/>
    <axis xyz="0 0 1"/><limit lower="0" upper="0.4" effort="20" velocity="0.5"/></joint>
</robot>
"""


def written(folder: Path, text: str, name: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_an_mjcf_says_all_but_speed(tmp_path):
    model = written(tmp_path, ARM, "arm.xml")
    with pytest.raises(ValueError, match=r"velocity: .*arm\.xml does not say it of lift, flex"):
        spec_from_model("arm", model)
    spec = spec_from_model("arm", model, velocity={"lift": 3.0, "flex": 4.0})
    assert spec.joints == ("lift", "flex")
    assert spec.fixed
    np.testing.assert_allclose(spec.limits.lower, [-1, 0.2])
    np.testing.assert_allclose(spec.limits.torque, [8, 4])
    np.testing.assert_allclose(spec.limits.velocity, [3, 4])
    np.testing.assert_allclose(spec.stand, [0.0, 0.85], err_msg="zero, or the middle")


def test_its_motors_become_the_robots_own(tmp_path):
    """A file's torque motors hold joint targets, as every robot's do."""
    spec = spec_from_model("arm", written(tmp_path, ARM, "arm.xml"), velocity=3.0, kp=20.0)
    model = load_model(spec)
    np.testing.assert_allclose(model.actuator_gainprm[:, 0], 20.0)
    np.testing.assert_allclose(model.actuator_biasprm[:, 1], -20.0)
    data = mujoco.MjData(model)
    data.ctrl[:] = spec.stand
    for _ in range(2000):
        mujoco.mj_step(model, data)
    np.testing.assert_allclose(data.qpos, spec.stand, atol=0.2)


def test_a_urdf_is_enough(tmp_path):
    spec = spec_from_model("slider", written(tmp_path, URDF, "slider.urdf"))
    assert spec.fixed
    assert spec.limits.velocity.tolist() == [0.5]
    assert spec.limits.torque.tolist() == [20.0]
    model = load_model(spec)
    assert (model.nq, model.nu) == (1, 1)
    assert model.geom("floor").id >= 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stand": [0.0]}, "stand: .*2 of them"),
        ({"stand": {"lift": 5.0}}, "stand: 5 of lift, expected -1 to 2"),
        ({"kp": {"knee": 1.0}}, "kp.knee: no such joint, expected lift, flex"),
        ({"kp": float("nan")}, "kp: nan, expected a finite number"),
        ({"fixed": False, "feet": ("toe",)}, "feet: 'toe', .* has no geom or link"),
    ],
)
def test_a_users_mistake_is_one_line(tmp_path, change, words):
    model = written(tmp_path, ARM, "arm.xml")
    with pytest.raises(ValueError, match=words) as caught:
        spec_from_model("arm", model, **{"velocity": 3.0} | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<robot", "is no XML"),
        ("<html/>", "begins with <html>"),
        (URDF.replace('<box size="0.1 0.1 0.1"/>', '<mesh filename="package://a/b.obj"/>'),
         "mesh package://a/b.obj is not there"),
        (ARM.replace('axis="0 1 0" range="-1 2"', 'type="ball"'), "joint lift is a ball"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_line(tmp_path, text, words):
    with pytest.raises(ValueError, match=words) as caught:
        spec_from_model("x", written(tmp_path, text, "x.xml"), velocity=1.0)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="is not a file"):
        spec_from_model("x", str(tmp_path / "nowhere.urdf"))


@pytest.mark.parametrize(
    ("file", "joints", "feet"),
    [
        ("kuka_iiwa/model.urdf", 7, ()),
        ("franka_panda/panda.urdf", 9, ()),
        ("a1/a1.urdf", 12, ("FR_toe", "FL_toe", "RR_toe", "RL_toe")),
        ("laikago/laikago_toes.urdf", 12, ("toeRL", "toeRR", "toeFL", "toeFR")),
    ],
)
def test_robots_of_others(file, joints, feet):
    data = pytest.importorskip("pybullet_data").getDataPath()
    spec = spec_from_model("it", str(Path(data) / file), feet=feet)
    assert len(spec.joints) == joints
    assert spec.fixed is not bool(feet)
    model = load_model(spec)
    assert model.nu == joints
    assert model.nq == joints + 7 * bool(feet)
    if feet:
        assert 0.2 < spec.base_height < 0.8
        assert {f"{foot}_touch" for foot in feet} <= {
            model.sensor(i).name for i in range(model.nsensor)
        }
