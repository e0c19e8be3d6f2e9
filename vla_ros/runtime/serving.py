"""Make a warmed-up session from a checkpoint folder or policy file, a robot and a device."""

from pathlib import Path
from typing import TYPE_CHECKING, Union

import torch

from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.policies.processor import Interface
from vla_ros.policies.registry import LoadedPolicy, LoadOptions, load, resolve
from vla_ros.policies.server_file import ServerFile, read_server
from vla_ros.runtime.float8 import convert, require_float8
from vla_ros.runtime.history import example_sample
from vla_ros.runtime.session import PolicySession, SessionOptions

if TYPE_CHECKING:
    from vla_ros.runtime.remote.session import RemoteSession

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FLOAT8 = "float8"  # of large products, the rest is bfloat16


def open_policy(
    path: str | Path, robot: RobotSpec, device: str = "auto", dtype: str = "auto", tokenizer: str | None = None
) -> LoadedPolicy:
    """Load a policy and check it against the robot. Raises InputError that names what does not fit."""
    target = resolve_device(device)
    kind = resolve_dtype(dtype, target)
    loaded = load(path, device=target, dtype=kind, tokenizer=tokenizer, robot=robot)
    check_robot(loaded.processor, robot)
    if dtype == FLOAT8:
        convert(loaded, resolve(path, LoadOptions())[0], example_sample(robot, loaded.processor))
    return loaded


def open_session(
    path: str | Path, robot: RobotSpec, device: str = "auto", dtype: str = "auto",
    options: SessionOptions | None = None, tokenizer: str | None = None,
) -> Union[PolicySession, "RemoteSession"]:
    """`open_policy` and a warm-up, so that the first inference takes as long as every other; or a connection to the
    server that `path` names: `ws://HOST:PORT`, or a policy file with `server`. Raises InputError."""
    server = read_server(path)
    if server is not None:
        return open_server(server, robot, device, dtype, options, tokenizer)
    loaded = open_policy(path, robot, device, dtype, tokenizer)
    tool = loaded.processor.tool
    if options and options.guided and tool and tool[0] != "pose":
        raise InputError("rtc: true, and the policy's actions are differences of a tool's pose: they count from each "
                         "chunk's own beginning, so two chunks have no rows in common; expected rtc: false, and mode "
                         "latest or ensemble of the executor")
    if options and options.guided and loaded.processor.path:
        raise InputError("rtc: true, and the policy answers a path of the base, which counts from each observation; "
                         "expected rtc: false, and mode latest or ensemble of the executor")
    session = PolicySession(loaded, options)
    session.warm_up(example_sample(robot, session.processor))
    return session


def open_server(
    server: ServerFile, robot: RobotSpec, device: str = "auto", dtype: str = "auto",
    options: SessionOptions | None = None, tokenizer: str | None = None,
) -> "RemoteSession":
    """A session of a policy on another machine, after its first answer.

    Raises InputError for options that are that machine's to choose, and for what does not fit the robot.
    """
    from vla_ros.runtime.remote.session import RemoteSession  # takes websockets and msgpack

    options = options or SessionOptions()
    for name, value, usual in (
        ("device", device, "auto"), ("dtype", dtype, "auto"), ("tokenizer", tokenizer or "", ""),
        ("num_steps", options.num_steps or 0, 0), ("compile", options.compile, False), ("graph", options.graph, True),
        ("engine", options.engine.replace("torch", "auto"), "auto"),
    ):
        if value != usual:
            raise InputError(f"{name} {value!r}: server {server.server} decides that, expected {usual!r}")
    if options.guided:
        raise InputError(f"rtc: true, and server {server.server} runs the policy, which is told of no running chunk; "
                         "expected rtc: false, and mode latest or ensemble of the executor")
    if options.roll_state:
        raise InputError(f"roll_state: true, and server {server.server} runs the policy; expected false")
    session = RemoteSession(server, robot, options.seed)
    try:
        check_robot(session.processor, robot)
        session.warm_up(example_sample(robot, session.processor))
    except BaseException:
        session.close()
        raise
    return session


def check_robot(processor: Interface, robot: RobotSpec) -> None:
    """Check that a policy can be served on a robot: its cameras exist, and its joints are the robot's, in any order.

    Raises InputError that names what does not fit.
    """
    for camera in processor.cameras:
        if camera not in robot.camera_names:
            raise InputError(f"the policy reads camera {camera!r}, robot {robot.name} has "
                             f"{list(robot.camera_names)}; map it to one of these, or to null (absent), in the policy "
                             "file")
    for stream in processor.streams:
        if stream not in robot.all_streams and stream not in processor.optional:
            raise InputError(f"the policy reads stream {stream!r}, robot {robot.name} has {sorted(robot.all_streams)}; "
                             "expected it under `streams` of the robot file")
    missing = [name for name in robot.joint_names if name not in processor.joints]
    extra = [name for name in processor.joints if name not in robot.joint_names]
    if missing or extra:
        raise InputError(f"the policy reads and commands the joints {list(processor.joints)}, robot {robot.name} has "
                         f"{list(robot.joint_names)}: "
                         f"{f'{missing} neither in actions nor in hold' if missing else f'no {extra}'}; expected each "
                         "of the robot's joints in actions or hold of the policy file")
    _check_tool(processor.tool, robot)
    _check_path(processor, robot)
    if processor.joints != robot.joint_names:  # a processor with a fixed order
        raise InputError(f"the policy works in the order {list(processor.joints)}, expected robot {robot.name}'s: "
                         f"{list(robot.joint_names)}; load it with this robot")


def _check_tool(said: tuple[str, str] | None, robot: RobotSpec) -> None:
    """Raises InputError if the policy moves a tool that the robot does not have, or in another frame."""
    if said is None:
        if group := robot.tool_group:
            raise InputError(f"the policy's actions are joint positions, robot {robot.name} commands {group.name} by "
                             f"{group.interface}; expected actions of its tool, or an interface that takes joints")
        return
    (space, frame), tool = said, robot.tool
    if tool is None:
        raise InputError(f"the policy's actions are a tool's, robot {robot.name} has none; expected `tool` in the "
                         "robot file")
    frames = (tool.frame,) if space == "pose" else (tool.frame, tool.link)
    if frame not in frames:
        expected = " or ".join(map(repr, frames))
        raise InputError(f"tool: frame {frame!r}, expected {expected}, as robot {robot.name} has it")


def _check_path(processor: Interface, robot: RobotSpec) -> None:
    """Raises InputError if the policy answers a path, and the robot has no base that follows it."""
    if not processor.path:
        return
    if robot.path_axes is None:
        raise InputError(f"the policy answers a path of the base, robot {robot.name} has no base that drives forwards "
                         "and turns; expected a group with the axes x and yaw in the robot file")
    said = getattr(getattr(processor, "embodiment", None), "path", None)
    if said and said.joints != robot.path_axes:
        raise InputError(f"path: velocities {said.joints}, robot {robot.name} has {robot.path_axes}; expected the same")


def resolve_device(name: str) -> torch.device:
    """ "auto" (the GPU if there is one), "cpu", "cuda" or "cuda:N". Raises InputError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r}, expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        found = torch.cuda.device_count()
        if (device.index or 0) >= found:
            raise InputError(f"device {name!r}: this machine has {found} CUDA device(s) that torch can use")
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """ "auto" (bfloat16 on a GPU, float32 on a CPU), "float32", "bfloat16", or "float8": bfloat16 on a GPU that has
    products of eight-bit numbers. Raises InputError."""
    if name == FLOAT8:
        require_float8(device)
        return torch.bfloat16
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise InputError(f"dtype {name!r}, expected auto, {', '.join(DTYPES)} or {FLOAT8}")
    return DTYPES[name]
