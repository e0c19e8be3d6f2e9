"""Processes that work for this one over their standard input and output."""

import subprocess
from contextlib import suppress


def end(process: subprocess.Popen, patience: float) -> None:
    """Close its standard input, with which it ends; one that has not ended after `patience` s is killed."""
    with suppress(OSError):  # it has ended already, with something unread
        process.stdin.close()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
