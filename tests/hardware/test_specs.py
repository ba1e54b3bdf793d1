"""Specs as files, and the robots that are known by name."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from motoric.hardware.drivers import ROBOTS, spec_of
from motoric.hardware.robot import RobotSpec, Sensor
from motoric.hardware.specs.files import LARGEST, read_spec, write_spec
from motoric.hardware.specs.go2 import GO2


def same(a: RobotSpec, b: RobotSpec) -> None:
    for field in dataclasses.fields(RobotSpec):
        ours, theirs = getattr(a, field.name), getattr(b, field.name)
        if field.name == "limits":
            for name, value in vars(ours).items():
                np.testing.assert_array_equal(getattr(theirs, name), value, err_msg=name)
        elif isinstance(ours, np.ndarray):
            np.testing.assert_array_equal(theirs, ours, err_msg=field.name)
        else:
            assert ours == theirs, field.name


@pytest.mark.parametrize("name", list(ROBOTS))
def test_a_spec_comes_back(name, tmp_path):
    spec = ROBOTS[name]
    assert spec.name == name
    write_spec(spec, tmp_path / "robot.json")
    same(read_spec(tmp_path / "robot.json"), spec)


def test_the_path_of_a_model_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = dataclasses.replace(GO2, model="models/mine.xml", sensors=(Sensor("f", (3,)),))
    write_spec(spec, "robot.json")
    back = read_spec("robot.json")
    assert back.model == str(tmp_path / "models/mine.xml")
    assert back.sensors == spec.sensors


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: "", "robot.json: Expecting value"),
        (lambda t: "\0\xff", "robot.json"),
        (lambda t: "[" * 100_000, "robot.json: nested too deeply"),
        (lambda t: "[1]", "expected an object"),
        (lambda t: t.replace('"fixed"', '"bolted"'), "'bolted': unknown"),
        (lambda t: json.dumps(json.loads(t) | {"kp": ["x"]}), r"kp\[0\]: 'x', expected a finite n"),
        (lambda t: json.dumps(json.loads(t) | {"kp": [1.0]}), r"kp: shape \(1,\), expected"),
        (lambda t: " " * LARGEST + t, "more than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_spec(change, words, tmp_path):
    path = tmp_path / "robot.json"
    write_spec(GO2, path)
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=words) as error:
        read_spec(path)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="No such file"):
        read_spec(tmp_path / "none.json")


def test_a_spec_of_a_name_a_configuration_or_itself():
    assert spec_of("go2") is GO2
    assert spec_of(GO2) is GO2
    assert spec_of({"driver": "sim", "options": {"robot": "go2"}}) is GO2
    assert spec_of({"driver": "remote", "options": {"robot": "go2"}, "model": None}) is GO2
