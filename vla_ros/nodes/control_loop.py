"""A thread that ticks on absolute deadlines, beside a node that spins."""

import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import Callable

_SWITCH_INTERVAL = 0.0001  # s; with the 5 ms of Python itself the spinning thread could make a tick late by as much
_LOCK_NOW_AND_LATER = 3  # MCL_CURRENT | MCL_FUTURE


class ControlLoop:
    """Calls `step(grid_ns, lateness)` once per period, from a thread of its own.

    The grid of deadlines is absolute: a late tick does not move the next one, and deadlines that have passed
    altogether are left out instead of being caught up in a burst. `grid_ns` is the deadline that the tick stands
    for (time.monotonic_ns), `lateness` how late the loop came to the deadline it was waiting for, s.
    """

    def __init__(self, period_ns: int, step: Callable[[int, float], None], failed: Callable[[Exception], None]) -> None:
        """`failed` is called from the thread when `step` raises; the loop is over then."""
        self.period_ns = period_ns
        self._step, self._failed = step, failed
        self._end = threading.Event()
        self._ready = threading.Event()
        self._priority = 0
        self._denied = ""
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self, priority: int = 0) -> str:
        """Begin. `priority` > 0 asks for SCHED_FIFO and locked memory; returns what was not granted, in words.

        The calling thread gets one less than the loop: it may hold the interpreter's lock when the loop needs it, so
        it must not wait for a processor behind ordinary processes.
        """
        sys.setswitchinterval(_SWITCH_INTERVAL)
        gc.collect()
        gc.freeze()  # what is there now stays: later collections, which stop every thread, have little to look at
        self._priority = priority
        self._thread.start()
        self._ready.wait()
        if priority and not self._denied:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(max(priority - 1, 1)))
        return self._denied

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """No tick runs or begins after this returns."""
        self._end.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        if self._priority:
            self._denied = _ask_for_realtime(self._priority)
        self._ready.set()
        deadline = time.monotonic_ns() + self.period_ns
        try:
            while True:
                wait = deadline - time.monotonic_ns()
                if wait > 0:
                    time.sleep(wait * 1e-9)
                if self._end.is_set():
                    return
                late = max(time.monotonic_ns() - deadline, 0)
                grid = deadline + late // self.period_ns * self.period_ns
                self._step(grid, late * 1e-9)
                deadline = grid + self.period_ns
        except Exception as error:  # a thread dies silently: the node must hear of it
            self._failed(error)


def _ask_for_realtime(priority: int) -> str:
    """For the calling thread and the process's memory. Returns what was refused, in words."""
    denied = []
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except OSError as error:
        denied.append(f"SCHED_FIFO priority {priority}: {error.strerror} (needs an rtprio limit or CAP_SYS_NICE)")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_LOCK_NOW_AND_LATER) != 0:
        text = os.strerror(ctypes.get_errno())
        denied.append(f"locking the memory: {text} (needs a memlock limit or CAP_IPC_LOCK)")
    return "; ".join(denied)
