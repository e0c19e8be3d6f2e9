"""The blocks of README and docs, and what is to be done with those of commands.

A block of `bash` has a mark in the line above it:

    <!-- run -->
    <!-- run, beside the robot -->        where the simulated robot runs
    <!-- run, beside vla-ros run -->      where policy and executor run too
    <!-- not run: REASON -->

The other languages (`text`, `yaml`, `python`, `toml`) have none. `doc_commands.py` runs what is marked.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LANGUAGES = ("bash", "text", "yaml", "python", "toml")
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"^ *<!-- (run(?:, beside the robot|, beside vla-ros run)?|not run: .+) -->\n\Z", re.MULTILINE)
_SEPARATORS = re.compile(r"[&|;]+")


def pages(root: Path = ROOT) -> list[Path]:
    """README first."""
    names = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/RESULTS.md", "benchmarks/gpu/README.md")
    return [root / name for name in names if (root / name).exists()] + sorted(root.glob("docs/*.md"))


@dataclass(frozen=True)
class Block:
    """One block; `mark` is None where it has none."""

    page: Path
    line: int  # of its fence
    language: str
    text: str
    mark: str | None

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def run(self) -> bool:
        return self.mark is not None and self.mark.startswith("run")

    @property
    def beside(self) -> str:
        """What it needs on the graph: "the robot", "vla-ros run" (and the robot), or nothing."""
        return self.mark.partition("beside ")[2] if self.run else ""


def blocks(page: Path) -> Iterator[Block]:
    """Those of a page, from top to bottom."""
    text = page.read_text(encoding="utf-8")
    for fence in _FENCE.finditer(text):
        before = text[: fence.start()]
        mark = _MARK.search(before[before.rfind("\n", 0, -1) + 1 :])
        lines = [line.removeprefix(fence[1]) for line in fence[3].splitlines()]
        yield Block(page, before.count("\n") + 1, fence[2], "\n".join(lines), mark[1] if mark else None)


def prose(page: Path) -> str:
    """The page without its blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def lines_of(text: str) -> list[str]:
    """Its lines of shell: continued ones joined, without comments and empty ones."""
    lines = (re.sub(r"(^|\s+)#\s.*", "", line).strip() for line in text.replace("\\\n", " ").splitlines())
    return [line for line in lines if line]


def commands(text: str) -> list[list[str]]:
    """The words of every command in it, those within `$(…)` as commands of their own; without redirections."""
    found: list[list[str]] = []
    for line in lines_of(text):
        for inner in re.findall(r"\$\((.*)\)", line):
            found += commands(inner)
        lexer = shlex.shlex(re.sub(r"\$\(.*\)", "VALUE", line), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not _SEPARATORS.fullmatch(word):
                words.append(word)
                continue
            while words and re.match(r"\w+=", words[0]):
                words.pop(0)
            while arrows := [place for place, found_word in enumerate(words) if found_word in (">", ">>", "<")]:
                del words[arrows[0] : arrows[0] + 2]
            if words:
                found.append(words)
            words = []
    return found
