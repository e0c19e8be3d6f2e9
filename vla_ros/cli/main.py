"""The vla-ros command: one module for each subcommand, imported when it is called."""

import os
import signal
import sys
from importlib import import_module

from vla_ros import __version__
from vla_ros.cli.options import Parser
from vla_ros.core.errors import InputError
from vla_ros.core.text import say

# name: (module with `arguments(parser)` and `main(args) -> int`, one line of help)
COMMANDS = {
    "demo": ("vla_ros.cli.demo", "the simulated arm follows some instructions"),
    "run": ("vla_ros.cli.run", "run policy and executor for a real robot (what vla.launch.py starts)"),
    "serve": ("vla_ros.cli.serve", "serve a policy to robots on other machines, over openpi's websocket protocol"),
    "task": ("vla_ros.cli.task", "follow one instruction as a task and wait for its result"),
    "say": ("vla_ros.cli.say", "give the robot an instruction, or stop it"),
    "e-stop": ("vla_ros.cli.e_stop", "press the e-stop, or reset it"),
    "takeover": ("vla_ros.cli.takeover", "let a leader arm or a person take over from the policy, or give back"),
    "lifecycle": ("vla_ros.cli.lifecycle", "show the states of the nodes, or change one"),
    "console": ("vla_ros.cli.console", "serve the operator's page for a browser: watch, instruct, stop, record"),
    "doctor": ("vla_ros.cli.doctor", "check whether the robot can move, and why it does not"),
    "top": ("vla_ros.cli.top", "watch a running graph live"),
    "eval": ("vla_ros.cli.eval", "measure the success of a policy in the simulator"),
    "demos": ("vla_ros.cli.demonstrate", "record demonstrations of the scripted expert"),
    "train": ("vla_ros.cli.train", "train a policy from a dataset"),
    "record": ("vla_ros.cli.record", "record the topics of the robot file in a bag"),
    "replay": ("vla_ros.cli.replay", "publish a bag, or evaluate policies on it"),
    "imagine": ("vla_ros.cli.imagine", "compare a world model's predictions with what happened in a bag"),
    "bag": ("vla_ros.cli.bag", "show or repair a bag"),
    "dataset": ("vla_ros.cli.dataset", "make a LeRobot dataset from bags, show or check one"),
    "export": ("vla_ros.cli.export", "write a checkpoint in LeRobot's format, or as graphs for other programs"),
    "convert": ("vla_ros.cli.convert", "convert weights written by torch.save to safetensors"),
    "info": ("vla_ros.cli.info", "show what a file or folder is, and which command opens it"),
    "robot": ("vla_ros.cli.robot", "write a robot file from a URDF and the running graph"),
    "bench": ("vla_ros.cli.bench", "measure the inference time of a policy, stage by stage"),
    "rerun": ("vla_ros.cli.rerun", "show a running graph in the Rerun viewer"),
}


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = Parser(prog="vla-ros", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"vla-ros {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, line) in COMMANDS.items():
        commands.add_parser(name, help=line, add_help=False)
    name = parser.parse_args(argv[:1]).command
    module_name, line = COMMANDS[name]
    module = import_module(module_name)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see vla_ros/__init__.py
        signal.signal(signal.SIGINT, signal.default_int_handler)
    own = Parser(prog=f"vla-ros {name}", description=module.__doc__ or line)
    module.arguments(own)
    args = own.parse_args(argv[1:])
    try:
        return module.main(args)
    except InputError as error:
        return _failed(name, error)
    except BrokenPipeError:  # the reader of our output has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.filename is None:
            raise
        return _failed(name, error, f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        return 130


def _failed(name: str, error: Exception, text: str = "") -> int:
    """Print the error, or `text` instead; returns the exit status."""
    from vla_ros.control.remedies import with_section

    said = with_section(error, text).removeprefix(f"{name}: ")  # errors of an export name it for callers in Python
    say(f"vla-ros {name}: {said}", error=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())
