"""Identity of an instruction."""

import zlib

from vla_ros.core.text import plain

_MOMENT = 2.0  # s for which two nodes may differ: an instruction reaches them at different times
_SHOWN = 100  # characters of an instruction in a sentence
MAX_INSTRUCTION = 10_000  # bytes of UTF-8; every node refuses a longer one and keeps the previous one


def instruction_problem(text: str) -> str:
    """Why nodes refuse this text as an instruction; "" if they accept it."""
    size = len(text.encode("utf-8", errors="replace"))
    return f"instruction: {size} bytes, limit {MAX_INSTRUCTION}" if size > MAX_INSTRUCTION else ""


def instruction_id(text: str) -> int:
    """A number (uint32) that policy and executor each compute from the text.

    It is the CRC-32 of the stripped UTF-8 text, so it stays the same when either node is restarted. 0 means "no
    instruction": only the empty text has it.
    """
    data = text.strip().encode("utf-8", errors="replace")
    return (zlib.crc32(data) or 1) if data else 0


class Agreement:
    """Whether policy and executor follow the same instruction: a message may reach only one of them."""

    def __init__(self) -> None:
        self._since: float | None = None

    def problem(self, policy: str, executor: str, alike: bool, now: float) -> str:
        """What is wrong, in words; "" if nothing is, and for a moment after a new instruction.

        Args:
            policy, executor: the texts that they follow, as far as they are known.
            alike: both have the same instruction id.
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
