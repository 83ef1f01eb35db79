"""The environment ``reward_function``: a file of prompts and a Python function that rewards their completions.

The function is called for one completion at a time, in the verifier's own process: it is the user's code and is trusted.
What it may look like: ``function.py``; where rows come from: ``sdpo.envs.adapters.rows``. Left out: several functions with
weights (add them up in one), and functions that compare the completions of a group.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdpo.envs.adapters.reward_function.function import Scale, absolute, reward
from sdpo.envs.adapters.rows import SPLITS, Row, Source, digest, messages_of
from sdpo.envs.base import Message, Role, Task, Verdict

__all__ = ["RewardFunction", "Rewarded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewarded:
    """A task's payload."""

    function: str
    """``module:function``, or ``file.py:function`` with an absolute path, so that it means the same in every process."""
    prompt: object
    """As it stands in the row: a text, or messages."""
    columns: Mapping[str, object]
    """The row's other columns."""


class RewardFunction:
    """Prompts of a file, completions rewarded by a function."""

    name = "reward_function"
    tasks_limit_s = 120.0

    def __init__(
        self,
        *,
        path: str,
        function: str,
        heldout_path: str | None = None,
        heldout_share: float | None = None,
        prompt: str = "prompt",
        system_prompt: str | None = None,
        scale: Sequence[float] | None = None,
        max_feedback_chars: int = 800,
    ) -> None:
        """``path``, ``heldout_path``, ``heldout_share``: see ``Source``; ``function``: ``module:function`` or
        ``file.py:function``.

        ``prompt``: the column with the prompt, a text or messages. ``system_prompt``: put before prompts that have none.
        ``scale``: the rewards that mean 0 and 1, such as [-1, 1]; None for a function whose rewards lie in [0, 1].
        ``max_feedback_chars``: longer feedback is cut. Raises ValueError for anything out of range.
        """
        self._source = Source(path=path, heldout_path=heldout_path, heldout_share=heldout_share)
        if not function.rpartition(":")[0] or not function.rpartition(":")[2].isidentifier():
            raise ValueError(f"env.options.function must be module:function or file.py:function; got {function!r}")
        if max_feedback_chars < 1:
            raise ValueError(f"env.options.max_feedback_chars must be at least 1; got {max_feedback_chars!r}: try 800")
        self._function = function
        self._prompt = prompt
        self._system_prompt = system_prompt
        self._scale = Scale.of(scale)
        self._max_feedback_chars = max_feedback_chars

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        """The rows of ``split`` in an order given by ``seed``; a prompt that stands in two rows with the same columns
        counts once."""
        if split not in SPLITS:
            raise ValueError(f"reward_function's split must be one of {', '.join(SPLITS)}; got {split!r}")
        function = absolute(self._function)
        by_id: dict[str, Task] = {}
        for number, row in self._source.rows(split, prompt=self._prompt):
            task = self._task(number, row, function)
            by_id.setdefault(task.id, task)
        tasks = list(by_id.values())
        random.Random(f"reward_function/{split}/{seed}").shuffle(tasks)
        return tasks

    def verify(self, task: Task, completion: str) -> Verdict:
        """What the function says. What it raises is not caught: that is its author's to see."""
        rewarded = task.payload
        if not isinstance(rewarded, Rewarded):
            raise ValueError(f"reward_function verifies its own tasks only; got {task.id!r} of {task.env!r}")
        said = reward(rewarded.function, rewarded.prompt, completion, rewarded.columns)
        feedback = said.feedback.strip() if said.feedback is not None else ""
        if len(feedback) > self._max_feedback_chars:
            feedback = feedback[: self._max_feedback_chars] + " ..."
        return Verdict(
            reward=self._scale.to_unit(said.reward, rewarded.function),
            feedback=feedback or None,
            metrics={"raw_reward": said.reward},
        )

    def _task(self, number: int, row: Row, function: str) -> Task:
        messages = messages_of(row, number, prompt=self._prompt)
        if self._system_prompt is not None and messages[0].role is not Role.system:
            messages = (Message(role=Role.system, content=self._system_prompt), *messages)
        columns = {name: value for name, value in row.items() if name != self._prompt}
        return Task(
            id=f"reward_function/{digest([self._prompt, dict(row)])}",
            env=self.name,
            messages=messages,
            payload=Rewarded(function=function, prompt=row[self._prompt], columns=columns),
        )
