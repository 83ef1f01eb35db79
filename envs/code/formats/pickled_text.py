"""How is a text read that somebody pickled, without unpickling it?

Unpickling runs whatever the file asks for. Here the opcodes are walked and nothing is run: a pickle that does more than to
build one text is refused. LiveCodeBench publishes its private tests as base64 of zlib of the pickle of a JSON text.
"""

from __future__ import annotations

import base64
import pickletools
import zlib

MAX_INFLATED_BYTES = 1 << 28
_HIGHEST_PROTOCOL = 5
_TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE")
_HARMLESS = ("PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP")


def packed_text(packed: str, max_bytes: int = MAX_INFLATED_BYTES) -> str:
    """The text in base64 of zlib of its pickle. Raises ValueError for anything else, and for more than ``max_bytes``."""
    try:
        squeezed = base64.b64decode("".join(packed.split()), validate=True)
    except ValueError as error:
        raise ValueError(f"must be base64 ({error})") from error
    return pickled_text(_inflated(squeezed, max_bytes))


def pickled_text(pickled: bytes) -> str:
    """The one text of which ``pickled`` is the pickle."""
    texts: list[str] = []
    end = 0
    try:
        for opcode, argument, position in pickletools.genops(pickled):
            end = (position or 0) + 1
            if opcode.name == "PROTO" and isinstance(argument, int) and argument > _HIGHEST_PROTOCOL:
                raise ValueError(f"protocol {argument} is not known")
            if opcode.name in _TEXTS and isinstance(argument, str):
                texts.append(argument)
            elif opcode.name not in _HARMLESS:
                raise ValueError(f"{opcode.name} at byte {position} does more than that")
    except (ValueError, OverflowError) as error:
        raise ValueError(f"must be the pickle of one text and of nothing else ({error})") from error
    if len(texts) != 1 or end != len(pickled):
        raise ValueError(
            f"must be the pickle of one text and of nothing else; it holds {len(texts)}, and {len(pickled) - end} bytes more"
        )
    return texts[0]


def _inflated(squeezed: bytes, max_bytes: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(squeezed, max_bytes + 1)
    except zlib.error as error:
        raise ValueError(f"must be zlib's ({error})") from error
    if len(inflated) > max_bytes:
        raise ValueError(f"must inflate to no more than {max_bytes} bytes")
    if not inflater.eof:
        raise ValueError("must be zlib's, to its end")
    return inflated
