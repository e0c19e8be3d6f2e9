"""The workbench: what stands and lies on the table beside the cubes, as MJCF, and seeded places for all of it.

A bowl, a button and a drawer stand firmly; pads and the mark are paint. What a layout does not have is put away, out of
sight, below the floor.
"""

from dataclasses import dataclass

import numpy as np

from vla_ros.sim.robot import PAN_ORIGIN
from vla_ros.sim.scene import CUBE_HALF, RGBA, scene_xml

COLOURS = ("red", "green", "blue", "yellow", "purple")  # three of them in a layout
DISTRACTORS = ("can", "brick")  # none, one or both in a layout
PADS = tuple(f"{colour}_pad" for colour in COLOURS)  # two of them in a layout, of colours of its cubes
FIXED = ("bowl", "button", "drawer_case", "mark", *PADS)
SLIDES = {"button_cap": "button", "drawer": "drawer_case"}  # what moves in what
AWAY = -3.0  # m, the height of what a layout does not have

BOWL_RADIUS, BOWL_HEIGHT = 0.041, 0.032  # m, inside; of the wall
DRAWER_TRAVEL = 0.062  # m
DRAWER_MIDDLE = 0.036  # m from the back of the case to the middle of the closed drawer
DRAWER_HALF = np.array([0.027, 0.025])  # m, inside
HANDLE = 0.084  # m from the back of the case to the gap behind the handle's bar, closed
BUTTON_HEIGHT, BUTTON_TRAVEL = 0.036, 0.007  # m
PAD_HALF = 0.024  # m
MARK_HEIGHT = 0.09  # m above the mark is the point where cubes are handed over

RADII, BEARING = (0.150, 0.248), np.radians(34.0)  # of cubes and distractors, from the axis of shoulder_pan
YAW = np.radians(30.0)
GAP, SMALL_GAP = 0.085, 0.072  # m between two cubes, between a distractor and anything
_BATCH = 256  # placings that are tried at a time
_WALL = 'type="box" class="fixture"'


def bench_xml(friction: float = 1.0) -> str:
    """The whole model. `friction` is the sliding friction between fingers and cubes."""
    fixtures = {"bowl": _bowl(), "button": _button(), "drawer_case": _drawer()}
    rim = _paint("cylinder", "0.029", "0.10 0.10 0.12 1")  # white alone is hardly seen on the mat
    fixtures["mark"] = rim + _paint("cylinder", "0.021", "0.97 0.97 0.95 1", layer=1)
    fixtures |= {pad: _paint("box", f"{PAD_HALF} {PAD_HALF}", RGBA[pad.removesuffix("_pad")]) for pad in PADS}
    bodies = "".join(
        f'\n    <body name="{name}" mocap="true" pos="0 0 {AWAY}">{parts}</body>' for name, parts in fixtures.items()
    )
    lying = 'condim="4" contype="1" conaffinity="1" friction="0.8 0.02 0.001" mass="0.03"'
    bodies += f"""
    <body name="can" pos="0 0 {AWAY}" gravcomp="1"><freejoint name="can"/>
      <geom type="cylinder" size="0.013 0.016" rgba="0.62 0.64 0.66 1" {lying}/></body>
    <body name="brick" pos="0.1 0 {AWAY}" gravcomp="1"><freejoint name="brick"/>
      <geom type="box" size="0.019 0.011 0.012" rgba="0.36 0.25 0.18 1" {lying}/></body>"""
    return scene_xml(friction, bodies, COLOURS).replace(
        '<default class="cube">', '<default class="fixture"><geom contype="0" conaffinity="3" condim="4" '
        'friction="0.6" solref="0.006 1"/></default>\n    <default class="cube">',
    )  # fmt: skip


def _paint(kind: str, size: str, rgba: str, layer: int = 0) -> str:
    height = 0.0006 + 0.0005 * layer
    return f'<geom type="{kind}" size="{size} 0.0004" pos="0 0 {height}" rgba="{rgba}" contype="0" conaffinity="0"/>'


def _bowl() -> str:
    """A floor and twelve pieces of wall."""
    look, around = 'rgba="0.20 0.45 0.50 1"', BOWL_RADIUS + 0.002
    half = around * np.tan(np.pi / 12)
    walls = "".join(
        f'<geom {_WALL} {look} size="0.002 {half:.5f} {BOWL_HEIGHT / 2}" euler="0 0 {angle:.5f}" '
        f'pos="{around * np.cos(angle):.5f} {around * np.sin(angle):.5f} {BOWL_HEIGHT / 2}"/>'
        for angle in np.arange(12) * np.pi / 6
    )
    return f'<geom type="cylinder" class="fixture" {look} size="{BOWL_RADIUS} 0.002" pos="0 0 0.003"/>{walls}'


def _button() -> str:
    """A box with a cap on a spring."""
    top = BUTTON_HEIGHT
    return f"""<geom {_WALL} rgba="0.22 0.22 0.24 1" size="0.024 0.024 0.012" pos="0 0 0.013"/>
      <body name="button_cap"><joint name="button_cap" type="slide" axis="0 0 -1" limited="true"
            range="0 {BUTTON_TRAVEL}" stiffness="150" damping="2" armature="0.01"/>
        <geom type="cylinder" class="fixture" rgba="0.90 0.24 0.10 1" mass="0.01" size="0.017 0.009"
              pos="0 0 {top - 0.009}"/></body>"""


def _drawer() -> str:
    """A case that is open in front (+x), and in it a drawer with a handle."""
    wood, light = 'rgba="0.50 0.36 0.24 1"', 'rgba="0.80 0.70 0.55 1"'
    case = [("0.036 0.002 0.023", "0.034 0.033 0.024"), ("0.036 0.002 0.023", "0.034 -0.033 0.024"),
            ("0.002 0.033 0.023", "-0.001 0 0.024"), ("0.036 0.035 0.002", "0.034 0 0.048")]  # fmt: skip
    (length, width), middle = DRAWER_HALF, DRAWER_MIDDLE
    box = [(f"{length + 0.003} {width + 0.003} 0.0015", f"{middle} 0 0.0035")]
    box += [(f"{length + 0.003} 0.0015 0.0125", f"{middle} {y} 0.0165") for y in (width + 0.0015, -width - 0.0015)]
    box += [(f"0.0015 {width + 0.003} 0.0125", f"{middle + x} 0 0.0165") for x in (length + 0.0015, -length - 0.0015)]
    box += [("0.0165 0.002 0.004", f"{middle + length + 0.0195} {y} 0.022") for y in (0.026, -0.026)]
    box += [("0.003 0.028 0.012", f"{HANDLE + 0.018} 0 0.022")]  # the bar
    parts = ["".join(f'<geom {_WALL} {look} size="{size}" pos="{place}" mass="0.01"/>' for size, place in some)
             for look, some in ((wood, case), (light, box))]  # fmt: skip
    return f"""{parts[0]}
      <body name="drawer"><joint name="drawer" type="slide" axis="1 0 0" range="0 {DRAWER_TRAVEL}" limited="true"
            damping="4" frictionloss="0.4" armature="0.05"/>{parts[1]}</body>"""


@dataclass(frozen=True)
class BenchLayout:
    """Where things start.

    Attributes:
        things: name -> (3,) x, y, m, and yaw, rad, of all that there is; the others are away.
        colours: of its cubes, in a drawn order.
    """

    things: dict[str, np.ndarray]
    colours: tuple[str, ...]

    @classmethod
    def random(cls, seed: int) -> "BenchLayout":
        """The same layout for the same seed: the drawer on one side, bowl and button on the other, cubes and
        distractors between them, two pads behind those."""
        rng = np.random.default_rng([seed, 107])
        colours = tuple(COLOURS[i] for i in rng.permutation(len(COLOURS))[:3])
        more = [name for name in DISTRACTORS if rng.random() < 0.5]
        places, bearings = _scattered(rng, len(colours), len(more))
        yaws = bearings + rng.uniform(-YAW, YAW, len(places))
        things = dict(zip((*colours, *more), np.column_stack([places, yaws]), strict=True))
        side = rng.choice([-1.0, 1.0])
        for name, (x, y) in {"drawer_case": (-0.03, 0.205), "bowl": (0.105, -0.205), "button": (0.0, -0.195)}.items():
            jitter = rng.uniform(-1.0, 1.0, 3) * (0.008, 0.008, 0.08)
            things[name] = np.array([x, side * y, 0.0]) + jitter
        for colour, middle in zip(rng.permutation(colours), rng.permutation([-0.32, 0.32]), strict=False):
            angle = middle + rng.uniform(-0.12, 0.12)
            things[f"{colour}_pad"] = np.array([*_polar(0.290, angle), angle])
        while True:
            mark = _polar(rng.uniform(0.17, 0.23), rng.uniform(-BEARING, BEARING))
            if np.hypot(*(places - mark).T).min() > 0.040:
                break
        things["mark"] = np.append(mark, 0.0)
        return cls(things, colours)


def _polar(radius: float | np.ndarray, bearing: float | np.ndarray) -> np.ndarray:
    """(2, ...) m, x and y of places (...) as seen from the axis of shoulder_pan."""
    return np.array([PAN_ORIGIN[0] + radius * np.cos(bearing), radius * np.sin(bearing)])


def _scattered(rng: np.random.Generator, cubes: int, small: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) m and the (N,) bearings: places of cubes, then of smaller things, far enough apart for the hand."""
    count = cubes + small
    gap = np.full((count, count), SMALL_GAP)
    gap[:cubes, :cubes] = GAP
    first, second = np.triu_indices(count, 1)
    shape = (_BATCH, count)
    while True:
        radius = np.sqrt(rng.uniform(RADII[0] ** 2, RADII[1] ** 2, shape))
        bearing = rng.uniform(-BEARING, BEARING, shape)
        x, y = _polar(radius, bearing)
        apart = np.hypot(x[:, first] - x[:, second], y[:, first] - y[:, second]) > gap[first, second]
        if (fits := apart.all(axis=1)).any():
            chosen = int(fits.argmax())
            return np.stack([x[chosen], y[chosen]], axis=1), bearing[chosen]



HEIGHTS = dict.fromkeys(COLOURS, CUBE_HALF) | {"can": 0.016, "brick": 0.012}  # m, of the middles of what lies
