"""A tool that is commanded in place of joints: its columns, what is followed and refused, braking, twists."""

import numpy as np
import pytest
from command_check import Bounds, CommandCheck
from control.fakes import World
from control.posed_robots import BENT, JOINTS, make_posed, posed, posed_file, posed_world
from control.test_properties import CARELESS, Run
from control.tool_robots import pose_row, seven_urdf, tool_targets
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_ros.control.admission import Reason, Refusal
from vla_ros.control.kinematics import Kinematics
from vla_ros.control.limits import Limits
from vla_ros.control.posed_tool import PosedTool, ToolTwist
from vla_ros.control.supervisor import State
from vla_ros.core.chunk import ActionChunk, Space
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.core.rotations import from_matrix, to_matrix
from vla_ros.core.tool import TOOL_COLUMNS

ARM, LIMITS = posed().arm, posed().limits
TOOL = ARM.tool


def row(place, rotation, form: str = "vector") -> np.ndarray:
    return pose_row(np.asarray(place, dtype=float), rotation, form)


def send(world, rows, space=Space.END_EFFECTOR_POSE, frame="l0", dt=0.1, **how):
    return world.send(step_dt=dt, targets=tool_targets(rows, space, frame, gripper=how.pop("gripper", None)), **how)


def turned(angle, axis=(1.0, 0.0, 0.0)) -> np.ndarray:
    return to_matrix(angle * np.array(axis), "vector")


def test_limits_are_the_tools_in_the_place_of_the_joints():
    assert LIMITS.names == (*TOOL_COLUMNS, "gripper") and LIMITS.units == ("m",) * 3 + ("rad",) * 4
    assert LIMITS.lower.tolist() == [-1.0, -1.0, -0.2, -3.5, -3.5, -3.5, 0.0]
    assert LIMITS.velocity.tolist() == [0.5] * 3 + [2.0] * 3 + [5.0]
    assert LIMITS.groups.tolist() == [0] * 6 + [1] and LIMITS.discrete.tolist() == [False] * 6 + [True]
    assert "0.5 m/s (robot file)" in LIMITS.report()["x"]


def test_the_jacobian_is_the_derivative_of_the_pose():
    rng = np.random.default_rng(0)
    for length in (0.0, 1e-5, 0.3, 2.0, 3.1, 4.5):
        values = np.concatenate([rng.normal(size=3), length * np.array([0.6, 0.0, 0.8]), [0.5]])
        _, _, jacobian = ARM.placed(values)
        for k in range(6):
            (a, first), (b, second) = (ARM.pose(values + sign * 1e-5 * np.eye(7)[k]) for sign in (-1, 1))
            slope = np.concatenate([b - a, ARM.turn(first, second)]) / 2e-5
            np.testing.assert_allclose(jacobian[:, k], slope, atol=1e-8)
        assert np.linalg.norm(jacobian[3:, 3:], 2) <= 1.0 + 1e-12  # the tool turns no faster than the columns change


def test_joint_states_in_parts_become_the_pose_as_old_as_its_oldest_joint():
    made, heard = make_posed(), []
    made.joint_state(1000, ["gripper", *JOINTS[:4]], [0.7, *BENT[:4]], 1000, lambda *values: heard.append(values))
    assert [values[:3] for values in heard] == [(1000, ["gripper"], [0.7])]
    assert "j4, j5, j6: never seen" in made.missing(1000, 0.25)
    made.joint_state(2000, JOINTS[4:], BENT[4:].tolist(), 2000, lambda *values: heard.append(values))
    stamp, names, values, _ = heard[-1]
    poses = Kinematics(seven_urdf()).poses(dict(zip(JOINTS, BENT, strict=True)))
    expected = np.linalg.inv(poses["l0"]) @ poses["l8"]
    assert (stamp, names) == (1000, TOOL_COLUMNS) and len(heard) == 2 and not made.missing(2000, 0.25)
    np.testing.assert_allclose(values, [*expected[:3, 3], 0, 0, 0], atol=1e-9)
    place, rotation = made.arm.pose(np.array([*values, 0.0]))
    np.testing.assert_allclose(rotation, expected[:3, :3], atol=1e-9)


def test_a_pose_that_a_driver_publishes_needs_no_urdf():
    data = posed_file()
    robot = RobotSpec.from_dict(data | {"tool": data["tool"] | {"pose_topic": "tool_pose"}})
    made, heard = PosedTool(robot, "", Limits.merge(robot), 0.1), []
    take = lambda *values: heard.append(values)  # noqa: E731
    made.joint_state(1000, ["gripper", "j1"], [0.7, 0.1], 1000, take)
    first, second = turned(0.3, (0.0, 0.0, 1.0)), turned(0.5, (0.6, 0.0, 0.8))
    for stamp, rotation in ((2000, first), (3000, second @ first)):
        made.pose(stamp, "l0", [0.5, 0.1, 0.7], 2 * from_matrix(rotation, "quaternion_xyzw"), stamp, take)
    assert [values[:2] for values in heard] == [(1000, ["gripper"]), (2000, TOOL_COLUMNS), (3000, TOOL_COLUMNS)]
    np.testing.assert_allclose(heard[1][2], [0.5, 0.1, 0.7, 0, 0, 0], atol=1e-9)
    np.testing.assert_allclose(heard[2][2], [0.5, 0.1, 0.7, 0.3, 0, 0.4], atol=1e-9)
    assert not made.missing(10**12, 0.25)  # of the joints: nobody needs them
    for frame, place, quaternion, words in (
        ("world", [0, 0, 0], [0, 0, 0, 1], "a pose in frame 'world', expected the tool's 'l0'"),
        ("l0", [0, np.nan, 0], [0, 0, 0, 1], "expected finite numbers"),
        ("l0", [0, 0, 0], [0, 0, 0, 0], "quaternion: a vector of length 0"),
        ("l0", [0, 0, 0], [0, np.nan, 0, 1], "quaternion: a vector of length nan"),
    ):
        with pytest.raises(InputError, match=words):
            made.pose(4000, frame, place, quaternion, 4000, take)
    assert len(heard) == 3
    with pytest.raises(InputError, match="pose_topic 'a', and no command group of pose_stamped or twist_stamped"):
        RobotSpec.from_dict(posed_file("joint_state") | {"tool": data["tool"] | {"pose_topic": "a"}})


def test_rotations_go_on_beyond_half_a_turn():
    arm, near = make_posed().arm, np.full(6, np.nan)
    for angle in np.linspace(0.0, 3.45, 40):
        near = arm.values(np.zeros(3), turned(angle, (0.0, 0.6, 0.8)), near)
        np.testing.assert_allclose(near[3:], angle * np.array([0.0, 0.6, 0.8]), atol=1e-9)


@pytest.mark.parametrize("mode", ["latest", "ensemble", "rtc"])
def test_a_pose_is_reached_straight_and_within_the_tools_limits(mode):
    world = posed_world(mode=mode)
    start, rotation = ARM.pose(world.measured)
    wanted, end = start + [0.04, -0.08, 0.05], turned(0.4, (0.0, 0.6, 0.8)) @ rotation
    assert isinstance(send(world, [row(wanted, end)] * 25, gripper=1.0), ActionChunk)
    path = np.array([world.tick().position for _ in range(150)])
    check_tool(path, world.executor.limiter.dt)
    place, last = ARM.pose(path[-1])
    assert np.linalg.norm(place - wanted) < 1e-4 and np.linalg.norm(ARM.turn(last, end)) < 1e-3
    assert world.measured[6] == 1.0 and world.executor.state[0] == State.EXECUTING
    way = (wanted - start) / np.linalg.norm(wanted - start)
    off = path[:, :3] - start - np.outer((path[:, :3] - start) @ way, way)
    assert np.abs(off).max() < 1e-6


def check_tool(path: np.ndarray, dt: float) -> None:
    """Lengths of velocities of place and rotation, and of the place's acceleration."""
    poses = [ARM.pose(row) for row in path]
    places = np.array([place for place, _ in poses])
    turns = np.array([ARM.turn(a, b) for (_, a), (_, b) in zip(poses, poses[1:], strict=False)]) / dt
    speeds = np.diff(places, axis=0) / dt
    assert np.linalg.norm(speeds, axis=1).max() <= TOOL.velocity * (1 + 1e-6)
    assert np.linalg.norm(turns, axis=1).max() <= TOOL.rotation_velocity * (1 + 1e-6)
    assert np.linalg.norm(np.diff(speeds, axis=0), axis=1).max() <= TOOL.acceleration * dt * (1 + 1e-6)


def test_differences_count_from_the_commanded_pose_also_in_the_tools_frame():
    world = posed_world(mode="latest", crossfade=0.0)
    start, rotation = ARM.pose(world.measured)
    rows = np.array([[0.01, 0.0, 0.005, 0.0, 0.02, 0.0]] * 5 + [[0.0] * 6] * 10)
    assert isinstance(send(world, rows, Space.END_EFFECTOR_DELTA, "l8"), ActionChunk)
    world.tick(140)
    for step in rows:
        start, rotation = start + rotation @ step[:3], rotation @ to_matrix(step[3:], "vector")
    place, end = ARM.pose(world.measured)
    assert np.linalg.norm(place - start) < 1e-3 and np.linalg.norm(ARM.turn(end, rotation)) < 1e-2


def test_an_e_stop_brakes_on_the_way_and_holds():
    world = posed_world()
    start, rotation = ARM.pose(world.measured)
    way = np.array([0.15, 0.1, -0.05])
    assert isinstance(send(world, [row(start + way, rotation)] * 30), ActionChunk)
    path = [world.tick().position for _ in range(30)]
    world.executor.e_stop("test")
    path += [world.tick().position for _ in range(60)]
    path = np.array(path)
    check_tool(path, 0.01)
    speed = np.linalg.norm(np.diff(path[:, :3], axis=0), axis=1) * 100
    assert speed[28] > 0.3 and (np.diff(speed[29:]) <= 1e-9).all() and not speed[60:].any()
    assert (np.diff(speed[30:])[:10] < -0.95 * TOOL.acceleration * 0.01).all()  # as hard as it may
    unit = way / np.linalg.norm(way)
    assert np.linalg.norm(path[-1, :3] - start - ((path[-1, :3] - start) @ unit) * unit) < 1e-6
    assert send(world, [row(start, rotation)] * 3).reason == Reason.E_STOPPED


@pytest.mark.parametrize("e_stop", [False, True])
@pytest.mark.parametrize("sent", [4, 30])
def test_a_chunk_without_the_tool_brakes_it_on_its_way(sent, e_stop):
    """It takes over from a motion, and from one that brakes already."""
    world = posed_world(mode="latest", crossfade=0.0)
    start, rotation = ARM.pose(world.measured)
    way = np.array([0.024, 0.02, 0.022])
    assert isinstance(send(world, [row(start + way * k, rotation) for k in range(sent)], dt=0.08), ActionChunk)
    path = [world.tick().position for _ in range(35 if sent > 4 else 27)]
    assert np.linalg.norm(path[-1][:3] - path[-2][:3]) > 0.002
    assert isinstance(world.send(np.full((20, 1), 0.6), names=("gripper",)), ActionChunk)
    path += [world.tick().position]
    if e_stop:
        world.executor.e_stop("test")
    path = np.array(path + [world.tick().position for _ in range(50)])
    check_tool(path, 0.01)
    assert (path[-1, :6] == path[-2, :6]).all() and (path[-1, 6] == 0.6) != e_stop
    unit = way / np.linalg.norm(way)
    assert np.linalg.norm(path[-1, :3] - start - ((path[-1, :3] - start) @ unit) * unit) < 1e-6


def test_the_box_bounds_the_tool_and_is_spoken_of():
    world = posed_world(admission=CARELESS)
    start, rotation = ARM.pose(world.measured)
    assert isinstance(send(world, [row(start + [0.0, 1.5, 0.0], rotation)] * 60), ActionChunk)
    path = np.array([world.tick().position for _ in range(450)])
    assert path[:, 1].max() <= 1.0 and path[-1, 1] == pytest.approx(1.0, abs=1e-6)
    assert "target y 1.600 m is outside the box, -1 to 1 m in l0" in world.executor.hindrance


@pytest.mark.parametrize("names", [("j2",), ("x",), ("turned_x", "gripper")])
def test_joints_of_the_arm_are_refused(names):
    world = posed_world()
    refusal = world.send(np.zeros((5, len(names))), names=names)
    assert isinstance(refusal, Refusal) and refusal.reason == Reason.NAMES
    assert "which the robot file commands by the pose of its tool" in refusal.text and "\n" not in refusal.text
    assert isinstance(world.send(np.full((5, 1), 0.6), names=("gripper",)), ActionChunk)


def test_a_tool_that_stays_behind_stops():
    world = posed_world(mode="latest")
    world.stuck = True
    start, rotation = ARM.pose(world.measured)
    assert isinstance(send(world, [row(start + [0.0, 0.02 * k, 0.0], rotation) for k in range(25)]), ActionChunk)
    world.tick(150)
    assert world.executor.state[0] == State.STOPPED and "joint y: commanded" in world.executor.state[2]


# Whatever comes


class PosedRun(Run):
    """Run, with poses of the tool."""

    pushed = LIMITS.lower, LIMITS.upper

    def __init__(self, **options: object) -> None:
        super().__init__(arm=ARM, limits=LIMITS, home=posed_world().measured, **options)

    def _chunk(self, kind: str, rng: np.random.Generator) -> None:
        world, horizon = self.world, int(rng.integers(1, 25))
        dt, space = float(rng.choice([0.02, 0.1, 0.5])), Space(rng.integers(1, 3))
        place, rotation = ARM.pose(world.executor.limiter.position)
        steps = rng.normal(size=(horizon, 3)) * (3.0 if kind == "wild" else 0.3) * dt
        turns = to_matrix(rng.normal(size=(horizon, 3)) * (6.0 if kind == "wild" else 1.0) * dt, "vector")
        if space == Space.END_EFFECTOR_POSE:
            steps = place + np.cumsum(steps, axis=0)
            for k in range(horizon):
                turns[k] = rotation = turns[k] @ rotation
        rows = np.concatenate([steps, from_matrix(turns, "vector")], axis=1)
        frame = str(rng.choice(["l0", "l8"])) if space == Space.END_EFFECTOR_DELTA else "l0"
        send(world, rows, space, frame, dt, gripper=rng.choice([None, 0.2, 0.9]))


KINDS = ["tick"] * 10 + ["chunk"] * 8 + ["wild"] * 6 + ["stall", "leap", "say", "joints", "rival", "e_stop", "restart",
                                                        "push"]


def test_no_order_of_events_breaks_the_tools_limits():
    moved = []

    @settings(max_examples=8)
    @given(
        script=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 2**20)), min_size=10, max_size=30),
        rate=st.sampled_from([25.0, 100.0]),
        mode=st.sampled_from(["ensemble", "latest", "rtc"]),
    )
    def scripts(script, rate, mode):
        run = PosedRun(rate=rate, mode=mode, admission=CARELESS, following_limit=0.0)
        for event, seed in script:
            run.apply(event, seed)
        run.apply("tick", 29)
        run.check()  # of each column by itself
        for _, commands in run.pieces:
            steady, _, path, _ = map(np.array, zip(*commands, strict=True))
            gap = np.diff(steady) * 1e-9
            speeds = np.linalg.norm(np.diff(path[:, :3], axis=0), axis=1) / gap
            assert (speeds <= TOOL.velocity * (1 + 1e-6) + 1e-9).all()
            turns = [ARM.turn(ARM.pose(a)[1], ARM.pose(b)[1]) for a, b in zip(path, path[1:], strict=False)]
            assert (np.linalg.norm(np.reshape(turns, (-1, 3)), axis=1) / gap
                    <= TOOL.rotation_velocity * (1 + 1e-3)).all()  # a step is an arc, its bound a tangent
            moved.append(np.ptp(path[:, :3], axis=0).max())

    scripts()
    assert max(moved) > 0.3


# Twists


def test_a_twist_drives_a_lagging_tool_to_the_pose_and_is_zero_when_it_holds_or_stops():
    """A controller that integrates twists, late and slowly."""
    made, world = make_posed("twist_stamped"), posed_world(mode="latest", joint_state_timeout=10.0)
    world.stuck, speed, twists = True, np.zeros(6), []
    made.joint_state(1, JOINTS, BENT.tolist(), 1, lambda *values: None)
    start, rotation = ARM.pose(world.measured)

    def tick() -> None:
        command = world.tick()
        twists.append(made.values(command, world.executor.joint_states.position))
        np.copyto(speed, speed + 0.01 / 0.08 * (twists[-1] - speed))  # lags by 80 ms
        world.measured[:3] += 0.9 * speed[:3] * 0.01  # and is slower than it is asked to be
        place, turn = ARM.pose(world.measured)
        world.measured[:6] = ARM.values(place, to_matrix(speed[3:] * 0.01, "vector") @ turn, world.measured[:6])

    tick()
    assert not twists[-1].any()
    wanted, end = start + [0.06, 0.03, -0.03], turned(0.3) @ rotation
    for _ in range(6):
        assert isinstance(send(world, [row(wanted, end)] * 8), ActionChunk)
        for _ in range(60):
            tick()
    place, turn = ARM.pose(world.measured)
    assert np.linalg.norm(place - wanted) < 2e-3 and np.linalg.norm(ARM.turn(turn, end)) < 1e-2
    assert isinstance(send(world, [row(start, rotation)] * 20), ActionChunk)
    for _ in range(25):
        tick()
    assert np.linalg.norm(twists[-1][:3]) > 0.1
    world.executor.e_stop("test")
    for _ in range(60):
        tick()
    assert not twists[-1].any() and made.at_rest
    lengths = np.array([np.linalg.norm(np.reshape(twist, (2, 3)), axis=1) for twist in twists])
    assert (lengths <= np.array([TOOL.velocity, TOOL.rotation_velocity]) * (1 + 1e-9)).all()
    changes = np.linalg.norm(np.diff(np.array(twists).reshape(-1, 2, 3), axis=0), axis=2)
    assert (changes <= np.array([TOOL.acceleration, TOOL.rotation_acceleration]) * 0.01 * (1 + 1e-6)).all()
    assert (np.diff(lengths[-60:], axis=0) <= 1e-12).all()


def test_a_twist_for_the_same_instant_is_the_same_and_a_halt_is_zero():
    twist = ToolTwist(TOOL, 0.01)
    first = twist.next(50, np.array([1.0, 0, 0, 0, 0, 0]), 5.0)
    assert first.tolist() == [0.02, 0, 0, 0, 0, 0] and twist.next(50, np.ones(6), 0.01) is first and not twist.at_rest
    assert twist.next(20_000_050, np.array([1.0, 0, 0, 0, 0, 0]), 0.02)[0] == pytest.approx(0.06)
    assert not twist.halt().any() and twist.at_rest


def lagging() -> tuple:
    """Tool and world of twists, 0.1 m behind: the command is at rest, the twist is not."""
    made, world = make_posed("twist_stamped"), posed_world(mode="latest", crossfade=0.0)
    world.stuck = True
    made.joint_state(1, JOINTS, BENT.tolist(), 1, lambda *values: None)
    start, rotation = ARM.pose(world.measured)
    assert isinstance(send(world, [row(start + [0.0, 0.1, 0.0], rotation)] * 10), ActionChunk)
    command = world.tick()
    while command.following or not world.executor.at_rest:
        twist = made.values(command, world.executor.joint_states.position)
        command = world.tick()
    assert twist[1] > 0.15 and not made.at_rest
    return made, world


@pytest.mark.parametrize("leap", [0.008, 0.5, -0.008, -0.5])
def test_a_clock_that_is_set_leaves_the_twists_acceleration_as_it_is(leap):
    made, world = lagging()
    twists = [made.values(world.tick(leap=leap if k == 1 else 0.0), world.executor.joint_states.position)[1]
              for k in range(30)]
    changes = np.abs(np.diff(twists))
    assert changes.max() <= TOOL.acceleration * 0.01 * (1 + 1e-6)
    assert not any(twists[-15:]) and any(twists[:6])


def test_another_commander_brakes_a_twist_before_it_falls_silent():
    made, world = lagging()
    world.executor.rivals(["other"], world.now_ns)
    twists = []
    while not made.at_rest:
        assert world.tick() is None
        twists.append(made.brake(world.now_ns, world.executor.interval)[1])
    np.testing.assert_allclose(np.diff(twists[:-1]), -TOOL.acceleration * 0.01)
    assert len(twists) > 5 and twists[-1] == 0.0


def test_a_tool_of_twists_that_stayed_behind_is_found_again_where_it_is():
    """A robot that does exactly what twists say, blocked for a while."""
    made = make_posed("twist_stamped")
    home = np.array([0.6, 0.1, 0.8, 0.0, 0.0, 0.0, 0.5])
    world = World(arm=made.arm, limits=made.limits, home=home, mode="latest", crossfade=0.0).activate()
    world.stuck = True
    made.joint_state(1, JOINTS, BENT.tolist(), 1, lambda *values: None)

    def run(count: int, blocked: bool = False) -> None:
        for _ in range(count):
            twist = made.values(world.tick(), world.executor.joint_states.position)
            world.measured[:3] += 0.0 if blocked else twist[:3] * 0.01

    start, rotation = made.arm.pose(world.measured)
    send(world, [row(start + [0.0, 0.045 * k, 0.0], rotation) for k in range(15)])
    run(90, blocked=True)
    assert world.executor.state[0] == State.STOPPED and made.at_rest
    where = world.measured.copy()
    run(70)
    assert world.executor.state[0] == State.HOLDING
    np.testing.assert_allclose(world.measured, where)
    np.testing.assert_allclose(world.executor.limiter.position[:6], where[:6], atol=0.006)
    assert isinstance(send(world, [row(start + [0.0, 0.05, 0.0], rotation)] * 20), ActionChunk)
    run(150)
    assert world.executor.state[0] == State.EXECUTING and world.measured[1] == pytest.approx(start[1] + 0.05, abs=2e-3)


# Robot files


def spoiled(**change: object) -> dict:
    data = posed_file()
    data["groups"][0] |= change.pop("group", {})
    return {key: value for key, value in (data | change).items() if value is not None}


@pytest.mark.parametrize(("data", "words"), [
    (spoiled(tool=None), "group arm: interface pose_stamped, and the robot file has no `tool`"),
    (spoiled(group={"interface": "pose"}), "interface 'pose', expected one of"),
    (spoiled(groups=[{"name": "arm", "topic": "t", "interface": "twist_stamped", "joints": JOINTS[:5]},
                     {"name": "b", "topic": "u", "interface": "joint_state", "joints": [*JOINTS[5:], "gripper"]}]),
     "interface twist_stamped with 5 joints, expected six or more"),
    (spoiled(groups=[{"name": "arm", "topic": "t", "interface": "pose_stamped", "joints": [*JOINTS, "gripper"]}]),
     "with discrete joints ['gripper'], expected them in a group of their own"),
    (spoiled(group={"stamp": "now"}), "stamp 'now' with interface pose_stamped"),
    *((spoiled(tool=posed_file()["tool"] | {"pose_topic": topic},
               streams=[{"name": "wrench", "topic": "ft", "type": "geometry_msgs/msg/WrenchStamped"}]),
       f"tool: pose_topic '{topic}' is a topic of {what} too")
      for topic, what in (("arm/target", "commands"), ("hand/command", "commands"), ("joint_states", "joint states"),
                          ("ft", "streams of another type"))),
])
def test_robot_files_that_contradict_themselves_are_refused(data, words):
    with pytest.raises(InputError) as caught:
        RobotSpec.from_dict(data)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_urdf_that_is_missing_or_moves_the_tool_by_other_joints_is_refused():
    robot = RobotSpec.from_dict(posed_file())
    with pytest.raises(InputError, match="interface pose_stamped needs the robot's URDF, by the parameter urdf"):
        PosedTool(robot, "", Limits.merge(robot), 0.1)
    short = RobotSpec.from_dict(posed_file() | {"tool": posed_file()["tool"] | {"link": "l6"}})
    with pytest.raises(InputError, match=r"commands \['j0', .*expected the joints that move the tool, \['j0', 'j1'"):
        PosedTool(short, seven_urdf(), Limits.merge(short), 0.1)


def test_the_check_that_knows_nothing_of_the_limiter_finds_nothing():
    names = LIMITS.names
    joints = [{"name": n, "lower": LIMITS.lower[i], "upper": LIMITS.upper[i], "velocity": LIMITS.velocity[i],
               "acceleration": LIMITS.acceleration[i], "unit": LIMITS.units[i]} for i, n in enumerate(names)]
    check = CommandCheck(Bounds.of({"control_rate": 100.0, "joints": joints}))
    run, rng = PosedRun(mode="latest", crossfade=0.0, admission=CARELESS), np.random.default_rng(3)
    check.begin(run.world.measured)
    for _ in range(20):
        run._chunk(str(rng.choice(["chunk", "wild"])), rng)
        for _ in range(25):
            command = run.world.tick()
            check.add(command.position, command.stamp_ns, run.world.steady_ns)
    check.end()
    assert check.commands == 500 and check.moving > 250 and not check.violations, check.first
