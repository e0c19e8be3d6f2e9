"""README's commands, from the robot file to a recorded bag, on one simulated robot, as they stand there.

`make demo` is in `test_demo.py`, the dry run in `test_run.py`, what is made of a bag in `test_loop.py`;
`benchmarks/doc_commands.py` runs them and the other pages too.
"""

from pathlib import Path

from doc_blocks import ROOT, blocks
from doc_commands import Page
from system.support import free_domain

ELSEWHERE = ("make demo", "--dry-run", "vla-ros dataset build")


def test_the_commands_of_the_readme(tmp_path: Path):
    chosen = [block for block in blocks(ROOT / "README.md")
              if block.run and not any(words in block.text for words in ELSEWHERE)]  # fmt: skip
    with Page(tmp_path, free_domain()) as page:
        for block in chosen:
            page.run(block)
    assert len(chosen) == 4 and (tmp_path / "my_bag/metadata.yaml").is_file()
