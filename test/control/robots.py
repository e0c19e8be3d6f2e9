"""Small robots for the tests of control."""

import numpy as np

from vla_ros.control.limits import Limits
from vla_ros.core.robot import CommandGroup, Joint, RobotSpec


def robot(jerk: float = np.inf, gripper: bool = False) -> RobotSpec:
    """A turning and a lifting joint, and a discrete gripper if asked for."""
    limit = None if np.isinf(jerk) else jerk
    joints = [
        Joint("turn", -1.0, 1.0, velocity=2.0, acceleration=10.0, jerk=limit),
        Joint("lift", 0.0, 0.5, velocity=0.5, acceleration=4.0, unit="m", jerk=limit),
    ]
    if gripper:
        joints.append(Joint("grip", 0.0, 1.0, velocity=5.0, acceleration=50.0, discrete=True))
    names = tuple(joint.name for joint in joints)
    return RobotSpec(
        name="small",
        cameras=(),
        joints=tuple(joints),
        groups=(CommandGroup("all", "command", "joint_trajectory", names),),
        position_margin=0.01,
    )


def driving(jerk: float = np.inf) -> RobotSpec:
    """A turning joint on a base that drives forwards and backwards, slower than forwards, and turns."""
    joints = (
        Joint("turn", -1.0, 1.0, velocity=2.0, acceleration=10.0, jerk=None if np.isinf(jerk) else jerk),
        Joint("x.vel", -0.3, velocity=0.5, acceleration=1.0, unit="m/s"),
        Joint("theta.vel", velocity=1.5, acceleration=6.0, unit="rad/s"),
    )
    base = CommandGroup(
        "base", "cmd_vel", "base_twist", ("x.vel", "theta.vel"), axes=("x", "yaw"), odometry="odom"
    )
    arm = CommandGroup("arm", "command", "joint_trajectory", ("turn",))
    return RobotSpec(name="driving", cameras=(), joints=joints, groups=(arm, base), position_margin=0.01)


def limits(jerk: float = np.inf, gripper: bool = False) -> Limits:
    return Limits.merge(robot(jerk, gripper))


def check_path(
    bounds: Limits,
    dt: float,
    start: np.ndarray,
    path: np.ndarray,
    times_ns: np.ndarray | None = None,
    gentle: np.ndarray | None = None,
) -> None:
    """(K, J) commands that begin at rest at `start` (J,): finite and inside every limit, by difference quotients.

    `times_ns`: (K,) when, `dt` s apart where left out; `dt` s is also how long the robot had stood at `start` before.
    `gentle`: (K,) bool, commands that are bound to the limits of jerk too; all of them where left out.
    """
    count = len(path)
    times = np.arange(count) * dt if times_ns is None else (times_ns - times_ns[0]) * 1e-9
    whole = np.concatenate([[start, start, start], path])
    gap = np.diff(np.concatenate([[-3 * dt, -2 * dt, -dt], times]))[:, None]
    assert (gap > 0).all()
    assert np.isfinite(path).all()
    assert (path >= np.minimum(bounds.lower, start) - 1e-12).all()
    assert (path <= np.maximum(bounds.upper, start) + 1e-12).all()
    velocity = np.diff(whole, axis=0) / gap
    assert (np.abs(velocity) <= bounds.velocity * (1 + 1e-9) + 1e-9).all()
    acceleration = np.diff(velocity, axis=0) / ((gap[1:] + gap[:-1]) / 2)
    assert (np.abs(acceleration) <= bounds.acceleration * (1 + 1e-6) + 1e-9 / dt).all()
    jerk = np.diff(acceleration, axis=0) / ((gap[2:] + gap[1:-1] + gap[:-2]) / 3)
    if gentle is not None:
        known = np.concatenate([[True, True, True], gentle])
        jerk = jerk[np.all([known[i : i + count] for i in range(4)], axis=0)]
    assert (np.abs(jerk) <= bounds.jerk * (1 + 1e-6) + 1e-6 / dt).all()
