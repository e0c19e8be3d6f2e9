"""Joint limits of a URDF (file or text), read with the standard library."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

from vla_ros.core.errors import InputError
from vla_ros.core.files import read_bytes

MOST_BYTES = 16 << 20


@dataclass(frozen=True)
class UrdfLimit:
    """Limits of one joint in `unit` (rad or m) and per s; infinite if the URDF has none."""

    lower: float = -math.inf
    upper: float = math.inf
    velocity: float = math.inf
    unit: str = ""  # "" of a joint that the URDF does not have
    mimics: str = ""  # the joint that it follows; such a joint needs no limits


def load_urdf(source: str | Path, names: Collection[str] | None = None) -> dict[str, UrdfLimit]:
    """Joint name -> limits, from a URDF file or the text itself (which contains a `<robot` tag).

    `<limit>` and the narrower `<safety_controller>` soft limits are honoured; a continuous joint has no
    position limits; fixed joints are left out. Raises InputError.

    Args:
        names: joints whose limits are read; None for all. The others (passive, of another arm) are ignored.
    """
    root, where = parse_urdf(source)
    limits = {}
    for joint in root.iterfind("joint"):
        name = joint.get("name", "")
        kind = joint.get("type", "")
        if kind not in ("revolute", "prismatic", "continuous"):
            continue
        unit, mimic = "m" if kind == "prismatic" else "rad", joint.find("mimic")
        if names is None or name in names:
            read = _mimic if mimic is not None else _joint
            limits[name] = read(joint, f"{where}: joint {name}", kind != "continuous")
        else:
            limits[name] = UrdfLimit()
        mimics = "" if mimic is None else mimic.get("joint", "")
        limits[name] = replace(limits[name], unit=unit, mimics=mimics)
    return limits


def parse_urdf(source: str | Path) -> tuple[ElementTree.Element, str]:
    """The `<robot>` element of a URDF file or of the text itself, and what errors call it. Raises InputError."""
    text = str(source)
    where = "robot_description"
    if "<robot" not in text:
        where = f"URDF {source}"
        try:
            text = read_bytes(source, "URDF", MOST_BYTES).decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: {error}") from error
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{where}: not XML: {error}") from error
    if root.tag != "robot":
        raise InputError(f"{where}: top element <{root.tag}>, expected <robot>")
    return root, where


def _mimic(joint: ElementTree.Element, where: str, bounded: bool) -> UrdfLimit:
    """The limits of a joint that follows another one are used if it has any."""
    try:
        return _joint(joint, where, bounded)
    except InputError:
        return UrdfLimit()


def _joint(joint: ElementTree.Element, where: str, bounded: bool) -> UrdfLimit:
    limit = joint.find("limit")
    if limit is None:
        if bounded:
            raise InputError(f"{where}: no <limit>, expected lower, upper and velocity")
        return UrdfLimit()
    velocity = urdf_number(limit, "velocity", math.inf, where)
    if not velocity > 0:
        raise InputError(f"{where}: velocity {velocity}, expected a positive number")
    if not bounded:
        return UrdfLimit(velocity=velocity)
    lower, upper = (urdf_number(limit, name, 0.0, where) for name in ("lower", "upper"))  # 0 is URDF's default
    safety = joint.find("safety_controller")
    if safety is not None:
        lower = max(lower, urdf_number(safety, "soft_lower_limit", -math.inf, where))
        upper = min(upper, urdf_number(safety, "soft_upper_limit", math.inf, where))
    if not lower < upper:
        raise InputError(f"{where}: lower {lower}, expected less than upper {upper}")
    return UrdfLimit(lower, upper, velocity)


def urdf_number(element: ElementTree.Element, name: str, default: float, where: str) -> float:
    text = element.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise InputError(f"{where}: {name} {text!r}, expected a number")
    return value
