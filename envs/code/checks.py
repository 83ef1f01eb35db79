"""How does an answer do on the question's own test, which is Python?

The test and the answer are never run in one process. A process runs the test and says which calls it makes. Another makes these
calls of the answer, and says what came of them, as literals. A third runs the test again with these in the answer's place, and
there the asserts decide. So an answer can do no more than return values, and never sees what is expected of them. Where a call
depends on what came of an earlier one, there are more rounds.
"""

from __future__ import annotations

import marshal
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sdpo.envs import sandbox
from sdpo.envs.code.execution import Answer, Call, Execution, Raised, Result, Returned, make_calls
from sdpo.envs.code.literals import parse_literal
from sdpo.envs.code.trials import Arguments, Check, FunctionTests

MOST_TIMES = 4
"""A check takes no longer than so many times what one execution may."""
_DRIVER = Path(__file__).with_name("check_driver.py").read_text(encoding="utf-8")
_MAX_ROUNDS = 20
_LEAST_S = 0.1
_LONGEST, _LONGEST_TOGETHER = 1 << 13, 1 << 17
"""Characters of a result, and of all of a round, for which room is made: what is expected is unknown, and reading takes time."""
_OUTPUT_BYTES = 1 << 24
_Results = dict[str, list[tuple[str | bytes, ...]]]
"""By the literal of a call's arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What came of it. Without a call that raised or that never ended, and without a line, the answer passes."""

    is_loaded: bool
    execution: Execution | None = None
    """That of the calls that failed, or of an answer that did not even load."""
    call: Arguments | None = None
    """The one that raised or never ended."""
    result: Result | None = None
    line: str | None = None
    """The line of the test that failed, or at which it was stopped."""

    @property
    def is_passed(self) -> bool:
        return self.is_loaded and self.execution is None and self.line is None


def run_check(answer: Answer, tests: FunctionTests, limits: sandbox.Limits) -> Checked:
    """Put the answer to the question's own test.

    Raises SandboxUnavailable, and ValueError for a test that fails or cannot be run before the answer was asked anything.
    """
    assert tests.check is not None
    deadline = time.monotonic() + MOST_TIMES * limits.wall_s
    results: _Results = {}
    raised: Checked | None = None
    for number in range(_MAX_ROUNDS):
        left_s = deadline - time.monotonic()
        if left_s < _LEAST_S:
            break
        limits = replace(limits, wall_s=min(limits.wall_s, left_s))
        kind, said = _run_test(tests.check, tests.preamble, results, limits)
        if kind == "passed":
            return Checked(is_loaded=True)
        if kind == "unfit":
            raise ValueError(f"a question's own test must call with plain values; got {said}: correct or remove the row")
        if kind != "calls":
            if number == 0:
                raise ValueError(
                    "a question's own test must run up to its first call of the answer; this one ends before, at "
                    f"{_line(tests.check, said)!r}: correct or remove the row"
                )
            return raised or Checked(is_loaded=True, line=_line(tests.check, said))
        assert isinstance(said, list)
        calls: list[Arguments] = [parse_literal(literal) for literal in said]  # type: ignore[misc]  # tuples, by the driver
        limits = replace(limits, wall_s=min(limits.wall_s, max(deadline - time.monotonic(), _LEAST_S)))
        execution = make_calls(
            answer,
            tests.function,
            [Call(arguments=call, is_plain=True) for call in calls],
            limits,
            longest=min(_LONGEST, _LONGEST_TOGETHER // len(calls)),
        )
        if not execution.is_loaded:
            return Checked(is_loaded=False, execution=execution)
        for key, call, result in zip(said, calls, execution.results, strict=True):
            if result is None:
                return Checked(is_loaded=True, execution=execution, call=call)
            if isinstance(result, Raised) and raised is None:
                raised = Checked(is_loaded=True, execution=execution, call=call, result=result)
            results.setdefault(key, []).append(_entry(result))
    return Checked(is_loaded=True, line="")


def _entry(result: Result) -> tuple[str | bytes, ...]:
    if isinstance(result, Raised):
        return "raised", result.type_name, result.message
    if isinstance(result, Returned):
        return "value", marshal.dumps(result.value)  # type: ignore[arg-type]  # a literal's value
    return "object", result.type_name


def _run_test(
    check: Check, preamble: str, results: Mapping[str, Sequence[tuple[str | bytes, ...]]], limits: sandbox.Limits
) -> tuple[str, object]:
    """What the test's process says of it: the kind of its end, and the calls or the line."""
    nonce = secrets.token_hex(8)
    request = marshal.dumps((nonce, preamble, check.source, check.names, dict(results)))
    outcome = sandbox.run(_DRIVER, stdin=request, limits=replace(limits, output_bytes=_OUTPUT_BYTES))
    for line in outcome.result.decode("utf-8", "backslashreplace").split("\n")[:-1]:
        fields = line.split(" ", 2)
        if len(fields) == 3 and fields[0] == nonce:
            return fields[1], parse_literal(fields[2])
    return "failed", None


def _line(check: Check, number: object) -> str:
    lines = check.source.split("\n")
    return lines[number - 1].strip() if isinstance(number, int) and 1 <= number <= len(lines) else ""
