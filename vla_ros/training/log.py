"""Figures of a run: lines on the terminal, metrics.jsonl, TensorBoard."""

import json
import time
from pathlib import Path

from vla_ros.core.errors import InputError


class Log:
    """Writes figures by step. After a resume, what was logged beyond the resumed step is dropped.

    Args:
        output: the run's folder; `metrics.jsonl` and `tensorboard/` go there.
        steps: of the whole run, for the estimate of the time left.
        first: step that the run starts or resumes at.
    """

    def __init__(self, output: Path, steps: int, first: int, tensorboard: bool = True) -> None:
        self.steps, self.first = steps, first
        self.began = time.monotonic()
        file = output / "metrics.jsonl"
        kept = []
        if first and file.is_file():
            kept = [line for line in file.read_text().splitlines() if json.loads(line)["step"] <= first]
        try:
            file.write_text("".join(line + "\n" for line in kept))
            self._file = file.open("a", buffering=1)
        except OSError as error:
            raise InputError(f"log {file}: {error.strerror}") from error
        self._board = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(output / "tensorboard"), purge_step=first or None)

    def add(self, step: int, figures: dict[str, float]) -> None:
        """`figures` after `step` steps."""
        self._file.write(json.dumps({"step": step, **figures}) + "\n")
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(name, value, step)
        elapsed = time.monotonic() - self.began
        rate = (step - self.first) / elapsed if elapsed > 0 else 0.0
        left = (self.steps - step) / rate if rate > 0 else 0.0
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        print(f"step {step}/{self.steps}  {shown}  {rate:.2f} steps/s  {_clock(left)} left", flush=True)

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
