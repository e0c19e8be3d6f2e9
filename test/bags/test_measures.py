"""Chunks of a tool beside recorded joints: errors that are known."""

from dataclasses import replace

import numpy as np
import pytest
from bags.factory import NS, ROBOT, START, messages, write_bag
from control.robots import driving
from control.tool_robots import SO101, so101, so101_urdf

from vla_ros.bags.episodes import CutOptions
from vla_ros.bags.evaluate import evaluate
from vla_ros.bags.measures import JointMeasure, ToolMeasure, measure_of
from vla_ros.core.chunk import Part, Space, Targets
from vla_ros.core.errors import InputError
from vla_ros.core.rotations import from_matrix, to_matrix
from vla_ros.core.tool import Tool, pose_names

LIMITS, ARM = so101()
START_AT = np.array([0.2, -0.9, 0.8, 0.9, 0.3, 0.5])
WAY = START_AT + np.linspace(0.0, 1.0, 6)[:, None] * [0.2, 0.1, -0.1, 0.2, 0.3, 0.4]


def poses(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = [ARM.pose(row) for row in rows]
    return np.array([place for place, _ in found]), np.array([rotation for _, rotation in found])


def chunk(place, rotation, space=Space.END_EFFECTOR_POSE, frame="base", form="euler_xyz", gripper=None) -> Targets:
    part = Part(pose_names(form), np.concatenate([place, from_matrix(rotation, form)], axis=1), space, "", frame)
    return Targets((part,) if gripper is None else (part, Part(("gripper",), gripper[:, None])))


def test_poses_that_were_executed_have_no_error_and_others_theirs():
    measure = ToolMeasure(SO101, so101_urdf())
    assert measure.names == ("tool", "tool rotation", "gripper") and measure.units == ("m", "rad", "rad")
    assert measure.ranges[:2] == pytest.approx([np.linalg.norm([0.9, 0.9, 0.52]), np.pi])
    place, rotation = poses(WAY)
    executed = measure.rows(WAY)
    same = measure.predicted(chunk(place, rotation, gripper=WAY[:, 5]), START_AT)
    np.testing.assert_allclose(measure.errors(same, executed), 0.0, atol=1e-7)
    turn = to_matrix(np.array([0.0, 0.1, 0.0]), "vector")
    other = measure.predicted(chunk(place + [0.03, 0.0, 0.04], turn @ rotation), START_AT)  # the gripper stays
    found = measure.errors(other, executed)
    np.testing.assert_allclose(found[:, :2], [[0.05, 0.1]] * 6, atol=1e-7)
    np.testing.assert_allclose(found[:, 2], WAY[:, 5] - START_AT[5], atol=1e-9)
    joints = measure.predicted(Targets((Part(SO101.joint_names, WAY),)), START_AT)  # a policy of joints beside it
    np.testing.assert_allclose(measure.errors(joints, executed), 0.0, atol=1e-7)


@pytest.mark.parametrize("frame", ["base", "tip"])
def test_differences_count_from_the_measured_pose(frame):
    measure = ToolMeasure(SO101, so101_urdf())
    place, rotation = poses(np.concatenate([START_AT[None], WAY]))
    before = rotation[:-1].swapaxes(1, 2)
    steps = np.diff(place, axis=0)
    own = frame == "tip"
    moved = np.einsum("hij,hj->hi", before, steps) if own else steps
    turned = before @ rotation[1:] if own else rotation[1:] @ before
    rows = measure.predicted(chunk(moved, turned, Space.END_EFFECTOR_DELTA, frame, "matrix"), START_AT)
    executed = measure.rows(np.concatenate([START_AT[None], WAY[:-1]]))  # each difference takes a step
    np.testing.assert_allclose(measure.errors(rows, executed)[:, :2], 0.0, atol=1e-7)


URDF = """<robot name="two"><link name="base"/><link name="arm"/><link name="tip"/>
<joint name="a" type="revolute"><parent link="base"/><child link="arm"/><axis xyz="0 0 1"/>
<limit lower="-2" upper="2" velocity="1" effort="1"/></joint>
<joint name="mount" type="fixed"><parent link="arm"/><child link="tip"/><origin xyz="0.5 0 0"/></joint></robot>"""
TOOL = Tool("tip", "base", (-1.0, -1.0, -1.0), (1.0, 1.0, 1.0), 1.0, 1.0, 1.0, 1.0)


class Circle:
    """Knows the joint `a` of the recorded commands, and says the poses that it gives, a little higher."""

    name, step_dt, n_obs_steps, paced = "circle", 0.1, 1, False

    def __init__(self, measure: JointMeasure) -> None:
        self.measure = measure

    def begin(self) -> None:
        pass

    def predict(self, steps, seed):
        t = (steps[-1].stamp_ns - START) / NS + 0.1 * np.arange(4)
        angle = np.sin(t) + 0.1
        place = np.stack([0.5 * np.cos(angle), 0.5 * np.sin(angle), np.full(4, 0.02)], axis=1)
        rotation = to_matrix(np.stack([0 * angle, 0 * angle, angle], axis=1), "vector")
        return self.measure.predicted(chunk(place, rotation), steps[-1].state)


def test_a_bag_is_judged_in_the_tools_space(tmp_path):
    robot = replace(ROBOT, tool=TOOL)
    measure = ToolMeasure(robot, URDF)
    bag = write_bag(tmp_path / "bag", messages(3.0))
    (one, hold), problems = evaluate([bag], robot, [Circle(measure)], CutOptions(by="whole", instruction="all"),
                                     measure=measure)
    assert not problems and one.joint_names[:2] == ("tool", "tool rotation") and one.units[:2] == ("m", "rad")
    assert one.per_joint[:2] == pytest.approx([0.02, 0.0], abs=1e-5)
    assert hold.per_joint[0] > 0.02 and len(one.errors) == len(hold.errors) > 20


def test_what_is_missing_is_named():
    assert isinstance(measure_of(SO101, [], None), JointMeasure)


def test_a_base_that_a_chunk_says_nothing_of_stands():
    measure, state = JointMeasure(driving()), np.array([0.3, 0.2, -0.4])
    targets = Targets((Part(("turn",), np.array([[0.5], [0.6]])),))
    assert measure.predicted(targets, state).tolist() == [[0.5, 0.0, 0.0], [0.6, 0.0, 0.0]]
    assert measure.held(state).tolist() == [0.3, 0.0, 0.0]
    with pytest.raises(InputError, match="^x: its actions are a tool's, expected --urdf FILE"):
        measure_of(SO101, ["x"], None)
    with pytest.raises(InputError, match="no `tool` in the robot file"):
        ToolMeasure(replace(SO101, tool=None), so101_urdf())
    with pytest.raises(InputError, match=r"joints \['a'\] move the tool, expected joints of robot"):
        ToolMeasure(replace(SO101, tool=TOOL), URDF)
