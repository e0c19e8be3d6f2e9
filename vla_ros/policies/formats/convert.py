"""Convert files written by torch.save to a checkpoint folder with safetensors."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import new_folder
from vla_ros.core.records import read_mapping
from vla_ros.policies.formats.pickles import TorchFile

SHARD = 1 << 30  # bytes of a file of weights; conversion needs twice as much memory


def convert(
    files: Sequence[Path], output: Path, config: Path | None = None, shard: int = SHARD
) -> tuple[str, ...]:
    """Write `model.safetensors`, or shards and their index, and `config.json`; complete or absent.

    Types and shapes do not change. A LoRA adapter's file, `adapter_model.*`, keeps its name; its configuration is
    `adapter_config.json`.

    Args:
        files: written by torch.save, with tensors of different names.
        config: None: the JSON of the first file, as found by `config_of`.

    Returns notes for the user. Raises InputError. No code from a file is run.
    """
    sources: dict[str, TorchFile] = {}
    opened = [TorchFile(file) for file in files]
    for source in opened:
        if both := sources.keys() & source.shapes.keys():
            raise InputError(f"{source.where}: {shown(min(both))} is in {sources[min(both)].path} too, expected files "
                             "with tensors of different names")
        sources |= dict.fromkeys(source.shapes, source)
    adapter = "adapter_" if files[0].stem == "adapter_model" else ""
    config = config or config_of(files[0], f"{adapter}config.json")
    notes = [f"{source.path.name}: left out, and not constructed: {shown(', '.join(source.foreign))}"
             for source in opened if source.foreign]
    if config is None:
        notes.append(f"no {adapter}config.json was found: a checkpoint folder needs it")
    else:
        if config.suffix != ".json":
            raise InputError(f"config {config}: expected a .json file")
        read_mapping(config, "config")
    with new_folder(output, "checkpoint", replace=False) as folder:
        _write(folder, f"{adapter}model", sources, shard)
        if config is not None:
            shutil.copyfile(config, folder / f"{adapter}config.json")
    return tuple(notes)


def config_of(file: Path, name: str = "config.json") -> Path | None:
    """The JSON of a file of weights: the same name, in the same folder or in `../configs`, else `name`."""
    file = file.absolute()  # the folder above that of a bare name
    own = f"{file.stem}.json"
    places = (file.parent / own, file.parent.parent / "configs" / own, file.parent / name)
    return next((place for place in places if place.is_file()), None)


def _write(folder: Path, name: str, sources: dict[str, TorchFile], most: int) -> None:
    shards: list[list[str]] = [[]]
    held = 0
    for key, source in sources.items():
        size = source.sizes[key]
        if held and held + size > most:
            shards.append([])
            held = 0
        shards[-1].append(key)
        held += size
    names = [f"{name}-{k:05d}-of-{len(shards):05d}.safetensors" for k in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = [f"{name}.safetensors"]
    try:
        for file, keys in zip(names, shards, strict=True):
            tensors: dict[str, torch.Tensor] = {key: sources[key].read(key) for key in keys}
            save_file(tensors, folder / file, metadata={"format": "pt"})
    except SafetensorError as error:
        raise InputError(f"checkpoint {folder}: cannot be written: {error}") from error
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(source.sizes[key] for key, source in sources.items())},
            "weight_map": {key: file for file, keys in zip(names, shards, strict=True) for key in keys},
        }
        (folder / f"{name}.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
