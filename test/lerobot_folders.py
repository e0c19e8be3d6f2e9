"""Folders that LeRobot 0.6.1's own code wrote, with its answers (`test/data/lerobot_061`).

Their weights are those of `golden_vectors.fill`, so they need not be kept: `shapes.json` holds every key and shape.
"""

import json
import shutil
from functools import cache
from pathlib import Path

import golden_vectors
from safetensors.torch import load_file, save
from torch import Tensor

from vla_ros.core.observation import Sample

FOLDER = Path(__file__).parent / "data" / "lerobot_061"
INSTRUCTION = "pick up the red cube"
VLM = FOLDER / "_vlm"  # what SmolVLA's `vlm_model_name` names


def write(path: Path, name: str, **changes: object) -> Path:
    """Write the folder of that name, `changes` in its config.json (None: the field is gone); return it."""
    shutil.copytree(FOLDER / name, path)
    (path / "model.safetensors").write_bytes(_weights((path / "shapes.json").read_text()))
    if name.startswith("smolvla"):
        shutil.copytree(VLM, path / "vlm")
    change(path / "config.json", **changes)
    return path


def write_fast(path: Path, tokens: bool = True) -> Path:
    """LeRobot's own folder with FAST's settings and pairs of the golden vectors; its tokenizer has no "|"."""
    write(path, "pi0_fast")
    text = json.loads((path / "tokenizer.json").read_text())
    text["model"]["vocab"]["|"] = text["model"]["vocab"].pop("254")
    (path / "tokenizer.json").write_text(json.dumps(text))
    if tokens:
        (path / "fast").mkdir()
        write_actions(path / "fast")
    return path


def write_actions(folder: Path) -> None:
    """The two files of FAST's tokenizer of actions."""
    _, said, _ = golden_vectors.load("pi0_fast_tokens")
    (folder / "tokenizer.json").write_text(json.dumps(said["bpe"]))
    settings = {"processor_class": "UniversalActionProcessor", "scale": 10, "min_token": -20, "time_horizon": None}
    (folder / "processor_config.json").write_text(json.dumps(settings))


@cache
def _weights(shapes: str) -> bytes:
    """The file of weights of these shapes."""
    return save({key: golden_vectors.fill(key, tuple(shape)) for key, shape in json.loads(shapes).items()})


def change(file: Path, **changes: object) -> None:
    """Set fields of a JSON file; None: the field is gone."""
    data = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in data.items() if key not in changes or value is not None}))


def pipelines(kind: str, normaliser: dict, length: int = 48) -> tuple[list[dict], list[dict]]:
    """Steps of the two processors as LeRobot writes them for that `type`, in their order.

    Args:
        normaliser: settings of normaliser and unnormaliser.
        length: tokens of a prompt.
    """
    text = {"smolvla": "smolvla_new_line_processor", "pi0": "pi0_new_line_processor",
            "pi05": "pi05_prepare_state_tokenizer_processor_step",
            "pi0_fast": "pi0_fast_prepare_state_tokenizer_processor_step"}.get(kind)  # fmt: skip
    said = {"rename_observations_processor": {"rename_map": {}}, "device_processor": {"device": "cuda",
            "float_dtype": None}, "normalizer_processor": normaliser, "unnormalizer_processor": normaliser,
            "tokenizer_processor": {"max_length": length, "task_key": "task", "padding_side": "right",
            "padding": "max_length", "truncation": True, "tokenizer_name": "someone/tokenizer"}}  # fmt: skip
    words = [text, "tokenizer_processor"] if text else []
    device, normalise = ["device_processor"], ["normalizer_processor"]
    names = [*normalise, *words, *device] if kind in ("pi05", "pi0_fast") else [*words, *device, *normalise]
    before = ["rename_observations_processor", "to_batch_processor", *names]
    return tuple([{"registry_name": name, "config": dict(said.get(name, {}))} for name in names]
                 for names in (before, ["unnormalizer_processor", *device]))  # fmt: skip


def expected(name: str) -> tuple[dict[str, Tensor], Sample]:
    """LeRobot's tensors, its preprocessor's and its actions, and the sample that it saw."""
    tensors = load_file(FOLDER / name / "expected.safetensors")
    images = {key.split(".")[-1]: value.numpy()[None] for key, value in tensors.items() if "images" in key}
    state = tensors["0/observation.state"].double().numpy()[None]
    return tensors, Sample(images, state, INSTRUCTION)
