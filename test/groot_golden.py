"""GR00T's policies of the golden vectors: tiny networks of the original code, their weights derived from the keys."""

from functools import cache

import golden_vectors
import torch
from torch import Tensor

from vla_ros.policies.formats.weights import load_weights
from vla_ros.policies.groot.config import GrootConfig
from vla_ros.policies.groot.model import Groot
from vla_ros.policies.groot.names import rename
from vla_ros.policies.groot.sizes import eagle_fields, head_fields, qwen_fields

CAMERAS = {"cameras": ("a", "b"), "state_dim": 7, "real_action_dim": 5}
NVIDIA = ("groot_n1", "groot_n15", "groot_n15_variant", "groot_n16", "groot_n17")


def fields(name: str, said: dict) -> dict:
    """Of the configuration, as the original's files say it."""
    if name == "lerobot_groot_n17":
        vlm = {key: value for key, value in said.items() if key.endswith("_id")}
        vlm |= {"text_config": said["text"], "vision_config": said["vision"]}
        return qwen_fields(vlm, name) | head_fields("n1.7", said["head"], name) | CAMERAS | {
            "state_dim": 9, "real_action_dim": 8, "image_size": (16, 16)}
    if name == "groot_n17":
        return qwen_fields(said["vlm"], name) | head_fields("n1.7", said["gr00t"], name) | CAMERAS | {
            "image_size": (64, 64), "ramp_rate": said["rtc_options"]["rtc_ramp_rate"]}
    generation = {"groot_n1": "n1", "groot_n16": "n1.6"}.get(name, "n1.5")
    result = {"image_size": (56, 56)} | eagle_fields(generation, said["eagle"], name) | CAMERAS
    own = ("eagle", "backbone_linear_out", "img_context_token_id", "gr00t")
    head = {key: value for key, value in said.items() if key not in own}
    result |= head_fields(generation, said.get("gr00t") or head, name)
    if generation == "n1":
        result |= {"feature_dim": said["backbone_linear_out"], "image_token": said["img_context_token_id"]}
    return result


@cache
def load(name: str, **changes: object) -> tuple[Groot, dict[str, Tensor], dict]:
    """(policy, tensors, configuration) of a file."""
    vectors, said, shapes = golden_vectors.load(name)
    config = GrootConfig.from_dict(fields(name, said) | changes)
    with torch.device("meta"):
        policy = Groot(config).eval()
    load_weights(policy, golden_vectors.Filled(shapes), name, rename(config, shapes))
    return policy, vectors, said


def batch(name: str, vectors: dict[str, Tensor], padded: str = "") -> dict[str, Tensor]:
    """The inputs of a file; `padded` "padded_" for the sample with padding on the left."""
    inputs = {
        "tokens": vectors[f"{padded}input_ids"], "token_mask": vectors[f"{padded}attention_mask"].bool(),
        "state": vectors["state"], "embodiment": vectors["embodiment_id"].long(), "actions": vectors.get("action"),
    }
    if "action_mask" in vectors:
        inputs["action_mask"] = vectors["action_mask"].bool()
    if f"{padded}position_ids" in vectors:
        inputs["positions"] = vectors[f"{padded}position_ids"].transpose(0, 1)
    return inputs


def pictures(name: str, vectors: dict[str, Tensor]) -> list[Tensor]:
    """The four images, (3, h, w) each; those of N1.7 from their patches in the order of the merger."""
    if name == "groot_n16":
        return [vectors[f"pixel_values_{i}"][0] for i in range(4)]
    if name != "groot_n17":
        return list(vectors["pixel_values"])
    result, start = [], 0
    for _, rows, columns in vectors["image_grid_thw"].tolist():
        x = vectors["pixel_values"][start : start + rows * columns]
        start += rows * columns
        x = x.view(rows // 2, columns // 2, 2, 2, 3, 2, 16, 16)[:, :, :, :, :, 0]  # both frames are the same
        result.append(x.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * 16, columns * 16))
    return result
