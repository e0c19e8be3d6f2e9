"""Names of the Hugging Face hub and folders of its cache: find them, or say which command to enter."""

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
    """The checkpoint's folder if `path` is a file in one; otherwise the path itself."""
    return path.parent if path.is_file() and is_of_checkpoint(path) else path


def is_of_checkpoint(path: Path) -> bool:
    """By its name alone."""
    return _OF_CHECKPOINT.fullmatch(path.name) is not None


def broken_link(path: Path) -> str:
    """What is wrong if the path is, or contains, a broken link; else ""."""
    for link in (path, *path.parents):
        if link.is_symlink() and not link.exists():
            return f"{link} is a link to {os.readlink(link)}, which does not exist"
    return ""


def no_folder(path: Path, said: str | None = None, kind: str = "") -> str:
    """What is wrong if a folder does not exist: a broken link, or OWNER/NAME, which is probably a name of the hub.

    Args:
        said: what the user wrote, if `path` was made from it.
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
    """The snapshot's folder if `path` is a repository's folder in the hub's cache; otherwise the path itself.

    Args:
        path: such as `models--lerobot--smolvla_base`, which holds `snapshots/REVISION/`, or its `snapshots`.

    Raises InputError, with the revisions, if there is not exactly one and `refs/main` names none of them.
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
