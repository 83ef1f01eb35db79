"""Which questions does a file hold, in whatever format it is?

A format is a module with ``KEYS``, by which its rows are known, and ``read``, which makes a question of a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sdpo.envs.code.formats import apps, humaneval, livecodebench, mbpp, prepared
from sdpo.envs.code.formats.question import Examples, LeftOut, Question
from sdpo.envs.code.formats.rows import Row, read_rows

UNUSED_TESTS = "a single test, as it cannot be run apart from an answer"

__all__ = ["FORMATS", "Examples", "Questions", "read_questions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    keys: tuple[frozenset[str], ...]
    """Any of these sets of keys marks a row of it."""
    read: Callable[[Row, Examples], Question | LeftOut]


FORMATS: Mapping[str, _Format] = {
    "livecodebench": _Format(keys=(livecodebench.KEYS,), read=livecodebench.read),
    "humaneval": _Format(keys=(humaneval.KEYS,), read=humaneval.read),
    "mbpp": _Format(keys=mbpp.KEYS, read=mbpp.read),
    "apps": _Format(keys=(apps.KEYS,), read=apps.read),
    "prepared": _Format(keys=prepared.KEYS, read=prepared.read),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """All of a file."""

    questions: tuple[Question, ...]
    left_out: Mapping[str, int]
    """Rows that make no task, and single tests that cannot be used, by reason."""


def read_questions(path: str, format_name: str, split: str, examples: Examples) -> Questions:
    """Raises ValueError for a file that cannot be read, for a malformed row, and where no question is left."""
    questions: list[Question] = []
    left_out: Counter[str] = Counter()
    num_unused_tests = 0
    for row in read_rows(path, split):
        read = _read(row, format_name, examples)
        if isinstance(read, LeftOut):
            left_out[read.reason] += 1
        else:
            questions.append(read)
            num_unused_tests += read.num_left_out
    if num_unused_tests:
        left_out[UNUSED_TESTS] = num_unused_tests
    if not questions:
        reasons = ", ".join(f"{number} because {reason}" for reason, number in left_out.items()) or "there are no rows"
        raise ValueError(f"{path} must hold at least one usable problem; got none ({reasons}): give another file")
    return Questions(questions=tuple(questions), left_out=dict(left_out))


def _read(row: Row, format_name: str, examples: Examples) -> Question | LeftOut:
    name = format_name if format_name != "auto" else _recognised(row)
    known = FORMATS[name]
    if not any(keys <= row.values.keys() for keys in known.keys):
        wanted = " or ".join(", ".join(sorted(keys)) for keys in known.keys)
        raise row.refused(f"a row of format {name} must have {wanted}; got {', '.join(sorted(row.values))}: correct or remove it")
    return known.read(row, examples)


def _recognised(row: Row) -> str:
    for name, known in FORMATS.items():
        if any(keys <= row.values.keys() for keys in known.keys):
            return name
    raise row.refused(
        f"a row must be in one of the formats {', '.join(FORMATS)}; its keys are {', '.join(sorted(map(str, row.values)))}: "
        "name the format, or bring it into one"
    )
