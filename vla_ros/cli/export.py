"""Write a checkpoint in the format of another program.

    vla-ros export CHECKPOINT --to lerobot --output DIR    a folder that LeRobot 0.6.1 loads, with the same actions
    vla-ros export CHECKPOINT --to onnx --output DIR       its two stages as graphs, with their constants; also
                                                           openvino, openvino_int8, tensorrt, pt2 (torch.export)

CHECKPOINT is a folder of any layout, or a policy file; a LoRA adapter is merged. Anything that the other program cannot
express is refused by name. Graphs have the shapes of one robot's observations; their output is compared with torch's.
"""

import argparse
from pathlib import Path

from vla_ros.cli import options
from vla_ros.core.errors import InputError
from vla_ros.core.text import say

GRAPHS = ("onnx", "openvino", "openvino_int8", "tensorrt", "pt2")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="a checkpoint folder or a policy file")
    parser.add_argument("--to", choices=("lerobot", *GRAPHS, "torchscript"), required=True, help="format to write")
    options.output(parser, "folder to write, which must be new", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, help="folder or file of the tokenizer, if the checkpoint has none")
    graphs = parser.add_argument_group("of graphs")
    options.robot(graphs, default="so101")
    options.num_steps(graphs)
    graphs.add_argument("--instruction", default="touch the red cube",
                        help="instruction whose length fixes the shapes, for a policy that does not pad")


def main(args: argparse.Namespace) -> int:
    if args.to == "torchscript":
        raise InputError("--to torchscript: torch has deprecated it (torch.jit); expected pt2, which torch.export "
                         "writes and libtorch runs")
    options.check_num_steps(args)
    if args.to in GRAPHS:
        return _graphs(args)
    options.check_unused(args, ("robot", "num_steps", "instruction"),
                         f"with --to {args.to}, expected neither or one: it is for graphs")
    from vla_ros.policies import registry

    loaded = registry.load(args.checkpoint, tokenizer=args.tokenizer)
    for note in registry.export(args.output, loaded, args.to):
        say(f"note: {note}")
    say(f"checkpoint: {args.output}")
    return 0


def _graphs(args: argparse.Namespace) -> int:
    from vla_ros.core.robot import RobotSpec
    from vla_ros.runtime.engines.export import export_graphs
    from vla_ros.runtime.history import example_sample
    from vla_ros.runtime.serving import open_policy

    robot = RobotSpec.load(args.robot)
    loaded = open_policy(args.checkpoint, robot, "cpu", "float32", args.tokenizer)
    sample = example_sample(robot, loaded.processor, args.instruction)
    say(export_graphs(args.output, loaded, sample, args.to, args.num_steps))
    say(f"graphs: {args.output}")
    return 0
