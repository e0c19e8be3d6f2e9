"""Rotations in the forms that datasets and policies use, converted to and from rotation matrices.

A form is a name:
    matrix: nine numbers, row by row.
    rotation_6d_rows, rotation_6d_columns: the first two rows, or columns, of the matrix, one after the other
        (Zhou et al. 2019, "On the Continuity of Rotation Representations in Neural Networks").
    quaternion_wxyz, quaternion_xyzw: four numbers, of any length but zero.
    vector: axis times angle, rad.
    euler_xyz and the five other orders: three angles, rad, R = R_x R_y R_z for xyz: about the axes of the moving frame
        in the order in which they are written, so about those of the fixed frame from right to left.
"""

from itertools import permutations

import numpy as np

from vla_ros.core.errors import InputError

EULER = tuple("euler_" + "".join(order) for order in permutations("xyz"))
SIZES = {
    "matrix": 9, "rotation_6d_rows": 6, "rotation_6d_columns": 6, "quaternion_wxyz": 4, "quaternion_xyzw": 4,
    "vector": 3, **dict.fromkeys(EULER, 3),
}  # form -> number of values
LEAST = 1e-8  # of a length; shorter vectors have no direction


@np.errstate(over="ignore")  # a length that is too large is refused
def to_matrix(values: np.ndarray, form: str) -> np.ndarray:
    """(..., n) numbers of a form to (..., 3, 3) rotation matrices.

    Raises InputError for an unknown form, another n, and values without a direction (a quaternion of zeros, or one
    whose length overflows).
    """
    values = np.asarray(values, dtype=np.float64)
    check_form(form)
    if values.shape[-1:] != (SIZES[form],):
        raise InputError(f"rotation as {form}: {values.shape[-1] if values.ndim else 1} numbers, expected "
                         f"{SIZES[form]}")
    if form == "matrix":
        return values.reshape(*values.shape[:-1], 3, 3)
    if form.startswith("rotation_6d"):
        return _orthonormal(values, columns=form.endswith("columns"))
    if form.startswith("quaternion"):
        return _from_quaternion(_unit(values if form.endswith("wxyz") else np.roll(values, 1, axis=-1), "quaternion"))
    if form == "vector":
        angle = np.linalg.norm(values, axis=-1, keepdims=True)
        if not np.isfinite(angle).all():
            raise InputError("rotation as vector: its length is not finite, expected an angle in rad")
        # sin(a / 2) / a, which is 1 / 2 at zero
        half = np.concatenate([np.cos(angle / 2), np.sinc(angle / (2 * np.pi)) / 2 * values], -1)
        return _from_quaternion(_unit(half, "vector"))
    first, second, third = (_about("xyz".index(axis), values[..., i]) for i, axis in enumerate(form[-3:]))
    return first @ second @ third


def from_matrix(matrix: np.ndarray, form: str) -> np.ndarray:
    """(..., 3, 3) rotation matrices to (..., n) numbers of a form: the inverse of `to_matrix`.

    A quaternion has w >= 0, a vector an angle of at most pi, the middle Euler angle lies in [-pi / 2, pi / 2]; if it is
    a right angle, the last one is 0. Raises InputError for an unknown form.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    check_form(form)
    if form == "matrix":
        return matrix.reshape(*matrix.shape[:-2], 9)
    if form.startswith("rotation_6d"):
        rows = matrix.swapaxes(-1, -2) if form.endswith("columns") else matrix
        return rows[..., :2, :].reshape(*matrix.shape[:-2], 6)
    if form in EULER:
        return _to_euler(matrix, form[-3:])
    quaternion = _to_quaternion(matrix)
    if form == "vector":
        sine = np.linalg.norm(quaternion[..., 1:], axis=-1, keepdims=True)
        half = np.arctan2(sine, quaternion[..., :1])
        return quaternion[..., 1:] * np.where(sine < LEAST, 2.0, 2 * half / np.maximum(sine, LEAST))
    return quaternion if form.endswith("wxyz") else np.roll(quaternion, -1, axis=-1)


def check_form(form: str) -> None:
    """Raises InputError for an unknown form."""
    if form not in SIZES:
        raise InputError(f"rotation as {form!r}, expected one of {sorted(SIZES)}")


def _orthonormal(values: np.ndarray, columns: bool) -> np.ndarray:
    """Gram-Schmidt of two vectors, (..., 6), and the third that is perpendicular to both."""
    first, second = values[..., :3], values[..., 3:]
    first = _unit(first, "rotation_6d")
    second = _unit(second - (first * second).sum(axis=-1, keepdims=True) * first, "rotation_6d")
    return np.stack([first, second, np.cross(first, second)], axis=-1 if columns else -2)


def _unit(vector: np.ndarray, what: str) -> np.ndarray:
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    good = (length > LEAST) & np.isfinite(length)
    if not good.all():
        raise InputError(f"rotation as {what}: a vector of length {float(length[~good][0]):.3g}, expected one with a "
                         "direction")
    return vector / length


def _from_quaternion(values: np.ndarray) -> np.ndarray:
    """(..., 4) w, x, y, z, of length 1, to (..., 3, 3)."""
    w, x, y, z = np.moveaxis(values, -1, 0)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]
    return np.stack(rows, axis=-1).reshape(*w.shape, 3, 3)


def _to_quaternion(m: np.ndarray) -> np.ndarray:
    """(..., 3, 3) to (..., 4) w, x, y, z with w >= 0, from the largest of the four for accuracy (Shepperd 1978)."""
    trace = np.trace(m, axis1=-2, axis2=-1)
    d = np.diagonal(m, axis1=-2, axis2=-1)
    off = [m[..., 2, 1], m[..., 0, 2], m[..., 1, 0], m[..., 1, 2], m[..., 2, 0], m[..., 0, 1]]
    # Row k is four times component k times the quaternion.
    rows = np.stack([
        np.stack([1 + trace, off[0] - off[3], off[1] - off[4], off[2] - off[5]], -1),
        np.stack([off[0] - off[3], 1 + 2 * d[..., 0] - trace, off[2] + off[5], off[1] + off[4]], -1),
        np.stack([off[1] - off[4], off[2] + off[5], 1 + 2 * d[..., 1] - trace, off[0] + off[3]], -1),
        np.stack([off[2] - off[5], off[1] + off[4], off[0] + off[3], 1 + 2 * d[..., 2] - trace], -1),
    ], axis=-2)
    largest = np.argmax(np.diagonal(rows, axis1=-2, axis2=-1), axis=-1)
    chosen = np.take_along_axis(rows, largest[..., None, None], axis=-2)[..., 0, :]
    chosen = chosen / np.linalg.norm(chosen, axis=-1, keepdims=True)
    return np.where(chosen[..., :1] < 0, -chosen, chosen)


def _about(axis: int, angle: np.ndarray) -> np.ndarray:
    """(...) angles, rad, to (..., 3, 3) rotations about the axis 0, 1 or 2."""
    result = np.zeros((*angle.shape, 3, 3))
    next_, last = (axis + 1) % 3, (axis + 2) % 3
    result[..., axis, axis] = 1
    result[..., next_, next_] = result[..., last, last] = np.cos(angle)
    result[..., last, next_] = np.sin(angle)
    result[..., next_, last] = -np.sin(angle)
    return result


def _to_euler(m: np.ndarray, order: str) -> np.ndarray:
    i, j, k = ("xyz".index(axis) for axis in order)
    sign = 1 if (j - i) % 3 == 1 else -1  # of the permutation
    sine = np.clip(sign * m[..., i, k], -1, 1)
    locked = np.hypot(m[..., i, i], m[..., i, j]) < LEAST  # the first and the last axis are parallel
    free = np.arctan2(-sign * m[..., j, k], m[..., k, k])
    first = np.where(locked, np.arctan2(sign * m[..., k, j], m[..., j, j]), free)
    third = np.where(locked, 0.0, np.arctan2(-sign * m[..., i, j], m[..., i, i]))
    return np.stack([first, np.arcsin(sine), third], axis=-1)
