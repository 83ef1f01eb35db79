"""What solved a task in earlier steps, to be shown where no sibling of the present group solves it (DRIFT, arXiv 2606.30345).

A continued run reads it from the rollouts of the steps that count, so that it shows what an uninterrupted one would. The
attempts, their order and the rule of what demonstrates are the same. Left out of DRIFT: its routing by difficulty, its gating of
tokens and its curriculum.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from sdpo.config import AlgorithmConfig
from sdpo.errors import UserError
from sdpo.hindsight.hints import demonstrated
from sdpo.types import Group, Message, Role


class SuccessBuffer:
    """A task's latest demonstrations, each text once."""

    def __init__(self, *, size: int, demonstration_reward: float) -> None:
        """``size`` of each task are kept, of attempts with this reward or a higher one. With 0 nothing is."""
        self._size, self._reward = size, demonstration_reward
        self._texts: dict[str, tuple[str, ...]] = {}

    def of(self, task_id: str) -> tuple[str, ...]:
        """What demonstrated the task, the latest last."""
        return self._texts.get(task_id, ())

    def remember(self, groups_P: Iterable[Group]) -> None:
        """After the step's own hints were chosen: nobody shall be shown their own attempt."""
        for group in groups_P:
            for attempt in group.attempts:
                self._add(group.task.id, attempt.verdict.reward, attempt.completion.text, attempt.completion.transcript)

    def _add(self, task_id: str, reward: float, answer: str, transcript: Sequence[Message]) -> None:
        if self._size == 0 or reward < self._reward:
            return
        text = demonstrated(answer, transcript)
        if text:
            others = tuple(other for other in self.of(task_id) if other != text)
            self._texts[task_id] = (*others, text)[-self._size :]

    def read(self, rollouts: Path) -> None:
        """Remember a step from its file of rollouts. Raises UserError where that cannot be read."""
        try:
            for line in rollouts.read_text().splitlines():
                attempt = json.loads(line)
                if "set_aside" in attempt:
                    continue
                said = attempt.get("turns") or [{"role": Role.assistant.value, "content": attempt["completion"]}]
                transcript = [Message(role=Role(turn["role"]), content=turn["content"]) for turn in said]
                self._add(attempt["task"], attempt["reward"], attempt["completion"], transcript)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                "a run with algorithm.hindsight.success_buffer above 0 continues with the successes in its rollouts; "
                f"{rollouts} cannot be read: {type(error).__name__}: {error}. Put the file back, or choose another name= to "
                "begin anew."
            ) from error


NOTHING_REMEMBERED = SuccessBuffer(size=0, demonstration_reward=1.0)


def remembered(algorithm: AlgorithmConfig, rollouts: Iterable[Path]) -> SuccessBuffer:
    """The buffer as it is after the steps whose rollouts these are, in their order."""
    hindsight = algorithm.hints
    if hindsight is None or hindsight.success_buffer == 0:
        return NOTHING_REMEMBERED
    buffer = SuccessBuffer(size=hindsight.success_buffer, demonstration_reward=hindsight.demonstration_reward)
    for file in rollouts:
        buffer.read(file)
    return buffer
