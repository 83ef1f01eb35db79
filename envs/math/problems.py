"""Which problems does a file hold? Its columns say in which of the published formats it is.

- GSM8K: ``question``, and ``answer`` that ends in ``#### 72``
- MATH: ``problem``, and ``solution`` with the answer in the last ``\\boxed{}``
- others: ``question`` or ``problem``, and ``answer``, which is then the answer alone; it goes before a ``solution``

Names of columns are read in any case. The solution is not kept.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from sdpo.envs.adapters.rows import digest, read_rows
from sdpo.envs.answers import NoAnswer, undecorated
from sdpo.envs.math.boxed import MAX_ANSWER_CHARS, last_box

QUESTIONS, ANSWERS = ("problem", "question"), ("answer", "solution")
_MARK = "####"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The payload of a task."""

    place: str
    """``"train.jsonl:3"``, for messages."""
    text: str
    """As the student sees it."""
    answer: str
    """The right answer, never to be shown to a student."""

    @property
    def question(self) -> str:
        """What makes two problems the same one: the text, but for spaces and case."""
        return " ".join(self.text.lower().split())

    @property
    def digest(self) -> str:
        return digest(self.question)


def read_problems(path: str) -> tuple[Problem, ...]:
    """The problems of a file in its order, each question once. Warns of rows whose answer cannot be read.

    Raises ValueError for a file that cannot be read, for one in another format, and for one without any problem.
    """
    problems: dict[str, Problem] = {}
    unread: list[str] = []
    for number, row in enumerate(read_rows(path), start=1):
        place = f"{path}:{number}"
        columns = {name.lower(): value for name, value in row.items()}
        text = _text(columns, place)
        try:
            problem = Problem(place=place, text=text, answer=_answer(columns, place))
        except NoAnswer as reason:
            unread.append(f"{place}: {reason}")
            continue
        problems.setdefault(problem.question, problem)
    if not problems:
        why = f"; {unread[0]}" if unread else ""
        raise ValueError(f"math needs a file with at least one problem whose answer can be read; {path} has none{why}")
    if unread:
        warnings.warn(f"math left out {len(unread)} rows of {path} whose answer cannot be read; {unread[0]}", stacklevel=2)
    return tuple(problems.values())


def _text(columns: Mapping[str, object], place: str) -> str:
    for name in QUESTIONS:
        match columns.get(name):
            case str(text) if text.strip():
                try:
                    text.encode()
                except UnicodeEncodeError:
                    raise ValueError(f"{place}: {name} must be valid Unicode; it holds half of a surrogate pair") from None
                return text
    raise ValueError(
        f"{place}: a row must have a text under {' or '.join(QUESTIONS)}; it has {', '.join(sorted(columns))}: rename its columns"
    )


def _answer(columns: Mapping[str, object], place: str) -> str:
    """Raises NoAnswer where the column holds none, ValueError where there is no such column."""
    for name in ANSWERS:
        match columns.get(name):
            case str(text) if text.strip():
                return _final(text, is_solution=name == "solution")
            case int() | float() as number if not isinstance(number, bool):
                return str(number)
    raise ValueError(
        f"{place}: a row must have an answer under {' or '.join(ANSWERS)}; "
        f"it has {', '.join(sorted(columns))}: rename its columns"
    )


def _final(text: str, *, is_solution: bool) -> str:
    """The answer at the end of a solution, or the text itself."""
    _, mark, after = text.rpartition(_MARK)
    answer = after if mark else last_box(text)
    if answer is None:
        if is_solution:
            raise NoAnswer("there is no \\boxed{} in its solution")
        answer = text
    answer = undecorated(answer)
    if not answer:
        raise NoAnswer("its answer is empty")
    if len(answer) > MAX_ANSWER_CHARS or answer.count("{") != answer.count("}"):
        raise NoAnswer(f"its answer must have at most {MAX_ANSWER_CHARS} characters, and braces in pairs")
    return answer
