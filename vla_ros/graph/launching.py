"""Shared by the launch files, and imported only by them: it needs `launch` and `launch_ros`.

The nodes configure and activate themselves (nodes/autostart.py): launch's own lifecycle events are lost if a node is
faster than discovery, and a transition that waits for a driver would be an error of the launch once a second. The
launch file handles the end: a node that ends unexpectedly ends the launch, with the node's last error and a non-zero
status.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, RegisterEventHandler
from launch.event_handlers import OnProcessIO
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from vla_ros.nodes.ending import LAUNCHER

REFUSED = 2  # status of a node that refuses its parameters or files; a restart would not help
_ERROR = re.compile(r"\[(?:ERROR|FATAL)\] (?:\[[^]]*\] \[[^]]*\]: )?([^\x1b\r\n]*)")  # time and node's name left out
_LEVELS = ("debug", "info", "warn", "error", "fatal")
_SWITCH = {"true": True, "false": False}


def declare(arguments: Mapping[str, tuple[str | None, str]]) -> list[DeclareLaunchArgument]:
    """name -> (default, None for an argument that must be given; what it is)."""
    return [DeclareLaunchArgument(name, default_value=default, description=description)
            for name, (default, description) in arguments.items()]  # fmt: skip


def given(context: LaunchContext, name: str, kind: type = str) -> Any:
    """The value of an argument as a `kind`; None if it is empty, so that parameter files decide."""
    text = LaunchConfiguration(name).perform(context).strip()
    if not text:
        return None
    try:
        return _SWITCH[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        expected = "true or false" if kind is bool else f"a value of type {kind.__name__}"
        raise RuntimeError(f"argument {name}: {text!r}, expected {expected}") from None


def node(
    context: LaunchContext,
    name: str,
    parameters: Mapping[str, Any],
    *,
    file: str | None = None,
    defaults: Sequence[str] = (),
    respawn: bool = False,
    needed: bool = True,
) -> list:
    """The actions for a node of this package, configured and activated by itself.

    Args:
        parameters: those that are None are left to `file` and to the node.
        file: a parameter file.
        defaults: NAME:=VALUE of parameters that `file` may still change.
        respawn: start it again when it ends.
        needed: without it the launch ends.
    """
    if file and not Path(file).is_file():  # launch would continue without it
        raise RuntimeError(f"parameter file of {name} {file!r}: no such file")
    arguments = ["--enclave", f"{LaunchConfiguration('enclaves').perform(context)}/{name}"]
    for default in ("autostart:=true", *defaults):
        arguments += ["-p", default]
    namespace = LaunchConfiguration("namespace").perform(context).strip("/")
    if level := given(context, "log_level"):
        if level.lower() not in _LEVELS:
            raise RuntimeError(f"argument log_level: {level!r}, expected one of {', '.join(_LEVELS)}")
        # Only of the node's own logger: at debug the middleware logs some lines per message, and the node falls behind.
        logger = ".".join([*filter(None, namespace.split("/")), name])
        arguments += ["--log-level", f"{logger}:={level}"]
    common = {"autostart": given(context, "autostart", bool), "use_sim_time": given(context, "use_sim_time", bool)}
    values = {
        key: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for key, value in {**common, **parameters}.items()
        if value is not None
    }
    said: list[str] = []

    def listen(event: Any) -> None:
        said.extend(_ERROR.findall(event.text.decode(errors="replace")))
        del said[:-1]

    def ended(event: Any, context: LaunchContext) -> None:
        if needed and not context.is_shutdown and (event.returncode == REFUSED or not respawn):
            # Only an exception makes launch end with a non-zero status.
            raise RuntimeError(f"{name}: {said[-1] if said else f'ended with status {event.returncode}'}")

    made = Node(
        package="vla_ros",
        executable=name,
        name=name,
        namespace=LaunchConfiguration("namespace"),
        parameters=[*([file] if file else []), *([values] if values else [])],
        ros_arguments=arguments,
        output="both",
        emulate_tty=True,
        additional_env={LAUNCHER: str(os.getpid())},  # a launch that is killed leaves its nodes running
        sigterm_timeout="15",  # the executor brakes first
        respawn=respawn,
        respawn_delay=2.0,
        on_exit=ended,
    )
    return [RegisterEventHandler(OnProcessIO(target_action=made, on_stdout=listen, on_stderr=listen)), made]
