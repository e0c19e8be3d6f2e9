"""From a moving pose of the tool to targets of the joints, one control period at a time."""

import numpy as np

from vla_ros.control.limiter import stoppable_speed
from vla_ros.control.tool_arm import ToolArm

_TOLERANCE = 0.005  # m from the target that are no reason to say anything
_ABLE = 0.1  # share of the way left that the arm can go, below which it does not get nearer
_SLACK = 0.5  # of an acceleration limit, for braking at the end of the way; the rest is for its bends
_QUICKEST = 15.0  # 1/s of the way left: what is straight for the joints is a curve for the tool
_PATIENCE = 0.3  # s of that before it is said


class ToolFollower:
    """Goes from the last command towards a pose, within the tool's limits; keeps no course of its own.

    So what the limiter, a stop or the e-stop did to the commands is always where it goes on from. The way that is left
    is gone by all joints together, as fast as the tool and each of them may go and still come to rest at its end. A
    pose that the arm does not reach is approached as near as it goes, where the arm stands.

    Attributes:
        reason: why the tool does not get to its target, in words; "" where it does.
        near: the position is no further from the target than the tool travels in a control period.
    """

    def __init__(self, arm: ToolArm) -> None:
        self.arm = arm
        self.rest()

    def rest(self) -> None:
        """There is no target."""
        self.reason, self.near, self._stuck = "", False, 0.0

    def follow(
        self, pose: np.ndarray, slope: np.ndarray, position: np.ndarray, velocity: np.ndarray, dt: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """(n,) positions, rad or m, and velocities of the arm's joints for the end of the next `dt` s.

        Args:
            pose, slope: (12,) the target then, an average of poses, and its velocity.
            position, velocity: (J,) the last command and its velocity.

        A target that is no finite number gives none either: the joints hold.
        """
        arm, tool = self.arm, self.arm.tool
        if not np.isfinite([pose, slope]).all():
            return np.full(len(arm.columns), np.nan), np.zeros(len(arm.columns))
        joints, before = position[arm.columns], velocity[arm.columns]
        place, rotation, jacobian = arm.placed(position)
        inside, target = np.clip(pose[:3], tool.lower, tool.upper), nearest_rotation(pose[3:].reshape(3, 3))
        away = np.concatenate([inside - place, arm.turn(rotation, target)])
        moving = np.concatenate([np.where(inside == pose[:3], slope[:3], 0.0),
                                 _axis(slope[3:].reshape(3, 3) @ target.T)])
        moving *= self._share(moving)
        left, room = away - moving * dt, (arm.lower - joints, arm.upper - joints)
        way = arm.way(jacobian, left, *room)
        wish = self._pace(way, jacobian @ way, dt) * way
        if moving.any():
            low, high = (stoppable_speed(np.maximum(most, 0.0), _SLACK * arm.acceleration, dt)
                         for most in (-room[0], room[1]))
            wish = wish + arm.resolve(jacobian, moving, -low, high)
        wish *= min(self._share(jacobian @ wish), _share(wish, arm.fastest))
        change = wish - before
        change *= self._share(jacobian @ change, dt)
        found = before + np.clip(change, -arm.acceleration * dt, arm.acceleration * dt)
        if self._share(jacobian @ found) < 1.0:  # joints that change as fast as they can, each, mix their speeds
            whole = before + change * _share(change, arm.acceleration * dt)
            found = max(found, whole, key=lambda speeds: self._share(jacobian @ speeds))
        self._judge(inside, left[:3], (jacobian @ way)[:3], dt)
        return joints + found * dt, found

    def _pace(self, way: np.ndarray, gone: np.ndarray, dt: float) -> float:
        """1/s: the greatest share of the `way` (n,) of the joints, `gone` (6,) of the tool, to go from which all of
        them can still stop at its end."""
        tool = self.arm.tool
        rooms = np.concatenate([[np.linalg.norm(gone[:3]), np.linalg.norm(gone[3:])], np.abs(way)])
        rooms = np.maximum(rooms, 1e-12)
        able = np.concatenate([[tool.acceleration, tool.rotation_acceleration], self.arm.acceleration])
        return min(_QUICKEST, float((stoppable_speed(rooms, _SLACK * able, dt, dt) / rooms).min()))

    def _share(self, twist: np.ndarray, dt: float = 0.0) -> float:
        """At most 1: what of a (6,) twist is within the tool's speeds; with `dt` s, of a change of it then."""
        tool = self.arm.tool
        most = np.array([tool.velocity, tool.rotation_velocity]) if not dt else (
            np.array([tool.acceleration, tool.rotation_acceleration]) * dt)
        return _share(np.array([np.linalg.norm(twist[:3]), np.linalg.norm(twist[3:])]), most)

    def _judge(self, target: np.ndarray, left: np.ndarray, gone: np.ndarray, dt: float) -> None:
        """Whether what the arm can do, `gone` (3,), comes near to the way that is `left` (3,)."""
        distance = float(np.linalg.norm(left))
        self.near = distance <= self.arm.tool.velocity * dt
        stands = distance > _TOLERANCE and gone @ left < _ABLE * left @ left
        self._stuck = self._stuck + dt if stands else 0.0
        if not stands:
            self.reason = ""
        elif self._stuck >= _PATIENCE:
            said = ", ".join(f"{value:.3f}" for value in target)
            self.reason = (f"tool: holds {distance:.3f} m from its target ({said}) m in {self.arm.tool.frame}, nearer "
                           "the arm does not get")


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """The rotation nearest to an average of rotations, (3, 3): their mean on the sphere of rotations for the chordal
    distance (Moakher 2002, "Means and averaging in the group of rotations"); between two, it lies on the shortest way.
    """
    u, _, v = np.linalg.svd(matrix)
    return u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v


def _share(values: np.ndarray, most: np.ndarray) -> float:
    """At most 1: by what all values are to be shortened for each to be within its `most`."""
    return min(1.0, float((most / np.maximum(np.abs(values), 1e-12)).min()))


def _axis(turning: np.ndarray) -> np.ndarray:
    """(3,) rad/s of a (3, 3) derivative of a rotation times its transpose."""
    skew = 0.5 * (turning - turning.T)
    return np.array([skew[2, 1], skew[0, 2], skew[1, 0]])
