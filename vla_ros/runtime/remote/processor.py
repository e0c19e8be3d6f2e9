"""Samples to the observations that a server reads, and its answers to targets of the robot."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from vla_ros.core.chunk import Part, Space, Targets
from vla_ros.core.errors import InputError, shown
from vla_ros.core.observation import Sample
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import JOINT_STATES
from vla_ros.messages.compressed import compressed_size, decompress
from vla_ros.messages.images import jpeg
from vla_ros.policies.images import FITS
from vla_ros.policies.processor import Interface
from vla_ros.policies.server_file import Keys, ServerFile
from vla_ros.runtime.remote.described import Described, find, put

MOST_ROWS = 10_000  # of a chunk
QUALITY = 95  # of JPEG


class FileProcessor(Interface):
    """For a server that a policy file describes: one image of each camera and one state, all at the same time."""

    def __init__(self, file: ServerFile, robot: RobotSpec) -> None:
        """Raises InputError if keys and dimensions of the file do not fit."""
        if file.images != "raw":
            raise InputError(f"images {file.images} of server {file.server}: only our servers accept it; "
                             "" "expected raw")
        self._file, self.embodiment = file, file.embodiment.in_order(robot.joint_names)
        self.joints, self.step_dt, self.horizon = self.embodiment.joints, self.embodiment.step_dt, 0
        self.cameras = tuple(dict.fromkeys(c for c in self.embodiment.cameras.values() if c is not None))
        width = len(self.embodiment.state)
        self._state = file.keys.state or ({"observation/state": width} if width else {})
        if sum(self._state.values()) != width:
            raise InputError(f"keys.state {dict(self._state)}: {sum(self._state.values())} numbers, expected {width} "
                             "as `state` has")
        if file.keys.cameras:
            raise InputError("keys.cameras: not here, `cameras` of the policy file holds the keys of the images")

    def request(self, sample: Sample) -> dict[str, Any]:
        """The observation for the server."""
        message: dict[str, Any] = {}
        for key, camera in self.embodiment.cameras.items():
            if camera is not None:
                put(message, key, _image(sample.images[camera][-1], self._file, self._file.keys.channels_first))
        _put_state(message, self._state, self.embodiment.state_to_policy(sample.state[-1]))
        put(message, self._file.keys.prompt, sample.instruction)
        return message

    def targets(self, answer: Any, sample: Sample) -> Targets:
        """What the server answered, H rows. Raises InputError if that is not a chunk."""
        actions = read_actions(answer, self._file.keys.actions, len(self.embodiment.actions))
        return self.embodiment.targets(actions[None], np.asarray(sample.state[-1:], np.float64))[0]


class OwnProcessor(Interface):
    """For our server, which describes itself; it gets all observation steps with each request."""

    def __init__(self, file: ServerFile, described: Described, robot: RobotSpec) -> None:
        """Raises InputError if it reads a camera for which `described` has no key."""
        self._file, self._said = file, described
        ordered = sorted(described.joints) == sorted(robot.joint_names)
        self.joints = robot.joint_names if ordered else described.joints  # `check_robot` says which are missing
        self._order = [self.joints.index(name) for name in described.joints]
        self.cameras = tuple(dict.fromkeys(described.keys.cameras.values()))
        self.streams, self.step_dt, self.horizon = tuple(described.streams), described.step_dt, described.horizon
        unknown = set(described.steps) - {*self.cameras, *self.streams, JOINT_STATES}
        if unknown or set(self.cameras) - set(described.steps):
            raise InputError(f"it reads {sorted(described.steps)}, and has keys for {sorted(self.cameras)} and "
                             f"{sorted(self.streams)}")

    @property
    def tool(self) -> tuple[str, str] | None:
        return self._said.tool

    @property
    def path(self) -> bool:
        return self._said.path

    def steps(self, training: bool = False) -> dict[str, tuple[int, ...]]:
        return dict(self._said.steps)

    def request(self, sample: Sample) -> dict[str, Any]:
        """The observation for the server; images and values have a leading axis of steps."""
        message: dict[str, Any] = {}
        keys = self._said.keys
        for key, camera in keys.cameras.items():
            images = [_image(image, self._file, keys.channels_first) for image in sample.images[camera]]
            put(message, key, np.stack(images) if self._file.images == "raw" else images)
        _put_state(message, keys.state, np.asarray(sample.state, np.float64)[:, self._order])
        for name, key in self._said.streams.items():
            for reading in (name, f"{name}_count"):
                if reading in sample.values:
                    put(message, key + reading.removeprefix(name), sample.values[reading])
        put(message, keys.prompt, sample.instruction)
        return message

    def targets(self, answer: Any, sample: Sample) -> Targets:
        """What the server answered, H rows. Raises InputError if that is not a chunk."""
        parts, first = [], 0
        actions = read_actions(answer, self._said.keys.actions, sum(len(part.names) for part in self._said.parts))
        for part in self._said.parts:
            rows = actions[:, first : first + len(part.names)]
            parts.append(Part(part.names, rows, Space[part.space], part.group, part.frame))
            first += len(part.names)
        return Targets(tuple(parts))


def read_actions(answer: Any, key: str, width: int) -> np.ndarray:
    """(H, width) float64 of a server's answer. Raises InputError for anything else."""
    actions = find(answer, key)
    if actions is None:
        has = sorted(map(shown, answer)) if isinstance(answer, dict) else type(answer).__name__
        raise InputError(f"no {key!r} in its answer, which has {shown(has)}")
    if not isinstance(actions, np.ndarray) or actions.dtype.kind not in "fiu" or actions.ndim != 2:
        what = f"{actions.dtype} of shape {actions.shape}" if isinstance(actions, np.ndarray) else shown(actions)
        raise InputError(f"{key!r} of its answer: {what}, expected numbers of shape (rows, {width})")
    if actions.shape[1] != width or not 1 <= len(actions) <= MOST_ROWS:
        raise InputError(f"{key!r} of its answer: shape {actions.shape}, expected (1 to {MOST_ROWS}, {width})")
    if not np.isfinite(actions).all():
        row, column = np.argwhere(~np.isfinite(actions))[0]
        raise InputError(f"{key!r} of its answer: row {row}, column {column} is {actions[row, column]}, expected a "
                         "finite number")
    return actions.astype(np.float64)


def read_image(image: Any, channels_first: bool, what: str) -> np.ndarray:
    """(height, width, 3) uint8 RGB of what a client sent for one image: pixels, or the bytes of a JPEG or PNG.

    Raises InputError.
    """
    flat = isinstance(image, np.ndarray) and image.ndim == 1 and image.dtype == np.uint8
    if isinstance(image, bytes) or flat:
        compressed_size(image)
        return cv2.cvtColor(decompress(image, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape:
        got = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else shown(image)
        raise InputError(f"{what}: {got}, expected an image, uint8, or the bytes of a JPEG")
    # openpi's clients send what their training data had; its servers look at the shape, too.
    if channels_first or image.shape[0] == 3 != image.shape[2]:
        image = image.transpose(1, 2, 0)
    if image.shape[2] != 3:
        raise InputError(f"{what}: shape {image.shape}, expected three channels")
    return np.ascontiguousarray(image)


def _image(image: np.ndarray, file: ServerFile, channels_first: bool) -> Any:
    """(height, width, 3) uint8 as it travels."""
    if file.image_size is not None:
        image = FITS[file.image_fit].resize(image, *file.image_size)
    if file.images == "jpeg":
        return jpeg(image, QUALITY)
    return np.ascontiguousarray(image.transpose(2, 0, 1)) if channels_first else image


def _put_state(message: dict[str, Any], keys: Mapping[str, int], state: np.ndarray) -> None:
    """(..., J) numbers under their keys."""
    first = 0
    for key, count in keys.items():
        put(message, key, np.ascontiguousarray(state[..., first : first + count]))
        first += count


def default_keys(cameras: Sequence[str], joints: Sequence[str]) -> Keys:
    """Those of a server that was told no other: "observation/CAMERA", "observation/state", "prompt", "actions"."""
    return Keys({f"observation/{name}": name for name in cameras}, {"observation/state": len(joints)})
