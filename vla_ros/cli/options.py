"""Options shared by several commands, each with one name and one meaning."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from vla_ros.core.errors import InputError
from vla_ros.core.resources import resolve_policy, server_mapping
from vla_ros.core.text import say

_LONGEST = 3600.0  # s of simulated time, of an episode
_NUMBERS = {int: "a whole number", float: "a number"}


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help with the text as written, and the default after each option whose text does not give it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        words = action.help or ""
        unsaid = action.default is None or action.default is False or action.default in ("", [], argparse.SUPPRESS)
        if unsaid or "default" in words or not action.option_strings:
            return words
        default = " ".join(map(str, action.default)) if isinstance(action.default, list | tuple) else "%(default)s"
        return f"{words} (default: {default})".lstrip()


class Parser(argparse.ArgumentParser):
    """A parser whose help, and that of its subcommands, shows defaults. Its errors are one line, with their section of
    the docs.

    What it parses has `given`: the names of the options that were given, also those with their default value.
    """

    def __init__(self, **others: Any) -> None:
        super().__init__(**{"formatter_class": _Help, **others})

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        said = argparse.Namespace(**{action.dest: None for action in self._actions})  # argparse adds no default to it
        super().parse_known_args(args, said)
        found, rest = super().parse_known_args(args, namespace)
        given = {action.dest for action in self._actions if getattr(said, action.dest) is not None}
        found.given = given | getattr(found, "given", set())  # those of a subcommand
        return found, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise _refusal(action, value, f"one of {', '.join(map(str, action.choices))}")

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError:
            if action.type not in _NUMBERS:
                raise
            raise _refusal(action, arg_string, _NUMBERS[action.type]) from None

    def error(self, message: str) -> NoReturn:
        from vla_ros.control.error_kinds import OPTIONS
        from vla_ros.control.remedies import section

        say(f"{self.prog}: {InputError(message)} ({section(OPTIONS)})", error=True)
        self.exit(2)


def _refusal(action: argparse.Action, value: Any, expected: str) -> argparse.ArgumentError:
    name = action.option_strings[-1] if action.option_strings else action.metavar or action.dest
    return argparse.ArgumentError(None, f"{name} {value or repr(value)}, expected {expected}")


def robot(parser: Any, **others: Any) -> None:
    parser.add_argument("--robot", help="robot file, or the name of a shipped one, such as so101", **others)


def scene(parser: Any, default: str = "the first that has the tasks") -> None:
    parser.add_argument("--scene", metavar="NAME", default="",
                        help=f"the simulator's scene: cubes, bench, or room for a robot on wheels (default: {default})")


def environment(parser: Any, **others: Any) -> None:
    parser.add_argument("--env", metavar="NAME", help="benchmark instead of --tasks, such as aloha/transfer_cube",
                        **others)
    parser.add_argument("--env-python", metavar="PATH", default="",
                        help="interpreter that has the benchmark's packages (default: this one)")


def check_environment(args: argparse.Namespace, *simulators: str) -> None:
    """Raises InputError for `--env-python` without `--env`, and for an option of the simulator beside `--env`."""
    if args.env:
        check_unused(args, simulators, "with --env, expected only one of them: it is for the simulator of this package")
    else:
        check_unused(args, ["env_python"], "without --env, expected both or neither")


def check_unused(args: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Raises InputError, `--NAME WHY`, for an option that was given and would have no effect."""
    for name in names:
        if name in args.given:
            raise InputError(f"--{name.replace('_', '-')} {why}")


def check_time_limit(args: argparse.Namespace) -> None:
    """Raises InputError for a `--time-limit` that is no time, in s."""
    if args.time_limit is not None and not 0 < args.time_limit <= _LONGEST:
        raise InputError(f"--time-limit {args.time_limit:g} s, expected more than 0 and at most {_LONGEST:g}")


def check_policy(policy: str) -> str:
    """`resolve_policy`. Raises InputError, too, where a server has the policy and does not answer."""
    policy = resolve_policy(policy)
    if server_mapping(policy) is not None:
        from vla_ros.policies.server_file import read_server  # torch, which takes a while
        from vla_ros.runtime.remote.connection import Connection

        server = read_server(policy)
        connection = Connection(server, lambda metadata: None)
        try:
            connection.ask(None, server.patience)
        finally:
            connection.close()
    return policy


def namespace(parser: Any, whose: str = "namespace of the nodes and of the robot's topics") -> None:
    parser.add_argument("--namespace", default="", help=whose)


def wait(parser: Any, what: str) -> None:
    parser.add_argument("--wait", type=float, default=10.0, metavar="S", help=f"time to wait {what}, s")


def output(parser: Any, words: str, **others: Any) -> None:
    parser.add_argument("-o", "--output", help=words, **others)


def device(parser: Any, default: str | None = "auto") -> None:
    parser.add_argument("--device", default=default, help="where the policy runs: auto, cpu, cuda or cuda:N")


def dtype(parser: Any, default: str | None = "auto") -> None:
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float8"), default=default,
                        help="data type of the weights" + ("" if default else " (default: auto)"))


def threads(parser: Any) -> None:
    parser.add_argument("--threads", type=int, default=0, help="number of CPU threads (default: torch's)")


def engine(parser: Any, default: str | None = "auto") -> None:
    names = ("auto", "torch", "openvino", "openvino_int8", "onnxruntime")
    parser.add_argument("--engine", choices=names, default=default,
                        help="what runs the network on a CPU" + ("" if default else " (default: auto)"))


def num_steps(parser: Any) -> None:
    parser.add_argument("--num-steps", type=int, metavar="N",
                        help="number of denoising steps (default: the checkpoint's)")


def check_num_steps(args: argparse.Namespace) -> None:
    """Raises InputError for a `--num-steps` that is none; 0 would mean the checkpoint's."""
    if args.num_steps is not None and args.num_steps < 1:
        raise InputError(f"--num-steps {args.num_steps}, expected at least 1")


def use_sim_time(parser: Any, words: str) -> None:
    parser.add_argument("--use-sim-time", action="store_true", help=words)


def duration(parser: Any) -> None:
    parser.add_argument("--duration", type=float, default=0.0, metavar="S",
                        help="time after which the command ends, s; 0: never")


def params(parser: Any) -> None:
    parser.add_argument("--params", action="append", default=[], metavar="FILE",
                        help="parameter file for the nodes, may be repeated; command-line options take precedence")
