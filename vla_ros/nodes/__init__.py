"""Thin ROS 2 nodes: parameters, topics, nothing else (rclpy)."""

import signal
import sys
from pathlib import Path

# A program that is interrupted while it still imports (torch takes seconds) ends as any other program does, instead of
# with a traceback from somewhere inside. Once all is imported, `base.spin_node` takes the signals.
_MODULE = any(argument.startswith("vla_ros.nodes.") for argument in sys.orig_argv[1:])  # python -m
_PROGRAM = _MODULE or Path(sys.argv[0]).name.endswith("_node")
if _PROGRAM and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
