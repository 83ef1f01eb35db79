"""Which option does an answer name? ``"B"``, ``"**Option (B)**"`` and ``"B: 2 grams"`` do; ``"B or C"`` names two, hence none.

Everything here reads untrusted text: nothing raises but NoAnswer, and nothing takes longer than a few passes over the text.
"""

from __future__ import annotations

import re
import string

from sdpo.envs.answers import CLOSE, OPEN, NoAnswer, undecorated

_MARKS = re.compile(r"[*`$]+|__|\\(?:boxed|text|textbf|mathrm|mathbf)(?=\s*\{)")
"""Decoration within the answer: nothing of it is a part of a letter."""
_LEAD = re.compile(
    r"(?:the\s+)?(?:(?:correct|right|best|final)\s+)?(?:answer|option|choice)\b\s*(?:is\b)?\s*[:=]?\s*(?=\S)", re.IGNORECASE
)
_LETTER = re.compile(r"[(\[{]?\s*([A-Za-z])\s*[)\]}]?\s*[.:)]?")
_LABELLED = re.compile(r"[(\[{]?([A-Za-z])(?:\s*[:)\]}]+[.:]?\s*|\.\s+|\s+[-–—]\s+|\s*\n\s*)(?=\S)(.*)", re.DOTALL)
"""A letter as a list has it, and the text behind it."""
_SINGLE = re.compile(r"(?<![\w'’.-])(?:A(?!\s+[a-z])|[B-Z])(?![\w'’])|(?<!\w)[a-z](?=\))")
"""A letter by itself; an A before a word is an article."""
_OPTION = re.compile(r"^[ \t]*[(\[]?([A-Z])[.:)\]]+[ \t]*(\S[^\n]*)$", re.MULTILINE)
_MAX_LEADS = 2


def read_letter(answer: str, prompt: str) -> str:
    """The letter of the one option that ``answer`` names, in upper case. Raises NoAnswer; the reason holds no letter.

    ``prompt`` is the question with its options. The text behind a letter may be that of the option, or any that names no other.
    """
    plain = _single_spaced(_MARKS.sub("", undecorated(answer)))
    for _ in range(_MAX_LEADS):
        if (lead := _LEAD.match(plain)) is not None:
            plain = plain[lead.end() :]
    plain = _single_spaced(undecorated(plain))
    if (alone := _LETTER.fullmatch(plain)) is not None:
        return alone[1].upper()
    if (labelled := _LABELLED.fullmatch(plain)) is None:
        raise NoAnswer(
            f"What stands between {OPEN} and {CLOSE} is not a single letter: write that of one option and nothing else."
        )
    letter, text = labelled[1].upper(), labelled[2]
    options = dict(_OPTION.findall(prompt))
    others = (options.keys() or set(string.ascii_uppercase)) - {letter}
    if any(found.group().upper() in others for found in _SINGLE.finditer(text)) and not _is_of(text, options.get(letter, "")):
        raise NoAnswer(
            f"What stands between {OPEN} and {CLOSE} names more than one option: write the letter of one and nothing else."
        )
    return letter


def _single_spaced(text: str) -> str:
    """The lines that hold something, so that no expression above has long white space to try its luck in."""
    return "\n".join(filter(None, (" ".join(line.split()) for line in text.splitlines())))


def _is_of(text: str, option: str) -> bool:
    """Whether it is the option's text, or several words of it."""
    said, whole = _words(text), _words(option)
    return said == whole or (" " in said and said in whole)


def _words(text: str) -> str:
    """The text less case, decoration and white space, in which copies differ."""
    return " ".join(_MARKS.sub("", text).replace("{", "").replace("}", "").casefold().split()).removesuffix(".").strip()
