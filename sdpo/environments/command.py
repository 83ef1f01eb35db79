"""``sdpo envs list | show | sample | check | rescore | new | prepare``: the words of the command line, and who answers them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sdpo.environments import rescore, sample, show
from sdpo.environments.findings import Inspection, Severity
from sdpo.environments.inspection import NUM_TASKS, check
from sdpo.environments.new import write_package
from sdpo.environments.preparing.command import run_prepare
from sdpo.environments.words import Words, told_apart
from sdpo.envs.listing import LIMIT_S
from sdpo.errors import UserError
from sdpo.terminal.printable import printable

CHECK_SETTINGS = ("json", "tasks", "train_split", "heldout_split", "tasks_limit_s")
UNFINISHED = 2
"""The exit code of a check that could not even list the tasks."""
NUM_SAMPLES = 2
COLOURS = {Severity.error: "bold red", Severity.warning: "yellow"}


def run_envs(words: Sequence[str]) -> int:
    """The exit code: 0, 1 where a check found errors, 2 where it found that the tasks never come. Raises UserError."""
    match list(words):
        case ["list"]:
            return show.list_environments()
        case ["show", spec, *rest]:
            return show.show_environment(spec, told_apart(rest, show.SETTINGS))
        case ["sample", spec, number, *rest] if number.isdecimal() and int(number) > 0:
            return sample.sample_tasks(spec, int(number), told_apart(rest, sample.SETTINGS))
        case ["sample", spec, *rest]:
            return sample.sample_tasks(spec, NUM_SAMPLES, told_apart(rest, sample.SETTINGS))
        case ["check", spec, *rest]:
            return _check(spec, told_apart(rest, CHECK_SETTINGS))
        case ["rescore", run, *rest]:
            return rescore.rescore(Path(run), told_apart(rest, rescore.SETTINGS))
        case ["new", name, *folder] if len(folder) <= 1:
            return _new(name, Path(folder[0]) if folder else Path(name))
        case ["prepare", name, *rest]:
            return run_prepare(name, rest)
    raise UserError(
        "sdpo envs takes list, show NAME, sample NAME [N], check NAME, rescore RUN, new NAME [FOLDER] or prepare NAME, as "
        "sdpo --help says; "
        f"got {' '.join(words)!r}"
    )


def _check(spec: str, words: Words) -> int:
    as_json = words.flag("json")
    inspection = check(
        spec,
        words.options,
        num_tasks=words.count("tasks", NUM_TASKS, least=1),
        train_split=words.settings.get("train_split", "train"),
        heldout_split=words.settings.get("heldout_split", "heldout"),
        tasks_limit_s=words.seconds("tasks_limit_s", LIMIT_S),
    )
    if as_json:
        print(inspection.as_json())
    else:
        _print(inspection)
    if any(finding.rule == "endless-tasks" for finding in inspection.errors):
        return UNFINISHED
    return 1 if inspection.errors else 0


def _print(inspection: Inspection) -> None:
    console = Console(highlight=False)
    if inspection.findings:
        table = Table("", "rule", "where", "what was found, and what to do", show_lines=True)
        for finding in inspection.findings:
            colour = COLOURS[finding.severity]
            table.add_row(
                f"[{colour}]{finding.severity.value}[/]",
                finding.rule,
                escape(printable(finding.where)),
                escape(printable(f"{finding.what}.\n{finding.remedy}")),
            )
        console.print(table)
    console.print(escape(printable(inspection.summary)), soft_wrap=True)


def _new(name: str, folder: Path) -> int:
    written = write_package(name, folder)
    console = Console(highlight=False)
    console.print(
        f"Wrote {escape(str(written.folder))}: the environment is {escape(str(written.module))}. Next:\n", soft_wrap=True
    )
    for line in (
        f"pip install -e {shlex.quote(str(folder))}",
        f"sdpo envs check {name}",
        f"sdpo envs sample {name}",
        f"sdpo train env=custom env.name={name}",
    ):
        console.print(f"  {escape(line)}", soft_wrap=True)
    return 0
