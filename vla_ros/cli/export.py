"""Write a checkpoint as another program has it.

    vla-ros export CHECKPOINT --to lerobot --output DIR    a folder that LeRobot 0.6.1 loads, with the same actions

CHECKPOINT is a folder of any layout, or a policy file; a LoRA adapter comes out merged. What the other program cannot
express is refused by name.
"""

import argparse
from pathlib import Path

from vla_ros.cli import options
from vla_ros.core.text import say


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="a checkpoint folder or a policy file")
    parser.add_argument("--to", choices=("lerobot",), required=True, help="whose layout")
    options.output(parser, "folder to write, which must be new", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, help="folder or file of the tokenizer, where the checkpoint has none")


def main(args: argparse.Namespace) -> int:
    from vla_ros.policies import registry

    loaded = registry.load(args.checkpoint, tokenizer=args.tokenizer)
    for note in registry.export(args.output, loaded, args.to):
        say(f"note: {note}")
    say(f"checkpoint: {args.output}")
    return 0
