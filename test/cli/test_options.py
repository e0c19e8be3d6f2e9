"""One option, one name, one meaning in every command."""

import argparse
import re
from collections import defaultdict
from importlib import import_module

import pytest

from vla_ros.cli import options
from vla_ros.cli.main import COMMANDS, main

SHARED = ("--robot", "--device", "--dtype", "--engine", "--num-steps", "--params", "--mode")  # mean one thing alone
ON_THE_GRAPH = {"run", "task", "say", "e-stop", "lifecycle", "top", "rerun", "record", "replay", "robot new"}
# The name that is used in place of others.
INSTEAD = {"--sim-time": "--use-sim-time", "--task": "--tasks", "--out": "--output", "--ns": "--namespace",
           "--checkpoint": "--policy", "--time": "--duration"}  # fmt: skip


def parsers() -> dict[str, argparse.ArgumentParser]:
    """"dataset build" -> its parser, of every command."""
    found = {}
    for name, (module_name, _) in COMMANDS.items():
        module = import_module(module_name)
        parser = options.Parser(description=module.__doc__)
        module.arguments(parser)
        inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        found[name] = parser
        found |= {f"{name} {word}": sub for action in inner for word, sub in action.choices.items()}
    return found


PARSERS = parsers()


def test_an_option_means_the_same_everywhere():
    said = defaultdict(set)
    for parser in PARSERS.values():
        for action in parser._actions:
            for flag in set(action.option_strings) & set(SHARED):
                words = (action.help or "").partition(" (default")[0]
                said[flag].add((words, action.type, type(action), str(action.choices)))
    assert {flag: kinds for flag, kinds in said.items() if len(kinds) > 1} == {}


@pytest.mark.parametrize("name", PARSERS)
def test_options_of_a_command_have_the_common_names(name: str):
    flags = {flag for action in PARSERS[name]._actions for flag in action.option_strings}
    assert not {INSTEAD[flag] for flag in flags if flag in INSTEAD}
    assert ("-o" in flags) == ("--output" in flags)
    assert "--steps" not in flags or name == "train"  # of the optimiser; of denoising they are --num-steps
    assert "--namespace" in flags or name not in ON_THE_GRAPH


@pytest.mark.parametrize("name", PARSERS)
def test_every_option_is_explained_with_its_default(name: str):
    parser = PARSERS[name]
    assert [action.dest for action in parser._actions if action.option_strings and not action.help] == []
    shown = parser.format_help().count("(default")
    assert shown >= sum(action.default not in (None, False, "", [], argparse.SUPPRESS) for action in parser._actions)


@pytest.mark.parametrize("name", PARSERS)
def test_a_value_that_an_option_does_not_accept_is_refused_in_one_line(name: str, capsys):
    for action in PARSERS[name]._actions:
        if action.option_strings and (action.choices or action.type in (int, float)):
            with pytest.raises(SystemExit) as ended:
                PARSERS[name].parse_args([action.option_strings[0], "no\nsense"])
            expected = action.choices and f"one of {', '.join(action.choices)}"
            assert ended.value.code == 2
            said = capsys.readouterr().err
            assert f": {action.option_strings[-1]} no\\nsense, expected {expected or 'a '}" in said
            assert said.count("\n") == 1 and said.endswith(" (docs/troubleshooting.md#options-of-a-command)\n")


@pytest.mark.parametrize(("line", "words"), [
    ("nothing", "vla-ros: COMMAND nothing, expected one of demo, run, "),
    ("lifecycle executor_node fly", "vla-ros lifecycle: transition fly, expected one of "),
    ("bag shake x", "vla-ros bag: .* shake, expected one of show, repair"),
    ("run --mode= --robot so101", "vla-ros run: --mode '', expected one of ensemble, latest, rtc"),
    ("train", "vla-ros train: the following arguments are required: --config"),
    ("bag show --colour x", "vla-ros bag: unrecognized arguments: --colour"),
])  # fmt: skip
def test_what_cannot_be_parsed_is_refused_in_one_line(line: str, words: str, capsys):
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    said = capsys.readouterr().err
    assert ended.value.code == 2 and re.match(words, said), said
    assert said.count("\n") == 1 and said.endswith(" (docs/troubleshooting.md#options-of-a-command)\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_an_example(name: str):
    assert f"vla-ros {name}" in PARSERS[name].description


# With the default value where there is one: it has no effect either.
UNUSED = [
    ("demos out --bags --image-size 96", "--image-size with --bags"),
    ("demos out --bags --jobs 1", "--jobs with --bags"),
    ("demos out --bags --space joint", "--space with --bags"),
    ("demos out --bags --vary lights", "--vary with --bags"),
    ("demos out --env pusht --robot so101", "--robot with --env"),
    ("demos out --env pusht --tasks touch pick", "--tasks with --env"),
    ("eval --policy no --env pusht --wordings trained", "--wordings with --env"),
    ("eval --control expert --jobs 1", "--jobs with --control expert"),
    ("eval --policy no --env-python python3", "--env-python without --env"),
    ("export no --to lerobot --output out --robot so101", "--robot with --to lerobot"),
    ("replay no --wait --policy no", "--wait with --policy"),
    ("replay no --rate 1 --policy no", "--rate with --policy"),
    ("replay no --max-gap 0.25", "--max-gap without --policy"),
    ("takeover --topic executor_node/takeover/joint_command", "--topic without --keyboard and --joy"),
    ("bench --policy no --size tiny", "--size with --policy no"),
    ("bench --policy pi0 --robot so101", "--robot with --policy pi0, expected none: random weights"),
    ("bench --policy ws://127.0.0.1:1 --threads 0", "--threads with --policy ws://127.0.0.1:1, expected none"),
    ("bench --policy act --no-peers --lerobot-python no", "--lerobot-python with --no-peers"),
    ("bench --policy pi0 --lerobot-python no", "--lerobot-python with --policy pi0"),
    ("bench --policy pi0 --num-steps 0", "--num-steps 0, expected at least 1"),
    ("export no --to onnx --output out --num-steps 0", "--num-steps 0, expected at least 1"),
    ("run --policy no --robot so101 --num-steps 0", "--num-steps 0, expected at least 1"),
    ("serve no --num-steps 0", "--num-steps 0, expected at least 1"),
    ("train --config no --steps-out 1", "--steps-out without --distill"),
    ("train --config no --distill no --statistics keep", "--statistics with --distill"),
    ("train --config no --distill no --steps-out 0", "--steps-out 0, expected 1 or more"),
    ("info so101 --namespace=", "--namespace without --sros2"),
    ("info so101 --sros2 --urdf no", "--urdf with --sros2"),
    ("info so101 --tokenizer no", "--tokenizer with so101, expected none"),
]


@pytest.mark.parametrize(("line", "words"), UNUSED, ids=[line for line, _ in UNUSED])
def test_a_given_option_without_effect_is_refused(line: str, words: str, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert f" {words}" in said and said.endswith("(docs/troubleshooting.md#options-of-a-command)\n")
    assert not [*tmp_path.iterdir()]


def test_given_are_those_of_a_subcommand_too():
    outer = options.Parser()
    outer.add_argument("--loud", action="store_true")
    inner = outer.add_subparsers(dest="action").add_parser("build")
    inner.add_argument("bags", nargs="+")
    inner.add_argument("--fps", type=float, default=10.0)
    inner.add_argument("--params", action="append", default=[])
    assert outer.parse_args(["build", "a", "--fps", "10"]).given == {"action", "bags", "fps"}
    given = outer.parse_args(["--loud", "build", "a", "--params", "x", "--params", "y"])
    assert given.given == {"loud", "action", "bags", "params"} and given.params == ["x", "y"]


def test_the_version_is_said(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("vla-ros ")
