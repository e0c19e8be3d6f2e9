"""Write one executable per entry point of pyproject.toml, where `ros2 run` looks for them.

Usage: make_executables.py PYPROJECT FOLDER
"""

import sys
import tomllib
from pathlib import Path

TEMPLATE = """#!/usr/bin/env python3
import sys

from {module} import {function}

if __name__ == "__main__":  # processes of a pool import this file again
    sys.exit({function}())
"""


def main(pyproject: Path, folder: Path) -> None:
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in project["scripts"].items():
        module, function = target.split(":")
        path = folder / name
        path.write_text(TEMPLATE.format(module=module, function=function), encoding="utf-8")
        path.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
