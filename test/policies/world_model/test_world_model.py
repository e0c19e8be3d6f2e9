"""The family: what it learns of how episodes ended, what it remembers, and what its planners answer."""

from dataclasses import replace

import families
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from bags.factory import ROBOT, messages, write_bag, write_robot
from training_data import write_dataset

from vla_ros.bags.build import plan_bag
from vla_ros.bags.episodes import CutOptions
from vla_ros.cli.main import main
from vla_ros.core.errors import InputError
from vla_ros.datasets.lerobot import Dataset
from vla_ros.policies import load, registry, save
from vla_ros.policies.world_model.imagination import Errors, imagine
from vla_ros.policies.world_model.model import scaled
from vla_ros.training.samples import Samples

STEP = 100_000_000  # ns


def fresh(**changes):
    return families.fresh("world_model", **changes)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("judged") / "d", episodes=4, marked=True)


def test_what_training_is_told_of_an_episodes_end(dataset, tmp_path):
    data, processor = Dataset(dataset), fresh(unjudged="").processor
    samples = Samples(data, data.episodes, processor)
    starts = np.cumsum([0] + [episode.length for episode in data.episodes[:-1]])
    batch = processor.inputs(samples.get(np.concatenate([starts, starts + 11])))
    assert batch["success"].tolist() == [1, 0, 1, 0] * 2
    assert batch["remaining"].tolist() == [11, 12, 13, 14, 0, 1, 2, 3]
    slower = replace(processor, embodiment=replace(processor.embodiment, step_dt=0.2))
    assert [s.remaining for s in Samples(data, data.episodes, slower).get(starts)] == [5, 6, 6, 7]
    [served] = samples.get(starts[:1], training=False)
    assert served.remaining is None and not {"remaining", "success"} & processor.inputs([served]).keys()


def test_where_only_rows_say_how_an_episode_ended(dataset):
    file = next((dataset / "meta/episodes").rglob("*.parquet"))
    table, kept = pq.read_table(file), file.read_bytes()
    try:
        pq.write_table(table.drop_columns(["outcome"]), file)
        data = Dataset(dataset)
        assert [data.outcome(episode) for episode in data.episodes] == ["success", "failure"] * 2
    finally:
        file.write_bytes(kept)


def test_an_episode_that_nobody_judged_is_refused_unless_the_config_says_what_it_is(tmp_path):
    data = Dataset(write_dataset(tmp_path / "d", episodes=2))
    for said, value in (("success", 1), ("failure", 0)):
        processor = fresh(unjudged=said).processor
        assert processor.inputs(Samples(data, data.episodes, processor).get(np.array([0])))["success"] == value
    processor = fresh(unjudged="").processor
    with pytest.raises(InputError, match="'go to 0': an episode .* `unjudged: success` under `policy`"):
        processor.inputs(Samples(data, data.episodes, processor).get(np.array([0])))


def test_failures_and_plans_far_from_what_was_shown_are_learnt_as_worth_less(dataset):
    """The words say how an episode ended, so the worth of plans follows them, and the demonstrated plan is the best."""
    torch.manual_seed(0)
    loaded = fresh(window=1, plans=6, tolerance=0.2)
    data, processor, policy = Dataset(dataset), loaded.processor, loaded.policy.train()
    batch = processor.inputs(Samples(data, data.episodes, processor).get(np.array([3, 4, 15, 16])))
    known = torch.tensor([[1, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0]]).float()
    batch["words"] = known[:, : batch["words"].shape[1]].repeat_interleave(2, dim=0)
    assert batch["success"].tolist() == [1, 1, 0, 0]
    optimizer = torch.optim.Adam(policy.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        policy.loss(batch)["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        policy.eval()
        scene = policy.encode(policy.with_elapsed(batch), policy.begin(4))
        shown = batch["actions"][:, None]
        far = scene.here[:, None, None] + policy.demonstrated.covariance.diag().sqrt().unflatten(0, (1, 1, -1, 6)) * 2
        worth = policy.worth(scene.belief, scene.words, torch.cat([shown, far.expand_as(shown)], dim=1))
    assert (worth[:2, 0] > worth[:2, 1] + 0.2).all()
    assert (worth[:2, 0] > worth[2:, 0] + 0.2).all()


def test_the_belief_begins_anew_after_a_gap_and_after_a_window(tmp_path):
    loaded = fresh(window=3)
    policy = loaded.policy
    batch = loaded.processor.inputs([families.sample(loaded.processor)])
    memory = policy.begin(1)
    draws = {name: torch.randn(shape) for name, shape in policy.draws(1).items()}
    steps = []
    with torch.no_grad():
        alone = policy.encode(policy.with_elapsed(batch), memory).belief.features
        for elapsed in (0, 1, 1, 1, 1, 2, 1, 40):
            scene = policy.encode(batch | {"elapsed": torch.tensor([elapsed])}, memory)
            anew = torch.equal(scene.belief.features, alone)
            steps.append((scene.steps.item(), anew))
            row = min(elapsed, policy.config.horizon - 1)
            assert torch.equal(scene.plan[0, 0], memory.plan[0, row]) or not elapsed
            assert scene.known.item() == (bool(memory.steps) and elapsed < policy.config.horizon)
            memory = policy.act(scene, draws).memory
    assert steps == [(1, True), (2, False), (3, False), (1, True), (2, False), (1, True), (2, False), (1, True)]


@pytest.mark.parametrize("planner", ["cem", "mppi", "random_shooting", "proposed", "none"])
def test_a_policy_file_chooses_the_planner(planner, tmp_path):
    loaded = fresh(planner="cem")
    save(tmp_path / "x", loaded)
    overrides = {"planner": planner, "candidates": 16, "elites": 3, "rounds": 3, "temperature": 0.1}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"checkpoint": "x", "overrides": overrides}))
    policy = load(tmp_path / "p.yaml").policy
    batch = policy.with_elapsed(loaded.processor.inputs([families.sample(loaded.processor)]))
    draws = {name: torch.randn(shape) for name, shape in policy.draws(1).items()}
    assert draws["candidates"].shape == ((1, 3, 16, 4) if policy.config.searches else (1, 1, 1, 4))
    with torch.no_grad():
        scene, proposal = policy.encode(batch, policy.begin(1)), policy.prepare()
        chosen = policy.act(scene, draws).actions
        tried = policy.plans(scene.here[:, None], proposal, draws["candidates"].flatten(1, 2))
        worth = policy.worth(scene.belief, scene.words, torch.cat([chosen[:, None], tried], dim=1))[0]
    if not policy.config.searches:
        if planner == "none":
            torch.testing.assert_close(chosen, tried[:, 0])
        with pytest.raises(InputError, match="num_steps 2"):
            policy.prepare(2)
    elif planner == "random_shooting":
        assert worth[0] >= worth[1:].max() - 1e-6
    else:
        proposed = policy.proposed(scene.belief.features, scene.words)[:, None]
        begun = policy.worth(scene.belief, scene.words, policy.plans(scene.here[:, None], proposal, proposed))[0, 0]
        assert worth[0] > max(begun, worth[1:].mean()) and len(policy.prepare(5).least) == 5


def test_doubt_is_taken_off_a_plans_worth():
    loaded, sure = fresh(ensemble=2, doubt=3.0), fresh(ensemble=2, doubt=0.0)
    sure.policy.load_state_dict(loaded.policy.state_dict())
    batch = loaded.policy.with_elapsed(loaded.processor.inputs([families.sample(loaded.processor)]))
    plans = torch.randn(1, 3, 6, 6)
    with torch.no_grad():
        scene = loaded.policy.encode(batch, loaded.policy.begin(1))
        known = scene.belief, scene.words, plans
        off = sure.policy.worth(*known) - loaded.policy.worth(*known)
        features = torch.cat([scene.belief.features, loaded.policy.world.rssm.imagine(
            scene.belief, plans[:, 0]).features[0, :-1]])
        expected = 3 * loaded.policy.ensemble(features, plans[0, 0]).epistemic.mean()
    torch.testing.assert_close(off[0, 0], expected)


@pytest.mark.parametrize("changes, said", [
    ({"planner": "best"}, r"planner 'best', expected one of \('cem'"), ({"elites": 100}, "elites 100, expected at"),
    ({"image": 50}, "image 50, expected a multiple of 16"), ({"components": 999}, "expected at most 36, the numbers"),
    ({"rssm": "lstm"}, "rssm 'lstm'"), ({"horizon": 1000}, "horizon 1000 x 6"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(changes, said):
    with pytest.raises(InputError, match=said):
        registry.build("world_model", families.config("world_model") | changes, families.data())


def test_a_bag_is_imagined_beside_what_happened(tmp_path, capsys):
    """The commands in the bag decide what is imagined, and the errors that are printed are those of the pieces."""
    torch.manual_seed(0)
    row = {"mean": np.zeros(2), "std": np.full(2, 0.5), "min": np.full(2, -1.0), "max": np.ones(2)}
    statistics = {name: row | {"q01": row["min"], "q99": row["max"]} for name in ("observation.state", "action")}
    data = registry.TrainingData(("a", "b"), ("front",), 0.1, statistics, ("wave",))
    config = families.config("world_model") | {"image": 32, "window": 3}
    loaded = registry.build("world_model", config, data)
    loaded.policy.eval()
    save(tmp_path / "policy", loaded)
    bag, robot = write_bag(tmp_path / "bag", messages(1.5)), write_robot(tmp_path / "robot.yaml")
    video = tmp_path / "imagined.mp4"
    line = ["imagine", str(bag), "--robot", str(robot), "--policy", str(tmp_path / "policy"), "-o", str(video)]
    assert main(line) == 0
    printed = capsys.readouterr().out
    seen = frames_of(bag)
    pieces = list(imagine(loaded, *seen))
    assert [piece.first for piece in pieces] == [0, 6, 12] and f"{len(pieces)} pieces" in printed
    errors = Errors(6)
    for piece in pieces:
        errors.add(piece)
    image, still, joint, unmoved, closeness = errors.means[:, -1]
    assert f"0.6 s ahead: images {image:.1f} levels of 255 (as if nothing moved {still:.1f})" in printed
    assert f"joints {joint:.3f} ({unmoved:.3f}), closeness {closeness:.3f}" in printed
    states = np.stack([sample.state[-1] for sample in seen[0]])
    np.testing.assert_allclose(pieces[1].joints[0], states[7:13], atol=1e-5)
    with torch.no_grad():
        batch = loaded.processor.inputs(seen[0])
        found = scaled(batch["images"][7, 0])
        assert np.abs(pieces[1].images[0, 0] - ((found + 1) * 127.5).movedim(1, -1).numpy()).max() < 1
    other = list(imagine(loaded, seen[0], seen[1] + (np.arange(len(seen[1])) >= 8)[:, None]))
    same = [np.array_equal(a, b) for a, b in zip(other[1].joints[1], pieces[1].joints[1], strict=True)]
    assert same == [True, True, False, False, False, False]  # the command of step 8 leads to step 9
    assert video.stat().st_size > 1000
    act = families.fresh("act")
    with pytest.raises(InputError, match="family act: it has no world model"):
        next(imagine(act, *seen))


def frames_of(bag):
    """Samples and commands of the only episode, made here once more."""
    from vla_ros.bags.frames import read_frames
    from vla_ros.bags.reader import Bag
    from vla_ros.core.observation import Sample

    index, episodes, _ = plan_bag(bag, ROBOT, CutOptions(fps=10.0))
    with Bag(bag) as opened:
        frames = list(read_frames(opened, ROBOT, index, episodes))
    samples = [Sample({"front": frame.observation.images["front"][None]}, frame.observation.state[None], "wave")
               for frame in frames]
    return samples, np.stack([frame.action for frame in frames])


@pytest.mark.parametrize("misled", [0.0, 1.0])
def test_episodes_count_as_failures_of_other_instructions(misled):
    policy = fresh(misled=misled).policy
    torch.manual_seed(0)
    words, success = torch.eye(7)[torch.tensor([0, 0, 1, 2])], torch.ones(4)
    batch = policy._misled({"words": words, "success": success})
    changed = (batch["words"] != words).any(dim=1)
    assert torch.equal(batch["success"] == 0, changed) and changed.any() == bool(misled)
    assert batch["words"].sum(dim=0).tolist() == words.sum(dim=0).tolist()  # those of other samples
