"""Published folders of every layout, at full size (shapes alone) and small (with numbers)."""

import json
import shutil
import subprocess
import sys

import golden_vectors
import numpy as np
import pi0_folders
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.nn.gemma import GemmaSize
from vla_ros.nn.meta import without_numbers
from vla_ros.policies import registry
from vla_ros.policies.embodiment import Dimension, Embodiment
from vla_ros.policies.formats.weights import load_weights
from vla_ros.policies.normalisation import write_statistics
from vla_ros.policies.pi0.checkpoint import FAMILY
from vla_ros.policies.pi0.config import Pi0Config
from vla_ros.policies.pi0.model import Pi0
from vla_ros.policies.pi0.names import rename

JOINTS = ("pan", "lift", "gripper")
CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
FULL = {"pi0": Pi0Config(), "pi05": Pi0Config(adaptive=True, prompt="pi05", text_length=200)}


def embodiment(**changes):
    values = dict(
        cameras={"base_0_rgb": "front", "left_wrist_0_rgb": "wrist", "right_wrist_0_rgb": None},
        state=tuple(Dimension(name) for name in JOINTS),
        actions=tuple(Dimension(name) for name in JOINTS),
        step_dt=0.05,
    )
    return Embodiment(**values | changes)


def total(shapes):
    return sum(int(np.prod(shape)) for shape in shapes.values())


def test_parameter_counts_are_the_published_ones():
    assert FAMILY.parameters(FULL["pi0"]) == 3_238_048_528
    assert FAMILY.parameters(FULL["pi05"]) == 3_353_433_872
    shapes = {kind: pi0_folders.openpi_shapes(config, kind == "pi05") for kind, config in FULL.items()}
    assert total(shapes["pi0"]) == 4_028_019_472 and len(shapes["pi0"]) == 778
    assert total(shapes["pi05"]) == 4_143_404_816 and len(shapes["pi05"]) == 813
    tiny = golden_vectors.load("pi0")[2]
    assert set(tiny) <= set(shapes["pi0"])  # the same names as LeRobot's own model has


def write_full_size(folder, layout, kind):
    """A folder of a real checkpoint's size that holds no numbers."""
    config, adaptive = FULL[kind], kind == "pi05"
    folder.mkdir()
    shapes = pi0_folders.openpi_shapes(config, adaptive)
    embedding = f"{pi0_folders.P}.model.language_model.embed_tokens.weight"
    if layout == "openpi":
        del shapes[embedding]
        said = {"action_dim": 32, "action_horizon": 50, "paligemma_variant": "gemma_2b",
                "action_expert_variant": "gemma_300m", "precision": "bfloat16"}  # fmt: skip
    elif layout == "transformers":
        shapes = {pi0_folders.transformers_name(k): s for k, s in shapes.items() if "paligemma.lm_head" not in k}
        said = {"model_type": "pi0", "vlm_config": None, "dit_config": None}
    elif layout == "vla_ros":
        with without_numbers():
            shapes = {k: tuple(t.shape) for k, t in Pi0(config).state_dict().items()}
        loaded = registry.build("pi0", SMALL, TRAINING)
        registry.save(folder, loaded)
        said = json.loads((folder / "config.json").read_text()) | {"policy": config.to_dict()}
        cameras = {name: "front" for name in config.cameras}
        Embodiment.identity(loaded.processor.joints, cameras, 0.02).save(folder / "embodiment.yaml")
    else:
        rename = pi0_folders.legacy_name if layout == "lerobot legacy" else lambda key: f"model.{key}"
        shapes = {rename(key): shape for key, shape in shapes.items()}
        said = pi0_folders.lerobot_config(config, kind, 7, CAMERAS, variants=True)
    (folder / "config.json").write_text(json.dumps(said, default=str))
    pi0_folders.write_sparse(folder / "model.safetensors", shapes)


SMALL = {
    "vision": {"kind": "keypoint_stem", "image": 48, "channels": [8, 16, 16], "keypoints": 8, "grid": 3},
    "prefix": {"width": 32, "depth": 2, "mlp": 64, "heads": 4, "kv_heads": 1, "head_dim": 8},
    "expert": {"width": 48, "depth": 2, "mlp": 64, "heads": 4, "kv_heads": 1, "head_dim": 8},
}
TRAINING = registry.TrainingData(
    JOINTS,
    ("front",),
    0.1,
    {f: {"mean": np.zeros(3), "std": np.ones(3)} for f in ("observation.state", "action")},
    ("touch the red cube",),
)


@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        ("lerobot", "pi05"), ("lerobot legacy", "pi0"), ("openpi", "pi0"), ("transformers", "pi0"), ("vla_ros", "pi05"),
    ],
)  # fmt: skip
def test_a_full_size_checkpoint_of_every_layout_leaves_nothing_over(tmp_path, layout, kind):
    write_full_size(tmp_path / "checkpoint", layout, kind)
    loaded = registry.load(tmp_path / "checkpoint", device="meta")
    assert loaded.layout == layout.split()[0]
    assert loaded.policy.config.adaptive == (kind == "pi05")
    assert sum(p.numel() for p in loaded.policy.parameters()) == FAMILY.parameters(FULL[kind])
    said = registry.describe(tmp_path / "checkpoint")
    assert said["parameters"] == f"{FAMILY.parameters(FULL[kind]):,}"
    if "lerobot" in layout:
        assert "lm_head" in said["not used"] and "statistics" in said["notes"]


def reference(adaptive, config=pi0_folders.TINY):
    """The tiny policy filled directly, without a folder."""
    config = Pi0Config(**vars(config) | {"adaptive": adaptive, "prompt": "pi05" if adaptive else "pi0"})
    with without_numbers():
        policy = Pi0(config)
    shapes = pi0_folders.openpi_shapes(config, adaptive)
    load_weights(policy, golden_vectors.Filled(shapes), "made up", rename(config, shapes))
    return policy.eval()


def network_inputs(config, rows=2):
    g = torch.Generator().manual_seed(0)
    side = config.vision.image
    batch = {
        "images": torch.randint(0, 256, (rows, 3, 3, side, side), generator=g, dtype=torch.uint8),
        "image_mask": torch.tensor([[True, True, False]] * rows),
        "tokens": torch.randint(0, config.vocabulary, (rows, 9), generator=g),
        "token_mask": torch.arange(9)[None] < torch.tensor([[9], [6]]),
        "state": torch.randn(rows, config.state_dim, generator=g),
    }
    return batch, torch.randn(rows, config.horizon, config.action_dim, generator=g)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    tiny = pi0_folders.TINY
    pi0_folders.write_lerobot(root / "lerobot-pi0", tiny, "pi0", 3, CAMERAS)
    pi0_folders.write_lerobot(root / "lerobot-pi05", tiny, "pi05", 3, CAMERAS)
    pi0_folders.write_legacy_lerobot(root / "legacy-pi0", tiny, 3, CAMERAS)
    pi0_folders.write_openpi(root / "openpi-pi0", tiny, False, 3)
    pi0_folders.write_openpi(root / "sharded-pi05", tiny, True, 3, shards=3)
    pi0_folders.write_sentencepiece(root / "tokenizer.model")
    return root


@pytest.mark.parametrize("name", ["lerobot-pi0", "lerobot-pi05", "legacy-pi0", "openpi-pi0", "sharded-pi05"])
def test_every_layout_gives_the_same_network(folders, name):
    loaded = registry.load(
        folders / name, embodiment=embodiment(), tokenizer=folders / "tokenizer.model", dtype=torch.float32
    )
    plain = reference(adaptive="pi05" in name)
    if "openpi" in name or "sharded" in name:  # there the head is the embedding
        head = f"{pi0_folders.P}.model.language_model.embed_tokens.weight"
        plain.embedding.weight.data = golden_vectors.fill(head, tuple(plain.embedding.weight.shape))
    batch, noise = network_inputs(loaded.policy.config)
    steps = loaded.policy.config.num_steps
    with torch.no_grad():
        expected = plain.predict(batch, {"noise": noise}, num_steps=steps)
    torch.testing.assert_close(loaded.policy.predict(batch, {"noise": noise}), expected)
    assert loaded.processor.step_dt == 0.05 and loaded.processor.joints == JOINTS


@pytest.mark.parametrize("name", ["lerobot-pi0", "legacy-pi0", "openpi-pi0", "lerobot-pi05", "sharded-pi05"])
def test_normalisation_follows_the_layout(folders, name):
    processor = registry.load(
        folders / name, embodiment=embodiment(), tokenizer=folders / "tokenizer.model"
    ).processor
    rows = {f: {k: v.astype(np.float64) for k, v in s.items()} for f, s in pi0_folders.statistics(3).items()}
    state, action = rows["observation.state"], rows["action"]
    x = np.array([0.3, -0.2, 0.9])
    normalised = torch.randn(1, 5, 32)
    y = normalised[..., :3].double().numpy()
    if "pi05" in name:
        eps = 1e-6 if name.startswith("sharded") else 0.0
        expected = 2 * (x - state["q01"]) / (state["q99"] - state["q01"] + eps) - 1
        restored = (y + 1) / 2 * (action["q99"] - action["q01"] + eps) + action["q01"]
    else:
        into, back = (1e-6, 1e-6) if name.startswith("openpi") else (1e-8, 0.0)
        expected = (x - state["mean"]) / (state["std"] + into)
        restored = y * (action["std"] + back) + action["mean"]
    assert processor.state.normalise(x) == pytest.approx(expected, rel=1e-12)
    [part] = processor.outputs(normalised, [Sample({}, x[None], "")])[0].parts
    assert part.data == pytest.approx(restored[0], rel=1e-9, abs=1e-12)


def damage_missing(tensors):
    del tensors["model.action_in_proj.bias"]


def damage_extra(tensors):
    tensors["model.another.weight"] = torch.zeros(2)


def damage_shape(tensors):
    tensors["model.action_out_proj.weight"] = torch.zeros(31, 32)


def test_one_error_lists_everything_that_does_not_fit(folders, tmp_path):
    tensors = load_file(folders / "lerobot-pi0" / "model.safetensors")
    for damage in (damage_missing, damage_extra, damage_shape):
        damage(tensors)
    folder = tmp_path / "damaged"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text((folders / "lerobot-pi0" / "config.json").read_text())
    with pytest.raises(InputError) as error:
        registry.load(folder)
    for part in ("missing: action_in.bias", "extra: model.another.weight", "action_out.weight [31, 32]"):
        assert part in str(error.value)


def test_a_truncated_file_is_named(folders, tmp_path):
    folder = tmp_path / "cut"
    folder.mkdir()
    (folder / "config.json").write_text((folders / "lerobot-pi0" / "config.json").read_text())
    (folder / "model.safetensors").write_bytes((folders / "lerobot-pi0" / "model.safetensors").read_bytes()[:-50])
    with pytest.raises(InputError, match=r"model\.safetensors.*complete"):
        registry.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": (Dimension("pan"), Dimension("lift"))}, "state of 3 dimensions, .* gives 2"),
        ({"actions": (Dimension("pan"), Dimension("lift"), Dimension("gripper"), Dimension("roll"))}, "actions of 3"),
        ({"cameras": {"base_0_rgb": "front"}}, "left_wrist_0_rgb"),
        ({"cameras": dict.fromkeys(CAMERAS)}, "absent"),
    ],
)
def test_an_embodiment_that_does_not_fit_is_named(folders, change, message):
    with pytest.raises(InputError, match=message):
        registry.load(
            folders / "lerobot-pi0", embodiment=embodiment(**change), tokenizer=folders / "tokenizer.model"
        )


def test_a_checkpoint_without_a_clock_needs_one(folders):
    """openpi's folders hold none; LeRobot's count as 30 Hz, with a warning, as for every family."""
    options = {"embodiment": embodiment(step_dt=None), "tokenizer": folders / "tokenizer.model"}
    with pytest.raises(InputError, match="step_dt"):
        registry.load(folders / "openpi-pi0", **options)
    assert registry.load(folders / "lerobot-pi0", **options).processor.step_dt == pytest.approx(1 / 30)
    assert "policy file" in registry.describe(folders / "openpi-pi0")["horizon"]


def test_a_checkpoint_without_tokenizer_does_not_serve(folders):
    with pytest.raises(InputError, match="tokenizer"):
        registry.load(folders / "lerobot-pi0", embodiment=embodiment())


def test_relative_actions_must_be_declared(folders, tmp_path):
    said = {"enabled": True, "exclude_joints": ["gripper"], "action_names": list(JOINTS)}
    pi0_folders.write_lerobot(tmp_path / "relative", pi0_folders.TINY, "pi0", 3, CAMERAS, relative=said)
    options = {"tokenizer": folders / "tokenizer.model"}
    with pytest.raises(InputError, match="mode: delta"):
        registry.load(tmp_path / "relative", embodiment=embodiment(), **options)
    modes = ("delta", "delta", "absolute")
    actions = tuple(Dimension(name, mode=mode) for name, mode in zip(JOINTS, modes, strict=True))
    registry.load(tmp_path / "relative", embodiment=embodiment(actions=actions), **options)


def test_info_needs_no_embodiment(folders):
    said = registry.describe(folders / "lerobot-pi05")
    assert said["family"] == "pi0" and said["layout"] == "lerobot"
    assert "π0.5" in said["model"] and "quantiles" in said["state"] and "3 of 32" in said["state"]
    assert "0.0333333 s apart" in said["horizon"] and "PaliGemma" in said["tokenizer"]


MEASURE = """
import re, sys
import torch
import yaml
from pathlib import Path
from vla_ros.policies import registry
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
registry.describe(sys.argv[1])  # imports all that is needed
before = peak()
registry.load(sys.argv[1], dtype=torch.float32)
print(peak() - before)
"""


def test_loading_takes_little_more_memory_than_the_checkpoint(tmp_path):
    """Measured in a process of its own; the largest tensor has the share of a real checkpoint's, 15 %."""
    prefix = GemmaSize(width=512, depth=4, mlp=4096, heads=8, kv_heads=1, head_dim=64)
    expert = GemmaSize(width=128, depth=4, mlp=512, heads=8, kv_heads=1, head_dim=64)
    config = Pi0Config(**vars(pi0_folders.TINY) | {"prefix": prefix, "expert": expert, "vocabulary": 10_000})
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    said = pi0_folders.lerobot_config(config, "pi0", 3, CAMERAS, variants=False)
    (folder / "config.json").write_text(json.dumps(said))
    shapes = pi0_folders.openpi_shapes(config, False)
    del shapes[f"{pi0_folders.P}.model.language_model.embed_tokens.weight"]
    del shapes[f"{pi0_folders.X}.lm_head.weight"]
    save_file({f"model.{key}": torch.ones(shape) for key, shape in shapes.items()}, folder / "model.safetensors")
    size = (folder / "model.safetensors").stat().st_size
    assert size > 130e6
    result = subprocess.run([sys.executable, "-c", MEASURE, str(folder)], capture_output=True, text=True, check=True)
    grown = int(result.stdout.split()[-1])
    print(f"{grown / size:.3f} x the checkpoint")
    assert 0.5 * size < grown < 1.2 * size


def test_statistics_of_a_file_stand_in_for_missing_ones(folders, tmp_path):
    """Named in the policy file, beside which they lie; a checkpoint that has none needs them to serve."""
    shutil.copytree(folders / "openpi-pi0", tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "assets")
    data = embodiment().to_dict() | {"checkpoint": "bare", "tokenizer": str(folders / "tokenizer.model")}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(InputError, match=r"norm_stats.*overrides\.statistics"):
        registry.load(tmp_path / "policy.yaml")
    write_statistics(tmp_path / "statistics.json", pi0_folders.statistics(3))
    data["overrides"] = {"statistics": "statistics.json", "num_steps": 4}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(data))
    served, whole = registry.load(tmp_path / "policy.yaml"), registry.load(
        folders / "openpi-pi0", embodiment=embodiment(), tokenizer=folders / "tokenizer.model"
    )
    x = np.array([0.3, -0.2, 0.9])
    assert served.processor.state.normalise(x) == pytest.approx(whole.processor.state.normalise(x), rel=1e-6)
    assert served.policy.config.num_steps == 4
    data["overrides"] = {"steps": 4}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(InputError, match="steps"):
        registry.load(tmp_path / "policy.yaml")


def test_a_fine_tuned_checkpoint_is_saved_in_our_own_layout(folders, tmp_path):
    loaded = registry.load(
        folders / "lerobot-pi05", embodiment=embodiment(), tokenizer=folders / "tokenizer.model", dtype=torch.bfloat16
    )
    registry.save(tmp_path / "own", loaded)
    again = registry.load(tmp_path / "own", dtype=torch.bfloat16)
    batch, noise = network_inputs(loaded.policy.config)
    assert again.layout == "vla_ros"
    assert torch.equal(again.policy.predict(batch, {"noise": noise}), loaded.policy.predict(batch, {"noise": noise}))
    x = np.array([0.3, -0.2, 0.9])
    assert np.array_equal(again.processor.state.normalise(x), loaded.processor.state.normalise(x))
    assert again.processor.tokenizer.encode("touch the cube") == loaded.processor.tokenizer.encode("touch the cube")


def test_one_of_openpis_assets_is_chosen_by_name(folders, tmp_path):
    shutil.copytree(folders / "openpi-pi0", tmp_path / "two")
    shutil.copytree(tmp_path / "two" / "assets" / "robot", tmp_path / "two" / "assets" / "other")
    file = tmp_path / "two" / "assets" / "other" / "norm_stats.json"
    text = file.read_text()
    for name, first in (("mean", 0.25), ("std", 1.0), ("q01", -0.5), ("q99", 0.75)):
        text = text.replace(f'"{name}": [', f'"{name}": [{first}, ')
    file.write_text(text)
    assert r"it contains the assets ['other', 'robot']" in registry.describe(tmp_path / "two")["notes"]
    with pytest.raises(InputError, match=r"\['other', 'robot'\]; choose one with overrides\.statistics"):
        registry.load(tmp_path / "two", embodiment=embodiment(), tokenizer=folders / "tokenizer.model")
    for said in ("statistics", "assets"):
        options = {"embodiment": embodiment(), "tokenizer": folders / "tokenizer.model", "overrides": {said: "other"}}
        assert registry.load(tmp_path / "two", **options).processor.state.statistics["mean"][0] == 0.25
        with pytest.raises(InputError, match=r"'third': neither a file nor a set .*\['other', 'robot'\]"):
            registry.load(tmp_path / "two", **options | {"overrides": {said: "third"}})


@pytest.mark.parametrize("layout", ["openpi", "transformers"])
def test_a_field_that_is_not_known_is_refused_by_name(tmp_path, layout):
    if layout == "openpi":
        pi0_folders.write_openpi(tmp_path / "c", pi0_folders.TINY, False, 3)
    else:
        pi0_folders.write_transformers(tmp_path / "c", pi0_folders.TINY)
    file = tmp_path / "c" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use_new_trick": True}))
    with pytest.raises(InputError, match="use_new_trick"):
        registry.describe(tmp_path / "c")
