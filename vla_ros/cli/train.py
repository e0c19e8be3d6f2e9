"""Train a policy from a LeRobot dataset.

    vla-ros train --config config/train/pi0_tiny.yaml --dataset DIR --output DIR
    vla-ros train --config ... --resume                        continue after an interruption, with the same losses
    vla-ros train --config ... --start CKPT --statistics keep  fine-tune a checkpoint
    vla-ros train --config ... --start CKPT --statistics keep --corrections 4    frames of persons count four times
    vla-ros train --config config/train/distill.yaml --distill CKPT --steps-out 1    the same answers in one step
    torchrun --nproc-per-node N -m vla_ros.cli.main train --config ...
"""

import argparse
import sys

from vla_ros.cli import options
from vla_ros.core.errors import InputError
from vla_ros.core.text import say
from vla_ros.training.config import STATISTICS, TrainConfig


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, help="training configuration, YAML (config/train/*.yaml)")
    parser.add_argument("--dataset", help="LeRobot dataset folder, instead of the config's")
    options.output(parser, "folder of the run, instead of the config's")
    parser.add_argument("--start", help="checkpoint folder or policy file to start from, instead of fresh weights")
    parser.add_argument("--statistics", choices=STATISTICS, help="with --start: which normalisation statistics to use")
    parser.add_argument("--corrections", type=float, metavar="WEIGHT",
                        help="sample frames that a person commanded this many times as often as a policy's")
    parser.add_argument("--distill", metavar="CKPT",
                        help="train to reproduce the answers of this checkpoint in --steps-out denoising steps")
    parser.add_argument("--steps-out", type=int, default=1, help="with --distill: denoising steps")
    parser.add_argument("--steps", type=int, help="optimiser steps, instead of the config's")
    parser.add_argument("--resume", action="store_true", help="continue from the last saved state in the output folder")
    options.device(parser)
    parser.add_argument("--threads", type=int, help="number of CPU threads (default: torch's)")
    parser.add_argument("--cache", help="folder for decoded images (default: .cache in the dataset)")


def main(args: argparse.Namespace) -> int:
    import torch

    from vla_ros.training.adapt import whole_words
    from vla_ros.training.processes import Processes
    from vla_ros.training.trainer import Trainer

    names = ("dataset", "output", "start", "statistics", "steps", "corrections")
    overrides = {name: getattr(args, name) for name in names}
    if args.distill:
        options.check_unused(args, ("start", "statistics"), "with --distill, expected only one of them: it stands for "
                             "both")
        if args.steps_out < 1:
            raise InputError(f"--steps-out {args.steps_out}, expected 1 or more")
        overrides |= {"start": args.distill, "statistics": "keep", "distill": args.steps_out}
    else:
        options.check_unused(args, ("steps_out",), "without --distill, expected both or neither")
    if overrides["start"]:
        overrides |= {"family": "", "policy": {}, "weights": ""}
    config = TrainConfig.load(args.config, **overrides)
    if args.threads:
        torch.set_num_threads(args.threads)
    processes = Processes.start(args.device)
    try:
        trainer = Trainer(config, processes, args.resume, args.cache, _decoding)
        if processes.main:
            trained = sum(p.numel() for p in trainer.policy.parameters() if p.requires_grad)
            total = sum(p.numel() for p in trainer.policy.parameters())
            say(
                f"{trainer.loaded.family}: {total:,} parameters, {trained:,} trained, {len(trainer.samples):,} frames, "
                f"{processes.count} x {processes.device}"
            )
            for note in trainer.notes if not args.resume else ():
                say(note)
            for warning in trainer.warnings:
                say(f"warning: dataset {config.dataset}: {warning}")
            if unknown := trainer.unknown_words():
                words = ", ".join(f"{word} (in {count} episodes)" for word, count in unknown.items())
                learns = config.start and whole_words(trainer.loaded)
                say(f"warning: the policy does not know, and cannot tell apart, the words {words}; " + (
                    "`weights` with `family` in the place of `start` lets it learn them" if learns else
                    "training does not change that, other words in the dataset do"))
        trainer.run()
        if processes.main:
            say(f"checkpoint: {trainer.output / 'checkpoints' / 'last'}")
    finally:
        processes.leave()
    return 0


def _decoding(camera: str, done: int, total: int) -> None:
    if done == total or sys.stderr.isatty():
        say(f"decoding {camera}: {done}/{total} frames", error=True, end="\n" if done == total else "\r")
