"""Lights, textures and cameras vary with the layout's seed, and nothing else does."""

import json

import numpy as np

from vla_ros.sim.room_world import RoomWorld
from vla_ros.sim.variation import WHAT, Variation
from vla_ros.sim.world import World


def _picture(world: World) -> np.ndarray:
    world.reset(4)
    return world.render("front", 96, 72).astype(int)


def test_each_kind_changes_the_picture_and_a_seed_gives_it_again():
    plain = _picture(World())
    for what in WHAT:
        world = World()
        variation = Variation(world, [what])
        pictures, records = [], []
        for seed in (1, 2, 1):
            records.append(variation.apply(seed))
            pictures.append(_picture(world))
        assert list(records[0]) == [what] and json.loads(json.dumps(records[0])) == records[0] == records[2]
        np.testing.assert_array_equal(pictures[0], pictures[2])
        for other in (plain, pictures[1]):
            assert np.abs(pictures[0] - other).mean() > 2.0, what
        world.close()


def test_the_room_is_varied_too():
    world = RoomWorld()
    record = Variation(world, WHAT).apply(5)
    assert set(record["textures"]) >= {"dark_floor", "wall"} and set(record["cameras"]) == set(world.cameras)
    world.reset(2)
    world.step(world.joint_positions())


def test_what_moves_is_not_varied():
    world, varied = World(), World()
    variation = Variation(varied, WHAT)
    variation.apply(3)
    for one in (world, varied):
        one.reset(4)
        for _ in range(30):
            one.step([0.3, 0.2, 0.1, 1.0, 0.2, 0.3])
    np.testing.assert_array_equal(world.joint_positions(), varied.joint_positions())
    np.testing.assert_array_equal(world.cube_positions()["red"], varied.cube_positions()["red"])
