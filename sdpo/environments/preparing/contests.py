"""What is a row of LiveCodeBench v6 (``test6.jsonl`` of its hub), for ``code_file``?

The paper takes the questions of contests from February to April 2025, 131 of them. It trains with half of each one's tests and
validates with all (arXiv 2601.20802, section 4; the authors' code has how). Here ``train`` has half of the private tests, a
seeded draw, and ``whole`` has all of them. The file's other questions are held out. Private tests are packed as a pickle, which
is read and never run; they are written as JSON.
"""

from __future__ import annotations

import json
import random
from datetime import date

from sdpo.environments.preparing.rows import HELDOUT, TRAIN, Kept, Passed, Published, plain
from sdpo.envs.code.formats import Examples, livecodebench
from sdpo.envs.code.formats.pickled_text import packed_text
from sdpo.envs.code.formats.question import LeftOut
from sdpo.envs.code.formats.rows import Row

FIRST, LAST = date(2025, 2, 1), date(2025, 4, 30)
_ALL_TESTS = Examples(max_tests=1_000_000, num_visible=2)
_TEXTS = ("question_id", "question_title", "question_content", "starter_code", "difficulty", "contest_date", "metadata")


def converted(published: Published) -> Kept | Passed:
    """Raises ValueError for a row that is not as published."""
    row = published.row
    missing = sorted(livecodebench.KEYS - row.values.keys())
    if missing:
        raise row.refused(f"a row of LiveCodeBench must have {', '.join(missing)}: give its test6.jsonl")
    private = _private(row)
    values: dict[str, object] = {key: row.values[key] for key in _TEXTS if row.values.get(key) is not None}
    values["public_test_cases"] = json.dumps(row.parsed("public_test_cases", row.values["public_test_cases"]))
    whole = {**values, "private_test_cases": json.dumps(private)}
    read = livecodebench.read(Row(where=row.where, number=row.number, values=whole), _ALL_TESTS)
    if isinstance(read, LeftOut):
        return Passed(reason=read.reason)
    row.text("question_id")
    question = plain(row.text("question_content"))
    if not FIRST <= _date(row) <= LAST:
        return Kept(question=question, values=whole, split=HELDOUT)
    half = {**values, "private_test_cases": json.dumps(_half(private, read.identity))}
    return Kept(question=question, values=half, split=TRAIN, whole=whole)


def _private(row: Row) -> list[object]:
    tests = row.values["private_test_cases"]
    if isinstance(tests, str) and not tests.lstrip().startswith("["):
        try:
            tests = packed_text(tests)
        except ValueError as error:
            raise row.refused(f"'private_test_cases' {error}: correct or remove the row") from error
    return row.items("private_test_cases", row.parsed("private_test_cases", tests))


def _half(tests: list[object], identity: str) -> list[object]:
    """Half of the tests in their order, the same ones each time."""
    if not tests:
        return []
    chosen = random.Random(f"livecodebench/{identity}").sample(range(len(tests)), max(1, len(tests) // 2))
    return [tests[index] for index in sorted(chosen)]


def _date(row: Row) -> date:
    text = row.text("contest_date")
    try:
        return date.fromisoformat(text.strip()[:10])
    except ValueError as error:
        raise row.refused(
            f"'contest_date' must be a date, as in 2025-02-01; got {text[:30]!r}: correct or remove the row"
        ) from error
