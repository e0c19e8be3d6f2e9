"""A room with walls, posts, boxes and stands, and in it a base on three wheels with the arm and its sensors, as MJCF.

Frames: the room's x, y, z, the origin on the floor in its middle; `base_link` on the floor below the base's middle, x
forwards, y left (REP-105). Base: radius and wheels of LeKiwi (github.com/SIGRobotics-UIUC/LeKiwi), drawn with primitive
shapes; its motors drive the three velocities, each wheel's share of them is not simulated.
"""

import numpy as np

from vla_ros.sim.robot import JOINTS, actuators_xml, arm_xml
from vla_ros.sim.scene import COLOURS, RGBA, looking_along, model_xml

PREFIX = "arm_"  # LeKiwi's names
VELOCITIES = ("x.vel", "y.vel", "theta.vel")
BASE_RADIUS = 0.15  # m, of all that the base consists of
ARM_PLACE = (-0.01, 0.0, 0.10)  # m, of the arm in base_link: on the upper plate
LIDAR_HEIGHT = 0.085  # m: between the plates
HALF_ROOM = 2.2  # m, from the middle to each wall
POST_RADIUS, POST_HEIGHT = 0.04, 0.60  # m
STAND_HALF = 0.04  # m; a stand is as high as the upper plate, so that the arm reaches what is on it
STAND_HEIGHT = ARM_PLACE[2]
BOXES = np.array([[0.10, 0.16, 0.06], [0.13, 0.13, 0.055], [0.08, 0.20, 0.07], [0.12, 0.15, 0.06]])  # m, half sizes

_FOVY = {"front": 60.0, "left": 75.0, "right": 75.0, "back": 75.0}  # degrees
_MOUNTED = {"front": (0.0, -0.06, 0.45), "left": (np.pi / 2, 0.11, 0.14), "right": (-np.pi / 2, 0.11, 0.14),
            "back": (np.pi, 0.11, 0.14)}  # bearing, rad; distance from the middle and height, m  # fmt: skip
_TILT = np.radians(12.0)  # of every camera, downwards
_WHEELS = np.radians([30.0, 150.0, 270.0])


def room_xml(friction: float = 1.0) -> str:
    """The whole model. `friction` is the sliding friction between fingers and cubes."""
    standing = 'contype="1" conaffinity="2"'
    walls = "\n".join(
        f'    <geom name="wall_{i}" type="box" size="{size}" pos="{place}" material="wall" {standing}/>'
        for i, (size, place) in enumerate([
            (f"0.02 {HALF_ROOM} 0.20", f"{HALF_ROOM} 0 0.20"), (f"0.02 {HALF_ROOM} 0.20", f"{-HALF_ROOM} 0 0.20"),
            (f"{HALF_ROOM} 0.02 0.20", f"0 {HALF_ROOM} 0.20"), (f"{HALF_ROOM} 0.02 0.20", f"0 {-HALF_ROOM} 0.20"),
        ])
    )  # fmt: skip
    things = [
        (f"{colour}_post", "cylinder", f"{POST_RADIUS} {POST_HEIGHT / 2}", POST_HEIGHT / 2, f'rgba="{RGBA[colour]}"')
        for colour in COLOURS
    ]
    things += [(f"box_{i}", "box", "{} {} {}".format(*half), half[2], 'material="box"') for i, half in enumerate(BOXES)]
    stand = f"{STAND_HALF} {STAND_HALF} {STAND_HEIGHT / 2}"
    things += [(f"{colour}_stand", "box", stand, STAND_HEIGHT / 2, 'material="stand"') for colour in COLOURS]
    bodies = "\n".join(
        f'    <body name="{name}" mocap="true" pos="{i} 4 0"><geom name="{name}" type="{kind}" size="{size}" '
        f'pos="0 0 {height}" {standing} condim="4" {look}/></body>'
        for i, (name, kind, size, height, look) in enumerate(things)
    )
    around = f"""
    <geom name="floor" type="plane" size="3 3 0.1" material="dark_floor" contype="1" conaffinity="2"/>
{walls}
{bodies}
{_base_xml()}"""
    more = """
  <sensor>
    <accelerometer name="accelerometer" site="imu"/>
    <gyro name="gyro" site="imu"/>
  </sensor>
  <asset>
    <material name="dark_floor" rgba="0.10 0.105 0.11 1" specular="0"/>
    <material name="box" rgba="0.095 0.10 0.105 1" specular="0"/>
    <material name="stand" rgba="0.72 0.68 0.60 1" specular="0.1"/>
    <material name="wall" rgba="0.80 0.80 0.77 1" specular="0"/>
  </asset>"""
    actuators = "\n".join([
        actuators_xml(PREFIX),
        '    <velocity name="base_x" joint="base_x" kv="90" forcerange="-20 20"/>',
        '    <velocity name="base_y" joint="base_y" kv="90" forcerange="-20 20"/>',
        '    <velocity name="base_yaw" joint="base_yaw" kv="2.5" forcerange="-2.5 2.5"/>',
    ])
    return model_xml("lekiwi_room", around, actuators, friction, centre="0 0 0.2", extent=3.0, more=more)


def arm_joints() -> tuple[str, ...]:
    """The arm's joints in the model, and in LeKiwi's robot file."""
    return tuple(PREFIX + name for name in JOINTS)


def _base_xml() -> str:
    shape = 'contype="2" conaffinity="1" group="1" friction="0.4"'
    drawn = 'contype="0" conaffinity="0" group="1"'
    wheels = "\n".join(
        f'      <geom type="cylinder" size="0.05 0.0125" pos="{0.125 * np.cos(a):.4f} {0.125 * np.sin(a):.4f} 0.051" '
        f'euler="1.5708 {a - np.pi / 2:.5f} 0" mass="0.12" material="servo" {drawn}/>'
        for a in _WHEELS
    )
    cameras = "\n".join(
        f'      <camera name="{name}" pos="{out * np.cos(a):.4f} {out * np.sin(a):.4f} {up}" fovy="{_FOVY[name]}" '
        f'xyaxes="{looking_along(np.array([np.cos(a), np.sin(a), -np.tan(_TILT)]))}"/>'
        for name, (a, out, up) in _MOUNTED.items()
    )
    return f"""    <body name="base_link">
      <joint name="base_x" type="slide" axis="1 0 0"/>
      <joint name="base_y" type="slide" axis="0 1 0"/>
      <joint name="base_yaw" type="hinge" axis="0 0 1" armature="0.02"/>
      <geom name="plates" type="cylinder" size="{BASE_RADIUS} 0.045" pos="0 0 0.055" mass="1.6" rgba="1 1 1 0" {shape}/>
      <geom type="cylinder" size="0.13 0.004" pos="0 0 0.060" mass="0.1" material="shell" {drawn}/>
      <geom type="cylinder" size="0.13 0.004" pos="0 0 0.096" mass="0.1" material="shell" {drawn}/>
      <geom type="cylinder" size="0.035 0.014" pos="0 0 {LIDAR_HEIGHT}" mass="0.15" material="servo" {drawn}/>
      <geom type="box" size="0.008 0.008 0.165" pos="-0.08 0 0.265" mass="0.03" material="servo" {drawn}/>
      <geom type="box" size="0.012 0.025 0.012" pos="-0.08 0 0.45" mass="0.03" material="accent" {drawn}/>
{wheels}
{cameras}
      <site name="imu" pos="0 0 0.06" rgba="1 1 1 0"/>
      <site name="lidar" pos="0 0 {LIDAR_HEIGHT}" rgba="1 1 1 0"/>{arm_xml(PREFIX, "{} {} {}".format(*ARM_PLACE))}
    </body>"""
