"""What is a row of LiveCodeBench as it is published, one problem of a contest a line?

Public tests are the visible ones. A functional test has one JSON value a line for each argument. Private tests are JSON or, in
the published files, packed (``pickled_text.py``). Contest date, title and platform do not reach the student.
"""

from __future__ import annotations

from sdpo.envs.code.formats.pickled_text import packed_text
from sdpo.envs.code.formats.question import (
    FUNCTION_SYSTEM,
    PROGRAM_SYSTEM,
    Examples,
    LeftOut,
    Pair,
    Question,
    contest_tests,
    split_tests,
    starting_from,
)
from sdpo.envs.code.formats.rows import Row

KEYS = frozenset({"question_content", "public_test_cases", "private_test_cases"})


def read(row: Row, examples: Examples) -> Question | LeftOut:
    """Raises ValueError for a row that is not as published."""
    identity = row.identity("question_id")
    public, public_kinds = _tests(row, "public_test_cases", row.parsed("public_test_cases", row.values["public_test_cases"]))
    private, private_kinds = _tests(row, "private_test_cases", _private(row))
    kinds = public_kinds | private_kinds
    if not kinds:
        return LeftOut(identity=identity, reason="it has no tests")
    if len(kinds) > 1 or not kinds <= {"stdin", "functional"}:
        raise row.refused(
            f"'testtype' must be stdin or functional, the same for all tests; got {sorted(kinds)}: correct or remove the row"
        )
    is_function = kinds == {"functional"}
    visible, hidden = (public, private) if public else split_tests(private, examples)
    visible = visible[: examples.max_tests - 1 if hidden else examples.max_tests]
    hidden = hidden[: examples.max_tests - len(visible)]
    return Question(
        identity=identity,
        system=FUNCTION_SYSTEM if is_function else PROGRAM_SYSTEM,
        text=starting_from(row.text("question_content"), row.text_or_none("starter_code")),
        tests=contest_tests(row, visible, hidden, function=_function(row) if is_function else None, equality=examples.equality),
    )


def _private(row: Row) -> object:
    tests = row.values["private_test_cases"]
    if isinstance(tests, str) and not tests.lstrip().startswith("["):
        try:
            tests = packed_text(tests)
        except ValueError as error:
            raise row.refused(f"'private_test_cases' {error}: correct or remove the row") from error
    return row.parsed("private_test_cases", tests)


def _tests(row: Row, key: str, tests: object) -> tuple[list[Pair], set[str]]:
    pairs: list[Pair] = []
    kinds: set[str] = set()
    for entry in row.items(key, tests):
        test = row.mapping(key, entry)
        if not {"input", "output", "testtype"} <= test.keys():
            raise row.refused(f"a test of {key!r} must have input, output and testtype; got {sorted(test)}: correct or remove it")
        pairs.append((test["input"], test["output"]))
        kinds.add(str(test["testtype"]))
    return pairs, kinds


def _function(row: Row) -> str:
    """Its name stands in the metadata."""
    metadata = row.mapping("metadata", row.parsed("metadata", row.values.get("metadata")))
    name = metadata.get("func_name")
    if not isinstance(name, str) or not name.isidentifier():
        raise row.refused(f"'metadata' must name the function in func_name; got {name!r}: correct or remove the row")
    return name
