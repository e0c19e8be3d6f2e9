"""GR00T in training: what moves, what the loss counts, and that a small one learns what an instruction means."""

from dataclasses import replace

import families
import numpy as np
import pytest
import torch
from groot_folders import make_lerobot, make_nvidia
from real_families import ROBOT

from vla_ros.core.observation import Sample
from vla_ros.policies import load


def training_samples(processor, count=2):
    """Alike but for their instructions and actions."""
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (1, 48, 48, 3), np.uint8) for name in processor.cameras}
    rows = processor.horizon
    return [
        Sample(images, np.zeros((1, 6)), families.INSTRUCTIONS[n % 2],
               np.full((rows, 6), 0.4 if n % 2 else -0.4) * np.linspace(0.5, 1, rows)[:, None], np.zeros(rows, bool))
        for n in range(count)
    ]


def test_a_small_one_learns_from_the_instruction_alone():
    loaded = families.fresh("groot")
    policy, inputs = loaded.policy.train(), loaded.processor.inputs(training_samples(loaded.processor))
    draws = {"noise": torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(1)), "time": torch.full((2,), 0.9)}
    draws["noise"][1] = draws["noise"][0]  # nothing but the text says which is which
    optimizer = torch.optim.AdamW(policy.parameters(), lr=2e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = policy.loss(inputs, **draws)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0], losses[::10]


def test_the_loss_counts_the_robots_own_numbers_in_the_rows_of_the_episode(tmp_path):
    loaded = load(make_lerobot(tmp_path / "x"), robot=ROBOT)
    one = replace(training_samples(loaded.processor, 1)[0], images={
        name: np.zeros((1, 48, 64, 3), np.uint8) for name in ("front", "wrist")
    })
    over = replace(one, action_is_pad=np.arange(6) > 3)
    inputs = loaded.processor.inputs([over])
    assert inputs["actions"].shape == (1, 6, 8) and not inputs["actions"][..., 6:].any()
    draws = {"noise": torch.randn(1, 6, 8), "time": torch.tensor([0.3])}
    error = loaded.policy.element_loss(inputs, **draws)[:, :4, :6]
    torch.testing.assert_close(loaded.policy.loss(inputs, **draws)["loss"], error.mean())


def test_rows_that_an_embodiment_has_not_are_padding(tmp_path):
    folder = make_nvidia(tmp_path / "n", "n1.6")  # five of the network's six rows
    (tmp_path / "p.yaml").write_text(
        "checkpoint: n\ncameras: {front: front, wrist: wrist}\nstep_dt: 0.1\nhold: [wrist_roll]\n"
        "state: [shoulder_pan, shoulder_lift, elbow_flex, wrist_flex, gripper]\n"
    )
    assert folder.exists()
    processor = load(tmp_path / "p.yaml", robot=ROBOT).processor
    assert processor.horizon == 5
    [one] = training_samples(processor, 1)
    inputs = processor.inputs([one])
    assert inputs["actions"].shape == (1, 6, 5) and inputs["action_is_pad"][0].tolist() == [False] * 5 + [True]
    answer = torch.zeros(1, 6, 5)
    [targets] = processor.outputs(answer, [one])
    assert targets.parts[0].data.shape == (5, 5)
    back, survives = processor.normalise([targets], [one])
    torch.testing.assert_close(back, answer, rtol=0, atol=1e-6)
    assert survives[0].tolist() == [True] * 5 + [False]


FLAGS = ("tune_llm", "tune_visual", "tune_projector", "tune_diffusion_model", "tune_vlln")


@pytest.mark.parametrize("tuned", [*FLAGS, "tune_top_llm_layers"])
def test_training_leaves_alone_what_the_configuration_says(tuned):
    flags = dict.fromkeys(FLAGS, False) | {tuned: 1 if tuned == "tune_top_llm_layers" else True}
    policy = families.fresh("groot", **flags).policy
    trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    start = {"tune_llm": ("backbone.embedding", "backbone.layers", "backbone.norm"),
             "tune_visual": ("backbone.vision",), "tune_vlln": ("vl_",), "tune_top_llm_layers": ("backbone.layers.0.",),
             "tune_projector": ("head.state_in", "head.action_in", "head.action_out", "head.positions"),
             "tune_diffusion_model": ("head.layers", "head.time", "head.modulation", "head.out")}[tuned]
    expected = {name for name, _ in policy.named_parameters() if name.startswith(start)}
    assert expected and trained == expected


def test_states_are_dropped_in_training_alone():
    loaded = families.fresh("groot", state_dropout=1.0, has_mask_token=True)
    policy, inputs = loaded.policy, loaded.processor.inputs(training_samples(loaded.processor))
    draws = {"noise": torch.randn(2, 6, 6), "time": torch.tensor([0.3, 0.8])}
    served = policy.loss(inputs, **draws)["loss"]
    trained = policy.train().loss(inputs, **draws)["loss"]
    dropped = policy.eval().loss(inputs, dropped=torch.tensor([True, True]), **draws)["loss"]
    torch.testing.assert_close(trained, dropped)
    assert abs(float(trained - served)) > 1e-6
    moved = dict(inputs, state=inputs["state"] + 1)
    both = torch.tensor([True, True])
    torch.testing.assert_close(policy.loss(moved, dropped=both, **draws)["loss"], dropped)
