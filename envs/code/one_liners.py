"""One-line Python functions whose numbers, letters and words are drawn: tasks without end from a table of families.

Both splits have every family, with other instances: what is held out was never seen, and is of a kind that was. So it measures
whether an idiom was learned, and not an answer. Tasks whose families are held out as well are ``env=code``.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from itertools import product
from pathlib import Path
from string import Template

from sdpo.envs.base import Message, Role, Task, Verdict
from sdpo.envs.code.argument_kinds import arguments_of
from sdpo.envs.code.judge import Judge
from sdpo.envs.code.problem import SYSTEM_PROMPT, Variant, chosen, compiled, task_id
from sdpo.envs.code.trials import Arguments, FunctionTests, Trial, call_text

__all__ = ["OneLiners"]

_TABLE = Path(__file__).with_name("one_liners.toml")
_SPLITS = ("train", "heldout")
_NUM_INSTANCES = 12
"""Most instances of a family."""
_HELDOUT_SHARE = 0.25
_NUM_VISIBLE, _NUM_TRIALS, _NUM_DRAWN = 2, 12, 64


class Idioms(Enum):
    """What the feedback says of how the function is written."""

    values = "values"
    """The expression for the task's own values, as a reviewer writes it: ``s[:8] returns the first 8 characters …``"""
    letters = "letters"
    """The idiom alone: ``s[:k] has the first k characters.``"""
    none = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The template of one function."""

    name: str
    text: str
    """What the function does, from its verb on; a ``$parameter`` is its value."""
    takes: Mapping[str, str]
    """The function's arguments, and of which kind each is (``argument_kinds``)."""
    returns: str
    """The expression, where a ``$parameter`` is its literal."""
    idiom: str
    """What somebody who does not know how would be told of any instance, without its values."""
    parameters: Mapping[str, Sequence[int | str]]
    """What each may be. Where there are ``a`` and ``b``, the first is the smaller."""

    def instances(self) -> tuple[Variant, ...]:
        """At most ``_NUM_INSTANCES``, always the same, in an order that says nothing."""
        every = [dict(zip(self.parameters, values, strict=True)) for values in product(*self.parameters.values())]
        every = [instance for instance in every if "b" not in instance or _in_order(instance["a"], instance["b"])]
        random.Random(f"one_liners/{self.name}").shuffle(every)
        return tuple(every[:_NUM_INSTANCES])

    def split(self) -> dict[str, tuple[Variant, ...]]:
        every = self.instances()
        num_heldout = max(1, round(len(every) * _HELDOUT_SHARE))
        return {"train": every[num_heldout:], "heldout": every[:num_heldout]}

    def reference(self, instance: Variant) -> str:
        """The source of a right answer."""
        return f"{self._header()}\n    return {self._body(instance)}\n"

    def remark(self, instance: Variant, idioms: Idioms) -> str:
        """What is said of a wrong answer beside what failed."""
        match idioms:
            case Idioms.values:
                return f"{self._body(instance)} {Template(self.text).substitute(instance)}."
            case Idioms.letters:
                return self.idiom
            case Idioms.none:
                return ""

    def task(self, instance: Variant) -> Task:
        """The question and its tests; what each call must return is computed with the reference."""
        telling = list(self._telling(instance))
        visible, hidden, rest = telling[:_NUM_VISIBLE], telling[_NUM_VISIBLE:_NUM_TRIALS], telling[_NUM_TRIALS:]
        of_another_value = (trial for trial in rest if trial.expected != hidden[-1].expected)
        if all(trial.expected == hidden[-1].expected for trial in hidden) and (other := next(of_another_value, None)):
            hidden[-1] = other  # what answers with the examples of the question alone must fail
        question = (
            f"Write a Python function that {Template(self.text).substitute(instance)}.\n\n{self._header()}\n\n"
            f"{call_text(self.name, visible[0].arguments)} returns {visible[0].expected!r}"
        )
        return Task(
            id=task_id(self.name, instance, "one_liners"),
            env="one_liners",
            messages=(Message(role=Role.system, content=SYSTEM_PROMPT), Message(role=Role.user, content=question)),
            payload=FunctionTests(function=self.name, visible=tuple(visible), hidden=tuple(hidden)),
        )

    def _body(self, instance: Variant) -> str:
        return Template(self.returns).substitute({name: repr(value) for name, value in instance.items()})

    def _header(self) -> str:
        return f"def {self.name}({', '.join(self.takes)}):"

    def _telling(self, instance: Variant) -> Iterator[Trial]:
        """Calls in such an order that each tells this instance from as many others as the ones before have left.

        Others are the family's other instances, and what is one off in a number.
        """
        draw = random.Random(f"one_liners/{self.name}/{sorted(instance.items())}")
        calls = list(_distinct(arguments_of(self.takes.values(), instance, draw) for _ in range(_NUM_DRAWN)))
        solutions = dict(_solutions(self.name))
        solve = solutions.pop(self.reference(instance))
        expected = [solve(*call) for call in calls]
        others = [[other(*call) for call in calls] for other in (*solutions.values(), *_one_off(self, instance))]
        left, seen = list(range(len(calls))), list[object]()
        while left:
            best = max(left, key=lambda at: (sum(other[at] != expected[at] for other in others), expected[at] not in seen))
            left.remove(best)
            seen.append(expected[best])
            others = [other for other in others if other[best] == expected[best]]
            yield Trial(arguments=calls[best], expected=expected[best])


def _one_off(family: Family, instance: Variant) -> Iterator[Callable[..., object]]:
    for name, value in instance.items():
        if isinstance(value, int):
            for near in (value - 1, value + 1):
                yield compiled(family.reference({**instance, name: near}), family.name)


@cache
def _solutions(name: str) -> Mapping[str, Callable[..., object]]:
    """The compiled solution of each of the family's instances, by its source."""
    family = _families()[name]
    return {source: compiled(source, name) for source in map(family.reference, family.instances())}


def _in_order(a: int | str, b: int | str) -> bool:
    return a < b if isinstance(a, int) and isinstance(b, int) else a != b


def _distinct(calls: Iterator[Arguments]) -> Iterator[Arguments]:
    found: list[Arguments] = []
    for call in calls:
        if call not in found:
            found.append(call)
            yield call


class OneLiners:
    """One-line functions, judged by visible and hidden tests; what is said of a wrong answer also says how it is written.

    ``idioms``, one of ``Idioms``, is in which words. ``families`` chooses among the table's; None is all of them. Raises
    ValueError for options out of range.
    """

    name = "one_liners"
    tasks_limit_s = 120.0

    def __init__(
        self,
        *,
        families: Sequence[str] | None = None,
        idioms: str = "values",
        timeout_s: float = 5.0,
        memory_bytes: int = 1 << 29,
    ) -> None:
        self._judge = Judge(reward="all", timeout_s=timeout_s, memory_bytes=memory_bytes, max_feedback_tokens=400)
        self._timeout_s = timeout_s
        ways = [way.value for way in Idioms]
        if idioms not in ways:
            raise ValueError(f"env.options.idioms must be one of {', '.join(ways)}; got {idioms!r}: try {ways[0]}")
        self._idioms = Idioms(idioms)
        known = _families()
        names = chosen("families", families, list(known))
        self._families = [name for name in known if name in names]

    @property
    def longest_verdict_s(self) -> float:
        """Seconds that the slowest answer can take: visible calls, then hidden ones."""
        return 2 * self._timeout_s

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        """Shuffled by ``seed``. Raises ValueError for a split other than ``"train"`` and ``"heldout"``."""
        if split not in _SPLITS:
            raise ValueError(f"one_liners has the splits {' and '.join(_SPLITS)}; got {split!r}: name one of them")
        tasks = [task for name in self._families for task in _tasks_of(name, split)]
        random.Random(f"one_liners/{split}/{seed}").shuffle(tasks)
        return tuple(tasks)

    def verify(self, task: Task, completion: str) -> Verdict:
        """Run the answer on the task's tests.

        Raises ValueError for a task of another environment, SandboxUnavailable where code cannot be run safely.
        """
        family, instance = self._asked(task)
        assert isinstance(task.payload, FunctionTests)
        verdict = self._judge.verdict(task.payload, completion)
        if verdict.feedback is None or self._idioms is Idioms.none:
            return verdict
        return replace(verdict, feedback=f"{verdict.feedback}\n{family.remark(instance, self._idioms)}")

    def reference(self, task: Task) -> str:
        """A right answer. Raises ValueError for a task of another environment."""
        family, instance = self._asked(task)
        return f"```python\n{family.reference(instance)}```"

    def _asked(self, task: Task) -> tuple[Family, Variant]:
        name = task.payload.function if isinstance(task.payload, FunctionTests) else ""
        if name not in _families() or task.id not in _instances_by_id(name):
            raise ValueError(f"one_liners judges its own tasks; got {task.id!r} of {task.env!r}: ask that environment")
        return _families()[name], _instances_by_id(name)[task.id]


@cache
def _families() -> Mapping[str, Family]:
    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    domains = {name: _domain(values) for name, values in table.pop("domains").items()}
    return {
        name: Family(
            name=name,
            text=entry["text"],
            takes=entry["takes"],
            returns=entry["returns"],
            idiom=entry["idiom"],
            parameters={
                parameter: domains[of] if isinstance(of, str) else _domain(of) for parameter, of in entry["parameters"].items()
            },
        )
        for name, entry in table.items()
    }


def _domain(values: Sequence[int | str]) -> Sequence[int | str]:
    """``[2, 30]`` is all integers from 2 to 30."""
    if len(values) == 2 and all(isinstance(value, int) for value in values):
        return range(int(values[0]), int(values[1]) + 1)
    return values


@cache
def _tasks_of(name: str, split: str) -> tuple[Task, ...]:
    family = _families()[name]
    return tuple(map(family.task, family.split()[split]))


@cache
def _instances_by_id(name: str) -> Mapping[str, Variant]:
    """By task, without making the tasks: a verifier needs none."""
    return {task_id(name, instance, "one_liners"): instance for instance in _families()[name].instances()}
