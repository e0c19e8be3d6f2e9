"""End-effector chunks through the executor: poses, differences, late chunks, refusals, stops."""

import numpy as np
import pytest
from control.fakes import World
from control.robots import check_path
from control.tool_robots import HOME, pose_row, so101, tool_targets, tool_world

from vla_ros.control.admission import AdmissionRules, Reason, Refusal
from vla_ros.control.supervisor import State
from vla_ros.core.chunk import ActionChunk, Part, Space, Targets
from vla_ros.core.rotations import SIZES, to_matrix

DELTA, POSE = Space.END_EFFECTOR_DELTA, Space.END_EFFECTOR_POSE
LIMITS, ARM = so101()
PLACE, ROTATION = ARM.pose(HOME)


def here(world: World) -> tuple[np.ndarray, np.ndarray]:
    return ARM.pose(world.measured)


def send(world: World, rows: object, dt: float = 0.1, age: float = 0.0, **how: object) -> ActionChunk | Refusal:
    return world.send(step_dt=dt, age=age, targets=tool_targets(rows, **how))


@pytest.mark.parametrize("form", ["euler_xyz", "quaternion_xyzw", "rotation_6d_rows"])
def test_a_pose_is_reached(form):
    world = tool_world()
    place, rotation = ARM.pose(HOME + [0.15, 0.1, -0.1, 0.1, -0.1, 0.0])
    assert isinstance(send(world, [pose_row(place, rotation, form)] * 25, form=form, gripper=0.9), ActionChunk)
    path = np.array([world.tick().position for _ in range(150)])
    end, turned = here(world)
    assert np.linalg.norm(end - place) < 1e-4 and np.linalg.norm(ARM.turn(turned, rotation)) < 1e-3
    assert world.measured[5] == 0.9 and world.executor.state[0] == State.EXECUTING
    check_path(LIMITS, 0.01, HOME, path)


def test_every_form_of_a_rotation_is_the_same_pose_with_columns_in_any_order():
    for form in SIZES:
        part = tool_targets([pose_row(PLACE, ROTATION, form)] * 3, form=form).parts[0]
        order = np.random.default_rng(0).permutation(len(part.names))
        mixed = Part(tuple(part.names[i] for i in order), part.data[:, order], POSE, "tip", "base")
        chunk = tool_world().send(targets=Targets((mixed,)))
        expected = np.concatenate([PLACE, ROTATION.ravel()])
        np.testing.assert_allclose(chunk.targets.spatial.data, [expected] * 3, atol=1e-9)


def test_a_moving_pose_is_followed_without_lag():
    world = tool_world(mode="latest", crossfade=0.0)
    place, rotation = here(world)
    rows = [pose_row(place + np.array([0.0, 0.08, 0.0]) * k * 0.1, rotation) for k in range(15)]
    assert isinstance(send(world, rows), ActionChunk)
    for _ in range(30):
        world.tick()
    for k in range(31, 130):
        world.tick()
        assert np.linalg.norm(here(world)[0] - place - np.array([0.0, 0.08, 0.0]) * k * 0.01) < 5e-4


@pytest.mark.parametrize("frame", ["base", "tip"])
def test_differences_are_summed_from_where_the_tool_was_commanded_however_late_they_arrive(frame):
    """The arm moves on between the observation and the arrival; the rows stay the same poses."""
    ends = []
    steps = np.array([[0.006, 0.002, 0.004, 0.02, -0.03, 0.01]] * 4 + [[0.0] * 6] * 4)
    for late in (0, 7, 30):
        world = tool_world(mode="latest", crossfade=0.0)
        place, rotation = here(world)
        send(world, [pose_row(place + [0.0, 0.01 * k, 0.0], rotation) for k in range(9)])
        world.tick(26)
        observed, turned = here(world)  # from the next tick on, and it is in motion
        stamp = world.now_ns
        for _ in range(late):
            world.tick()
        assert late == 0 or np.linalg.norm(here(world)[0] - observed) > 0.003
        chunk = send(world, steps, age=(world.now_ns - stamp) * 1e-9, space=DELTA, frame=frame)
        assert isinstance(chunk, ActionChunk), chunk
        rows = chunk.targets.spatial.data
        for k in range(8):
            dp, dr = steps[k, :3], to_matrix(steps[k, 3:], "vector")
            observed, turned = (observed + dp, dr @ turned) if frame == "base" else (
                observed + turned @ dp, turned @ dr)
            np.testing.assert_allclose(rows[k + 1], np.concatenate([observed, turned.ravel()]), atol=1e-9)
        world.tick(88 - late)
        ends.append(here(world)[0])
        assert np.linalg.norm(ends[-1] - observed) < 1e-3
    assert np.ptp(ends, axis=0).max() < 1e-3


@pytest.mark.parametrize(("rows", "late"), [(1, 0), (2, 0), (8, 0), (8, 7)])
def test_no_difference_is_followed_twice_however_often_chunks_come(rows, late):
    """A chunk for every second step, or every one where they have one row: the tool makes one difference a step."""
    world = tool_world(mode="latest", crossfade=0.0)
    begun, every, difference = here(world)[0], min(rows, 2), 0.004
    for _ in range(8):
        stamp = world.now_ns
        world.tick(late)
        chunk = send(world, [[0.0, difference, 0, 0, 0, 0]] * rows, age=(world.now_ns - stamp) * 1e-9, space=DELTA)
        assert isinstance(chunk, ActionChunk), chunk
        world.tick(10 * every - late)
    way = here(world)[0] - begun
    # What is missing is what the tool's acceleration takes at the start, and at each arrival that is late.
    assert 0.9 < way[1] / (8 * every * difference) < 1.01 and np.abs(way[[0, 2]]).max() < 1e-3


def test_the_observed_pose_lies_between_two_measurements_and_an_unseen_one_is_refused():
    world = tool_world()
    early = world.now_ns
    world.now_ns += 20_000_000
    world.measured = HOME + [0.02, 0, 0, 0, 0, 0]
    world.measure()
    middle = ARM.pose(HOME + [0.01, 0, 0, 0, 0, 0])[0]
    chunk = world.send(stamp_ns=early + 10_000_000, targets=tool_targets(np.zeros((10, 6)), space=DELTA))
    np.testing.assert_allclose(chunk.targets.spatial.data[0, :3], middle, atol=1e-9)
    refusal = world.send(stamp_ns=early - 400_000_000, targets=tool_targets(np.zeros((10, 6)), space=DELTA))
    assert refusal.reason == Reason.UNOBSERVED and "no joint states within 0.25 s of it, from" in refusal.text


STILL = [pose_row(PLACE, ROTATION)] * 5


def spoiled(row: int, column: int, value: float) -> np.ndarray:
    rows = np.array(STILL)
    rows[row, column] = value
    return rows


@pytest.mark.parametrize(
    ("targets", "reason", "words"),
    [
        (tool_targets(STILL, frame="world"), Reason.SPACE, "in frame 'world', expected 'base'"),
        (tool_targets(STILL, frame="tip"), Reason.SPACE, "END_EFFECTOR_POSE in frame 'tip', expected 'base'"),
        (tool_targets(STILL, DELTA, frame="x"), Reason.SPACE, "in frame 'x', expected 'base' or 'tip'"),
        (Targets((Part(("x", "y", "z"), np.array(STILL)[:, :3], POSE, "", "base"),)), Reason.SPACE,
         "expected ['x', 'y', 'z'] and a rotation, as ['x', 'y', 'z', 'vector[0]'"),
        (Targets((Part(tool_targets(STILL).parts[0].names, np.array(STILL), POSE, "left", "base"),)), Reason.SPACE,
         "of 'left', expected the robot's tool: '' or 'tip'"),
        (Targets((*tool_targets(STILL).parts, Part(tool_targets(STILL).parts[0].names, np.array(STILL), DELTA, "tip",
                                                   "base"))), Reason.SPACE, "2 parts of end effectors"),
        (Targets((*tool_targets(STILL).parts, Part(("elbow_flex",), np.zeros((5, 1))))), Reason.NAMES,
         "['elbow_flex'] beside END_EFFECTOR_POSE, which moves them too"),
        (tool_targets([np.concatenate([PLACE, np.zeros(4)])] * 5, form="quaternion_xyzw"), Reason.ROTATION,
         "quaternion: a vector of length 0"),
        (tool_targets([np.concatenate([PLACE, 1.1 * np.eye(3).ravel()])] * 5, form="matrix"), Reason.ROTATION,
         "row 0: no rotation, expected one as matrix"),
        (tool_targets([np.concatenate([PLACE, np.diag([1.0, 1, -1]).ravel()])] * 5, form="matrix"), Reason.ROTATION,
         "row 0: no rotation"),
        (tool_targets(spoiled(3, 2, 0.7)), Reason.POSITION, "tool z, row 3: 0.7 m, limits -0.02 to 0.5 with a tol"),
        (tool_targets(np.full((5, 6), 1e308), DELTA), Reason.ROTATION, "rotation as vector: its length"),
        (tool_targets(np.tile([1e308, 0, 0, 0, 0, 0], (5, 1)), DELTA, frame="tip"), Reason.POSITION,
         "differences add up to a position that is not finite"),
        (tool_targets(np.tile([0, -1e308, 0, 0, 0, 0], (5, 1)), DELTA), Reason.POSITION, "row 1: differences add up"),
        (tool_targets([np.concatenate([PLACE, [1e200] * 4])] * 5, form="quaternion_wxyz"), Reason.ROTATION,
         "quaternion: a vector of length inf"),
        (tool_targets(spoiled(0, 0, 1e308) * 0.9, DELTA), Reason.POSITION, "tool x, row 0"),
        (tool_targets(spoiled(3, 1, PLACE[1] + 0.2)), Reason.OUTLIER, "tool, row 3: 2 m/s from the row before"),
        (tool_targets(spoiled(4, 3, 1.5)), Reason.OUTLIER, "rad/s from the row before, limit 5 x 2"),
        (tool_targets(np.array(STILL) + [0, 0.2, 0, 0, 0, 0]), Reason.JUMP, "begins 0.2 m from where it is"),
    ],
)
def test_what_is_refused_and_why(targets, reason, words):
    world = tool_world()
    refusal = world.send(targets=targets)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, words in refusal.text) == (reason, True), refusal
    world.tick(10)
    assert np.array_equal(world.measured, HOME) and world.executor.admission.accepted == 0


def test_without_a_tool_a_chunk_says_why_there_is_none():
    world = World(limits=LIMITS, home=HOME, arm="its tool needs a URDF").activate()
    refusal = world.send(targets=tool_targets(STILL))
    assert str(refusal) == "space: END_EFFECTOR_POSE, expected JOINT_POSITION alone: its tool needs a URDF"


def test_out_of_reach_it_holds_as_near_as_it_gets_and_says_so():
    world = tool_world(admission=AdmissionRules(jump_limit=60.0, max_chunk_age=6.0))
    far = np.array([0.1, 0.44, 0.45])
    assert isinstance(send(world, [pose_row(far, ROTATION)] * 50), ActionChunk)
    world.tick(450)
    before = world.measured
    world.tick(20)
    assert np.abs(world.measured - before).max() < 2e-3
    left = np.linalg.norm(here(world)[0] - far)
    assert left > 0.1 and world.executor.state[0] == State.APPROACHING
    assert world.executor.hindrance == (
        f"tool: holds {left:.3f} m from its target (0.100, 0.440, 0.450) m in base, does not get nearer at present "
        "(joint limit, singularity or out of reach)")
    world.tick(60)  # the chunk is over
    assert world.executor.hindrance == "" and world.executor.state[0] == State.HOLDING


def test_two_chunks_are_blended_on_the_way_and_on_the_sphere():
    """ACT's weights over two predictions: the position is their mean, the rotation lies between theirs."""
    world = tool_world(ensemble_m=0.0)
    bent = ARM.pose(HOME + [0.0, 0.0, 0.0, 0.3, 0.0, 0.0])
    assert isinstance(send(world, [pose_row(PLACE, ROTATION)] * 20), ActionChunk)
    world.tick()
    assert isinstance(send(world, [pose_row(*bent)] * 20), ActionChunk)
    world.tick(150)
    place, rotation = here(world)
    np.testing.assert_allclose(place, (PLACE + bent[0]) / 2, atol=1e-4)
    half = ARM.pose(HOME + [0.0, 0.0, 0.0, 0.15, 0.0, 0.0])[1]
    assert np.linalg.norm(ARM.turn(rotation, half)) < 0.01


def test_an_e_stop_on_the_way_brakes_the_joints_and_nothing_goes_on_by_itself():
    world = tool_world()
    rows = [pose_row(PLACE + [0.0, 0.1, 0.0], ROTATION)] * 30
    assert isinstance(send(world, rows), ActionChunk)
    path = [world.tick().position for _ in range(25)]
    assert np.abs(path[-1] - path[-2]).max() > 1e-3
    world.executor.e_stop("test")
    path += [world.tick().position for _ in range(40)]
    assert np.array_equal(path[-1], path[-2]) and send(world, rows).reason == Reason.E_STOPPED
    check_path(LIMITS, 0.01, HOME, np.array(path))
    world.executor.reset_e_stop(world.now_ns)
    world.tick(20)
    assert np.array_equal(world.measured, path[-1])
    assert isinstance(send(world, rows), ActionChunk)
    world.tick(150)
    assert np.linalg.norm(here(world)[0] - PLACE - [0.0, 0.1, 0.0]) < 1e-4


def test_joints_and_tool_may_take_turns():
    world = tool_world(mode="latest")
    joints = HOME + [0.3, 0.0, 0.0, 0.0, 0.0, 0.2]
    assert isinstance(world.send(np.tile(joints, (4, 1))), ActionChunk)
    path = [world.tick().position for _ in range(20)]
    place, rotation = here(world)
    assert isinstance(send(world, [pose_row(place + [0.0, 0.0, 0.03], rotation)] * 10), ActionChunk)
    path += [world.tick().position for _ in range(90)]
    assert np.linalg.norm(here(world)[0] - place - [0.0, 0.0, 0.03]) < 1e-3
    assert isinstance(world.send(np.tile(HOME, (20, 1))), ActionChunk)
    path += [world.tick().position for _ in range(90)]
    np.testing.assert_allclose(world.measured, HOME, atol=1e-9)
    check_path(LIMITS, 0.01, HOME, np.array(path))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_target_that_is_no_number_is_not_followed(monkeypatch, bad):
    world = tool_world()
    assert isinstance(send(world, STILL), ActionChunk)
    target = np.concatenate([np.full(6, np.nan), PLACE + 0.05, [bad] * 9])
    monkeypatch.setattr(world.executor.blender, "target", lambda at_ns, live: (target.copy(), np.zeros(18)))
    assert np.array_equal([world.tick().position for _ in range(3)], [HOME] * 3)


def test_a_chunk_of_the_gripper_alone_leaves_the_tool_on_its_way():
    world = tool_world()
    assert isinstance(send(world, [pose_row(PLACE + [0.0, 0.05, 0.0], ROTATION)] * 20), ActionChunk)
    world.tick(10)
    assert isinstance(world.send(np.full((15, 1), 1.0), names=("gripper",)), ActionChunk)
    world.tick(120)
    assert np.linalg.norm(here(world)[0] - PLACE - [0.0, 0.05, 0.0]) < 1e-3 and world.measured[5] == 1.0


def test_a_chunk_of_the_gripper_alone_brakes_joints_that_carry_a_tool_together():
    world = tool_world(mode="latest", crossfade=0.0)
    rows = [pose_row(PLACE + [0.0, 0.02 * k, 0.0], ROTATION) for k in range(20)]
    assert isinstance(send(world, rows), ActionChunk)
    world.tick(40)
    before = world.executor.limiter.velocity[:5].copy()
    assert isinstance(world.send(np.full((15, 1), 0.6), names=("gripper",)), ActionChunk)
    speeds = []
    while (velocity := world.tick().velocity[:5]).any():
        speeds.append(velocity)
    shares = np.linalg.norm(speeds, axis=1) / np.linalg.norm(before)
    assert len(shares) > 2 and np.abs(before).max() > 0.05
    np.testing.assert_allclose(speeds, np.outer(shares, before), atol=1e-9)


@pytest.mark.parametrize("space", [POSE, DELTA])
def test_places_whose_distance_is_no_number_are_refused_without_an_overflow(space):
    world = tool_world(admission=AdmissionRules(position_excess=1e305, outlier_speed=1e300))
    rows = [pose_row(np.array([1e200 * (-1) ** k, 0.0, 0.0]), np.eye(3)) for k in range(4)]
    with np.errstate(all="raise"):
        answer = send(world, rows, dt=0.001, space=space)
    assert isinstance(answer, Refusal) and answer.reason == Reason.OUTLIER, answer
