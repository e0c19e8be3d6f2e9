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
