"""Names of π0-FAST's tensors in published files: π0's without the expert."""

import re
from collections.abc import Collection

from vla_ros.policies.formats.weights import Rename
from vla_ros.policies.pi0.names import HEAD, RULES, by_rules
from vla_ros.policies.pi0_fast.config import Pi0FastConfig


def rename(config: Pi0FastConfig, keys: Collection[str]) -> Rename:
    """From each of a published file's `keys` to the module's name."""
    return by_rules(((re.escape(HEAD), "embedding.weight" if config.tied else "head.weight"), *RULES))
