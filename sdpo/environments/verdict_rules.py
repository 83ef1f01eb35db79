"""Do an environment's verdicts keep the rules? Never an exception, in range, the same each time, with feedback that tells."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from sdpo.environments.battery import JUNK, LOOSE, NOTHING, THE_QUESTION
from sdpo.environments.cases import Case
from sdpo.environments.findings import Finding, error, warning
from sdpo.environments.leaks import leak_in
from sdpo.environments.records import Ruling
from sdpo.environments.task_rules import SPECIAL_TOKENS, described, prompt
from sdpo.envs.base import Environment, Message, Role, Task
from sdpo.envs.judging import verdict_of
from sdpo.types import InvalidVerdict

SLOW_S = 1.0
NUM_THREADS = 8
MOST_FEEDBACK_CHARS = 4_000
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Neither a tab nor an end of a line, but NUL, the escape that begins an ANSI sequence, and bidirectional marks."""


def ruled(environment: Environment, case: Case) -> Ruling | Finding:
    """The verdict, or what is wrong with how it was given."""
    return ruled_on(environment, case.task, (Message(role=Role.assistant, content=case.answer.text),), case.where)


def ruled_on(environment: Environment, task: Task, transcript: Sequence[Message], where: str) -> Ruling | Finding:
    """The same of a conversation."""
    try:
        verdict = verdict_of(environment, task, transcript)
    except InvalidVerdict as failure:
        rule = failure.part if failure.part in ("reward", "feedback-text") else "verdict"
        return error(rule, where, str(failure), "Return sdpo.types.Verdict(reward=…, feedback=…, metrics=…).")
    except (Exception, SystemExit) as failure:  # noqa: BLE001 - an environment may raise anything
        remedy = "A wrong or malformed answer is a Verdict(reward=0.0, feedback=…), never an exception."
        return error("verify-raises", where, f"raised {described(failure)}", remedy)
    return Ruling(reward=verdict.reward, feedback=verdict.feedback, metric_names=tuple(verdict.metrics))


def finds_in_rulings(cases: Iterable[Case], rulings: Mapping[tuple[str, str], Ruling]) -> Iterator[Finding]:
    """What the verdicts say, taken by themselves and together."""
    judged = [(case, rulings[case.key]) for case in cases if case.key in rulings]
    for case, ruling in judged:
        feedback = ruling.feedback
        if feedback is not None:
            yield from finds_in_text(case.where, "the feedback", feedback, case.answer.text)
        if feedback is not None and len(feedback) > MOST_FEEDBACK_CHARS:
            what = f"the feedback has more than {MOST_FEEDBACK_CHARS} characters"
            yield warning("long-feedback", case.where, what, "Quote only the beginning of an answer; what is too long is cut.")
        if case.answer in (NOTHING, JUNK) and ruling.reward >= 1.0:
            what = "is solved"
            yield warning("easy-reward", case.where, what, "If that is not what was asked for, verify rewards too much.")
        if case.answer.name in LOOSE and ruling.reward >= 1.0:
            what = f"{case.answer.name} is solved"
            remedy = "Read one answer, from a place that the question names, and compare all of it: guesses need not be right."
            yield warning("accepted-in-spam", case.where, what, remedy)
        yield from _leak(case, ruling)
    given_back = [ruling for case, ruling in judged if case.answer.name == THE_QUESTION]
    if len(given_back) > 1 and all(ruling.reward >= 1.0 for ruling in given_back):  # one may be right by chance
        what = "every question given back is solved"
        yield warning("answer-in-question", "verify", what, "Take the answer out of the question, or read only the answer.")
    failed = [ruling for _, ruling in judged if ruling.reward < 1.0]
    if failed and not any((ruling.feedback or "").strip() for ruling in failed):
        yield warning(
            "no-feedback",
            "verify",
            f"none of {len(failed)} failed answers was given feedback",
            "Say what is wrong with the answer: it is what SDPO learns from where no attempt was solved.",
        )


def _leak(case: Case, ruling: Ruling) -> Iterator[Finding]:
    """The reference in what is said of an answer that did not hold it itself."""
    if case.reference is None or ruling.reward >= 1.0:
        return
    known = f"{prompt(case.task)}\n{case.answer.text}"
    for what, text in (("the feedback", ruling.feedback or ""), ("a metric's name", "\n".join(ruling.metric_names))):
        how = leak_in(text, case.reference, known)
        if how is not None:
            yield leak(case.where, f"{what} holds the reference, or a line of it{how}", is_heldout=case.is_heldout)


def leak(where: str, what: str, *, is_heldout: bool) -> Finding:
    report = error if is_heldout else warning
    return report("leak", where, what, "Say what is wrong with this answer, never what would be right.")


def finds_in_text(where: str, what: str, text: str, known: str) -> Iterator[Finding]:
    """What a terminal, a file or a chat template takes for more than text. ``known``: what it may quote."""
    if _CONTROLS.search(text):
        marks = f"{what} holds control characters, or marks that turn the direction of writing"
        yield warning("feedback-text", where, marks, "Quote answers with repr(): a terminal or a page would obey them.")
    special = [found for found in SPECIAL_TOKENS.findall(text) if found not in known]
    if special:
        remedy = "Say it in words: what is special to a chat template is taken out of the text."
        yield warning("special-tokens", where, f"{what} holds {special[0]!r}", remedy)


def finds_in_reference(case: Case, ruling: Ruling) -> Iterator[Finding]:
    """``case.answer`` is the reference itself."""
    if ruling.reward < 1.0:
        what = f"its own reference has the reward {ruling.reward:g}"
        said = f" (feedback: {ruling.feedback[:120]!r})" if ruling.feedback else ""
        yield error("reference", case.where, what + said, "reference(task) must return a complete answer that verify gives 1.")


def difference(one: Ruling, other: Ruling) -> str | None:
    """How two verdicts on the same answer differ; None: not at all."""
    if one.reward != other.reward:
        return f"the reward was {one.reward:g} and then {other.reward:g}"
    return None if one.feedback == other.feedback else "the feedback changed its text"


def _changed(one: Ruling, other: Ruling | Finding) -> str | None:
    return "it raised or was no verdict this time" if isinstance(other, Finding) else difference(one, other)


def finds_in_repetition_of_verdicts(
    environment: Environment, cases: Sequence[Case], rulings: Mapping[tuple[str, str], Ruling]
) -> Iterator[Finding]:
    """Judge everything again, in the same order."""
    for case in cases:
        changed = _changed(rulings[case.key], ruled(environment, case))
        if changed is not None:
            what = f"judged twice, {changed}"
            yield error("repeatable-verdicts", case.where, what, "verify must depend on the task and the answer alone.")


def finds_in_order(
    environment: Environment, cases: Sequence[Case], rulings: Mapping[tuple[str, str], Ruling]
) -> Iterator[Finding]:
    """Judge everything again, last first."""
    for case in reversed(cases):
        changed = _changed(rulings[case.key], ruled(environment, case))
        if changed is not None:
            yield error(
                "order-of-answers",
                case.where,
                f"judged in another order, {changed}",
                "verify must not remember earlier calls: several processes share the answers out.",
            )


def finds_in_threads(
    environment: Environment, cases: Sequence[Case], rulings: Mapping[tuple[str, str], Ruling]
) -> Iterator[Finding]:
    """Judge everything again, several answers at a time."""
    together = threading.Barrier(NUM_THREADS)

    def judge(first: int) -> list[tuple[Case, Ruling | Finding]]:
        together.wait()
        return [(case, ruled(environment, case)) for case in cases[first::NUM_THREADS]]

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        judged = [pair for pairs in pool.map(judge, range(NUM_THREADS)) for pair in pairs]
    for case, again in judged:
        if isinstance(again, Finding):
            remedy = "Training calls it from the main thread of a process; signals and event loops keep it from serving threads."
            yield warning("threads", case.where, f"in a thread, {again.what}", remedy)
        else:
            changed = difference(rulings[case.key], again)
            if changed is not None:
                what = f"called from {NUM_THREADS} threads, {changed}"
                yield error("threads", case.where, what, "verify must keep nothing on self while it judges: use local names.")


def finds_in_seconds(seconds: Sequence[float]) -> Iterator[Finding]:
    if seconds and max(seconds) > SLOW_S:
        what = f"a verdict took {max(seconds):.1f} s"
        yield warning(
            "slow", "verify", what, "A step waits for its slowest verdict; raise rollout.num_verifiers, or judge quicker."
        )


def timed(environment: Environment, case: Case) -> tuple[Ruling | Finding, float]:
    began = time.perf_counter()
    ruling = ruled(environment, case)
    return ruling, time.perf_counter() - began
