"""Sets of transitions: what is written comes back; what is damaged, cut off or made up is named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from motoric.policies.data import transitions
from motoric.policies.data.spaces import from_json, to_json
from motoric.policies.data.transitions import DataError, Transitions, Writer

BOX = spaces.Box(-np.inf, np.inf, (3,), np.float64)
ACTION = spaces.Box(np.float32([-1, -2]), np.float32([1, 5]))
DICT = spaces.Dict(
    {"camera": spaces.Box(0, 255, (4, 5, 3), np.uint8), "joints": BOX, "n": spaces.Discrete(4)}
)


def seen(space: spaces.Space, length: int, random: np.random.Generator):
    if isinstance(space, spaces.Dict):
        return {name: seen(inner, length, random) for name, inner in space.items()}
    if isinstance(space, spaces.Box) and space.dtype == np.uint8:
        return random.integers(0, 256, (length, *space.shape), np.uint8)
    if isinstance(space, spaces.Discrete):
        return random.integers(0, space.n, length)
    return random.normal(size=(length, *space.shape)).astype(space.dtype)


def write(path: Path, space: spaces.Space = BOX, action: spaces.Space = ACTION, lengths=(3, 1, 5)):
    """A set, and the episodes that are in it."""
    random, writer = np.random.default_rng(0), Writer(path, space, action, {"task": "x"})
    episodes = []
    for i, length in enumerate(lengths):
        episode = (
            seen(space, length, random), seen(space, length, random), seen(action, length, random),
            random.normal(size=length).astype(np.float32), i % 2 == 0,
        )  # fmt: skip
        writer.add(*episode)
        episodes.append(episode)
    writer.close()
    return episodes


def joined(parts):
    if isinstance(parts[0], dict):
        return {name: joined([p[name] for p in parts]) for name in parts[0]}
    return np.concatenate(parts)


def same(a, b) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            same(a[name], b[name])
    else:
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


@pytest.mark.parametrize(
    ("space", "action"),
    [
        (BOX, ACTION), (DICT, ACTION), (BOX, spaces.Discrete(3, start=-1)),
        (spaces.Discrete(5), spaces.MultiDiscrete([2, 3])), (BOX, spaces.MultiBinary(3)),
    ],
)  # fmt: skip
def test_what_is_written_comes_back(tmp_path, space, action):
    episodes = write(tmp_path / "set", space, action)
    data = Transitions.open(tmp_path / "set")
    assert (data.observation_space, data.action_space) == (space, action)
    for i, name in enumerate(("observations", "next_observations", "actions", "rewards")):
        same(getattr(data, name), joined([episode[i] for episode in episodes]))
    assert data.starts.tolist() == [1, 0, 0, 1, 1, 0, 0, 0, 0]
    assert data.terminated.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 1]
    assert data.truncated.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert [(e.start, e.stop) for e in data.episodes()] == [(0, 3), (3, 4), (4, 9)]
    sums = [episode[3].astype(np.float64).sum() for episode in episodes]
    np.testing.assert_allclose(data.returns(), sums)
    assert data.about == {"task": "x"}
    assert len(data) == 9


def test_arrays_are_mapped_and_can_not_be_written(tmp_path):
    write(tmp_path / "set")
    data = Transitions.open(tmp_path / "set")
    assert isinstance(data.observations, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        data.rewards[0] = 1


@given(st.integers(1, 5), st.integers(0, 3), st.booleans())
def test_spaces_come_back(size, extra, bounded):
    low = np.arange(size) - 3.0 if bounded else np.full(size, -np.inf)
    for space in (
        spaces.Box(low.astype(np.float32), np.full(size, np.inf, np.float32)),
        spaces.Discrete(size, start=extra),
        spaces.MultiDiscrete([size, extra + 1]),
        spaces.MultiBinary([size, extra + 1]),
        spaces.Dict({"a": spaces.Discrete(size), "b": spaces.Box(0, 1, (extra + 1, size))}),
    ):
        assert from_json(json.loads(json.dumps(to_json(space), allow_nan=False))) == space


def test_a_tuple_is_no_observation_of_a_set(tmp_path):
    with pytest.raises(ValueError, match="a Tuple can't be kept"):
        to_json(spaces.Tuple([BOX]))


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink, link, pipe])
@pytest.mark.parametrize("name", ["manifest.json", "observations.npy", "rewards.npy", "starts.npy"])
def test_damage_is_named_in_one_line(tmp_path, damage, name):
    write(tmp_path / "set")
    damage(tmp_path / "set" / name)
    with pytest.raises(DataError, match=name) as caught:
        Transitions.open(tmp_path / "set")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "set") in str(caught.value)


def test_a_pickle_is_not_opened(tmp_path):
    write(tmp_path / "set")

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("code of a data set was run",))

    np.save(tmp_path / "set" / "rewards.npy", np.array([Bomb()] * 9, object), allow_pickle=True)
    with pytest.raises(DataError, match=r"rewards\.npy"):
        Transitions.open(tmp_path / "set", verify=False)


def rewrite(folder: Path, **changes) -> None:
    """A manifest that says something else, with a checksum that fits."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text()) | changes
    content.pop("sha256")
    content["sha256"] = transitions._digest(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "other/1"}, "format 'other/1'"),
        ({"transitions": 10}, "expected float64"),
        ({"transitions": 2**60}, "transitions"),
        ({"transitions": "9"}, "'9' transitions"),
        ({"files": {}}, "files"),
        ({"files": {"../../etc/passwd": ""}}, "files"),
        ({"observation_space": {"kind": "box"}}, "is missing"),
        ({"observation_space": None}, "no space"),
        ({"observation_space": to_json(spaces.Box(0, 1, (3,), np.float32))}, "expected float32"),
        ({"action_space": {"kind": "exec"}}, "no kind of space"),
        ({"action_space": to_json(ACTION) | {"dtype": "object"}}, "type 'object'"),
        ({"about": 5}, "about"),
    ],
)
def test_a_manifest_that_does_not_fit(tmp_path, changes, words):
    write(tmp_path / "set")
    rewrite(tmp_path / "set", **changes)
    with pytest.raises(DataError, match=words):
        Transitions.open(tmp_path / "set")


def test_names_of_entries_stay_in_the_folder(tmp_path):
    space = spaces.Dict({"../up": BOX})
    with pytest.raises(DataError, match=r"entry '../up'"):
        Writer(tmp_path / "set", space, ACTION, {})
    assert not list(tmp_path.iterdir())


def test_a_manifest_is_bounded_before_it_is_parsed(tmp_path, monkeypatch):
    write(tmp_path / "set")
    (tmp_path / "set" / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="nested more than"):
        Transitions.open(tmp_path / "set")
    monkeypatch.setattr(transitions, "MOST_JSON", 100)
    with pytest.raises(DataError, match="more than 100 bytes"):
        Transitions.open(tmp_path / "set")


@pytest.mark.parametrize(
    ("name", "row", "value", "words"),
    [
        ("rewards", 4, np.nan, "rewards.npy: row 4 is not finite"),
        ("next_observations", 2, np.inf, "next_observations.npy: row 2 is not finite"),
        ("starts", 1, True, "starts.npy: row 1 does not agree"),
        ("terminated", 8, False, "its last episode has no end"),
    ],
)
def test_what_is_in_it_is_checked(tmp_path, name, row, value, words):
    write(tmp_path / "set")
    path = tmp_path / "set" / f"{name}.npy"
    array = np.load(path, mmap_mode="r+")
    array[row] = value
    array.flush()
    files = json.loads((tmp_path / "set" / "manifest.json").read_text())["files"]
    rewrite(tmp_path / "set", files=files | {name: transitions._sha256(path)})
    with pytest.raises(DataError, match=words):
        Transitions.open(tmp_path / "set")


def test_what_was_cut_off_while_it_was_written_is_no_set(tmp_path):
    writer = Writer(tmp_path / "set", BOX, ACTION, {})
    writer.add(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 2)), np.zeros(2), False)
    assert not (tmp_path / "set").exists()
    (left,) = tmp_path.iterdir()
    with pytest.raises(DataError, match="its writing was cut off"):
        Transitions.open(left)
    writer.close()
    assert len(Transitions.open(tmp_path / "set")) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_set_is_never_overwritten_and_never_empty(tmp_path):
    write(tmp_path / "set")
    with pytest.raises(DataError, match="exists"):
        Writer(tmp_path / "set", BOX, ACTION, {})
    with pytest.raises(DataError, match="no transition"):
        Writer(tmp_path / "other", BOX, ACTION, {}).close()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_episode_of_the_wrong_shape_is_refused(tmp_path):
    writer = Writer(tmp_path / "set", BOX, ACTION, {})
    with pytest.raises(ValueError, match=r"actions: shape \(2, 3\), expected \(2, 2\)"):
        writer.add(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3)), np.zeros(2), False)
    with pytest.raises(ValueError, match="without a step"):
        writer.add(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 2)), np.zeros(0), False)
    writer.discard()
    assert not list(tmp_path.iterdir())


def test_many_rows_grow_the_header_in_its_place(tmp_path):
    """The first axis is written when it is known."""
    writer = Writer(tmp_path / "set", spaces.Box(0, 1, (1,)), spaces.Box(0, 1, (1,)), {})
    for _ in range(11):
        one = np.zeros((1000, 1), np.float32)
        writer.add(one, one, one, np.zeros(1000), True)
    writer.close()
    assert len(Transitions.open(tmp_path / "set")) == 11_000
    assert np.load(tmp_path / "set" / "rewards.npy").shape == (11_000,)
