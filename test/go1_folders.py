"""A small folder as GO-1 is published: config.json, weights under their published names, statistics, tokenizer."""

import json
import shutil
from pathlib import Path

import golden_vectors
import numpy as np
from safetensors.torch import save_file

ADDED = {"<|im_start|>": 306, "<|im_end|>": 307, "<img>": 309, "</img>": 310, "<IMG_CONTEXT>": 311}


def config(width: int, planner: bool = True) -> dict:
    """config.json of the golden vectors' network for a robot of `width` joints."""
    _, said, _ = golden_vectors.load("go1_whole" if planner else "go1_air")
    said["action_config"] |= {"state_dim": width, "action_dim": width}
    return {"model_type": "go1", "architectures": ["GO1Model"]} | said | {"norm": True}


def shapes(width: int, planner: bool = True) -> dict[str, tuple[int, ...]]:
    """Every published key of such a network."""
    _, _, keys = golden_vectors.load("go1_whole" if planner else "go1_air")
    keys |= {f"{name}_adaptor.0.weight": (32, width) for name in ("state", "action")}
    return keys | {"final_layer.ffn_final.fc2.weight": (width, 32), "final_layer.ffn_final.fc2.bias": (width,)}


def make(path: Path, width: int, sentencepiece: Path, planner: bool = True, shards: int = 2) -> Path:
    """Write the folder and return it; `sentencepiece` is a model of at most 300 tokens."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config(width, planner)))
    tensors = {key: golden_vectors.fill(key, shape) for key, shape in shapes(width, planner).items()}
    places = {key: f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors" for i, key in enumerate(tensors)}
    for file in set(places.values()):
        save_file({key: tensors[key] for key in tensors if places[key] == file}, path / file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (path / "dataset_stats.json").write_text(json.dumps(statistics(width)))
    shutil.copy(sentencepiece, path / "tokenizer.model")
    (path / "added_tokens.json").write_text(json.dumps(ADDED))
    return path


def statistics(width: int) -> dict:
    """What training leaves: of all features of the dataset, images of three axes among them."""
    rng = np.random.default_rng(0)
    rows = {
        name: {"mean": rng.normal(0, 0.1, width).tolist(), "std": rng.uniform(0.1, 0.3, width).tolist(),
               "min": [-1.0] * width, "max": [1.0] * width, "count": [100]}
        for name in ("state", "action")
    }  # fmt: skip
    return rows | {"cam_head_color": {"mean": [[[0.4]], [[0.5]], [[0.4]]]}, "timestamp": {"mean": [1.0]}}
