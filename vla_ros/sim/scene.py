"""The table, the cubes, the light and the front camera around the arm, as MJCF."""

from collections.abc import Sequence

import numpy as np

from vla_ros.sim.robot import ARM_DEFAULTS, actuators_xml, arm_xml

COLOURS = ("red", "green", "blue")
CUBE_HALF = 0.015  # m
RGBA = {"red": "0.86 0.07 0.06 1", "green": "0.08 0.62 0.13 1", "blue": "0.06 0.20 0.88 1",
        "yellow": "0.90 0.78 0.06 1", "purple": "0.48 0.12 0.62 1"}  # fmt: skip
TIMESTEP = 0.002  # s

FRONT_CAMERA_POSITION = np.array([0.66, 0.0, 0.42])  # m
FRONT_CAMERA_TARGET = np.array([0.165, 0.0, 0.075])
FRONT_CAMERA_FOVY = 45.0  # degrees


def scene_xml(friction: float = 1.0, more: str = "", colours: Sequence[str] = COLOURS) -> str:
    """The arm at its table. `friction` is the sliding friction between fingers and cubes; `more`: further bodies."""
    position = " ".join(f"{value:.4f}" for value in FRONT_CAMERA_POSITION)
    axes = looking_along(FRONT_CAMERA_TARGET - FRONT_CAMERA_POSITION)
    around = f"""
    <geom name="floor" type="plane" size="12 12 0.1" pos="0 0 -0.70" material="floor" contype="0" conaffinity="0"/>
    <geom name="table" type="box" size="0.42 0.50 0.015" pos="0.20 0 -0.015" material="table" friction="0.8" condim="4"
          contype="1" conaffinity="2"/>
    <geom type="box" size="0.422 0.502 0.010" pos="0.20 0 -0.0205" material="edge" contype="0" conaffinity="0"/>
    <geom type="box" size="0.14 0.25 0.0004" pos="0.235 0 0.0001" material="mat" contype="0" conaffinity="0"/>
    <camera name="front" pos="{position}" xyaxes="{axes}" fovy="{FRONT_CAMERA_FOVY}"/>{arm_xml()}{more}"""
    return model_xml("so101_cubes", around, actuators_xml(), friction, "0.2 0 0.05", 0.6, colours=colours)


def looking_along(direction: np.ndarray) -> str:
    """`xyaxes` of a camera that looks along (3,), its picture's top upwards."""
    right = np.cross([0.0, 0.0, 1.0], -direction)
    up = np.cross(-direction, right)
    return " ".join(f"{value:.6f}" for value in (*right, *up))


def model_xml(
    name: str, bodies: str, actuators: str, friction: float, centre: str, extent: float, more: str = "",
    colours: Sequence[str] = COLOURS,
) -> str:
    """The whole model: light, materials and cubes, and around them `bodies`; `more`: further sections."""
    cubes = "\n".join(
        f"""
    <body name="{colour}" pos="0.25 {0.1 * (i - 1)} {CUBE_HALF}">
      <freejoint name="{colour}"/>
      <geom name="{colour}" class="cube" rgba="{RGBA[colour]}" friction="{friction} 0.02 0.001"/>
    </body>"""
        for i, colour in enumerate(colours)
    )
    return f"""
<mujoco model="{name}">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="10">
    <flag autoreset="disable"/>
  </option>
  <size memory="4M"/>
  <statistic center="{centre}" extent="{extent}"/>
  <visual>
    <global offwidth="1280" offheight="960"/>
    <headlight ambient="0.34 0.34 0.36" diffuse="0.26 0.26 0.26" specular="0.05 0.05 0.05"/>
    <quality numslices="14" numstacks="8" shadowsize="0" offsamples="0"/>
    <map znear="0.01" zfar="20"/>
  </visual>
  <default>{ARM_DEFAULTS.format(friction=friction)}
    <default class="cube">
      <geom type="box" size="{CUBE_HALF} {CUBE_HALF} {CUBE_HALF}" mass="0.03" material="cube" condim="4"
            contype="1" conaffinity="1" solref="0.006 1" solimp="0.95 0.99 0.001"/>
    </default>
  </default>
  <asset>
    <material name="table" rgba="0.66 0.57 0.46 1" specular="0.15" shininess="0.2"/>
    <material name="edge" rgba="0.42 0.33 0.25 1"/>
    <material name="floor" rgba="0.46 0.50 0.55 1" specular="0"/>
    <material name="mat" rgba="0.74 0.74 0.73 1" specular="0.05"/>
    <material name="shell" rgba="0.93 0.92 0.89 1" specular="0.35" shininess="0.4"/>
    <material name="servo" rgba="0.13 0.13 0.15 1" specular="0.3" shininess="0.4"/>
    <material name="accent" rgba="0.95 0.62 0.10 1" specular="0.4" shininess="0.5"/>
    <material name="finger" rgba="0.30 0.31 0.34 1" specular="0.3" shininess="0.3"/>
    <material name="cube" specular="0.25" shininess="0.3"/>
  </asset>
  <worldbody>
    <light directional="true" pos="0 0 2" dir="-0.35 -0.45 -1" diffuse="0.52 0.50 0.47" specular="0.2 0.2 0.2"
           castshadow="false"/>
    <light directional="true" pos="0 0 2" dir="-0.5 0.8 -0.7" diffuse="0.20 0.21 0.24" specular="0 0 0"
           castshadow="false"/>{bodies}{cubes}
  </worldbody>
  <actuator>
{actuators}
  </actuator>{more}
</mujoco>"""
