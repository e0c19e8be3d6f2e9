"""Other lights, textures and camera poses for the pictures of demonstrations; what moves and how stays as it is."""

from collections.abc import Collection
from typing import Any

import mujoco
import numpy as np

from vla_ros.sim.simulated import Simulated

WHAT = ("lights", "textures", "cameras")
_MATERIALS = ("table", "mat", "edge", "floor", "dark_floor", "wall")  # those that get a texture, where they are
_PATTERNS = ("plain", "stripes", "checks", "speckles", "grain")
_SIZE = 64  # pixels of a texture
_TURN, _BRIGHTNESS, _TINT = 0.35, (0.65, 1.35), 0.08  # rad of a light's direction; factors of its colour
_MOVED = {"wrist": (0.003, 0.03)}  # m and rad that a camera may be off, to either side; those that are not here:
_ELSE, _FOVY = (0.025, 0.04), 2.0  # m and rad; degrees


class Variation:
    """Varies what a world looks like, from how it looks by itself.

    Args:
        world: is compiled anew where textures are among `what`; to be reset after each `apply`.
        what: some of `WHAT`.
    """

    def __init__(self, world: Simulated, what: Collection[str]) -> None:
        self._world, self._what = world, [name for name in WHAT if name in what]
        if "textures" in what:
            self._materials = world.textured(_MATERIALS, _SIZE)
        model = world.model
        head = model.vis.headlight
        self._base = {
            name: np.array(value) for name, value in {
                "dir": model.light_dir, "diffuse": model.light_diffuse, "ambient": head.ambient, "head": head.diffuse,
                "rgba": model.mat_rgba, "pos": model.cam_pos, "quat": model.cam_quat, "fovy": model.cam_fovy,
            }.items()
        }  # fmt: skip

    def apply(self, seed: int) -> dict[str, Any]:
        """Change the world's looks; the same seed gives the same. Returns what was drawn, for the record."""
        drawn = {}
        for name in self._what:
            rng = np.random.default_rng([seed, 29, WHAT.index(name)])
            drawn[name] = getattr(self, f"_{name}")(rng)
        return drawn

    def _lights(self, rng: np.random.Generator) -> dict[str, Any]:
        model, base = self._world.model, self._base
        turned = base["dir"] + rng.uniform(-_TURN, _TURN, base["dir"].shape)
        model.light_dir[:] = turned / np.linalg.norm(turned, axis=1, keepdims=True)
        bright = rng.uniform(*_BRIGHTNESS, len(turned) + 1)
        tint = 1.0 + rng.uniform(-_TINT, _TINT, 3)
        model.light_diffuse[:] = np.clip(base["diffuse"] * bright[:-1, None] * tint, 0.0, 1.0)
        model.vis.headlight.ambient[:] = base["ambient"] * bright[-1]
        model.vis.headlight.diffuse[:] = base["head"] * bright[-1]
        return {"directions": _plain(model.light_dir), "brightness": _plain(bright), "tint": _plain(tint)}

    def _textures(self, rng: np.random.Generator) -> dict[str, Any]:
        model, drawn = self._world.model, {}
        for texture, (name, material) in enumerate(self._materials.items()):
            base = self._base["rgba"][material][:3]
            colours = np.clip(base * rng.uniform(0.6, 1.3, (2, 1)) + rng.uniform(-0.06, 0.06, (2, 3)), 0.02, 0.98)
            pattern, repeat = str(rng.choice(_PATTERNS)), rng.uniform(1.0, 4.0)
            share = _pattern(pattern, rng)[..., None]
            pixels = np.rint(255 * ((1 - share) * colours[0] + share * colours[1])).astype(np.uint8)
            start = model.tex_adr[texture]
            model.tex_data[start : start + pixels.size] = pixels.ravel()
            model.mat_rgba[material, :3], model.mat_texrepeat[material] = 1.0, repeat
            drawn[name] = {"pattern": pattern, "colours": _plain(colours), "repeat": round(repeat, 4)}
        self._world.close()  # a graphics context has the textures that there were when it was made
        return drawn

    def _cameras(self, rng: np.random.Generator) -> dict[str, Any]:
        model, base, drawn = self._world.model, self._base, {}
        for camera in self._world.cameras:
            i = model.camera(camera).id
            far, wide = _MOVED.get(camera, _ELSE)
            shift, turn, fovy = rng.uniform(-far, far, 3), rng.uniform(-wide, wide, 3), rng.uniform(-_FOVY, _FOVY)
            quat = np.zeros(4)
            mujoco.mju_mulQuat(quat, base["quat"][i], np.append(1.0, turn / 2))
            model.cam_quat[i] = quat / np.linalg.norm(quat)
            model.cam_pos[i], model.cam_fovy[i] = base["pos"][i] + shift, base["fovy"][i] + fovy
            drawn[camera] = {"shift_m": _plain(shift), "turn_rad": _plain(turn), "fovy_deg": round(float(fovy), 4)}
        return drawn


def _pattern(name: str, rng: np.random.Generator) -> np.ndarray:
    """(SIZE, SIZE) share of the second colour, 0 to 1."""
    row, column = np.mgrid[:_SIZE, :_SIZE]
    width = int(rng.choice([4, 8, 16]))  # pixels
    if name == "stripes":
        return (column // width % 2).astype(float)
    if name == "checks":
        return ((row // width + column // width) % 2).astype(float)
    if name == "speckles":
        return (rng.random((_SIZE, _SIZE)) < 0.15).astype(float)
    if name == "grain":
        return np.tile(rng.random(_SIZE), (_SIZE, 1))
    return np.zeros((_SIZE, _SIZE))


def _plain(values: np.ndarray) -> list:
    return np.round(values, 4).tolist()
