"""Identity of an instruction."""

import zlib


def instruction_id(text: str) -> int:
    """A number that policy and executor derive from the same text on their own (uint32).

    It is the CRC-32 of the stripped UTF-8 text, so it survives the restart of either node. 0 stands for
    "no instruction" and belongs to the empty text alone.
    """
    data = text.strip().encode("utf-8", errors="replace")
    return (zlib.crc32(data) or 1) if data else 0
