"""vla_ros: vision-language-action policies on ROS 2 robots.

The generated messages (`vla_ros.msg`, `vla_ros.action`) are in the colcon install, this code may be in a source tree:
extending `__path__` makes both available under one name.
"""

import os
import signal
import sys
from collections.abc import Mapping
from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"


def without_working_directory(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process that must not import from the working directory, which may be a downloaded folder.

    Python then does not search it for modules (an empty element of PYTHONPATH would mean it), and Fast DDS does not
    read a profile from it; FASTDDS_DEFAULT_PROFILES_FILE names the profile to use.
    """
    named = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    safe = {"PYTHONPATH": os.pathsep.join(named), "PYTHONSAFEPATH": "1", "SKIP_DEFAULT_XML_FILE": "1"}
    return {**environment, **safe}


def _say_what_to_install(kind: type, error: BaseException, trace: object) -> None:
    """Replace the traceback of a missing package by one line."""
    from vla_ros.core.missing import what_to_install
    from vla_ros.core.text import say

    missing = what_to_install(error)
    if missing:
        say(f"[ERROR] {missing}", error=True)
    else:
        sys.__excepthook__(kind, error, trace)


def _begin_program() -> None:
    """The same for this process, if it runs one of our programs and not a program that uses the package.

    If it is interrupted while it is still importing (torch takes seconds), it ends without a traceback. Once all is
    imported, `cli.main` and `nodes.base.spin_node` take the signal.
    """
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    is_module = program == "-m" and any(word.startswith(f"{__name__}.") for word in sys.orig_argv)
    if not (is_module or program == "vla-ros" or program.endswith("_node")):
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.excepthook = _say_what_to_install
    named = os.environ["PYTHONPATH"].split(os.pathsep) if os.environ.get("PYTHONPATH") else []
    os.environ.update(without_working_directory(os.environ))
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if is_module and not sys.flags.safe_path and sys.path[0] not in (home, *named):
        del sys.path[0]
    if "" in named and os.path.exists(os.curdir) and (here := os.getcwd()) not in (home, *named):
        sys.path[:] = [folder for folder in sys.path if folder != here]


_begin_program()
