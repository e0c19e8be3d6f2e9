"""Convert weights written by torch.save to a checkpoint folder of safetensors, without running code from the file.

    vla-ros convert kosmos_ph_calvin_abc.pt --output robovlm        one file, and the JSON of its name beside it
    vla-ros convert pytorch_model-*.bin --output FOLDER             shards, and the config.json beside them
    vla-ros convert last.ckpt --config config.json --output FOLDER

It reads .pt, .pth, .ckpt and .bin files, also those of torch before 1.6; from the file of a trainer it takes the
state_dict only. Objects that the file would construct are skipped and listed; among the weights they are refused. Copy
the tokenizer, and anything else the checkpoint needs, into FOLDER yourself.
"""

import argparse
from pathlib import Path

from vla_ros.cli import options
from vla_ros.core.text import say


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, nargs="+",
                        help="file written by torch.save; several files are the shards of one checkpoint")
    options.output(parser, "folder to write, which must be new", type=Path, required=True)
    parser.add_argument("--config", type=Path, help="its configuration, JSON (default: the one beside the file)")


def main(args: argparse.Namespace) -> int:
    from vla_ros.policies.formats.convert import convert

    for note in convert(args.file, args.output, args.config):
        say(f"note: {note}")
    say(f"checkpoint: {args.output}")
    return 0
