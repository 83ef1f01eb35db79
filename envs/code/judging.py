"""What is said of an answer, given what it did on the visible and on the hidden calls?

Only what the student may learn from: of a visible test the call, the expected and the actual value; of the hidden ones
that one failed, and at most the type of a built-in exception. Hidden calls are made in a process of their own, once all
visible ones pass: any text that the answer chose (a message, a value) is from a process that never saw a hidden call.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence

from sdpo.envs.code.execution import Execution, Raised, Result, Returned, ReturnedObject
from sdpo.envs.code.literals import is_same
from sdpo.envs.code.problem import Trial, call_text
from sdpo.envs.sandbox import Ending, Limits

NO_CODE = "No code was found: the answer must be one Python function in a ```python block."
_MAX_LINE_CHARS = 120
_HIDDEN = "All visible tests pass, but"


def num_passed(execution: Execution, trials: Sequence[Trial]) -> int:
    """Calls that returned what they should."""
    return sum(passes(result, trial) for result, trial in zip(execution.results, trials, strict=True))


def passes(result: Result | None, trial: Trial) -> bool:
    return isinstance(result, Returned) and is_same(trial.expected, result.value)


def feedback_on_visible(execution: Execution, trials: Sequence[Trial], function: str, source: str, limits: Limits) -> str | None:
    """The first reason in this order: an exception, a limit, a wrong value. None if every call passes."""
    if execution.loading is not None:
        return f"{_exception(execution.loading, source)}."
    if execution.is_missing:
        return f"The answer does not define a function named {function}."
    outcomes = [
        (call_text(function, trial.arguments), trial, result) for trial, result in zip(trials, execution.results, strict=True)
    ]
    for call, _, result in outcomes:
        if isinstance(result, Raised):
            return f"{call} raised {_exception(result, source)}."
    for call, _, result in outcomes:
        if result is None:
            return f"{call if execution.is_loaded else 'The program'} {_unfinished(execution.ending, limits)}."
    for call, trial, result in outcomes:
        if isinstance(result, ReturnedObject):
            return f"{call} returned an object of type {result.type_name}, but {trial.expected!r} was expected."
        if isinstance(result, Returned) and not passes(result, trial):
            return f"{call} returned {result.text}, but {trial.expected!r} was expected."
    return None


def feedback_on_hidden(execution: Execution, trials: Sequence[Trial], limits: Limits) -> str | None:
    """Without a call, a value or a message. None if every call passes."""
    if num_passed(execution, trials) == len(trials):
        return None
    raised = next((result for result in execution.results if isinstance(result, Raised)), None)
    if raised is not None:
        return f"{_HIDDEN} a hidden test raises {_builtin_name(raised)}."
    if execution.is_loaded and None in execution.results:
        return f"{_HIDDEN} a hidden test {_unfinished(execution.ending, limits)}."
    return f"{_HIDDEN} a hidden test fails: the function is not right for every input."


def _builtin_name(raised: Raised) -> str:
    """The name of one of Python's own exceptions, as any other is a text that the answer chose."""
    known = getattr(builtins, raised.type_name, None)
    is_builtin = isinstance(known, type) and issubclass(known, BaseException)
    return raised.type_name if is_builtin else "an exception"


def _unfinished(ending: Ending, limits: Limits) -> str:
    return {
        Ending.ok: "ended the program instead of returning",
        Ending.error: "ended the program instead of returning",
        Ending.timeout: f"did not finish within {limits.wall_s:g} seconds",
        Ending.memory: f"needed more than {limits.memory_bytes >> 20} MB of memory",
        Ending.output: f"printed more than {limits.output_bytes >> 10} kB",
        Ending.killed: "crashed the interpreter",
    }[ending]


def _exception(raised: Raised, source: str) -> str:
    """``NameError: name 'fib' is not defined (line 3: return fib(n-1))``"""
    lines = source.split("\n")
    text = f"{raised.type_name}: {raised.message}" if raised.message else raised.type_name
    if not 1 <= raised.line <= len(lines):
        return text
    line = lines[raised.line - 1].strip()[:_MAX_LINE_CHARS]
    return f"{text} (line {raised.line}: {line})" if line else f"{text} (line {raised.line})"
