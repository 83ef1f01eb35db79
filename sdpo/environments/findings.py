"""What does a check have to say of an environment? Findings, each with its severity, its place and its remedy."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import Enum

MOST_FINDINGS_OF_A_RULE = 4


class Severity(str, Enum):
    """How bad it is."""

    error = "error"
    """Breaks a rule of the interface: a run would stop, set attempts aside, or learn what it must not."""
    warning = "warning"
    """Works, but costs time or learning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    severity: Severity
    rule: str
    """The rule's short name: ``"unique-ids"``."""
    where: str
    """A method, and the split or the task: ``"tasks('train', 0)"``."""
    what: str
    """What was found, as half a sentence."""
    remedy: str
    """What to do about it."""

    def __str__(self) -> str:
        return f"{self.severity.value} [{self.rule}] {self.where}: {self.what}. {self.remedy}"


def error(rule: str, where: str, what: str, remedy: str) -> Finding:
    return Finding(severity=Severity.error, rule=rule, where=where, what=what, remedy=remedy)


def warning(rule: str, where: str, what: str, remedy: str) -> Finding:
    return Finding(severity=Severity.warning, rule=rule, where=where, what=what, remedy=remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """All that was found, and how much was looked at."""

    env: str
    """As it was asked for: a name, ``module:Class`` or ``file.py:Class``."""
    findings: tuple[Finding, ...]
    """Errors first."""
    num_tasks: int
    """Tasks whose ids, messages and splits were looked at."""
    num_verdicts: int
    """Calls of ``verify`` that were timed."""
    median_verify_s: float
    longest_verify_s: float

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity is Severity.error)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity is Severity.warning)

    def __str__(self) -> str:
        """For a failed assertion: a finding a line, then the summary."""
        return "\n".join([*map(str, self.findings), self.summary])

    @property
    def summary(self) -> str:
        """The last line of a check."""
        counts = f"{_counted(len(self.errors), 'error')}, {_counted(len(self.warnings), 'warning')}"
        return (
            f"{self.env}: {counts}; {_counted(self.num_tasks, 'task')} and {_counted(self.num_verdicts, 'verdict')} looked at; "
            f"a verdict took {self.median_verify_s:.2g} s (median), {self.longest_verify_s:.2g} s at most"
        )

    def as_json(self) -> str:
        """One object, for another program."""
        fields = asdict(self)
        fields["is_sound"] = not self.errors
        return json.dumps(fields, indent=2)


def condensed(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, what was found in many places once with their count, and no rule more than a few times."""
    places: dict[tuple[Severity, str, str], list[Finding]] = {}
    for finding in findings:
        places.setdefault((finding.severity, finding.rule, finding.what), []).append(finding)
    kept: list[Finding] = []
    of_rule: dict[tuple[Severity, str], int] = {}
    for (severity, rule, _), alike in sorted(places.items(), key=lambda item: item[0][0] is not Severity.error):
        of_rule[severity, rule] = of_rule.get((severity, rule), 0) + 1
        if of_rule[severity, rule] <= MOST_FINDINGS_OF_A_RULE:
            others = len({finding.where for finding in alike}) - 1
            kept.append(replace(alike[0], where=f"{alike[0].where} and {others} more") if others else alike[0])
    return tuple(kept)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
