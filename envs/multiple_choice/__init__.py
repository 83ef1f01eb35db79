"""Multiple choice from a file: questions with lettered options, answered by a letter between ``<answer>`` tags.

The format is that of the science questions on which SDPO was published (arXiv 2601.20802, section 3; SciKnowEval). The figure to
compare with is avg@16, the trainer's evaluation with 16 attempts a task. Such a file knows only which letter is right. So
feedback can only say that an answer is wrong or cannot be read: these are the questions for demonstrations.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from sdpo.envs.answers import NoAnswer, tagged_answer
from sdpo.envs.base import Message, Role, Task, Verdict
from sdpo.envs.holdout import check_share, check_split, digest, parted
from sdpo.envs.multiple_choice.letters import read_letter
from sdpo.envs.multiple_choice.rows import Row, read_rows

__all__ = ["MultipleChoice"]


class MultipleChoice:
    """Reward 1 if the last ``<answer>`` holds the right letter, else 0."""

    name = "multiple_choice"
    tasks_limit_s = 120.0

    def __init__(self, *, path: str, heldout_path: str | None = None, heldout_share: float = 0.1, split_seed: int = 0) -> None:
        """``path``: the rows to train on, JSON lines.

        ``heldout_path``: those to hold out; without it, ``heldout_share`` of ``path`` is, drawn by a hash of the questions and
        ``split_seed``. Raises ValueError, with file and line, for a row that is none, and for a question on both sides.
        """
        check_share(self.name, heldout_path, heldout_share)
        rows = read_rows(Path(path))
        heldout = None if heldout_path is None else read_rows(Path(heldout_path))
        rows_of = parted(rows, heldout, env=self.name, share=heldout_share, seed=split_seed)
        self._tasks = {split: tuple(map(_task, rows_of_split)) for split, rows_of_split in rows_of.items()}

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        """The rows of ``split`` in an order given by ``seed``. Raises ValueError for another split than train and heldout."""
        check_split(self.name, split)
        tasks = list(self._tasks[split])
        random.Random(f"multiple_choice/{split}/{seed}").shuffle(tasks)
        return tuple(tasks)

    def verify(self, task: Task, completion: str) -> Verdict:
        """Held against the letter of the task's row; no answer makes it raise."""
        row = task.payload
        if not isinstance(row, Row):
            raise ValueError(f"multiple_choice verifies its own tasks only; got {task.id!r} of {task.env!r}: ask that one")
        try:
            letter = read_letter(tagged_answer(completion), row.prompt)
        except NoAnswer as reason:
            return _wrong(str(reason), is_found=False)
        if letter == row.answer:
            return Verdict(reward=1.0, metrics={"format_ok": 1.0})
        return _wrong(f"{letter} is not the right option. Look at the question and at all the options again.")


def _wrong(feedback: str, *, is_found: bool = True) -> Verdict:
    return Verdict(reward=0.0, feedback=feedback, metrics={"format_ok": float(is_found)})


def _task(row: Row) -> Task:
    system = (Message(role=Role.system, content=row.system),) if row.system else ()
    return Task(
        id=f"multiple_choice/{row.dataset}/{row.idx}-{digest(row.question).hex()}",  # two files may count from 0 each
        env=MultipleChoice.name,
        messages=(*system, Message(role=Role.user, content=row.prompt)),
        payload=row,
    )
