"""Packages outside of vla_ros, installed as pip does it, without a network."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def installed(source: Path, folder: Path) -> Iterator[dict[str, str]]:
    """On the path of this process meanwhile; gives the environment in which child processes find the package too."""
    folder.mkdir(exist_ok=True)
    copy, target = folder / "source", folder / "site"
    shutil.copytree(source, copy)  # pip leaves build files beside the sources
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--target", str(target), str(copy)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sys.path.insert(0, str(target))
    try:
        yield {"PYTHONPATH": f"{target}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    finally:
        sys.path.remove(str(target))
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(str(target)):
                del sys.modules[name]
