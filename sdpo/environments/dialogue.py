"""What comes of a dialogue in which the policy's turns are known? For people to read."""

from __future__ import annotations

from collections.abc import Sequence

from sdpo.envs.base import Conversational
from sdpo.envs.judging import reply_of
from sdpo.types import Message, Role, Task


def played(environment: Conversational, task: Task, own_turns: Sequence[str]) -> tuple[Message, ...]:
    """The transcript, as far as the environment goes on. Raises InvalidReply, and what the environment raises."""
    transcript: tuple[Message, ...] = ()
    for index, turn in enumerate(own_turns):
        transcript = (*transcript, Message(role=Role.assistant, content=turn))
        said = reply_of(environment, task, transcript) if index + 1 < len(own_turns) else None
        if said is None:
            break
        transcript = (*transcript, Message(role=Role.user, content=said))
    return transcript
