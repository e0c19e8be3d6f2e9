"""Small policies of every family, with their processors; for tests that no stand-in may pass alone."""

from dataclasses import asdict
from importlib import import_module

import numpy as np
import pi0_tiny
import torch

from vla_ros.core.observation import Sample
from vla_ros.nn.keypoint_stem import KeypointStemSize
from vla_ros.policies import registry
from vla_ros.training.config import TrainConfig

FAMILIES = (
    "pi0", "pi05", "pi0_fast", "xvla", "smolvla", "act", "diffusion", "go1", "groot", "openvla", "openvla_oft",
    "robovlms", "robovlms_discrete", "modular", "world_model",
)  # fmt: skip
GUIDED = ("pi0", "pi05", "smolvla", "diffusion", "go1", "groot", "modular")
TOKENS = ("tokens", "pi0_fast", "openvla", "robovlms_discrete")  # that answer with tokens
FOREIGN = ("tokens", "recurrent", "planner")  # of test/foreign
# Another kind of a family -> the family.
BUILT = {"pi05": "pi0", "openvla_oft": "openvla", "robovlms_discrete": "robovlms"}
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
INSTRUCTIONS = ("touch the red cube", "pick up the green cube")
CAMERAS = ("front", "wrist")
SIDE = 48  # pixels; a quarter of the work of the shipped size
VIT = {"hidden": 96, "depth": 1, "heads": 4, "mlp": 192}


def config(family: str) -> dict:
    """A training config's `policy` mapping: the shipped tiny configuration, smaller still, and with the vision tower of
    the published policies where there is one that small."""
    if family in FOREIGN:
        return {"image_size": [SIDE, SIDE]} | ({"language": True} if family == "tokens" else {})
    if family.startswith("pi0"):
        sizes = {"vision": {"kind": "keypoint_stem", **asdict(pi0_tiny.STEM)}, "prefix": asdict(pi0_tiny.PREFIX),
                 "expert": asdict(pi0_tiny.EXPERT), "horizon": 6, "num_steps": 3, "text_length": 12}
        if family == "pi0_fast":
            return {name: sizes[name] for name in ("vision", "prefix", "horizon")} | {"text_length": 48}
        return sizes | ({"adaptive": True, "prompt": "pi05", "text_length": 40} if family == "pi05" else {})
    values = TrainConfig.load(f"config/train/{BUILT.get(family, family)}_tiny.yaml", dataset="d", output="o").policy
    if family.startswith("openvla"):
        small = {"stem": None, "siglip": {**VIT, "hidden": 32, "depth": 2, "patch": 8, "image": SIDE}}
        # Tokens that are written one after the other take a recording of as many steps.
        head = {"head": "l1", "chunk": 6} if family == "openvla_oft" else {"head": "autoregressive", "chunk": 1}
        return values | small | head | {"layers": 1}
    if family.startswith("robovlms"):
        vision, text = asdict(KeypointStemSize(image=SIDE)), values["backbone"]["text"] | {"depth": 1}
        head = {"chunk": 6, "text_length": 3}  # words
        if family == "robovlms_discrete":
            head = {"head": "discrete", "chunk": 1, "window": 1, "text_length": 14}
        return values | {"backbone": {"kind": "stem", "vision": vision, "text": text}} | head | {"hidden": 16}
    if family == "modular":
        siglip, stem = values["vision"]
        values["vision"] = [siglip | {"image_size": SIDE, "num_hidden_layers": 1}, stem | {"image": SIDE, "width": 64}]
        values["language"] |= {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128}
        values["head"] |= {"hidden": 64, "layers": 1, "mlp": 128, "num_steps": 3}
        return values | {"horizon": 6}
    if family == "world_model":
        small = {"image": SIDE, "horizon": 6, "components": 4, "candidates": 8, "elites": 2, "rounds": 2, "window": 2,
                 "planner": "mppi", "temperature": 10.0}  # which answers smoothly
        return values | small | {"channels": [8, 16], "deterministic": 32, "stochastic": 8, "hidden": 48}
    if family == "groot":
        values["vision"] = {**VIT, "grid": 2, "patch": 12}
        values |= {"image_size": [SIDE, SIDE], "chunk_size": 6, "num_steps": 3}
    elif family == "smolvla":
        values["vlm"] |= {"vision": asdict(KeypointStemSize(image=SIDE)), "shuffle": 1}
        values |= {"num_vlm_layers": 2, "num_steps": 3, "chunk_size": 6, "n_action_steps": 6}
    elif family == "go1":
        values["vision"] = {**VIT, "patch": 8, "image": SIDE}
        values |= {name: values[name] | {"depth": 2} for name in ("text", "expert", "planner")}
        values |= {"horizon": 6, "num_steps": 3, "text_length": 9}  # prompts of one length
    else:
        values["image_size"] = [SIDE, SIDE]
    if family == "xvla":
        stages = {"widths": [8, 16], "patches": [7, 3], "strides": [4, 4], "margins": [3, 1]}
        stages |= {"window": 6, "positions": 10, "norm_first": [False, True]}
        stages |= {name: [1, 1] for name in ("depths", "heads", "groups")}
        values["florence"] |= stages | {"width": 32, "layers": 1}
        values |= {"stem": None, "num_steps": 3, "chunk_size": 6, "hidden_size": 32, "depth": 2}
    if family == "diffusion":
        values |= {"num_inference_steps": 3, "down_dims": [16, 32], "n_obs_steps": 2}
    return values


def data() -> registry.TrainingData:
    """Of a dataset of this file's robot."""
    row = {"mean": np.zeros(6), "std": np.full(6, 0.3), "min": np.full(6, -0.6), "max": np.full(6, 0.6)}
    row |= {"q01": row["min"], "q99": row["max"]}
    return registry.TrainingData(JOINTS, CAMERAS, 0.1, {"observation.state": row, "action": row}, INSTRUCTIONS)


def fresh(family: str, **changes) -> registry.LoadedPolicy:
    """With weights drawn at random everywhere: layers that start at zero would hide mistakes."""
    torch.manual_seed(0)
    name = BUILT.get(family, family)
    if family in FOREIGN:
        loaded = import_module(f"foreign_policies.{family}").FAMILY.build(config(family) | changes, data())
    else:
        loaded = registry.build(name, config(family) | changes, data())
    with torch.no_grad():
        for parameter in loaded.policy.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    loaded.policy.eval()
    return loaded


def sample(processor, seed: int = 0, instruction: str = INSTRUCTIONS[0], stamp_ns: int = 0) -> Sample:
    """Of a robot with the cameras and joints of this file."""
    rng = np.random.default_rng(seed)
    steps = processor.n_obs_steps
    images = {name: rng.integers(0, 256, (steps, SIDE, SIDE, 3), dtype=np.uint8) for name in processor.cameras}
    return Sample(images, rng.uniform(-0.3, 0.3, (steps, len(JOINTS))), instruction, stamp_ns=stamp_ns)
