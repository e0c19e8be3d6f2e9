"""How a policy is loaded or rebuilt, and what a checkpoint contains besides sizes and weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vla_ros.core.chunk import PATH
from vla_ros.core.errors import InputError, shown
from vla_ros.core.hub import no_folder
from vla_ros.core.records import read_mapping
from vla_ros.core.robot import RobotSpec
from vla_ros.core.tool import pose_names
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.formats.pickles import hint
from vla_ros.policies.normalisation import Normalisation, Statistics, read_statistics
from vla_ros.policies.rows import Rows
from vla_ros.policies.tokenizer import Tokenizer
from vla_ros.policies.tool_actions import ToolActions

STATE, ACTION = "observation.state", "action"


@dataclass(frozen=True)
class TrainingData:
    """What a policy takes from the dataset it will be trained on.

    Attributes:
        joints: J names in the order of states.
        cameras: names of the cameras.
        step_dt: s between frames; the step of a policy that does not define its own.
        statistics: "observation.state", "action" -> mean, std, min, max, q01, q99, each (J,); for "action" one number
            for each of `actions`.
        instructions: the distinct instructions.
        streams: further streams that the dataset has -> shape of a value.
        hold: those of the joints that have no actions.
        rows: states and actions themselves, from which statistics of differences are computed.
        tool: which of the actions (the first ones) are a tool's; the joints that move it are in `hold`.
        path: axis -> velocity of the base whose actions become a path; None: they are velocities.
    """

    joints: tuple[str, ...]
    cameras: tuple[str, ...]
    step_dt: float
    statistics: Statistics
    instructions: tuple[str, ...]
    streams: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    hold: tuple[str, ...] = ()
    rows: Rows | None = None
    tool: ToolActions | None = None
    path: Mapping[str, str] | None = None

    @property
    def commanded(self) -> tuple[str, ...]:
        """Those of the joints that have actions, in the same order."""
        return tuple(name for name in self.joints if name not in self.hold)

    @property
    def actions(self) -> tuple[str, ...]:
        """Names of an action's numbers: the tool's pose, then `commanded`."""
        return (*(pose_names(self.tool.rotation) if self.tool else ()), *self.commanded)

    @property
    def widths(self) -> tuple[int, int]:
        """How many numbers a state and an action have."""
        return len(self.joints), self.action_dim

    @property
    def action_dim(self) -> int:
        """How many numbers a policy's action has: x, y and yaw replace the velocities of a path."""
        return len(self.actions) + (len(PATH) - len(self.path) if self.path else 0)

    def check_path(self) -> None:
        """Raises InputError unless the velocities of the path have actions."""
        if missing := [name for name in (self.path or {}).values() if name not in self.commanded]:
            raise InputError(f"path: {missing[0]!r}, expected velocities of the base that have actions in the dataset, "
                             f"some of {shown(list(self.commanded))}")


@dataclass(frozen=True)
class LoadOptions:
    """How to load.

    Attributes:
        device, dtype: where the weights go and their type, except for `Policy.float32`; None: float32.
        embodiment: how the robot's cameras and joints map to the policy's; None: as the checkpoint says.
        robot: its joints give the order of states and targets; without an embodiment, these names also map a checkpoint
            that does not name its robot's joints.
        data: the dataset it will be trained on, in place of the robot.
        base: if the checkpoint is a LoRA adapter, the folder of the policy that it was trained on.
        tokenizer: folder or file of the prompt's tokenizer; None: the checkpoint's.
        step_dt: s between action rows, overrides checkpoint and embodiment.
        overrides: what the checkpoint does not say or says wrongly: `statistics` (a file, or the name of a set in the
            checkpoint) and the names that the family declares.
        without_statistics: a checkpoint that lacks them is loaded too; the caller sets them.
    """

    device: torch.device | str = "cpu"
    dtype: torch.dtype | None = None
    embodiment: Embodiment | None = None
    base: Path | None = None
    tokenizer: str | Path | None = None
    robot: RobotSpec | None = None
    data: TrainingData | None = None
    step_dt: float | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    without_statistics: bool = False

    @property
    def names(self) -> tuple[str, tuple[str, ...], tuple[str, ...]] | None:
        """(source, joints, cameras) of the robot or of the dataset; None without either."""
        if self.robot is not None:
            return f"robot {self.robot.name}", self.robot.joint_names, self.robot.camera_names
        return ("the dataset", self.data.joints, self.data.cameras) if self.data is not None else None

    @property
    def hold(self) -> tuple[str, ...]:
        """Those of the joints of `names` that have no actions."""
        return self.data.hold if self.robot is None and self.data is not None else ()

    @property
    def serves(self) -> bool:
        """Whether everything that serving or training needs is required; otherwise the policy is only measured or
        described."""
        return self.embodiment is not None or self.names is not None

    @property
    def file_of_statistics(self) -> Path | None:
        """The file that `overrides` names, if it names one."""
        said = self.overrides.get("statistics")
        return Path(said) if said is not None and Path(said).is_file() else None

    def statistics(self, sets: bool = False) -> Statistics | None:
        """Those of the file that `overrides` names; None if it names none (or one of the `sets`).

        Raises InputError.
        """
        said = self.overrides.get("statistics")
        file = self.file_of_statistics
        if said is None or sets and str(said) and file is None:
            return None
        if file is None:
            raise InputError(f"overrides.statistics {str(said)!r}: no such file")
        return read_statistics(file, (STATE, ACTION))


@dataclass(frozen=True)
class Parts:
    """What a checkpoint folder contains besides sizes and weights.

    Attributes:
        state, actions: normalisations in the policy's units.
        images: image name -> mean and std of its pixels in [0, 1], (3,) each.
        fit: how images are resized, a key of `images.FITS`.
        tokenizer: of the prompt, where the policy reads tokens.
        no_statistics: why normalisations have no statistics; "" if they have.
        missing: what else is missing for serving, and what to do about it.
        notes: for the user.
    """

    embodiment: Embodiment
    state: Normalisation
    actions: Normalisation
    images: Statistics
    fit: str
    tokenizer: Tokenizer | None = None
    no_statistics: str = ""
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_config(path: Path) -> dict[str, Any]:
    """`config.json` of a checkpoint folder. Raises InputError."""
    if not path.is_dir():
        raise InputError(f"checkpoint {path}: {no_folder(path)}")
    if not (path / "config.json").exists():
        if (path / "adapter_config.json").exists():
            raise InputError(f"checkpoint {path}: a PEFT adapter without the policy's config.json, expected that of "
                             "its base beside it")
        inner = sorted(file.parent.name for file in path.glob("*/config.json"))
        there = f"; there is one in {' and in '.join(inner[:3])}: name that folder" if inner else ""
        raise InputError(f"checkpoint {path}: config.json is missing{hint(path) or there}")
    return read_mapping(path / "config.json", "checkpoint")
