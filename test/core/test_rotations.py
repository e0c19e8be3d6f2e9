"""Rotations in every form: known values, and there and back."""

import golden_vectors
import numpy as np
import pytest

from vla_ros.core.errors import InputError
from vla_ros.core.rotations import SIZES, from_matrix, to_matrix

HALF = np.pi / 2
# x to y, y to -x, z stays: a quarter turn about z
QUARTER = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
SAID = {
    "matrix": [0, -1, 0, 1, 0, 0, 0, 0, 1], "rotation_6d_rows": [0, -1, 0, 1, 0, 0],
    "rotation_6d_columns": [0, 1, 0, -1, 0, 0], "quaternion_wxyz": [0.5**0.5, 0, 0, 0.5**0.5],
    "quaternion_xyzw": [0, 0, 0.5**0.5, 0.5**0.5], "vector": [0, 0, HALF],
    **{f"euler_{order}": [HALF if axis == "z" else 0 for axis in order] for order in ("xyz", "zyx", "yzx", "xzy")},
}


@pytest.mark.parametrize("form", SAID)
def test_a_quarter_turn_about_z(form):
    np.testing.assert_allclose(to_matrix(np.array(SAID[form]), form), QUARTER, atol=1e-12)
    np.testing.assert_allclose(from_matrix(QUARTER, form), SAID[form], atol=1e-12)


def random_rotations(number=200):
    q, r = np.linalg.qr(np.random.default_rng(0).standard_normal((number, 3, 3)))
    q = q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[:, None, :]
    return q * np.linalg.det(q)[:, None, None]


@pytest.mark.parametrize("form", SIZES)
def test_there_and_back(form):
    rotations = random_rotations().reshape(4, 50, 3, 3)
    values = from_matrix(rotations, form)
    assert values.shape == (4, 50, SIZES[form])
    np.testing.assert_allclose(to_matrix(values, form), rotations, atol=1e-9)
    # half turns, no turn, and where the first and the last Euler axis are parallel
    special = [np.eye(3), *(np.diag(row) for row in ([1.0, -1, -1], [-1, 1, -1], [-1, -1, 1]))]
    special += [to_matrix(np.insert(np.array([0.3, 0.4]), 1, angle), form) for angle in (HALF, -HALF)
                if form.startswith("euler")]
    np.testing.assert_allclose(to_matrix(from_matrix(np.stack(special), form), form), special, atol=1e-7)


def test_euler_angles_turn_about_the_moving_axes_in_the_written_order():
    a, b, c = 0.3, -0.7, 1.1
    turns = [to_matrix(np.array(row), "vector") for row in ([a, 0, 0], [0, b, 0], [0, 0, c])]
    np.testing.assert_allclose(to_matrix(np.array([a, b, c]), "euler_xyz"), turns[0] @ turns[1] @ turns[2], atol=1e-12)
    np.testing.assert_allclose(to_matrix(np.array([c, b, a]), "euler_zyx"), turns[2] @ turns[1] @ turns[0], atol=1e-12)


def test_six_numbers_are_made_orthonormal_by_the_first_vector():
    matrix = to_matrix(np.array([2.0, 0, 0, 5, 3, 0]), "rotation_6d_rows")
    np.testing.assert_allclose(matrix, np.eye(3), atol=1e-12)


def test_six_numbers_to_axis_and_angle_as_lerobot_computes_them_for_x_vla():
    tensors, _, _ = golden_vectors.load("xvla_rotation")
    six, vectors = (tensors[name].double().numpy() for name in ("rotation_6d", "axis_angle"))
    matrices = to_matrix(six, "rotation_6d_columns")
    np.testing.assert_allclose(from_matrix(matrices, "vector"), vectors, atol=2e-6)
    np.testing.assert_allclose(to_matrix(vectors, "vector"), matrices, atol=2e-6)


@pytest.mark.parametrize(
    ("values", "form", "message"),
    [([1.0, 0, 0], "rotvec", "rotation as 'rotvec', expected one of"), ([1.0, 0], "vector", "2 numbers, expected 3"),
     ([0.0] * 4, "quaternion_wxyz", "length 0"), ([1.0, 0, 0, 2, 0, 0], "rotation_6d_rows", "length 0"),
     ([5e199] * 4, "quaternion_xyzw", "quaternion: a vector of length inf"),
     ([1e200, 0, 0, 0, 1, 0], "rotation_6d_rows", "length inf"),
     ([0.0, 1, 0, 1e200, 0, 0], "rotation_6d_columns", "length inf"),
     ([1e200, 0, 0], "vector", "rotation as vector: its length is not finite")],
)
def test_what_is_no_rotation_is_refused(values, form, message):
    with pytest.raises(InputError, match=message):
        to_matrix(np.array(values), form)
