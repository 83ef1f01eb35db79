"""Multiple choice from a file: questions with lettered options, answered by a letter between ``<answer>`` tags.

The format is that of the science questions on which SDPO was published (arXiv 2601.20802, section 3; SciKnowEval). The figure to
compare with is avg@16, the trainer's evaluation with 16 attempts a task. Such a file knows only which letter is right. So
feedback can only say that an answer is wrong or cannot be read: these are the questions for demonstrations.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

from sdpo.envs.base import Message, Role, Task, Verdict
from sdpo.envs.multiple_choice.rows import Row, read_rows

__all__ = ["MultipleChoice"]

SPLITS = ("train", "heldout")
OPEN, CLOSE = "<answer>", "</answer>"

_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:)]?")
_NUM_BUCKETS = 1 << 32


class MultipleChoice:
    """Reward 1 if the last ``<answer>`` holds the right letter, else 0."""

    name = "multiple_choice"
    tasks_limit_s = 120.0

    def __init__(self, *, path: str, heldout_path: str | None = None, heldout_share: float = 0.1, split_seed: int = 0) -> None:
        """``path``: the rows to train on, JSON lines.

        ``heldout_path``: those to hold out; without it, ``heldout_share`` of ``path`` is, drawn by a hash of the questions and
        ``split_seed``. Raises ValueError, with file and line, for a row that is none, and for a question on both sides.
        """
        if heldout_path is None and not 0.0 < heldout_share < 1.0:
            raise ValueError(
                "multiple_choice's heldout_share must lie between 0 and 1 (both splits need rows); "
                f"got {heldout_share!r}: try 0.1, or name a heldout_path"
            )
        rows = read_rows(Path(path))
        if heldout_path is None:
            rows_of = {
                "train": tuple(row for row in rows if _position(row, split_seed) >= heldout_share),
                "heldout": tuple(row for row in rows if _position(row, split_seed) < heldout_share),
            }
            remedy = f"change heldout_share ({heldout_share!r}) or split_seed ({split_seed!r}), or add rows"
        else:
            rows_of = {"train": rows, "heldout": read_rows(Path(heldout_path))}
            remedy = "add rows"
        for split, rows_of_split in rows_of.items():
            if not rows_of_split:
                raise ValueError(f"multiple_choice needs rows in both splits; {split} has none of {len(rows)}: {remedy}")
        _refuse_overlap(rows_of["train"], rows_of["heldout"])
        self._tasks = {split: tuple(map(_task, rows_of_split)) for split, rows_of_split in rows_of.items()}

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        """The rows of ``split`` in an order given by ``seed``. Raises ValueError for another split than train and heldout."""
        if split not in SPLITS:
            raise ValueError(f"multiple_choice's split must be one of {', '.join(SPLITS)}; got {split!r}")
        tasks = list(self._tasks[split])
        random.Random(f"multiple_choice/{split}/{seed}").shuffle(tasks)
        return tuple(tasks)

    def verify(self, task: Task, completion: str) -> Verdict:
        """Held against the letter of the task's row; no answer makes it raise."""
        row = task.payload
        if not isinstance(row, Row):
            raise ValueError(f"multiple_choice verifies its own tasks only; got {task.id!r} of {task.env!r}: ask that one")
        end = completion.rfind(CLOSE)
        start = completion.rfind(OPEN, 0, end) if end >= 0 else -1
        if start < 0:
            return _wrong(f"There is no answer to read: write one letter between {OPEN} and {CLOSE}.", is_found=False)
        written = completion[start + len(OPEN) : end].strip()
        letter = _LETTER.fullmatch(written)
        if letter is None:
            return _wrong(
                f"What stands between {OPEN} and {CLOSE} is not a single letter: write that of one option and nothing else.",
                is_found=False,
            )
        if letter[1].upper() == row.answer:
            return Verdict(reward=1.0, metrics={"format_ok": 1.0})
        return _wrong(f"{letter[1].upper()} is not the right option. Look at the question and at all the options again.")


def _wrong(feedback: str, *, is_found: bool = True) -> Verdict:
    return Verdict(reward=0.0, feedback=feedback, metrics={"format_ok": float(is_found)})


def _task(row: Row) -> Task:
    system = (Message(role=Role.system, content=row.system),) if row.system else ()
    return Task(
        id=f"multiple_choice/{row.dataset}/{row.idx}-{_digest(row.question).hex()}",  # two files may count from 0 each
        env=MultipleChoice.name,
        messages=(*system, Message(role=Role.user, content=row.prompt)),
        payload=row,
    )


def _position(row: Row, seed: int) -> float:
    """A row's position in [0, 1), whatever else is in its file; rows with the same question have the same one."""
    return int.from_bytes(_digest(f"{seed}/{row.question}")) / _NUM_BUCKETS


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=4).digest()


def _refuse_overlap(train: Iterable[Row], heldout: Iterable[Row]) -> None:
    trained = {row.question: row for row in train}
    for row in heldout:
        if row.question in trained:
            raise ValueError(
                "a question must not stand on both sides of the split (it would be trained on and then examined); "
                f"{row.place} asks what {trained[row.question].place} asks: remove one of them"
            )
