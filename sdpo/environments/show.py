"""``sdpo envs list`` and ``sdpo envs show NAME``: what is installed, and what is one environment about?"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from sdpo.environments.words import Words
from sdpo.envs import registry
from sdpo.envs.base import Conversational, Environment, LeavesOut
from sdpo.envs.listing import LIMIT_S, Endless, Limit, listed
from sdpo.errors import UserError
from sdpo.terminal.printable import printable
from sdpo.types import Task

SPLITS = ("train", "heldout")
PANEL_WIDTH = 100
SETTINGS = ("tasks_limit_s",)


def list_environments() -> int:
    """Every installed environment: its name, its class, the class's first sentence and the options it cannot do without."""
    table = Table("name", "class", "what it asks", "needs")
    for name, where in registry.available().items():
        try:
            environment_class = registry.find_class(name)
        except ValueError as error:
            table.add_row(name, where, f"[red]cannot be imported: {escape(str(error))}[/]", "")
            continue
        needed = ", ".join(registry.needed_options(name))
        table.add_row(name, where, escape(_doc(environment_class).partition("\n")[0]), needed)
    Console().print(table)
    return 0


def show_environment(spec: str, words: Words) -> int:
    """What it says of itself, its options, its splits and one task of each. Raises UserError, as a sentence."""
    limit = limit_of(words)
    try:
        environment_class = registry.find_class(spec)
    except ValueError as error:
        raise UserError(str(error)) from error
    console = Console(highlight=False)
    console.print(f"[bold]{escape(spec)}[/]  {escape(_doc(environment_class))}")
    console.print(_options(environment_class))
    environment = made(spec, words.options)
    if isinstance(environment, Conversational):
        console.print("It replies between the policy's turns: train with sampling.max_turns=2 or more.")
    for split in SPLITS:
        tasks = beginning(environment, split, 0, count=1, limit=limit)
        console.print(f"[bold]{split}[/]: {tasks.num_tasks} tasks")
        for task in tasks.first:
            console.print(panel(task, console))
    if said := left_out(environment):
        console.print(escape(said))
    return 0


def left_out(environment: Environment) -> str:
    """A sentence on what its files hold and it cannot use; empty where that is nothing."""
    if not isinstance(environment, LeavesOut) or not environment.left_out:
        return ""
    return "Left out: " + "; ".join(f"{number} ({reason})" for reason, number in environment.left_out.items()) + "."


def made(spec: str, options: Mapping[str, object]) -> Environment:
    """Raises UserError where it cannot be made."""
    try:
        return registry.make(spec, options)
    except ValueError as error:
        raise UserError(str(error)) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The beginning of a split."""

    num_tasks: int
    """Number of tasks in the whole split."""
    first: tuple[Task, ...]


def limit_of(words: Words) -> Limit:
    """How long the tasks may take."""
    seconds = words.seconds("tasks_limit_s", LIMIT_S)
    return Limit(computing_s=seconds, waiting_s=seconds)


def beginning(environment: Environment, split: str, seed: int, count: int, limit: Limit) -> Split:
    """At most ``count`` tasks. Raises UserError for a split that it does not have, and for whatever else keeps them away."""
    try:
        tasks = listed(environment, split, seed, limit)
        return Split(num_tasks=len(tasks), first=tuple(tasks[index] for index in range(min(count, len(tasks)))))
    except (Endless, ValueError) as error:
        raise UserError(str(error)) from error
    except Exception as error:
        raise UserError(
            f"tasks({split!r}, {seed}) must return a sequence of tasks, or raise ValueError for a split that there is not; "
            f"environment {environment.name!r} raised {type(error).__name__}: {error}; sdpo envs check says more"
        ) from error


def panel(task: Task, console: Console) -> Panel:
    """A task as its student reads it."""
    text = "\n\n".join(f"{message.role.value}: {message.content}" for message in task.messages)
    return Panel(escape(printable(text)), title=escape(printable(task.id)), width=min(PANEL_WIDTH, console.width))


def _options(environment_class: type) -> Table:
    table = Table("option", "type", "default", title="options", title_justify="left")
    for parameter in registry.options_of(environment_class):
        annotation = "" if parameter.annotation is parameter.empty else inspect.formatannotation(parameter.annotation)
        default = "[bold]required[/]" if parameter.default is parameter.empty else escape(repr(parameter.default))
        table.add_row(parameter.name, escape(annotation.strip("'")), default)
    return table


def _doc(environment_class: type) -> str:
    return inspect.getdoc(environment_class) or ""
