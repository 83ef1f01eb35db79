"""``sdpo envs sample NAME``: what does an environment ask, and what does it say of a few answers?"""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sdpo.environments.battery import JUNK, NOTHING
from sdpo.environments.show import PANEL_WIDTH, beginning, made, panel
from sdpo.environments.task_rules import described
from sdpo.environments.words import Words
from sdpo.envs.base import Environment, HasReference
from sdpo.envs.judging import reference_of, verdict_on
from sdpo.terminal.printable import printable
from sdpo.types import Task

SETTINGS = ("split", "seed")
MOST_CHARS = 300
"""Most characters of an answer or of feedback."""


def sample_tasks(spec: str, count: int, words: Words) -> int:
    """The first ``count`` tasks of a split, each with the verdicts on nothing, on junk and on the reference, if it has one."""
    environment = made(spec, words.options)
    split = words.settings.get("split", "train")
    tasks = beginning(environment, split, words.count("seed", 0, least=0), count)
    console = Console(highlight=False)
    for task in tasks.first:
        console.print(panel(task, console))
        console.print(_verdicts(environment, task, min(PANEL_WIDTH, console.width)))
    console.print(f"{len(tasks.first)} of {tasks.num_tasks} tasks of the split {escape(split)!r}")
    return 0


def _verdicts(environment: Environment, task: Task, width: int) -> Table:
    table = Table("answer", "reward", "feedback", width=width)
    for answer in (NOTHING, JUNK):
        table.add_row(_shown(answer.name, answer.text), *_judged(environment, task, answer.text))
    if isinstance(environment, HasReference):
        try:
            reference = reference_of(environment, task)
        except Exception as error:  # noqa: BLE001 - an environment may raise anything; it is shown
            table.add_row("[bold]the reference[/]", "", f"[red]raised {_short(described(error))}[/]")
        else:
            table.add_row(_shown("the reference", reference), *_judged(environment, task, reference))
    return table


def _judged(environment: Environment, task: Task, answer: str) -> tuple[str, str]:
    """Reward and feedback, as the table shows them."""
    try:
        verdict = verdict_on(environment, task, answer)
    except Exception as error:  # noqa: BLE001 - as above
        return "", f"[red]raised {_short(described(error))}[/]"
    colour = "green" if verdict.is_solved else "yellow"
    return f"[{colour}]{verdict.reward:g}[/]", _short(verdict.feedback or "")


def _shown(name: str, text: str) -> str:
    return f"[bold]{escape(name)}[/]\n{_short(text)}" if text else f"[bold]{escape(name)}[/]"


def _short(text: str) -> str:
    text = printable(text)
    return escape(text if len(text) <= MOST_CHARS else f"{text[:MOST_CHARS]} …")
