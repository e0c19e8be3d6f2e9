"""Runs: what they leave, that they learn, that they can be interrupted and shared."""

import json
import os
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import families
import numpy as np
import pytest
import torch
import toy_family
import yaml
from tensorboardX.proto.event_pb2 import Event
from torch import nn
from training_data import write_dataset

from vla_ros.cli.main import main as vla_ros
from vla_ros.core.errors import InputError
from vla_ros.datasets.lerobot import Dataset
from vla_ros.policies import registry
from vla_ros.policies.policy import Answer, Traits
from vla_ros.training.config import TrainConfig
from vla_ros.training.trainer import Trainer, learning_rate

TOY = Path(__file__).parent.parent / "toy_family.py"


def train(settings: dict, **changes) -> Trainer:
    trainer = Trainer(TrainConfig.from_dict(settings | changes))
    trainer.run()
    return trainer


def metrics(output) -> list[dict]:
    return [json.loads(line) for line in (Path(output) / "metrics.jsonl").read_text().splitlines()]


def weights(folder) -> dict[str, torch.Tensor]:
    return dict(registry.load(folder).policy.state_dict())


def command(settings: dict, tmp_path: Path, *arguments: str, launcher=(), **environment) -> int:
    """`vla-ros train` with the toy family, in a process of its own; its exit status."""
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(settings))
    line = [*(launcher or [sys.executable]), str(TOY), "train", "--config", str(file), "--device", "cpu",
            "--threads", "1", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TOY.parent.parent)} | environment
    process = subprocess.Popen(line, env=environment)
    try:
        return process.wait(timeout=900)
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun takes its workers along
        process.wait(timeout=60)
        raise


def test_the_episodes_and_weights_of_the_config(settings, tmp_path):
    data = write_dataset(tmp_path / "marked", episodes=6, marked=True)
    settings |= {"dataset": str(data), "episodes": {"outcome": "success"}, "corrections": 3.0, "steps": 2}
    trainer = train(settings)
    episodes = (*trainer.samples.episodes, *trainer.held_out.episodes)
    assert sorted(episode.index for episode in episodes) == [0, 2, 4]
    assert not any("outcome" in warning for warning in trainer.warnings)
    rows = Dataset(data)
    rows = np.concatenate([rows.actions[e.start : e.stop] for e in rows.episodes[::2]]).astype(np.float64)
    np.testing.assert_allclose(trainer.loaded.processor.mean, rows.mean(0), rtol=1e-6)  # no failure is in it
    written = yaml.safe_load((Path(settings["output"]) / "config.yaml").read_text())
    assert (written["episodes"], written["corrections"]) == ({"outcome": "success"}, 3.0)
    for change, words in (({"corrections": 0.0}, "corrections"), ({"episodes": {"outcome": "won"}}, "expected one of")):
        with pytest.raises(InputError, match=words):
            TrainConfig.from_dict(settings | change)


def test_words_that_the_policy_does_not_know_are_said(settings, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(toy_family.ToyProcessor, "unknown_words", lambda self, text: tuple(text.split()[:1]))
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(settings | {"steps": 1}))
    assert vla_ros(["train", "--config", str(file), "--device", "cpu"]) == 0
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("warning:"))
    counts = Counter(episode.instruction.split()[0] for episode in Dataset(settings["dataset"]).episodes)
    assert all(word in said for word in counts) and "(" in said
    assert said.endswith("; training does not change that, other words in the dataset do")


def test_words_are_learned_as_the_warning_says(settings, dataset, tmp_path, capsys):
    def run(name: str, *arguments: str, **changes) -> list[str]:
        (tmp_path / name).with_suffix(".yaml").write_text(yaml.safe_dump(settings | {"steps": 1} | changes))
        line = ["--config", str(tmp_path / f"{name}.yaml"), "--output", str(tmp_path / name), "--device", "cpu"]
        assert vla_ros(["train", *line, *arguments]) == 0
        return capsys.readouterr().out.splitlines()

    act, checkpoint = {"family": "act", "policy": families.config("act")}, str(tmp_path / "old/checkpoints/last")
    run("old", **act, dataset=str(write_dataset(tmp_path / "narrow", episodes=1)), held_out=0)
    said = run("start", "--start", checkpoint, "--statistics", "keep", weights=checkpoint)  # of the family of the file
    (said,) = [line for line in said if "warning: the pol" in line]
    assert "the words 1 (in " in said and said.endswith("; `weights` with `family` in the place of `start` lets it "
                                                        "learn them")
    said = run("new", **act, weights=checkpoint)
    assert not [line for line in said if "warning: the pol" in line]
    (taken,) = [line for line in said if line.startswith(f"weights {checkpoint}: ")]
    assert "tensors taken, 1 of them for the 3 of 5 words that both know; 0 stayed fresh" in taken
    assert not [line for line in run("new", "--resume", **act, weights=checkpoint) if "taken" in line]


def test_a_run_learns_and_leaves_folders_that_serve(settings, tmp_path):
    trainer = train(settings, steps=150, save_every=100, evaluate_every=50)
    held_out = [row["held_out_loss"] for row in metrics(tmp_path / "run") if "held_out_loss" in row]
    assert held_out[-1] < 0.7 * held_out[0]
    folder = tmp_path / "run/checkpoints/last"
    assert sorted(p.name for p in folder.parent.iterdir()) == ["last", "step-000100", "step-000150"]
    served = registry.load(folder)
    sample = trainer.held_out.get(np.array([0]))
    own = trainer.policy.last.weight.clone()
    with trainer.average.applied(trainer.policy):
        expected = trainer.policy.predict(trainer.loaded.processor.inputs(sample))
    assert torch.equal(trainer.policy.last.weight, own)
    torch.testing.assert_close(served.policy.predict(served.processor.inputs(sample)), expected, rtol=0, atol=0)
    assert TrainConfig.load(tmp_path / "run/config.yaml") == trainer.config
    assert list((tmp_path / "run/tensorboard").iterdir())


def test_the_same_seed_gives_the_same_run(settings, tmp_path):
    first = train(settings, output=str(tmp_path / "a"))
    second = train(settings, output=str(tmp_path / "b"))
    other = train(settings, output=str(tmp_path / "c"), seed=1)
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b") != metrics(tmp_path / "c")
    for name, value in first.policy.state_dict().items():
        assert torch.equal(value, second.policy.state_dict()[name])
    assert not torch.equal(first.policy.last.weight, other.policy.last.weight)


def test_a_killed_run_resumes_exactly(settings, tmp_path):
    """SIGKILL in the middle of a step, after the state of step 4 or 8 was saved."""
    whole, killed = settings | {"output": str(tmp_path / "whole")}, settings | {"output": str(tmp_path / "killed")}
    train(whole)
    assert command(killed, tmp_path, TOY_DIE_AT="22") == -9
    assert max(row["step"] for row in metrics(tmp_path / "killed")) < 12
    again = ["train", "--config", str(tmp_path / "config.yaml"), "--device", "cpu", "--threads", "1"]
    assert vla_ros(again) == 2  # a run is never overwritten by forgetting --resume
    assert vla_ros([*again, "--resume"]) == 0
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    one, two = (weights(tmp_path / name / "checkpoints/last") for name in ("whole", "killed"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def events(file: Path) -> Iterator[Event]:
    data = file.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])  # a sum of four bytes on either side of the event
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_a_run_goes_on_beyond_its_plan(settings):
    """With the learning rate of the longer plan from there on."""
    train(settings | {"steps": 6})
    longer = TrainConfig.from_dict(settings)
    trainer = Trainer(longer, resume=True)
    trainer.run()
    rates = {row["step"]: row["learning_rate"] for row in metrics(longer.output) if "learning_rate" in row}
    assert sorted(rates) == list(range(1, 13))
    for plan, steps in ((6, range(6)), (12, range(6, 12))):
        assert [rates[step + 1] for step in steps] == [learning_rate(longer.optimizer, step, plan) for step in steps]
    assert yaml.safe_load((trainer.output / "config.yaml").read_text())["steps"] == 12
    newest = max((trainer.output / "tensorboard").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    began = [event.step for event in events(newest) if event.HasField("session_log")]
    assert began == [7]  # TensorBoard drops what it has from this step on; step 6 is not written again


@pytest.mark.flaky(reruns=1)  # torch's threads can abort a process as it ends, after the run is complete (SIGABRT)
def test_two_processes_equal_one(settings, tmp_path):
    one, two = settings | {"output": str(tmp_path / "one")}, settings | {"output": str(tmp_path / "two")}
    train(one)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert command(two, tmp_path, launcher=launcher, GLOO_SOCKET_IFNAME="lo") == 0  # whatever the host calls itself
    first, second = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert [row["step"] for row in first] == [row["step"] for row in second]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-4, atol=1e-6)
    a, b = (weights(tmp_path / name / "checkpoints/last") for name in ("one", "two"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-5)


def test_accumulated_gradients_equal_one_large_batch(settings, tmp_path):
    """Without noise and padding the split of a batch does not matter."""
    plain = settings | {"augmentation": {}, "policy": {"width": 16, "horizon": 1}}
    runs = []
    for micro in (8, 2):
        changes = {"micro_batch_size": micro, "output": str(tmp_path / str(micro))}
        trainer = Trainer(TrainConfig.from_dict(plain | changes))
        loss = trainer.policy.loss
        trainer.policy.loss = lambda batch, loss=loss: loss(batch, noise=torch.zeros_like(batch["actions"]))
        trainer.run()
        runs.append(trainer)
    for a, b in zip(runs[0].policy.parameters(), runs[1].policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_fine_tuning_takes_statistics_by_choice(settings, dataset, tmp_path):
    from training_data import write_dataset

    train(settings, output=str(tmp_path / "first"))
    start = str(tmp_path / "first/checkpoints/last")
    other = write_dataset(tmp_path / "other", seed=5)
    fine = settings | {"family": "", "policy": {}, "start": start, "dataset": str(other)}
    with pytest.raises(InputError, match="choose 'keep'"):
        TrainConfig.from_dict(fine)
    old = registry.load(start).processor
    kept = train(fine, statistics="keep", output=str(tmp_path / "kept"))
    np.testing.assert_array_equal(registry.load(tmp_path / "kept/checkpoints/last").processor.mean, old.mean)
    train(fine, statistics="recompute", output=str(tmp_path / "new"))
    new = registry.load(tmp_path / "new/checkpoints/last").processor
    assert not np.allclose(new.mean, old.mean)
    assert kept.step == 12


def test_bfloat16_and_recomputed_activations_train_too(settings, tmp_path):
    trainer = train(settings, precision="bfloat16", gradient_checkpointing="second", output=str(tmp_path / "half"))
    assert trainer.policy.last.weight.dtype == torch.float32
    exact = train(settings, output=str(tmp_path / "exact"))
    recomputed = train(settings, gradient_checkpointing="first|second", output=str(tmp_path / "recomputed"))
    assert torch.equal(exact.policy.first.weight, recomputed.policy.first.weight)
    assert not torch.equal(exact.policy.first.weight, trainer.policy.first.weight)


def test_frozen_parameters_stay(settings):
    trainer = Trainer(TrainConfig.from_dict(settings | {"freeze": ["^first"]}))
    before = trainer.policy.first.weight.clone()
    trainer.run()
    assert torch.equal(trainer.policy.first.weight, before)
    with pytest.raises(InputError, match="matches no parameter"):
        Trainer(TrainConfig.from_dict(settings | {"freeze": ["vision"]}))


def test_parts_learn_at_rates_of_their_own_and_go_on_so(settings, tmp_path):
    """AdamW's first step moves every number whose gradient is not zero by the rate."""
    optimizer = {"learning_rate": 1e-2, "warmup_steps": 0, "weight_decay": 0.0, "clip_norm": 0.0,
                 "rates": {"first": 0.1, r"first\.bias": 2.0}}
    trainer = Trainer(TrainConfig.from_dict(settings | {"optimizer": optimizer}))
    before = {name: value.detach().clone() for name, value in trainer.policy.named_parameters()}
    trainer._update(trainer._batches(0))
    moved = {name: float((value - before[name]).abs().max()) for name, value in trainer.policy.named_parameters()}
    for name, factor in (("first.weight", 0.1), ("first.bias", 2.0), ("last.weight", 1.0)):
        assert moved[name] == pytest.approx(1e-2 * factor, rel=1e-2), name
    train(settings, optimizer=optimizer, steps=8)
    resumed = Trainer(TrainConfig.from_dict(settings | {"optimizer": optimizer}), resume=True)
    assert [group["factor"] for group in resumed.optimizers["loss"].param_groups] == [2.0, 2.0, 1.0, 1.0, 0.1, 0.1]
    resumed.run()
    assert resumed.step == 12
    absent = {"optimizer": {"rates": {"vision": 0.1}}, "output": str(tmp_path / "x")}
    with pytest.raises(InputError, match="optimizer.rates 'vision' matches no parameter"):
        Trainer(TrainConfig.from_dict(settings | absent))


def test_lora_trains_adapters_and_saves_plain_weights(settings, tmp_path):
    lora = {"rank": 2, "target": "first|second", "alpha": 4}
    trainer = Trainer(TrainConfig.from_dict(settings | {"lora": lora}))
    base = trainer.policy.last.weight.clone()
    assert {n.split(".")[1] for n, p in trainer.policy.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}
    trainer.run()
    served = registry.load(tmp_path / "run/checkpoints/last")
    assert torch.equal(served.policy.last.weight, base)
    sample = trainer.held_out.get(np.array([0, 3]))
    batch = trainer.loaded.processor.inputs(sample)
    with trainer.average.applied(trainer.policy.eval()):
        expected = trainer.policy.predict(batch)
    torch.testing.assert_close(served.policy.predict(batch), expected)
    with pytest.raises(InputError, match="matches no linear layer"):
        Trainer(TrainConfig.from_dict(settings | {"lora": lora | {"target": "absent"}, "output": str(tmp_path / "x")}))


def test_averaged_weights_lie_behind_and_none_is_kept_without_a_decay(settings, tmp_path):
    trainer = train(settings)
    assert not torch.equal(trainer.average.values["last.weight"], trainer.policy.last.weight)
    plain = train(settings, ema_decay=0.0, output=str(tmp_path / "plain"))
    served = registry.load(tmp_path / "plain/checkpoints/last").policy
    assert torch.equal(served.last.weight, plain.policy.last.weight)
    assert torch.equal(plain.policy.last.weight, trainer.policy.last.weight)


SHOWN = []  # (memory, elapsed) of each frame that `Counting` was served


class Counting(toy_family.ToyPolicy):
    """Remembers how many frames of an episode it has seen."""

    traits = Traits(paced=True)

    def begin(self, size):
        return torch.zeros(size)

    def encode(self, batch, memory=None, draws=None):
        if memory is not None:
            SHOWN.append((int(memory), int(batch["elapsed"])))
        return super().encode(batch), memory

    def act(self, context, draws=None, fixed=None, steer=None):
        features, memory = context
        return Answer(super().act(features).actions, None if memory is None else memory + 1)


def test_a_policy_that_remembers_is_evaluated_on_whole_episodes(settings, monkeypatch):
    monkeypatch.setattr(toy_family, "ToyPolicy", Counting)
    trainer = Trainer(TrainConfig.from_dict(settings | {"evaluate_samples": 20}))
    lengths = [episode.length for episode in trainer.held_out.episodes]
    SHOWN.clear()
    figures = trainer.evaluate()
    assert SHOWN[:lengths[0]] == [(k, min(k, 1)) for k in range(lengths[0])]
    assert [memory for memory, _ in SHOWN].count(0) == sum(elapsed == 0 for _, elapsed in SHOWN) >= 1
    assert trainer.evaluate() == figures


class Critical(toy_family.ToyPolicy):
    """A second loss with an optimiser of its own, and a target network that follows it."""

    def __init__(self, config):
        super().__init__(config)
        self.critic, self.target = nn.Linear(config.width, 1), nn.Linear(config.width, 1).requires_grad_(False)

    def groups(self):
        actor = [p for part in (self.first, self.second, self.last) for p in part.parameters()]
        return {"loss": actor, "critic": list(self.critic.parameters())}

    def loss(self, batch, **draws):
        value = self.critic(self.encode(batch))  # its gradient would reach the actor's first layer
        return super().loss(batch, **draws) | {"critic": (value - 1).square().mean(), "value": value.mean()}

    def updated(self):
        for target, source in zip(self.target.parameters(), self.critic.parameters(), strict=True):
            target.data.copy_(source.data)


def test_each_loss_moves_its_own_parameters(settings, tmp_path, monkeypatch):
    plain = train(settings | {"held_out": 0.0}, output=str(tmp_path / "plain"))
    monkeypatch.setattr(toy_family, "ToyPolicy", Critical)
    trainer = train(settings | {"held_out": 0.0})
    mine = dict(trainer.policy.named_parameters())
    assert all(torch.equal(mine[name], value) for name, value in plain.policy.named_parameters())
    assert torch.equal(mine["target.weight"], mine["critic.weight"])
    rows = metrics(settings["output"])
    assert rows[-1]["critic"] < 0.9 * rows[0]["critic"] and {"value", "critic_gradient_norm"} <= set(rows[0])
    again = Trainer(TrainConfig.from_dict(settings | {"held_out": 0.0}), resume=True)
    assert again.step == 12 and set(again.optimizers) == {"loss", "critic"}


def test_the_rate_warms_up_and_falls_to_the_final_one():
    config = TrainConfig.from_dict({
        "dataset": "d", "output": "o", "family": "toy",
        "optimizer": {"learning_rate": 1.0, "final_learning_rate": 0.1, "warmup_steps": 10},
    }).optimizer
    rates = [learning_rate(config, step, 101) for step in range(102)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0) and max(rates) == pytest.approx(1.0)
    assert rates[101] == pytest.approx(0.1)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))


def test_answers_that_are_no_actions_yet_do_not_end_a_training(settings, dataset, monkeypatch):
    given = {"dataset": str(dataset), "family": "openvla", "steps": 1}
    given |= {"policy": families.config("openvla") | {"head": "tokens", "chunk": 6}}
    given |= {"output": settings["output"], "held_out": 0.2, "evaluate_samples": 4, "batch_size": 2}
    trainer = Trainer(TrainConfig.from_dict(given))
    act = trainer.policy.act

    def wordy(*args, **kwargs):
        answer = act(*args, **kwargs)
        answer.actions[spoilt, 3] = 1  # a word
        return answer

    monkeypatch.setattr(trainer.policy, "act", wordy)
    spoilt = slice(1)  # the first of each batch
    figures = trainer.evaluate()
    assert figures["unreadable"] == 0.5 and np.isfinite(list(figures.values())).all()
    spoilt = slice(None)
    assert trainer.evaluate().keys() == {"held_out_loss", "unreadable"}  # no error of 0, as of a perfect policy


def test_rows_of_a_chunk_may_lie_several_frames_apart(settings):
    trainer = Trainer(TrainConfig.from_dict(settings | {"step_dt": 0.2}))
    assert trainer.loaded.processor.step_dt == 0.2 and trainer.samples.stride == 2
    with pytest.raises(InputError, match="10.0 Hz does not divide the policy's steps of 0.15 s"):
        Trainer(TrainConfig.from_dict(settings | {"step_dt": 0.15, "output": settings["output"] + "_other"}))
