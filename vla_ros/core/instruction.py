"""Identity of an instruction."""

import zlib

from vla_ros.core.text import plain

_MOMENT = 2.0  # s for which two nodes may differ: each hears of an instruction at its own time
_SHOWN = 100  # characters of an instruction in a sentence
MAX_INSTRUCTION = 10_000  # bytes of UTF-8; every node refuses a longer one, and goes on with the one before


def instruction_problem(text: str) -> str:
    """Why no node takes this text as an instruction; empty when all do."""
    size = len(text.encode("utf-8", errors="replace"))
    return f"instruction: {size} bytes, limit {MAX_INSTRUCTION}" if size > MAX_INSTRUCTION else ""


def instruction_id(text: str) -> int:
    """A number that policy and executor derive from the same text on their own (uint32).

    It is the CRC-32 of the stripped UTF-8 text, so it survives the restart of either node. 0 stands for
    "no instruction" and belongs to the empty text alone.
    """
    data = text.strip().encode("utf-8", errors="replace")
    return (zlib.crc32(data) or 1) if data else 0


class Agreement:
    """Whether policy and executor follow the same instruction; a message can reach one of them alone."""

    def __init__(self) -> None:
        self._since: float | None = None

    def problem(self, policy: str, executor: str, alike: bool, now: float) -> str:
        """What is wrong, in words; empty while nothing is, and for the moment in which a new instruction arrives.

        Args:
            policy, executor: the texts that they follow, as far as they are known.
            alike: the ids of both are the same.
            now: s, steady.
        """
        if alike:
            self._since = None
            return ""
        if self._since is None:
            self._since = now
        if now - self._since < _MOMENT:
            return ""
        told = [repr(plain(text, _SHOWN)) if text else "no instruction" for text in (policy, executor)]
        return f"the policy follows {told[0]}, the executor {told[1]}: give the instruction again"
