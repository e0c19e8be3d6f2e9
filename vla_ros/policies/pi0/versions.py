"""Which version of LeRobot wrote a folder of π0: versions differ in how they pad images and build prompts, and no
folder contains its version."""

from dataclasses import dataclass

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import read_mapping
from vla_ros.policies.formats.adapter import open_tensors
from vla_ros.policies.formats.lerobot import LeRobotFolder
from vla_ros.policies.options import LoadOptions
from vla_ros.policies.pi0.names import is_old

UNTIL_0_3 = ("resize_imgs_with_padding", "proj_width", "num_steps", "attention_implementation", "adapt_to_pi_aloha")


@dataclass(frozen=True)
class Version:
    """Differences between LeRobot's versions.

    Attributes:
        fit: how images are resized, a key of `images.FITS`.
        padded_state: π0.5's prompt contains the padding of the state too.
    """

    fit: str
    padded_state: bool = False

    def prompt(self, adaptive: bool) -> str:
        """The kind of prompt, for π0.5 where `adaptive`."""
        return "pi0_verbatim" if not adaptive else "pi05_padded" if self.padded_state else "pi05"


VERSIONS = {
    "0.3": Version("pad_unrounded_top_left"),
    "0.4": Version("pad_unrounded_minus_3", padded_state=True),
    "0.5": Version("pad_unrounded"),
}


def find_version(folder: LeRobotFolder, options: LoadOptions) -> tuple[Version, str]:
    """The version that is assumed, and a note on which and why. Raises InputError for an unknown override."""
    said = options.overrides.get("lerobot_version")
    name, why = _evidence(folder, options) if said is None else (str(said), "overrides.lerobot_version says so")
    if name not in VERSIONS:
        raise InputError(f"overrides.lerobot_version {shown(said)}, expected one of {sorted(VERSIONS)}")
    return VERSIONS[name], f"images and prompts as in LeRobot {name}, since {why}"


def _evidence(folder: LeRobotFolder, options: LoadOptions) -> tuple[str, str]:
    config = folder.config
    if old := next((name for name in UNTIL_0_3 if name in config), None):
        return "0.3", f"config.json has {old}"
    # An adapter's base may be older than the version that trained the adapter.
    if options.base is None and any(is_old(key) for key in open_tensors(folder.path, None)[0].shapes):
        return "0.3", "its tensors have the names of that version"
    if "use_relative_actions" in config:
        return "0.5", "config.json has use_relative_actions"
    if "empty_cameras" in config:  # written by a class of LeRobot, 0.4 to 0.5.0
        training = folder.path / "train_config.json"
        if training.exists() and "cudnn_deterministic" in read_mapping(training, "checkpoint"):
            return "0.5", "train_config.json has cudnn_deterministic"
        return "0.4", ("config.json has no use_relative_actions, which LeRobot writes since 0.5.1, and no "
                       "train_config.json says that 0.5.0 wrote it; overrides.lerobot_version says otherwise")
    return "0.5", "it was converted from openpi's: it lacks fields that every LeRobot writes"
