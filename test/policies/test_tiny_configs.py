"""The small configurations of the families: small enough to ship, able to fit what they see."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.nn.keypoint_stem import KeypointStemSize
from vla_ros.policies import load, registry, save
from vla_ros.training.config import TrainConfig

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
INSTRUCTIONS = ("touch the red cube", "pick up the green cube")


SIDE = 48  # pixels; a quarter of the work of the shipped size
# Steps of training, their largest learning rate, and how often a batch holds each sample: what is drawn at random is
# drawn several times a step.
PLANS = {"act": (50, 1e-3, 1), "diffusion": (50, 1e-3, 2), "smolvla": (75, 1e-3, 2), "pi0_fast": (75, 2e-3, 1),
         "xvla": (120, 2e-3, 1), "go1": (75, 1e-3, 2), "openvla": (60, 3e-3, 1),
         "groot": (150, 2e-3, 4), "robovlms": (75, 1e-3, 1), "modular": (50, 2e-3, 2),
         "world_model": (100, 3e-3, 2)}


def fresh(family):
    torch.manual_seed(0)
    config = TrainConfig.load(f"config/train/{family}_tiny.yaml", dataset="d", output="o")
    if family == "smolvla":
        config.policy["vlm"] |= {"vision": asdict(KeypointStemSize(image=SIDE)), "shuffle": 1}
    elif family == "go1":
        config.policy["vision"]["image"] = SIDE
    elif family == "pi0_fast":
        config.policy["vision"] = asdict(KeypointStemSize(image=SIDE))
    elif family == "robovlms":
        config.policy["backbone"]["vision"] = asdict(KeypointStemSize(image=SIDE))
        config.policy["window"] = 1
    elif family == "modular":
        config.policy["vision"][0]["image_size"] = config.policy["vision"][1]["image"] = SIDE
    elif family == "world_model":
        config.policy.update(image=SIDE, window=1, plans=8)
    elif family == "openvla":
        config.policy.update(stem={"image": SIDE}, layers=2)
    else:
        config.policy["image_size"] = [SIDE, SIDE]
    if family == "groot":
        config.policy["vision"]["image"] = SIDE
    if family == "xvla":
        config.policy["stem"]["image"] = SIDE
        config.policy["florence"] |= {"width": 64, "text_heads": 2, "mlp": 128, "layers": 1}
        config.policy["depth"] = 2
    row = {"mean": np.zeros(6), "std": np.full(6, 0.3), "min": np.full(6, -0.6), "max": np.full(6, 0.6)}
    row |= {"q01": row["min"], "q99": row["max"]}
    data = registry.TrainingData(JOINTS, ("front", "wrist"), 0.1, {"observation.state": row, "action": row},
                                 INSTRUCTIONS)
    return registry.build(config.family, config.policy, data)


def samples(loaded, count=4):
    """Every second one differs from the one before it in its instruction and its actions alone."""
    result, processor = [], loaded.processor
    for i in range(count):
        rng = np.random.default_rng(i // 2)
        images = {c: rng.integers(0, 256, (processor.n_obs_steps, SIDE, SIDE, 3), dtype=np.uint8)
                  for c in processor.cameras}
        state = rng.uniform(-0.3, 0.3, (processor.n_obs_steps, 6))
        rows = processor.horizon - processor.first_action_step
        towards = np.random.default_rng(100 + i).uniform(-0.5, 0.5, 6)
        actions = state[-1] + np.linspace(0, 1, rows)[:, None] * (towards - state[-1])
        result.append(Sample(images, state, INSTRUCTIONS[i % 2], actions, np.zeros(rows, bool), remaining=rows))
    return result


@pytest.mark.parametrize("family", PLANS)
def test_a_tiny_configuration_fits_a_few_samples_and_tells_instructions_apart(family, tmp_path):
    loaded = fresh(family)
    horizon = loaded.processor.horizon
    assert horizon in (8, 16)
    assert sum(p.numel() for p in loaded.policy.parameters()) * 4 < 20e6
    assert loaded.processor.unknown_words("Shove the RED cube gently, shove the green") == ("shove", "gently")
    known = samples(loaded)
    batch = loaded.processor.inputs(known)
    steps, rate, copies = PLANS[family]
    batch = {name: value.repeat(copies, *[1] * (value.dim() - 1)) for name, value in batch.items()}
    policy = loaded.policy.train()
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], fused=True)
    torch.manual_seed(1)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, step / 10) * (1 - step / steps)
        optimizer.zero_grad()
        policy.loss(batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
    save(tmp_path / "x", loaded)
    served = load(tmp_path / "x")
    torch.manual_seed(2)
    with torch.no_grad():
        inputs = [served.processor.inputs([_seen(one)]) for one in known]  # prompts of several lengths
        predicted = torch.cat([served.policy.predict(batch) for batch in inputs])
    targets = np.stack([one.parts[0].data for one in served.processor.outputs(predicted, known)])
    error = np.abs(targets - np.stack([one.actions for one in known])).mean((1, 2))
    guess = np.stack([one.actions for one in known]).reshape(2, 2, horizon, 6).mean(1, keepdims=True)
    spread = np.abs(np.stack([one.actions for one in known]).reshape(2, 2, horizon, 6) - guess).mean()
    # Without the instruction no policy could come nearer than `spread`, half the distance between the two.
    assert error.mean() < 0.7 * spread


def _seen(one):
    return Sample(one.images, one.state, one.instruction)


@pytest.mark.parametrize("family", PLANS)
def test_what_the_dataset_says_is_not_said_again(family):
    data = registry.TrainingData(JOINTS, ("front",), 0.1, {}, INSTRUCTIONS)
    config = TrainConfig.load(f"config/train/{family}_tiny.yaml", dataset="d", output="o").policy
    with pytest.raises(InputError, match="it comes from the dataset"):
        registry.build(family, config | {"cameras": ["front"]}, data)


@pytest.mark.parametrize("family, changes, said", [
    ("openvla", {"siglip": {"hidden": 32, "depth": 2, "heads": 4, "mlp": 64, "patch": 8, "image": 96}}, "towers"),
    ("openvla", {"stem": None}, "expected siglip"),
    ("openvla", {"film": True}, "needs no FiLM"),
    ("groot", {"image_path": "letterbox"}, "images of one size"),
    ("groot", {"video_steps": [-1, 0]}, "of one time"),
    ("groot", {"image_size": [48, 48]}, "expected \\[96, 96\\]"),
    ("xvla", {"image_size": [48, 48]}, "that of the stem"),
    ("go1", {"vision": {"image": 50}}, "multiple of 24"),
])  # fmt: skip
def test_the_small_vision_tower_where_it_cannot_be_is_refused(family, changes, said):
    data = registry.TrainingData(JOINTS, ("front", "wrist"), 0.1, {}, INSTRUCTIONS)
    config = TrainConfig.load(f"config/train/{family}_tiny.yaml", dataset="d", output="o").policy
    with pytest.raises(InputError, match=said):
        registry.build(family, config | changes, data)
