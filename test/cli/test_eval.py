import json

import pytest

import vla_ros.cli.eval as cli
from vla_ros.cli.eval import episodes, wilson
from vla_ros.cli.main import main
from vla_ros.core.errors import InputError
from vla_ros.sim.bench_world import Bench
from vla_ros.sim.tasks import parse_instruction


def test_the_plan_is_the_same_for_the_same_arguments():
    plan = episodes("pick", 6, seed=2)
    assert plan == episodes("pick", 6, seed=2)
    assert [episode.seed for episode in plan] == list(range(2000, 2006))
    assert {parse_instruction(episode.judged).colour for episode in plan} == {"red", "green", "blue"}
    assert len({episode.instruction for episode in plan}) > 3  # words vary
    for episode in plan:
        assert parse_instruction(episode.instruction) == parse_instruction(episode.judged)
    with pytest.raises(InputError, match="--seed 1000 with --layouts 1: beyond the 800000 unseen layouts"):
        episodes("pick", 1, seed=1000)  # the first layout of demonstrations


def test_the_wrong_colour_is_never_the_right_one():
    for episode in episodes("touch", 30, seed=0, control="wrong_colour"):
        told, judged = parse_instruction(episode.instruction), parse_instruction(episode.judged)
        assert told.kind == judged.kind and told.colour != judged.colour


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Brown, Cai, DasGupta 2001 and the closed form; the ends stay inside [0, 1]
    [(95, 100, 0.8882, 0.9785), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0)],
)
def test_wilson_interval(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=2e-4)


def test_the_expert_is_the_yardstick(tmp_path, capsys):
    output = tmp_path / "expert.json"
    arguments = ["eval", "--control", "expert", "--tasks", "touch", "pick", "--layouts", "3", "--output", str(output)]
    assert main(arguments) == 0
    report = json.loads(output.read_text())
    assert report["tasks"]["touch"]["successes"] == report["tasks"]["pick"]["successes"] == 3
    assert all(0 < episode["time"] < 15 for episode in report["tasks"]["pick"]["episodes"])
    assert "6/6 episodes, 100% so far" in capsys.readouterr().out


def test_the_median_of_an_even_number_is_between_the_two(monkeypatch, capsys):
    def run(plan, world):
        yield from (cli.Outcome(episode, time < 9, time) for episode, time in zip(plan, (1.0, 4.0, 9.0), strict=True))

    monkeypatch.setattr(cli, "run_expert", run)
    assert main(["eval", "--control", "expert", "--tasks", "touch", "--layouts", "3"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "touch" in line)
    assert "66.7%" in row and "2.5" in row


def test_what_had_ended_before_it_was_interrupted_is_told(tmp_path, capsys, monkeypatch):
    def interrupted(plan, world):
        yield from list(run_expert(plan[:2], world))
        raise KeyboardInterrupt

    run_expert = cli.run_expert
    monkeypatch.setattr(cli, "run_expert", interrupted)
    output = tmp_path / "expert.json"
    arguments = ["eval", "--control", "expert", "--tasks", "touch", "--layouts", "3", "--output", str(output)]
    assert main(arguments) == 130
    assert json.loads(output.read_text())["tasks"]["touch"]["layouts"] == 2
    assert "100.0%" in capsys.readouterr().out


def test_the_bench_and_its_held_out_wordings(tmp_path):
    output = tmp_path / "expert.json"
    tasks = ["press", "open+press"]
    assert main(["eval", "--control", "expert", "--tasks", *tasks, "--layouts", "1", "--output", str(output)]) == 0
    report = json.loads(output.read_text())
    assert report["scene"] == "bench" and [report["tasks"][task]["successes"] for task in tasks] == [1, 1]
    trained, held_out = (
        [episode.instruction for episode in episodes("stack", 9, 2, world=Bench, wordings=wordings)]
        for wordings in ("trained", "held_out")
    )
    assert len(set(held_out)) > 3 and not set(trained) & set(held_out)
    for episode in episodes("stack", 9, 2, "wrong_colour", world=Bench, wordings="held_out"):
        said = (episode.instruction, episode.judged)
        told, judged = (parse_instruction(text, Bench.kinds, Bench.colours) for text in said)
        assert told.kind == judged.kind and told.colour != judged.colour


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "p", "--tasks", "fly"], "task fly, expected one of touch"),
        (["--policy", "p", "--tasks", "press", "--control", "wrong_colour"], "task press begins with no colour"),
        (["--policy", "p", "--robot", "lekiwi_sim", "--tasks", "drive", "--wordings", "held_out"],
         "--wordings held_out: task drive has none"),
        ([], "--policy is missing"),
        (["--policy", "p", "--layouts", "0"], "--layouts 0, expected 1 or more"),
        (["--policy", "p", "--seed", "800"], "beyond the 800000 unseen layouts"),
        (["--policy", "p", "--rate", "0"], "--rate 0.0 Hz"),
        (["--policy", "p", "--env", "pusht", "--rate", "20"], "--rate 20 Hz, expected at most the robot's control"),
        (["--policy", "p", "--time-limit", "0"], "--time-limit 0 s, expected more than 0"),
        (["--policy", "p", "--time-limit", "nan"], "--time-limit nan s"),
        (["--policy", "p", "--output", "."], "--output .: a folder, expected a file"),
        (["--policy", "p", "--tasks", "touch", "pick", "touch"], "--tasks: touch twice, expected each once"),
        (["--policy", "p", "--tasks", "press+press"], "task press+press: the second cannot follow the first"),
        (["--policy", "p", "--env", "pusht", "--tasks", "touch"], "--tasks with --env, expected only one of them"),
        (["--policy", "p", "--env", "pusht", "--wordings", "held_out"], "--wordings with --env, expected only one"),
        (["--policy", "p", "--env-python", "python3"], "--env-python without --env"),
        (["--control", "expert", "--videos", "v"], "--videos with --control expert"),
        (["--control", "expert", "--policy", "p"], "--policy with --control expert, expected only one of them"),
        (["--control", "expert", "--jobs", "2"], "--jobs with --control expert"),
        (["--policy", ".", "--videos", __file__], "File exists, expected a folder to write to"),
    ],
)
def test_bad_arguments_are_named(arguments, said, capsys):
    assert main(["eval", *arguments]) == 2
    assert said in capsys.readouterr().err
