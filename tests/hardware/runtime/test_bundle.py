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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from motoric.hardware.interfaces.terms import Term, observation_size
from motoric.hardware.runtime import bundle as bundles
from motoric.hardware.runtime.bundle import (
    Bundle,
    BundleError,
    Input,
    Tensor,
    _digest,
    find_bundle,
    read_spec,
    write_bundle,
)
from motoric.hardware.runtime.policy import Policy
from motoric.hardware.specs.go2 import GO2

from ...conftest import (
    GO2_INTERFACE,
    TERMS,
    go2_spec,
    linear,
    policy_network,
    standing,
    write_policy,
)


def test_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(47, 12)), rng.normal(size=12)
    spec = go2_spec(training={"algorithm": "ppo", "options": {"randomise": True}})
    write_policy(tmp_path / "b", linear(weight, bias), spec)
    bundle = Bundle.load(tmp_path / "b", GO2)
    for field in dataclasses.fields(spec):
        if field.name in ("limits", "networks"):
            continue
        assert getattr(bundle.spec, field.name) == getattr(spec, field.name), field.name
    np.testing.assert_array_equal(bundle.spec.limits.torque, GO2.limits.torque)
    observation = rng.normal(size=(5, 47)).astype(np.float32)
    wanted = observation @ weight + bias
    np.testing.assert_allclose(Policy(bundle, 5).act(observation), wanted, atol=1e-4)
    (network,) = bundle.spec.networks
    assert dataclasses.replace(network, sha256="") == spec.networks[0]


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
        write_policy(bundle_folder, pickle.dumps(Harm()), go2_spec())
    else:
        (bundle_folder / name).write_bytes(pickle.dumps(Harm()))
    with pytest.raises(BundleError):
        Bundle.load(bundle_folder)
    assert not harm.exists()


def other(**limits):
    return dataclasses.replace(GO2, limits=dataclasses.replace(GO2.limits, **limits))


def fewer_joints(count):
    arrays = ("stand", "rest", "kp", "kd", "damping", "kp_max", "kd_max")
    limits = {f.name: getattr(GO2.limits, f.name)[:count] for f in dataclasses.fields(GO2.limits)}
    return dataclasses.replace(
        GO2, joints=GO2.joints[:count], limits=type(GO2.limits)(**limits),
        **{name: getattr(GO2, name)[:count] for name in arrays},
    )  # fmt: skip


SWAPPED = (GO2.joints[1], GO2.joints[0], *GO2.joints[2:])


@pytest.mark.parametrize(
    ("robot", "words"),
    [
        (dataclasses.replace(GO2, name="b2"), "robot 'go2', expected 'b2'"),
        (dataclasses.replace(GO2, joints=SWAPPED), "'FL_hip_joint', expected 'FL_thigh_joint'"),
        (fewer_joints(11), "12 joints"),
        (other(torque=GO2.limits.torque * 0.5), "'torque' differs at"),
        (other(upper=GO2.limits.upper + np.eye(12)[3]), "'upper' differs at FR_hip_joint"),
        (dataclasses.replace(GO2, kp=GO2.kp * 2, kp_max=GO2.kp * 2), "kp differs"),
        (dataclasses.replace(GO2, stand=GO2.stand + 0.01), "stand differs"),
    ],
)
def test_another_robot_is_named(bundle_folder, robot, words):
    with pytest.raises(BundleError, match=words):
        Bundle.load(bundle_folder, robot)


def with_terms(terms):
    listed = [dataclasses.asdict(term) for term in terms]
    parameters = GO2_INTERFACE.parameters() | {"terms": listed}
    interface = {"name": "joint_targets", "parameters": parameters}
    return dataclasses.replace(go2_spec(), interface=interface)


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ((*TERMS[:-1], Term("smell", 2)), "'smell': unknown"),
        (TERMS[:-1], r"observation is float32\(45,\), the network takes float32\(47,\)"),
        ((*TERMS, Term("gait_clock", 2)), r"observation is float32\(49,\)"),
        ((*TERMS[:-1], Term("gait_clock", 3)), r"'gait_clock': size \(2,\), expected 3"),
        ((*TERMS[:-1], Term("sensor.nose", 2)), "go2 has no sensor 'nose'"),
    ],
)
def test_another_observation_is_named(tmp_path, terms, words):
    write_policy(tmp_path / "b", spec=with_terms(terms))
    with pytest.raises(BundleError, match=words):
        Bundle.load(tmp_path / "b", GO2)


@pytest.mark.parametrize(
    ("interface", "words"),
    [
        ({"name": "telepathy", "parameters": {}}, "'telepathy' is unknown, expected one of"),
        ({"name": "joint_targets", "parameters": {}}, "terms: is missing"),
        (None, "go2_velocity has no interface to a robot"),
    ],
)
def test_another_interface_is_named(tmp_path, interface, words):
    write_policy(tmp_path / "b", spec=dataclasses.replace(go2_spec(), interface=interface))
    with pytest.raises(BundleError, match=words):
        Bundle.load(tmp_path / "b", GO2)


def test_a_network_of_another_size_is_named(tmp_path):
    write_policy(tmp_path / "b", linear(np.zeros((40, 12)), np.zeros(12)), go2_spec())
    with pytest.raises(BundleError, match=r"takes .*40.*says .*47"):
        Bundle.load(tmp_path / "b")


@pytest.mark.parametrize("which", ["observation", "action"])
def test_a_network_of_another_type_is_named(tmp_path, which):
    size, change = observation_size(TERMS), {"action": Tensor("action", (12,), "float32")}
    if which == "observation":
        network = policy_network(inputs=(Input("observation", (size,), "float64"),))
    else:
        change = {"action": Tensor("action", (12,), "float64")}
        network = policy_network(outputs=(change["action"],))
    write_policy(tmp_path / "b", spec=go2_spec(networks=(network,), **change))
    with pytest.raises(BundleError, match=rf"{which} is tensor\(float\), .* says float64"):
        Bundle.load(tmp_path / "b")


@pytest.mark.parametrize("count", [1, 3])
def test_an_action_stays_what_it_was_when_the_next_is_asked_for(tmp_path, count):
    size = observation_size(TERMS)
    write_policy(tmp_path / "b", linear(np.eye(size, 12), np.zeros(12)), go2_spec())
    policy = Policy(Bundle.load(tmp_path / "b"), count)
    first = policy.act(np.ones((count, size), np.float32))
    policy.act(np.zeros((count, size), np.float32))
    np.testing.assert_array_equal(first, np.ones((count, 12)))


def rewrite(folder, change):
    """Change bundle.json, with a right checksum."""
    path = folder / "bundle.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    change(content)
    path.write_text(json.dumps(content | {"sha256": _digest(content)}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "motoric-bundle/9"}, "format 'motoric-bundle/9', expected"),
        ({"format": "motoric-bundle/1"}, "format 'motoric-bundle/1', expected"),
        ({"networks": None}, "networks: None, expected a list"),
        ({"networks": []}, "networks: 0, expected 1 to 16"),
        ({"limits": {"lower": [1]}}, "limits.upper: is missing"),
        ({"rate": -1}, "rate: -1.0, expected more than 0"),
        ({"rate": 1e9}, "rate: 1000000000.0, expected more than 0"),
        ({"rate": "50"}, "rate: '50', expected a finite number"),
        ({"rate": True}, "rate: True, expected a finite number"),
        ({"task": 5}, "task: 5, expected a text"),
        ({"joints": ["a"]}, "stand: 12 numbers for 1 joints"),
        ({"action_low": [0.0]}, "action_low: 1 numbers, the action has 12"),
        ({"action_low": [2.0] * 12}, "action_low: must not be above action_high"),
        ({"chunk": {"length": 4, "execute": 5}}, "length 4, execute 5: expected 1 <= execute"),
        ({"chunk": {"length": 10**9, "execute": 1}}, "expected 1 <= execute <= length <= 1000"),
        ({"chunk": {"length": 4, "execute": 2}}, r"policy: action is float32\[4, 12\], expected"),
        ({"smell": 1}, "'smell': unknown, expected one of task"),
        ({"interface": {"name": "joint_targets"}}, "interface: expected its name and parameters"),
        ({"versions": {"a": 1}}, "versions.a: 1, expected a text"),
    ],
)
def test_a_wrong_json_with_a_right_checksum(bundle_folder, change, words):
    rewrite(bundle_folder, lambda content: content.update(change))
    with pytest.raises(BundleError, match=words) as error:
        Bundle.load(bundle_folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"file": "../policy.onnx"}, "file '../policy.onnx', expected the name of an .onnx file"),
        ({"file": "/etc/passwd"}, "file '/etc/passwd', expected the name"),
        ({"file": "bundle.json"}, "file 'bundle.json', expected the name"),
        ({"file": ".onnx"}, "file '.onnx', expected the name"),
        ({"file": "other.onnx"}, "other.onnx is missing"),
        ({"name": "critic"}, "networks: none is named 'policy'"),
        ({"name": "a.b"}, "name 'a.b', expected"),
        ({"rate": 0}, "rate 0.0 of policy"),
        ({"inputs": []}, "expected 1 to 256 inputs and outputs"),
        ({"sha256": "0" * 64}, "expected 000000000000"),
        (
            {"outputs": [{"name": f"o{i}", "shape": [2**25], "dtype": "uint8"} for i in range(9)]},
            "policy: more than 134217728 numbers in a row",
        ),
    ],
)
def test_a_wrong_network_is_named(bundle_folder, change, words):
    rewrite(bundle_folder, lambda content: content["networks"][0].update(change))
    with pytest.raises(BundleError, match=words):
        Bundle.load(bundle_folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": [10**9]}, r"shape \(1000000000,\) is not allowed"),
        ({"shape": [0]}, r"shape \(0,\) is not allowed"),
        ({"shape": [1] * 9}, "is not allowed"),
        ({"shape": [1.5]}, r"shape\[0\]: 1.5, expected an integer"),
        ({"dtype": "object"}, "type 'object', not of"),
        ({"source": "thin air"}, "source 'thin air' of observation, expected one of"),
        ({"source": "memory"}, "feedback '' of observation, a memory input"),
        ({"source": "memory", "feedback": "action"}, r"observation is float32\[47\], expected"),
        ({"source": "memory", "feedback": "h"}, "observation: there is no output 'h'"),
        ({"source": "network", "feedback": "policy.action"}, "there is no output 'policy.action'"),
        ({"feedback": "action"}, "feedback 'action' of observation, a observation input"),
        ({"source": "noise", "dtype": "int64"}, "noise of type int64, expected floats"),
    ],
)
def test_a_wrong_input_is_named(bundle_folder, change, words):
    rewrite(bundle_folder, lambda content: content["networks"][0]["inputs"][0].update(change))
    with pytest.raises(BundleError, match=words):
        Bundle.load(bundle_folder)


def test_two_networks_in_one_file_or_of_one_name_are_refused():
    (network,) = go2_spec().networks
    with pytest.raises(ValueError, match=r"file 'policy.onnx': named twice"):
        go2_spec(networks=(network, dataclasses.replace(network, name="critic")))
    with pytest.raises(ValueError, match="network 'policy': named twice"):
        go2_spec(networks=(network, dataclasses.replace(network, file="critic.onnx")))
    with pytest.raises(ValueError, match=r"files \['a.onnx'\], the networks are in \['policy"):
        write_bundle("nowhere", {"a.onnx": b""}, go2_spec())


# -- what is never parsed -----------------------------------------------------------------------


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '["\\"[", ' + "[" * 40])
def test_deep_nesting_is_refused_before_it_is_parsed(bundle_folder, monkeypatch, text):
    (bundle_folder / "bundle.json").write_text(text)
    monkeypatch.setattr(json, "loads", lambda *a, **k: pytest.fail("parsed"))
    with pytest.raises(BundleError, match="nested more than 32 deep"):
        Bundle.load(bundle_folder)


def test_brackets_in_texts_are_no_nesting(tmp_path):
    text = "[{" * 100 + '"\\' + "[" * 50
    write_policy(tmp_path / "b", spec=go2_spec(training={"note": text}))
    assert Bundle.load(tmp_path / "b").spec.training["note"] == text


@pytest.mark.parametrize(("name", "limit"), [("bundle.json", "JSON"), ("policy.onnx", "ONNX")])
def test_big_files_are_refused_before_they_are_parsed(bundle_folder, monkeypatch, name, limit):
    size = (bundle_folder / name).stat().st_size
    monkeypatch.setattr(bundles, f"MOST_{limit}", size)
    Bundle.load(bundle_folder)
    monkeypatch.setattr(bundles, f"MOST_{limit}", size - 1)
    with pytest.raises(BundleError, match=f"{name} has more than {size - 1} bytes"):
        Bundle.load(bundle_folder)


@pytest.mark.parametrize("name", ["policy.onnx", "bundle.json"])
def test_only_regular_files_are_opened(bundle_folder, tmp_path, name):
    path = bundle_folder / name
    path.rename(tmp_path / "elsewhere")
    for make in (
        lambda: path.symlink_to(tmp_path / "elsewhere"),
        lambda: os.mkfifo(path),
        path.mkdir,
    ):
        make()
        with pytest.raises(BundleError, match=f"{name} (is not a regular file|can't be read)"):
            Bundle.load(bundle_folder)
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(bundle_folder, constant):
    path = bundle_folder / "bundle.json"
    text = path.read_text()
    assert '"rate": 50.0' in text
    path.write_text(text.replace('"rate": 50.0', f'"rate": {constant}'))
    with pytest.raises(BundleError, match=r"is no number|checksum|finite"):
        Bundle.load(bundle_folder)


def test_what_is_not_finite_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_policy(tmp_path / "b", spec=go2_spec(training={"return": float("nan")}))
    assert not (tmp_path / "b").exists()


def external(kind, tmp_path) -> bytes:
    """A real model with a tensor in another file, which is there."""
    import onnx
    from onnx import external_data_helper, helper, numpy_helper

    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.zeros(47 * 12, np.float32).tobytes())
    model = onnx.load_from_string(standing())
    outside = numpy_helper.from_array(np.zeros((47, 12), np.float32), "w")
    external_data_helper.set_external_data(outside, "secret.bin")
    outside.ClearField("raw_data")
    if kind == "initializer":
        model.graph.initializer[0].CopyFrom(outside)
    elif kind == "entry":  # without saying that it counts
        outside.ClearField("data_location")
        model.graph.initializer[0].CopyFrom(outside)
    elif kind == "location":  # without saying where
        outside.ClearField("external_data")
        model.graph.initializer[0].CopyFrom(outside)
    elif kind == "constant":
        model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=outside))
    elif kind == "branch":
        inner = helper.make_graph([], "inner", [], [], [outside])
        node = helper.make_node("If", ["observation"], ["c"], then_branch=inner)
        model.graph.node.insert(0, node)
    elif kind == "sparse":
        model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=outside))
    elif kind == "function":
        node = helper.make_node("Constant", [], ["c"], value=outside)
        model.functions.append(helper.make_function("d", "f", [], ["c"], [node], []))
    elif kind == "training":
        model.training_info.add().algorithm.initializer.append(outside)
    return model.SerializeToString()


@pytest.mark.parametrize(
    "kind",
    ["initializer", "entry", "location", "constant", "branch", "sparse", "function", "training"],
)
def test_a_tensor_in_another_file_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    write_policy(tmp_path / "b", external(kind, tmp_path))
    shutil.copy(tmp_path / "secret.bin", tmp_path / "b")
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *a, **k: pytest.fail("loaded"))
    with pytest.raises(BundleError, match=r"policy.onnx: a tensor is in another file"):
        Bundle.load(tmp_path / "b")


def loads_or_says_why(folder):
    said = ""
    try:
        return Bundle.load(folder, GO2)
    except BundleError as error:
        said = str(error)
    assert "\n" not in said
    assert 0 < len(said) < 1000
    return None


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_networks_are_only_ever_a_bundle_error(tmp_path, data):
    """With the checksum of the damage, so that it reaches the scanner and onnxruntime."""
    onnx = bytearray(standing())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(onnx) - 1))
        how = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        if how == "flip":
            onnx[at] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "insert":
            onnx[at:at] = data.draw(st.binary(min_size=1, max_size=12))
        else:
            del onnx[at : at + data.draw(st.integers(1, 200))]
        if not onnx:
            break
    write_policy(tmp_path / "b", bytes(onnx) or b"x")
    loads_or_says_why(tmp_path / "b")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_json_is_only_ever_a_bundle_error(tmp_path, data):
    """Any value anywhere, with a right checksum."""
    folder = tmp_path / "b"
    write_policy(folder)

    def damage(content):
        for _ in range(data.draw(st.integers(0, 5))):
            keys = list(content) if isinstance(content, dict) else range(len(content))
            inner = [k for k in keys if isinstance(content[k], dict | list) and content[k]]
            if not inner:
                break
            content = content[data.draw(st.sampled_from(inner))]
        keys = list(content) if isinstance(content, dict) else range(len(content))
        content[data.draw(st.sampled_from(list(keys)))] = data.draw(JSON)

    rewrite(folder, damage)
    bundle = loads_or_says_why(folder)
    if bundle is not None:
        assert Policy(bundle).act(np.zeros((1, 47), np.float32)).shape == (1, 12)


def test_writing_again_replaces_it_whole(bundle_folder):
    write_policy(bundle_folder, spec=go2_spec(rate=25.0))
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
    spec, files = read_spec(bundle_folder)
    bundle_folder.with_name(".bundle.newx").mkdir()  # of a process that was killed

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bundle(bundle_folder, files, spec)
    assert [p.name for p in bundle_folder.parent.iterdir()] == ["bundle"]


def test_wrong_shapes_are_named(bundle_folder):
    with pytest.raises(ValueError, match="observation: shape"):
        Policy(Bundle.load(bundle_folder)).act(np.zeros((1, 46), np.float32))
