"""The simulated robot: deterministic, within its limits, and a cube is held by friction alone."""

from pathlib import Path

import numpy as np
import pytest

from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.sim import robot
from vla_ros.sim.kinematics import forward, inverse
from vla_ros.sim.layout import BEARING, GAP, RADII, Layout
from vla_ros.sim.robot import GRIPPER_CLOSED, GRIPPER_OPEN, PAN_ORIGIN
from vla_ros.sim.world import HOME, World

ROBOT_FILE = Path(__file__).parents[2] / "config" / "robots" / "so101.yaml"


def test_robot_file_has_the_simulated_joints_and_limits():
    spec = RobotSpec.load(ROBOT_FILE)
    assert spec.joint_names == robot.JOINTS
    np.testing.assert_allclose([joint.lower for joint in spec.joints], robot.LOWER)
    np.testing.assert_allclose([joint.upper for joint in spec.joints], robot.UPPER)
    assert spec.camera_names == World.cameras
    assert spec.control_rate * World.control_period == pytest.approx(1.0)


def test_same_seed_and_commands_give_the_same_run():
    def run() -> np.ndarray:
        world = World(7)
        rng = np.random.default_rng(0)
        command = HOME.copy()
        rows = []
        for _ in range(60):
            command = command + rng.normal(0, 0.02, 6)
            world.step(command)
            rows.append(np.concatenate([world.joint_positions(), *world.cube_positions().values()]))
        return np.array(rows)

    np.testing.assert_array_equal(run(), run())


def test_layouts_are_reachable_apart_and_differ():
    seen = set()
    for seed in range(200):
        layout = Layout.random(seed)
        offset = layout.places - np.array(PAN_ORIGIN[:2])
        radius, bearing = np.hypot(*offset.T), np.arctan2(offset[:, 1], offset[:, 0])
        assert (radius >= RADII[0]).all() and (radius <= RADII[1]).all() and (np.abs(bearing) <= BEARING).all()
        assert min(np.linalg.norm(layout.places[i] - layout.places[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > GAP
        seen.add(tuple(layout.places.ravel()))
        for place in layout.places:
            for height in (0.014, 0.09):
                target = np.array([*place, height])
                np.testing.assert_allclose(forward(inverse(target, 0.3)).position, target, atol=1e-6)
    assert len(seen) == 200


def test_kinematics_agree_with_the_model():
    world = World()
    for position in ([0.2, 0.1, 0.05], [0.27, -0.05, 0.014], [0.18, -0.12, 0.12]):
        world.reset(0, np.append(inverse(np.array(position), 0.4), 0.1))
        np.testing.assert_allclose(world.tip_position(), position, atol=2e-4)


def test_commands_beyond_the_limits_stop_at_them_and_bad_ones_are_refused():
    world = World()
    world.step(np.full(6, 100.0))
    np.testing.assert_allclose(world.data.ctrl, robot.UPPER)
    before = world.time
    for bad in (np.zeros(5), [0, 0, 0, 0, 0, np.nan]):
        with pytest.raises(InputError, match="joint targets"):
            world.step(bad)
    assert world.time == before


def test_diverged_physics_is_an_error_not_a_reset():
    world = World()
    world.step(HOME)
    world.data.qvel[0] = np.inf
    with pytest.raises(RuntimeError, match="diverged at"):
        world.step(HOME)


def test_missing_graphics_are_named(monkeypatch):
    def broken(*_):
        raise AttributeError("'NoneType' object has no attribute 'eglQueryString'")

    monkeypatch.setattr("mujoco.Renderer", broken)
    with pytest.raises(InputError, match="libegl1"):
        World().render("front")


def _grasp_and_lift(friction: float) -> tuple[World, float]:
    """Close on the red cube, lift 7 cm, hold 1 s; the height of the cube at the end, m."""
    world = World(friction=friction)
    layout = Layout(np.array([[0.23, 0.0], [0.2, 0.15], [0.2, -0.15]]), np.zeros(3))
    grasp = np.append(inverse(np.array([0.217, 0.0, 0.014]), 0.0), GRIPPER_OPEN)
    world.reset(joints=grasp, layout=layout)
    lifted = np.append(inverse(np.array([0.217, 0.0, 0.084]), 0.0), GRIPPER_CLOSED)
    closed = np.append(grasp[:5], GRIPPER_CLOSED)
    for command in (*np.linspace(grasp, closed, 50), *[closed] * 30, *np.linspace(closed, lifted, 80), *[lifted] * 100):
        world.step(command)
    return world, world.cube_positions()["red"][2]


def test_a_cube_is_held_by_friction_and_falls_without_it():
    world, height = _grasp_and_lift(friction=1.0)
    assert world.held_cube() == "red"
    assert height > 0.07
    world, height = _grasp_and_lift(friction=0.0)
    assert world.held_cube() is None
    assert height < 0.02
    assert world.model.neq == 0 and world.model.nmocap == 0  # nothing else could hold it


def test_pictures_have_their_size_and_show_the_cube_where_the_camera_model_says():
    world = World(3)
    for name in world.cameras:
        picture = world.render(name)
        assert picture.shape == (480, 640, 3) and picture.dtype == np.uint8
    matrix, pose = world.pinhole("front")
    picture = world.render("front")
    for channel, colour in enumerate(("red", "green", "blue")):
        seen = np.linalg.inv(pose) @ np.append(world.cube_positions()[colour], 1.0)
        column, row = np.rint((matrix @ seen[:3] / seen[2])[:2]).astype(int)
        pixel = picture[row, column].astype(int)
        assert pixel[channel] > 1.5 * np.delete(pixel, channel).max(), colour
    world.close()
    with pytest.raises(InputError, match="camera 'top'"):
        world.render("top")
