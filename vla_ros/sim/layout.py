"""Seeded places for the cubes."""

from dataclasses import dataclass

import numpy as np

from vla_ros.sim.robot import PAN_ORIGIN
from vla_ros.sim.scene import COLOURS

RADII = (0.155, 0.245)  # m from the axis of shoulder_pan
BEARING = np.radians(48.0)  # rad to either side of straight ahead
YAW = np.radians(30.0)  # rad between a cube's nearest face and the arm's direction
GAP = 0.085  # m between the centres of two cubes


@dataclass(frozen=True)
class Layout:
    """Where the cubes start: `places` (3, 2) m and `yaws` (3,) rad, in the order of `COLOURS`."""

    places: np.ndarray
    yaws: np.ndarray

    @classmethod
    def random(cls, seed: int) -> "Layout":
        """The same layout for the same seed: reachable, not touching, turned by up to 30 degrees."""
        rng = np.random.default_rng([seed, 101])
        while True:
            radius = np.sqrt(rng.uniform(RADII[0] ** 2, RADII[1] ** 2, len(COLOURS)))
            bearing = rng.uniform(-BEARING, BEARING, len(COLOURS))
            places = np.stack([PAN_ORIGIN[0] + radius * np.cos(bearing), radius * np.sin(bearing)], axis=1)
            distances = np.linalg.norm(places[:, None] - places[None], axis=-1)[np.triu_indices(len(COLOURS), 1)]
            if distances.min() > GAP:
                return cls(places, bearing + rng.uniform(-YAW, YAW, len(COLOURS)))
