"""``sdpo envs list`` and ``sdpo envs show NAME``."""

from __future__ import annotations

import inspect

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from sdpo.envs import registry
from sdpo.errors import UserError
from sdpo.types import Task

SPLITS = ("train", "heldout")
NUM_SAMPLES = 2


def list_environments() -> int:
    """Every installed environment: its name, its class and the class's first sentence."""
    table = Table("name", "class", "what it asks")
    for name, where in sorted(registry.available().items()):
        try:
            what = (inspect.getdoc(type(registry.make(name, {}))) or "").split("\n")[0]
        except ValueError as error:
            what = f"cannot be made: {error}"
        table.add_row(name, where, escape(what))
    Console().print(table)
    return 0


def show_environment(name: str) -> int:
    """Options, splits and sample tasks of one environment."""
    try:
        environment = registry.make(name, {})
    except ValueError as error:
        raise UserError(str(error)) from error
    console = Console()
    console.print(f"[bold]{escape(environment.name)}[/]  {escape(inspect.getdoc(type(environment)) or '')}", highlight=False)
    console.print(f"options: {escape(str(inspect.signature(type(environment))))}", highlight=False)
    for split in SPLITS:
        tasks = environment.tasks(split, 0)
        console.print(f"\n[bold]{split}[/]: {len(tasks)} tasks", highlight=False)
        for index in range(min(NUM_SAMPLES, len(tasks))):
            console.print(_sample(tasks[index]))
    return 0


def _sample(task: Task) -> Panel:
    text = "\n\n".join(f"{message.role.value}: {message.content}" for message in task.messages)
    return Panel(escape(text), title=escape(task.id), width=100)
