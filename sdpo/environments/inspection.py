"""Is an environment sound? It is examined in a process of its own, and once more in another: ``check``.

So a verifier that hangs, crashes or leaves things behind cannot harm whoever asks. What depends on the process comes out
differently in the second one: the order of a set, the global random generator, tasks that were pickled.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from statistics import median

from sdpo.environments.findings import Finding, Inspection, condensed, error, warning
from sdpo.environments.process import Examination, conduct
from sdpo.environments.records import Request
from sdpo.environments.verdict_rules import difference
from sdpo.envs.listing import LIMIT_S
from sdpo.errors import UserError
from sdpo.plugins.seam import anywhere

NUM_TASKS = 3
VERDICT_LIMIT_S = 30.0


def check(
    spec: str,
    options: Mapping[str, object] | None = None,
    *,
    num_tasks: int = NUM_TASKS,
    verdict_limit_s: float = VERDICT_LIMIT_S,
    train_split: str = "train",
    heldout_split: str = "heldout",
    tasks_limit_s: float = LIMIT_S,
) -> Inspection:
    """Everything that is wrong with the environment ``spec``; ``num_tasks`` of each split are answered, some thirty times each.

    Raises UserError where it cannot be made with ``options``.
    """
    if num_tasks < 1:
        raise UserError(f"tasks must be at least 1 (verdicts are on tasks); got {num_tasks}")
    request = Request(
        spec=anywhere(spec),
        options=dict(options or {}),
        train_split=train_split,
        heldout_split=heldout_split,
        num_tasks=num_tasks,
        verdict_limit_s=verdict_limit_s,
        tasks_limit_s=tasks_limit_s,
        search_path=tuple(sys.path),
        restored={},
    )
    first = conduct(request, hash_seed=1)
    if first.refusal is not None:
        raise UserError(first.refusal)
    findings = [*first.findings, *_finds_in_imports(first)]
    restored = {split: listed.pickled for split, listed in first.listed.items() if listed.pickled}
    if restored and not any(finding.rule in ("hangs", "endless-tasks") for finding in findings):
        findings += _finds_in_repetition(first, conduct(replace(request, restored=restored), hash_seed=2))
    seconds = first.seconds
    return Inspection(
        env=spec,
        findings=condensed(findings),
        num_tasks=sum(len(listed.fingerprints) for listed in first.listed.values()),
        num_verdicts=len(seconds),
        median_verify_s=median(seconds) if seconds else 0.0,
        longest_verify_s=max(seconds, default=0.0),
    )


def _finds_in_imports(examination: Examination) -> Iterator[Finding]:
    if examination.heavy:
        yield warning(
            "heavy-imports",
            "the module",
            f"imports {', '.join(examination.heavy)}",
            "Every verifier's process pays for it in seconds and memory; import sdpo.types and what judging needs.",
        )


def _finds_in_repetition(first: Examination, again: Examination) -> Iterator[Finding]:
    """What another process saw differently, unless it is unsteady within one process already."""
    elsewhere = "in a fresh process with another PYTHONHASHSEED"
    if again.refusal is not None:
        yield error("fresh-process", "the constructor", f"{elsewhere}: {again.refusal}", "It must depend on its options alone.")
        return
    said = {(finding.rule, finding.what) for finding in first.findings}
    for finding in again.findings:
        if (finding.rule, finding.what) not in said:
            yield replace(finding, what=f"{finding.what}, {elsewhere}, where the task came pickled")
    rules = {finding.rule for finding in first.findings}
    for split, listed in first.listed.items():
        other = again.listed.get(split)
        if "repeatable-tasks" not in rules and other is not None and listed.fingerprints != other.fingerprints:
            pairs = zip(listed.fingerprints, other.fingerprints, strict=False)
            changed = [one[0] for one, two in pairs if one != two]
            yield error(
                "fresh-process",
                f"tasks({split!r}, 0)",
                f"differs {elsewhere}" + (f", first at task {changed[0]!r}" if changed else " in the number of tasks"),
                "Never iterate over a set or use hash(): sort, or use hashlib.",
            )
    if not rules & {"repeatable-verdicts", "order-of-answers"}:
        for (task, answer), ruling in first.rulings.items():
            other_ruling = again.rulings.get((task, answer))
            changed_by = None if other_ruling is None else difference(ruling, other_ruling)
            if changed_by is not None:
                yield error(
                    "fresh-process",
                    f"verify, task {task!r}, answer {answer!r}",
                    f"{elsewhere}, where the task came pickled, {changed_by}",
                    "All that verify needs must travel in the payload, and sets have no order.",
                )
