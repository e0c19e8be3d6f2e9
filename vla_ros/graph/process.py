"""One process of a graph, and how several are ended together."""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vla_ros import without_working_directory
from vla_ros.core.errors import InputError
from vla_ros.core.records import read_mapping
from vla_ros.nodes.parameter_files import sections
from vla_ros.nodes.parent import CHANNEL
from vla_ros.nodes.security import enclave_arguments

_PREFIX = re.compile(r"^\[(ERROR|FATAL)\] (\[[^]]*\]( \[[^]]*\])?: )?(\w+ refused: )?")  # time and node's name
_LINES = 8


@dataclass
class Process:
    """A node's process, its private log file, and our end of the channel to it (see `nodes.parent`)."""

    name: str
    popen: subprocess.Popen
    log: Path
    channel: socket.socket
    asked: int = 0  # requests so far
    _rest: bytes = b""

    def ask(self, **request: Any) -> None:
        """Send a request; `answer` returns its result. An earlier request is no longer waited for."""
        self.asked += 1
        try:
            self.channel.sendall(json.dumps({"id": self.asked, **request}).encode() + b"\n")
        except OSError:
            pass  # the process has ended, which the caller of `answer` notices

    def answer(self) -> dict[str, Any] | None:
        """The answer to the last request; None before it is there."""
        try:
            self._rest += self.channel.recv(65536)
        except OSError:  # nothing has come
            pass
        *lines, self._rest = self._rest.split(b"\n")
        return next((said for said in map(json.loads, lines) if said["id"] == self.asked), None)

    def errors(self) -> str:
        """The last distinct errors of the log, or its last lines if there are none."""
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
    """Raises InputError for an invalid ROS namespace."""
    for token in namespace.strip("/").split("/") if namespace.strip("/") else ():
        if not token.isascii() or not token.isidentifier() or "__" in token:
            raise InputError(f"namespace {namespace!r}: {token!r}, expected letters, digits and _, a letter first")


def node_command(name: str, module: str, namespace: str, files: Sequence[str | Path]) -> list[str]:
    """The command that runs `module` as node `name`. Raises InputError for an invalid parameter file."""
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
    defaults: Mapping[str, Any],
    files: Sequence[str | Path],
    environment: Mapping[str, str],
) -> Process:
    """A node's process, which ends once our end of its channel closes; parameters and log are files of `folder`."""
    before = _write(folder / f"{name}_defaults.yaml", "/**", defaults)
    # ROS keeps sections in the order in which their names appeared first, and the last one wins, not the last file.
    used = {section for path in (*before, *files) for section in sections(path)}
    last = next(key for key in ("/**", f"/**/{name}", "/**/**", f"/**/**/{name}") if key not in used)
    own = _write(folder / f"{name}.yaml", last, parameters)
    command = node_command(name, module, namespace, [*before, *files, *own])
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    log = folder / f"{name}.log"
    with log.open("wb") as output, theirs:
        popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=without_working_directory(environment) | {CHANNEL: str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # the terminal's Ctrl-C reaches only this process, which ends the nodes in order
        )
    return Process(name, popen, log, ours)


def _write(path: Path, section: str, parameters: Mapping[str, Any]) -> list[Path]:
    """A parameter file; none where there is nothing to write."""
    if not parameters:
        return []
    path.write_text(yaml.safe_dump({section: {"ros__parameters": dict(parameters)}}), encoding="utf-8")
    return [path]
