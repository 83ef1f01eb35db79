"""How does an answer that is a function do on its tests?"""

from __future__ import annotations

from collections.abc import Sequence

from sdpo.envs.code.execution import Answer, Execution, Raised, Result, Returned, ReturnedObject, make_calls
from sdpo.envs.code.literals import is_same
from sdpo.envs.code.reasons import Finding, hidden_remark, raised_remark, unfinished
from sdpo.envs.code.remarks import Remark, Value
from sdpo.envs.code.trials import FunctionTests, Trial, call_text
from sdpo.envs.sandbox import Limits

_BY_ITSELF = "ended the program instead of returning"


def try_visible(answer: Answer, tests: FunctionTests, limits: Limits) -> Finding:
    """Make the visible calls, all in one process."""
    execution = _execute(answer, tests.function, tests.visible, limits)
    return Finding(
        num_passed=_num_passed(execution, tests.visible),
        is_loaded=execution.is_loaded,
        remark=_remark(execution, tests.visible, tests.function, answer.source),
    )


def try_hidden(answer: Answer, tests: FunctionTests, limits: Limits) -> Finding:
    """Make the hidden calls, all in one process, and say nothing of them."""
    execution = _execute(answer, tests.function, tests.hidden, limits)
    passed = _num_passed(execution, tests.hidden)
    raised = next((result for result in execution.results if isinstance(result, Raised)), None)
    stopped = unfinished(execution.ending, execution.limits, by_itself=_BY_ITSELF)
    is_stopped = execution.is_loaded and None in execution.results
    remark = hidden_remark(raised, stopped if is_stopped else None, "the function is not right for every input")
    return Finding(num_passed=passed, is_loaded=execution.is_loaded, remark=None if passed == len(tests.hidden) else remark)


def _execute(answer: Answer, function: str, trials: Sequence[Trial], limits: Limits) -> Execution:
    longest = max((len(repr(trial.expected)) for trial in trials), default=0)
    return make_calls(answer, function, [trial.arguments for trial in trials], limits, longest=longest)


def _num_passed(execution: Execution, trials: Sequence[Trial]) -> int:
    return sum(_passes(result, trial) for result, trial in zip(execution.results, trials, strict=True))


def _passes(result: Result | None, trial: Trial) -> bool:
    return isinstance(result, Returned) and (is_same(trial.expected, result.value) or _is_near(result.value, trial))


def _is_near(value: object, trial: Trial) -> bool:
    if not (isinstance(value, (int, float)) and isinstance(trial.expected, (int, float)) and trial.tolerance > 0):
        return False
    if isinstance(value, bool) or isinstance(trial.expected, bool):
        return False
    try:
        return abs(value - trial.expected) < trial.tolerance
    except OverflowError:  # an integer beyond every float
        return False


def _remark(execution: Execution, trials: Sequence[Trial], function: str, source: str) -> Remark | None:
    if execution.loading is not None:
        return (*raised_remark(execution.loading, source), ".")
    if execution.is_missing:
        return ("The answer does not define a function named ", Value(function), ".")
    outcomes = [
        (Value(call_text(function, trial.arguments)), trial, result)
        for trial, result in zip(trials, execution.results, strict=True)
    ]
    for call, _, result in outcomes:
        if isinstance(result, Raised):
            return (call, " raised ", *raised_remark(result, source), ".")
    for call, _, result in outcomes:
        if result is None:
            subject = call if execution.is_loaded else "The program"
            return (subject, f" {unfinished(execution.ending, execution.limits, by_itself=_BY_ITSELF)}.")
    for call, trial, result in outcomes:
        expected = Value(repr(trial.expected))
        if isinstance(result, ReturnedObject):
            return (call, " returned an object of type ", Value(result.type_name), ", but ", expected, " was expected.")
        if isinstance(result, Returned) and not _passes(result, trial):
            return (call, " returned ", Value(result.text), ", but ", expected, " was expected.")
    return None
