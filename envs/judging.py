"""What does an environment say of an answer? Asked here, and checked: a valid verdict, or a sentence that says what is wrong.

Authors write verdicts by hand, and a wrong one would end a run wherever it is read first: in a journal, a tracker, a tokenizer.
So nothing that an environment returns is used before it went through this file.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from itertools import islice

from sdpo.envs.base import Conversational, Environment, HasReference, SingleTurn
from sdpo.types import InvalidVerdict, Message, Role, Task, Verdict, plain_number, valid_reward

MOST_CHARS = 4_000_000
"""Longest feedback or reply: more than any model reads, and little enough for a line of a file."""
MOST_METRICS = 1_000
MOST_ERROR_CHARS = 20_000
"""Of an environment's traceback, the end is kept."""


class InvalidReply(ValueError):
    """What an environment says between two turns is no text; the message is a sentence."""


def verdict_of(environment: Environment, task: Task, transcript: Sequence[Message]) -> Verdict:
    """The verdict on what was said after the task's messages, in plain values.

    Raises InvalidVerdict for what is none, and whatever the environment raises.
    """
    if isinstance(environment, Conversational):
        returned: object = environment.judge(task, tuple(transcript))
        asked = "judge"
    else:
        assert isinstance(environment, SingleTurn), "registry.complete has looked"
        returned = environment.verify(task, transcript[-1].content)
        asked = "verify"
    return valid_verdict(returned, f"{asked} of {type(environment).__name__}")


def verdict_on(environment: Environment, task: Task, answer: str) -> Verdict:
    """The verdict on a lone answer, in a conversational environment too. Raises as ``verdict_of`` does."""
    return verdict_of(environment, task, (Message(role=Role.assistant, content=answer),))


def reply_of(environment: Environment, task: Task, transcript: Sequence[Message]) -> str | None:
    """What the environment says next. Raises InvalidReply for what cannot be said, and whatever the environment raises."""
    if not isinstance(environment, Conversational):
        raise InvalidReply(
            "an environment of several turns needs reply(task, transcript) and judge(task, transcript); "
            f"{type(environment).__name__} lacks one of them"
        )
    returned: object = environment.reply(task, tuple(transcript))
    if returned is None:
        return None
    if not isinstance(returned, str):
        raise InvalidReply(f"reply must return a text or None; {type(environment).__name__} returned a {type(returned).__name__}")
    return _sayable(returned, InvalidReply, "a reply", f"; that of {type(environment).__name__} does not")


def reference_of(environment: HasReference, task: Task) -> str:
    """A right answer. Raises ValueError for what is no text, and whatever the environment raises."""
    returned: object = environment.reference(task)
    if not isinstance(returned, str):
        raise ValueError(f"a reference must be a text; got a {type(returned).__name__}")
    return _sayable(returned, ValueError, "a reference")


def _sayable(returned: str, error: type[ValueError], what: str, ending: str = "") -> str:
    """The text in plain values. Raises ``error`` where no file or tokenizer could hold it."""
    text = _plain(returned)
    wrong = _wrong_text(text)
    if wrong:
        raise error(f"{what} {wrong}{ending}")
    return text


def valid_verdict(returned: object, whose: str) -> Verdict:
    """``returned`` in plain values: floats, ``str`` and a dict, whatever subclasses and numpy's numbers it was made of.

    Raises InvalidVerdict, which says that ``whose`` result it is.
    """
    if not isinstance(returned, Verdict):
        raise InvalidVerdict(f"a Verdict must be returned; {whose} returned a {type(returned).__name__}", part="verdict")
    try:
        reward, feedback, metrics = returned.reward, returned.feedback, returned.metrics
        return Verdict(reward=valid_reward(reward), feedback=_feedback(feedback), metrics=_metrics(metrics))
    except InvalidVerdict as error:
        raise InvalidVerdict(f"{error} ({whose})", part=error.part) from None
    except Exception as error:  # a subclass of Verdict, a mapping or a number of the environment's own may raise anything
        raise InvalidVerdict(
            f"a verdict must be readable; reading that of {whose} raised {told(error)}", part="verdict"
        ) from error


def told(error: BaseException) -> str:
    """Type and message of what an environment raised, whatever that is, as part of a sentence."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - the environment's exceptions are its own
        message = "<its message cannot be read>"
    return f"{type(error).__name__}: {message[:200]}".encode("utf-8", "backslashreplace").decode()


def told_at_length(error: BaseException) -> str:
    """The end of the traceback, as a text that every file can hold."""
    try:
        text = "".join(traceback.format_exception(error, limit=-6))
    except Exception:  # noqa: BLE001 - traceback reads attributes of the exception, and it is the environment's
        text = told(error)
    return text[-MOST_ERROR_CHARS:].encode("utf-8", "backslashreplace").decode()


def is_encodable(text: str) -> bool:
    """Whether a tokenizer and a file can take it: half a surrogate pair is a character of Python, and of nobody else."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def unreadable_part(task: Task) -> str | None:
    """Which part of the task no tokenizer or file can take: ``"its id"``; None: it can be read."""
    parts = (("its id", task.id), *((f"its {message.role.value} message", message.content) for message in task.messages))
    return next((what for what, text in parts if not isinstance(text, str) or not is_encodable(text)), None)


def _feedback(feedback: object) -> str | None:
    if feedback is None:
        return None
    if not isinstance(feedback, str):
        raise InvalidVerdict(f"feedback must be a text or None; got a {type(feedback).__name__}", part="feedback")
    text = _plain(feedback)
    wrong = _wrong_text(text)
    if wrong:
        raise InvalidVerdict(f"feedback {wrong}", part="feedback-text")
    return text


def _wrong_text(text: str) -> str | None:
    """What a text of an environment must do and this one does not."""
    if len(text) > MOST_CHARS:
        return f"must have at most {MOST_CHARS} characters"
    if not is_encodable(text):
        return "must hold no half of a surrogate pair (quote answers with repr() or ascii())"
    return None


def _plain(text: str) -> str:
    """The same text, of no subclass: those may travel badly."""
    return str.__str__(text)


def _metrics(metrics: object) -> dict[str, float]:
    if not isinstance(metrics, Mapping):
        raise InvalidVerdict(f"metrics must map names to numbers; got a {type(metrics).__name__}", part="metrics")
    found: dict[str, float] = {}
    for name, value in islice(metrics.items(), MOST_METRICS + 1):
        plain_name = _plain(name) if isinstance(name, str) else ""
        if not plain_name or not is_encodable(plain_name):
            raise InvalidVerdict(f"a metric's name must be a text; got {name!r:.80}", part="metrics")
        number = plain_number(value)
        if number is None:
            raise InvalidVerdict(
                f"a metric must be a finite number; {plain_name[:80]!r} is {value!r:.80}, a {type(value).__name__}",
                part="metrics",
            )
        found[plain_name] = number
    if len(found) > MOST_METRICS:
        raise InvalidVerdict(f"a verdict may have at most {MOST_METRICS} metrics", part="metrics")
    return found
