"""The three policies in the registry, as their entry points put them there; see test/system/test_foreign.py for those."""

import families
import pytest

from vla_ros.policies import registry


@pytest.fixture(autouse=True)
def known(monkeypatch):
    found = {name: f"foreign_policies.{name}:FAMILY" for name in families.FOREIGN}
    monkeypatch.setattr(registry, "BUILT_IN", registry.BUILT_IN | found)
