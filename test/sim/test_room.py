"""The simulated robot on wheels: it drives as it is told, its sensors say where things are, and it stops at walls."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.sim.room import BASE_RADIUS, HALF_ROOM, LIDAR_HEIGHT, POST_RADIUS
from vla_ros.sim.room_layout import BEARING, RoomLayout
from vla_ros.sim.room_world import AZIMUTHS, FOLDED, LIDAR_RANGE, RANGE_NOISE, RINGS, SPEED, RoomWorld
from vla_ros.sim.tasks import SuccessTracker, Task, TaskKind
from vla_ros.sim.worlds import check_kinds, check_sensors, world_of

OPEN = RoomLayout(  # the robot in the middle, turned by half a radian; what is not asked about lies in a corner
    np.array([0.0, 0.0, 0.5]), np.array([[1.5, 0.0], [0.0, -1.2], [-1.8, 1.8]]),
    np.array([[-1.9, -1.3], [-1.9, -1.6], [-1.9, -1.9]]),
    np.array([[1.8, 1.8, 0.0], [1.8, 1.3, 0.0], [1.2, 1.9, 0.0], [-1.2, 1.9, 0.0]]), np.zeros(3),
)  # fmt: skip


@pytest.fixture(scope="module")
def world():
    return RoomWorld()


def drive(world: RoomWorld, velocity, seconds: float) -> np.ndarray:
    """(T, 3) measured velocities."""
    found = []
    for _ in range(round(seconds / world.control_period)):
        world.step(np.append(FOLDED, velocity))
        found.append(world.base_velocity())
    return np.array(found)


def test_the_robot_file_is_lekiwi_s_with_more_sensors():
    real, simulated = RobotSpec.load("lekiwi"), RobotSpec.load("lekiwi_sim")
    assert simulated.joints == real.joints and simulated.groups == real.groups
    assert set(real.camera_names) < set(simulated.camera_names) == set(RoomWorld.cameras)
    assert simulated.joint_names == RoomWorld.joint_names
    assert [joint.velocity for joint in real.joints][6:] == SPEED.tolist()
    for robot in (real, simulated):
        assert world_of(robot.name, robot.joint_names) is RoomWorld
        check_sensors(robot, RoomWorld)
    with pytest.raises(InputError, match="stream imu of a/msg/B, the simulator has lidar"):
        check_sensors(replace(simulated, streams=(replace(simulated.stream("imu"), type="a/msg/B"),)), RoomWorld)
    with pytest.raises(InputError, match="task pick: scene room of robot lekiwi_sim has drive, fetch$"):
        check_kinds("lekiwi_sim", RoomWorld, ["drive", "pick"])
    with pytest.raises(InputError, match=r"robot koch: joints \('a',\), the simulator has"):
        world_of("koch", ["a"])


@pytest.mark.parametrize("velocity", [(0.2, 0.0, 0.0), (-0.1, 0.2, 0.0), (0.15, 0.0, 1.0)])
def test_a_commanded_velocity_is_reached_and_braked(world, velocity):
    world.reset(layout=OPEN)
    reached = drive(world, velocity, 1.0)
    np.testing.assert_allclose(reached[-1], velocity, atol=0.01)
    assert np.abs(reached[3]).max() < 0.9 * np.abs(velocity).max()  # the motors are no magic
    x, y, yaw = world.base_pose()
    assert yaw == pytest.approx(0.5 + velocity[2], abs=0.06)
    if not velocity[2]:  # along the base's own axes
        expected = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]]) @ velocity[:2]
        np.testing.assert_allclose([x, y], expected, atol=0.012)
    braked = drive(world, (0.0, 0.0, 0.0), 0.5)
    assert np.abs(braked[-1]).max() < 1e-3 and not world.collisions
    assert world.joint_positions()[:6] == pytest.approx(FOLDED, abs=0.03) and len(world.joint_velocities()) == 6


def test_faster_than_its_limit_it_does_not_drive(world):
    world.reset(layout=OPEN)
    np.testing.assert_allclose(drive(world, (1.0, 0.0, 0.0), 0.5)[-1], [SPEED[0], 0.0, 0.0], atol=1e-3)
    with pytest.raises(InputError, match="expected 9 finite numbers"):
        world.step(FOLDED)


def test_a_wall_stops_it_and_a_task_with_a_touch_is_not_done(world):
    world.reset(layout=replace(OPEN, start=np.array([1.5, -0.3, 0.0])))
    tracker = SuccessTracker(Task(TaskKind.DRIVE, "red"), world)  # 30 cm beside the post, but the wall comes first
    stalled = drive(world, (0.25, 0.0, 0.0), 4.0)
    assert world.collisions and np.abs(stalled[-1]).max() < 0.02
    assert world.base_pose()[0] == pytest.approx(HALF_ROOM - 0.02 - BASE_RADIUS, abs=0.01)
    assert not tracker.update() and tracker.touched and tracker.failed
    world.reset(layout=replace(OPEN, start=np.array([1.5, -0.3, 0.0])))
    tracker = SuccessTracker(Task(TaskKind.DRIVE, "red"), world)
    others = SuccessTracker(Task(TaskKind.DRIVE, "blue"), world)
    for _ in range(60):
        world.step(np.append(FOLDED, np.zeros(3)))
        tracker.update(), others.update()
    assert tracker.succeeded and tracker.success_time == pytest.approx(0.51, abs=0.02) and not others.succeeded
    assert not tracker.failed and not others.failed


def test_ranges_of_the_lidar_are_those_of_the_geometry(world):
    world.reset(layout=OPEN)
    points = world.lidar()
    assert points.shape == (len(RINGS), len(AZIMUTHS), 3) and points.dtype == np.float32
    ranges = np.linalg.norm(points, axis=-1)
    level = int(np.flatnonzero(RINGS == 0.0)[0])

    def ray(bearing: float) -> int:
        """The azimuth nearest to a bearing in the room."""
        return int(np.argmin(np.abs((AZIMUTHS + 0.5 - bearing + np.pi) % (2 * np.pi) - np.pi)))

    for bearing, distance in ((0.0, 1.5), (-np.pi / 2, 1.2)):  # two posts; the ray passes within 2 cm of the middle
        assert ranges[level, ray(bearing)] == pytest.approx(distance - POST_RADIUS, abs=0.02)
    k = ray(np.pi)  # the wall behind
    there = (HALF_ROOM - 0.02) / -np.cos(AZIMUTHS[k] + 0.5)
    assert ranges[level, k] == pytest.approx(there, abs=4 * RANGE_NOISE)
    np.testing.assert_allclose(points[level, k, :2] / ranges[level, k], [np.cos(AZIMUTHS[k]), np.sin(AZIMUTHS[k])],
                               atol=1e-5)  # fmt: skip
    low = int(np.argmin(RINGS))
    assert ranges[low, k] == pytest.approx(LIDAR_HEIGHT / np.sin(-RINGS[low]), abs=4 * RANGE_NOISE)  # the floor
    assert np.nanmin(ranges) > 0.5  # not the robot itself
    assert np.array_equal(points, world.lidar(), equal_nan=True)  # the same moment, the same noise
    drive(world, (0.1, 0.0, 0.0), 0.1)
    assert not np.array_equal(points, world.lidar(), equal_nan=True)
    assert np.isnan(ranges[ranges > LIDAR_RANGE[1]]).all()


def test_the_imu_feels_turning_and_gravity(world):
    world.reset(layout=OPEN)
    world.step(np.append(FOLDED, np.zeros(3)))
    np.testing.assert_allclose(world.imu(), [0, 0, 0, 0, 0, 9.81], atol=0.02)
    drive(world, (0.0, 0.0, 1.0), 0.6)
    np.testing.assert_allclose(world.imu()[:3], [0, 0, 1.0], atol=0.02)
    world.reset(layout=OPEN)
    drive(world, (0.2, 0.0, 0.0), 0.02)
    assert world.imu()[3] > 1.0


def test_depth_is_the_distance_along_the_camera_s_axis(world):
    world.reset(layout=replace(OPEN, start=np.zeros(3)))
    depth = world.depth("front", 80, 60)
    matrix, pose = world.pinhole("front", 80, 60)
    seen = np.linalg.inv(pose) @ [1.5 - POST_RADIUS, 0.0, 0.3, 1.0]
    column, row = np.rint((matrix @ seen[:3] / seen[2])[:2]).astype(int)
    assert depth.shape == (60, 80) and depth.dtype == np.uint16
    assert depth[row, column] == pytest.approx(1000 * seen[2], abs=25)
    picture = world.render("front", 80, 60)  # and pictures are still pictures
    assert picture.shape == (60, 80, 3) and picture[row, column, 0] > 1.5 * picture[row, column, 1:].max()
    world.close()


def test_layouts_are_the_same_for_a_seed_and_leave_room(world):
    seen = set()
    for seed in range(12):
        layout = RoomLayout.random(seed)
        assert np.array_equal(layout.posts, RoomLayout.random(seed).posts)
        seen.add(tuple(layout.posts.ravel()))
        places = [*layout.posts, *layout.stands, *layout.boxes[:, :2], layout.start[:2]]
        assert min(np.hypot(*(a - b)) for a, b in combinations(places, 2)) > 0.65
        way = layout.posts - layout.start[:2]
        angles = (np.arctan2(way[:, 1], way[:, 0]) - layout.start[2] + np.pi) % (2 * np.pi) - np.pi
        assert np.abs(angles).max() <= BEARING and np.abs(places).max() < HALF_ROOM - 0.4
        for post in layout.posts:  # a box stands in the straight way
            along = (post - layout.start[:2]) / np.hypot(*(post - layout.start[:2]))
            offset = layout.boxes[:, :2] - layout.start[:2]
            across = np.abs(offset[:, 0] * along[1] - offset[:, 1] * along[0])
            assert across.min() < 0.13
    assert len(seen) == 12


def test_another_world_takes_over_where_things_are(world):
    world.reset(5)
    drive(world, (0.1, 0.0, 0.3), 0.5)
    other = RoomWorld(6)
    other.place(world.joint_positions(), world.poses())
    np.testing.assert_allclose(other.base_pose(), world.base_pose(), atol=1e-9)
    for name, pose in world.poses().items():
        np.testing.assert_allclose(other.poses()[name], pose, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(other.joint_positions()[:6], world.joint_positions()[:6])
