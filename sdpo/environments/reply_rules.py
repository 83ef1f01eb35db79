"""Does an environment of several turns answer whatever it is told? Only where it has a ``reply``."""

from __future__ import annotations

from collections.abc import Iterator

from sdpo.environments.battery import HOSTILE, JUNK, NOTHING
from sdpo.environments.findings import Finding, error
from sdpo.environments.task_rules import described
from sdpo.envs.base import Conversational, Environment
from sdpo.types import Message, Role, Task


def finds_in_reply(environment: Environment, task: Task) -> Iterator[Finding]:
    """A first turn of each hostile kind, and each once more in a conversation that went on."""
    if not isinstance(environment, Conversational):
        return
    for answer in (NOTHING, JUNK, *HOSTILE):
        turn = Message(role=Role.assistant, content=answer.text)
        for transcript in ((turn,), (turn, Message(role=Role.user, content="Go on."), turn)):
            where = f"reply, task {task.id!r}, turn {answer.name!r}"
            try:
                said: object = environment.reply(task, transcript)
            except (Exception, SystemExit) as failure:  # noqa: BLE001 - an environment may raise anything
                yield error(
                    "reply", where, f"raised {described(failure)}", "Say what is wrong with the turn, or return None to end."
                )
                continue
            if said is not None and not isinstance(said, str):
                yield error("reply", where, f"returned a {type(said).__name__}", "Return text, or None to end.")
