"""One process of a graph, and how several are ended together."""

import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vla_ros import without_working_directory
from vla_ros.core.errors import InputError
from vla_ros.core.records import read_mapping
from vla_ros.nodes.ending import PARENT_PIPE
from vla_ros.nodes.security import enclave_arguments

_PREFIX = re.compile(r"^\[(ERROR|FATAL)\] (\[[^]]*\]( \[[^]]*\])?: )?(\w+ refused: )?")  # time and node's name
_LINES = 8


@dataclass
class Process:
    """A node's process and its private log file."""

    name: str
    popen: subprocess.Popen
    log: Path
    clients: dict[str, Any] = field(default_factory=dict)

    def errors(self) -> str:
        """The last different errors of the log; its last lines where none is. One line where that is all."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = list(dict.fromkeys(_PREFIX.sub("", line) for line in lines if _PREFIX.match(line)))
        last = said[-_LINES:] or lines[-_LINES:]
        return last[0] if len(last) == 1 else "\n".join(["", *last])


def signal_all(processes: Sequence[Process], number: int, patience: float) -> None:
    """Signal those that still run and wait for their end, `patience` s at most."""
    for process in processes:
        if process.popen.poll() is None:
            process.popen.send_signal(number)
    end = time.monotonic() + patience
    for process in processes:
        try:
            process.popen.wait(timeout=max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            continue


def check_namespace(namespace: str) -> None:
    """Raises InputError for what ROS does not take as a namespace."""
    for token in namespace.strip("/").split("/") if namespace.strip("/") else ():
        if not token.isascii() or not token.isidentifier() or "__" in token:
            raise InputError(f"namespace {namespace!r}: {token!r}, expected letters, digits and _, a letter first")


def node_command(name: str, module: str, namespace: str, files: Sequence[str | Path]) -> list[str]:
    """The command that runs `module` as node `name`. Raises InputError for a parameter file that is none."""
    rules = {"__node": name} | ({"__ns": f"/{namespace.strip('/')}"} if namespace else {})
    command = [sys.executable, "-P", "-m", module, *enclave_arguments(name)]
    for old, new in rules.items():
        command += ["-r", f"{old}:={new}"]
    for path in files:
        read_mapping(path, "parameter file")
        command += ["--params-file", str(path)]
    return command


def start_process(
    folder: Path,
    name: str,
    module: str,
    namespace: str,
    parameters: Mapping[str, Any],
    files: Sequence[str | Path],
    environment: Mapping[str, str],
    parent: int,
) -> Process:
    """A node's process; its parameters and its log are files of `folder`. It ends once the pipe `parent` closes."""
    own = folder / f"{name}.yaml"
    own.write_text(yaml.safe_dump({"/**": {"ros__parameters": dict(parameters)}}), encoding="utf-8")
    command = node_command(name, module, namespace, [*files, *([own] if parameters else [])])
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=without_working_directory(environment) | {PARENT_PIPE: str(parent)},
            pass_fds=[parent],
            start_new_session=True,  # the terminal's Ctrl-C reaches us alone, and we end the nodes in order
        )
    return Process(name, popen, log)
