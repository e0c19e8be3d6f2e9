"""Sizes of published vision-language models, from the shapes of their tensors."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vla_ros.core.errors import InputError
from vla_ros.core.records import Count, record, value_of
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.robovlms.backbone import Shapes, check_heads


def sized(shapes: Shapes, keys: Sequence[str], dimensions: int, where: str) -> tuple[int, ...]:
    """The shape of the first of the tensors that exists. Raises InputError if none does, or for other `dimensions`."""
    found = next((tuple(shapes[key]) for key in keys if key in shapes), ())
    if len(found) != dimensions:
        raise InputError(f"{where}: model.backbone.{keys[0]} of {list(found)}, expected {dimensions} dimensions: is "
                         "it the backbone that config.json names?")
    return found


def depth_of(shapes: Shapes, layers: str) -> int:
    """Number of layers, whose tensors begin with `layers`."""
    found = [int(match[1]) for key in shapes if (match := re.match(re.escape(layers) + r"\.(\d{1,4})\.", key))]
    return 1 + max(found, default=-1)


def heads_of(
    said: Mapping[str, Any], part: str, names: Sequence[str], width: int, known: Mapping[int, int], where: str
) -> int:
    """Number of heads of a tower, which is not visible in shapes: from the model's config.json, or by its published
    width.

    Raises InputError.
    """
    rows = said.get(part, {}) if part else said
    for name in names:
        if isinstance(rows, Mapping) and rows.get(name) is not None:
            return value_of(Count, rows[name], f"vlm/config.json: {part}.{name}")
    if width not in known:
        raise InputError(f"{where}: a tower of width {width}, expected one of {sorted(known)}, or vlm/config.json "
                         f"beside it, the vision-language model's own, with {part}.{names[0]}")
    return known[width]


def check_tower(size: SiglipSize) -> None:
    """Raises InputError for invalid sizes of a vision tower."""
    check_heads("vision", size.hidden, size.heads)
    if size.image < size.patch or not size.depth:
        raise InputError(f"robovlms: vision of depth {size.depth}, image {size.image}, patch {size.patch}: expected a "
                         "layer and an image of one patch or more")


def clip_size(shapes: Shapes, prefix: str, said: Mapping[str, Any], where: str) -> SiglipSize:
    """Size of a CLIP or SigLIP tower. Raises InputError."""
    hidden, _, _, patch = sized(shapes, (f"{prefix}embeddings.patch_embedding.weight",), 4, where)
    tokens, _ = sized(shapes, (f"{prefix}embeddings.position_embedding.weight",), 2, where)
    mlp, _ = sized(shapes, (f"{prefix}encoder.layers.0.mlp.fc1.weight",), 2, where)
    row = {
        "hidden": hidden, "depth": depth_of(shapes, f"{prefix}encoder.layers"), "mlp": mlp, "patch": patch,
        "heads": heads_of(said, "vision_config", ("num_attention_heads",), hidden, {1024: 16, 1152: 16}, where),
        "image": math.isqrt(tokens) * patch,  # also with a class token
    }
    return record(SiglipSize, row, f"{where}: {prefix}")
