"""Configuration files are found in the source tree and in an installation."""

import pytest

from vla_ros.core import resources
from vla_ros.core.errors import InputError


def test_source_tree():
    assert resources.config_file("robots/so101.yaml").is_file()


def test_installed(tmp_path, monkeypatch):
    file = tmp_path / "prefix" / "share" / "vla_ros" / "config" / "robots" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path / 'prefix'}")
    assert resources.config_file("robots/mine.yaml") == file


def test_missing_file_is_named():
    with pytest.raises(InputError, match="robots/none.yaml"):
        resources.config_file("robots/none.yaml")


def test_a_robot_by_path_and_by_name(tmp_path, monkeypatch):
    shipped = resources.config_file("robots/so101.yaml")
    assert resources.resolve_robot("so101") == resources.resolve_robot(str(shipped)) == shipped
    monkeypatch.chdir(shipped.parent)
    assert resources.resolve_robot("so101.yaml") == shipped
    monkeypatch.chdir(tmp_path)
    (tmp_path / "so101").mkdir()
    assert resources.resolve_robot("so101") == shipped
    with pytest.raises(InputError, match=r"^robot 'so102': no such file, expected a path or one of aloha, .*so101, "):
        resources.resolve_robot("so102")
    with pytest.raises(InputError, match="not a regular file, expected a path"):
        resources.resolve_robot(tmp_path)
    mine = tmp_path / "prefix/share/vla_ros/config/robots/mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "prefix"))
    assert resources.resolve_robot("mine") == mine
    with pytest.raises(InputError, match=r"one of aloha, .*mine, .*so101, "):
        resources.resolve_robot("so101.yaml")
