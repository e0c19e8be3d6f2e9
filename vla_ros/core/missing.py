"""What to install if a module cannot be imported. Needs only the standard library."""

import os
import sys
from pathlib import Path

# File of requirements/ -> the modules that its packages bring.
MODULES = {
    "base": ("numpy", "torch", "transformers", "tokenizers", "sentencepiece", "safetensors", "diffusers", "cv2", "PIL",
             "yaml", "rich"),
    "bags": ("rosbags", "mcap", "av", "pyarrow", "matplotlib"),
    "train": ("peft", "tensorboardX"),
    "sim": ("mujoco",),
    "tool": ("pinocchio",),
    "remote": ("websockets", "msgpack"),
    "view": ("rerun",),
}  # fmt: skip
# Dependencies of package.xml, which are not in workspace.txt.
_DISTRIBUTION = ("numpy", "cv2", "PIL", "yaml", "rich", "matplotlib", "pinocchio")
_ROS = ("rclpy", "ament_index_python", "builtin_interfaces", "rcl_interfaces", "std_srvs")


def what_to_install(error: BaseException) -> str:
    """One line for a ModuleNotFoundError of a package that vla_ros needs; "" for any other error."""
    if not isinstance(error, ModuleNotFoundError):
        return ""
    module = (error.name or "").split(".")[0]
    if module in _ROS or module.endswith("_msgs"):
        return (f"{module} cannot be imported by {sys.executable}: source ROS 2 (/opt/ros/DISTRO/setup.bash and the "
                "workspace's install/setup.bash, or scripts/env.sh of the source tree)")
    needed = next((name for name, modules in MODULES.items() if module in modules), "")
    if not needed:
        return ""
    sourced = os.environ.get("ROS_DISTRO")
    if sourced and module in _DISTRIBUTION:  # its messages are built with its numpy
        return (f"{module} is not installed for {sys.executable}: rosdep install --from-paths src --ignore-src, in a "
                "virtual environment that sees the system's packages (README.md, Quick start)")
    name = "workspace" if sourced and needed not in ("train", "remote", "view") else needed
    return f"{module} is not installed for {sys.executable}: pip install -r {_folder() / name}.txt, in a virtual " \
           "environment (README.md, Quick start)"


def _folder() -> Path:
    """The folder of the requirements files: in the source tree, or where it was installed."""
    prefixes = [prefix for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    shares = [Path(prefix, "share", "vla_ros", "requirements") for prefix in (*prefixes, sys.prefix)]
    folders = [Path(__file__).parents[2] / "requirements", *shares]
    return next((folder for folder in folders if folder.is_dir()), Path("requirements"))
