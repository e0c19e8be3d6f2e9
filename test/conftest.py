"""Settings that every test shares."""

import gc
import os
import signal

# Two threads more or less must not change a result, and the machine that runs the tests has few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("MUJOCO_GL", "egl")
if not os.path.exists("/dev/nvidiactl"):
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported first
os.environ.setdefault("VLA_ROS_ENGINE", "torch")  # `auto` would convert each policy that a test makes
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

# Processes of one domain share the names of their ports: each worker of a parallel run has ten domains of its own.
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
os.environ.setdefault("ROS_DOMAIN_ID", str(40 + 10 * (_worker % 6)))

# Started by nohup it would be ignored here, and by every node that a test starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None)
settings.load_profile("ci")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU, saying so, where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU: torch.cuda.is_available() is False"))


def pytest_collection_finish() -> None:
    """What was imported for all tests stays: each later collection, some at the very end, would look at it in vain."""
    gc.freeze()
