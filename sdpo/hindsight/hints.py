"""Which attempts get a hint, and in which words is it put to the teacher? (arXiv 2601.20802, section 2 and appendix)

Pure: no torch, no tokenizer. A demonstration is a solved *sibling*, never the attempt itself; which one is a seeded draw. It can
be an earlier step's where nobody solved the task (``success_buffer``). Or it is the environment's own answer throughout
(``choice: reference``), which the caller looks up.
Thinking is removed, since it is not part of the answer. The attempt itself is left out of the teacher's prompt: the teacher
scores it as the response.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from sdpo.config import HindsightConfig, HintChoice
from sdpo.envs.answers import without_thinking
from sdpo.hindsight.sources import further_texts
from sdpo.types import Attempt, Group, Hint, HintText, Message, Role, Task

DEMONSTRATION = "A correct solution to this problem:\n"
FEEDBACK = "Feedback on an earlier, unsuccessful attempt at this problem:\n"
CLOSING = "Now solve the original problem. Give only the answer in the requested form."


def choose_hints(
    group: Group, config: HindsightConfig, seed: str, *, reference: str | None = None, remembered: Sequence[str] = ()
) -> tuple[Hint | None, ...]:
    """[G] what would have helped each attempt; None where nothing would.

    ``reference`` is the environment's own answer. ``remembered`` is what demonstrated the task in earlier steps. Which of these
    is shown is drawn once for the group, as its order of preference is.
    """
    recalled = random.Random(f"{seed}/{group.task.id}/remembered").choice(remembered) if remembered else None
    chosen = [
        _referred(attempt, config, reference)
        if config.choice is HintChoice.reference
        else _hint(group, index, config, seed, recalled)
        for index, attempt in enumerate(group.attempts)
    ]
    if not config.sources:
        return tuple(chosen)
    return tuple(
        hint if attempt.verdict.is_solved and not config.solved_get_hints else _with(hint, texts)
        for attempt, hint, texts in zip(group.attempts, chosen, further_texts(config.sources, group), strict=True)
    )


def _with(hint: Hint | None, texts: tuple[HintText, ...]) -> Hint | None:
    if hint is not None:
        return replace(hint, texts=(*hint.texts, *texts))
    return Hint(texts=texts) if texts else None


def hint_of(*, demonstration: str | None = None, feedback: str | None = None, is_remembered: bool = False) -> Hint:
    """A hint of these texts. Raises ValueError where there is neither."""
    shown = (("demonstration", DEMONSTRATION, demonstration), ("feedback", FEEDBACK, feedback))
    texts = tuple(HintText(name=name, heading=heading, text=text) for name, heading, text in shown if text)
    return Hint(texts=texts, is_remembered=is_remembered)


def no_reference(task: Task) -> None:
    """The answer that is looked up where no hint shows one."""


def _referred(attempt: Attempt, config: HindsightConfig, reference: str | None) -> Hint | None:
    is_shown = config.solved_get_hints or not attempt.verdict.is_solved
    return hint_of(demonstration=reference) if is_shown and reference and reference.strip() else None


def _hint(group: Group, index: int, config: HindsightConfig, seed: str, recalled: str | None) -> Hint | None:
    attempt = group.attempts[index]
    if config.choice is HintChoice.none:
        return None
    if attempt.verdict.is_solved and not config.solved_get_hints:
        return None
    shows_siblings = config.choice is not HintChoice.feedback_only
    own = None  # what nobody needs to show it
    if attempt.verdict.is_solved and not config.repeats_get_hints:
        own = demonstrated(attempt.completion.text, attempt.completion.transcript)
    demonstration = _demonstration(group, index, config, seed, other_than=own) if shows_siblings else None
    is_remembered = shows_siblings and demonstration is None and recalled is not None and recalled != own
    if is_remembered:
        demonstration = recalled
    is_told = config.choice is not HintChoice.demonstration_only and not attempt.verdict.is_solved
    feedback = attempt.verdict.feedback if is_told and (attempt.verdict.feedback or "").strip() else None
    if demonstration is not None and config.choice is HintChoice.demonstration_first:
        feedback = None
    if demonstration is None and feedback is None:
        return None
    return hint_of(demonstration=demonstration, feedback=feedback, is_remembered=is_remembered)


def _demonstration(group: Group, index: int, config: HindsightConfig, seed: str, *, other_than: str | None) -> str | None:
    """A solved sibling. The group has one order of preference, so that its hindsight prompts agree and are computed once."""
    order = list(range(len(group.attempts)))
    random.Random(f"{seed}/{group.task.id}").shuffle(order)
    for other in order:
        attempt = group.attempts[other]
        if other != index and attempt.verdict.reward >= config.demonstration_reward:
            text = demonstrated(attempt.completion.text, attempt.completion.transcript)
            if text and text != other_than:
                return text
    return None


def demonstrated(answer: str, transcript: Sequence[Message]) -> str:
    """What an attempt shows: its answer, or the whole conversation where there were several turns; "" where it only thought."""
    if len(transcript) == 1:
        return without_thinking(answer)
    speakers = {Role.assistant: "", Role.user: "[the reply] "}
    return "\n\n".join(f"{speakers[said.role]}{without_thinking(said.content)}" for said in transcript)


def hindsight_message(question: str, texts: Sequence[HintText]) -> Message:
    """The teacher's last user message: the question, the hint's texts that are left, and the question again."""
    parts = [question, *(f"{text.heading}{text.text}" for text in texts if text.text), CLOSING]
    return Message(role=Role.user, content="\n\n".join(parts))


def question_after(question: str, feedbacks: Sequence[str]) -> str:
    """The policy's own message where it is told what was said of earlier attempts, the latest last."""
    if not feedbacks:
        return question
    said = "\n\n".join(f"{number}. {feedback}" for number, feedback in enumerate(feedbacks, start=1))
    return f"{question}\n\nFeedback on earlier, unsuccessful attempts at this problem:\n{said}\n\n{CLOSING}"


def places(prompt: str, question: str, hint: Hint) -> dict[str, tuple[int, int]]:
    """The half-open range of characters of each of the hint's texts, cut or whole, in the teacher's prompt as text; by name.

    One that is not found is missing: templates may change what they are given.
    """
    last = prompt.rfind("\n\n" + CLOSING)
    after_question = prompt.find(question) + len(question) if question in prompt else 0
    found: dict[str, tuple[int, int]] = {}
    for index, text in reversed(list(enumerate(hint.texts))):
        search = prompt.rfind if index else prompt.find  # a text may quote its own heading; the first one follows the question
        head = search(text.heading, after_question, max(last, 0))
        if head >= 0:
            found[text.name] = (head + len(text.heading), last)
            last = head - len("\n\n")
    return found
