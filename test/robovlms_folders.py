"""Folders as `vla-ros convert` makes them of RoboVLMs' files: the golden vectors' networks and the files around."""

import json
from pathlib import Path

import golden_vectors
import numpy as np
import tokenizers
from golden_vectors import Scaled
from safetensors.torch import save_file

from vla_ros.policies.embodiment import Dimension, Embodiment

KEYS = json.loads((Path(__file__).parent / "data/keys/robovlms.json").read_text())
# Of shapes that do not tell them, in the base model's own config.json.
VLM = {
    "RoboKosMos": {"text_config": {"attention_heads": 4}, "vision_config": {"num_attention_heads": 3}},
    "RoboPaligemma": {"text_config": {"num_attention_heads": 4}, "vision_config": {"num_attention_heads": 3}},
    "RoboLLaVA": {"n_heads": 4, "vision_config": {"num_attention_heads": 3}},
}
WORDS = "an image of a robot touch pick up the red green cube input : what action step actions should take ? output 5"


def full_shapes(name, head="LSTM head"):
    """Key -> shape of a published file of real size; another head's keys replace the LSTM's."""

    def unpacked(part):
        shapes = {}
        for key, row in KEYS[name][part].items():
            shape, count = row if isinstance(row[0], list) and row else (row, None) if row else ([], None)
            for n in range(count or 1):
                shapes[key.replace("*", str(n))] = tuple(shape)
        return shapes

    shapes = unpacked("checkpoint (LSTM head)")
    if head != "LSTM head":
        shapes = {key: shape for key, shape in shapes.items() if ".rnn." not in key} | unpacked(head)
    return shapes


def config_json(said, action_dim=7, **changes):
    """As RoboVLMs' configs/ have it, of a golden vector's configuration."""
    head = dict(said["act_head"], action_dim=action_dim, window_size=999)  # which the outer one overrides
    return {
        "robovlm_name": said["robovlm"], "model": "kosmos", "image_size": 28, "window_size": said["window_size"],
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        "fwd_pred_next_n": said["fwd_pred_next_n"], "arm_gripper_loss_ratio": 0.01, "act_head": head,
        "use_hand_rgb": said["use_hand_rgb"], "norm_action": True, "norm_min": -0.65, "norm_max": 0.65,
        "use_mu_law": False, "regular_action": False, "use_vision_resampler": said.get("use_vision_resampler", False),
        "vision_resampler": {"vis_dim": 1024, "depth": 8, "dim_head": 64, "heads": 8, "num_latents": 64},
        "tokenizer": {"type": "AutoProcessor", "max_text_len": 48}, "train_dataset": {"type": "DiskCalvinDataset"},
        "vlm": {"type": "AutoModelForVision2Seq", "path": ".vlms/kosmos-2-patch14-224"}, **changes,
    }


def write(path: Path, name="kosmos_lstm", action_dim=7, **changes):
    """A folder of a golden vector's network, its tokenizer and its base's config.json in vlm/."""
    _, said, shapes = golden_vectors.load(f"robovlms_{name}")
    chunk = said["fwd_pred_next_n"]
    for leaf in ("weight", "bias"):  # of the trunk's last layer
        key = f"model.act_head.actions.mlp.6.{leaf}"
        if key in shapes:
            shapes[key] = (chunk * (action_dim - 1), *shapes[key][1:])
    tensors = Scaled(shapes, said["fill_rules"])
    (path / "vlm").mkdir(parents=True, exist_ok=True)
    save_file({key: next(tensors.pieces(key))[1].contiguous() for key in shapes}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(config_json(said, action_dim, **changes)))
    (path / "vlm/config.json").write_text(json.dumps(VLM[said["robovlm"]]))
    write_tokenizer(path / "vlm")
    return path


def write_tokenizer(folder: Path, size=400):
    """Like Kosmos-2's: <s>, <pad>, </s>, <unk>, words, and <grounding>, which was added."""
    words = list(dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>", *WORDS.split(), *(f"word{n}" for n in range(size))]))
    vocabulary = {word: n for n, word in enumerate(words[: size - 1])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.normalizer = tokenizers.normalizers.Lowercase()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    inner.add_tokens(["<grounding>"])
    inner.save(str(folder / "tokenizer.json"))
    marks = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(marks))


def write_statistics(path: Path, width, seed=0):
    """Of Open X-Embodiment, as the published `dataset_statistics_bridge.json`; the gripper's are 0 and 1."""
    rng = np.random.default_rng(seed)
    low, high = -rng.uniform(0.2, 0.4, width), rng.uniform(0.2, 0.4, width)
    low[-1], high[-1] = 0, 1
    row = {"mean": 0 * low, "std": high / 2, "min": low * 1.5, "max": high * 1.5, "q01": low, "q99": high}
    rows = {name: values.tolist() for name, values in row.items()}
    (path / "dataset_statistics_bridge.json").write_text(json.dumps({"action": rows, "num_transitions": 10}))
    return low, high


def write_for_robot(path: Path, joints, cameras=("front", "wrist")):
    """A folder of an OXE recipe that says which joints and cameras it is of."""
    write(path, action_dim=len(joints), train_dataset={"type": "OpenVLADataset"})
    write_statistics(path, len(joints))
    dimensions = tuple(map(Dimension, joints))
    named = dict(zip(("static", "hand"), cameras, strict=True))
    Embodiment(named, dimensions, dimensions, 0.1).save(path / "embodiment.yaml")
    return path
