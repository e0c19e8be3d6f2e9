"""The documentation site of README and docs: `make docs`. The pages stay plain Markdown, as a forge shows them.

What Sphinx needs beyond that is made here: the contents from the lists of docs/index.md, the reference of the Python
interface from the modules that docs/python.md lists, and links to folders, which a site has none of.
"""

import re
from pathlib import Path
from typing import Any

import vla_ros

ROOT = Path(__file__).parents[1]

project = "vla_ros"
release = vla_ros.__version__
copyright = "the vla_ros contributors, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "docs/index"
include_patterns = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md", "benchmarks/RESULTS.md",
                    "benchmarks/gpu/README.md"]  # fmt: skip
exclude_patterns = [".*", "build", "runs", "test", "vla_ros"]
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]
suppress_warnings = ["misc.highlighting_failure"]  # shell with placeholders
html_theme = "furo"
html_title = f"vla_ros {release}"
html_copy_source = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "ignore-module-all": True}
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True


def contents(text: str) -> str:
    """A hidden table of contents below each list of links that stands under a heading."""
    made = []
    for part in re.split(r"^(?=## )", text, flags=re.MULTILINE):
        heading = re.match(r"## (.*)", part)
        pages = re.findall(r"^- \[.*?\]\(([^)#]+)\.md\)", part, re.MULTILINE)
        if heading and pages:
            places = [str((Path("/docs") / page).as_posix()) for page in pages]
            places = [re.sub(r"/docs/\.\./", "/", place) for place in places]
            part += "\n```{toctree}\n:hidden:\n:caption: " + heading[1] + "\n\n" + "\n".join(places) + "\n```\n\n"
        made.append(part)
    return "".join(made)


def reference(text: str) -> str:
    """The documentation of each module that is listed, in its place."""
    return re.sub(r"^- `(vla_ros[\w.]+)`: (.*)$",
                  "## \\1\n\n```{eval-rst}\n.. automodule:: \\1\n```\n", text, flags=re.MULTILINE)  # fmt: skip


def read(app: Any, page: str, source: list[str]) -> None:
    def link(match: re.Match) -> str:
        target = (ROOT / page).parent / match[2].partition("#")[0]
        return match[0] if "://" in match[2] or not target.is_dir() else f"`{match[1]}`"

    text = re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", link, source[0])
    source[0] = {"docs/index": contents, "docs/python": reference}.get(page, str)(text)


def docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Ours are plain text with `code`, which reStructuredText would take for something else."""
    words = re.split(r"`([^`]+)`", "\n".join(lines))
    text = "".join(f"``{word}``\\ " if k % 2 else word.replace("|", r"\|") for k, word in enumerate(words))
    lines[:] = re.sub(r"(?<=[^:\n])\n\n( {4,})", r"::\n\n\1", text).splitlines()


def setup(app: Any) -> None:
    app.connect("source-read", read)
    app.connect("autodoc-process-docstring", docstring)
