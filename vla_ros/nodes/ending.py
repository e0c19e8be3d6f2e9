"""What asks a node's process to end: signals, and the end of the program that started it."""

import os
import select
import signal
import threading

from rclpy.task import Future

from vla_ros.core.signals import StopSignals, taken
from vla_ros.core.text import say

# Environment variables that say which program the process ends with; one that is started by hand has neither.
PARENT_PIPE = "VLA_ROS_PARENT_PIPE"  # a file descriptor that closes when that program is gone
PARENT_PID = "VLA_ROS_PARENT_PID"  # its process, where it cannot pass a descriptor on, as a launch file
LEFT_ALONE = 60.0  # s to end in, where the program is gone that would kill a process which hangs


def watch(stop: "Future[str]") -> None:
    """Sets `stop` from a thread when a signal arrives or the program that started this one is gone.

    A third signal of one kind ends the process at once (see `StopSignals`), braking or not: that is for one that hangs.
    A Python signal handler alone would wait for the main thread, which sits in the middleware's wait.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    for number in taken():
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    parents = _parents()
    signals = StopSignals()

    def listen() -> None:
        patience = None
        while True:
            ready, _, _ = select.select([read_end, *parents], [], [], patience)
            if not ready:  # nobody is left to end a node that hangs, or that loads a policy for minutes
                os._exit(1)
            if read_end in ready:
                for number in os.read(read_end, 64):
                    if not stop.done():
                        stop.set_result(signal.Signals(number).name)
                    if signals.is_third(number):
                        os._exit(128 + number)
            if gone := [parent for parent in parents if parent in ready]:
                parents.remove(gone[0])
                patience = LEFT_ALONE
                if not stop.done():
                    stop.set_result("the program that started this node is gone")

    threading.Thread(target=listen, name="signals", daemon=True).start()


def _parents() -> list[int]:
    """File descriptors that can be read once a program that started this one, and whose end is ours, is gone."""
    descriptors = [int(os.environ[PARENT_PIPE])] if PARENT_PIPE in os.environ else []
    if PARENT_PID in os.environ and hasattr(os, "pidfd_open"):
        try:
            descriptors.append(os.pidfd_open(int(os.environ[PARENT_PID])))
        except ProcessLookupError:  # gone already: a pipe without a writer says the same
            ended, writer = os.pipe()
            os.close(writer)
            descriptors.append(ended)
        except OSError as error:
            say(f"[WARN] {PARENT_PID}: {error.strerror}: this node goes on when what started it is gone", error=True)
    return descriptors
