"""transformers' modules as parts: their computed buffers, and folders of their weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vla_ros.core.errors import InputError, shown
from vla_ros.core.hub import folder_of, no_folder
from vla_ros.core.records import check_only, read_mapping
from vla_ros.policies.formats.weights import TensorFolder, check_finite, check_keys

# Prefixes of the part's names in the folder of a larger model.
PREFIXES = ("", "model.", "base_model.", "vision_model.")


def with_numbers(model: nn.Module) -> nn.Module:
    """The model with the buffers that it computes, which have no values if it was built on the meta device."""
    for module in model.modules():
        places = module._buffers.get("position_ids")
        if places is not None and places.is_meta:
            module._buffers["position_ids"] = torch.arange(places.shape[-1], device="cpu")[None]
    if hasattr(model, "rotary_emb"):
        with torch.device("cpu"):
            model.rotary_emb = type(model.rotary_emb)(model.config)
    return model


def said(folder: Path, kinds: tuple[str, ...], fixed: Mapping[str, Any], inner: str = "") -> dict[str, Any]:
    """config.json of a folder, or its mapping `inner` if it exists.

    Args:
        kinds: values of `model_type` that it may have.
        fixed: fields with their only supported values.

    Raises InputError.
    """
    folder = folder_of(folder)
    if not folder.is_dir():
        raise InputError(f"folder {folder}: {no_folder(folder)}")
    where = f"{folder / 'config.json'}"
    row = read_mapping(folder / "config.json", "config")
    row = row[inner] if inner and isinstance(row.get(inner), dict) else row
    if row.get("model_type") not in kinds:
        raise InputError(f"{where}: model_type {shown(row.get('model_type'))}, expected one of {list(kinds)}")
    check_only(row, fixed, where)
    return row


def take_folder(model: nn.Module, folder: Path) -> None:
    """Copy a folder's safetensors into the model. Raises InputError that lists what is missing or misshapen; other
    tensors in the folder, such as a text tower or an output matrix, are ignored."""
    tensors, wanted = TensorFolder(folder_of(folder)), model.state_dict()
    names = {
        name: key for name in wanted
        for key in (prefix + name for prefix in PREFIXES) if key in tensors.shapes
    }
    check_keys({name: tuple(value.shape) for name, value in wanted.items()},
               {name: tensors.shapes[key] for name, key in names.items()}, str(folder))
    with torch.no_grad():
        for name, key in names.items():
            value = tensors.read(key)
            check_finite(value, f"folder {folder}: {key}")
            wanted[name].copy_(value)
