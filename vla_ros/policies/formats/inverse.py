"""The inverse of tables of names: a module's tensors under the names of a published file."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor

from vla_ros.policies.formats.weights import Unused

_BLOCK = re.compile(r"(.*)\[(\d)\]")


def published(
    state: Mapping[str, Tensor], rules: Sequence[tuple[str, str]], alias: Callable[[str], str] = lambda name: name
) -> Iterator[tuple[str, Tensor]]:
    """Each key of the file and its tensor; a name without a rule is kept.

    Args:
        rules: as for `weights.renamed`. Patterns consist of literals and groups, and a name contains every group.
        alias: a module's name -> its name in the rules, possibly with the number of its block.
    """
    plain, blocks = [], []
    for pattern, name in rules:
        if not isinstance(name, Unused):
            block = _BLOCK.fullmatch(name)
            number, name = (int(block[2]), block[1]) if block else (0, name)
            (blocks if block else plain).append((number, *_turned(pattern, name)))
    for name, tensor in state.items():
        name = alias(name)
        if block := _BLOCK.fullmatch(name):
            yield _first(blocks, block[1], int(block[2])), tensor
            continue
        keys = [key for n in range(3) if (key := _first(blocks, name, n))]
        if not keys:
            yield _first(plain, name, 0) or name, tensor
        else:
            yield from zip(keys, tensor.split(_rows(name, len(tensor), len(keys), state)), strict=True)


def _rows(name: str, rows: int, blocks: int, state: Mapping[str, Tensor]) -> list[int]:
    """Rows of the blocks of a fused tensor: all equal, except for queries, which have as many as the attention's
    output."""
    if blocks == 2:
        return [rows // 2] * 2
    queries = state[f"{name.rpartition('.qkv.')[0]}.out.weight"].shape[1]
    return [queries, (rows - queries) // 2, (rows - queries) // 2]


def _first(rules: Sequence[tuple[int, re.Pattern[str], str]], name: str, block: int) -> str | None:
    return next((m.expand(key) for n, pattern, key in rules if n == block and (m := pattern.fullmatch(name))), None)


def _turned(pattern: str, name: str) -> tuple[re.Pattern[str], str]:
    """Rule of the inverse: a pattern of names, and a template of keys."""
    groups, key, i = [], "", 0
    while i < len(pattern):
        if pattern[i] == "(":
            end, depth = i + 1, 1
            while depth:
                depth += {"(": 1, ")": -1}.get(pattern[end], 0)
                end += 1
            groups.append(pattern[i:end])
            key += rf"\g<g{len(groups)}>"
            i = end
        else:
            i += pattern[i] == "\\"
            key += pattern[i]
            i += 1
    parts = re.split(r"\\(\d)", name)  # literal, number of a group, literal, ...
    turned = "".join(
        f"(?P<g{part}>{groups[int(part) - 1][1:-1]})" if k % 2 else re.escape(part) for k, part in enumerate(parts)
    )
    return re.compile(turned), key
