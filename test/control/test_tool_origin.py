"""From where differences of the tool count: the command for the chunk's stamp, measurements where there was none."""

import numpy as np
import pytest
from control.fakes import World
from control.tool_robots import HOME, pose_row, so101, tool_targets, tool_world

from vla_ros.control.admission import Reason
from vla_ros.control.tool_chunks import ToolChunks
from vla_ros.core.chunk import ActionChunk, Space
from vla_ros.messages.stamps import NS

DELTA = Space.END_EFFECTOR_DELTA
LIMITS, ARM = so101()
SAG = np.array([0.0, 0.02, 0.0, 0.0, 0.0, 0.0])  # rad
AWAY = np.array([0.1, 0.1, -0.1, 0.1, 0.0, 0.0])  # rad


def first_row(world: World, stamp_ns: int) -> np.ndarray:
    """(3,) m where zero differences of that stamp are."""
    world.sequence += 1
    chunk = world.send(stamp_ns=stamp_ns, targets=tool_targets(np.zeros((20, 6)), DELTA))
    assert isinstance(chunk, ActionChunk), chunk
    return chunk.targets.spatial.data[0, :3]


def sagging(world: World, ticks: int) -> np.ndarray:
    """(J,) the last command; after each one the arm is measured below it."""
    for _ in range(ticks):
        command = world.tick().position.copy()
        world.measured = command + SAG
    return command


@pytest.mark.parametrize(("mode", "frame"), [("ensemble", "base"), ("latest", "tip")])
def test_chunks_of_no_difference_do_not_let_a_sagging_arm_down(mode, frame):
    world = tool_world(mode=mode, rate=50.0)
    world.stuck = True
    at = sagging(world, 1)
    assert ARM.pose(HOME + SAG)[0][2] < ARM.pose(HOME)[0][2] - 0.001  # that is down
    for _ in range(40):
        chunk = world.send(targets=tool_targets(np.zeros((5, 6)), DELTA, frame, gripper=0.5))
        assert isinstance(chunk, ActionChunk), chunk
        np.testing.assert_allclose(sagging(world, 10), at, atol=1e-9)


def test_between_two_commands_they_count_from_a_line_and_after_the_last_one_from_there():
    world = tool_world(mode="latest", crossfade=0.0)
    world.send(np.tile(HOME + AWAY, (20, 1)))
    world.tick(10)
    stamp, before = world.now_ns, world.measured.copy()
    world.tick()
    after = world.measured.copy()
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(first_row(world, stamp + 5_000_000), ARM.pose((before + after) / 2)[0], atol=1e-9)
    np.testing.assert_allclose(first_row(world, world.now_ns + 3_000_000), ARM.pose(after)[0], atol=1e-9)


def test_where_nothing_was_commanded_they_count_from_where_the_arm_was_measured():
    world = tool_world()
    world.stuck = True
    begun = world.now_ns
    sagging(world, 5)
    np.testing.assert_allclose(first_row(world, begun), ARM.pose(HOME)[0], atol=1e-9)  # before the first command
    world.executor.deactivate()
    world.measured = HOME + AWAY  # by hand
    world.now_ns += NS
    world.steady_ns += NS
    world.measure()
    world.activate()
    np.testing.assert_allclose(first_row(world, world.now_ns), ARM.pose(HOME + AWAY)[0], atol=1e-9)


def test_while_another_one_commands_they_count_from_where_the_arm_was_measured():
    world = tool_world()
    world.tick(5)
    world.executor.rivals(["/other"], world.now_ns)
    world.tick(5)
    world.stuck, world.measured = True, HOME + AWAY
    world.tick(100)
    world.executor.rivals([], world.now_ns)
    np.testing.assert_allclose(first_row(world, world.now_ns), ARM.pose(HOME + AWAY)[0], atol=1e-9)


@pytest.mark.parametrize("back", [0.3, 500.0])
@pytest.mark.parametrize("active", [False, True])
def test_time_that_was_set_back_does_not_hide_what_comes_after(back, active):
    world = tool_world()
    world.tick(10)
    if not active:
        world.executor.deactivate()
    world.now_ns -= round(back * NS)
    world.measured = HOME + AWAY
    if active:
        world.tick(100)  # it comes to rest, and stands at its last command
        world.executor.deactivate()
    for _ in range(30):
        world.now_ns += world.period_ns
        world.steady_ns += world.period_ns
        world.measure()
    world.activate()
    at = world.measured.copy()
    world.tick(2)
    np.testing.assert_allclose(first_row(world, world.now_ns - 50_000_000), ARM.pose(at)[0], atol=1e-9)


def test_commands_after_time_was_set_back_replace_those_of_the_future():
    chunks = ToolChunks(ARM, 0.25, 4.0, 0.1)
    for k in range(10):
        chunks.commanded(10 * NS + k, HOME)
    chunks.commanded(9 * NS, HOME + AWAY)
    np.testing.assert_array_equal(chunks.start(10 * NS), HOME + AWAY)


@pytest.mark.parametrize("pieces", [[range(3), range(3, 6)], [[i] for i in range(6)], [range(3, 6), range(3)]])
def test_joint_states_in_several_messages_of_one_stamp_are_one_measurement(pieces):
    world, path = tool_world(), {}
    for k in range(1, 20):
        world.now_ns += 20_000_000
        path[world.now_ns] = HOME + 0.01 * k * np.array([1.0, 1.0, -1.0, 1.0, 0.5, 0.0])
        for piece in pieces:
            names = [world.names[i] for i in piece]
            world.measure(names=names, position=[path[world.now_ns][i] for i in piece])
    for stamp in list(path)[-8:-1]:
        np.testing.assert_allclose(first_row(world, stamp), ARM.pose(path[stamp])[0], atol=1e-9)
    assert world.send(stamp_ns=world.now_ns - NS, targets=tool_targets(np.zeros((20, 6)), DELTA)).reason == (
        Reason.UNOBSERVED)


def turning(*chunks: str) -> tuple[list[float], float]:
    """Positions of the first joint after each chunk, followed for 0.5 s, and its velocity at the end.

    Joints turn it to the left, poses to the right; `gripper` says nothing of it.
    """
    world, at = tool_world(mode="ensemble", rate=50.0), []
    for what in chunks:
        if what == "gripper":
            sent = world.send(np.full((40, 1), 0.8), names=("gripper",))
        elif what == "joints":
            sent = world.send(world.measured + np.outer(np.arange(40), [-0.02, 0.0, 0.0, 0.0, 0.0, 0.0]))
        elif what == "elbow":
            sent = world.send(np.full((40, 1), world.measured[2]), names=("elbow_flex",))
        else:
            (place, rotation), to = ARM.pose(world.measured), np.array([0.0, -0.004, 0.0])
            away = ARM.pose(world.measured + [0.01, 0, 0, 0, 0, 0])[0] - place
            to = to if away @ to > 0 else -to
            sent = world.send(targets=tool_targets([pose_row(place + to * k, rotation) for k in range(30)]))
        assert isinstance(sent, ActionChunk), sent
        world.tick(25)
        at.append(world.measured[0])
    return at, world.executor.limiter.velocity[0]


@pytest.mark.parametrize(("first", "second", "sign"), [("joints", "pose", 1.0), ("pose", "joints", -1.0)])
def test_a_chunk_of_the_gripper_alone_revives_no_chunk_of_the_other_space(first, second, sign):
    at, velocity = turning(first, second, "gripper")
    assert sign * (at[2] - at[1]) > 0.03 and sign * velocity > 0.05


def test_joints_that_were_overtaken_by_a_pose_stay_so_when_one_of_them_is_spoken_of():
    at, velocity = turning("joints", "pose", "elbow")
    assert at[2] > at[1] - 1e-9 and velocity == 0.0
