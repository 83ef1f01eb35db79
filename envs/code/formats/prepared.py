"""What is a row of a data set that was prepared for training: a prompt, and all tests of it in one JSON object?

The authors of SDPO train on this form (arXiv 2601.20802). ``tests``, or ``reward_model.ground_truth``, holds ``inputs``,
``outputs``, ``testtype``, ``fn_name`` and ``time_limit``. ``testtype`` is stdin, functional, or code, whose inputs are asserts.
Such files mix programming with other questions, which are left out. They know no public tests, so the first ones are visible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from sdpo.envs.code.formats.asserts import Asserted, asserted_function, read_asserts
from sdpo.envs.code.formats.question import (
    CONTEST_PREAMBLE,
    NO_ASSERT,
    Examples,
    LeftOut,
    Pair,
    Question,
    asserted_tests,
    contest_tests,
    split_tests,
)
from sdpo.envs.code.formats.rows import Row
from sdpo.envs.code.trials import Equality, Tests

KEYS = (frozenset({"prompt", "tests"}), frozenset({"prompt", "reward_model"}))


def read(row: Row, examples: Examples) -> Question | LeftOut:
    """Raises ValueError for a row that is not in this form."""
    identity = _identity(row)
    tests = _tests(row)
    if tests is None:
        return LeftOut(identity=identity, reason="it is no programming problem")
    inputs, outputs = (row.items(key, tests.get(key)) for key in ("inputs", "outputs"))
    if len(inputs) != len(outputs):
        raise row.refused(f"a test needs an input and an output; got {len(inputs)} and {len(outputs)}: correct or remove the row")
    if not inputs:
        return LeftOut(identity=identity, reason="it has no tests")
    num_left_out = 0
    judged_by: Tests | None
    if tests.get("testtype") == "code":
        function, asserted = _asserted(row, tests.get("fn_name"), inputs, examples.equality)
        num_left_out = asserted.num_left_out
        judged_by = None
        if function is not None and asserted.is_usable:
            judged_by = asserted_tests(
                asserted, examples, function=function, preamble=CONTEST_PREAMBLE, time_limit_s=_time_limit(row, tests)
            )
    else:
        pairs: list[Pair] = list(zip(inputs, outputs, strict=True))
        visible, hidden = split_tests(pairs, examples)
        judged_by = contest_tests(
            row,
            visible,
            hidden,
            function=_function(row, tests),
            equality=examples.equality,
            time_limit_s=_time_limit(row, tests),
        )
    if judged_by is None:
        return LeftOut(identity=identity, reason=NO_ASSERT, num_left_out=num_left_out)
    system, text = _prompt(row)
    return Question(identity=identity, system=system, text=text, tests=judged_by, num_left_out=num_left_out)


def _identity(row: Row) -> str:
    extra = row.values.get("extra_info")
    index = extra.get("index") if isinstance(extra, dict) else None
    return str(index) if isinstance(index, (str, int)) else row.identity("id", "idx", "index", "question_id")


def _tests(row: Row) -> Mapping[str, object] | None:
    """None where the question is of another kind: its tests are a dash then."""
    if row.values.get("kind", "code") != "code":
        return None
    if "tests" in row.values:
        tests = row.values["tests"]
        return None if tests in ("-", None) else row.mapping("tests", row.parsed("tests", tests))
    reward_model = row.mapping("reward_model", row.parsed("reward_model", row.values["reward_model"]))
    if reward_model.get("style", "code") != "code":
        return None
    key = "reward_model.ground_truth"
    return row.mapping(key, row.parsed(key, reward_model.get("ground_truth")))


def _asserted(row: Row, name: object, inputs: list[object], equality: Equality) -> tuple[str | None, Asserted]:
    source = "\n".join(map(str, inputs))
    try:
        function = name if isinstance(name, str) and name.isidentifier() else asserted_function(source, "")
        return function, read_asserts(source, function or "", given=CONTEST_PREAMBLE, equality=equality)
    except ValueError as error:
        raise row.refused(f"'inputs' of testtype code {error}: correct or remove the row") from error


def _function(row: Row, tests: Mapping[str, object]) -> str | None:
    name, kind = tests.get("fn_name"), tests.get("testtype")
    kinds = set(kind) if isinstance(kind, list) and all(isinstance(one, str) for one in kind) else {kind}
    if kinds <= {"stdin"} or (kinds == {None} and not name):
        return None
    if kinds not in ({"functional"}, {None}) or not isinstance(name, str) or not name.isidentifier():
        raise row.refused(
            f"'testtype' must be stdin, code, or functional with the function's name in fn_name; got {kind!r} and {name!r}: "
            "correct or remove the row"
        )
    return name


def _time_limit(row: Row, tests: Mapping[str, object]) -> float | None:
    limit = tests.get("time_limit")
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not (math.isfinite(limit) and limit > 0):
        raise row.refused(f"'time_limit' must be a positive number of seconds; got {limit!r}: correct or remove the row")
    return float(limit)


def _prompt(row: Row) -> tuple[str | None, str]:
    """The system's and the user's text: the prompt is the latter, or a list of messages."""
    prompt = row.values["prompt"]
    if isinstance(prompt, str):
        return row.text_or_none("system"), row.text("prompt")
    texts: dict[str, list[str]] = {"system": [], "user": []}
    for entry in row.items("prompt", prompt):
        message = row.mapping("prompt", entry)
        role, content = message.get("role"), message.get("content")
        if role not in texts or not isinstance(content, str):
            raise row.refused(f"'prompt' must be a text, or messages of system and user; got one of {role!r}: correct the row")
        texts[str(role)].append(content)
    if len(texts["user"]) != 1:
        raise row.refused(f"'prompt' must hold one message of the user; got {len(texts['user'])}: correct or remove the row")
    return "\n\n".join(texts["system"]) or None, texts["user"][0]
