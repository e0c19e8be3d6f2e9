"""A policy that learns to answer in fewer denoising steps."""

import json
from dataclasses import replace

import families
import numpy as np
import pytest
import torch

from vla_ros.cli.main import main as vla_ros
from vla_ros.core.errors import InputError
from vla_ros.policies.registry import load, save
from vla_ros.runtime.session import PolicySession
from vla_ros.training.distill import distilling

DENOISING = ("pi0", "pi05", "smolvla", "diffusion", "xvla", "go1", "groot")


def one_batch(processor):
    samples = []
    for seed in range(4):
        sample = families.sample(processor, seed)
        rng = np.random.default_rng(seed)
        actions = rng.uniform(-0.3, 0.3, (processor.horizon, len(families.JOINTS)))
        samples.append(replace(sample, actions=actions, action_is_pad=np.zeros(processor.horizon, dtype=bool)))
    return processor.inputs(samples)


@pytest.mark.parametrize("family", DENOISING)
def test_every_family_that_denoises_comes_near_its_own_answers(family, tmp_path):
    loaded = families.fresh(family)
    policy, batch = loaded.policy, one_batch(loaded.processor)
    loss = distilling(policy, 1)
    optimizer = torch.optim.Adam(policy.parameters(), 1e-4)
    figures = []
    for _ in range(8):
        torch.manual_seed(0)  # the same noise
        found = loss(batch)["loss"]
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        policy.updated()
        figures.append(float(found.detach()))
    assert figures[-1] < 0.8 * figures[0], figures

    save(tmp_path / "policy", loaded)
    served = load(tmp_path / "policy")
    assert served.policy.config.num_steps == 1
    session = PolicySession(served)
    session.begin()
    sample = families.sample(served.processor)
    assert np.isfinite(session.infer([sample])[0].targets.parts[0].data).all()


def test_dimensions_that_are_padding_are_not_learnt():
    loaded = families.fresh("pi0")
    policy, batch = loaded.policy, one_batch(loaded.processor)
    policy.config = replace(policy.config, loss_dims=2)  # as of a published checkpoint, of 32
    loss = distilling(policy, 1)(batch)["loss"]
    moved = torch.autograd.grad(loss, policy.action_out.bias)[0].abs()
    assert (moved[:2] > 0).all() and (moved[2:] == 0).all()


@pytest.mark.parametrize("family", ["act", "pi0_fast", "openvla_oft"])
def test_one_that_does_not_denoise_is_refused(family):
    with pytest.raises(InputError, match="no denoising steps to reduce"):
        distilling(families.fresh(family).policy, 1)


def test_one_that_remembers_is_refused(monkeypatch):
    policy = families.fresh("pi0").policy
    monkeypatch.setattr(policy, "begin", lambda size: torch.zeros(size, 1))
    with pytest.raises(InputError, match="distill 1: .* has a memory"):
        distilling(policy, 1)


def test_no_more_steps_than_before():
    with pytest.raises(InputError, match="distill 3: expected fewer steps than the 3"):
        distilling(families.fresh("pi0").policy, 3)


def test_the_command(dataset, tmp_path, capsys):
    """From a checkpoint to one that says one step, with figures of its own loss."""
    config = tmp_path / "config.yaml"
    config.write_text("steps: 2\nbatch_size: 4\nheld_out: 0.2\nevaluate_samples: 4\nema_decay: 0.0\n")
    start, run = tmp_path / "start", tmp_path / "run"
    arguments = ["train", "--config", str(config), "--dataset", str(dataset), "--device", "cpu", "--threads", "1"]
    values = families.config("pi0")
    (tmp_path / "fresh.yaml").write_text(config.read_text() + f"family: pi0\npolicy: {json.dumps(values)}\n")
    fresh = ["train", "--config", str(tmp_path / "fresh.yaml"), *arguments[3:], "--output", str(start)]
    assert vla_ros(fresh) == 0
    folder = str(start / "checkpoints/last")
    assert vla_ros([*arguments, "--output", str(run), "--distill", folder, "--steps-out", "2"]) == 0
    assert load(run / "checkpoints/last").policy.config.num_steps == 2
    assert "distill: 2" in (run / "config.yaml").read_text()
    assert '"held_out_loss"' in (run / "metrics.jsonl").read_text()
    assert vla_ros([*fresh, "--resume", "--steps", "3"]) == 0  # `last` is another checkpoint from now on
    capsys.readouterr()
    again = [*arguments, "--output", str(run), "--distill", folder, "--steps-out", "2", "--resume", "--steps", "3"]
    assert vla_ros(again) == 2
    assert f"start {folder}: its weights are not those whose answers the run learns" in capsys.readouterr().err
    assert vla_ros([*arguments, "--output", str(tmp_path / "more"), "--distill", folder, "--start", folder]) == 2
    assert "--distill" in capsys.readouterr().err
    assert vla_ros([*arguments, "--output", str(tmp_path / "more"), "--steps-out", "2"]) == 2
    assert "--steps-out without --distill" in capsys.readouterr().err
