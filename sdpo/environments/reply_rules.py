"""Does an environment of several turns keep up a conversation, whatever it is told? Only where it has ``reply`` and ``judge``."""

from __future__ import annotations

from collections.abc import Iterator

from sdpo.environments.battery import HOSTILE, JUNK, NOTHING
from sdpo.environments.findings import Finding, error, warning
from sdpo.environments.leaks import leak_in
from sdpo.environments.side_effects import Watch
from sdpo.environments.task_rules import described, prompt
from sdpo.environments.verdict_rules import finds_in_text, leak, ruled_on
from sdpo.envs.base import Conversational, Environment, Message, Role, Task
from sdpo.envs.judging import InvalidReply, reply_of

NUM_TURNS = 6
"""Turns of the policy in a dialogue of hostile texts."""
MANY_TURNS = 40
"""A conversation about nothing that goes on for so long has no end of its own."""


def finds_in_reply(
    environment: Environment, task: Task, reference: str | None, *, is_heldout: bool, watch: Watch
) -> Iterator[Finding]:
    """Play a dialogue of each hostile kind, one about nothing up to its end, and one that begins with the right answer."""
    if not isinstance(environment, Conversational):
        return
    for answer in (NOTHING, JUNK, *HOSTILE):
        num_turns = MANY_TURNS if answer is JUNK else NUM_TURNS
        transcript: tuple[Message, ...] = ()
        for number in range(1, num_turns + 1):
            where = f"reply, task {task.id!r}, turn {number}, {answer.name!r}"
            transcript = (*transcript, Message(role=Role.assistant, content=answer.text))
            said = _said(environment, task, transcript, where, watch)
            yield from watch.take()
            if isinstance(said, Finding):
                yield said
                break
            if said is None and number == 1:  # what would be of a second turn?
                transcript = (*transcript, Message(role=Role.user, content="Go on."), *transcript)
                said = _said(environment, task, transcript, where, watch)
                yield from (said,) if isinstance(said, Finding) else ()
                break
            if said is None:
                break
            yield from _finds_in_said(said, task, transcript, reference, where, is_heldout=is_heldout)
            if _said(environment, task, transcript, where, watch) != said:
                what = "said something else when it was asked again"
                yield error("repeatable-replies", where, what, "It must depend on the task and the transcript alone.")
                break
            transcript = (*transcript, Message(role=Role.user, content=said))
        else:
            if answer is JUNK:
                what = f"goes on for {MANY_TURNS} turns about nothing"
                remedy = "Return None when the conversation is over; else it ends only at sampling.max_turns."
                yield warning("endless-reply", where, what, remedy)
        last = transcript if transcript[-1].role is Role.assistant else transcript[:-1]
        ruling = ruled_on(environment, task, last, f"judge, task {task.id!r}, {len(last)} messages, {answer.name!r}")
        if isinstance(ruling, Finding):
            yield ruling
    if reference is not None:
        yield from _finds_after_reference(environment, task, reference, watch)


def _said(
    environment: Conversational, task: Task, transcript: tuple[Message, ...], where: str, watch: Watch
) -> str | Finding | None:
    try:
        with watch.over("reply", where):
            said = reply_of(environment, task, transcript)
    except InvalidReply as failure:
        return error("reply", where, str(failure), "Return text, or None to end.")
    except (Exception, SystemExit) as failure:  # noqa: BLE001 - an environment may raise anything
        return error("reply", where, f"raised {described(failure)}", "Say what is wrong with the turn, or return None to end.")
    if said is not None and not said.strip():
        return error("reply", where, "returned an empty text", "Say something, or return None to end.")
    return said


def _finds_in_said(
    said: str, task: Task, transcript: tuple[Message, ...], reference: str | None, where: str, *, is_heldout: bool
) -> Iterator[Finding]:
    known = "\n".join([prompt(task), *(message.content for message in transcript if message.role is Role.assistant)])
    yield from finds_in_text(where, "the reply", said, known)
    how = None if reference is None else leak_in(said, reference, known)
    if how is not None:
        yield leak(where, f"the reply holds the reference, or a line of it{how}", is_heldout=is_heldout)


def _finds_after_reference(environment: Conversational, task: Task, reference: str, watch: Watch) -> Iterator[Finding]:
    """The right answer in the first turn ends the conversation."""
    where = f"reply, task {task.id!r}, turn 1, 'the reference'"
    transcript = (Message(role=Role.assistant, content=reference),)
    said = _said(environment, task, transcript, where, watch)
    if isinstance(said, Finding):
        yield said
    elif said is not None:
        ruling = ruled_on(environment, task, transcript, where)
        if not isinstance(ruling, Finding) and ruling.reward >= 1.0:
            what = "goes on although the task is solved"
            yield warning("endless-reply", where, what, "Return None: a later turn may spoil the answer.")
