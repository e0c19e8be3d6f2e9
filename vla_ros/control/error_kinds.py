"""The kinds of errors that commands and nodes end with, each a section of docs/troubleshooting.md.

The kind of an error is that of the module that raised it, so the catalogue stays complete.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from traceback import walk_tb


@dataclass(frozen=True)
class Remedy:
    """`says`: a part of the message, as in the code; empty if only the title is shown."""

    why: str
    do: str
    says: str = ""


FILES, OPTIONS = "Files", "Options of a command"
_GIVEN = " The message names the field, its value and what was expected."
KINDS = {
    FILES: Remedy(
        "A file or folder does not exist, cannot be read or written, is too large, or is not YAML or JSON.",
        "Check the path and its permissions; `vla-ros info PATH` says what it is. A file whose first line is "
        "`version https://git-lfs.github.com/spec/v1` is a pointer of Git LFS: `git lfs pull`.",
    ),
    "Robot files": Remedy(
        "The robot file or its URDF does not exist, has an unknown field, lacks a field, or has a value out of "
        "range." + _GIVEN,
        "Correct that field; [the robot file](robot_file.md) has all of them with their units. "
        "`vla-ros info ROBOT_FILE` shows what was understood, `vla-ros robot new` writes one from a URDF.",
    ),
    "Policy and robot": Remedy(
        "The policy expects cameras, joints, units or actions that the robot does not have, or has under other names.",
        "Write a [policy file](policy_file.md) that says which camera and which joint is which, and in which unit; "
        "`vla-ros info CHECKPOINT` and `vla-ros info ROBOT_FILE` show both sides.",
    ),
    "Checkpoints": Remedy(
        "Weights, configuration, statistics or tokenizer of the checkpoint are missing, do not belong together, or say "
        "something that this family does not support.",
        "`vla-ros info CHECKPOINT` shows what was understood; [checkpoints](checkpoints.md) says which files each "
        "family needs. If a download was interrupted, download the checkpoint again.",
    ),
    "Devices and engines": Remedy(
        "The device, `dtype`, engine or blending mode is not available, or this policy cannot use it.",
        "The message names the option and what is possible; `--device cpu --engine torch` works for every family. "
        "[Run a policy](runtime.md) and [engines](engines.md).",
    ),
    "A policy on another machine": Remedy(
        "The server cannot be reached, refuses the connection, or gives an unexpected answer.",
        "Check that `vla-ros serve` runs there, and that address, port, token and certificate are the same on both "
        "sides. [A policy on another machine](serving.md).",
    ),
    "Bags": Remedy(
        "The bag is damaged or unfinished, lacks a topic, or a message in it cannot be read.",
        "`vla-ros bag show BAG` says what is in it, `vla-ros bag repair BAG` repairs one that was cut off. "
        "[Bags and datasets](bags.md).",
    ),
    "Datasets": Remedy(
        "The dataset lacks a file or a feature, or its rows, videos and statistics do not agree.",
        "`vla-ros dataset check DATASET` lists everything that is wrong with it. [Bags and datasets](bags.md).",
    ),
    "Training": Remedy(
        "The training config has a value out of range, does not fit the dataset or the checkpoint, or a run cannot be "
        "continued.",
        "Correct the field that the message names; [train](training.md) has all of them.",
    ),
    "Messages": Remedy(
        "An image or another message has an encoding, a size or values that are not supported.",
        "Change the driver's encoding, or correct the robot file; [sensors](sensors.md) lists what is supported.",
    ),
    "Parameters of nodes": Remedy(
        "A parameter is unknown, its value is out of range, or a parameter file sets nothing on these nodes.",
        "Correct it as the message says; `ros2 param describe NODE NAME` describes a parameter. "
        "[Run a policy](runtime.md).",
    ),
    "Nodes": Remedy(
        "A node ended, refused a transition, is not running, or another node has its name.",
        "`vla-ros lifecycle` lists the nodes that can be discovered, `vla-ros doctor` says what is wrong with them. "
        "Log files are in the folder that `vla-ros run` names. Domain and discovery range must be the same for all.",
    ),
    "ROS security": Remedy(
        "Keys, permissions or variables of SROS2 are missing or wrong.",
        "[Security](security.md) has the commands that create them.",
    ),
    "The simulated robot": Remedy(
        "The robot file or the task names something that the simulated arm does not have.",
        "`--robot so101` fits the simulated arm; see [the simulated robot](simulation.md).",
    ),
    "The operator's console": Remedy(
        "The address or port is in use, or the page asked for something that is not possible at the moment.",
        "Choose another `port`, or end the other program; see [the operator's console](console.md).",
    ),
    OPTIONS: Remedy(
        "A command got an option or a value that it does not accept, or needs a package that is not installed.",
        "`--help` of the command shows every option with its default, and an example.",
    ),
}
# Package or module -> kind; the longest match counts. Errors of other modules (most of `cli`) get the caller's kind.
_MODULES = {
    "bags": "Bags",
    "bench": OPTIONS,
    "cli.e_stop": "Nodes",
    "cli.info": "Checkpoints",
    "cli.lifecycle": "Nodes",
    "cli.options": OPTIONS,
    "cli.takeover": "Nodes",
    "cli.task": "Nodes",
    "control": "Robot files",
    "core": FILES,
    "core.joint_states": "Messages",
    "core.robot": "Robot files",
    "core.rotations": "Policy and robot",
    "core.stream": "Robot files",
    "datasets": "Datasets",
    "graph": "Nodes",
    "graph.security": "ROS security",
    "messages": "Messages",
    "nn": "Checkpoints",
    "nodes": "Nodes",
    "nodes.base": "Parameters of nodes",
    "nodes.console": "The operator's console",
    "nodes.console_node": "The operator's console",
    "nodes.executor.takeover": "Parameters of nodes",
    "nodes.executor.urdf_source": "Robot files",
    "nodes.parameter_files": "Parameters of nodes",
    "nodes.parameters": "Parameters of nodes",
    "nodes.qos_overrides": "Parameters of nodes",
    "nodes.security": "ROS security",
    "nodes.sim": "The simulated robot",
    "nodes.sim_node": "The simulated robot",
    "nodes.streams": "Messages",
    "policies": "Checkpoints",
    "policies.dimension": "Policy and robot",
    "policies.embodiment": "Policy and robot",
    "policies.processor": "Policy and robot",
    "policies.server_file": "A policy on another machine",
    "policies.tool_actions": "Policy and robot",
    "runtime": "Devices and engines",
    "runtime.remote": "A policy on another machine",
    "runtime.serving": "Policy and robot",
    "sim": "The simulated robot",
    "training": "Training",
}


def kind_of_module(module: str) -> str:
    """The kind of errors that a module raises; "" if the caller decides. `module`: its full name."""
    parts = module.split(".")[1:] if module.startswith("vla_ros.") else []
    return next((_MODULES[name] for end in range(len(parts), 0, -1) if (name := ".".join(parts[:end])) in _MODULES), "")


def kind_of(error: BaseException) -> str:
    """The kind of an error: that of the module that raised it, or of its caller."""
    kinds = [kind for module in _modules(error) if (kind := kind_of_module(module))]
    return next((kind for kind in kinds if kind != FILES), FILES if kinds or isinstance(error, OSError) else OPTIONS)


def _modules(error: BaseException) -> Iterator[str]:
    """The modules of its traceback, the one that raised it first. The name of a module that runs as `__main__` is in
    its spec."""
    for frame, _ in reversed([*walk_tb(error.__traceback__)]):
        yield getattr(frame.f_globals.get("__spec__"), "name", "")
