"""``sdpo envs sample NAME``: what does an environment ask, and what does it say of a few answers, or of one's own?"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sdpo.environments.battery import JUNK, NOTHING
from sdpo.environments.dialogue import played
from sdpo.environments.show import PANEL_WIDTH, beginning, limit_of, made, panel
from sdpo.environments.task_rules import described
from sdpo.environments.words import Words
from sdpo.envs.base import Conversational, Environment, HasReference
from sdpo.envs.judging import reference_of, verdict_of
from sdpo.errors import UserError
from sdpo.terminal.printable import printable
from sdpo.types import Message, Role, Task

SETTINGS = ("split", "seed", "answer", "tasks_limit_s")
MOST_CHARS = 300
"""Most characters of an answer or of feedback."""
MOST_ANSWER_BYTES = 1 << 20
NUM_TURNS = 3
"""Turns of the policy in a dialogue, where the environment goes on for so long."""
TURN_LINE = "---"
"""Stands alone on a line between two turns of an answer of one's own."""


def sample_tasks(spec: str, count: int, words: Words) -> int:
    """The first ``count`` tasks of a split, each with the verdicts on nothing, on junk, on the reference and on ``answer=``.

    With an environment that replies, each is also a dialogue in which the policy says the same again and again.
    """
    answer = _own_answer(words.settings["answer"]) if "answer" in words.settings else None
    limit = limit_of(words)
    environment = made(spec, words.options)
    split = words.settings.get("split", "train")
    tasks = beginning(environment, split, words.count("seed", 0, least=0), count, limit)
    console = Console(highlight=False)
    width = min(PANEL_WIDTH, console.width)
    for task in tasks.first:
        console.print(panel(task, console))
        console.print(_verdicts(environment, task, answer, width))
        if isinstance(environment, Conversational):
            own_turns = [JUNK.text] * NUM_TURNS if answer is None else _turns(answer)
            console.print(_dialogue(environment, task, own_turns, width))
    console.print(f"{len(tasks.first)} of {tasks.num_tasks} tasks of the split {escape(split)!r}")
    return 0


def _own_answer(words: str) -> str:
    """The text itself, or what the file behind ``@`` holds. Raises UserError."""
    if not words.startswith("@"):
        return words
    file = Path(words[1:]).expanduser()
    try:
        if file.stat().st_size > MOST_ANSWER_BYTES:
            raise UserError(f"answer=@FILE must name a file of at most 1 MiB; {file} has {file.stat().st_size:,} bytes")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"answer=@FILE must name a text file that can be read; {file} cannot: {error}") from error


def _turns(answer: str) -> list[str]:
    return [turn.strip("\n") for turn in f"\n{answer}\n".split(f"\n{TURN_LINE}\n")]


def _verdicts(environment: Environment, task: Task, answer: str | None, width: int) -> Table:
    table = Table("answer", "reward", "feedback", width=width)
    for tried in (NOTHING, JUNK):
        table.add_row(_shown(tried.name, tried.text), *_judged(environment, task, tried.text))
    if isinstance(environment, HasReference):
        try:
            reference = reference_of(environment, task)
        except Exception as error:  # noqa: BLE001 - an environment may raise anything; it is shown
            table.add_row("[bold]the reference[/]", "", f"[red]raised {_short(described(error))}[/]")
        else:
            table.add_row(_shown("the reference", reference), *_judged(environment, task, reference))
    if answer is not None and not isinstance(environment, Conversational):
        table.add_row(_shown("your answer", answer), *_judged(environment, task, answer))
    return table


def _dialogue(environment: Conversational, task: Task, own_turns: list[str], width: int) -> Table:
    """What is said in turn, and the verdict on all of it."""
    table = Table("who", "says", width=width, title="a dialogue", title_justify="left")
    try:
        transcript = played(environment, task, own_turns)
    except Exception as error:  # noqa: BLE001 - as above
        table.add_row("environment", f"[red]raised {_short(described(error))}[/]")
        return table
    for message in transcript:
        table.add_row("policy" if message.role is Role.assistant else "environment", _short(message.content))
    table.add_row("[bold]verdict[/]", " ".join(_ruled(environment, task, transcript)))
    return table


def _judged(environment: Environment, task: Task, answer: str) -> tuple[str, str]:
    return _ruled(environment, task, (Message(role=Role.assistant, content=answer),))


def _ruled(environment: Environment, task: Task, transcript: tuple[Message, ...]) -> tuple[str, str]:
    """Reward and feedback, as the table shows them."""
    try:
        verdict = verdict_of(environment, task, transcript)
    except Exception as error:  # noqa: BLE001 - as above
        return "", f"[red]raised {_short(described(error))}[/]"
    colour = "green" if verdict.is_solved else "yellow"
    return f"[{colour}]{verdict.reward:g}[/]", _short(verdict.feedback or "")


def _shown(name: str, text: str) -> str:
    return f"[bold]{escape(name)}[/]\n{_short(text)}" if text else f"[bold]{escape(name)}[/]"


def _short(text: str) -> str:
    text = printable(text)
    return escape(text if len(text) <= MOST_CHARS else f"{text[:MOST_CHARS]} …")
