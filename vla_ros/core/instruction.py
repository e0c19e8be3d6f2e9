"""Identity of an instruction."""

import zlib

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
