"""Which attempts get a hint, and in which words is it put to the teacher? (arXiv 2601.20802, section 2 and appendix)

Pure: no torch, no tokenizer. A demonstration is a solved *sibling*, never the attempt itself; which one is a seeded draw.
Thinking is removed, since it is not part of the answer. The attempt itself is left out of the teacher's prompt: the teacher
scores it as the response.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from sdpo.config import HindsightConfig, HintChoice
from sdpo.types import Attempt, Completion, Group, Hint, Message, Role

_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
CLOSING = "Now solve the original problem. Give only the answer in the requested form."


def choose_hints(group: Group, config: HindsightConfig, seed: str) -> tuple[Hint | None, ...]:
    """[G] what would have helped each attempt; None where nothing would."""
    return tuple(_hint(group, index, config, seed) for index in range(len(group.attempts)))


def _hint(group: Group, index: int, config: HindsightConfig, seed: str) -> Hint | None:
    attempt = group.attempts[index]
    if config.choice is HintChoice.none:
        return None
    if attempt.verdict.is_solved and not config.solved_get_hints:
        return None
    demonstration = None if config.choice is HintChoice.feedback_only else _demonstration(group, index, config, seed)
    is_told = config.choice is not HintChoice.demonstration_only and not attempt.verdict.is_solved
    feedback = attempt.verdict.feedback if is_told and (attempt.verdict.feedback or "").strip() else None
    if demonstration is not None and config.choice is HintChoice.demonstration_first:
        feedback = None
    if demonstration is None and feedback is None:
        return None
    return Hint(demonstration=demonstration, feedback=feedback)


def _demonstration(group: Group, index: int, config: HindsightConfig, seed: str) -> str | None:
    """A solved sibling. The group has one order of preference, so that its hindsight prompts agree and are computed once."""
    order = list(range(len(group.attempts)))
    random.Random(f"{seed}/{group.task.id}").shuffle(order)
    for other in order:
        attempt = group.attempts[other]
        if other != index and _demonstrates(attempt, config) and (text := _demonstrated(attempt.completion)):
            return text
    return None


def _demonstrated(completion: Completion) -> str:
    """What a sibling did: its answer, or the whole conversation where there were several turns."""
    if len(completion.transcript) == 1:
        return without_thinking(completion.text)
    speakers = {Role.assistant: "", Role.user: "[the reply] "}
    return "\n\n".join(f"{speakers[said.role]}{without_thinking(said.content)}" for said in completion.transcript)


def _demonstrates(attempt: Attempt, config: HindsightConfig) -> bool:
    return attempt.verdict.reward >= config.demonstration_reward


def without_thinking(text: str) -> str:
    """The answer alone: ``<think>`` spans removed, one never closed up to the end, one opened in the prompt up to its end."""
    text = _THINKING.sub("", text)
    return text.rpartition("</think>")[2].strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class HindsightText:
    """The teacher's last user message in the parts that may and may not be cut: only the hint's two texts may."""

    question: str
    demonstration: str
    feedback: str

    def message(self) -> Message:
        parts = [self.question]
        if self.demonstration:
            parts.append(f"A correct solution to this problem:\n{self.demonstration}")
        if self.feedback:
            parts.append(f"Feedback on an earlier, unsuccessful attempt at this problem:\n{self.feedback}")
        parts.append(CLOSING)
        return Message(role=Role.user, content="\n\n".join(parts))


def hindsight_text(question: str, hint: Hint) -> HindsightText:
    """The parts of the teacher's message for the task's last user message ``question``."""
    return HindsightText(question=question, demonstration=hint.demonstration or "", feedback=hint.feedback or "")
