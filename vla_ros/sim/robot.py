"""The simulated SO-101: joints, limits and the arm's MJCF, drawn with primitive shapes.

Link lengths, axes and limits are those of the open SO-101 arm in its new calibration
(github.com/TheRobotStudio/SO-ARM100). At the zero pose every body's frame is parallel to the world's:
x forwards, y left, z up. Positive pan turns right, positive lift, elbow and wrist bend down, a positive
gripper is open.
"""

import numpy as np

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
LOWER = np.array([-1.91986, -1.74533, -1.69, -1.65806, -2.74385, -0.17453])  # rad
UPPER = np.array([1.91986, 1.74533, 1.69, 1.65806, 2.84121, 1.74533])  # rad

# From each joint to the next, m, at the zero pose.
PAN_ORIGIN = (0.0388, 0.0, 0.0624)
PAN_TO_LIFT = (0.0304, 0.0, 0.0542)
LIFT_TO_ELBOW = (0.0280, 0.0, 0.1126)
ELBOW_TO_WRIST = (0.1349, 0.0, 0.0052)
WRIST_TO_ROLL = (0.0611, 0.0, 0.0)
ROLL_TO_JAW = (0.0234, 0.0, 0.0211)
ROLL_TO_TIP = (0.0980, 0.0, 0.0)

GRIPPER_OPEN = 0.70  # rad, about 58 mm between the finger tips
GRIPPER_CLOSED = 0.05  # rad; the finger tips meet at 0, the fingers are parallel on a 30 mm cube at 0.366

_FINGER_ANGLE = 0.366  # rad between the jaw's finger and the hand's axis when the finger tips meet


def arm_xml(prefix: str = "", place: str = "0 0 0") -> str:
    """The arm's bodies, to be placed at `place` (m) in another body. `prefix`: of the joints' names."""

    def joint(index: int, axis: str, kind: str = "arm") -> str:
        name, low, high = prefix + JOINTS[index], LOWER[index], UPPER[index]
        return f'<joint name="{name}" class="{kind}" axis="{axis}" range="{low} {high}"/>'

    def at(offset: tuple[float, float, float]) -> str:
        return 'pos="{:.4f} {:.4f} {:.4f}"'.format(*offset)

    def along_finger(distance: float, outwards: float) -> str:
        """A point on the moving jaw: `distance` from its axle along the inner face, `outwards` from that face, m."""
        sine, cosine = np.sin(_FINGER_ANGLE), np.cos(_FINGER_ANGLE)
        return at((distance * cosine + outwards * sine, 0.0, -distance * sine + outwards * cosine))

    def hub(radius: float, half: float, cap: float, cap_half: float) -> str:
        """The housing of a joint's axle, and the lids on its ends."""
        lying = 'type="cylinder" euler="1.5708 0 0"'
        return (
            f'<geom {lying} mass="0.015" material="shell" size="{radius} {half}"/>\n'
            f'<geom {lying} mass="0.002" material="accent" size="{cap} {cap_half}"/>'
        )

    def sides(radius: float, y: float, end: tuple[float, float, float]) -> str:
        """The two rods of a link, left and right of its axis."""
        return "\n".join(
            f'<geom type="capsule" material="shell" mass="0.012" size="{radius}" '
            f'fromto="0 {left} 0 {end[0]} {left} {end[2]}"/>' for left in (y, -y)
        )  # fmt: skip

    servo = 'type="box" material="servo" mass="0.05"'
    shell = 'type="box" material="shell" mass="0.01"'
    finger = 'class="finger" type="box"'
    tilt = f'euler="0 {_FINGER_ANGLE} 0"'
    return f"""
    <body name="base" childclass="arm" pos="{place}">
      <geom type="box" size="0.048 0.050 0.005" pos="0.014 0 0.005" material="servo"/>
      <geom type="box" size="0.040 0.030 0.020" pos="0.018 0 0.030" material="shell"/>
      <geom type="box" size="0.006 0.022 0.014" pos="-0.026 0 0.036" material="accent"/>
      <geom type="cylinder" size="0.029 0.006" pos="0.0388 0 0.056" material="servo"/>
      <body name="shoulder" {at(PAN_ORIGIN)}>
        {joint(0, "0 0 -1")}
        <geom type="cylinder" size="0.027 0.007" pos="0 0 0.008" material="shell" mass="0.03"/>
        <geom {shell} size="0.024 0.019 0.008" pos="0.016 0 0.022"/>
        <geom {servo} size="0.013 0.019 0.023" pos="0.0290 0 0.048"/>
        <body name="upper_arm" {at(PAN_TO_LIFT)}>
          {joint(1, "0 1 0")}
          {hub(0.018, 0.028, 0.008, 0.031)}
          {sides(0.008, 0.022, LIFT_TO_ELBOW)}
          <geom {shell} size="0.009 0.022 0.028" pos="0.013 0 0.0520" euler="0 0.2438 0"/>
          <geom {servo} size="0.022 0.018 0.014" pos="0.020 0 0.1126"/>
          <body name="lower_arm" {at(LIFT_TO_ELBOW)}>
            {joint(2, "0 1 0")}
            {hub(0.017, 0.028, 0.008, 0.031)}
            {sides(0.0075, 0.021, ELBOW_TO_WRIST)}
            <geom {shell} size="0.036 0.021 0.008" pos="0.062 0 0.0024"/>
            <geom {servo} size="0.021 0.016 0.012" pos="0.118 0 0.0052"/>
            <body name="wrist" {at(ELBOW_TO_WRIST)}>
              {joint(3, "0 1 0")}
              {hub(0.015, 0.026, 0.007, 0.029)}
              <geom {servo} size="0.020 0.014 0.013" pos="0.034 0 0"/>
              <body name="hand" {at(WRIST_TO_ROLL)}>
                {joint(4, "-1 0 0")}
                <geom type="cylinder" size="0.019 0.005" euler="0 1.5708 0" material="shell" mass="0.015"/>
                <geom {servo} size="0.017 0.017 0.017" pos="0.022 0 0.009"/>
                <geom {shell} size="0.025 0.017 0.004" pos="0.026 0 -0.0130"/>
                <geom name="fixed_finger" {finger} size="0.0290 0.010 0.0035" pos="0.0730 0 -0.0125"/>
                <geom type="capsule" size="0.004" fromto="0.012 0.012 0.012 0.002 0.060 0.012" material="shell"
                      mass="0.003"/>
                <geom type="box" size="0.007 0.010 0.010" pos="0.002 0.0675 0.012" euler="0 0 -0.555" material="servo"
                      mass="0.01"/>
                <camera name="wrist" pos="0.014 0.060 0.012" xyaxes="0 0 1 0.527 0.850 0" fovy="68"/>
                <site name="tip" {at(ROLL_TO_TIP)} size="0.003" rgba="1 1 1 0"/>
                <body name="jaw" {at(ROLL_TO_JAW)}>
                  {joint(5, "0 -1 0", "jaw")}
                  {hub(0.011, 0.019, 0.005, 0.021)}
                  <geom {shell} size="0.020 0.0085 0.0055" {along_finger(0.016, 0.0062)} {tilt}/>
                  <geom name="moving_finger" {finger} size="0.0246 0.010 0.0035" {along_finger(0.0596, 0.0035)} {tilt}/>
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>"""


ARM_DEFAULTS = """
    <default class="arm">
      <joint damping="0.6" armature="0.028" frictionloss="0.03"/>
      <geom contype="2" conaffinity="1" friction="0.6" mass="0.01" group="1"/>
      <default class="jaw">
        <joint damping="0.05" armature="0.003" frictionloss="0.005"/>
      </default>
      <default class="finger">
        <geom contype="2" conaffinity="1" material="finger" mass="0.012" condim="4" friction="{friction} 0.02 0.001"
              solref="0.006 1" solimp="0.95 0.99 0.001"/>
      </default>
    </default>"""

# Stiff position servos with the torque of the arm's own (3.35 N m); the gripper's is softer, so that it holds a cube
# with about 10 N.
_SERVO = 'kp="400" dampratio="1" forcerange="-3.35 3.35"'
_GRIPPER_SERVO = 'kp="3.0" dampratio="1" forcerange="-1.2 1.2"'


def actuators_xml(prefix: str = "") -> str:
    """One servo for each joint, in their order."""
    return "\n".join(
        f'    <position name="{prefix}{name}" joint="{prefix}{name}" ctrlrange="{LOWER[i]} {UPPER[i]}" '
        f"{_GRIPPER_SERVO if name == 'gripper' else _SERVO}/>"
        for i, name in enumerate(JOINTS)
    )
