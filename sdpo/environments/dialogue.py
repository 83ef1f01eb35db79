"""How is an environment of several turns asked? A dialogue is played with turns that nobody sampled, and then judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from sdpo.envs.base import Conversational, Environment
from sdpo.types import TURN_BREAK, Message, Role, Task, turns

Transcript: TypeAlias = tuple[Message, ...]
"""What was said after the task's own messages: the policy's turns and between them the environment's."""


def is_dialogue(environment: Environment) -> bool:
    """Whether it replies between the policy's turns."""
    return isinstance(environment, Conversational)


def verdict_on(environment: Environment, task: Task, text: str) -> object:
    """What the environment returns for an answer; ``text`` may hold several turns, with ``TURN_BREAK`` between them."""
    judge = _judge(environment)
    if judge is None:
        return environment.verify(task, text)
    return judge(task, played(environment, task, turns(text)))


def verdict_on_dialogue(environment: Environment, task: Task, transcript: Transcript) -> object:
    """What the environment returns for a whole dialogue."""
    judge = _judge(environment)
    if judge is not None:
        return judge(task, transcript)
    own = (message.content for message in transcript if message.role is Role.assistant)
    return environment.verify(task, TURN_BREAK.join(own))


def played(environment: Environment, task: Task, own_turns: Sequence[str]) -> Transcript:
    """The dialogue in which the policy says ``own_turns``, as far as the environment goes on; one that raises does not."""
    assert isinstance(environment, Conversational)
    transcript: Transcript = ()
    for index, turn in enumerate(own_turns):
        transcript = (*transcript, Message(role=Role.assistant, content=turn))
        if index + 1 == len(own_turns):
            break
        try:
            said: object = environment.reply(task, transcript)
        except Exception:  # noqa: BLE001 - an environment may raise anything; reply_rules.py says so
            break
        if not isinstance(said, str):
            break
        transcript = (*transcript, Message(role=Role.user, content=said))
    return transcript


def _judge(environment: Environment) -> Callable[[Task, Sequence[Message]], object] | None:
    judge: object = getattr(environment, "judge", None)
    return judge if callable(judge) and is_dialogue(environment) else None
