"""A scripted expert of gym-aloha's transfer cube: joint targets for a seed, by inverse kinematics.

It knows where the cube is, because the environment draws that from the seed. The right arm takes the cube from above
and lifts it to the middle; the left arm comes from its side and takes hold of it.
"""

from pathlib import Path

import mujoco
import numpy as np

_REACH = 0.125  # m from the gripper's link to between the finger tips
_TABLE = 0.02  # m, height of the lying cube's middle
_OPEN, _CLOSED = 0.057, 0.021  # m, a finger's place


def _pose(forwards: tuple[float, float, float], side: tuple[float, float, float]) -> np.ndarray:
    """(3, 3): the gripper points `forwards`, its fingers open along `side`."""
    x, y = np.array(forwards), np.array(side)
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], axis=1)


_DOWN = _pose((-0.5, 0.0, -0.866), (0.0, -1.0, 0.0))
_LEVEL = _pose((1.0, 0.0, 0.0), (0.0, 0.0, 1.0))


class AlohaExpert:
    """Plans whole episodes. `assets`: the folder of gym-aloha's models."""

    def __init__(self, assets: Path) -> None:
        self._model = mujoco.MjModel.from_xml_path(str(assets / "bimanual_viperx_transfer_cube.xml"))
        self._data = mujoco.MjData(self._model)

    def plan(self, seed: int, start: np.ndarray) -> np.ndarray:
        """(400, 14) rad and m, in the order of the environment's joints, which are at `start` (14,)."""
        x, y = np.random.RandomState(seed).uniform([0.0, 0.4], [0.2, 0.6])
        cube, above, meeting = np.array([x, y, _TABLE]), np.array([x, y, 0.15]), np.array([0.0, 0.5, 0.25])
        # step, right: place and finger; left: place and finger. None: as it is.
        beside = meeting + [-0.12, 0.0, 0.0]
        keys = [
            (0, None, None, None, None),
            (60, above, _OPEN, None, None),
            (100, cube, _OPEN, None, None),
            (120, cube, _CLOSED, beside, _OPEN),
            (200, meeting, _CLOSED, beside, _OPEN),
            (260, meeting, _CLOSED, meeting + [-0.015, 0.0, 0.0], _OPEN),
            (290, meeting, _CLOSED, meeting + [-0.015, 0.0, 0.0], _CLOSED),
            (320, meeting, _OPEN, meeting + [-0.015, 0.0, 0.0], _CLOSED),
            (399, meeting + [0.1, 0.0, 0.05], _OPEN, beside, _CLOSED),
        ]
        row, times, rows = start.copy(), [], []
        for step, right, finger, left, other in keys:
            row = row.copy()
            if right is not None:
                row[7:13], row[13] = self._inverse("right", right, _DOWN, row[7:13]), finger
            if left is not None:
                row[:6], row[6] = self._inverse("left", left, _LEVEL, row[:6]), other
            times.append(step)
            rows.append(row)
        every = np.arange(400)
        return np.stack([np.interp(every, times, column) for column in np.stack(rows).T], axis=1)

    def _inverse(self, side: str, place: np.ndarray, rotation: np.ndarray, guess: np.ndarray) -> np.ndarray:
        """(6,) rad: the finger tips around `place` (3,), turned by `rotation`; damped least squares from `guess`."""
        model, data = self._model, self._data
        names = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
        joints = [model.joint(f"vx300s_{side}/{name}") for name in names]
        columns, slots = [int(j.dofadr[0]) for j in joints], [int(j.qposadr[0]) for j in joints]
        low, high = np.array([j.range for j in joints]).T
        body = model.body(f"vx300s_{side}/gripper_link").id
        best, least = guess, np.inf
        rng = np.random.default_rng(0)
        for attempt in range(10):
            q = guess.copy() if attempt == 0 else np.clip(guess + rng.normal(0, 0.5, 6), low, high)
            for _ in range(200):
                data.qpos[slots] = q
                mujoco.mj_kinematics(model, data)
                mujoco.mj_comPos(model, data)
                turn = data.xmat[body].reshape(3, 3)
                tip = data.xpos[body] + turn @ [_REACH, 0.0, 0.0]
                wrong = np.concatenate([place - tip, 0.3 * _rotation_vector(rotation @ turn.T)])
                if np.linalg.norm(wrong) < 1e-4:
                    return q
                jacobian = np.zeros((6, model.nv))
                mujoco.mj_jac(model, data, jacobian[:3], jacobian[3:], tip, body)
                j = jacobian[:, columns] * np.array([[1.0]] * 3 + [[0.3]] * 3)
                q = np.clip(q + j.T @ np.linalg.solve(j @ j.T + 1e-4 * np.eye(6), wrong), low, high)
            if np.linalg.norm(wrong) < least:
                best, least = q, float(np.linalg.norm(wrong))
        return best


def _rotation_vector(matrix: np.ndarray) -> np.ndarray:
    quaternion, vector = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(matrix).ravel())
    mujoco.mju_quat2Vel(vector, quaternion, 1.0)
    return vector
