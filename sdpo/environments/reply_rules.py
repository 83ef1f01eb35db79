"""Does an environment of several turns answer, and judge, whatever it is told? Only where it has ``reply`` and ``judge``."""

from __future__ import annotations

from collections.abc import Iterator

from sdpo.environments.battery import HOSTILE, JUNK, NOTHING
from sdpo.environments.findings import Finding, error
from sdpo.environments.task_rules import described
from sdpo.environments.verdict_rules import ruled_on
from sdpo.envs.base import Conversational, Environment, Message, Role, Task
from sdpo.envs.judging import InvalidReply, reply_of


def finds_in_reply(environment: Environment, task: Task) -> Iterator[Finding]:
    """A first turn of each hostile kind, and each once more in a conversation that went on, which is then judged."""
    if not isinstance(environment, Conversational):
        return
    for answer in (NOTHING, JUNK, *HOSTILE):
        turn = Message(role=Role.assistant, content=answer.text)
        for transcript in ((turn,), (turn, Message(role=Role.user, content="Go on."), turn)):
            where = f"reply, task {task.id!r}, turn {answer.name!r}"
            try:
                reply_of(environment, task, transcript)
            except InvalidReply as failure:
                yield error("reply", where, str(failure), "Return text, or None to end.")
            except (Exception, SystemExit) as failure:  # noqa: BLE001 - an environment may raise anything
                yield error(
                    "reply", where, f"raised {described(failure)}", "Say what is wrong with the turn, or return None to end."
                )
        ruling = ruled_on(environment, task, transcript, f"judge, task {task.id!r}, two turns {answer.name!r}")
        if isinstance(ruling, Finding):
            yield ruling
