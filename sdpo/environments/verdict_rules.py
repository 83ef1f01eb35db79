"""Do an environment's verdicts keep the rules? Never an exception, in range, the same each time, with feedback that tells."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from sdpo.environments.battery import JUNK, NOTHING
from sdpo.environments.cases import Case
from sdpo.environments.findings import Finding, error, warning
from sdpo.environments.records import Ruling
from sdpo.environments.task_rules import described, prompt
from sdpo.envs.base import Environment, Message, Role, Task
from sdpo.envs.judging import verdict_of
from sdpo.types import InvalidVerdict

SLOW_S = 1.0
NUM_THREADS = 8
MOST_FEEDBACK_CHARS = 4_000
MIN_DISTINCTIVE_CHARS = 5
"""A reference shorter than this ("12", "yes") stands in innocent feedback by chance."""
MIN_DISTINCTIVE_LINE_CHARS = 16


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
    return Ruling(reward=verdict.reward, feedback=verdict.feedback)


def finds_in_rulings(cases: Iterable[Case], rulings: Mapping[tuple[str, str], Ruling]) -> Iterator[Finding]:
    """What the verdicts say, taken by themselves and together."""
    judged = [(case, rulings[case.key]) for case in cases if case.key in rulings]
    for case, ruling in judged:
        feedback = ruling.feedback
        if feedback is not None and len(feedback) > MOST_FEEDBACK_CHARS:
            what = f"the feedback has more than {MOST_FEEDBACK_CHARS} characters"
            yield warning("long-feedback", case.where, what, "Quote only the beginning of an answer; what is too long is cut.")
        if case.answer in (NOTHING, JUNK) and ruling.reward >= 1.0:
            what = "is solved"
            yield warning("easy-reward", case.where, what, "If that is not what was asked for, verify rewards too much.")
        yield from _leak(case, ruling)
    failed = [ruling for _, ruling in judged if ruling.reward < 1.0]
    if failed and not any((ruling.feedback or "").strip() for ruling in failed):
        yield warning(
            "no-feedback",
            "verify",
            f"none of {len(failed)} failed answers was given feedback",
            "Say what is wrong with the answer: it is what SDPO learns from where no attempt was solved.",
        )


def _leak(case: Case, ruling: Ruling) -> Iterator[Finding]:
    """The reference in the feedback to an answer that did not hold it itself."""
    if case.reference is None or ruling.feedback is None or ruling.reward >= 1.0:
        return
    known = f"{prompt(case.task)}\n{case.answer.text}"
    for secret in distinctive(case.reference):
        if secret in ruling.feedback and secret not in known:
            report = error if case.is_heldout else warning
            what = "the feedback holds the reference, or a line of it"
            yield report("leak", case.where, what, "Say what is wrong with this answer, never what would be right.")
            return


def distinctive(reference: str) -> list[str]:
    """The reference without tags and fences, and its longer lines: what cannot stand in feedback by chance."""
    bare = re.sub(r"</?\w+>|```\w*|\\boxed|\*\*", "\n", reference)
    lines = [line.strip() for line in bare.splitlines()]
    long = MIN_DISTINCTIVE_LINE_CHARS if len([line for line in lines if line]) > 1 else MIN_DISTINCTIVE_CHARS
    wholes = [whole for whole in (reference.strip(), bare.strip()) if len(whole) >= MIN_DISTINCTIVE_CHARS]
    return list(dict.fromkeys([*wholes, *(line for line in lines if len(line) >= long)]))


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
