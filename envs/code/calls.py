"""How does an answer that is a function do on its tests?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sdpo.envs.code.checks import Checked, run_check
from sdpo.envs.code.execution import Answer, Call, Execution, Raised, Result, Returned, ReturnedObject, make_calls
from sdpo.envs.code.literals import is_equal, is_same, shown
from sdpo.envs.code.reasons import Finding, hidden_remark, raised_remark, unfinished
from sdpo.envs.code.remarks import Remark, Value
from sdpo.envs.code.trials import Equality, FunctionTests, Trial, call_text
from sdpo.envs.literal_text import num_values
from sdpo.envs.sandbox import Limits

_BY_ITSELF = "ended the program instead of returning"


def try_visible(answer: Answer, tests: FunctionTests, limits: Limits) -> Finding:
    """Make the visible calls, all in one process; where there are none, put the answer to the question's own test."""
    if not tests.visible:
        checked = run_check(answer, tests, limits, is_hidden=False)
        return Finding(
            num_passed=int(checked.is_passed),
            is_loaded=checked.is_loaded,
            remark=None if checked.is_passed else _check_remark(checked, tests.function, answer.source),
        )
    execution = _execute(answer, tests.function, tests.visible, limits, is_hidden=False)
    return Finding(
        num_passed=_num_passed(execution, tests.visible),
        is_loaded=execution.is_loaded,
        remark=_remark(execution, tests.visible, tests.function, answer.source),
    )


def try_hidden(answer: Answer, tests: FunctionTests, limits: Limits) -> Finding:
    """Make the hidden calls, all in one process, then put the answer to the question's own test. Say nothing of either."""
    execution = _execute(answer, tests.function, tests.hidden, limits, is_hidden=True)
    passed = _num_passed(execution, tests.hidden)
    raised = next((result for result in execution.results if isinstance(result, Raised)), None)
    stopped = None
    if execution.is_loaded and None in execution.results:
        stopped = unfinished(execution.ending, execution.limits, by_itself=_BY_ITSELF)
    if tests.check is not None and passed == len(tests.hidden):
        checked = run_check(answer, tests, limits, is_hidden=True)
        passed += checked.is_passed
        raised = checked.result if isinstance(checked.result, Raised) else None
        if checked.call is not None and checked.result is None and checked.execution is not None:
            stopped = unfinished(checked.execution.ending, checked.execution.limits, by_itself=_BY_ITSELF)
    remark = hidden_remark(raised, stopped, "the function is not right for every input")
    return Finding(num_passed=passed, is_loaded=execution.is_loaded, remark=None if passed == tests.num_hidden else remark)


def _check_remark(checked: Checked, function: str, source: str) -> Remark:
    if checked.execution is not None and not checked.is_loaded:
        return _unloaded(checked.execution, function, source) or (
            f"The program {unfinished(checked.execution.ending, checked.execution.limits, by_itself=_BY_ITSELF)}.",
        )
    if checked.call is not None:
        call = Value(call_text(function, checked.call))
        if isinstance(checked.result, Raised):
            return (call, " raised ", *raised_remark(checked.result, source), ".")
        assert checked.execution is not None
        return (call, f" {unfinished(checked.execution.ending, checked.execution.limits, by_itself=_BY_ITSELF)}.")
    if not checked.line:
        return ("The question's own test was not passed in time.",)
    return ("The question's own test fails at ", Value(checked.line), ".")


def _execute(answer: Answer, function: str, trials: Sequence[Trial], limits: Limits, *, is_hidden: bool) -> Execution:
    longest = max((len(shown(trial.expected)) for trial in trials), default=0)
    calls = [
        Call(
            arguments=trial.arguments,
            views=trial.views,
            is_plain=trial.equality is Equality.python,
            num_expected=num_values(trial.expected),
        )
        for trial in trials
    ]
    return make_calls(answer, function, calls, limits, is_hidden=is_hidden, longest=longest)


def _num_passed(execution: Execution, trials: Sequence[Trial]) -> int:
    return sum(_passes(result, trial) for result, trial in zip(execution.results, trials, strict=True))


def _passes(result: Result | None, trial: Trial) -> bool:
    if not isinstance(result, Returned):
        return False
    if trial.equality is Equality.strict and is_same(trial.expected, result.value):
        return True
    if trial.equality is Equality.python and is_equal(trial.expected, result.value, tuples_are_lists=trial.is_json):
        return True
    return _is_near(result.value, trial)


def _is_near(value: object, trial: Trial) -> bool:
    if not (isinstance(value, (int, float)) and isinstance(trial.expected, (int, float))):
        return False
    if isinstance(value, bool) or isinstance(trial.expected, bool) or not (trial.tolerance > 0 or trial.relative > 0):
        return False
    try:
        return math.isclose(value, trial.expected, rel_tol=trial.relative, abs_tol=trial.tolerance)
    except OverflowError:  # an integer beyond every float
        return False


def _remark(execution: Execution, trials: Sequence[Trial], function: str, source: str) -> Remark | None:
    if (unloaded := _unloaded(execution, function, source)) is not None:
        return unloaded
    outcomes = [
        (Value(call_text(function, trial.arguments, trial.views)), trial, result)
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
        expected = Value(shown(trial.expected))
        if isinstance(result, ReturnedObject):
            return (call, " returned an object of type ", Value(result.type_name), ", but ", expected, " was expected.")
        if isinstance(result, Returned) and not _passes(result, trial):
            return (call, " returned ", Value(result.text), ", but ", expected, " was expected.")
    return None


def _unloaded(execution: Execution, function: str, source: str) -> Remark | None:
    """Why the function could not even be called; None where it could, or where a limit kept it from that."""
    if execution.loading is not None:
        return (*raised_remark(execution.loading, source), ".")
    if execution.is_missing:
        return ("The answer does not define a function named ", Value(function), ".")
    return None
