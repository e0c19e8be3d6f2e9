"""Open-loop evaluation against predictors whose errors are known."""

import json

import cv2
import numpy as np
import pytest
import torch
from bags.factory import NS, ROBOT, START, TEXT, messages, pixels, text, write_bag, write_robot

from vla_ros.bags.build import build_dataset
from vla_ros.bags.compare import compare
from vla_ros.bags.episodes import CutOptions
from vla_ros.bags.evaluate import Evaluation, evaluate
from vla_ros.bags.overlay import Overlay, read_overlay
from vla_ros.bags.report import write_report
from vla_ros.cli.main import main
from vla_ros.core.errors import InputError
from vla_ros.datasets.lerobot import Dataset
from vla_ros.policies import registry

RANGE = 4.0  # of both joints


class Oracle:
    """Knows the commands of `factory.messages` and adds a constant; remembers what it was asked."""

    step_dt, n_obs_steps = 0.1, 1

    def __init__(self, name="oracle", offset=0.0, noise=0.0, horizon=5, n_obs_steps=1, paced=False):
        self.paced, self.begun = paced, 0
        self.name, self.offset, self.noise, self.horizon, self.n_obs_steps = name, offset, noise, horizon, n_obs_steps
        self.asked = []

    def begin(self):
        self.begun += 1

    def predict(self, steps, seed):
        self.asked.append([round((step.stamp_ns - START) / 1e8) for step in steps])
        t = (steps[-1].stamp_ns - START) / NS + np.arange(self.horizon) * self.step_dt
        truth = np.stack([np.sin(t) + 0.1, (t >= 1.0 - 1e-9).astype(float)], axis=1)
        draw = np.random.default_rng(seed).normal(size=truth.shape) * self.noise
        return truth + self.offset + draw


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    rows = [row for row in messages(12.0) if row[0] != TEXT]
    for k in range(6):  # six episodes of 2 s, two instructions
        rows.append((TEXT, START + 2 * k * NS, text("wave" if k % 2 else "point")))
    return write_bag(tmp_path_factory.mktemp("evaluate") / "bag", sorted(rows, key=lambda row: row[1]))


def test_errors_are_those_of_the_predictor(path):
    (one, hold), problems = evaluate([path], ROBOT, [Oracle(offset=0.02)], CutOptions())
    assert not problems and hold.name == "hold still"
    assert one.errors.shape == (121, 5, 2)
    assert np.nanmax(np.abs(one.errors - 0.02)) < 1e-6
    assert one.score == pytest.approx(0.02 / RANGE, abs=1e-7)
    assert one.per_joint == pytest.approx([0.02, 0.02], abs=1e-6)
    assert np.isnan(one.errors).sum() == 6 * 2 * (1 + 2 + 3 + 4)  # rows beyond the end of an episode
    assert {t: n for t, (n, _) in one.per_instruction().items()} == {"point": 60, "wave": 61}
    # Holding still: sin(t) against sin(t) + 0.1 now, and further off later
    assert hold.per_step[0, 0] == pytest.approx(0.1, abs=1e-6) and hold.per_step[4, 0] > 0.15


def test_longer_chunks_are_not_worse_for_it(path):
    """Errors grow with the time ahead: figures of chunks of different lengths are of the rows that both have."""
    short, long = Oracle("short", offset=0.02), Oracle("long", offset=0.02, horizon=15)
    (one, two, hold), _ = evaluate([path], ROBOT, [short, long], CutOptions())
    (_, alone), _ = evaluate([path], ROBOT, [short], CutOptions())
    assert hold.score == pytest.approx(alone.score, abs=1e-9)
    assert one.per_joint == pytest.approx(two.per_joint, abs=1e-6)
    assert hold.per_instruction() == alone.per_instruction() and len(hold.per_step) == 15


def test_history_and_stride(path):
    oracle = Oracle(n_obs_steps=3)
    (one, _), _ = evaluate([path], ROBOT, [oracle], CutOptions(), every=4)
    assert oracle.asked[:3] == [[0], [2, 3, 4], [6, 7, 8]]
    assert oracle.asked[5] == [20]  # an episode does not look into the one before
    assert len(one.errors) == 5 * 5 + 6


def test_a_policy_that_remembers_sees_every_frame_whatever_is_scored(path):
    paced, other = Oracle("paced", offset=0.02, paced=True), Oracle("other", offset=0.02)
    (one, two, hold), _ = evaluate([path], ROBOT, [paced, other], CutOptions(), every=4)
    assert [k for (k,) in paced.asked] == list(range(121)) and paced.begun == 6
    assert [k for (k,) in other.asked[:3]] == [0, 4, 8]
    assert np.array_equal(one.errors, two.errors, equal_nan=True) and len(hold.errors) == len(one.errors)


def test_the_same_numbers_again(path):
    def run(seed=0):
        both = [Oracle("a", noise=0.1), Oracle("b", noise=0.1)]
        (one, two, _), _ = evaluate([path], ROBOT, both, CutOptions(), seed=seed)
        return one, two, compare(one, two, seed)

    first, again, other = run(), run(), run(seed=1)
    assert np.array_equal(first[0].errors, again[0].errors, equal_nan=True) and first[2] == again[2]
    assert not np.array_equal(first[0].errors, other[0].errors, equal_nan=True)
    # The noise of a chunk depends on where it is, not on what was asked before
    (alone, _), _ = evaluate([path], ROBOT, [Oracle("b", noise=0.1)], CutOptions())
    assert np.array_equal(alone.errors, first[1].errors, equal_nan=True)


def test_verdicts(path):
    good, bad = Oracle("good", offset=0.01), Oracle("bad", offset=0.05, horizon=8)
    (one, two, _), _ = evaluate([path], ROBOT, [good, bad], CutOptions())
    result = compare(one, two)
    assert result.verdict.startswith("good is closer") and result.units == "6 episodes"
    assert result.difference == pytest.approx(0.04 / RANGE, abs=1e-6) and result.low <= result.difference <= result.high
    assert compare(two, one).verdict.startswith("good is closer")
    assert compare(one, one).verdict.startswith("no difference shown")
    (one, two, _), _ = evaluate([path], ROBOT, [good, bad], CutOptions(by="whole", instruction="all"))
    assert compare(one, two).units == "25 blocks of 5 chunks"
    (one, two, _), _ = evaluate([path], ROBOT, [good, bad], CutOptions(by="whole", instruction="all"), every=4)
    assert compare(one, two).units == "16 blocks of 2 chunks"
    (one, two, _), _ = evaluate([path], ROBOT, [good, bad], CutOptions(by="whole", instruction="all"), every=31)
    assert compare(one, two).verdict.startswith("too little data")


def test_the_interval_covers_the_truth(monkeypatch):
    """Over many draws of two equal policies about one in twenty intervals misses zero."""
    monkeypatch.setattr("vla_ros.bags.compare.RESAMPLES", 1000)
    rng = np.random.default_rng(0)
    episodes = np.repeat(np.arange(10), 10)
    texts = np.array(["x"] * len(episodes))

    def sample():
        shared = np.repeat(rng.exponential(size=10), 10)[:, None, None]  # chunks of an episode are alike
        errors = (shared + rng.exponential(size=(100, 3, 2))).astype(np.float32)
        return Evaluation("x", ("a", "b"), 0.1, np.ones(2), errors, episodes, texts)

    missed = sum((c := compare(sample(), sample(), seed=k)).low > 0 or c.high < 0 for k in range(400))
    assert 8 <= missed <= 40


def test_report(path, tmp_path):
    evaluations, _ = evaluate([path], ROBOT, [Oracle("one"), Oracle("two", offset=0.1, horizon=30)], CutOptions())
    comparison = compare(evaluations[0], evaluations[1])
    write_report(tmp_path / "report", evaluations, comparison)
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert [p["name"] for p in report["policies"]] == ["one", "two", "hold still"]
    assert report["policies"][1]["per_joint"]["a"] == pytest.approx(0.1, abs=1e-6)
    assert report["policies"][1]["per_step"][25] == [None, None]
    assert report["comparison"]["verdict"].startswith("one is closer")
    assert cv2.imread(str(tmp_path / "report/errors.png")).shape[1] > 1000
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        write_report(tmp_path / "file", evaluations, comparison)


def test_an_overlay_is_what_was_recorded_and_predicted(path, tmp_path):
    overlay = Overlay(tmp_path, ROBOT, ["oracle"], 0.1)
    evaluations, _ = evaluate([path], ROBOT, [Oracle(offset=0.02)], CutOptions(), every=5, watch=overlay.take)
    overlay.finish(evaluations, "a verdict")
    data = read_overlay(tmp_path)
    assert data["joints"][0] == {"name": "a", "unit": "rad", "lower": -2.0, "upper": 2.0}
    assert data["verdict"] == "a verdict" and [one["name"] for one in data["policies"]] == ["oracle", "hold still"]
    assert [episode["instruction"] for episode in data["episodes"]] == ["point", "wave"] * 3
    first = data["episodes"][0]
    assert first["t"] == [round(0.1 * k, 4) for k in range(20)]
    assert np.array(first["command"])[:, 0] == pytest.approx(np.sin(np.array(first["t"])) + 0.1, abs=1e-4)
    assert [chunk["t"] for chunk in first["chunks"]] == [0.0, 0.5, 1.0, 1.5]
    ahead = np.array(first["chunks"][1]["rows"])[:, 0] - np.array(first["command"])[5:10, 0]
    assert ahead == pytest.approx(0.02, abs=2e-4)
    assert [picture["t"] for picture in first["pictures"]] == [round(0.2 * k, 4) for k in range(10)]
    seen = cv2.imdecode(np.frombuffer(first["pictures"][3]["jpeg"], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(seen.astype(int) - pixels(6)).mean() < 12
    (tmp_path / "overlay.json").write_text('{"episodes": [{"pictures": [{"file": "../../etc/passwd"}]}]}')
    with pytest.raises(InputError, match="passwd"):  # looked for in the folder alone
        read_overlay(tmp_path)
    (tmp_path / "overlay.json").write_text("[]")
    with pytest.raises(InputError, match="expected what `vla-ros replay --overlay` writes"):
        read_overlay(tmp_path)


def test_refusals(path, tmp_path):
    slow = Oracle("slow")
    slow.step_dt = 0.2
    with pytest.raises(InputError, match="slow: step_dt 0.2 s, expected 0.1 s as oracle"):
        evaluate([path], ROBOT, [Oracle(), slow], CutOptions())
    with pytest.raises(InputError, match="every 0"):
        evaluate([path], ROBOT, [Oracle()], CutOptions(), every=0)
    with pytest.raises(InputError, match=r"(?s)6 bad episode.*frames from"):
        evaluate([path], ROBOT, [Oracle()], CutOptions(min_seconds=9.0))
    with pytest.raises(InputError, match="no episode can be used"):
        evaluate([path], ROBOT, [Oracle()], CutOptions(min_seconds=9.0), skip_bad=True)
    nan = Oracle("nan", offset=np.nan)
    with pytest.raises(InputError, match="nan: predicted"):
        evaluate([path], ROBOT, [nan], CutOptions())


def test_two_checkpoints_side_by_side(path, tmp_path, capsys):
    """The command, with two untrained networks of the shipped family: the same numbers each time."""
    build_dataset([path], tmp_path / "data", ROBOT, CutOptions())
    dataset = Dataset(tmp_path / "data")
    data = registry.TrainingData(
        dataset.joint_names, dataset.camera_names, 0.1, dataset.statistics, ("point", "wave")
    )
    sizes = {"prefix": "tiny_prefix", "expert": "tiny_expert", "vision": "keypoint_stem", "horizon": 4, "num_steps": 2,
             "text_length": 8}  # fmt: skip
    for name, seed in (("one", 0), ("two", 1)):
        torch.manual_seed(seed)
        registry.save(tmp_path / name, registry.build("pi0", sizes, data))
    robot = str(write_robot(tmp_path / "robot.yaml"))

    def run(output, *policies):
        command = ["replay", str(path), "--robot", robot, "--every", "20", "--device", "cpu", "--overlay",
                   "-o", str(output)]
        for policy in policies:
            command += ["--policy", str(tmp_path / policy)]
        assert main(command) == 0
        return json.loads((output / "report.json").read_text())

    both, alone = run(tmp_path / "a", "one", "two"), run(tmp_path / "b", "two")
    assert both["comparison"]["units"] == "6 episodes"
    assert alone["policies"] == both["policies"][1:] and both["policies"][0] != both["policies"][1]
    overlay = read_overlay(tmp_path / "a")
    assert [one["name"] for one in overlay["policies"]] == ["one", "two", "hold still"]
    assert len(overlay["episodes"]) == 6 and overlay["episodes"][0]["chunks"][1]["policy"] == 1
    shown = capsys.readouterr().out
    assert "by time ahead" in shown and both["comparison"]["verdict"].split(":")[0] in shown.replace("\n", " ")
    assert main(["replay", str(path), "--policy", str(tmp_path / "one")]) == 2
    assert "--robot: missing" in capsys.readouterr().err
