"""Files of a run: checkpoint folders that can be served, and the state to resume from."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vla_ros.core.errors import InputError
from vla_ros.core.files import new_file, new_folder, regular
from vla_ros.policies import registry
from vla_ros.policies.policy import Policy
from vla_ros.policies.registry import LoadedPolicy
from vla_ros.training.adapt import merged

STATE_FILE = "state.pt"
LAST = "last"


def save_policy(output: Path, step: int, loaded: LoadedPolicy, policy: Policy, has_lora: bool) -> Path:
    """Write `output/checkpoints/step-NNNNNN`, a folder that can be served; complete or absent.

    `output/checkpoints/last` is a relative link to the newest. Raises InputError when it cannot be written.
    """
    folder = output / "checkpoints" / f"step-{step:06d}"
    plain = merged(policy) if has_lora else policy
    with new_folder(folder, "checkpoint") as part:
        registry.save(part, replace(loaded, policy=plain, layout="vla_ros"))
    with new_file(folder.with_name(LAST), "checkpoint") as link:
        link.symlink_to(folder.name)
    return folder


def save_state(output: Path, state: dict[str, Any]) -> None:
    """Replace the state of the run in one step: after a crash there is the old one or the new one.

    Raises InputError when it cannot be written (disk full, read-only); the old one stays.
    """
    file = output / STATE_FILE
    with new_file(file, "training state") as part, part.open("wb") as stream:
        try:
            torch.save(state, stream)
        except RuntimeError as error:  # what torch's zip writer makes of a failed write
            raise OSError(str(error)) from error


def load_state(output: Path, device: torch.device) -> dict[str, Any]:
    """Raises InputError when there is none or it is damaged."""
    file = output / STATE_FILE
    if not file.is_file():
        raise InputError(f"training state {file}: not found, nothing to resume")
    try:
        return torch.load(regular(file, "training state"), map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file, all mean the same here
        raise InputError(f"training state {file}: cannot be read: {error}") from error


@contextmanager
def alone(output: Path) -> Iterator[None]:
    """No other process of this machine trains into the run's folder meanwhile. Raises InputError if one does."""
    with (output / ".training").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"output {output}: another process trains into it, expected another folder, or an end of "
                             "that one") from None
        except OSError:  # a file system without locks
            pass
        yield


def prepare_output(output: Path, resume: bool) -> None:
    """Make the run's folder. Raises InputError when it cannot be written, or holds a run that is not to be resumed."""
    if not resume and (output / STATE_FILE).exists():
        raise InputError(f"output {output}: contains a run; resume it with --resume, or choose another folder")
    if not resume and (output / "checkpoints").exists():
        raise InputError(f"output {output}: contains checkpoints of a run that cannot be resumed, without "
                         f"{STATE_FILE}; expected another folder")
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"output {output}: {error.strerror}") from error
