"""Show what is in a bag, or recover one that is damaged or incomplete.

    vla-ros bag show BAG
    vla-ros bag repair BAG [-o NEW]
"""

import argparse

from rich.progress import BarColumn, TimeRemainingColumn
from rich.table import Table

from vla_ros.bags.repair import repair
from vla_ros.bags.summary import summarise
from vla_ros.cli import options
from vla_ros.core.terminal import Terminal, progress
from vla_ros.core.text import say


def arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True)
    show = commands.add_parser("show", help="show topics, counts, rates and gaps")
    show.add_argument("bag", help="folder, .mcap or .db3 file")
    fix = commands.add_parser("repair", help="copy everything readable of a damaged bag into a new, complete one")
    fix.add_argument("bag", help="folder, .mcap or .db3 file; it is not changed")
    options.output(fix, "new folder (default: BAG_repaired)")


def main(args: argparse.Namespace) -> int:
    return {"show": _show, "repair": _repair}[args.action](args)


def _show(args: argparse.Namespace) -> int:
    bag, topics, verdicts = summarise(args.bag)
    table = Table(
        title=f"{bag.path}: {bag.message_count} messages, {(bag.end_ns - bag.start_ns) / 1e9:.3f} s "
        f"from {bag.start_ns / 1e9:.3f}",
        title_justify="left",
    )
    for name in ("topic", "type", "count", "Hz", "MB", "longest gap", "notes"):
        table.add_column(name, justify="left" if name in ("topic", "type", "notes") else "right", overflow="fold")
    for topic in topics:
        notes = [f"{topic.lost} lost"] if topic.lost else []
        notes += ["not decoded"] if bag.topics.get(topic.name) and bag.topics[topic.name].problem else []
        if topic.backwards:
            notes.append(f"{topic.backwards} stamps out of order")
        gap, at = topic.gap
        gap = f"{gap / 1e9:.3f} s at {bag.when(at).split(' (')[0]}" if gap else ""
        numbers = (str(len(topic.stamps)), f"{topic.rate:.2f}", f"{topic.size / 1e6:.1f}")
        table.add_row(topic.name, topic.type, *numbers, gap, ", ".join(notes))
    console = Terminal()
    console.print(table)
    for said in verdicts:
        text = repr(said.instruction) if said.instruction else "the instruction in force"
        console.print(f"{bag.when(said.ns).split(' (')[0]}: {text}: {said}", soft_wrap=True)
    for note in bag.notes:
        console.print(note, soft_wrap=True)
    for key, value in sorted(bag.custom.items()):
        console.print(f"{key}: {value}")
    return 0


def _repair(args: argparse.Namespace) -> int:
    columns = ("repairing", BarColumn(), "{task.percentage:.0f} %", TimeRemainingColumn())
    with progress(*columns, transient=True) as bar:
        task = bar.add_task("repair", total=None)
        report = repair(args.bag, args.output, lambda done, total: bar.update(task, completed=done, total=total))
    for file, reason in report.broken.items():
        say(f"{file}: {reason}")
    for topic, note in sorted(report.notes.items()):
        say(f"{topic}: {note}")
    if not report.broken:
        say("every file could be read to its end")
    for topic, count in sorted(report.counts.items()):
        say(f"{count:8d}  {topic}")
    say(f"{report.messages} messages in {report.output}")
    return 0
