"""Compare a world model's predictions with what happened in a bag: images, joints and closeness to success.

    vla-ros imagine BAG --robot so101 --policy CHECKPOINT -o imagined.mp4

Every episode of the bag is cut into pieces as long as the policy's plans. The model gets the images at the
beginning of each, and after that only the commands that were executed.
"""

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vla_ros.bags.build import plan_bag
from vla_ros.bags.frames import read_frames
from vla_ros.bags.reader import Bag
from vla_ros.cli import options
from vla_ros.cli.dataset import add_cut_arguments, cut_options
from vla_ros.core.errors import InputError
from vla_ros.core.files import new_file
from vla_ros.core.robot import RobotSpec
from vla_ros.core.text import say
from vla_ros.datasets.video import VideoWriter

if TYPE_CHECKING:
    from vla_ros.policies.registry import LoadedPolicy
    from vla_ros.policies.world_model.imagination import Imagined

SIDE, BAR, TEXT = 240, 24, 24  # pixels of a picture, of the bar beside it, of the line above


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", metavar="BAG")
    parser.add_argument("--policy", required=True, metavar="CKPT", help="checkpoint of the family world_model")
    options.output(parser, "video (mp4): above what happened, below what was expected, with bars of the closeness")
    options.device(parser)
    add_cut_arguments(parser, required=True)


def main(args: argparse.Namespace) -> int:
    from vla_ros.policies.world_model.imagination import Errors, check
    from vla_ros.runtime.serving import open_policy

    robot = RobotSpec.load(args.robot)
    loaded = open_policy(args.policy, robot, args.device, "float32")
    config, step = check(loaded).config, loaded.processor.step_dt
    errors, pieces, video = Errors(config.horizon), 0, None
    with ExitStack() as stack:
        for name, piece in _pieces(args, robot, loaded):
            errors.add(piece)
            pieces += 1
            if args.output:
                pictures = _pictures(name, piece, step)
                if video is None:
                    part = stack.enter_context(new_file(args.output, "video"))
                    video = VideoWriter(part, 1 / step, *pictures.shape[1:3])
                    stack.callback(video.close)
                video.add(pictures)
    if not pieces:
        raise InputError(f"bag {args.bag}: no episode of two steps of {step:g} s, expected one")
    say(_said(errors.means, int((errors.count > 0).sum()), pieces, step))
    if args.output:
        say(f"written: {args.output}")
    return 0


def _pieces(
    args: argparse.Namespace, robot: RobotSpec, loaded: "LoadedPolicy"
) -> Iterator[tuple[str, "Imagined"]]:
    """(instruction, piece) of all episodes, in order."""
    from vla_ros.policies.world_model.imagination import imagine
    from vla_ros.runtime.history import make_sample

    cuts = replace(cut_options(args), fps=1 / loaded.processor.step_dt)
    index, episodes, problems = plan_bag(Path(args.bag), robot, cuts, args.namespace)
    for problem in problems:
        say(f"left out: {problem}")
    with Bag(Path(args.bag)) as bag:
        for _, frames in groupby(read_frames(bag, robot, index, episodes), lambda frame: frame.episode.number):
            frames = list(frames)
            if frames[-1].error is not None:
                say(f"left out: {frames[-1].episode.name}: {frames[-1].error}")
                continue
            text = frames[0].episode.cut.instruction
            samples = [make_sample([frame.observation], loaded.processor, text) for frame in frames]
            for piece in imagine(loaded, samples, np.stack([frame.action for frame in frames])):
                yield text, piece


def _said(means: np.ndarray, steps: int, pieces: int, step: float) -> str:
    """One line: the errors of the first and of the last step ahead."""
    def at(k: int) -> str:
        image, still, joint, unmoved, closeness = means[:, k]
        return (f"{(k + 1) * step:.2g} s ahead: images {image:.1f} levels of 255 (as if nothing moved {still:.1f}), "
                f"joints {joint:.3f} ({unmoved:.3f}), closeness {closeness:.3f}")

    return f"{pieces} pieces, mean error {at(0)}; {at(steps - 1)}"


def _pictures(name: str, piece: "Imagined", step: float) -> np.ndarray:
    """(K, h, w, 3) uint8: the cameras side by side, above found and below expected."""
    frames = []
    for k in range(piece.images.shape[1]):
        rows = []
        for number, word in enumerate(("seen", f"expected {(k + 1) * step:.1f} s ahead")):
            images = [cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
                      for image in piece.images[number, k]]
            bar = np.zeros((SIDE, BAR, 3), np.uint8)
            bar[SIDE - round(SIDE * float(np.clip(piece.closeness[number, k], 0, 1))) :] = (80, 200, 120)
            line = np.zeros((TEXT, SIDE * len(images) + BAR, 3), np.uint8)
            cv2.putText(line, f"{word}: {name}", (4, TEXT - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1)
            rows += [line, np.concatenate([*images, bar], axis=1)]
        frames.append(np.concatenate(rows))
    return np.stack(frames)
