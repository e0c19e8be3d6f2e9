"""Run the commands of README and docs, and print what became of each block.

    python benchmarks/doc_commands.py                      all pages, half an hour
    python benchmarks/doc_commands.py README.md docs/bags.md

Each page has a clean folder, in which its blocks run one after another, with small numbers (SHRUNK) and the simulated
SO-101 as the robot. A command that does not end by itself runs beside those behind it in its block, until Ctrl-C; robot
and `vla-ros run` until the end of the page. How blocks are marked: `doc_blocks.py`. The exit status is 1 where a block
failed.
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import yaml
from doc_blocks import ROOT, Block, blocks, lines_of, pages

from vla_ros.cli.demo import CHECKPOINT
from vla_ros.graph.domains import private_domain
from vla_ros.sim.description import urdf
from vla_ros.sim.world import World

# Put behind a command that begins so: of an option that is given twice the last one counts.
SHRUNK = {
    "vla-ros demo": "--instructions 'touch the red cube' --lockstep",
    "vla-ros demos": "--episodes 3",
    "vla-ros train": "--steps 2 --threads 1",
    "vla-ros eval": "--layouts 1 --time-limit 1",
    "vla-ros bench": "--runs 1 --threads 1 --no-peers",
    "vla-ros replay": "--every 20 --min-seconds 0.2 --max-gap 60 --max-command-gap 60",
    "vla-ros dataset build": "--skip-bad --min-seconds 0.2 --max-gap 60 --max-command-gap 60",
    "vla-ros run": "--params patient.yaml",
    "vla-ros say": "--wait 120",
    "vla-ros e-stop": "--wait 120",
    "vla-ros task": "--wait 120 --time-limit 5 --success-topic sim_node/success",
    "vla-ros top": "--duration 3",
    "vla-ros robot new": "--wait 2",
    "python benchmarks/adversary.py": "--ticks 2000 --workers 1",
    "python benchmarks/executor_lateness.py": "--seconds 3 --rates 100",
    "python benchmarks/e_stop_latency.py": "--presses 2",
    "python benchmarks/camera_to_command.py": "--seconds 5",
    "python benchmarks/tick_cost.py": "--ticks 20",
    "python benchmarks/expert.py": "--layouts 1",
    "python benchmarks/in_process.py": "--layouts 1 --tasks touch",
    "python benchmarks/latency_sweep.py": "--layouts 1 --delays 0 --tasks touch --time-limit 1",
    "python benchmarks/soak.py": "--minutes 0.2",
    "python benchmarks/watching.py": "--layouts 1 --tasks touch --time-limit 1",
}
# What ends with Ctrl-C alone, and what it says once it is ready; None: others wait for it.
ENDLESS = {"vla-ros run": "running; logs in", "vla-ros record": "recording to", "vla-ros serve": "serving at",
           "vla-ros console": "http",
           "python -P -m vla_ros.nodes.sim_node": None}  # fmt: skip
ROBOT_FILE = ROOT / "config/robots/so101.yaml"
ROBOT = "python -P -m vla_ros.nodes.sim_node --ros-args -p robot:=config/robots/so101.yaml"
RUN = "vla-ros run --robot so101 --policy CHECKPOINT"
# Nothing here is about how fresh images and joint states are on a machine that does other work.
PATIENT = {
    "/**/policy_node": {"ros__parameters": {"max_age": 60.0}},
    "/**/executor_node": {"ros__parameters": {"joint_state_timeout": 10.0, "following_limit": 0.0,
                                              "overrun_limit": 10.0}},
}  # fmt: skip
# A task that its time limit ends and a check that finds something say 1: a busy machine is slower than its robot.
MAY_SAY_1 = ("vla-ros task ", "vla-ros doctor ")
LINKS = ("config", "docs", "benchmarks", "vla_ros", "requirements")
_PATIENCE = 300.0  # s for a command; never how long one takes


Running = tuple[subprocess.Popen, str, Path]  # its line, and the file of what it says


class CommandError(Exception):
    """A command of a page failed; the text holds it and the end of what it said."""


class Page:
    """The commands of one page, run in `folder`, on a ROS domain of their own; as a context, which ends all of them."""

    def __init__(self, folder: Path, domain: int) -> None:
        self.folder = folder
        self._running: list[Running] = []  # of this block
        self._kept: dict[str, Running] = {}  # ROBOT and RUN, or what the page has in their place
        self.environment = os.environ | {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        for name in LINKS:
            (folder / name).symlink_to(ROOT / name)
        for name in ("CHECKPOINT", "OLD", "NEW"):
            (folder / name).symlink_to(CHECKPOINT)
        shutil.copy(ROBOT_FILE, folder / "my_robot.yaml")
        shutil.copy(ROOT / "config/train/fine_tune.yaml", folder / "my.yaml")
        (folder / "patient.yaml").write_text(yaml.safe_dump(PATIENT))
        for name in ("my_robot", "my_arm"):
            (folder / f"{name}.urdf").write_text(urdf(World().model, name), encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        try:
            while kind is None and self._kept:
                self._end(self._kept.popitem()[1])  # `vla-ros run` before its robot
        finally:
            for process, _, _ in [*self._running, *self._kept.values()]:
                _kill(process)

    def run(self, block: Block) -> None:
        """Raises CommandError."""
        lines = lines_of(block.text)
        wanted = {"the robot": [ROBOT], "vla-ros run": [ROBOT, RUN]}.get(block.beside, [])
        for line in [line for line in wanted if kept(line) not in self._kept] + lines:
            if endless(line) is None:
                self._finish(line)
            elif name := kept(line):
                if name in self._kept:
                    self._end(self._kept.pop(name))
                self._kept[name] = self._start(line)
            else:
                self._running.append(self._start(line))
        while self._running:
            self._end(self._running.pop())

    def _end(self, running: "Running") -> None:
        process, line, log = running
        os.killpg(process.pid, signal.SIGINT)
        try:
            status = process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            status = _kill(process)
        if status:
            raise CommandError(f"{line}: status {status} after Ctrl-C\n{log.read_text()[-2000:]}")

    def _popen(self, line: str, log: Path) -> subprocess.Popen:
        """Variables that a line sets are there for those behind it."""
        script = f"[ ! -e .variables ] || . ./.variables\nset -eoa pipefail; {shrunk(line)}\nexport -p >.variables"
        if endless(line) is not None:
            script = f"exec {shrunk(line)}"
        with log.open("w") as output:
            return subprocess.Popen(["bash", "-c", script], cwd=self.folder, env=self.environment, stdout=output,
                                    stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True)

    def _finish(self, line: str) -> None:
        log = self.folder / "output.log"
        written = self.folder / line.split("#")[0].split()[-1] if line.startswith("vla-ros robot new") else None
        if written:
            written.unlink(missing_ok=True)
        process = self._popen(line, log)
        try:
            status = process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            status = _kill(process)
        if status and not (status == 1 and line.startswith(MAY_SAY_1)):
            raise CommandError(f"{shrunk(line)}: status {status}\n{log.read_text()[-2000:]}")
        if written:  # what a person fills in
            shutil.copy(ROBOT_FILE, written)

    def _start(self, line: str) -> "Running":
        log = self.folder / f"endless{len(list(self.folder.glob('endless*.log')))}.log"
        process = self._popen(line, log)
        deadline = time.monotonic() + _PATIENCE
        while (words := endless(line)) and words not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                _kill(process)
                raise CommandError(f"{line}: did not say {words!r}\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        return process, line, log


def _kill(process: subprocess.Popen) -> int:
    """With what it started; its exit status."""
    with suppress(ProcessLookupError):  # it has ended by itself, and nothing of it is left
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def endless(line: str) -> str | None:
    """What it says once it is ready ("" for nothing) where it ends with Ctrl-C alone, else None."""
    return next((words or "" for start, words in ENDLESS.items() if line.split("#")[0].startswith(f"{start} ")), None)


def kept(line: str) -> str:
    """Which of ROBOT and RUN a line is, or ""."""
    return next((name for name in (ROBOT, RUN) if line.startswith(name.partition(" --")[0])), "")


def shrunk(line: str) -> str:
    """The line with small numbers."""
    if line.startswith("make "):
        target, _, given = line.removeprefix("make ").partition(" ARGS=")
        given = given.strip('"')
        output = f"--output $PWD/demo{given.replace(' ', '')} {SHRUNK['vla-ros demo']} {given}"
        return f'make -C {shlex.quote(str(ROOT))} {target} ARGS="{output}"'
    extra = next((extra for start, extra in SHRUNK.items() if f"{line} ".startswith(f"{start} ")), "")
    if line.startswith("vla-ros replay") and "--policy" not in line:
        extra = ""
    return f"{line} {extra}"


def _blocks(page: Page, path: Path) -> int:
    """Run those of a page, and print what became of each; how many failed."""
    failed = 0
    for block in blocks(path):
        if block.mark is None:
            continue
        if not block.run:
            print(f"{block.name}\t{block.mark}", flush=True)
            continue
        began = time.monotonic()
        try:
            page.run(block)
            said = "ran"
        except CommandError as error:
            said, failed = f"FAILED: {error}", failed + 1
        print(f"{block.name}\t{time.monotonic() - began:.0f} s\t{said}", flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, help="these alone")
    chosen = [path.resolve() for path in parser.parse_args().pages] or pages()
    failed = 0
    for path in chosen:
        with tempfile.TemporaryDirectory() as folder:
            try:
                with Page(Path(folder), private_domain()) as page:
                    failed += _blocks(page, path)
            except CommandError as error:  # robot and policy, which run until its end
                print(f"{path.name}\tFAILED at its end: {error}", flush=True)
                failed += 1
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
