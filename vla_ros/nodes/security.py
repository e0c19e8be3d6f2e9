"""ROS 2 security (SROS2): reports what is missing before the middleware fails. See docs/security.md."""

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from rclpy.impl.implementation_singleton import rclpy_implementation

from vla_ros.core.errors import InputError
from vla_ros.core.text import say

ENCLAVES = "/vla_ros"  # the enclave of a node is this and its name
OVERRIDE = "ROS_SECURITY_ENCLAVE_OVERRIDE"  # takes precedence over --enclave, in every process that inherits it
_FILES = ("identity_ca.cert.pem", "cert.pem", "key.pem", "permissions_ca.cert.pem", "governance.p7s", "permissions.p7s")


def enclave_arguments(name: str) -> list[str]:
    """Arguments that put a process into the enclave `name` of the policy file; no effect without security."""
    return ["--ros-args", "--enclave", f"{ENCLAVES}/{name}"]


@contextmanager
def secured(args: Sequence[str] | None = None) -> Iterator[None]:
    """For `rclpy.init(args)` and the first node. Raises InputError if security lacks something or ROS refuses.

    If the strategy is not Enforce, ROS continues without security, and a line on standard error says so.
    """
    on = _is_on()
    lacking = _lacking(sys.argv if args is None else args) if on else ""
    if lacking and os.environ.get("ROS_SECURITY_STRATEGY") == "Enforce":
        raise InputError(lacking)
    if lacking:
        say(f"[WARN] without security, because ROS_SECURITY_STRATEGY is not Enforce: {lacking}", error=True)
    if on:
        warnings.filterwarnings("ignore", "Failed to fini rosout", RuntimeWarning)  # follows each error below
    try:
        yield
    except rclpy_implementation.UnknownROSArgsError as error:
        raise InputError(f"--ros-args: {error}: unknown") from None
    except rclpy_implementation.RCLError as error:
        words = " ".join(str(error).split(", at /")[0].split())
        what = "ROS_SECURITY_ENABLE is true, but no secured node can be made" if on else "ROS refuses to start"
        raise InputError(f"{what}: {words}") from None


def _is_on() -> bool:
    """Whether security is on. ROS takes unknown values as "off" and "Permissive"; here they are refused."""
    known = {"ROS_SECURITY_ENABLE": ("", "true", "false"), "ROS_SECURITY_STRATEGY": ("", "Enforce", "Permissive")}
    for name, values in known.items():
        value = os.environ.get(name, "")
        if value not in values:
            raise InputError(f"{name} {value!r}: expected {values[1]} or {values[2]}, exactly so")
    return os.environ.get("ROS_SECURITY_ENABLE") == "true"


def _lacking(args: Sequence[str]) -> str:
    """What the keystore lacks for the enclave of this process; "" if it is complete."""
    given = [value for flag, value in pairwise(args) if flag in ("-e", "--enclave")]
    enclave = os.environ.get(OVERRIDE) or (given[-1] if given else "/")
    keystore = os.environ.get("ROS_SECURITY_KEYSTORE", "")
    if not keystore:
        return "ROS_SECURITY_ENABLE is true and ROS_SECURITY_KEYSTORE is empty, expected the folder of a keystore"
    folder = Path(keystore, "enclaves", enclave.strip("/"))
    if enclave == "/" and not (folder / "cert.pem").is_file():
        return f"keystore {keystore}: no enclave given, expected --ros-args --enclave {ENCLAVES}/NODE, or {OVERRIDE}"
    if not folder.is_dir():
        return f"keystore {keystore}: no enclave {enclave}, expected the folder {folder} (ros2 security create_enclave)"
    files = {path.name.removesuffix(".p11") for path in folder.iterdir()}  # the key may be in a hardware module
    names = [name for name in _FILES if not {name, name.removesuffix(".pem")} & files]
    if names:
        return f"enclave {folder}: no {', '.join(names)}, expected the files of ros2 security create_enclave"
    return ""
