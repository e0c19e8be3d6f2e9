"""A base that follows a path: it comes where the path leads, within the limits; what cannot be followed is refused."""

from dataclasses import replace

import numpy as np
import pytest
from control.fakes import NS, World
from control.robots import driving
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_ros.control.admission import Reason, Refusal
from vla_ros.control.limits import Limits
from vla_ros.control.supervisor import State
from vla_ros.core.chunk import PATH, Part, Space, Targets
from vla_ros.core.joint import Joint
from vla_ros.core.robot import CommandGroup, RobotSpec

OMNI = RobotSpec(
    name="omni", cameras=(),
    joints=tuple(Joint(name, velocity=v, acceleration=a, unit=unit) for name, v, a, unit in (
        ("w", 1.5, 6.0, "rad/s"), ("vx", 0.5, 1.0, "m/s"), ("vy", 0.4, 1.0, "m/s"),
    )),
    groups=(CommandGroup("base", "drive", "base_twist", ("w", "vx", "vy"), axes=("yaw", "x", "y"), odometry="odom"),),
)  # fmt: skip
ROBOTS = {"differential": driving(), "omnidirectional": OMNI}


class Ground(World):
    """The base drives exactly as it is told; odometry says where from.

    Attributes:
        pose: (3,) in odometry's frame.
    """

    def __init__(self, kind: str | RobotSpec = "differential", start=(3.0, -2.0, 2.9), **options: object) -> None:
        robot = ROBOTS[kind] if isinstance(kind, str) else kind
        self.pose, self.axes, self.driven_ns, self.frame = np.array(start), robot.path_axes, 0, "base_link"
        home = np.zeros(len(robot.joints))
        super().__init__(limits=Limits.merge(robot), home=home, base=robot.path_axes, mode="latest", **options)

    def measure(self, **change: object) -> None:
        seconds = (self.now_ns - self.driven_ns) / NS if self.driven_ns else 0.0
        self.driven_ns = self.now_ns
        speed = dict(zip(self.names, self.measured, strict=True)) if hasattr(self, "names") else {}
        x, y, yaw = (speed.get(self.axes.get(axis), 0.0) for axis in PATH)
        middle = self.pose[2] + 0.5 * yaw * seconds
        cos, sin = np.cos(middle), np.sin(middle)
        self.pose = self.pose + np.array([cos * x - sin * y, sin * x + cos * y, yaw]) * seconds
        said = self.pose * 1.0
        said[2] = (said[2] + np.pi) % (2 * np.pi) - np.pi  # as a quaternion has it
        self.executor.odometry(self.now_ns, said, self.frame, self.now_ns)
        super().measure(**change)

    def path(self, rows, step_dt: float = 0.1, **change: object):
        part = Part(change.pop("columns", PATH), np.asarray(rows, dtype=float), Space.BASE_PATH,
                    change.pop("group", ""), change.pop("frame", ""))  # fmt: skip
        targets = Targets((part, *change.pop("beside", ())))
        return self.send(step_dt=step_dt, targets=targets, **change)

    def seen_from(self, start: np.ndarray) -> np.ndarray:
        """(3,) the pose now, as a path from `start` has it."""
        (east, north), turned = self.pose[:2] - start[:2], start[2]
        cos, sin = np.cos(turned), np.sin(turned)
        return np.array([cos * east + sin * north, cos * north - sin * east, self.pose[2] - turned])


def arc(speed: float, rate: float, rows: int, step_dt: float = 0.1) -> np.ndarray:
    """(H, 3) at `speed` along a circle, after each step."""
    t = step_dt * np.arange(1, rows + 1)
    return np.stack([speed / rate * np.sin(rate * t), speed / rate * (1 - np.cos(rate * t)), rate * t], axis=-1)


def resting(rows: np.ndarray) -> np.ndarray:
    """And eight rows more, in the last place."""
    return np.concatenate([rows, np.tile(rows[-1], (8, 1))])


@pytest.mark.parametrize("kind", ROBOTS)
@pytest.mark.parametrize(("speed", "rate"), [(0.3, 0.6), (0.3, -0.9), (0.4, 1e-6), (-0.2, 0.5)])
def test_it_drives_along_an_arc_in_time(kind, speed, rate):
    it = Ground(kind).activate()
    start, rows = it.pose.copy(), resting(arc(speed, rate, 20))
    assert not isinstance(it.path(rows), Refusal), it.executor.admission.last
    it.tick(140)
    assert np.abs(it.seen_from(start) - rows[13]).max() < 0.06  # m and rad: it lags a little, it had to gain speed
    it.tick(200)
    assert it.executor.state[0] == State.HOLDING and not it.executor.limiter.position[-2:].any()
    assert np.abs(it.seen_from(start) - rows[-1]).max() < 0.06


def test_sideways_is_driven_where_that_can_be():
    it = Ground("omnidirectional").activate()
    start = it.pose.copy()
    it.path(resting(np.outer(np.arange(1, 21), [0.0, 0.03, -0.04])))
    it.tick(340)
    assert it.seen_from(start) == pytest.approx([0.0, 0.6, -0.8], abs=0.05)


def test_it_turns_on_the_spot():
    it = Ground().activate()
    start = it.pose.copy()
    it.path(resting(np.outer(np.arange(1, 21), [0.0, 0.0, 0.12])))  # over pi of odometry's
    it.tick(340)
    assert it.seen_from(start) == pytest.approx([0.0, 0.0, 2.4], abs=0.05)


def test_paths_one_after_the_other_count_from_where_the_base_was_seen():
    it = Ground().activate()
    start = it.pose.copy()
    for _ in range(20):
        it.path(arc(0.3, 0.5, 20), age=0.1)
        it.tick(25)
    assert it.executor.admission.accepted == 20
    assert it.seen_from(start)[2] == pytest.approx(0.5 * 5.0, abs=0.3)


def test_too_fast_a_path_is_followed_at_the_limits_on_its_way():
    it = Ground().activate()
    start, rows = it.pose.copy(), arc(0.9, 1.5, 20)
    it.path(rows)
    said = np.array([it.tick().position[1:] for _ in range(150)])
    assert (said <= [0.5, 1.5]).all() and np.abs(np.diff(said, axis=0)).max(axis=0) == pytest.approx([0.01, 0.06])
    x, y, _ = it.seen_from(start)
    assert np.hypot(x, y - 0.6) == pytest.approx(0.6, abs=0.08)  # on the circle, though behind


def test_an_arm_beside_it_and_what_comes_after():
    it = Ground().activate()
    turn = Part(("turn",), np.full((20, 1), 0.2))
    it.path(arc(0.3, 0.5, 20), beside=(turn,))
    assert it.tick(60).position == pytest.approx([0.2, 0.3, 0.5], abs=0.1)
    it.send(np.full((20, 1), 0.3), names=("turn",))  # says nothing of the base, which follows its path
    assert it.tick(30).position[1] > 0.25
    it.send(np.tile([0.0, 0.1, 0.0], (20, 1)))
    assert it.tick(60).position[1:] == pytest.approx([0.1, 0.0])
    it.path(arc(0.3, 0.5, 20), age=2.5)
    assert it.executor.admission.last.reason == Reason.TOO_OLD


def test_a_path_that_comes_late_does_not_replace_velocities_of_a_newer_observation():
    it = Ground().activate()
    seen = it.now_ns
    it.tick(5)
    it.send(np.tile([0.0, 0.1, 0.0], (20, 1)))
    it.path(arc(0.4, 0.8, 20), stamp_ns=seen)
    assert it.executor.admission.accepted == 2
    assert it.tick(60).position[1:] == pytest.approx([0.1, 0.0])


def test_a_base_that_cannot_drive_backwards_does_not_turn_away_from_what_it_has_passed():
    robot = replace(ROBOTS["differential"], joints=(*driving().joints[:1], *(
        replace(joint, lower=0.0) if joint.name == "x.vel" else joint for joint in driving().joints[1:]
    )))
    it = Ground(robot).activate()
    start = it.pose.copy()
    it.path(np.tile([-0.1, 0.1, 0.0], (20, 1)))  # behind it, on the left
    it.tick(190)
    assert it.seen_from(start) == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)


def test_odometry_that_leaps_or_ceases_ends_the_path():
    it = Ground().activate()
    it.path(arc(0.3, 0.5, 30))
    assert it.tick(80).position[1] > 0.2
    it.pose = it.pose + [5.0, 0.0, 0.0]
    assert it.tick(60).position[1:].tolist() == [0.0, 0.0]
    assert not isinstance(it.path(arc(0.3, 0.5, 30)), Refusal)
    assert it.tick(80).position[1] > 0.2
    it.frame, said = "base_link", it.executor.odometry
    it.executor.odometry = lambda *_: None
    assert it.tick(90).position[1:].tolist() == [0.0, 0.0]
    it.executor.odometry = said


STRAIGHT = np.outer(np.arange(1, 11), [0.03, 0.0, 0.0])


@pytest.mark.parametrize(("rows", "change", "reason", "words"), [
    (STRAIGHT * 100, {}, Reason.OUTLIER, "path of the base, row"),
    (STRAIGHT + [0.0, 0.0, 2.0], {}, Reason.OUTLIER, "path of the base, row 0: 20 rad/s from the row before"),
    (STRAIGHT, {"stamp_ns": 999 * NS}, Reason.UNOBSERVED, "no odometry within 0.25 s of its stamp"),
    (STRAIGHT, {"columns": ("x", "y", "z")}, Reason.SPACE, "BASE_PATH of ['x', 'y', 'z'], expected ['x', 'y', 'yaw']"),
    (STRAIGHT, {"group": "base"}, Reason.SPACE, "BASE_PATH of 'base', expected '': the robot has one base"),
    (STRAIGHT, {"frame": "map"}, Reason.SPACE, "BASE_PATH in frame 'map', expected '' or the base's link, by"),
    (STRAIGHT, {"beside": (Part(("x.vel",), np.zeros((10, 1))),)}, Reason.SPACE, "['x.vel'] beside BASE_PATH"),
])  # fmt: skip
def test_what_cannot_be_followed_is_refused(rows, change, reason, words):
    it = Ground(joint_state_timeout=0.25).activate()
    it.tick(5)
    answer = it.path(rows, **change, step_dt=0.1 if "stamp_ns" not in change else 1.0)
    assert answer.reason == reason and answer.text.startswith(words), answer
    assert not isinstance(it.path(STRAIGHT, frame="base_link"), Refusal)


def test_a_path_that_begins_far_away_is_refused():
    it = Ground().activate()
    it.tick(5)
    stamp = it.now_ns
    it.tick(100)
    answer = it.path(arc(0.4, 1e-6, 30), stamp_ns=stamp)
    assert (answer.reason, answer.text) == (
        Reason.JUMP, "path of the base: begins 0.4 m from where it is, limit 0.2"
    )


def test_a_robot_without_such_a_base_refuses_paths():
    it = World().activate()
    answer = it.send(targets=Targets((Part(PATH, STRAIGHT, Space.BASE_PATH),)))
    assert (answer.reason, answer.text) == (
        Reason.SPACE, "BASE_PATH, but the robot file has no base that drives forwards and turns"
    )


@settings(max_examples=8)
@given(
    kind=st.sampled_from(list(ROBOTS)), seed=st.integers(0, 2**20), step_dt=st.sampled_from([0.02, 0.1, 0.5]),
    scale=st.sampled_from([0.3, 3.0, 1e3, 1e300]),
)
def test_whatever_the_path_the_velocities_stay_within_their_limits(kind, seed, step_dt, scale):
    it, rng = Ground(kind).activate(), np.random.default_rng(seed)
    limits, said = it.executor.limits, []
    for _ in range(4):
        rows = rng.normal(size=(int(rng.integers(1, 30)), 3)).cumsum(axis=0) * scale * step_dt * 0.3
        it.path(rows, step_dt=step_dt)
        said += [it.tick().position for _ in range(int(rng.integers(1, 40)))]
    it.executor.e_stop("button")
    said += [it.tick().position for _ in range(60)]
    said = np.array(said)
    assert np.isfinite(said).all() and not said[-1][limits.rates].any()
    assert ((said >= limits.lower) & (said <= limits.upper)).all()
    changes = np.abs(np.diff(said, axis=0))[:, limits.rates]
    assert (changes <= limits.velocity[limits.rates] * 0.01 + 1e-12).all()
