"""A bundle loads what was written, runs no code, and says what is wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from motoric.hardware.interfaces.terms import Term, observation_size
from motoric.hardware.runtime.bundle import (
    Bundle,
    BundleError,
    Tensor,
    _digest,
    find_bundle,
    read_spec,
    write_bundle,
)
from motoric.hardware.specs.go2 import GO2

from ...conftest import TERMS, go2_spec, linear, standing


def test_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(47, 12)), rng.normal(size=12)
    spec = go2_spec(training={"algorithm": "ppo", "options": {"randomise": True}})
    write_bundle(tmp_path / "b", linear(weight, bias), spec)
    bundle = Bundle.load(tmp_path / "b", GO2)
    for field in dataclasses.fields(spec):
        if field.name == "limits":
            continue
        assert getattr(bundle.spec, field.name) == getattr(spec, field.name), field.name
    np.testing.assert_array_equal(bundle.spec.limits.torque, GO2.limits.torque)
    observation = rng.normal(size=(5, 47)).astype(np.float32)
    np.testing.assert_allclose(bundle.act(observation), observation @ weight + bias, atol=1e-4)


def test_loading_needs_neither_torch_nor_an_engine(bundle_folder):
    code = (
        "import sys; from motoric.hardware.runtime.bundle import Bundle; "
        f"Bundle.load({str(bundle_folder)!r}); "
        "print([m for m in ('torch', 'gymnasium', 'mujoco', 'pickle5') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["policy.onnx", "bundle.json"])
@pytest.mark.parametrize("how", ["cut", "flip", "gone", "empty"])
def test_damage_is_recognised(bundle_folder, name, how):
    path = bundle_folder / name
    data = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flip":
        data[len(data) // 3] ^= 1
        path.write_bytes(data)
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(BundleError) as error:
        Bundle.load(bundle_folder)
    assert "\n" not in str(error.value)
    assert str(bundle_folder) in str(error.value)


class Harm:
    def __reduce__(self):
        return os.mkdir, (os.environ["HARM"],)


@pytest.mark.parametrize("name", ["policy.onnx", "bundle.json"])
@pytest.mark.parametrize("right_checksum", [True, False])
def test_a_pickle_is_never_executed(bundle_folder, tmp_path, monkeypatch, name, right_checksum):
    harm = tmp_path / "harm"
    monkeypatch.setenv("HARM", str(harm))
    if name == "policy.onnx" and right_checksum:
        write_bundle(bundle_folder, pickle.dumps(Harm()), go2_spec())
    else:
        (bundle_folder / name).write_bytes(pickle.dumps(Harm()))
    with pytest.raises(BundleError):
        Bundle.load(bundle_folder)
    assert not harm.exists()


def other(**limits):
    return dataclasses.replace(GO2, limits=dataclasses.replace(GO2.limits, **limits))


SWAPPED = (GO2.joints[1], GO2.joints[0], *GO2.joints[2:])


@pytest.mark.parametrize(
    ("robot", "words"),
    [
        (dataclasses.replace(GO2, name="b2"), "robot 'go2', expected 'b2'"),
        (dataclasses.replace(GO2, joints=SWAPPED), "'FL_hip_joint', expected 'FL_thigh_joint'"),
        (
            dataclasses.replace(GO2, joints=GO2.joints[:-1], damping=GO2.damping[:-1]),
            "12 joints",
        ),
        (other(torque=GO2.limits.torque * 0.5), "'torque' differs at"),
        (other(upper=GO2.limits.upper + np.eye(12)[3]), "'upper' differs at FR_hip_joint"),
        (dataclasses.replace(GO2, kp=GO2.kp * 2), "kp differs"),
        (dataclasses.replace(GO2, stand=GO2.stand + 0.01), "stand differs"),
    ],
)
def test_another_robot_is_named(bundle_folder, robot, words):
    with pytest.raises(BundleError, match=words):
        Bundle.load(bundle_folder, robot)


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ((*TERMS[:-1], Term("smell", 2)), "'smell' is unknown"),
        (TERMS[:-1], "terms give 45 numbers, the network takes"),
        ((*TERMS, Term("gait_clock", 2)), "terms give 49 numbers"),
    ],
)
def test_another_observation_is_named(tmp_path, terms, words):
    write_bundle(tmp_path / "b", standing(), go2_spec(terms=terms))
    with pytest.raises(BundleError, match=words):
        Bundle.load(tmp_path / "b")


def test_a_network_of_another_size_is_named(tmp_path):
    write_bundle(tmp_path / "b", linear(np.zeros((40, 12)), np.zeros(12)), go2_spec())
    with pytest.raises(BundleError, match=r"takes .*40.*says .*47"):
        Bundle.load(tmp_path / "b")


@pytest.mark.parametrize("which", ["observation", "action"])
def test_a_network_of_another_type_is_named(tmp_path, which):
    shape = (observation_size(TERMS),) if which == "observation" else (12,)
    change = Tensor(which, shape, "float64")
    spec = go2_spec(**({"inputs": (change,)} if which == "observation" else {"action": change}))
    write_bundle(tmp_path / "b", standing(), spec)
    with pytest.raises(BundleError, match=rf"{which} is tensor\(float\), .* says float64"):
        Bundle.load(tmp_path / "b")


@pytest.mark.parametrize("count", [1, 3])
def test_an_action_stays_what_it_was_when_the_next_is_asked_for(tmp_path, count):
    size = observation_size(TERMS)
    write_bundle(tmp_path / "b", linear(np.eye(size, 12), np.zeros(12)), go2_spec())
    bundle = Bundle.load(tmp_path / "b")
    first = bundle.act(np.ones((count, size), np.float32))
    bundle.act(np.zeros((count, size), np.float32))
    np.testing.assert_array_equal(first, np.ones((count, 12)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "motoric-bundle/9"}, "format 'motoric-bundle/9', expected"),
        ({"terms": None}, "bundle.json"),
        ({"limits": {"lower": [1]}}, "bundle.json"),
    ],
)
def test_a_wrong_json_with_a_right_checksum(bundle_folder, change, words):
    path = bundle_folder / "bundle.json"
    content = json.loads(path.read_text()) | change
    del content["sha256"]
    path.write_text(json.dumps(content | {"sha256": _digest(content)}))
    with pytest.raises(BundleError, match=words):
        Bundle.load(bundle_folder)


def test_writing_again_replaces_it_whole(bundle_folder):
    write_bundle(bundle_folder, standing(), go2_spec(rate=25.0))
    assert read_spec(bundle_folder)[0].rate == 25.0
    assert sorted(p.name for p in bundle_folder.iterdir()) == ["bundle.json", "policy.onnx"]
    assert [p.name for p in bundle_folder.parent.iterdir()] == ["bundle"]


def test_a_crash_between_the_renames_leaves_the_old_one(bundle_folder):
    bundle_folder.rename(bundle_folder.with_name(".bundle.old"))
    assert Bundle.load(bundle_folder).spec.robot == "go2"


def test_a_run_cut_off_between_the_renames_still_has_its_bundle(bundle_folder, tmp_path):
    best = tmp_path / "run" / "bundle" / "best"
    best.parent.mkdir(parents=True)
    shutil.copytree(bundle_folder, best.with_name(".best.old"))
    (best.with_name(".last.newx")).mkdir()
    folder, found = find_bundle(str(tmp_path / "run"), "best")
    assert folder == tmp_path / "run"
    assert Bundle.load(found).spec.robot == "go2"
    with pytest.raises(BundleError, match="no bundle 'last', none yet"):
        find_bundle(str(tmp_path / "run"), "last")


def test_a_bundle_that_can_not_be_written_leaves_nothing(bundle_folder, monkeypatch):
    spec, onnx = read_spec(bundle_folder)
    bundle_folder.with_name(".bundle.newx").mkdir()  # of a process that was killed

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bundle(bundle_folder, onnx, spec)
    assert [p.name for p in bundle_folder.parent.iterdir()] == ["bundle"]


def test_wrong_shapes_are_named(bundle_folder):
    with pytest.raises(ValueError, match="observation: shape"):
        Bundle.load(bundle_folder).act(np.zeros((1, 46), np.float32))
