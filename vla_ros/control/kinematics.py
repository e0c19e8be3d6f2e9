"""Forward kinematics over the tree of a URDF."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from vla_ros.control.urdf import parse_urdf, urdf_number
from vla_ros.core.errors import InputError, shown

MOVING = ("revolute", "continuous", "prismatic")
MOST_LINKS = 2000


@dataclass(frozen=True)
class Mimic:
    """position = multiplier * position of `joint` + offset, rad or m."""

    joint: str
    multiplier: float
    offset: float


@dataclass(frozen=True)
class TreeJoint:
    """A joint of the tree, named as its URDF names it.

    Attributes:
        origin: (4, 4), pose of the child in the parent's frame where the joint is at zero.
        axis: (3,), of length 1, in the child's frame.
    """

    name: str
    kind: str
    parent: str
    child: str
    origin: np.ndarray
    axis: np.ndarray
    mimic: Mimic | None

    def motion(self, position: np.ndarray) -> np.ndarray:
        """(..., 4, 4) pose of the child in the parent's frame, for positions (...) in rad or m."""
        position = np.asarray(position, dtype=np.float64)
        moved = np.zeros((*position.shape, 4, 4))
        moved[...] = np.eye(4)
        if self.kind == "prismatic":
            moved[..., :3, 3] = position[..., None] * self.axis
        elif self.kind in MOVING:
            x, y, z = self.axis
            cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
            sine, cosine = np.sin(position)[..., None, None], np.cos(position)[..., None, None]
            moved[..., :3, :3] = np.eye(3) + sine * cross + (1.0 - cosine) * cross @ cross
        return self.origin @ moved


class Kinematics:
    """The tree of a URDF, from a file or the text itself. Raises InputError if it is not a tree.

    Attributes:
        root: the link that has no parent.
        joints: parents before their children, fixed ones too.
    """

    def __init__(self, source: str | Path) -> None:
        element, where = parse_urdf(source)
        links = [link.get("name", "") for link in element.iterfind("link")]
        if len(links) > MOST_LINKS:
            raise InputError(f"{where}: {len(links)} links, expected at most {MOST_LINKS}")
        known = {}
        for item in element.iterfind("joint"):
            joint = _joint(item, f"{where}: joint {shown(item.get('name', ''))}")
            for link in (joint.parent, joint.child):
                if link not in links:
                    raise InputError(f"{where}: joint {joint.name}: link {shown(link)}, expected one of the file's")
            if joint.child in known:
                raise InputError(f"{where}: link {joint.child} is the child of two joints, expected a tree")
            known[joint.child] = joint
        roots = [link for link in links if link not in known]
        if len(roots) != 1:
            raise InputError(f"{where}: links without a parent: {shown(roots)}, expected one")
        self.root = roots[0]
        self.joints: list[TreeJoint] = []
        level = [self.root]
        while level:
            below = [joint for joint in known.values() if joint.parent in level]
            self.joints += below
            level = [joint.child for joint in below]
        if len(self.joints) < len(known):
            raise InputError(f"{where}: links in a ring, expected a tree")

    def poses(self, positions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Link -> (..., 4, 4) pose in the root's frame. Joint -> (...) positions, rad or m; others are at zero."""
        found = {self.root: np.eye(4)}
        for joint in self.joints:
            found[joint.child] = found[joint.parent] @ joint.motion(self.position(joint, positions))
        return found

    def pose(self, link: str, frame: str, positions: Mapping[str, np.ndarray]) -> np.ndarray:
        """(..., 4, 4) pose of a link in another link's frame; `positions` as of `poses`."""
        poses = self.poses(positions)
        return np.linalg.inv(poses[frame]) @ poses[link]

    def position(self, joint: TreeJoint, positions: Mapping[str, np.ndarray]) -> np.ndarray:
        """(...) position of a joint; of a mimic joint, computed from the joint that it follows; zero for an unknown
        joint."""
        if joint.mimic is None or joint.name in positions:
            return np.asarray(positions.get(joint.name, 0.0))
        return joint.mimic.multiplier * np.asarray(positions.get(joint.mimic.joint, 0.0)) + joint.mimic.offset

    def tips(self, moved: Collection[str]) -> list[str]:
        """The ends of the chains that the joints `moved` move: of the last joint of each, the link furthest from it."""
        poses, below = self.poses({}), {joint.child: [joint.child] for joint in self.joints}
        last = []
        for joint in reversed(self.joints):  # children before their parents
            links = below[joint.child]
            if joint.name in moved and links[0]:
                distances = [np.linalg.norm(poses[link][:3, 3] - poses[joint.child][:3, 3]) for link in links]
                last.append(links[int(np.argmax(distances))])
            if joint.parent in below:
                taken = joint.name in moved or not links[0]
                below[joint.parent] = [""] if taken or not below[joint.parent][0] else below[joint.parent] + links
        return last[::-1]


def _joint(item: ElementTree.Element, where: str) -> TreeJoint:
    origin, axis, mimic = item.find("origin"), item.find("axis"), item.find("mimic")
    pose = np.eye(4)
    if origin is not None:
        pose[:3, :3] = _rotation(_triple(origin, "rpy", "0 0 0", where))
        pose[:3, 3] = _triple(origin, "xyz", "0 0 0", where)
    along = np.array([1.0, 0.0, 0.0]) if axis is None else _triple(axis, "xyz", "1 0 0", where)
    kind, length = item.get("type", ""), float(np.linalg.norm(along))
    if kind in MOVING and not length > 0:
        raise InputError(f"{where}: axis {along}, expected a direction")
    follows = None
    if mimic is not None:
        factors = (urdf_number(mimic, name, default, where) for name, default in (("multiplier", 1.0), ("offset", 0.0)))
        follows = Mimic(mimic.get("joint", ""), *factors)
    ends = [getattr(item.find(end), "attrib", {}).get("link", "") for end in ("parent", "child")]
    return TreeJoint(item.get("name", ""), kind, *ends, pose, along / (length or 1.0), follows)


def _triple(element: ElementTree.Element, name: str, default: str, where: str) -> np.ndarray:
    text = element.get(name, default)
    try:
        values = np.array([float(word) for word in text.split()])
    except ValueError:
        values = np.zeros(0)
    if values.shape != (3,) or not np.isfinite(values).all():
        raise InputError(f"{where}: {name} {shown(text)}, expected three numbers")
    return values


def _rotation(rpy: np.ndarray) -> np.ndarray:
    """(3, 3) from roll, pitch and yaw about fixed axes, rad."""
    (r, p, y), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    return np.array(
        [[y * p, y * sp * sr - sy * r, y * sp * r + sy * sr], [sy * p, sy * sp * sr + y * r, sy * sp * r - y * sr],
         [-sp, p * sr, p * r]]
    )  # fmt: skip


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """(4,) x, y, z, w of a (3, 3) rotation."""
    m = rotation
    # The largest of the four squares is far from zero, so dividing by its root is safe.
    squares = np.array([1 + m[0, 0] - m[1, 1] - m[2, 2], 1 - m[0, 0] + m[1, 1] - m[2, 2],
                        1 - m[0, 0] - m[1, 1] + m[2, 2], 1 + m[0, 0] + m[1, 1] + m[2, 2]])  # fmt: skip
    x, y, z = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
    a, b, c = m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1]
    k = int(squares.argmax())
    rows = ([squares[0], a, b, x], [a, squares[1], c, y], [b, c, squares[2], z], [x, y, z, squares[3]])
    return np.array(rows[k]) / (2.0 * np.sqrt(squares[k]))
