"""Figures of a run: lines and a progress bar on the terminal, metrics.jsonl, TensorBoard."""

import json
import math
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from vla_ros.core.errors import InputError
from vla_ros.core.terminal import Terminal, progress


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


class Log:
    """Writes figures by step. After a resume, entries after the resumed step are dropped.

    Args:
        output: the run's folder; `metrics.jsonl` and `tensorboard/` go there.
        steps: of the whole run, for the estimate of the time left.
        first: step that the run starts or resumes at.
    """

    def __init__(self, output: Path, steps: int, first: int) -> None:
        self.steps = steps
        file = output / "metrics.jsonl"
        kept = []
        if first and file.is_file():
            lines = file.read_text(errors="replace").splitlines()
            kept = [line for line in lines if _step(line) <= first]  # the last one may be cut off
        try:
            file.write_text("".join(line + "\n" for line in kept))
            self._file = file.open("a", buffering=1)
        except OSError as error:
            raise InputError(f"log {file}: {error.strerror}") from error
        from tensorboardX import SummaryWriter

        # TensorBoard drops the figures of this step, too.
        self._board = SummaryWriter(str(output / "tensorboard"), purge_step=first + 1 if first else None)
        columns = ("training", BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        console = Terminal()
        self._progress = progress(*columns, console=console, speed_estimate_period=300, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=steps, completed=first)
        self._progress.start()

    def add(self, step: int, figures: dict[str, float]) -> None:
        """`figures` after `step` steps."""
        self._file.write(json.dumps({"step": step, **figures}) + "\n")
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        remaining = TimeRemainingColumn().render(self._progress.tasks[0])
        line = f"step {step}/{self.steps}  {shown}  {remaining} left"
        self._progress.console.print(line, soft_wrap=True)

    def advance(self) -> None:
        """A step is done."""
        self._progress.advance(self._task)

    def close(self) -> None:
        self._progress.stop()
        self._file.close()
        self._board.close()


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.2f} steps/s")
