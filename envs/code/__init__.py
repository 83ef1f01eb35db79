"""Short Python functions and programs, written to a description and judged by running them in a sandbox: tasks of our own.

For small models: one to fifteen lines solve each. Functions stand in ``problems/``, programs that read and print in
``programs/``, a table for each family. Tasks from files are another environment (``files.py``) with the same judge.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache

from sdpo.envs.base import Task, Verdict
from sdpo.envs.code.files import read_tasks
from sdpo.envs.code.judge import Judge
from sdpo.envs.code.problem import Difficulty, Problem, chosen, load_problems, task_id
from sdpo.envs.code.program_problem import ProgramProblem, load_program_problems
from sdpo.envs.code.trials import FunctionTests, ProgramTests

__all__ = ["Code"]

_SPLITS = ("train", "heldout")


class Code:
    """Short Python functions and programs, judged by visible and hidden tests.

    ``families`` and ``difficulties`` choose among the tasks; None is all of them. ``reward`` is ``"all"`` (1 if every test
    passes, else 0) or ``"share"`` (of the tests passed). ``timeout_s`` and ``memory_bytes`` bound each execution of an
    answer. Raises ValueError for options out of range.
    """

    name = "code"

    def __init__(
        self,
        *,
        families: Sequence[str] | None = None,
        difficulties: Sequence[str] | None = None,
        reward: str = "all",
        timeout_s: float = 5.0,
        memory_bytes: int = 1 << 29,
        max_feedback_tokens: int = 800,
    ) -> None:
        self._judge = Judge(
            reward=reward, timeout_s=timeout_s, memory_bytes=memory_bytes, max_feedback_tokens=max_feedback_tokens
        )
        known = sorted({problem.family for problem in _problems()})
        self._families = chosen("families", families, known)
        self._difficulties = chosen("difficulties", difficulties, [difficulty.value for difficulty in Difficulty])

    @property
    def longest_verdict_s(self) -> float:
        """Seconds that the slowest answer can take."""
        return max(self._judge.longest_s(_tests(task)) for split in _SPLITS for task in self.tasks(split, 0))

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        """The chosen tasks of ``"train"`` or ``"heldout"``, shuffled by ``seed``. Raises ValueError for another split."""
        if split not in _SPLITS:
            raise ValueError(f"the code environment has the splits {' and '.join(_SPLITS)}; got {split!r}: name one of them")
        problems = [
            problem
            for problem in _problems()
            if problem.is_heldout == (split == "heldout")
            and problem.family in self._families
            and problem.difficulty.value in self._difficulties
        ]
        if not problems:
            raise ValueError(
                f"env.options.families and env.options.difficulties must leave tasks in both splits; {split} has none of "
                f"{', '.join(sorted(self._families))} that is {' or '.join(sorted(self._difficulties))}: choose more"
            )
        tasks = [task for problem in problems for task in _tasks_of(problem.base)]
        random.Random(f"code/{split}/{seed}").shuffle(tasks)  # seeded with the text itself, not with its salted hash
        return tuple(tasks)

    def from_file(self, path: str) -> Sequence[Task]:
        """Problems that somebody else wrote, in any format that ``code_file`` reads. Raises ValueError for another file."""
        return read_tasks(path, self.name)

    def verify(self, task: Task, completion: str) -> Verdict:
        """Run the answer on the task's tests.

        Raises ValueError for a task of another environment, SandboxUnavailable where code cannot be run safely.
        """
        return self._judge.verdict(_tests(task), completion)

    def reference(self, task: Task) -> str:
        """A right answer. Raises ValueError for a task of another environment."""
        if (source := _references().get(task.id)) is None:
            raise ValueError(f"the code environment answers its own tasks; got {task.id!r} of {task.env!r}: ask that one")
        return f"```python\n{source}```"


def _tests(task: Task) -> FunctionTests | ProgramTests:
    if not isinstance(task.payload, (FunctionTests, ProgramTests)):
        raise ValueError(f"the code environment judges its own tasks; got {task.id!r} of {task.env!r}: ask that one")
    return task.payload


@cache
def _problems() -> tuple[Problem | ProgramProblem, ...]:
    return (*load_problems(), *load_program_problems())


@cache
def _tasks_of(base: str) -> tuple[Task, ...]:
    problem = next(problem for problem in _problems() if problem.base == base)
    return tuple(problem.task(variant) for variant in problem.variants)


@cache
def _references() -> Mapping[str, str]:
    return {task_id(problem.base, variant): problem.reference(variant) for problem in _problems() for variant in problem.variants}
