"""Where the time of an inference goes: CUDA events on a GPU, the wall clock on a CPU."""

import time

import torch


class StageTimer:
    """Marks the borders between stages without waiting for the device.

    On a GPU each mark is an event in the stream; reading them is right only after the results were fetched,
    which waits for the device once.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list = []

    def mark(self) -> None:
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """s between one mark and the next."""
        pairs = zip(self._marks, self._marks[1:], strict=False)
        if self._cuda:
            return [before.elapsed_time(after) / 1e3 for before, after in pairs]
        return [after - before for before, after in pairs]
