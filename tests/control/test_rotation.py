"""Rotations by their laws, and against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motoric.control import rotation
from scipy.spatial.transform import Rotation

SHAPES = [(), (5,), (2, 3)]
seeds = st.integers(0, 2**32 - 1)
shapes = st.sampled_from(SHAPES)


def quaternions(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Unit quaternions [..., 4], among them ones near the identity and near half a turn."""
    axis = rng.normal(size=(*shape, 3))
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = rng.choice([0.0, 1e-9, 1e-5, 1.0, np.pi - 1e-6, np.pi, 4.0], shape)
    angle = angle * rng.choice([1.0, rng.uniform(0.5, 1.0)], shape)
    return rotation.from_axis_angle(axis, angle)


def theirs(quaternion: np.ndarray) -> Rotation:
    return Rotation.from_quat(quaternion.reshape(-1, 4), scalar_first=True)


def close(a: np.ndarray, b: np.ndarray, atol: float = 1e-12) -> None:
    np.testing.assert_allclose(a, np.reshape(b, a.shape), rtol=0, atol=atol)


@given(seeds, shapes)
def test_there_and_back_is_where_it_was(seed, shape):
    rng = np.random.default_rng(seed)
    q, v = quaternions(rng, shape), rng.normal(size=(*shape, 3))
    close(rotation.rotate_inverse(q, rotation.rotate(q, v)), v)
    close(rotation.rotate(rotation.inverse(q), v), rotation.rotate_inverse(q, v))
    identity = np.broadcast_to(rotation.IDENTITY, q.shape)
    close(rotation.multiply(q, rotation.inverse(q)), identity)
    close(rotation.multiply(identity, q), q)
    close(np.linalg.norm(rotation.rotate(q, v), axis=-1), np.linalg.norm(v, axis=-1))


@given(seeds, shapes)
def test_a_product_is_one_turn_after_the_other(seed, shape):
    rng = np.random.default_rng(seed)
    a, b = quaternions(rng, shape), quaternions(rng, shape)
    c, v = quaternions(rng, shape), rng.normal(size=(*shape, 3))
    close(rotation.rotate(rotation.multiply(a, b), v), rotation.rotate(a, rotation.rotate(b, v)))
    both = rotation.multiply(rotation.multiply(a, b), c)
    close(both, rotation.multiply(a, rotation.multiply(b, c)))
    close(rotation.to_matrix(rotation.multiply(a, b)),
          rotation.to_matrix(a) @ rotation.to_matrix(b))  # fmt: skip


@given(seeds, shapes)
def test_a_turn_has_two_quaternions(seed, shape):
    rng = np.random.default_rng(seed)
    q, v = quaternions(rng, shape), rng.normal(size=(*shape, 3))
    close(rotation.rotate(-q, v), rotation.rotate(q, v))
    close(rotation.to_matrix(-q), rotation.to_matrix(q))
    close(rotation.rotate(rotation.inverse(-q), v), rotation.rotate(rotation.inverse(q), v))


@given(seeds, shapes)
def test_as_scipy_has_it(seed, shape):
    rng = np.random.default_rng(seed)
    q, other, v = quaternions(rng, shape), quaternions(rng, shape), rng.normal(size=(*shape, 3))
    flat = v.reshape(-1, 3)
    close(rotation.rotate(q, v), theirs(q).apply(flat))
    close(rotation.rotate_inverse(q, v), theirs(q).inv().apply(flat))
    close(rotation.to_matrix(q), theirs(q).as_matrix())
    product = theirs(q) * theirs(other)
    close(rotation.to_matrix(rotation.multiply(q, other)), product.as_matrix())
    # Half a turn has two rotation vectors: it is the turn that counts.
    vector = rotation.to_rotation_vector(q)
    assert (np.linalg.norm(vector, axis=-1) <= np.pi + 1e-12).all()
    again = Rotation.from_rotvec(vector.reshape(-1, 3))
    close(rotation.to_matrix(q), again.as_matrix(), 1e-9)
    euler = rotation.to_euler(q)
    again = Rotation.from_euler("xyz", euler.reshape(-1, 3))
    close(rotation.to_matrix(q), again.as_matrix(), 1e-6)


@given(st.floats(-10, 10), seeds)
def test_about_an_axis_by_an_angle(angle, seed):
    axis = np.random.default_rng(seed).normal(size=3)
    axis /= np.linalg.norm(axis)
    q = rotation.from_axis_angle(axis, angle)
    close(rotation.to_matrix(q), Rotation.from_rotvec(angle * axis).as_matrix())
    close(rotation.rotate(q, axis), axis)
    yaw = rotation.from_yaw(np.array([angle, 0.5]))
    close(yaw[0], rotation.from_axis_angle(np.array([0.0, 0.0, 1.0]), angle))
    close(rotation.to_euler(yaw)[1], np.array([0.0, 0.0, 0.5]))


def test_small_turns_keep_their_size():
    for size in (0.0, 1e-300, 1e-15, 1e-12, 1e-9, 1e-3):
        vector = size * np.array([0.6, 0.0, 0.8])
        q = rotation.from_axis_angle(np.array([0.6, 0.0, 0.8]), size)
        np.testing.assert_allclose(rotation.to_rotation_vector(q), vector, rtol=1e-9, atol=0)


def test_nothing_turns_is_not_a_number():
    assert not rotation.to_rotation_vector(np.array([-1.0, 0.0, 0.0, 0.0])).any()
    assert not rotation.to_euler(rotation.IDENTITY).any()
    with pytest.raises(ValueError, match="read-only"):
        rotation.IDENTITY[0] = 2.0
