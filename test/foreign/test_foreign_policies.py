"""What is particular to a decoder of tokens, an LSTM and a planner, and what they share with those that denoise."""

from dataclasses import replace

import families
import numpy as np
import pytest
import torch
from bags import factory
from foreign_policies import tokens
from foreign_policies.recurrent import Seen
from training_data import write_dataset

from vla_ros.bags.episodes import CutOptions
from vla_ros.bags.evaluate import evaluate as replay
from vla_ros.bags.measures import JointMeasure
from vla_ros.cli.main import main as vla_ros
from vla_ros.cli.replay import SessionPredictor
from vla_ros.core.errors import InputError
from vla_ros.messages.stamps import NS
from vla_ros.policies import describe, registry
from vla_ros.runtime.session import PolicySession, SessionOptions
from vla_ros.training.config import TrainConfig
from vla_ros.training.evaluate import evaluate
from vla_ros.training.trainer import Trainer

STEP = 100_000_000  # ns
FOREIGN = pytest.mark.parametrize("family", families.FOREIGN)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("foreign") / "data", episodes=5)


def trainer(family, dataset, output, **changes):
    settings = {
        "dataset": str(dataset), "output": str(output), "family": family, "held_out": 0.4, "seed": 1,
        "policy": {"language": True} if family == "tokens" else {}, "steps": 30, "batch_size": 8, "micro_batch_size": 4,
        "evaluate_every": 15, "save_every": 30, "log_every": 30, "ema_decay": 0.0,
        "optimizer": {"learning_rate": 1e-2, "warmup_steps": 2},
    }
    return Trainer(TrainConfig.from_dict(settings | changes))


def positions(inference):
    return inference.targets.parts[0].data


@FOREIGN
def test_it_learns_and_is_saved_loaded_described_and_resumed(family, dataset, tmp_path):
    run = trainer(family, dataset, tmp_path / "run")
    before = evaluate(run.loaded, run.samples, 100, 8, 0)
    assert np.isfinite(list(run.run().values())).all()
    after = evaluate(run.loaded, run.samples, 100, 8, 0)
    assert all(after[name] < before[name] for name in after), (before, after)
    folder = tmp_path / "run/checkpoints/last"
    assert describe(folder)["family"] == family and describe(folder)["horizon"] == "6 rows, 0.1 s apart (0.6 s)"
    sample = families.sample(run.loaded.processor, instruction="go to 1")
    served, own = (PolicySession(loaded).infer([sample])[0] for loaded in (registry.load(folder), run.loaded))
    np.testing.assert_array_equal(positions(served), positions(own))
    again = trainer(family, dataset, tmp_path / "again")
    for step in range(10):
        again._update(again._batches(step))
    again.save()
    again = Trainer(again.config, resume=True)
    again.run()
    for name, value in run.policy.state_dict().items():
        torch.testing.assert_close(again.policy.state_dict()[name], value, rtol=0, atol=0)


@FOREIGN
def test_real_time_chunking_and_steps_are_refused_where_there_are_none(family):
    loaded = families.fresh(family)
    with pytest.raises(InputError, match="real-time chunking, guidance 'prior': .* takes none"):
        PolicySession(loaded, SessionOptions(guided=True))
    if family == "planner":
        assert PolicySession(loaded, SessionOptions(num_steps=3)).infer([families.sample(loaded.processor)])
    else:
        with pytest.raises(InputError, match="num_steps 3: .* does not work in steps"):
            PolicySession(loaded, SessionOptions(num_steps=3))


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    rows = [row for row in factory.messages(6.0) if row[0] != factory.TEXT]
    rows += [(factory.TEXT, factory.START + 2 * k * NS, factory.text("wave" if k % 2 else "point")) for k in range(3)]
    return factory.write_bag(tmp_path_factory.mktemp("replay") / "bag", sorted(rows, key=lambda row: row[1]))


@FOREIGN
def test_it_is_replayed_over_a_bag_and_measured(family, bag, tmp_path, capsys):
    """Frames that two replays score have the same errors, whatever else is scored: a memory sees every frame."""
    row = {"mean": np.zeros(2), "std": np.ones(2), "min": -np.ones(2), "max": np.ones(2)}
    data = registry.TrainingData(
        factory.ROBOT.joint_names, ("front",), 0.1, {"observation.state": row, "action": row}, ("wave", "point")
    )
    torch.manual_seed(0)
    policy = {"language": True} if family == "tokens" else {}
    registry.save(tmp_path / family, registry.build(family, policy, data))
    session = PolicySession(registry.load(tmp_path / family, robot=factory.ROBOT))
    found = []
    for every in (1, 4):
        predictor = SessionPredictor(family, session, JointMeasure(factory.ROBOT))
        (one, _), problems = replay([bag], factory.ROBOT, [predictor], CutOptions(), every=every)
        assert not problems
        found.append([one.errors[one.episodes == k][:: 4 // every] for k in range(3)])
    np.testing.assert_array_equal(*(np.concatenate(errors) for errors in found))
    one = ["--robot", str(factory.write_robot(tmp_path / "robot.yaml")), "--policy", str(tmp_path / family)]
    assert vla_ros(["replay", str(bag), *one, "--every", "20", "--device", "cpu"]) == 0
    assert vla_ros(["bench", *one, "--device", "cpu", "--runs", "2", "--no-peers"]) == 0
    shown = capsys.readouterr().out
    assert "encode" in shown and "act" in shown


# Tokens


def test_tokens_that_are_no_chunk_are_refused_and_rounded_ids_are_none():
    loaded = families.fresh("tokens")
    processor, one = loaded.processor, families.sample(loaded.processor)
    end = loaded.policy.config.end
    row = torch.arange(6) + tokens.FIRST
    (targets,) = processor.outputs(torch.tensor([[*row, *row, end, end]]), [one])
    assert targets.parts[0].data.shape == (2, 6) and (np.diff(targets.parts[0].data[0]) > 0).all()
    for bad in ([*row], [*row[:5], end], [end], [*row[:5], end + 1, end], [*row[:5], -1, end],
                torch.cat([row, torch.tensor([end])]).to(torch.bfloat16).long().tolist()):  # fmt: skip
        with pytest.raises(InputError, match=f"expected rows of 6 ids from 257001 to {end - 1} and {end} behind them"):
            processor.outputs(torch.tensor([bad]), [one])


def test_a_decoder_stops_where_the_episodes_it_saw_did_and_says_what_they_did():
    """Trained on two samples until it knows them: decoding with a cache is what the loss saw at once."""
    loaded = families.fresh("tokens")
    samples = []
    for seed, rows in enumerate((6, 3)):
        one = families.sample(loaded.processor, seed)
        actions = np.random.default_rng(seed).uniform(-0.5, 0.5, (6, 6))
        samples.append(replace(one, actions=actions, action_is_pad=np.arange(6) >= rows))
    batch, policy = loaded.processor.inputs(samples), loaded.policy
    optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        policy.loss(batch)["loss"].backward()
        optimizer.step()
    for one, rows in zip(samples, (6, 3), strict=True):
        told = positions(PolicySession(loaded).infer([replace(one, actions=None, action_is_pad=None)])[0])
        assert told.shape == (rows, 6)
        np.testing.assert_allclose(told, one.actions[:rows], atol=0.007)  # half a bin of 1.2 / 100 rad


def test_prompts_of_two_lengths_are_no_batch_and_a_new_one_can_be_met_before():
    loaded = families.fresh("tokens")
    short, long = (families.sample(loaded.processor, instruction=text) for text in families.INSTRUCTIONS)
    with pytest.raises(InputError, match=r"instructions of \[4, 5\] words in one batch"):
        loaded.processor.inputs([short, long])
    met, other = PolicySession(loaded), PolicySession(loaded)
    expected = [other.infer([one])[0].answer for one in (short, long)]
    assert torch.equal(met.infer([short])[0].answer, expected[0])
    met.meet([long])
    assert torch.equal(met.infer([long])[0].answer, expected[1])


# The LSTM


def observed(processor, step, seed=None):
    return families.sample(processor, step if seed is None else seed, stamp_ns=10**15 + step * STEP)


def test_a_window_at_once_is_its_steps_one_by_one():
    loaded = families.fresh("recurrent")
    processor, policy, window = loaded.processor, loaded.policy, loaded.policy.config.window
    session = PolicySession(loaded)
    shown = [observed(processor, k) for k in range(5 * window)]
    answers = [session.infer([one])[0].answer for one in shown]

    def together(first, last):
        batch = processor.inputs(shown[first:last])
        features = policy.look({name: value.flatten(0, 1)[None] for name, value in batch.items()})
        with torch.no_grad():
            return policy.act(Seen(features, policy.begin(1))).actions[0]

    assert processor.steps(training=True)["front"] == tuple(range(1 - window, 1)) and processor.steps()["front"] == (0,)
    torch.testing.assert_close(answers[window - 1], together(0, window))
    torch.testing.assert_close(answers[2 * window - 2], together(0, 2 * window - 1))
    torch.testing.assert_close(answers[2 * window - 1], together(window, 2 * window))  # refreshed
    torch.testing.assert_close(answers[4 * window - 1], together(3 * window, 4 * window))
    assert not torch.allclose(answers[2 * window - 1], together(0, 2 * window - 1))


def test_memory_is_void_after_a_gap_and_after_a_beginning_and_kept_over_a_bad_frame():
    loaded = families.fresh("recurrent")
    first, second = observed(loaded.processor, 0), observed(loaded.processor, 1)
    bad = replace(second, state=np.full_like(second.state, np.nan))
    late = replace(second, stamp_ns=second.stamp_ns + 9 * STEP)
    fresh = PolicySession(loaded).infer([second])[0].answer
    session = PolicySession(loaded)
    session.infer([first])
    with pytest.raises(InputError, match="nan"):
        session.infer([bad])
    remembered = session.infer([second])[0].answer
    assert not torch.allclose(remembered, fresh)
    clean = PolicySession(loaded)
    clean.infer([first])
    assert torch.equal(clean.infer([second])[0].answer, remembered)
    session.begin()
    assert torch.equal(session.infer([second])[0].answer, fresh)
    assert torch.equal(session.infer([late])[0].answer, fresh)


# The planner


def test_each_loss_moves_its_own_group_and_the_target_follows(dataset, tmp_path):
    run = trainer("planner", dataset, tmp_path / "run", steps=1, optimizer={"learning_rate": 1e-2})
    policy = run.policy
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    run.run()
    after = policy.state_dict()
    assert set(run.optimizers) == {"habit", "value"}
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in moved} == {"look", "habit", "spread", "value", "slow_value"}
    for name in ("0.weight", "2.bias"):
        followed = torch.lerp(before[f"slow_value.{name}"], after[f"value.{name}"], policy.config.rate)
        torch.testing.assert_close(after[f"slow_value.{name}"], followed)
    batch = run.loaded.processor.inputs(run.samples.get(np.arange(4)))
    gradients = torch.autograd.grad(policy.loss(batch)["value"], list(policy.habit.parameters()), allow_unused=True)
    assert gradients == (None, None)


def test_a_plan_is_carried_on_by_the_steps_that_have_passed():
    loaded = families.fresh("planner")
    policy, processor = loaded.policy, loaded.processor
    batch = processor.inputs([observed(processor, 0)] * 2)
    draws = {name: torch.zeros(shape) for name, shape in policy.draws(2).items()}
    draws["candidates"].normal_()
    with torch.no_grad():
        plan = policy.act(policy.encode(policy.with_elapsed(batch), policy.begin(2), draws), draws).memory
        moved = policy.encode(policy.with_elapsed(batch, [1, 4]), plan, draws).plan.actions
    torch.testing.assert_close(moved[0], plan.actions[0][[1, 2, 3, 4, 5, 5]])
    torch.testing.assert_close(moved[1], plan.actions[1][[4, 5, 5, 5, 5, 5]])


def test_a_memory_of_another_type_is_refused(monkeypatch):
    loaded = families.fresh("recurrent")
    act = type(loaded.policy).act

    def rounded(self, *args):
        answer = act(self, *args)
        answer.memory.h = answer.memory.h.bfloat16()
        return answer

    monkeypatch.setattr(type(loaded.policy), "act", rounded)
    with pytest.raises(ValueError, match=r"torch.float32 \[1, 32\].*torch.bfloat16 \[1, 32\]"):
        PolicySession(loaded).infer([observed(loaded.processor, 0)])
