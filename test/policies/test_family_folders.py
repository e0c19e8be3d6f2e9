"""What holds for every real family, from a published folder and from our own."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import real_families
import tokenizers
import torch
import yaml
from real_families import FAMILIES, ROBOT, cameras
from training_data import write_dataset

from vla_ros.core.chunk import Part, Targets
from vla_ros.core.errors import InputError
from vla_ros.datasets.lerobot import Dataset
from vla_ros.policies import describe, load, save
from vla_ros.policies.embodiment import Dimension, Embodiment
from vla_ros.policies.normalisation import MODES, write_statistics
from vla_ros.runtime.serving import check_robot
from vla_ros.runtime.session import PolicySession
from vla_ros.training.config import TrainConfig
from vla_ros.training.trainer import Trainer, open_policy


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def linked(source: str, target: str) -> None:
    """A copy; of weights, which no test here writes into, another name."""
    (os.link if source.endswith(".safetensors") else shutil.copy)(source, target)


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """(family, which, path) -> a copy of the published folder, or of the same policy in our own layout; each is made
    once."""
    home = tmp_path_factory.mktemp("folders")

    def make(family, which):
        path = home / family / which
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            if which == "theirs":
                real_families.make(path, family)
            else:
                save(path, load(make(family, "theirs"), robot=ROBOT))
        return path

    return lambda family, which, path: shutil.copytree(make(family, which), path, copy_function=linked)


@pytest.fixture
def folder(copied, tmp_path, family):
    return copied(family, "theirs", tmp_path / "theirs")


@pytest.fixture(params=["theirs", "ours"])
def checkpoint(request, copied, tmp_path, family):
    return copied(family, request.param, tmp_path / request.param)


def actions(loaded, one):
    """(Targets, normalised answer) to one sample, with the same noise at each call."""
    torch.manual_seed(0)
    with torch.no_grad():
        answer = loaded.policy.predict(loaded.processor.inputs([one]))
    if answer.is_floating_point():
        answer = answer.float()
        return loaded.processor.outputs(answer, [one])[0], answer
    targets = loaded.processor.outputs(answer, [one])[0]
    if hasattr(loaded.processor, "values"):
        answer = torch.from_numpy(loaded.processor.values(answer)).float()
    return targets, answer


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("dataset") / "data", episodes=3, size=(48, 64))


def test_a_start_checkpoint_takes_the_statistics_of_the_data(checkpoint, dataset, tmp_path):
    config = TrainConfig.from_dict({
        "dataset": str(dataset), "output": str(tmp_path / "run"), "start": str(checkpoint), "statistics": "recompute",
        "steps": 1, "batch_size": 2, "save_every": 1,
    })  # fmt: skip
    if "ours" in str(checkpoint):
        loaded = open_policy(replace(config, statistics="recompute"), Dataset(dataset))
        loaded = replace(loaded, processor=_clock(loaded.processor, 0.1))
    else:  # a folder that knows no clock takes the dataset's
        figures = Trainer(config).run()
        assert np.isfinite(list(figures.values())).all()
        loaded = load(tmp_path / "run" / "checkpoints" / "last")
    processor, rows = loaded.processor, Dataset(dataset).statistics
    assert processor.joints == ROBOT.joint_names and processor.step_dt == pytest.approx(0.1)
    for normalisation, feature in ((processor.state, "observation.state"), (processor.actions, "action")):
        name = {"mean_std": "mean", "quantiles": "q01", "min_max": "min"}[normalisation.mode]
        np.testing.assert_allclose(normalisation.statistics[name], rows[feature][name], atol=0.02)


def _clock(processor, step_dt):
    return replace(processor, embodiment=replace(processor.embodiment, step_dt=step_dt))


def test_a_base_checkpoint_without_statistics_is_described_and_trained_but_not_served(folder, dataset, tmp_path):
    real_families.take_statistics_away(folder)
    assert "no normalisation" in describe(folder, robot=ROBOT)["notes"]
    with pytest.raises(InputError, match=r"no normalisation: .*overrides\.statistics"):
        load(folder, robot=ROBOT)
    settings = {"dataset": str(dataset), "output": str(tmp_path / "run"), "start": str(folder)}
    if "xvla" in describe(folder)["family"]:  # which domain it was trained for stood in these files alone
        settings["start"] = str(tmp_path / "policy.yaml")
        rows = {"checkpoint": folder.name, "overrides": {"domain_id": 0}}
        (tmp_path / "policy.yaml").write_text(yaml.safe_dump(rows))
    with pytest.raises(InputError, match=r"overrides\.statistics"):
        open_policy(TrainConfig.from_dict(settings | {"statistics": "keep"}), Dataset(dataset))
    loaded = open_policy(TrainConfig.from_dict(settings | {"statistics": "recompute"}), Dataset(dataset))
    mode, rows = loaded.processor.actions.mode, Dataset(dataset).statistics["action"]
    name = {"mean_std": "mean", "quantiles": "q01", "min_max": "min"}[mode]
    np.testing.assert_allclose(loaded.processor.actions.statistics[name], rows[name], atol=0.02)


def test_a_policy_file_is_a_start_too(folder, dataset, tmp_path, family):
    rows = [{"joint": name, "scale": 2.0} for name in ROBOT.joint_names[::-1]]
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump({"checkpoint": "theirs", "cameras": cameras(family), "state": rows, "step_dt": 0.2}))
    config = TrainConfig.from_dict({
        "dataset": str(dataset), "output": str(tmp_path / "run"), "start": str(path), "statistics": "keep",
    })  # fmt: skip
    processor = open_policy(config, Dataset(dataset)).processor
    assert processor.joints == ROBOT.joint_names and processor.step_dt == 0.2
    assert [d.joint for d in processor.embodiment.actions] == list(ROBOT.joint_names[::-1])


def test_the_clock_of_a_policy_file_is_kept(checkpoint, tmp_path, family):
    path = tmp_path / "policy.yaml"
    for more in ({}, {"cameras": cameras(family), "state": list(ROBOT.joint_names)}):
        path.write_text(yaml.safe_dump({"checkpoint": checkpoint.name, "step_dt": 0.25, **more}))
        loaded = load(path, robot=ROBOT)
        assert loaded.processor.step_dt == 0.25
        assert "0.25 s apart" in describe(path, robot=ROBOT)["horizon"]


def test_an_override_is_honoured_or_refused(checkpoint, family):
    with pytest.raises(InputError, match=r"unknown 'nonsense', expected some of \[.*'statistics'"):
        load(checkpoint, robot=ROBOT, overrides={"nonsense": 1})
    names = {"diffusion": "num_inference_steps", "act": None, "pi0_fast": None, "openvla": "text_length",
             "robovlms": "asked"}
    name = names.get(family, "num_steps")
    if name is None:
        with pytest.raises(InputError, match="unknown 'num_steps'"):
            load(checkpoint, robot=ROBOT, overrides={"num_steps": 2})
    else:
        assert getattr(load(checkpoint, robot=ROBOT, overrides={name: 2}).policy.config, name) == 2
        with pytest.raises(InputError, match=f"overrides.{name}"):
            load(checkpoint, robot=ROBOT, overrides={name: "two"})


def test_statistics_of_a_file_are_honoured(checkpoint, tmp_path, family):
    loaded = load(checkpoint, robot=ROBOT)
    halved = {
        feature: {name: 0.5 * np.asarray(normalisation.statistics[name])
                  for name in MODES[normalisation.mode] if name in normalisation.statistics}
        for feature, normalisation in (
            ("observation.state", loaded.processor.state), ("action", loaded.processor.actions)
        )
    }
    write_statistics(tmp_path / "halved.json", halved)
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump({"checkpoint": checkpoint.name, "overrides": {"statistics": "halved.json"}}))
    again = load(path, robot=ROBOT).processor
    expected = dict(halved["action"])
    if family == "robovlms" and checkpoint.name == "theirs":  # its norm_min and norm_max come on top
        low, high = expected["q01"], expected["q99"]
        inner = 0.65 * np.array([-1, 1])[:, None] * (high - low) / 2 + (low + high) / 2
        expected = {name: np.append(row[:-1], expected[name][-1])
                    for name, row in zip(("q01", "q99"), inner, strict=True)}  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_allclose(again.actions.statistics[name], values)
    assert again.actions.mode == loaded.processor.actions.mode and again.state.mode == loaded.processor.state.mode
    needed = {"mean_std": "std", "quantiles": "q99", "min_max": "max"}[loaded.processor.actions.mode]
    del halved["action"][needed]
    write_statistics(tmp_path / "less.json", halved)
    with pytest.raises(InputError, match=needed):
        load(checkpoint, robot=ROBOT, overrides={"statistics": tmp_path / "less.json"})
    with pytest.raises(InputError, match="other.json"):
        load(checkpoint, robot=ROBOT, overrides={"statistics": "other.json"})


def test_targets_come_in_the_robots_order_whatever_the_checkpoints_is(checkpoint, family):
    straight, turned = (
        Embodiment(cameras(family), dimensions, dimensions, 0.1)
        for dimensions in (tuple(map(Dimension, names)) for names in (ROBOT.joint_names, ROBOT.joint_names[::-1]))
    )
    first, second = (load(checkpoint, robot=ROBOT, embodiment=embodiment) for embodiment in (straight, turned))
    check_robot(second.processor, ROBOT)
    one = real_families.sample(first)
    expected, _ = actions(first, one)
    targets, answer = actions(second, replace(one, state=one.state[:, ::-1]))
    assert targets.parts[0].names == second.processor.joints == ROBOT.joint_names
    np.testing.assert_allclose(targets.parts[0].data, expected.parts[0].data[:, ::-1], atol=1e-6)
    back, survives = second.processor.normalise([targets], [one])
    assert survives.all()
    if not answer.is_floating_point():  # tokens
        answer = torch.from_numpy(second.processor.read(answer[0].tolist()))[None].float()
    if any(group.clip_back for group in getattr(first.policy.config, "action_groups", ())):
        answer = answer.clamp(-1, 1)  # before it becomes targets
    torch.testing.assert_close(back[..., :6], answer[..., :6], atol=1e-4, rtol=1e-4)


def test_a_joint_that_is_held_is_left_out(checkpoint, family):
    held = ROBOT.joint_names[2]
    names = [None if name == held else name for name in ROBOT.joint_names]
    embodiment = Embodiment(
        cameras(family), tuple(map(Dimension, ROBOT.joint_names)), tuple(map(Dimension, names)), 0.1, hold=(held,)
    )
    loaded = load(checkpoint, robot=ROBOT, embodiment=embodiment)
    check_robot(loaded.processor, ROBOT)
    one = real_families.sample(loaded)
    [part] = actions(loaded, one)[0].parts
    assert part.names == tuple(name for name in ROBOT.joint_names if name != held)
    assert loaded.processor.joints == ROBOT.joint_names
    [inference] = PolicySession(loaded).infer([one])
    assert inference.targets.parts[0].names == part.names


def test_a_joint_neither_commanded_nor_held_is_named(checkpoint, family):
    names = [None, *ROBOT.joint_names[1:]]
    embodiment = Embodiment(cameras(family), tuple(map(Dimension, names)), tuple(map(Dimension, names)), 0.1)
    loaded = load(checkpoint, robot=ROBOT, embodiment=embodiment)
    with pytest.raises(InputError, match=rf"\['{ROBOT.joint_names[0]}'\] neither in actions nor in hold"):
        check_robot(loaded.processor, ROBOT)


def test_bfloat16_stays_near_float32(checkpoint, family):
    """The same noise, weights but for what the policy keeps in float32."""
    exact, near = (load(checkpoint, robot=ROBOT, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    kept = {name for name, parameter in near.policy.named_parameters() if parameter.dtype == torch.float32}
    all_names = {name for name, _ in near.policy.named_parameters()}
    assert kept == {name for name in all_names if near.policy.stored_dtype(name, torch.bfloat16) == torch.float32}
    assert 0 < len(kept) < len(all_names)
    one = real_families.sample(exact)
    if family in ("openvla", "pi0_fast"):  # greedy choices part soon; what they are made from is near
        a, b = (loaded.policy.encode(loaded.processor.inputs([one])).cache for loaded in (exact, near))
        answers = [loaded.policy.predict(loaded.processor.inputs([one])) for loaded in (exact, near)]
        assert {answer.dtype for answer in answers} == {torch.int64}  # ids that were rounded would be no chunk
    else:
        (_, a), (_, b) = (actions(loaded, one) for loaded in (exact, near))
    assert 0 < (a - b).abs().mean() < 0.1 * a.abs().mean()


def test_rows_that_a_flat_normalisation_loses_are_told(folder):
    """A deviation of zero maps every value to one when it restores; LeRobot's folders may hold such."""
    processor = load(folder, robot=ROBOT).processor
    rows = {name: np.array(values, dtype=np.float64) for name, values in processor.actions.statistics.items()}
    lost = "std" if processor.actions.mode == "mean_std" else None
    if lost is None:
        pytest.skip("bounds of no width are kept apart by 1e-8: their inverse is exact")
    rows["std"][0] = 0.0
    processor = replace(processor, actions=replace(processor.actions, statistics=rows))
    one = real_families.sample(load(folder, robot=ROBOT))
    data = np.tile(rows["mean"], (processor.horizon, 1))
    data[1, 0] += 0.5
    _, survives = processor.normalise([Targets((Part(ROBOT.joint_names, data),))], [one])
    assert survives[0].tolist() == [True, False, *[True] * (processor.horizon - 2)]


def words(processor, one):
    """Which tokens of the prompt are no padding."""
    batch = processor.inputs([one])
    return batch.get("token_mask", batch["tokens"] != processor.tokenizer.padding)


def test_a_prompt_that_is_too_long_is_cut_and_said(checkpoint, family, caplog):
    if family in ("act", "diffusion"):
        pytest.skip("reads no text")
    loaded = load(checkpoint, robot=ROBOT)
    one = replace(real_families.sample(loaded), instruction="touch the red cube " * 60)
    for _ in range(2):
        caplog.clear()
        assert words(loaded.processor, one).all() and "cut to" in caplog.text
    caplog.clear()
    short = words(loaded.processor, real_families.sample(loaded))
    assert short.sum() < (100 if family == "go1" else 60)  # GO-1's prompt has places for the images
    assert "cut to" not in caplog.text


def test_a_special_token_that_has_no_row_is_refused_where_it_is_written(tmp_path):
    """PaliGemma's tokenizer.json has one more token, of an image, than the published π0 embeds."""
    folder = real_families.make(tmp_path / "theirs", "pi0_fast")
    loaded = load(folder, robot=ROBOT)
    assert loaded.processor.tokenizer.size == loaded.policy.config.vocabulary
    inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    inner.add_special_tokens(["<image>"])
    inner.save(str(folder / "tokenizer.json"))
    again, one = load(folder, robot=ROBOT), real_families.sample(loaded)
    for name, value in loaded.processor.inputs([one]).items():
        assert torch.equal(again.processor.inputs([one])[name], value), name
    with pytest.raises(InputError, match=r"instruction 'touch <image>': token \d+, expected words, none of"):
        again.processor.inputs([replace(one, instruction="touch <image>")])
    words = {f"w{i}": i for i in range(9000)} | {"|": 9000}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    with pytest.raises(InputError, match="not its tokenizer"):
        load(folder, robot=ROBOT)
