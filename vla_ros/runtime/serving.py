"""From what a user names (a checkpoint folder or a policy file, a robot, a device) to a session that is warm."""

from pathlib import Path

from vla_ros.core.robot import RobotSpec
from vla_ros.policies.embodiment import check_robot
from vla_ros.policies.policy import LoadedPolicy
from vla_ros.policies.registry import load
from vla_ros.runtime.devices import resolve_device, resolve_dtype
from vla_ros.runtime.session import PolicySession, SessionOptions, example_sample


def open_policy(
    path: str | Path, robot: RobotSpec, device: str = "auto", dtype: str = "auto", tokenizer: str | None = None
) -> LoadedPolicy:
    """Load a policy and check it against the robot. Raises InputError that names what does not fit."""
    target = resolve_device(device)
    kind = resolve_dtype(dtype, target)
    loaded = load(Path(path).expanduser(), device=target, dtype=kind, tokenizer=tokenizer, robot=robot)
    check_robot(loaded.processor, robot)
    return loaded


def open_session(
    path: str | Path,
    robot: RobotSpec,
    device: str = "auto",
    dtype: str = "auto",
    options: SessionOptions | None = None,
    tokenizer: str | None = None,
) -> PolicySession:
    """`open_policy` and a warm-up, so that the first inference takes as long as every other. Raises InputError."""
    session = PolicySession(open_policy(path, robot, device, dtype, tokenizer), options)
    session.warm_up(example_sample(robot, session.processor))
    return session
