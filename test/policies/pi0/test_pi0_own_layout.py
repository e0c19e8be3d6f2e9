"""Fresh policies and our own checkpoint folders."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pi0_tiny
import pytest
import torch

import vla_ros
from vla_ros.core.chunk import Part, Targets
from vla_ros.core.errors import InputError
from vla_ros.policies import registry

SMALL = {
    "vision": {"kind": "keypoint_stem", "image": 48, "channels": [8, 16, 16], "keypoints": 8, "grid": 3},
    "prefix": {"width": 32, "depth": 2, "mlp": 64, "heads": 4, "kv_heads": 1, "head_dim": 8},
    "expert": {"width": 48, "depth": 2, "mlp": 64, "heads": 4, "kv_heads": 1, "head_dim": 8},
    "horizon": 4,
    "text_length": 12,
}


@pytest.fixture
def loaded():
    torch.manual_seed(0)
    return registry.build("pi0", SMALL, pi0_tiny.training_data())


def test_a_saved_folder_gives_the_same_policy(loaded, tmp_path):
    samples = [pi0_tiny.sample(), pi0_tiny.sample(seed=4)]
    batch = loaded.processor.inputs(samples)
    noise = torch.randn(2, 4, 3)
    registry.save(tmp_path / "checkpoint", loaded)
    registry.save(tmp_path / "checkpoint", loaded)  # an older folder is replaced
    again = registry.load(tmp_path / "checkpoint")
    for name, value in again.processor.inputs(samples).items():
        assert torch.equal(value, batch[name]), name
    ours, theirs = (p.policy.eval().predict(batch, {"noise": noise}) for p in (loaded, again))
    assert torch.equal(ours, theirs)
    first, second = (x.processor.outputs(y, samples) for x, y in ((loaded, ours), (again, theirs)))
    assert all(np.array_equal(a.parts[0].data, b.parts[0].data) for a, b in zip(first, second, strict=True))
    assert again.processor.joints == pi0_tiny.JOINTS and again.processor.cameras == pi0_tiny.CAMERAS
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_a_folder_that_keeps_the_clock_among_the_sizes_loads(loaded, tmp_path):
    """As folders were written before the clock belonged to the embodiment alone; the shipped one is such a folder."""
    registry.save(tmp_path / "checkpoint", loaded)
    path = tmp_path / "checkpoint" / "config.json"
    data = json.loads(path.read_text())
    data["policy"]["step_dt"] = 0.125
    del data["image_fit"]
    path.write_text(json.dumps(data))
    assert registry.load(path.parent).processor.step_dt == 0.1  # the embodiment's
    clockless = replace(loaded.processor.embodiment, step_dt=None)
    clockless.save(path.parent / "embodiment.yaml")
    again = registry.load(path.parent).processor
    assert (again.step_dt, again.fit) == (0.125, "pad")
    shipped = registry.load(Path(vla_ros.__file__).parent / "data/checkpoints/pi0_tiny")
    assert shipped.processor.step_dt == 0.1 and shipped.processor.fit == "pad"


def test_bfloat16_stays_near_float32(loaded, tmp_path):
    """Matrices of the towers alone; within 5 % of the actions' size."""
    registry.save(tmp_path / "checkpoint", loaded)
    short = registry.load(tmp_path / "checkpoint", dtype=torch.bfloat16).policy
    batch, noise = loaded.processor.inputs([pi0_tiny.sample()]), torch.randn(1, 4, 3)
    expected, actions = (p.eval().predict(batch, {"noise": noise}) for p in (loaded.policy, short))
    assert short.expert.layers[0].qkv.weight.dtype == torch.bfloat16
    assert short.image_tokens.tower.maps.weight.dtype == torch.float32
    assert 0 < (actions - expected).abs().max() < 0.05 * expected.abs().max()


def test_outputs_and_normalise_are_inverse(loaded):
    sample = pi0_tiny.sample()
    normalised, survives = loaded.processor.normalise([Targets((Part(pi0_tiny.JOINTS, sample.actions),))], [sample])
    [restored] = loaded.processor.outputs(normalised, [sample])[0].parts
    assert restored.data == pytest.approx(sample.actions, abs=1e-6) and survives.all()
    assert torch.equal(loaded.processor.inputs([sample])["actions"], normalised)


def test_training_reduces_the_loss(loaded):
    batch = loaded.processor.inputs([pi0_tiny.sample(), pi0_tiny.sample(seed=4)])
    noise, time = torch.randn(2, 4, 3), torch.tensor([0.3, 0.7])
    optimiser = torch.optim.AdamW(loaded.policy.parameters(), lr=1e-3)
    losses = []
    for _ in range(20):
        loss = loaded.policy.loss(batch, noise=noise, time=time)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_loss_leaves_out_padding(loaded):
    batch = loaded.processor.inputs([pi0_tiny.sample()])
    draws = {"noise": torch.zeros(1, 4, 3), "time": torch.tensor([0.5])}
    with torch.no_grad():
        error = loaded.policy.element_loss(batch, **draws)
        loss = loaded.policy.loss(batch, **draws)["loss"]
    assert batch["action_is_pad"].tolist() == [[False, False, False, True]]
    assert loss == pytest.approx(error[:, :3].mean().item(), rel=1e-5)


def test_unknown_words_have_no_effect_and_case_does_not_matter(loaded):
    tokenizer = loaded.processor.tokenizer
    known = tokenizer.encode("touch the red cube")
    assert tokenizer.encode("Touch the RED cube") == known
    unknown = tokenizer.encode("xylophone")[0]
    assert torch.equal(loaded.policy.embedding.weight[unknown], torch.zeros(32))
    assert loaded.policy.embedding.weight[known].abs().min() > 0


def test_a_joint_that_never_moved_is_not_blown_up():
    data = pi0_tiny.training_data()
    for rows in data.statistics.values():
        rows["std"][1] = 0.0
    loaded = registry.build("pi0", SMALL, data)
    mean = data.statistics["observation.state"]["mean"]
    assert abs(loaded.processor.state.normalise(mean + 0.01)[1]) < 1.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"horizn": 4}, "horizn"),
        ({"vision": "resnet"}, "resnet"),
        ({"prefix": {"width": 32, "depth": 3, "mlp": 64, "heads": 4, "kv_heads": 1, "head_dim": 8}}, "depth"),
        ({"normalisation": "median"}, "median"),
        ({"cameras": ["front"]}, "dataset"),
        ({"horizon": 0}, "horizon"),
    ],
)
def test_a_bad_training_config_is_named(change, message):
    with pytest.raises(InputError, match=message):
        registry.build("pi0", SMALL | change, pi0_tiny.training_data())


def _break_config(folder):
    data = json.loads((folder / "config.json").read_text())
    del data["policy"]["prefix"]["width"]
    (folder / "config.json").write_text(json.dumps(data))


def _truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_break_config, "width"),
        (_truncate, "model.safetensors"),
        (lambda folder: (folder / "statistics.json").unlink(), "statistics.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json"),
        (lambda folder: (folder / "embodiment.yaml").write_text("cameras: {front: front}\nstate: []"), "embodiment"),
    ],
)
def test_a_damaged_folder_is_named(loaded, tmp_path, damage, message):
    registry.save(tmp_path / "checkpoint", loaded)
    damage(tmp_path / "checkpoint")
    with pytest.raises(InputError, match=message):
        registry.load(tmp_path / "checkpoint")


def test_a_failed_save_leaves_nothing(loaded, tmp_path):
    class Broken(Exception):
        pass

    def fail(folder):
        raise Broken

    loaded.processor.tokenizer.save = fail
    with pytest.raises(Broken):
        registry.save(tmp_path / "checkpoint", loaded)
    assert not list(tmp_path.iterdir())
