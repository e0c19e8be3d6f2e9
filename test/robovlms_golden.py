"""RoboVLMs' golden vectors as policies and batches."""

from functools import cache

import golden_vectors
import torch

from vla_ros.nn.gemma import GemmaSize
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.formats.weights import load_weights
from vla_ros.policies.robovlms.config import RoboVLMConfig
from vla_ros.policies.robovlms.kosmos import KosmosSize
from vla_ros.policies.robovlms.llava import LlavaSize
from vla_ros.policies.robovlms.model import RoboVLM
from vla_ros.policies.robovlms.names import rename
from vla_ros.policies.robovlms.paligemma import PaliGemmaSize

HEADS = {"LSTMDecoder": "lstm", "FCDecoder": "fc", "GPTDecoder": "gpt", "DiscreteDecoder": "discrete"}


def backbone_of(said):
    text, v = said["text"], said["vision"]
    if said["robovlm"] == "RoboKosMos":
        vision = SiglipSize(v["hidden"], v["layers"], v["heads"], v["mlp"], v["patch"], v["image"])
        return KosmosSize(vision, text["embed_dim"], text["layers"], text["attention_heads"], text["ffn_dim"],
                          text["vocab_size"], said["latent_query_num"])
    if said["robovlm"] == "RoboLLaVA":
        vision = SiglipSize(v["hidden"], v["layers"], v["heads"], v["mlp"], v["patch"], v["image"])
        return LlavaSize(vision, text["d_model"], text["n_layers"], text["n_heads"], 4 * text["d_model"],
                         text["vocab_size"])
    vision = SiglipSize(v["hidden_size"], v["num_hidden_layers"], v["num_attention_heads"], v["intermediate_size"],
                        v["patch_size"], v["image_size"])
    gemma = GemmaSize(text["hidden_size"], text["num_hidden_layers"], text["intermediate_size"],
                      text["num_attention_heads"], text["num_key_value_heads"], text["head_dim"])
    return PaliGemmaSize(vision, gemma, text["vocab_size"])


def config_of(said):
    head, tokenizer = said["act_head"], said["tokenizer"]
    return RoboVLMConfig(
        action_dim=head["action_dim"], cameras=("static", "hand") if said["use_hand_rgb"] else ("static",),
        backbone=backbone_of(said), head=HEADS[head["type"]], hidden=head["hidden_size"],
        reads=head["token_source"] if head["action_space"] == "down_sample" else "action", latent=head["latent"],
        pooling=head["down_sample"] == "pooling", history=head["history_type"], window=said["window_size"],
        chunk=said["fwd_pred_next_n"], decoded=1, resampler=said.get("use_vision_resampler", False),
        image_place=int(tokenizer["bos"] is not None or head["type"] == "DiscreteDecoder"),
        behind=int(head["type"] != "DiscreteDecoder"), action_end=tokenizer.get("orig_size", 257),
    )


@cache
def golden(name):
    """Policy, vectors and configuration; tests share them and change none."""
    vectors, said, shapes = golden_vectors.load(f"robovlms_{name}")
    with torch.device("meta"):
        policy = RoboVLM(config_of(said)).eval()
    load_weights(policy, golden_vectors.Scaled(shapes, said["fill_rules"]), "golden", rename(policy.config, shapes))
    return policy, vectors, said


def batch_of(vectors, prefix="", static="vision_x", hand="vision_gripper"):
    """(B, L) steps of one camera or two."""
    images = [vectors[prefix + name] for name in (static, hand) if prefix + name in vectors]
    return torch.stack(images, dim=2)


def actions_of(vectors):
    """(B, L, chunk, 7) labels as the policy's normalised actions."""
    return torch.cat([vectors["arm_labels"], vectors["gripper_labels"][..., None] * 2 - 1], dim=-1)


def error(ours, theirs):
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return ((ours - theirs).abs().max() / max(1, theirs.abs().max().item())).item()
