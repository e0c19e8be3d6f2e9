"""Rewrite the parts of the docs that come from the code.

    python scripts/reference.py

In docs/robot_file.md and docs/policy_file.md the tables of fields, from the dataclasses that read them; in
docs/troubleshooting.md everything after `<!-- remedies -->`, from `vla_ros.control.remedies`; and the tables of node
parameters in PARAMETERS.

After `<!-- fields of MODULE.CLASS -->` there is one row for each field: its type, its default, and its description in
the class (under `Attributes:`, or in a comment next to the field or above it).
"""

import ast
import inspect
import re
import textwrap
import tokenize
from dataclasses import MISSING, Field, fields
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import get_args, get_type_hints

from vla_ros.control import remedies

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("robot_file.md", "policy_file.md", "troubleshooting.md")
PARAMETERS = {
    "runtime.md": "vla_ros.nodes.policy_parameters.PolicyParameters",
    "safety.md": "vla_ros.nodes.executor.parameters.ExecutorParameters",
    "console.md": "vla_ros.nodes.console_node.ConsoleParameters",
}
_REMEDIES = "<!-- remedies -->\n"
_PARAMETERS = re.compile(r"^\| parameter \| default \| unit .*\n(?:\|.*\n)*", re.MULTILINE)
_MARK = re.compile(r"(<!-- fields of (\S+)\.(\w+) -->\n)(?:\|.*\n)*")


def comments(kind: type) -> dict[str, str]:
    """Field -> what the class says of it."""
    source = textwrap.dedent(inspect.getsource(kind))
    said = {token.start[0]: token for token in tokenize.generate_tokens(StringIO(source).readline)
            if token.type == tokenize.COMMENT}  # fmt: skip
    lines, found = source.splitlines(), {}
    for node in ast.parse(source).body[0].body:
        if isinstance(node, ast.AnnAssign):
            above = node.lineno - 1
            while above in said and lines[above - 1].lstrip().startswith("#"):
                above -= 1
            tokens = [said[row] for row in range(above + 1, node.lineno)] + [said.get(node.end_lineno)]
            found[node.target.id] = " ".join(token.string.lstrip("# ") for token in tokens if token)
    listed = inspect.getdoc(kind).partition("Attributes:\n")[2]
    for names, words in re.findall(r"^    ([\w, ]+): (.*(?:\n        .*)*)", listed, re.MULTILINE):
        found |= {name.strip(): " ".join(words.split()) for name in names.split(",")}
    return {name: _spelled(words, kind) for name, words in found.items()}


def _spelled(words: str, kind: type) -> str:
    """With the values of the constants that the words name, and YAML's word for None."""
    constants = vars(import_module(kind.__module__))
    return re.sub(
        r"\b[A-Z_]{4,}\b",
        lambda found: ", ".join(f"`{value}`" for value in constants[found[0]]) if found[0] in constants else found[0],
        re.sub(r"\bNone\b", "null", words),
    )


def type_words(item: Field, hint: object) -> str:
    """The type as a writer of YAML sees it."""
    words = {str: "text", float: "number", int: "integer", bool: "true, false"}
    parts = [part for part in get_args(hint) if part is not type(None)]
    if hint in words:
        return words[hint]
    if getattr(hint, "__metadata__", None):  # Annotated
        return f"{words[hint.__origin__]}, {hint.__metadata__[0].low} to {hint.__metadata__[0].high}"
    if getattr(hint, "__origin__", None) is tuple:
        return f"list of {words[parts[0]]}s" if parts[0] in words else f"list of {getattr(parts[0], '__name__', '')}"
    if getattr(hint, "__origin__", None) is dict:
        return "mapping"
    if parts and not getattr(hint, "__origin__", None):  # a union
        return " or ".join(type_words(item, part) for part in parts)
    return getattr(hint, "__name__", "mapping")


def table(kind: type) -> str:
    """The rows of a class, in Markdown."""
    hints, said = get_type_hints(kind, include_extras=True), comments(kind)
    rows = ["| field | type | default | |", "| --- | --- | --- | --- |"]
    for item in fields(kind):
        default = "**required**" if item.default is MISSING else "" if item.default in ("", None, ()) else (
            f"`{str(item.default).lower() if isinstance(item.default, bool) else item.default}`")  # fmt: skip
        words = said.get(item.name, "").replace("|", "\\|")
        rows.append(f"| `{item.name.rstrip('_')}` | {type_words(item, hints[item.name])} | {default} | {words} |")
    return "\n".join(rows) + "\n"


def rewritten(page: str) -> str:
    """The page with its tables as the classes have them now, and the remedies."""
    above, mark, _ = page.partition(_REMEDIES)
    page = f"{above}{mark}\n{remedies.page()}" if mark else page
    return _MARK.sub(lambda found: found[1] + table(getattr(import_module(found[2]), found[3])), page)


if __name__ == "__main__":
    for name in PAGES:
        path = DOCS / name
        path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")
    from vla_ros.nodes.parameters import table as parameter_table

    for name, kind in PARAMETERS.items():
        path, (module, _, what) = DOCS / name, kind.rpartition(".")
        rows = parameter_table(getattr(import_module(module), what))
        path.write_text(_PARAMETERS.sub(lambda _, rows=rows: rows, path.read_text(encoding="utf-8")), encoding="utf-8")
