"""Changes of a folder's two processors, and what LeRobot 0.6.1's own code computes with each.

    python lerobot_pipelines.py FOLDER... > data/lerobot_061/pipelines.json

writes that file; it is run by a Python that has LeRobot, not by ours. A test takes `changes` and `PROBE` from here.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Files = tuple[list[dict], list[dict]]  # steps of the preprocessor and of the postprocessor
VLM = Path(__file__).parent / "data/lerobot_061/_vlm"  # a tokenizer that a policy without text does not use
NAMES = "policy_preprocessor.json", "policy_postprocessor.json"
IMAGES = tuple(f"observation.images.{name}" for name in ("front", "wrist"))
PROBE = {  # what the robot shows, a chunk that the policy answers, and one that it is trained with
    "state": [0.3, -0.2, 0.1, 0.4, -0.5, 0.2], "task": "pick up the red cube", "pixels": [0.25, 0.75],
    "answer": [[0.5, -0.25, 0.0, 0.75, -1.0, 0.1], [-0.5, 0.3, 0.2, 0.1, 0.6, -0.9]],
    "actions": [[0.2, 0.1, 0.0, 0.3, -0.4, 0.5], [0.1, -0.1, 0.2, 0.2, 0.3, 0.4]],
}  # fmt: skip
OTHERS = {  # setting -> further values
    "rename_map": [
        {IMAGES[0]: IMAGES[1], IMAGES[1]: IMAGES[0]}, {IMAGES[0]: IMAGES[1]}, {"observation.state": "observation.x"},
        {"observation.images.top": IMAGES[0], "observation.images.side": IMAGES[0]}, {"observation.x": "observation.y"},
    ],
    "float_dtype": ["float32", "bfloat16", "float16"], "padding": ["longest", "do_not_pad"], "task_key": ["subtask"],
    "padding_side": ["left"], "exclude_joints": [["wrist"], ["GRIPPER"], ["gripper", "pan"]],
    "action_names": [[f"joint_{i}.pos" for i in range(6)]], "image_keys": [[IMAGES[0]], list(IMAGES)],
    "max_length": [4, 512], "domain_id": [1], "STATE": ["IDENTITY", "MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10"],
    "VISUAL": ["MEAN_STD"], "ACTION": ["IDENTITY", "MEAN_STD", "MIN_MAX"], "type": ["STATE", "VISUAL", "ACTION", "ENV"],
    "enabled": [True, False],
}  # fmt: skip
ADDED = {"normalizer_processor": {"normalize_observation_keys": ["observation.state"], "device": "cpu",
                                  "stats": {"observation.state": {"mean": [1.0] * 6, "std": [2.0] * 6}}},
         "pi05_prepare_state_tokenizer_processor_step": {"max_state_dim": 16, "task_key": "subtask"},
         "action_tokenizer_processor": {"fast_skip_tokens": 3}}  # fmt: skip


def changes(files: Files) -> Iterator[tuple[str, Files]]:
    """A name of every change, and the files with it; first none."""
    yield "as it is", files
    for which, steps in enumerate(files):
        for index, step in enumerate(steps):
            where = f"{NAMES[which].split('_')[1][:4]} {index} {step['registry_name']}"
            for name, other in _arrangements(steps, index):
                yield f"{where}: {name}", _with(files, which, other)
            for name, config in _of_mapping(step.get("config", {}), ADDED.get(step["registry_name"], {})):
                yield f"{where}{name}", _with(files, which, [*steps[:index], step | {"config": config},
                                                             *steps[index + 1 :]])  # fmt: skip


def _with(files: Files, which: int, steps: list[dict]) -> Files:
    return (steps, files[1]) if which == 0 else (files[0], steps)


def _arrangements(steps: list[dict], index: int) -> Iterator[tuple[str, list[dict]]]:
    step, others = steps[index], [*steps[:index], *steps[index + 1 :]]
    yield "removed", others
    yield "twice", [*steps[: index + 1], *steps[index:]]
    yield "first", [step, *others]
    yield "last", [*others, step]
    if index + 1 < len(steps):
        yield "after the next", [*others[: index + 1], step, *others[index + 1 :]]
    for name, change in (("unknown", {"registry_name": "new_trick"}), ("class", {"class": "some.module.Step"})):
        kept = {key: value for key, value in step.items() if key != "registry_name"}
        yield name, [*steps[:index], kept | change, *steps[index + 1 :]]
    if "state_file" in step:
        kept = {key: value for key, value in step.items() if key != "state_file"}
        yield "without its state", [*steps[:index], kept, *steps[index + 1 :]]


def _of_mapping(values: dict[str, Any], added: dict[str, Any]) -> Iterator[tuple[str, dict]]:
    for key, value in {"new_setting": 1, **added}.items():
        yield f".{key} added {_short(value)}", values | {key: value}
    for key, value in values.items():
        yield f".{key} removed", {k: v for k, v in values.items() if k != key}
        if isinstance(value, dict) and key != "shape":
            for name, inner in _of_mapping(value, {}):
                yield f".{key}{name}", values | {key: inner}
        other = [None, {}] if isinstance(value, dict) else [None, not value] if isinstance(value, bool) else [
            None, value + 1] if isinstance(value, (int, float)) else [None, "x", []]
        for each in (*other, *OTHERS.get(key, [])):
            if each != value and key != "shape":
                yield f".{key} = {_short(each)}", values | {key: each}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def files_of(folder: Path) -> Files:
    """The steps of a folder's two processors."""
    return tuple(json.loads((folder / name).read_text())["steps"] for name in NAMES)


def write(folder: Path, files: Files) -> None:
    """Put these steps in the place of a folder's."""
    for name, steps in zip(NAMES, files, strict=True):
        (folder / name).write_text(json.dumps({"name": name.removesuffix(".json"), "steps": steps}))


def _answer(folder: Path, made: Any) -> dict[str, Any]:
    import torch
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies import make_pre_post_processors

    before, after = make_pre_post_processors(PreTrainedConfig.from_pretrained(folder), pretrained_path=str(folder))
    batch = before({
        "observation.state": torch.tensor(PROBE["state"]), "task": PROBE["task"],
        "action": torch.tensor([PROBE["actions"]]),
        **{name: torch.full((3, 48, 64), value) for name, value in zip(IMAGES, PROBE["pixels"], strict=True)},
    })  # fmt: skip
    result = {"state": batch["observation.state"][0].tolist(), "trained": batch["action"][0].tolist(),
              "images": [batch[name][0, :, 0, 0].tolist() for name in IMAGES],
              "actions": after(torch.tensor([PROBE["answer"]]))[0].tolist()}  # fmt: skip
    if (tokens := batch.get("observation.language.tokens")) is not None:
        mask = batch["observation.language.attention_mask"][0].bool()
        result["tokens"] = (tokens[0] if made == "whole" else tokens[0][mask]).tolist()
    if "domain_id" in batch:
        result["domain"] = int(batch["domain_id"][0])
    return json.loads(json.dumps(result), parse_float=lambda text: float(f"{float(text):.6g}"))


def _leave_out_sizes(file: Path) -> None:
    """What our small folders say of their towers, which LeRobot's classes do not know."""
    from dataclasses import fields

    from lerobot.policies import make_policy_config

    data = json.loads(file.read_text())
    known = {field.name for field in fields(make_policy_config(data["type"]))}
    kept = {key: value for key, value in data.items() if key in known | {"type"} and value != "custom"}
    file.write_text(json.dumps(kept))


def main(*folders: str) -> None:
    """Print what LeRobot computes: folder -> change -> what of its answer is not as it is without, or "fails"."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from types import SimpleNamespace

    import lerobot.processor.tokenizer_processor as module
    from lerobot_answers import tokenizer

    table = {}
    for path in map(Path, folders):
        kind = json.loads((path / "config.json").read_text())["type"]
        made = tokenizer(VLM if kind == 'act' else path, kind.startswith("pi0"))
        made.bos_token = "<bos>" if kind == "pi0_fast" else None
        module.AutoTokenizer = SimpleNamespace(from_pretrained=lambda *_, made=made, **__: made)
        module.AutoProcessor = SimpleNamespace(from_pretrained=lambda *_, **__: lambda actions: [[1, 2, 3]])
        first, rows = None, {}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "folder"
            shutil.copytree(path, folder, ignore=shutil.ignore_patterns("model.safetensors", "expected"))
            _leave_out_sizes(folder / "config.json")
            for change, files in changes(files_of(path)):
                write(folder, json.loads(json.dumps(files).replace('"cuda"', '"cpu"')))
                try:
                    answer = _answer(folder, "whole" if kind == "xvla" else "")
                except Exception as error:  # whatever it is
                    answer = "fails"
                    print(path.name, change, repr(error)[:150].replace("\n", " "), file=sys.stderr)
                if answer != "fails" and first:  # of an answer, what is not as before
                    answer = {key: value for key, value in answer.items() if value != first.get(key)}
                rows[change] = answer
                first = first or answer
        table[path.name] = rows
    json.dump(table, sys.stdout, separators=(",", ":"))


if __name__ == "__main__":
    main(*sys.argv[1:])
