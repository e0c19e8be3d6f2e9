"""What other packages offer may be broken; the error names the package."""

import re
import sys

import pytest

from vla_ros.core.errors import InputError
from vla_ros.core.stream import Stream
from vla_ros.messages.decoders import decoder_of
from vla_ros.policies import registry
from vla_ros.policies.parts.registry import HEADS

POINTS = """[vla_ros.policies]
gone = no_such_module:FAMILY
[vla_ros.parts.heads]
typo = somebodys_heads:Haed
broken = somebodys_broken:Head
[vla_ros.decoders]
mine = somebodys_broken:decode
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    info = tmp_path / "somebodys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    (tmp_path / "somebodys_heads.py").write_text("class Head: ...\n")
    (tmp_path / "somebodys_broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("somebodys_heads", None)


def test_a_package_that_cannot_be_imported_is_named(installed):
    stream = Stream("force", "force", "std_msgs/msg/String", decoder="mine")
    for ask, kind, error in (
        (lambda: registry.find_family("gone"), "policy family 'gone'", "ModuleNotFoundError: No module"),
        (lambda: HEADS["typo"], "head 'typo'", "AttributeError: "),
        (lambda: HEADS["broken"], "head 'broken'", "ZeroDivisionError: "),
        (lambda: decoder_of(stream, None), "stream force: decoder 'mine'", "ZeroDivisionError: "),
    ):
        said = rf"^{re.escape(kind)} of package somebodys: .* cannot be imported: {error}"
        with pytest.raises(InputError, match=said):
            ask()
