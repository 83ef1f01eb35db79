"""How does an answer do on the question's own test, which is Python?

The test and the answer are never run in one process. A process runs the test and says which calls it makes. Another makes these
calls of the answer, and says what came of them, as literals. A third runs the test again with these in the answer's place, and
there the asserts decide. So an answer can do no more than return values, and never sees what is expected of them. Where a call
depends on what came of an earlier one, there are more rounds.
"""

from __future__ import annotations

import io
import marshal
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sdpo.envs import sandbox
from sdpo.envs.code.execution import Answer, Call, Execution, Raised, Result, Returned, make_calls
from sdpo.envs.code.trials import Arguments, Check, FunctionTests
from sdpo.envs.literal_text import num_values, plain, read_literal

MOST_TIMES = 4
"""A check takes no longer than so many times what one execution may."""
_DRIVER = Path(__file__).with_name("check_driver.py").read_text(encoding="utf-8")
_MAX_ROUNDS = 20
_LEAST_S = 0.1
_LONGEST, _LONGEST_TOGETHER = 1 << 13, 1 << 17
"""Characters of a result, and of all of a round, for which room is made: what is expected is unknown, and reading takes time."""
_OUTPUT_BYTES = 1 << 24
_MOST_ASKED, _MOST_CALLS = 1 << 20, 1 << 16
"""Values in the arguments of all calls of a round, and how many calls these are."""
_Results = dict[str, list[tuple[str, ...]]]
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


def run_check(answer: Answer, tests: FunctionTests, limits: sandbox.Limits, *, is_hidden: bool) -> Checked:
    """Put the answer to the question's own test. ``is_hidden``: no later answer may learn of the calls that it makes.

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
        try:
            literals, calls = _calls(said)
        except ValueError as error:
            if number == 0:
                raise ValueError(
                    f"a question's own test must call with plain values; {error}: correct or remove the row"
                ) from error
            return raised or Checked(is_loaded=True, line="")  # it passes on what the answer returned
        limits = replace(limits, wall_s=min(limits.wall_s, max(deadline - time.monotonic(), _LEAST_S)))
        execution = make_calls(
            answer,
            tests.function,
            [Call(arguments=call, is_plain=True) for call in calls],
            limits,
            is_hidden=is_hidden,
            longest=min(_LONGEST, _LONGEST_TOGETHER // len(calls)),
        )
        if not execution.is_loaded:
            return Checked(is_loaded=False, execution=execution)
        for key, call, result in zip(literals, calls, execution.results, strict=True):
            if result is None:
                return Checked(is_loaded=True, execution=execution, call=call)
            if isinstance(result, Raised) and raised is None:
                raised = Checked(is_loaded=True, execution=execution, call=call, result=result)
            results.setdefault(key, []).append(_entry(result))
    return Checked(is_loaded=True, line="")


def _calls(said: object) -> tuple[list[str], list[Arguments]]:
    """Literals of the arguments of the calls that the test makes, and their values. Raises ValueError for what cannot be read."""
    literals = [literal for literal in said if isinstance(literal, str)] if isinstance(said, list) else []
    calls: list[Arguments] = []
    most_values = _MOST_ASKED
    for literal in literals:
        arguments = read_literal(literal, most_values=most_values)
        most_values -= num_values(arguments)
        arguments = plain(arguments)
        if not isinstance(arguments, tuple):
            raise ValueError(f"arguments must be a tuple; got {literal[:80]!r}")
        calls.append(arguments)
    if not calls:
        raise ValueError("a round must make a call")
    return literals, calls


def _entry(result: Result) -> tuple[str, ...]:
    if isinstance(result, Raised):
        return "raised", result.type_name, result.message
    if isinstance(result, Returned):
        return "value", result.text
    return "object", result.type_name


def _run_test(
    check: Check, preamble: str, results: Mapping[str, Sequence[tuple[str, ...]]], limits: sandbox.Limits
) -> tuple[str, object]:
    """What the test's process says of it: the kind of its end, and the calls or the line."""
    nonce = secrets.token_hex(8)
    request = marshal.dumps((nonce, preamble, check.source, check.names, dict(results)))
    # What the test expects is in this process, whoever may learn of its calls.
    outcome = sandbox.run(_DRIVER, stdin=request, limits=replace(limits, output_bytes=_OUTPUT_BYTES), has_secret=True)
    for line in io.BytesIO(outcome.result):
        fields = line.rstrip(b"\n").decode("utf-8", "backslashreplace").split(" ", 2)
        if len(fields) == 3 and fields[0] == nonce:
            try:
                return fields[1], read_literal(fields[2], most_values=_MOST_CALLS)
            except ValueError:  # it is no text of the driver's, which a test may keep from writing
                break
    return "failed", None


def _line(check: Check, number: object) -> str:
    lines = check.source.split("\n")
    return lines[number - 1].strip() if isinstance(number, int) and 1 <= number <= len(lines) else ""
