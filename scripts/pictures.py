"""Make the pictures of the docs with the product itself, one by one:

    python scripts/pictures.py cameras                   what the simulated robot's cameras see
    python scripts/pictures.py room                      the same of the one on wheels
    python scripts/pictures.py bench                     the same of the arm at its workbench
    python scripts/pictures.py dataset DATASET           some frames of two episodes, as `vla-ros dataset show` has them
    python scripts/pictures.py training RUN              losses of a training run
    python scripts/pictures.py top DEMO                  `vla-ros top` in the middle of a recorded demo
    python scripts/pictures.py markers DEMO              what marker_node publishes in the middle of one
    python scripts/pictures.py plots                     trajectories, a takeover, rights: see plots.py
    python scripts/pictures.py output NAME COMMAND ...   what a command prints, run in /; with --seconds until Ctrl-C

DEMO is the folder of a `vla-ros demo`. Each goes to docs/, as a PNG of few colours or as an SVG; above 80 kB is an
error.
"""

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Group
from rich.text import Text

from vla_ros.core.terminal import Terminal

DOCS = Path(__file__).parents[1] / "docs"
LARGEST, COLOURS, WIDTH = 80_000, 96, 130  # bytes, of a PNG's palette, characters of a terminal
TILE = (320, 240)  # pixels


def write(name: str, data: bytes) -> None:
    if len(data) > LARGEST:
        sys.exit(f"{name}: {len(data)} bytes, expected at most {LARGEST}")
    (DOCS / name).write_bytes(data)
    print(f"docs/{name}: {len(data) / 1000:.0f} kB")


def png(name: str, picture: Image.Image) -> None:
    held = BytesIO()
    picture.convert("RGB").quantize(COLOURS, kmeans=1, dither=Image.Dither.NONE).save(held, "PNG", optimize=True)
    write(name, held.getvalue())


def plot(name: str, figure: Any) -> None:
    held = BytesIO()
    figure.savefig(held, dpi=110, bbox_inches="tight")
    png(name, Image.open(held))


def svg(name: str, title: str, *shown: Any) -> None:
    """As a terminal shows it; the fonts are the reader's own."""
    console = Terminal(record=True, width=WIDTH, file=StringIO(), force_terminal=True)
    console.print(Group(*shown))
    form = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    write(name, console.export_svg(title=title, code_format=form).replace("Fira Code, ", "").encode())


def cameras(args: argparse.Namespace) -> None:
    from vla_ros.sim.world import World

    world = World()
    world.reset(seed=3)
    png("cameras.png", Image.fromarray(np.concatenate([world.render(name, *TILE) for name in world.cameras], axis=1)))


def room(args: argparse.Namespace) -> None:
    from vla_ros.sim.room_world import RoomWorld

    world = RoomWorld(4)
    views = [world.render(name, *TILE) for name in ("front", "left", "back")]
    png("room.png", Image.fromarray(np.concatenate(views, axis=1)))


def bench(args: argparse.Namespace) -> None:
    from vla_ros.sim.bench_world import Bench
    from vla_ros.sim.variation import WHAT, Variation

    world = Bench(3)
    views = [world.render(name, *TILE) for name in world.cameras]
    Variation(world, WHAT).apply(1)
    world.reset(4)
    png("bench.png", Image.fromarray(np.concatenate([*views, world.render("front", *TILE)], axis=1)))


def dataset(args: argparse.Namespace) -> None:
    from tempfile import TemporaryDirectory

    from vla_ros.datasets.contact_sheet import contact_sheet
    from vla_ros.datasets.lerobot import Dataset

    with TemporaryDirectory() as folder:
        contact_sheet(Dataset(args.dataset), Path(folder) / "sheet.png", episodes=2)
        png("dataset.png", Image.open(Path(folder) / "sheet.png"))


def training(args: argparse.Namespace) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [json.loads(line) for line in (args.run / "metrics.jsonl").read_text().splitlines()]
    figure, axis = pyplot.subplots(figsize=(7, 3.2))
    for name in args.figures:
        points = [(row["step"], row[name]) for row in rows if name in row]
        axis.semilogy(*zip(*points, strict=True), label=name, linewidth=1)
    axis.set_xlabel("step")
    axis.legend(frameon=False)
    axis.grid(alpha=0.2)
    plot("training.png", figure)


class Listener:
    """In place of the node that `Watch` and `Chunks` listen with: the messages are given to them from a bag."""

    node = property(lambda self: self)

    def __init__(self) -> None:
        self.takes = {}

    def create_subscription(self, kind: type, topic: str, take: Any, qos: Any) -> None:
        self.takes[f"/{topic}"] = take

    def count_publishers(self, topic: str) -> int:
        return 1


def top(args: argparse.Namespace) -> None:
    from vla_ros.bags.reader import Bag
    from vla_ros.cli.top import Chunks, view
    from vla_ros.graph.watch import Watch
    from vla_ros.messages.stamps import NS

    listener = Listener()
    watch, chunks = Watch(listener), Chunks(listener)
    with Bag(args.demo / "bag") as bag:
        records = [record for record in bag.records(list(listener.takes))]
        at = records[0].log_ns + round(args.at * NS)
        shift = time.monotonic() - at / NS
        real, time.monotonic = time.monotonic, lambda: now / NS + shift
        for record in records:
            now = record.log_ns
            if now > at:
                break
            listener.takes[record.topic](bag.decode(record))
        lines = view(watch, chunks)
        time.monotonic = real
    svg("top.svg", "vla-ros top", *lines)


def markers(args: argparse.Namespace) -> None:
    import plots

    plot("markers.png", plots.markers(args.demo, args.at))


def drawn(args: argparse.Namespace) -> None:
    import plots

    for name in ("trajectories", "takeover", "rights"):
        plot(f"{name}.png", getattr(plots, name)())


def output(args: argparse.Namespace) -> None:
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    process = subprocess.Popen(args.command, stdout=subprocess.PIPE, text=True, env=environment, cwd="/")
    if args.seconds:
        time.sleep(args.seconds)
        process.send_signal(signal.SIGINT)
    title, said = shlex.join(args.command), process.communicate()[0]
    for path in (word for word in args.command if word.startswith("/")):  # by its name alone
        title, said = title.replace(path, Path(path).name), said.replace(path, Path(path).name)
    svg(f"{args.name}.svg", title, Text.from_ansi(said), "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    kinds.add_parser("cameras").set_defaults(make=cameras)
    kinds.add_parser("room").set_defaults(make=room)
    kinds.add_parser("bench").set_defaults(make=bench)
    one = kinds.add_parser("dataset")
    one.add_argument("dataset", type=Path)
    one.set_defaults(make=dataset)
    one = kinds.add_parser("training")
    one.add_argument("run", type=Path)
    one.add_argument("--figures", nargs="+", default=["loss"])
    one.set_defaults(make=training)
    one = kinds.add_parser("top")
    one.add_argument("demo", type=Path)
    one.add_argument("--at", type=float, default=6.0, help="s after the first message")
    one.set_defaults(make=top)
    one = kinds.add_parser("markers")
    one.add_argument("demo", type=Path)
    one.add_argument("--at", type=float, default=2.0, help="s after the first message")
    one.set_defaults(make=markers)
    kinds.add_parser("plots").set_defaults(make=drawn)
    one = kinds.add_parser("output")
    one.add_argument("--seconds", type=float, default=0.0, help="until Ctrl-C (default: it ends by itself)")
    one.add_argument("name")
    one.add_argument("command", nargs=argparse.REMAINDER)
    one.set_defaults(make=output)
    args = parser.parse_args()
    args.make(args)


if __name__ == "__main__":
    main()
