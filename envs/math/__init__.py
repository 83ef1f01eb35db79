"""The environment ``math``: problems from a file whose answers are numbers or expressions, written in ``\\boxed{}``.

Files are read by the names of their columns (``problems.py``): GSM8K's, MATH's, and whatever else has a question and an answer.
An answer is right if it equals the file's: as text, as a number, or else for the package math-verify (``comparing.py``). A file
knows only the right answer. So feedback can say that none was found, that it cannot be read, or that it is wrong.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from importlib.util import find_spec

from sdpo.envs.answers import NoAnswer
from sdpo.envs.base import Message, Role, Task, Verdict
from sdpo.envs.holdout import check_share, check_split, parted
from sdpo.envs.math.boxed import answer_in_box
from sdpo.envs.math.comparing import Outcome, compare, start
from sdpo.envs.math.problems import Problem, read_problems
from sdpo.envs.sandbox.helpers import Limits

__all__ = ["Math"]

_SYSTEM_PROMPT = "Solve the problem. Think step by step, and write your final answer within \\boxed{}."


class Math:
    """Problems of a file: reward 1 if the last ``\\boxed{}`` holds the right answer, else 0."""

    name = "math"

    def __init__(
        self,
        *,
        path: str,
        heldout_path: str | None = None,
        heldout_share: float = 0.1,
        split_seed: int = 0,
        timeout_s: float = 10.0,
        memory_bytes: int = 1 << 30,
    ) -> None:
        """``path``: the rows to train on, JSON lines, JSON or Parquet.

        ``heldout_path``: those to hold out; without it, ``heldout_share`` of ``path`` is, drawn by a hash of the questions and
        ``split_seed``. ``timeout_s``, ``memory_bytes``: what comparing one answer may use. Raises ValueError for options out of
        range, and without the package math-verify.
        """
        if find_spec("math_verify") is None:
            raise ValueError("the environment math needs the package math-verify: install sdpo[math], or math-verify itself")
        check_share(self.name, heldout_path, heldout_share)
        if not (math.isfinite(timeout_s) and 0.1 <= timeout_s <= 600):
            raise ValueError(f"env.options.timeout_s must lie in [0.1, 600] seconds; got {timeout_s!r}: try 10")
        if memory_bytes < 1 << 26:
            raise ValueError(f"env.options.memory_bytes must be at least {1 << 26} (64 MB); got {memory_bytes!r}: try {1 << 30}")
        self._path, self._heldout_path = path, heldout_path
        self._share, self._split_seed = heldout_share, split_seed
        self._limits = Limits(wall_s=timeout_s, memory_bytes=memory_bytes)
        start()

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        """The problems of ``split`` in an order given by ``seed``; a question that stands in a file twice counts once.

        Rows whose answer cannot be read are left out, with a warning.
        """
        check_split(self.name, split)
        heldout = None if self._heldout_path is None else read_problems(self._heldout_path)
        rows = parted(read_problems(self._path), heldout, env=self.name, share=self._share, seed=self._split_seed)
        tasks = [_task(problem) for problem in rows[split]]
        random.Random(f"math/{split}/{seed}").shuffle(tasks)
        return tuple(tasks)

    def from_file(self, path: str) -> Sequence[Task]:
        """Every problem of a file, in its order."""
        return tuple(map(_task, read_problems(path)))

    def verify(self, task: Task, completion: str) -> Verdict:
        """1 for an answer that equals the file's; no answer makes it raise. Raises RuntimeError where comparing is broken."""
        problem = task.payload
        if not isinstance(problem, Problem):
            raise ValueError(f"math verifies its own tasks only; got {task.id!r} of {task.env!r}: ask that one")
        try:
            answer, num_boxes = answer_in_box(completion)
        except NoAnswer as reason:
            return _wrong(str(reason), is_found=False, is_read=False)
        outcome = compare(problem.answer, answer, self._limits)
        if outcome is Outcome.equal:
            return Verdict(reward=1.0, metrics={"format_ok": 1.0, "read_ok": 1.0})
        which = "the last of them counts, and what it holds" if num_boxes > 1 else "what it holds"
        return _wrong(_FEEDBACK[outcome].format(which=which), is_found=True, is_read=outcome is Outcome.different)

    def reference(self, task: Task) -> str:
        """The file's answer in its box."""
        assert isinstance(task.payload, Problem)
        return f"\\boxed{{{task.payload.answer}}}"


_FEEDBACK = {
    Outcome.different: "There is an answer in \\boxed{{}}, but {which} is not right. Check the reasoning step by step.",
    Outcome.unread: "There is an answer in \\boxed{{}}, but {which} could not be read as mathematics: write one number or "
    "expression in LaTeX, without words around it.",
    Outcome.too_costly: "There is an answer in \\boxed{{}}, but {which} takes too long to work out: write it in a simpler form.",
}


def _wrong(feedback: str, *, is_found: bool, is_read: bool) -> Verdict:
    return Verdict(reward=0.0, feedback=feedback, metrics={"format_ok": float(is_found), "read_ok": float(is_read)})


def _task(problem: Problem) -> Task:
    return Task(
        id=f"math/{problem.digest}",
        env=Math.name,
        messages=(Message(role=Role.system, content=_SYSTEM_PROMPT), Message(role=Role.user, content=problem.text)),
        payload=problem,
    )
