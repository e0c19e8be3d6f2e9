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

LAUNCHER = "VLA_ROS_LAUNCHER"  # the process of a launch file: it cannot pass a descriptor on, and the node ends with it
UNREACHABLE = "nobody can reach this process any more through its shared-memory port"
_LOOK_PERIOD = 2.0  # s between looks whether others can
LEFT_ALONE = 60.0  # s to end in, where the program is gone that would kill a process which hangs


def watch(stop: "Future[str]", parent: Parent) -> None:
    """Sets `stop` from a thread when a signal arrives or the program that started us is gone.

    A third signal of one kind ends the process at once (see `StopSignals`), braking or not: that is for one that hangs.
    A Python signal handler alone would wait for the main thread, which sits in the middleware's wait.
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
            if time.monotonic() > end:  # nobody is left to end a node that hangs, or that loads a policy for minutes
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
                    stop.set_result("the program that started this node is gone")

    threading.Thread(target=listen, name="signals", daemon=True).start()


def _launcher() -> int | None:
    """A file descriptor that can be read once the launcher is gone; None for a node that was started otherwise."""
    if LAUNCHER not in os.environ or not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(int(os.environ[LAUNCHER]))
    except ProcessLookupError:  # gone already: a pipe without a writer says the same
        ended, writer = os.pipe()
        os.close(writer)
        return ended
    except OSError as error:
        say(f"[WARN] {LAUNCHER}: {error.strerror}: this node goes on when its launch is killed", error=True)
        return None
