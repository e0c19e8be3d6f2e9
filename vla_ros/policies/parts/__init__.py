"""Parts that a policy can be composed of, and where to register more of them."""

from vla_ros.policies.parts.kinds import (
    Encoder,
    Features,
    Fusion,
    Head,
    Language,
    NoSize,
    Projector,
    Temporal,
    Vision,
)
from vla_ros.policies.parts.registry import (
    ENCODERS,
    FUSIONS,
    HEADS,
    LANGUAGES,
    PROJECTORS,
    REGISTRIES,
    TEMPORALS,
    VISION,
    Registry,
)

__all__ = [
    "ENCODERS", "FUSIONS", "HEADS", "LANGUAGES", "PROJECTORS", "REGISTRIES", "TEMPORALS", "VISION", "Encoder",
    "Features", "Fusion", "Head", "Language", "NoSize", "Projector", "Registry", "Temporal", "Vision",
]
