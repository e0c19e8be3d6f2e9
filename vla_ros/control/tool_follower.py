"""Convert a moving pose of the tool to joint targets, one control period at a time."""

import numpy as np

from vla_ros.control.limiter import stoppable_speed
from vla_ros.control.tool_arm import ToolArm
from vla_ros.control.tool_escape import way_out
from vla_ros.control.tool_pose import PoseArm
from vla_ros.core.tool import POSITION

_TOLERANCE = 0.005  # m from the target that are not worth a message
_TURNED = 0.05  # rad of the same
_ABLE = 0.1  # fraction of the remaining way that the arm can do, below which it does not get nearer
_OUT = 0.04  # rad or m, first step out of a singularity
_SLACK = 0.5  # fraction of an acceleration limit for braking at the end; the rest is for the curvature of the path
_QUICKEST = 15.0  # 1/s of the remaining way: a straight line of the joints is a curve of the tool
_PATIENCE = np.array([0.3, 0.3, 1.0])  # s before a target outside the box, a position and a rotation are reported
_ALL = 6  # joints from which on the arm can reach every rotation
_STUCK = "does not get nearer at present (joint limit, singularity or out of reach)"
_ROUNDING = 1e-9  # share of a speed


class ToolFollower:
    """Moves from the last command towards a pose, within the tool's limits; it has no state of its own path.

    So it always continues from what the limiter, a stop or the e-stop did to the commands. All joints cover the
    remaining way together, as fast as the tool and each of them may move and still come to rest at its end. If the arm
    cannot reach a pose, it moves as close to it as it can and stays there.

    Attributes:
        reason: why the tool does not reach its target, in words; "" if it does.
        limited: the last step was shortened by the box, by a speed or acceleration limit of the tool or of its joints,
            or by the braking distance.
        near: the position is no further from the target than the tool travels in a control period.
    """

    def __init__(self, arm: ToolArm | PoseArm) -> None:
        self.arm = arm
        self.rest()

    def rest(self) -> None:
        """There is no target."""
        self.reason, self.near, self.limited = "", False, False
        self._since = np.zeros(len(_PATIENCE))  # s that each of them lasts

    def follow(
        self, pose: np.ndarray, slope: np.ndarray, position: np.ndarray, velocity: np.ndarray, dt: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """(n,) positions, rad or m, and velocities of the arm's joints for the end of the next `dt` s.

        Args:
            pose, slope: (12,) the target then, an average of poses, and its velocity.
            position, velocity: (J,) the last command and its velocity.

        If a target is not finite, the joints hold.
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
        shares = [self._share(moving)]
        moving *= shares[0]
        left, room = away - moving * dt, (arm.lower - joints, arm.upper - joints)
        way = self._way(position, jacobian, left, room)
        pace, quickest = self._pace(way, jacobian @ way, dt), min(_QUICKEST, 1.0 / dt)
        shares.append(pace / quickest)
        wish = pace * way
        if moving.any():
            low, high = (stoppable_speed(np.maximum(most, 0.0), _SLACK * arm.acceleration, dt)
                         for most in (-room[0], room[1]))
            wish = wish + arm.resolve(jacobian, moving, -low, high)
        shares.append(min(self._share(jacobian @ wish), _share(wish, arm.fastest)))
        wish *= shares[-1]
        change = wish - before
        shares += [self._share(jacobian @ change, dt), _share(change, arm.acceleration * dt)]
        change *= shares[-2]
        found = before + np.clip(change, -arm.acceleration * dt, arm.acceleration * dt)
        if self._share(jacobian @ found) < 1.0:  # joints at their own limits bend the path
            whole = before + change * _share(change, arm.acceleration * dt)
            found = max(found, whole, key=lambda speeds: self._share(jacobian @ speeds))
        found = self._slowed(found, before, jacobian, room, dt)
        self.limited = min(shares) < 1.0 - _ROUNDING or bool((inside != pose[:3]).any())
        self._judge(pose[:3], left, jacobian @ way, dt)
        return joints + found * dt, found

    def _way(
        self, position: np.ndarray, jacobian: np.ndarray, left: np.ndarray, room: tuple[np.ndarray, np.ndarray]
    ) -> np.ndarray:
        """(n,) way of the joints; if it does not bring the tool nearer, plus a small step out of the singularity."""
        way, distance = self.arm.way(jacobian, left, *room), float(np.linalg.norm(left[:3]))
        if distance <= _TOLERANCE:
            return way
        stands = 1.0 - (jacobian @ way)[:3] @ left[:3] / (_ABLE * distance**2)
        if stands <= 0:
            return way
        return np.clip(way + _OUT * min(stands, 1.0) * way_out(self.arm, position, jacobian, left[:3], room), *room)

    def _slowed(
        self, found: np.ndarray, before: np.ndarray, jacobian: np.ndarray, room: tuple[np.ndarray, np.ndarray],
        dt: float,
    ) -> np.ndarray:
        """(n,) speeds: joints close to their limits are slowed so that they can still stop, as the limiter would do,
        and all are reduced if the tool would become too fast by that; its speed takes precedence over its
        acceleration."""
        able = self.arm.acceleration
        low, high = (stoppable_speed(most, able, dt) for most in (-room[0], room[1]))
        found = np.clip(found, -low, high)
        share = self._share(jacobian @ found)
        if share >= 1.0:
            return found
        return np.clip(before + np.clip(share * found - before, -able * dt, able * dt), -low, high)

    def _pace(self, way: np.ndarray, gone: np.ndarray, dt: float) -> float:
        """1/s: the largest rate at which the `way` (n,) of the joints, `gone` (6,) of the tool, may be covered so that
        all can still stop at its end."""
        tool = self.arm.tool
        rooms = np.concatenate([[np.linalg.norm(gone[:3]), np.linalg.norm(gone[3:])], np.abs(way)])
        rooms = np.maximum(rooms, 1e-12)
        able = np.concatenate([[tool.acceleration, tool.rotation_acceleration], self.arm.acceleration])
        return min(_QUICKEST, float((stoppable_speed(rooms, _SLACK * able, dt, dt) / rooms).min()))

    def _share(self, twist: np.ndarray, dt: float = 0.0) -> float:
        """Fraction, at most 1, of a (6,) twist that is within the tool's speeds; with `dt` s, of a change of the twist
        within its accelerations."""
        tool = self.arm.tool
        most = np.array([tool.velocity, tool.rotation_velocity]) if not dt else (
            np.array([tool.acceleration, tool.rotation_acceleration]) * dt)
        return _share(np.array([np.linalg.norm(twist[:3]), np.linalg.norm(twist[3:])]), most)

    def _judge(self, target: np.ndarray, left: np.ndarray, gone: np.ndarray, dt: float) -> None:
        """Set `reason`: is the `target` (3,) m in the box, and does the displacement that the arm can do, `gone` (6,),
        come close to what is `left` (6,)?"""
        tool, distance, turned = self.arm.tool, float(np.linalg.norm(left[:3])), float(np.linalg.norm(left[3:]))
        over = np.maximum(target - tool.upper, tool.lower - target)
        self.near = distance <= tool.velocity * dt
        stands = [
            over.max() > _TOLERANCE,
            distance > _TOLERANCE and gone[:3] @ left[:3] < _ABLE * distance**2,
            len(self.arm.columns) >= _ALL and turned > _TURNED and gone[3:] @ left[3:] < _ABLE * turned**2,
        ]
        self._since = np.where(stands, self._since + dt, 0.0)
        told = stands & (self._since >= _PATIENCE)
        self.reason = ""
        if told.any():
            i, place = int(over.argmax()), np.clip(target, tool.lower, tool.upper)
            words = (
                f"target {POSITION[i]} {target[i]:.3f} m is outside the box, {tool.lower[i]:g} to {tool.upper[i]:g} m "
                f"in {tool.frame}; it goes to the box's side",
                f"holds {distance:.3f} m from its target ({', '.join(f'{value:.3f}' for value in place)}) m in "
                f"{tool.frame}, {_STUCK}",
                f"holds {turned:.3f} rad from the rotation of its target, {_STUCK}",
            )
            self.reason = "tool: " + "; ".join(text for text, so in zip(words, told, strict=True) if so)


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """The rotation nearest to an average of rotations, (3, 3): their mean on the sphere of rotations for the chordal
    distance (Moakher 2002, "Means and averaging in the group of rotations"); the mean of two lies on the shortest path
    between them.
    """
    u, _, v = np.linalg.svd(matrix)
    return u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v


def _share(values: np.ndarray, most: np.ndarray) -> float:
    """Factor, at most 1, that brings all values within their `most`."""
    return min(1.0, float((most / np.maximum(np.abs(values), 1e-12)).min()))


def _axis(turning: np.ndarray) -> np.ndarray:
    """(3,) rad/s of a (3, 3) derivative of a rotation times its transpose."""
    skew = 0.5 * (turning - turning.T)
    return np.array([skew[2, 1], skew[0, 2], skew[1, 0]])
