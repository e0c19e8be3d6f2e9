"""Complete or absent: what lies there after success, an error, a full disk and the death of the process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vla_ros.core.errors import InputError
from vla_ros.core.files import inside, new_file, new_folder, read_bytes, regular


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_folder_appears_when_it_is_complete(tmp_path):
    with new_folder(tmp_path / "a/b", "thing") as folder:
        (folder / "inner").mkdir()
        (folder / "inner/x").write_text("1")
        (folder / "inner/x").chmod(0o600)
        assert not (tmp_path / "a/b").exists()
    assert names(tmp_path) == ["a", "a/b", "a/b/inner", "a/b/inner/x"]
    assert (tmp_path / "a/b/inner/x").stat().st_mode & 0o777 == (tmp_path / "a/b").stat().st_mode & 0o666


def test_an_older_one_is_replaced_whole_or_refused(tmp_path):
    for text in "12":
        with new_folder(tmp_path / "a", "thing") as folder:
            (folder / text).write_text(text)
    assert names(tmp_path) == ["a", "a/2"]
    with pytest.raises(InputError, match=r"^thing \S+/a: exists already, expected a new folder$"):
        with new_folder(tmp_path / "a", "thing", replace=False):
            raise AssertionError("not reached")
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "a", "thing") as folder:
        (folder / "3").write_text("3")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["a", "a/2"]


def test_a_file_is_the_old_one_or_the_new_one(tmp_path):
    file = tmp_path / "f"
    with new_file(file, "thing") as part:
        part.write_text("old")
    with pytest.raises(ZeroDivisionError), new_file(file, "thing") as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert file.read_text() == "old" and names(tmp_path) == ["f"]
    with new_file(file, "thing") as part:
        part.write_text("new")
    assert file.read_text() == "new" and names(tmp_path) == ["f"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full (Linux)")
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    (tmp_path / "f").write_text("old")
    with pytest.raises(InputError, match=r"^thing \S+/f: cannot be written: No space left on device$"):
        with new_file(tmp_path / "f", "thing") as part:
            part.symlink_to("/dev/full")
            part.write_text("new")
    assert (tmp_path / "f").read_text() == "old" and names(tmp_path) == ["f"]
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        with new_folder(tmp_path / "d", "thing") as folder:
            Path("/dev/full").write_text("x")
            (folder / "x").touch()
    assert names(tmp_path) == ["f"]


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "f").touch()
    with pytest.raises(InputError, match=r"^thing \S+: a folder, expected a file$"), new_file(tmp_path, "thing"):
        pytest.fail("the work has begun")
    with pytest.raises(InputError, match=r"^thing \S+/f/x: cannot be written: "), new_file(tmp_path / "f/x", "thing"):
        pass


def test_what_a_killed_process_left_goes_with_the_next_try_and_a_living_ones_stays(tmp_path):
    script = (
        "import os, sys; from vla_ros.core.files import new_folder\n"
        "with new_folder(sys.argv[1], 'thing') as folder:\n"
        "    (folder / 'x').touch()\n"
        "    print('here', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "[a]"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout.readline() == b"here\n"
        with new_folder(tmp_path / "[a]", "thing"):
            assert sum(str(process.pid) in name for name in os.listdir(tmp_path)) == 1
        assert len(os.listdir(tmp_path)) == 2
    finally:
        process.kill()
        process.communicate()
    with new_folder(tmp_path / "[a]", "thing"):
        pass
    assert os.listdir(tmp_path) == ["[a]"]


def test_a_link_to_a_folder_is_replaced_and_what_it_names_stays(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/x").touch()
    (tmp_path / "link").symlink_to("real")
    with new_folder(tmp_path / "link", "thing") as folder:
        (folder / "y").touch()
    assert names(tmp_path) == ["link", "link/y", "real", "real/x"] and not (tmp_path / "link").is_symlink()
    with new_file(tmp_path / "last", "thing") as part:
        part.symlink_to("link")
    assert os.readlink(tmp_path / "last") == "link"


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero"),
                                  lambda path: path.symlink_to(path.name), lambda path: None])  # fmt: skip
def test_only_regular_files_are_opened(tmp_path, make):
    make(tmp_path / "f")
    for reader in (regular, lambda *args: read_bytes(*args, 10)):
        with pytest.raises(InputError, match=r"^thing \S+/f: (not a regular file|No such file|Too many levels)"):
            reader(tmp_path / "f", "thing")


def test_a_file_that_is_larger_than_it_may_be_is_not_read(tmp_path):
    with (tmp_path / "f").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match=r"^thing \S+/f: 1099511627776 bytes, expected at most 10$"):
        read_bytes(tmp_path / "f", "thing", 10)
    if Path("/proc/self/maps").exists():  # says that it has no bytes
        with pytest.raises(InputError, match="expected at most 10 bytes"):
            read_bytes("/proc/self/maps", "thing", 10)


@pytest.mark.parametrize("name", [
    "", ".", "/etc/passwd", "..", "a/../../b", "a\0b", "\ud800", "a" * 300, "a/" * 900, None, 3, ["a"],
])  # fmt: skip
def test_what_a_file_names_lies_in_its_folder(tmp_path, name):
    with pytest.raises(InputError, match="^here: .*, expected a path inside "):
        inside(tmp_path, name, "here")
    assert inside(tmp_path, "a/b..c", "here") == tmp_path / "a/b..c"
