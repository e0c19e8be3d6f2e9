"""A thread that ticks on absolute deadlines, beside a node that spins."""

import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import Callable

# The interpreter's lock: a thread that waits for it gets it after this time, s.
# while the loop sleeps; with Python's default of 5 ms the node's thread could delay a tick by as much
_WAITING = 0.0001
_TICKING = 0.005  # during a tick, so that the node's thread does not take the lock in the middle of it
# The loop takes the lock this long before a deadline and waits the rest with it, ns. If the node's thread holds the
# lock, for instance in the middleware, this hides most of the wait; it costs at most this share of a processor.
_EARLY = 250_000
_LARGEST_SHARE = 0.25  # of a period
_LOCK_NOW_AND_LATER = 3  # MCL_CURRENT | MCL_FUTURE


class ControlLoop:
    """Calls `step(grid_ns, lateness)` once per period, from a thread of its own.

    The grid of deadlines is absolute: a late tick does not move the next one, and missed deadlines are skipped instead
    of being made up for in a burst. `grid_ns` is the deadline of the tick (time.monotonic_ns), `lateness` is how late
    the loop was for the deadline that it waited for, s.
    """

    def __init__(self, period_ns: int, step: Callable[[int, float], None], failed: Callable[[Exception], None]) -> None:
        """`failed` is called from the thread when `step` raises, which ends the loop."""
        self.period_ns = period_ns
        self._step, self._failed = step, failed
        self._end = threading.Event()
        self._ready = threading.Event()
        self._priority = 0
        self._denied = ""
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self, priority: int = 0) -> str:
        """Begin. `priority` > 0 asks for SCHED_FIFO and locked memory; returns what was not granted, in words.

        All other threads of the process get one priority less: the node's thread may hold the interpreter's lock when
        the loop needs it, and the middleware's threads may hold locks that the node's thread needs, so none of them
        may wait for a processor behind ordinary processes.
        """
        sys.setswitchinterval(_WAITING)
        gc.collect()
        gc.freeze()  # existing objects are exempted, so that later collections, which stop every thread, are short
        self._priority = priority
        self._thread.start()
        self._ready.wait()
        if priority and not self._denied:
            for thread in map(int, os.listdir("/proc/self/task")):
                if thread != self._thread.native_id:
                    _set_priority(thread, max(priority - 1, 1))
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
            self._denied = ask_for_realtime(self._priority)
        self._ready.set()
        early = min(_EARLY, int(_LARGEST_SHARE * self.period_ns))
        deadline = time.monotonic_ns() + self.period_ns
        try:
            while True:
                sys.setswitchinterval(_WAITING)
                wait = deadline - early - time.monotonic_ns()
                if wait > 0:
                    time.sleep(wait * 1e-9)
                if self._end.is_set():
                    return
                sys.setswitchinterval(_TICKING)
                while (late := time.monotonic_ns() - deadline) < 0:
                    continue
                grid = deadline + late // self.period_ns * self.period_ns
                self._step(grid, late * 1e-9)
                deadline = grid + self.period_ns
        except Exception as error:  # the end of a thread is not noticed otherwise
            self._failed(error)


def ask_for_realtime(priority: int) -> str:
    """SCHED_FIFO for the calling thread, locked memory for the process. Returns what was refused, in words."""
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


def _set_priority(thread: int, priority: int) -> None:
    try:
        os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(priority))
    except ProcessLookupError:
        return  # it ended meanwhile
