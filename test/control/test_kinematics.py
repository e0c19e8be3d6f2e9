"""Forward kinematics over a URDF, against MuJoCo's and against poses known by hand."""

import numpy as np
import pytest

from vla_ros.control.kinematics import Kinematics, quaternion
from vla_ros.control.urdf import load_urdf
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.sim.description import urdf
from vla_ros.sim.robot import LOWER, UPPER
from vla_ros.sim.world import World


def robot(*joints: str, links: str = "abc") -> str:
    return f"<robot name='r'>{''.join(f'<link name={link!r}/>' for link in links)}{''.join(joints)}</robot>"


def joint(name: str, parent: str, child: str, kind: str = "revolute", inner: str = "") -> str:
    return (
        f"<joint name='{name}' type='{kind}'><parent link='{parent}'/><child link='{child}'/>"
        f"<limit lower='-1' upper='1' velocity='1'/>{inner}</joint>"
    )


def test_the_simulated_arm_is_where_mujoco_has_it():
    world = World()
    tree = Kinematics(urdf(world.model, "so101"))
    rng = np.random.default_rng(0)
    rows = rng.uniform(LOWER, UPPER, (20, 6))
    found = tree.poses(dict(zip(world.joint_names, rows.T, strict=True)))
    cameras = {f"{name}_camera": name for name in world.cameras}
    for row, position in enumerate(rows):
        world.reset(joints=position)
        for link, poses in found.items():
            if link in cameras:
                _, expected = world.pinhole(cameras[link])
            elif link == "tip":
                expected = np.eye(4)
                expected[:3, :3] = world.data.body("hand").xmat.reshape(3, 3)
                expected[:3, 3] = world.tip_position()
            else:
                expected = np.eye(4)
                expected[:3, :3] = world.data.body(link).xmat.reshape(3, 3)
                expected[:3, 3] = world.data.body(link).xpos
            pose = poses if poses.ndim == 2 else poses[row]
            np.testing.assert_allclose(pose, expected, atol=1e-6, err_msg=f"{link} in row {row}")


def test_the_simulated_arms_description_fits_its_robot_file():
    limits, joints = load_urdf(urdf(World().model, "so101")), RobotSpec.load("so101").joints
    for joint_ in joints:
        assert limits[joint_.name].lower == pytest.approx(joint_.lower, abs=1e-5)
        assert limits[joint_.name].upper == pytest.approx(joint_.upper, abs=1e-5)
        assert limits[joint_.name].velocity > joint_.velocity
    assert set(limits) == {joint_.name for joint_ in joints}


def test_prismatic_and_mimic_joints_and_joints_that_nobody_knows():
    tree = Kinematics(
        robot(
            joint("slide", "a", "b", "prismatic", f"<origin xyz='1 0 0' rpy='0 0 {np.pi / 2}'/><axis xyz='0 2 0'/>"),
            joint("other", "b", "c", "prismatic", "<mimic joint='slide' multiplier='-2' offset='0.5'/>"),
            joint("turn", "c", "d"),
            links="abcd",
        )
    )
    poses = tree.poses({"slide": np.array([0.0, 0.1])})
    np.testing.assert_allclose(poses["b"][1, :3, 3], [0.9, 0.0, 0.0], atol=1e-12)  # y of the turned frame is -x
    np.testing.assert_allclose(poses["c"][:, :3, 3], [[1.0, 0.5, 0.0], [0.9, 0.3, 0.0]], atol=1e-12)
    np.testing.assert_allclose(poses["d"], poses["c"], atol=1e-12)
    assert tree.root == "a"


def test_tips_are_the_links_furthest_from_the_last_joints():
    tree = Kinematics(urdf(World().model, "so101"))
    arm = [joint_.name for joint_ in RobotSpec.load("so101").joints if not joint_.discrete]
    assert tree.tips(arm) == ["tip"] and tree.tips([*arm, "gripper"]) == ["jaw"] and tree.tips(["nothing"]) == []
    two = [joint(side + name, parent, side + child, inner=f"<origin xyz='0 0 {z}'/>") for side in "lr"
           for name, parent, child, z in (("1", "a", "b", 0), ("2", side + "b", "c", 1), ("cam", side + "c", "d", 0.1))]
    links = ["a", *(side + link for side in "lr" for link in "bcd")]
    assert sorted(Kinematics(robot(*two, links=links)).tips(["l1", "l2", "r1"])) == ["ld", "rd"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (robot(joint("one", "a", "b"), joint("two", "c", "b")), "link b is the child of two joints"),
        (robot(joint("one", "a", "b")), "links without a parent: ['a', 'c'], expected one"),
        (robot(joint("one", "b", "c"), joint("two", "c", "b")), "links in a ring, expected a tree"),
        (robot(joint("one", "a", "x")), "joint one: link 'x', expected one of the file's"),
        (robot(joint("one", "a", "b", inner="<axis xyz='0 0 0'/>"), joint("two", "b", "c")), "expected a direction"),
        (robot(joint("one", "a", "b", inner="<origin xyz='0 nan 0'/>"), joint("two", "b", "c")), "three numbers"),
        (robot(joint("one", "a", "b", inner="<mimic joint='x' offset='y'/>"), joint("two", "b", "c")), "offset 'y'"),
        (robot(links=[f"l{i}" for i in range(2001)]), "2001 links, expected at most 2000"),
    ],
)
def test_what_is_no_tree_is_refused(text, said):
    with pytest.raises(InputError) as error:
        Kinematics(text)
    assert said in str(error.value)


def test_quaternions_of_all_rotations():
    rng = np.random.default_rng(1)
    for x, y, z, w in [*rng.normal(size=(50, 4)), *np.eye(4)]:
        q = np.array([x, y, z, w]) / np.linalg.norm([x, y, z, w])
        x, y, z, w = q
        rotation = np.array(
            [[1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
             [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
             [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]]
        )  # fmt: skip
        assert abs(quaternion(rotation) @ q) == pytest.approx(1.0)
