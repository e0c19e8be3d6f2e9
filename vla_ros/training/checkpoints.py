"""What a run leaves on disk: folders that serve as they are, and the state to resume from."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vla_ros.core.errors import InputError
from vla_ros.policies import registry
from vla_ros.policies.policy import Policy
from vla_ros.policies.registry import LoadedPolicy
from vla_ros.training.adapt import merged

STATE_FILE = "state.pt"
LAST = "last"


def save_policy(output: Path, step: int, loaded: LoadedPolicy, policy: Policy, has_lora: bool) -> Path:
    """Write `output/checkpoints/step-NNNNNN`, a folder that serves; complete or absent.

    `output/checkpoints/last` is a relative link to the newest. Raises InputError when it cannot be written.
    """
    folder = output / "checkpoints" / f"step-{step:06d}"
    partial = folder.with_name(folder.name + ".partial")
    plain = merged(policy) if has_lora else policy
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        registry.save(partial, replace(loaded, policy=plain, layout="vla_ros"))
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(partial, folder)
        link = folder.with_name(LAST + ".partial")
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name)
        os.replace(link, folder.with_name(LAST))
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise InputError(f"checkpoint {folder}: {error.strerror or error}") from error
    return folder


def save_state(output: Path, state: dict[str, Any]) -> None:
    """Replace the state of the run in one step: after a crash there is the old one or the new one.

    Raises InputError when it cannot be written (disk full, read-only); the old one stays.
    """
    file = output / STATE_FILE
    partial = file.with_suffix(".partial")
    try:
        with partial.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, file)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a failed write into a RuntimeError
        partial.unlink(missing_ok=True)
        raise InputError(f"training state {file}: {getattr(error, 'strerror', None) or error}") from error


def load_state(output: Path, device: torch.device) -> dict[str, Any]:
    """Raises InputError when there is none or it is damaged."""
    file = output / STATE_FILE
    if not file.is_file():
        raise InputError(f"training state {file}: not there, nothing to resume")
    try:
        return torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file, all mean the same here
        raise InputError(f"training state {file}: cannot be read: {error}") from error


def prepare_output(output: Path, resume: bool) -> None:
    """Make the run's folder. Raises InputError when it cannot be written, or holds a run that is not to be resumed."""
    if not resume and (output / STATE_FILE).exists():
        raise InputError(f"output {output}: holds a run; resume it with --resume, or name another folder")
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"output {output}: {error.strerror}") from error
