"""Read weights that torch.save wrote, run nothing of them, and write a checkpoint folder of safetensors.

    vla-ros convert kosmos_ph_calvin_abc.pt --output robovlm        one file, and the JSON of its name beside it
    vla-ros convert pytorch_model-*.bin --output FOLDER             shards, and the config.json beside them
    vla-ros convert last.ckpt --config config.json --output FOLDER

Read are .pt, .pth, .ckpt and .bin, of torch before 1.6 too, and of a trainer's file the state_dict alone. Objects
that the file would construct are left out and named; among the weights they are refused. The tokenizer and whatever
else the checkpoint needs is copied into FOLDER by hand.
"""

import argparse
from pathlib import Path

from vla_ros.cli import options
from vla_ros.core.text import say


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, nargs="+", help="file of torch; several are one checkpoint's shards")
    options.output(parser, "folder to write, which must be new", type=Path, required=True)
    parser.add_argument("--config", type=Path, help="its configuration, JSON; by default the one that lies beside it")


def main(args: argparse.Namespace) -> int:
    from vla_ros.policies.formats.convert import convert

    for note in convert(args.file, args.output, args.config):
        say(f"note: {note}")
    say(f"checkpoint: {args.output}")
    return 0
