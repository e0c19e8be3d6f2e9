"""Make docs/top.svg of what `vla-ros top` shows of the graph that runs now.

    python scripts/top_picture.py
"""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parents[1] / "docs" / "top.svg"
COLUMNS, ROWS = 112, 40


def main() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color"}
    top = subprocess.Popen(["vla-ros", "top", "--duration", "8"], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 65536):
            said += piece
    except OSError:  # the other side is closed
        pass
    top.wait()
    frames = re.split(r"(?:\r|\x1b\[2K|\x1b\[1A){3,}", said.decode())  # the cursor goes up before each frame
    frame = [piece for piece in frames if "joint" in piece][-1]
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi(re.sub(r"\x1b\[\?25[lh]", "", frame).replace("\r", "")))
    PICTURE.write_text(console.export_svg(title="vla-ros top"), encoding="utf-8")


if __name__ == "__main__":
    main()
