"""A policy of parts of somebody else's package, one of each kind."""

from dataclasses import replace

import families
import numpy as np
import pytest
import torch
from foreign_policies import pieces

from vla_ros.core.errors import InputError
from vla_ros.policies import load, parts, registry, save
from vla_ros.runtime.engines.export import plain
from vla_ros.runtime.remote.digest import digest


def build(**changes):
    data = replace(families.data(), streams={"force": (3,)})
    return registry.build("modular", pieces.COMPOSED | changes, data)


def sample(loaded, seed):
    one = families.sample(loaded.processor, seed, families.INSTRUCTIONS[seed % 2])
    values = {"force": np.full((1, 3), seed, np.float32)}
    return replace(one, values=values, actions=np.full((4, 6), 0.1 * seed), action_is_pad=np.zeros(4, bool))


def test_it_is_trained_saved_and_served(tmp_path):
    torch.manual_seed(0)
    loaded = build()
    assert loaded.policy.prefix == 2 and loaded.processor.streams == ("force",)
    samples = [sample(loaded, seed) for seed in range(4)]
    batch = loaded.processor.inputs(samples)
    optimizer = torch.optim.Adam(loaded.policy.parameters(), 0.01)
    losses = []
    for _ in range(120):
        optimizer.zero_grad()
        loss = loaded.policy.loss(batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
    save(tmp_path / "x", loaded)
    served = load(tmp_path / "x")
    answer = served.policy.predict(served.processor.inputs(samples))
    assert torch.equal(answer, loaded.policy.eval().predict(batch))
    rows = registry.describe(tmp_path / "x")
    assert rows["encoder of force"] == "scaled: 1 tokens of 16; 64 parameters, trained"
    assert rows["sequence"] == "1 of the fusion + 1 of the joints + 128 of the instruction = 130 tokens at most"


def test_the_two_parts_that_do_not_fit_are_named(monkeypatch):
    monkeypatch.setattr(pieces.Twice, "forward", lambda self, x: self.layer(x))
    with pytest.raises(InputError, match="projector 'twice' gives \\[6, 1, 16\\], language model 'recurrent' takes "
                                         "\\[6, 2, 16\\]; expected the same"):
        build()
    monkeypatch.undo()
    monkeypatch.setattr(pieces.Colours, "width", 9)
    monkeypatch.setattr(pieces.Colours, "forward", lambda self, images, text: images.new_zeros(*images.shape[:2], 1, 8))
    with pytest.raises(InputError, match="vision tower 'colours' gives \\[3, 2, 1, 8\\], projector 'twice' takes "
                                         "\\[3, 2, 1, 9\\]; expected the same"):
        build()
    monkeypatch.undo()
    monkeypatch.setattr(pieces.Recurrent, "forward", lambda self, x, valid: x[..., :-1])
    with pytest.raises(InputError, match="language model 'recurrent' gives \\[3, 4, 15\\], head 'straight' takes"):
        build()
    monkeypatch.setattr(pieces.Recurrent, "forward", lambda self, x, valid: {}[x])
    with pytest.raises(InputError, match="language model 'recurrent' does not accept .*: KeyError: "):
        build()
    monkeypatch.undo()
    with pytest.raises(InputError, match="vision tower 'colours' sees images of 24 pixels, vision tower "
                                         "'keypoint_stem' of 96"):
        build(vision=["colours", "keypoint_stem"])


def test_a_stream_that_is_not_there_is_named():
    with pytest.raises(InputError, match="encoders.torque: the dataset has no such stream, only \\['force'\\]"):
        build(encoders={"torque": "scaled"})
    loaded = build()
    with pytest.raises(InputError, match="stream 'force' of shape None, the policy reads \\(1, 3\\)"):
        loaded.processor.inputs([families.sample(loaded.processor)])


def test_names_are_registered_once_and_unknown_ones_list_the_known():
    with pytest.raises(InputError, match="head 'straight' is there already"):
        parts.HEADS["straight"] = pieces.Straight
    with pytest.raises(InputError, match="vision tower 'siglip-base' is there already"):
        parts.VISION.register("siglip-base")(pieces.Colours)
    with pytest.raises(InputError, match="head 'mine'.*expected a class derived from Head"):
        parts.HEADS["mine"] = pieces.Sum
    with pytest.raises(InputError, match="policy.head: head 'flwo', expected one of .*'diffusion'.*'flow'.*'straight'"):
        build(head="flwo")
    with pytest.raises(InputError, match="policy.head: 3, expected the name of a head, or a mapping with its kind"):
        build(head=3)
    assert "colours" in parts.VISION and "nothing" not in parts.VISION and len(parts.FUSIONS) == 5


def test_an_installed_package_offers_parts(monkeypatch):
    from importlib.metadata import EntryPoint

    from vla_ros.policies.parts import registry as names

    point = EntryPoint("line", "foreign_policies.pieces:Straight", "vla_ros.parts.heads")
    installed = {"line": point, "broken": EntryPoint("broken", "no_package:Head", point.group)}
    monkeypatch.setattr(names, "_installed", lambda group, path: installed if group == point.group else {})
    assert parts.HEADS["line"] is pieces.Straight and "line" in parts.HEADS
    loaded = build(head="line")
    assert loaded.policy.head.along.shape == (4, 1)
    assert digest(loaded) and plain(loaded.processor)["config"]["head"]["kind"] == "line"  # without the broken one
