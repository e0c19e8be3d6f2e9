"""The three policies in the registry; test/system/test_foreign.py has it find them by their entry points."""

import families
import pytest

from vla_ros.policies import registry


@pytest.fixture(autouse=True)
def known(monkeypatch):
    found = {name: f"foreign_policies.{name}:FAMILY" for name in families.FOREIGN}
    monkeypatch.setattr(registry, "BUILT_IN", registry.BUILT_IN | found)
