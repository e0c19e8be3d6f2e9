"""A simulated robot and its cameras as a URDF, made from the MuJoCo model."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence

import mujoco
import numpy as np

ROOT, DRIVING_ROOT = "base", "base_link"  # of the arm at its table, of a base that drives
_FASTEST = "10"  # rad/s, as the description of the real arm has it; the robot file is stricter
_SHAPES = {mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_CAPSULE}
# From MuJoCo's camera (x right, y up, looking along -z) to the optical frame (x right, y down, z forwards; REP-103).
_OPTICAL = np.diag([1.0, -1.0, -1.0])


def urdf(model: mujoco.MjModel, name: str) -> str:
    """A link for each body from the robot's root on, with its boxes, cylinders and capsules; NAME_camera for each
    camera; and a link for each site.

    `name`: of the robot.
    """
    robot = ET.Element("robot", name=name)
    names = [model.body(i).name for i in range(model.nbody)]
    root = DRIVING_ROOT if DRIVING_ROOT in names else ROOT
    base = names.index(root)
    below = {base}
    for body in range(base + 1, model.nbody):  # parents come before their children
        if model.body_parentid[body] in below:
            below.add(body)
    for body in sorted(below):
        link = ET.SubElement(robot, "link", name=model.body(body).name)
        for geom in range(model.body_geomadr[body], model.body_geomadr[body] + model.body_geomnum[body]):
            if model.geom_type[geom] in _SHAPES and model.geom_rgba[geom][3] > 0:
                _visual(link, model, geom)
        if body != base:
            _joint(robot, model, body)
    for camera in range(model.ncam):
        frame, body = f"{model.camera(camera).name}_camera", model.cam_bodyid[camera]
        parent = model.body(body).name if body in below else root  # the world's frame is the base's
        ET.SubElement(robot, "link", name=frame)
        joint = _connect(robot, frame, "fixed", parent, frame)
        _place(joint, model.cam_pos[camera], _matrix(model.cam_quat[camera]) @ _OPTICAL)
    for site in range(model.nsite):
        name, parent = model.site(site).name, model.body(model.site_bodyid[site]).name
        ET.SubElement(robot, "link", name=name)
        _place(_connect(robot, name, "fixed", parent, name), model.site_pos[site])
    ET.indent(robot)
    return ET.tostring(robot, encoding="unicode")


def _visual(link: ET.Element, model: mujoco.MjModel, geom: int) -> None:
    visual = ET.SubElement(link, "visual")
    _place(visual, model.geom_pos[geom], _matrix(model.geom_quat[geom]))
    shape, size = ET.SubElement(visual, "geometry"), model.geom_size[geom]
    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX:
        ET.SubElement(shape, "box", size=_text(2 * size))
    else:
        ET.SubElement(shape, "cylinder", radius=f"{size[0]:.6g}", length=f"{2 * size[1]:.6g}")
    material = model.geom_matid[geom]
    colour = model.mat_rgba[material] if material >= 0 else model.geom_rgba[geom]
    known = model.material(material).name if material >= 0 else f"geom_{geom}"
    ET.SubElement(ET.SubElement(visual, "material", name=known), "color", rgba=_text(colour))


def _joint(robot: ET.Element, model: mujoco.MjModel, body: int) -> None:
    index, parent = model.body_jntadr[body], model.body(model.body_parentid[body]).name
    if index < 0:
        fixed = _connect(robot, model.body(body).name, "fixed", parent, model.body(body).name)
        return _place(fixed, model.body_pos[body], _matrix(model.body_quat[body]))
    joint = _connect(robot, model.joint(index).name, "revolute", parent, model.body(body).name)
    _place(joint, model.body_pos[body], _matrix(model.body_quat[body]))
    ET.SubElement(joint, "axis", xyz=_text(model.jnt_axis[index]))
    low, high = model.jnt_range[index]
    effort = max(model.actuator_forcerange[model.actuator_trnid[:, 0] == index].max(initial=0.0), 0.0)
    ET.SubElement(joint, "limit", lower=f"{low:.6g}", upper=f"{high:.6g}", effort=f"{effort:.6g}", velocity=_FASTEST)


def _connect(robot: ET.Element, name: str, kind: str, parent: str, child: str) -> ET.Element:
    joint = ET.SubElement(robot, "joint", name=name if kind != "fixed" else f"{name}_mount", type=kind)
    ET.SubElement(joint, "parent", link=parent)
    ET.SubElement(joint, "child", link=child)
    return joint


def _place(element: ET.Element, position: Sequence[float], rotation: np.ndarray | None = None) -> None:
    """(3,) m and a (3, 3) rotation as `<origin>`."""
    m = np.eye(3) if rotation is None else rotation
    pitch = np.arctan2(-m[2, 0], np.hypot(m[0, 0], m[1, 0]))
    if np.hypot(m[0, 0], m[1, 0]) > 1e-9:
        roll, yaw = np.arctan2(m[2, 1], m[2, 2]), np.arctan2(m[1, 0], m[0, 0])
    else:
        roll, yaw = np.arctan2(-m[1, 2], m[1, 1]), 0.0  # straight up or down: one of the two is free
    ET.SubElement(element, "origin", xyz=_text(position), rpy=_text((roll, pitch, yaw)))


def _matrix(quaternion: np.ndarray) -> np.ndarray:
    found = np.zeros(9)
    mujoco.mju_quat2Mat(found, quaternion)
    return found.reshape(3, 3)


def _text(values: Sequence[float]) -> str:
    return " ".join(f"{value:.9g}" for value in values)
