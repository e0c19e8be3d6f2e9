"""Runs the parts of `measure.py` one after the other, each with a deadline; see run.sh. Standard library alone.

A worker measures part after part in one process. One that passes a part's deadline, or ends before its time, is
replaced by another that goes on behind that part: a hang, a crash or a full memory costs one part.
"""

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

WORKER = Path(__file__).with_name("measure.py")
# Name: seconds that it may take. The most wanted first.
PARTS = {
    "machine": 60, "gpu_tests": 120, "pi0_3": 60, "pi0_2": 45, "pi0_1": 45,
    "pi0_3_compiled": 120, "pi0_3_fused": 60, "pi0_3_peers": 60,
    "pi05": 60, "pi05_fused": 60, "smolvla": 45, "act": 45, "diffusion": 45, "groot": 60, "openvla": 60,
}  # fmt: skip
STARTING = 100  # s until a worker has imported what it needs
LIMIT = 440  # s for all of it
STOPS = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


class Stopped(Exception):
    """Somebody ended this run."""


class Report:
    """JSON lines, each written out at once."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(file, "w", encoding="utf-8")

    def say(self, **line: object) -> None:
        text = json.dumps(line, ensure_ascii=False)
        self._file.write(text + "\n")  # first: what was printed is in the file, whenever this ends
        self._file.flush()
        print(text, flush=True)


class Worker:
    """A process that measures; its lines, and None behind the last, are in `lines`."""

    def __init__(self, parts: list[str], options: list[str]) -> None:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), *options, *parts], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._log, text=True, start_new_session=True,
        )  # fmt: skip
        self.lines: queue.Queue = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def end(self) -> None:
        """With all that it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def last_words(self) -> str:
        self._log.seek(0)
        return next((line.strip() for line in reversed(self._log.readlines()) if line.strip()), "it said nothing")


def follow(worker: Worker, left: list[str], deadlines: dict[str, float], end: float, report: Report) -> list[str]:
    """Passes on what a worker says, until it ends or is late. Returns the parts that are left for another one.

    What is done is taken out of `left` at once, so that whoever interrupts this knows it.
    """
    many, part, until = len(left), None, min(end, time.monotonic() + STARTING)
    while left:
        try:
            line = worker.lines.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            if part is None and until < end:  # no worker would start
                raise Stopped(f"no start within {STARTING} s: {worker.last_words()}") from None
            if part is not None:
                late = until < end
                report.say(part=part, problem=f"not done within {deadlines[part]:g} s" if late else "out of time")
            return left[1:] if part else left
        if line is None:
            worker.process.wait()
            if part is None and len(left) != many:  # it asks for another worker
                return left
            report.say(part=left[0], problem=f"ended with {worker.process.returncode}: {worker.last_words()}")
            return left[1:]
        try:
            said = json.loads(line)
        except ValueError:  # a library's own words
            print(line, end="", file=sys.stderr)
            continue
        if "begin" in said:
            part, until = said["begin"], min(end, time.monotonic() + deadlines[said["begin"]])
        elif "done" in said:
            left.remove(said["done"])
            part, until = None, min(end, time.monotonic() + STARTING)
        else:
            report.say(**said)
    return left


def run(parts: list[str], deadlines: dict[str, float], limit: float, options: list[str], report: Report) -> bool:
    """Measures the parts that the limit in s leaves time for. Returns whether it was let to."""
    end, left, worker, why = time.monotonic() + limit, list(parts), None, "out of time"
    try:
        while left and time.monotonic() < end:
            worker = Worker(left, options)
            left = follow(worker, left, deadlines, end, report)
            worker.end()
    except Stopped as stop:
        why = str(stop)
    finally:
        if worker is not None:
            worker.end()
        for part in left:
            report.say(part=part, problem=f"not measured: {why}")
    return why == "out of time"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", nargs="?", type=Path, default=Path(os.environ.get("OUT", "runs/gpu")))
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, a few runs, on the CPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--limit", type=float, default=LIMIT, help="s, at most %(default)s")
    parser.add_argument("--part-limit", type=float, help="s for each part, in place of its own")
    args = parser.parse_args()

    def stop(number, frame):
        for other in STOPS:  # once is enough
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(f"ended by {signal.Signals(number).name}")

    start, report = time.monotonic(), Report(args.output / "gpu.jsonl")
    for number in STOPS:
        signal.signal(number, stop)
    deadlines = PARTS if args.part_limit is None else dict.fromkeys(PARTS, args.part_limit)
    options = ["--rehearse"] if args.rehearse else []
    whole = run(args.parts, deadlines, min(args.limit, LIMIT), options, report)
    report.say(part="end", seconds=round(time.monotonic() - start, 1))
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
