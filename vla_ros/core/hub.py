"""Names of the Hugging Face hub, and the folders that its cache keeps: found, or answered with what to type."""

import os
import re
from pathlib import Path

from vla_ros.core.errors import InputError

_NAME = re.compile(
    r"(?:https?:/+huggingface\.co/|hf:/+)?(?P<data>datasets/)?(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*?)"
    r"(?:(?:@|/tree/)(?P<revision>[\w./-]+))?/?"
)


_OF_CHECKPOINT = re.compile(r"config\.json|(adapter|train)_config\.json|policy_(pre|post)processor\.json|"
                            r".*\.safetensors(\.index\.json)?")


def folder_of(path: Path) -> Path:
    """The checkpoint's folder where a file of one is named; any other path as it is."""
    return path.parent if path.is_file() and is_of_checkpoint(path) else path


def is_of_checkpoint(path: Path) -> bool:
    """By its name alone."""
    return _OF_CHECKPOINT.fullmatch(path.name) is not None


def broken_link(path: Path) -> str:
    """What to say of the link to nowhere that a path is, or leads through; "" where there is none."""
    for link in (path, *path.parents):
        if link.is_symlink() and not link.exists():
            return f"{link} is a link to {os.readlink(link)}, which is not there"
    return ""


def no_folder(path: Path, said: str | None = None, kind: str = "") -> str:
    """What to say of a folder that is not there: a link to nowhere, or two names, which are mostly those of a hub.

    Args:
        said: what the user wrote, where `path` was made of it.
        kind: "dataset", or "" for a model.
    """
    if link := broken_link(path):
        return f"no such folder; {link}"
    match = _NAME.fullmatch(str(path) if said is None else said)
    if match is None or path.parent.is_dir():
        return "no such folder"
    kind = "dataset" if match["data"] else kind
    options = f" --repo-type {kind}" if kind else ""
    options += f" --revision {match['revision']}" if match["revision"] else ""
    return (f"no such folder; a {kind or 'model'} of the Hugging Face hub is fetched first: "
            f"hf download {match['id']}{options} --local-dir {match['id'].split('/')[1]}")


def snapshot(path: Path, what: str) -> Path:
    """The folder of files inside of a repository's folder in the hub's cache; any other path as it is.

    Args:
        path: such as `models--lerobot--smolvla_base`, which holds `snapshots/REVISION/`, or its `snapshots`.

    Raises InputError that names the revisions, where there is not one alone and none that `refs/main` names.
    """
    top = path.parent if path.name == "snapshots" else path
    if not re.match(r"(models|datasets)--", top.name) or not (top / "snapshots").is_dir():
        return path
    there = sorted(folder.name for folder in (top / "snapshots").iterdir() if folder.is_dir())
    main = top / "refs" / "main"
    if len(there) > 1 and main.is_file() and main.stat().st_size < 100:
        there = [name for name in there if name == main.read_text(errors="replace").strip()] or there
    if len(there) != 1:
        raise InputError(f"{what} {path}: a folder of the Hugging Face cache with the snapshots {there or 'none'}, "
                         "expected one; name that folder itself")
    return top / "snapshots" / there[0]
