"""Requests to end a node's process: signals, and the end of the program that started it."""

import math
import os
import select
import signal
import threading
import time

from rclpy.task import Future

from vla_ros.core.signals import StopSignals, taken
from vla_ros.core.text import say
from vla_ros.nodes.parent import Parent
from vla_ros.nodes.shared_memory import lost_port

# process id of a launch file's process, which cannot pass a descriptor on; the node ends with it
LAUNCHER = "VLA_ROS_LAUNCHER"
UNREACHABLE = "no process can reach this one any more through its shared-memory port"
_LOOK_PERIOD = 2.0  # s between checks of the port
LEFT_ALONE = 60.0  # s to end in, if the program is gone that would kill a process that hangs


def watch(stop: "Future[str]", parent: Parent) -> None:
    """Set `stop` from a thread when a signal arrives or the program that started this node has ended.

    A third signal of one kind ends the process at once (see `StopSignals`), even while it brakes, in case it hangs. A
    plain Python signal handler would wait for the main thread, which is blocked in the middleware.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    for number in taken():
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signals = StopSignals()
    sources = [source for source in (parent.descriptor, _launcher()) if source is not None]

    def listen() -> None:
        end = math.inf
        while True:
            ready, _, _ = select.select([read_end, *sources], [], [], _LOOK_PERIOD)
            if time.monotonic() > end:  # no program is left to end a node that hangs or loads a policy for minutes
                os._exit(1)
            if not stop.done() and (port := lost_port()):
                stop.set_result(f"{UNREACHABLE} {port}")
            if read_end in ready:
                for number in os.read(read_end, 64):
                    if not stop.done():
                        stop.set_result(signal.Signals(number).name)
                    if signals.is_third(number):
                        os._exit(128 + number)
            for source in [source for source in sources if source in ready]:
                if source == parent.descriptor and parent.read():
                    continue
                sources.remove(source)
                end = time.monotonic() + LEFT_ALONE
                if not stop.done():
                    stop.set_result("the program that started this node has ended")

    threading.Thread(target=listen, name="signals", daemon=True).start()


def _launcher() -> int | None:
    """A file descriptor that becomes readable when the launcher has ended; None for a node that was started
    otherwise."""
    if LAUNCHER not in os.environ or not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(int(os.environ[LAUNCHER]))
    except ProcessLookupError:  # it has ended already: a pipe without a writer is readable too
        ended, writer = os.pipe()
        os.close(writer)
        return ended
    except OSError as error:
        say(f"[WARN] {LAUNCHER}: {error.strerror}: this node continues if its launch is killed", error=True)
        return None
