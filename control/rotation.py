"""Rotations, in one place: unit quaternions (w, x, y, z), batched [..., 4], and vectors [..., 3].

A quaternion q says how a body is turned in the world: `rotate(q, v)` takes a vector of the body's
frame to the world's, `rotate_inverse` the other way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

IDENTITY = np.array([1.0, 0.0, 0.0, 0.0])
IDENTITY.setflags(write=False)


def rotate(quaternion: Array, vector: Array) -> Array:
    """Vectors of the body's frame [..., 3] in the world's."""
    w, x, y, z = _columns(quaternion)
    a, b, c = _columns(vector)
    # v + 2 w (u x v) + 2 u x (u x v), where t = 2 u x v
    ta, tb, tc = 2 * (y * c - z * b), 2 * (z * a - x * c), 2 * (x * b - y * a)
    return _rows(
        a + w * ta + (y * tc - z * tb), b + w * tb + (z * ta - x * tc),
        c + w * tc + (x * tb - y * ta),
    )  # fmt: skip


def rotate_inverse(quaternion: Array, vector: Array) -> Array:
    """Vectors of the world's frame [..., 3] in the body's."""
    w, x, y, z = _columns(quaternion)
    a, b, c = _columns(vector)
    ta, tb, tc = 2 * (y * c - z * b), 2 * (z * a - x * c), 2 * (x * b - y * a)
    return _rows(
        a - w * ta + (y * tc - z * tb), b - w * tb + (z * ta - x * tc),
        c - w * tc + (x * tb - y * ta),
    )  # fmt: skip


def multiply(a: Array, b: Array) -> Array:
    """First turned by b, then by a, [..., 4]."""
    aw, ax, ay, az = _columns(a)
    bw, bx, by, bz = _columns(b)
    return _rows(
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    )


def inverse(quaternion: Array) -> Array:
    """The turn back, [..., 4]."""
    return quaternion * np.array([1.0, -1.0, -1.0, -1.0])


def to_matrix(quaternion: Array) -> Array:
    """Rotation matrices [..., 3, 3], whose columns are the body's axes in the world."""
    w, x, y, z = np.moveaxis(np.asarray(quaternion), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def from_axis_angle(axis: ArrayLike, angle: ArrayLike) -> Array:
    """A turn by `angle` rad [...] about unit axes [..., 3], as [..., 4]."""
    half, axis = 0.5 * np.asarray(angle, np.float64)[..., None], np.asarray(axis)
    return np.concatenate([np.cos(half), np.sin(half) * axis], axis=-1)


def from_yaw(angle: Array) -> Array:
    """Turned about the vertical by `angle` rad [...], as [..., 4]."""
    zero = np.zeros_like(angle)
    return np.stack([np.cos(0.5 * angle), zero, zero, np.sin(0.5 * angle)], axis=-1)


def to_euler(quaternion: Array) -> Array:
    """Roll, pitch, yaw, rad, [..., 3]: about the world's x, y, z in this order."""
    w, x, y, z = np.moveaxis(np.asarray(quaternion), -1, 0)
    return np.stack(
        [
            np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)),
            np.arcsin(np.clip(2 * (w * y - z * x), -1.0, 1.0)),
            np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)),
        ],
        axis=-1,
    )


def to_rotation_vector(quaternion: Array) -> Array:
    """The turn as axis times angle, rad, [..., 3], the short way round."""
    quaternion = np.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    norm = np.linalg.norm(quaternion[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(norm, quaternion[..., :1])
    safe = np.maximum(norm, 1e-12)
    scale = np.where(norm > 1e-12, angle / safe, 2.0)
    return scale * quaternion[..., 1:]


def _columns(rows: Array) -> Any:
    """The columns of [..., k]; of a single row plain numbers, whose arithmetic takes a tenth."""
    rows = np.asarray(rows)
    return rows.tolist() if rows.ndim == 1 else np.moveaxis(rows, -1, 0)


def _rows(*columns: Any) -> Array:
    """[..., k] from k columns."""
    if isinstance(columns[0], float | int):
        return np.array(columns)
    rows = np.empty((*columns[0].shape, len(columns)))
    for index, column in enumerate(columns):
        rows[..., index] = column
    return rows
