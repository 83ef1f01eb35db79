"""Short Python functions, written to a description and judged by calling them in a sandbox: 200 tasks of our own.

For small models: one to five lines solve each, and most of them one. Which functions: ``problems/``, a table for each
family. Left out: programs that read and print, tests of more than one call, partial rewards.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import cache

from sdpo.envs.base import Task, Verdict
from sdpo.envs.code.execution import execute
from sdpo.envs.code.extraction import Code as Source
from sdpo.envs.code.extraction import extract_code
from sdpo.envs.code.judging import NO_CODE, feedback_on_hidden, feedback_on_visible, num_passed
from sdpo.envs.code.problem import FunctionTests, load_problems
from sdpo.envs.sandbox import Limits

__all__ = ["Code"]

_SPLITS = ("train", "heldout")
_MIN_FEEDBACK_CHARS = 80


class Code:
    """Short Python functions, judged by visible and hidden tests: reward 1 if every one passes, else 0.

    ``timeout_s`` and ``memory_bytes`` bound each execution of an answer, of which a verdict needs one or two.
    Raises ValueError for options out of range.
    """

    name = "code"

    def __init__(self, *, timeout_s: float = 5.0, memory_bytes: int = 1 << 29, max_feedback_chars: int = 800) -> None:
        if not (math.isfinite(timeout_s) and 0.1 <= timeout_s <= 600):
            raise ValueError(
                "env.timeout_s must lie in [0.1, 600] seconds (an interpreter starts in some 0.03, and a batch "
                f"waits for its slowest answer); got {timeout_s!r}: try 5"
            )
        if memory_bytes < 1 << 26:
            raise ValueError(
                f"env.memory_bytes must be at least {1 << 26} (64 MB: the interpreter itself needs some 20); "
                f"got {memory_bytes!r}: try {1 << 29}"
            )
        if max_feedback_chars < _MIN_FEEDBACK_CHARS:
            raise ValueError(
                f"env.max_feedback_chars must be at least {_MIN_FEEDBACK_CHARS} (less cannot hold a failed call); "
                f"got {max_feedback_chars!r}: try 800"
            )
        self._limits = Limits(wall_s=timeout_s, memory_bytes=memory_bytes)
        self._max_feedback_chars = max_feedback_chars

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        """All tasks of ``"train"`` or ``"heldout"``, shuffled by ``seed``. Raises ValueError for another split."""
        if split not in _SPLITS:
            raise ValueError(f"the code environment has the splits {' and '.join(_SPLITS)}; got {split!r}: name one of them")
        tasks = list(_tasks_of(split))
        random.Random(f"code/{split}/{seed}").shuffle(tasks)  # seeded with the text itself, not with its salted hash
        return tuple(tasks)

    def verify(self, task: Task, completion: str) -> Verdict:
        """Run the answer on the task's tests.

        Raises ValueError for a task of another environment, SandboxUnavailable where code cannot be run safely.
        """
        tests = task.payload
        if not isinstance(tests, FunctionTests):
            raise ValueError(f"the code environment judges its own tasks; got {task.id!r} of {task.env!r}: ask that one")
        code = extract_code(completion)
        if code is None:
            return self._verdict(NO_CODE)
        calls = [trial.arguments for trial in tests.visible]
        visible = execute(code.source, tests.function, calls, self._limits)
        visible_rate = num_passed(visible, tests.visible) / len(tests.visible)
        feedback = feedback_on_visible(visible, tests.visible, tests.function, code.source, self._limits)
        if feedback is not None:
            return self._verdict(feedback, code=code, visible_rate=visible_rate, is_loaded=visible.is_loaded)
        calls = [trial.arguments for trial in tests.hidden]
        hidden = execute(code.source, tests.function, calls, self._limits)
        return self._verdict(
            feedback_on_hidden(hidden, tests.hidden, self._limits),
            code=code,
            visible_rate=visible_rate,
            hidden_rate=num_passed(hidden, tests.hidden) / len(tests.hidden),
            is_loaded=True,
        )

    def _verdict(
        self,
        feedback: str | None,
        *,
        code: Source | None = None,
        visible_rate: float = 0.0,
        hidden_rate: float = 0.0,
        is_loaded: bool = False,
    ) -> Verdict:
        """Solved where there is nothing to say. Rates are shares of the tests: 0 for hidden ones that were not run."""
        return Verdict(
            reward=1.0 if feedback is None else 0.0,
            feedback=None if feedback is None else _cut(feedback, self._max_feedback_chars),
            metrics={
                "format_ok": float(code is not None and code.is_fenced),
                "loads_ok": float(is_loaded),
                "visible_pass_rate": visible_rate,
                "hidden_pass_rate": hidden_rate,
            },
        )


@cache
def _tasks_of(split: str) -> tuple[Task, ...]:
    is_heldout = split == "heldout"
    problems = [problem for problem in load_problems() if problem.is_heldout == is_heldout]
    return tuple(problem.task(variant) for problem in problems for variant in problem.variants)


def _cut(text: str, max_chars: int) -> str:
    """``text`` as printable Unicode, its middle elided where it is too long."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    if len(text) <= max_chars:
        return text
    mark = " ... "
    head = (max_chars - len(mark)) // 2
    return text[:head] + mark + text[head + len(mark) - max_chars :]
