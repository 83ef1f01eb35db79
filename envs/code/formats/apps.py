"""What is a row in the style of APPS: a question, and its inputs and outputs as one JSON text?

With ``fn_name`` the inputs are lists of arguments. If there all outputs are lists of one, each stands for the value in it, which
is what is returned. The format knows no public tests, so the first ones are visible.
"""

from __future__ import annotations

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

KEYS = frozenset({"question", "input_output"})


def read(row: Row, examples: Examples) -> Question | LeftOut:
    """Raises ValueError for a row that is not in this form."""
    identity = row.identity("problem_id", "id")
    if row.text_or_none("input_output") is None:
        return LeftOut(identity=identity, reason="it has no tests")
    tests = row.mapping("input_output", row.parsed("input_output", row.text("input_output")))
    function = tests.get("fn_name")
    if function is not None and not (isinstance(function, str) and function.isidentifier()):
        raise row.refused(f"'fn_name' must be a function's name; got {function!r}: correct or remove the row")
    inputs, outputs = (row.items(key, tests.get(key)) for key in ("inputs", "outputs"))
    if len(inputs) != len(outputs):
        raise row.refused(f"a test needs an input and an output; got {len(inputs)} and {len(outputs)}: correct or remove the row")
    if not inputs:
        return LeftOut(identity=identity, reason="it has no tests")
    pairs: list[Pair] = list(zip(inputs, _values(outputs) if function is not None else outputs, strict=True))
    visible, hidden = split_tests(pairs, examples)
    return Question(
        identity=identity,
        system=PROGRAM_SYSTEM if function is None else FUNCTION_SYSTEM,
        text=starting_from(row.text("question"), row.text_or_none("starter_code")),
        tests=contest_tests(row, visible, hidden, function=function, equality=examples.equality),
    )


def _values(outputs: list[object]) -> list[object]:
    """What the calls return, taken out of the lists of one in which they may stand."""
    unwrapped = [output[0] for output in outputs if isinstance(output, list) and len(output) == 1]
    return unwrapped if len(unwrapped) == len(outputs) else outputs
