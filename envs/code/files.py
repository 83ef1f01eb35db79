"""Programming problems from a file that somebody else wrote: LiveCodeBench, HumanEval, MBPP, APPS, or prepared for training.

The formats stand in ``formats/``, a module for each. A row's own solution is never run and never shown, and nothing in a file
is executed when it is read. Judged as the built-in tasks are (``judge.py``).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import blake2b

from sdpo.envs.base import Message, Role, Task, Verdict
from sdpo.envs.code.formats import FORMATS, Examples, Questions, read_questions
from sdpo.envs.code.formats.question import Question
from sdpo.envs.code.judge import Judge
from sdpo.envs.code.trials import Equality, FunctionTests, ProgramTests

__all__ = ["CodeFile", "read_tasks"]

_SPLITS = ("train", "heldout")
_DEFAULT_SHARE = 0.1


class CodeFile:
    """Programming problems of a file, judged by visible and hidden tests.

    ``path`` is a .jsonl, .json or .parquet file, a folder written by datasets, or the name of a dataset, whose
    ``dataset_split`` is read. Held out are the problems of ``heldout_path``, or else a ``heldout_share`` of those of ``path``.
    That share is chosen by the hash of their text, so it is the same whatever the seed and the order. At most ``max_tests`` tests
    of a problem are used. Where its format knows no public ones, ``num_visible`` of them may be told. ``equality`` is ``python``
    (a value is right where ``==`` says so, as published figures were measured) or ``strict`` (types count). Raises ValueError for
    options out of range.
    """

    name = "code_file"
    tasks_limit_s = 120.0

    def __init__(
        self,
        *,
        path: str,
        format: str = "auto",
        dataset_split: str = "test",
        heldout_path: str | None = None,
        heldout_share: float | None = None,
        max_tests: int = 20,
        num_visible: int = 2,
        equality: str = "python",
        reward: str = "all",
        timeout_s: float = 5.0,
        memory_bytes: int = 1 << 29,
        max_feedback_tokens: int = 800,
    ) -> None:
        self._judge = Judge(
            reward=reward, timeout_s=timeout_s, memory_bytes=memory_bytes, max_feedback_tokens=max_feedback_tokens
        )
        if format not in ("auto", *FORMATS):
            raise ValueError(f"env.options.format must be auto or one of {', '.join(FORMATS)}; got {format!r}: try auto")
        if heldout_path is not None and heldout_share is not None:
            raise ValueError(
                "env.options.heldout_share must be left out where env.options.heldout_path says what is held out; "
                f"got {heldout_share!r} and {heldout_path!r}: try one of them"
            )
        if heldout_share is not None and not 0 < heldout_share < 1:
            raise ValueError(
                f"env.options.heldout_share must lie between 0 and 1 (of the problems); got {heldout_share!r}: try 0.1"
            )
        if max_tests < 2:
            raise ValueError(f"env.options.max_tests must be at least 2 (a visible and a hidden one); got {max_tests!r}: try 20")
        if num_visible < 1:
            raise ValueError(
                f"env.options.num_visible must be at least 1 (feedback needs a test to tell); got {num_visible!r}: try 2"
            )
        if equality not in tuple(Equality):
            raise ValueError(
                "env.options.equality must be python (as == compares) or strict (types count as well); "
                f"got {equality!r}: try python"
            )
        self._path, self._heldout_path = path, heldout_path
        self._format, self._dataset_split = format, dataset_split
        self._share = _DEFAULT_SHARE if heldout_share is None else heldout_share
        self._examples = Examples(max_tests=max_tests, num_visible=num_visible, equality=Equality(equality))

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many problems of the file or files are left out, and how many single tests of others, by reason."""
        counts: dict[str, int] = {}
        for questions in self._questions:
            for reason, number in questions.left_out.items():
                counts[reason] = counts.get(reason, 0) + number
        return counts

    @property
    def longest_verdict_s(self) -> float:
        """Seconds that the slowest answer to a problem of the file or files can take."""
        return max(self._judge.longest_s(question.tests) for questions in self._questions for question in questions.questions)

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        """All tasks of ``"train"`` or ``"heldout"``, shuffled by ``seed``. Raises ValueError for another split."""
        if split not in _SPLITS:
            raise ValueError(f"the code_file environment has the splits {' and '.join(_SPLITS)}; got {split!r}: name one of them")
        tasks = list(self._splits[split])
        random.Random(f"code_file/{split}/{seed}").shuffle(tasks)
        return tuple(tasks)

    def verify(self, task: Task, completion: str) -> Verdict:
        """Run the answer on the task's tests; the file is not needed for it.

        Raises ValueError for a task of another environment, SandboxUnavailable where code cannot be run safely.
        """
        tests = task.payload
        if not isinstance(tests, (FunctionTests, ProgramTests)):
            raise ValueError(f"the code_file environment judges its own tasks; got {task.id!r} of {task.env!r}: ask that one")
        return self._judge.verdict(tests, completion)

    @cached_property
    def _questions(self) -> tuple[Questions, ...]:
        """Read once, at the first need of them: a verifier has none."""
        paths = [self._path] if self._heldout_path is None else [self._path, self._heldout_path]
        return tuple(read_questions(path, self._format, self._dataset_split, self._examples) for path in paths)

    @cached_property
    def _splits(self) -> Mapping[str, tuple[Task, ...]]:
        if self._heldout_path is None:
            train, heldout = _apart(self._path, self._questions[0].questions, self._share)
        else:
            train, heldout = (questions.questions for questions in self._questions)
            _check_disjoint(train, heldout)
        _check_identities((*train, *heldout))
        return {"train": tuple(map(_task, train)), "heldout": tuple(map(_task, heldout))}


def _apart(path: str, questions: Sequence[Question], share: float) -> tuple[Sequence[Question], Sequence[Question]]:
    """Training and held-out questions. A text that occurs twice is on one side."""
    texts = sorted({_plain(question) for question in questions}, key=lambda text: blake2b(text.encode("utf-8")).digest())
    num_heldout = max(1, round(share * len(texts)))
    if num_heldout >= len(texts):
        raise ValueError(
            f"{path} must hold enough different problems for both splits; got {len(texts)}: "
            "give more, or env.options.heldout_path"
        )
    heldout = set(texts[:num_heldout])
    return (
        [question for question in questions if _plain(question) not in heldout],
        [question for question in questions if _plain(question) in heldout],
    )


def _plain(question: Question) -> str:
    """Its text less its white space, in which copies differ."""
    return " ".join(question.text.split())


def _check_disjoint(train: Sequence[Question], heldout: Sequence[Question]) -> None:
    known = {_plain(question): question for question in train}
    for question in heldout:
        if (same := known.get(_plain(question))) is not None:
            raise ValueError(
                "env.options.heldout_path must hold no problem that env.options.path holds; "
                f"got {question.identity!r}, which is {same.identity!r} there: remove one of them"
            )


def _check_identities(questions: Sequence[Question]) -> None:
    seen: set[str] = set()
    for question in questions:
        if question.identity in seen:
            raise ValueError(f"problems must have an id of their own; got {question.identity!r} twice: rename or remove one")
        seen.add(question.identity)


def read_tasks(path: str, env: str) -> tuple[Task, ...]:
    """Every problem of a file as a task of the environment ``env``, with the defaults of ``CodeFile``. Raises ValueError for a
    file that cannot be read."""
    questions = read_questions(path, "auto", "test", Examples(max_tests=20, num_visible=2)).questions
    _check_identities(questions)
    return tuple(_task(question, env) for question in questions)


def _task(question: Question, env: str = "code_file") -> Task:
    system = () if question.system is None else (Message(role=Role.system, content=question.system),)
    return Task(
        id=f"{env}/{question.identity}",
        env=env,
        messages=(*system, Message(role=Role.user, content=question.text)),
        payload=question.tests,
    )
