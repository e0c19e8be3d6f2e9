"""Read files that may be anything, and write files and folders completely or not at all."""

import glob
import os
import platform
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from vla_ros.core.errors import InputError, shown

LFS = b"version https://git-lfs.github.com/spec/"  # how the pointer of Git LFS begins


def regular(path: str | Path, what: str, most: int | None = None) -> Path:
    """The path of a regular file, for a library to open: it would block on a pipe, and never finish reading a device.

    Args:
        most: bytes.

    Raises InputError if it is absent, not a regular file, larger, or a pointer of Git LFS.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{what} {path}: not a regular file, expected one")
        if status.st_size < 1024:  # as all pointers are
            with open(path, "rb") as file:
                pointer = file.read(len(LFS)) == LFS
            if pointer:
                raise InputError(f"{what} {path}: a pointer of Git LFS, not the file itself; fetch it: git lfs pull, "
                                 "in the repository that was cloned")
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{what} {path}: {getattr(error, 'strerror', None) or error}") from error
    if most is not None and status.st_size > most:
        raise InputError(f"{what} {path}: {status.st_size} bytes, expected at most {most}")
    return Path(path)


def read_bytes(path: str | Path, what: str, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises InputError."""
    try:
        with regular(path, what, most).open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise InputError(f"{what} {path}: {error.strerror}") from error
    if len(data) > most:  # files of /proc have size 0
        raise InputError(f"{what} {path}: expected at most {most} bytes")
    return data


def inside(folder: Path, name: Any, what: str) -> Path:
    """The path of a name found in a file of `folder`. Raises InputError if it is outside of the folder."""
    place = PurePosixPath(name) if isinstance(name, str) and len(name) < 1000 and name.isprintable() else None
    long = place is not None and max(map(len, map(str.encode, place.parts)), default=0) > 255
    if place is None or long or not place.parts or place.is_absolute() or ".." in place.parts:
        raise InputError(f"{what}: {shown(name)}, expected a path inside {folder}")
    return folder / place


@contextmanager
def new_folder(path: str | Path, what: str, replace: bool = True) -> Iterator[Path]:
    """An empty folder next to `path` that replaces it when the block succeeds, and is removed when it fails.

    With `replace`, an older folder at `path` stays until the new files are complete and on the disk.

    Args:
        what: names the folder in errors ("dataset").

    Raises:
        InputError: `path` exists and is neither empty nor to be replaced; the disk is full or not writable.
    """
    path = Path(path)
    if not replace and path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{what} {path}: exists already, expected a new folder")
    with _written(path, what) as temporary:
        temporary.mkdir()
        yield temporary
        mode = temporary.stat().st_mode & 0o666  # as the umask says; some writers make private files
        for file in temporary.rglob("*"):
            if file.is_file():
                file.chmod(mode)
                _to_disk(file)
        if path.exists():
            old = temporary.with_suffix(".old")
            path.rename(old)
            temporary.rename(path)
            _remove(old)
        else:
            temporary.rename(path)


@contextmanager
def new_file(path: str | Path, what: str) -> Iterator[Path]:
    """As `new_folder`, for one file: the block writes to the path that it gets. An older file is replaced."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():  # before the work, not after it
        raise InputError(f"{what} {path}: a folder, expected a file")
    with _written(path, what) as temporary:
        yield temporary
        _to_disk(temporary)
        temporary.replace(path)


@contextmanager
def _written(path: Path, what: str) -> Iterator[Path]:
    """A temporary path next to `path` that no other process uses; removed after the block."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        host = platform.node()
        temporary = path.parent / f".{path.name}.{host}.{os.getpid()}.part"
        for left in path.parent.glob(f".{glob.escape(path.name)}.{host}.*.part"):
            if left == temporary or not _alive(left.suffixes[-2]):
                _remove(left)  # of a process that was killed
        try:
            yield temporary
        finally:
            _remove(temporary)
    except OSError as error:
        raise InputError(f"{what} {path}: cannot be written: {error.strerror or error}") from error


def _alive(suffix: str) -> bool:
    try:
        os.kill(int(suffix[1:]), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _to_disk(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_token(path: str | Path) -> str:
    """The first line of a file. Raises InputError if it cannot be a token."""
    text = read_bytes(Path(path).expanduser(), "token file", 10_000).decode("ascii", "replace")
    token = text.strip().split("\n")[0].strip()
    if not token or not all("!" <= letter <= "~" for letter in token):
        raise InputError(f"token file {path}: expected a line of printable ASCII characters without blanks")
    return token
