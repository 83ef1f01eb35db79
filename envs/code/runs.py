"""How does an answer that is a program do on its tests?

Each test is a process of its own. The visible tests share four times the time that one may take, and so do the hidden ones. A
program that hit a limit once is not run again, and what was not run is not passed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from sdpo.envs.code.execution import Answer, Run, run_program
from sdpo.envs.code.printed import is_same_line, is_same_output, lines_of
from sdpo.envs.code.reasons import Finding, hidden_remark, raised_remark, unfinished
from sdpo.envs.code.remarks import Remark, Value
from sdpo.envs.code.trials import ProgramTests, ProgramTrial
from sdpo.envs.sandbox import Ending, Limits

MOST_TIMES = 4
"""All visible runs, and all hidden ones, take no longer than so many times what one may."""
_LEAST_S = 0.1
_MOST_LINES = 1000
"""Of what was printed, so many lines are told apart, or one more than were expected."""
_BY_ITSELF = "ended with an error code"


def try_visible(answer: Answer, tests: ProgramTests, limits: Limits) -> Finding:
    """Run the program on the visible inputs."""
    runs = _runs(answer, tests.visible, limits, is_hidden=False)
    return Finding(
        num_passed=_num_passed(runs, tests.visible),
        is_loaded=runs[0].is_loaded,
        remark=_remark(runs, tests.visible, answer.source),
    )


def try_hidden(answer: Answer, tests: ProgramTests, limits: Limits) -> Finding:
    """Run the program on the hidden inputs, and say nothing of them."""
    runs = _runs(answer, tests.hidden, limits, is_hidden=True)
    passed = _num_passed(runs, tests.hidden)
    raised = next((run.raised for run in runs if run.raised is not None), None)
    stopped = next((_unfinished(run) for run in runs if _is_stopped(run)), None)
    if stopped is None and len(runs) < len(tests.hidden):
        stopped = "was not reached in time: the program is too slow"
    remark = hidden_remark(raised, stopped, "the program is not right for every input")
    return Finding(
        num_passed=passed,
        is_loaded=all(run.is_loaded for run in runs),
        remark=None if passed == len(tests.hidden) else remark,
    )


def _runs(answer: Answer, trials: Sequence[ProgramTrial], limits: Limits, *, is_hidden: bool) -> list[Run]:
    """One for each trial in order, up to the first after which no other is worth its time."""
    deadline = time.monotonic() + MOST_TIMES * limits.wall_s
    runs: list[Run] = []
    for trial in trials:
        left_s = deadline - time.monotonic()
        if left_s < _LEAST_S:
            break
        longest = len(trial.expected.encode("utf-8", "replace"))
        within = replace(limits, wall_s=min(limits.wall_s, left_s))
        runs.append(run_program(answer, trial.stdin, within, is_hidden=is_hidden, longest=longest))
        if not runs[-1].is_loaded or _is_stopped(runs[-1]):
            break
    return runs


def _num_passed(runs: Sequence[Run], trials: Sequence[ProgramTrial]) -> int:
    return sum(_passes(run, trial) for run, trial in zip(runs, trials, strict=False))


def _passes(run: Run, trial: ProgramTrial) -> bool:
    return run.raised is None and run.ending is Ending.ok and is_same_output(trial.expected, run.printed)


def _is_stopped(run: Run) -> bool:
    return run.raised is None and run.ending is not Ending.ok


def _unfinished(run: Run) -> str:
    return unfinished(run.ending, run.limits, by_itself=_BY_ITSELF)


def _remark(runs: Sequence[Run], trials: Sequence[ProgramTrial], source: str) -> Remark | None:
    outcomes = list(zip(runs, trials, strict=False))
    for run, trial in outcomes:
        if run.raised is not None:
            on_input = (" on the input ", Value(repr(trial.stdin))) if run.is_loaded else ()
            return (*raised_remark(run.raised, source), *on_input, ".")
    for run, trial in outcomes:
        if _is_stopped(run):
            return (f"The program {_unfinished(run)} on the input ", Value(repr(trial.stdin)), ".")
    for run, trial in outcomes:
        if not _passes(run, trial):
            return _wrong(trial, run.printed)
    if len(runs) < len(trials):
        return ("The program is too slow: not all visible tests were reached in time.",)
    return None


def _wrong(trial: ProgramTrial, printed: str) -> Remark:
    wanted = lines_of(trial.expected)
    got = lines_of(printed, most=max(len(wanted) + 1, _MOST_LINES))
    on_input: Remark = ("On the input ", Value(repr(trial.stdin)))
    if not got:
        return (*on_input, " the program printed nothing, but ", Value(repr("\n".join(wanted))), " was expected.")
    if max(len(wanted), len(got)) == 1:
        return (
            *on_input,
            " the program printed ",
            Value(repr(got[0])),
            ", but ",
            Value(repr("\n".join(wanted))),
            " was expected.",
        )
    agreeing = zip(wanted, got, strict=False)
    number = next((i for i, (line, other) in enumerate(agreeing) if not is_same_line(line, other)), min(len(wanted), len(got)))
    theirs = Value(repr(got[number])) if number < len(got) else "missing"
    ours = (Value(repr(wanted[number])), " was expected there") if number < len(wanted) else ("no such line was expected",)
    return (
        *on_input,
        " the program printed ",
        Value(repr("\n".join(got))),
        ", but ",
        Value(repr("\n".join(wanted))),
        f" was expected: line {number + 1} is ",
        theirs,
        ", but ",
        *ours,
        ".",
    )
