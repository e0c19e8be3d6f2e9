"""Seeded places in the room: of the robot, the posts, the boxes between them, and the stands with the cubes."""

from dataclasses import dataclass

import numpy as np

from vla_ros.sim.room import BOXES, HALF_ROOM
from vla_ros.sim.scene import COLOURS

BEARING = np.radians(33.0)  # rad from straight ahead: the front camera sees what lies there
WALL_GAP = 0.5  # m from a thing to a wall
APART = {"post": 0.85, "stand": 0.68, "box": 0.80}  # m from one to whatever was put before it
FROM_START = {"post": (2.0, 3.3), "stand": (1.3, 3.3), "box": (0.75, 2.6)}  # m
_ACROSS = 0.12  # m that a box lies off the straight way to its post
_TRIES = 200


@dataclass(frozen=True)
class RoomLayout:
    """Where things are, m and rad, in the frame of the room.

    Attributes:
        start: (3,) x, y and yaw of the base.
        posts, stands: (3, 2) in the order of `COLOURS`; a stand has the cube of its colour on it.
        boxes: (4, 3) x, y and yaw.
        yaws: (3,) of the cubes.
    """

    start: np.ndarray
    posts: np.ndarray
    stands: np.ndarray
    boxes: np.ndarray
    yaws: np.ndarray

    @classmethod
    def random(cls, seed: int) -> "RoomLayout":
        """The same layout for the same seed. Posts and stands are ahead of the robot, and a box is on the straight way
        to each post; between any two things there is room for the robot."""
        rng = np.random.default_rng([seed, 103])
        while True:
            start = np.array([rng.uniform(-1.65, -1.35), rng.uniform(-0.7, 0.7), 0.0])
            start[2] = np.arctan2(-start[1], 2.0 - start[0]) + rng.uniform(-0.2, 0.2)
            posts = _thrown(rng, "post", start, [], len(COLOURS))
            between = posts and _between(rng, start, posts)
            boxes = between and _thrown(rng, "box", start, [*posts, *between], len(BOXES) - len(between))
            stands = boxes and _thrown(rng, "stand", start, [*posts, *between, *boxes], len(COLOURS))
            if stands:
                turned = rng.uniform(-np.pi, np.pi, len(BOXES))
                return cls(start, np.array(posts), np.array(stands), np.column_stack([between + boxes, turned]),
                           rng.uniform(-0.5, 0.5, len(COLOURS)))  # fmt: skip


def _thrown(rng: np.random.Generator, kind: str, start: np.ndarray, others: list, count: int) -> list:
    """`count` places (2,), or none where they do not fit."""
    found: list[np.ndarray] = []
    near, far = FROM_START[kind]
    for _ in range(_TRIES):
        angle, way = start[2] + rng.uniform(-BEARING, BEARING), rng.uniform(near, far)
        place = start[:2] + way * np.array([np.cos(angle), np.sin(angle)])
        if _fits(place, kind, [*others, *found]):
            found.append(place)
        if len(found) == count:
            return found
    return []


def _between(rng: np.random.Generator, start: np.ndarray, posts: list) -> list:
    """A box on the way to each post, or none where they do not fit."""
    found: list[np.ndarray] = []
    for post in posts:
        way = post - start[:2]
        across = np.array([-way[1], way[0]]) / np.hypot(*way)
        place = start[:2] + rng.uniform(0.35, 0.65) * way + rng.uniform(-_ACROSS, _ACROSS) * across
        if not _fits(place, "box", [*posts, *found]):
            return []
        found.append(place)
    return found


def _fits(place: np.ndarray, kind: str, others: list) -> bool:
    inside = np.abs(place).max() < HALF_ROOM - WALL_GAP
    return bool(inside and all(np.hypot(*(place - other)) > APART[kind] for other in others))
