"""What is a programming problem, and how does it become tasks?

A problem is the template of one base function, an entry of ``problems/<family>.toml``. It has a text with ``$parameters``, a
reference solution that says what is right, and calls to try. Each of its variants is a task. A problem belongs to one split with
all its variants, as its entry says. So a held-out task is never a training task with another number in it.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from string import Template

from sdpo.envs.base import Message, Role, Task
from sdpo.envs.code.trials import Arguments, FunctionTests, Trial, call_text

SYSTEM_PROMPT = "You are a Python programmer. Reply with one Python function in a ```python block and nothing else."
_FOLDER = Path(__file__).with_name("problems")
_MAX_EXAMPLES = 2
_MAX_EXAMPLES_CHARS = 70  # for more than one; one is always shown

Variant = Mapping[str, int | float | str]


class Difficulty(str, Enum):
    """How much has to be thought of."""

    easy = "easy"
    """A line or two, as the text says it."""
    medium = "medium"
    """A loop with a state, or two ideas together."""
    hard = "hard"
    """An algorithm that the text does not name, or cases that are easily forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The template of one base function."""

    family: str
    base: str
    """Unique; the stem of its tasks' ids."""
    is_heldout: bool
    difficulty: Difficulty
    text: str
    """What the function does, from its verb on; a ``$parameter`` is its value: ``"returns x plus $n"``."""
    signature: str
    """The function's name and arguments, with parameters as in ``text``: ``"add_$n(x)"``."""
    solution: str
    """The body of the reference, where a ``$parameter`` is its literal: ``"return x + $n"``. Never shown to anyone."""
    visible: tuple[Arguments, ...]
    hidden: tuple[Arguments, ...]
    variants: tuple[Variant, ...]
    """At least one; the only one of a problem without parameters is empty."""

    def reference(self, variant: Variant) -> str:
        """The source of a right answer to ``variant``."""
        body = Template(self.solution).substitute({name: repr(value) for name, value in variant.items()})
        return f"{self._header(variant)}\n" + "".join(f"    {line}\n" for line in body.splitlines())

    def task(self, variant: Variant) -> Task:
        """The question and its tests; what each call must return is computed with the reference."""
        header = self._header(variant)
        function = header.removeprefix("def ").partition("(")[0]
        solve = compiled(self.reference(variant), function)
        visible, hidden = (
            tuple(Trial(arguments=arguments, expected=solve(*arguments)) for arguments in calls)
            for calls in (self.visible, self.hidden)
        )
        text = Template(self.text).substitute(variant)
        question = f"Write a Python function that {text}.\n\n{header}\n\n{_examples(function, visible)}"
        return Task(
            id=task_id(self.base, variant),
            env="code",
            messages=(Message(role=Role.system, content=SYSTEM_PROMPT), Message(role=Role.user, content=question)),
            payload=FunctionTests(function=function, visible=visible, hidden=hidden),
        )

    def _header(self, variant: Variant) -> str:
        return f"def {Template(self.signature).substitute(variant)}:"


def load_problems() -> tuple[Problem, ...]:
    """All problems of all families, in the order of their files and entries."""
    return tuple(
        _problem(path.stem, base, entry)
        for path in sorted(_FOLDER.glob("*.toml"))
        for base, entry in tomllib.loads(path.read_text(encoding="utf-8")).items()
    )


def _problem(family: str, base: str, entry: Mapping[str, object]) -> Problem:
    known = {"heldout", "difficulty", "text", "signature", "solution", "visible", "hidden", "variants"}
    assert entry.keys() <= known, f"{family}.{base} has an unknown key: {sorted(entry.keys() - known)}"
    visible, hidden, columns = entry["visible"], entry["hidden"], entry.get("variants", {})
    assert isinstance(visible, list)
    assert isinstance(hidden, list)
    assert isinstance(columns, dict)
    return Problem(
        family=family,
        base=base,
        is_heldout=entry.get("heldout") is True,
        difficulty=Difficulty(entry.get("difficulty", "easy")),
        text=str(entry["text"]),
        signature=str(entry["signature"]),
        solution=str(entry["solution"]),
        visible=tuple(_arguments(call) for call in visible),
        hidden=tuple(_arguments(call) for call in hidden),
        variants=variants_of(columns),
    )


def variants_of(columns: Mapping[str, Sequence[int | float | str]]) -> tuple[Variant, ...]:
    """``{n = [1, 2], c = ["a", "b"]}`` is two variants; no column at all is the one without parameters."""
    rows = zip(*columns.values(), strict=True) if columns else [()]
    return tuple(dict(zip(columns, row, strict=True)) for row in rows)


def _arguments(call: str) -> Arguments:
    """``_arguments("5, [1, 2]")`` is ``(5, [1, 2])``."""
    arguments = ast.literal_eval(f"({call},)")
    assert isinstance(arguments, tuple)
    return arguments


def _examples(function: str, trials: tuple[Trial, ...]) -> str:
    lines = [f"{call_text(function, trial.arguments)} returns {trial.expected!r}" for trial in trials[:_MAX_EXAMPLES]]
    return "\n".join(lines if sum(map(len, lines)) <= _MAX_EXAMPLES_CHARS else lines[:1])


def task_id(base: str, variant: Variant, env: str = "code") -> str:
    """``task_id("add", {"n": 3})`` is ``"code/add-3"``."""
    return "-".join([f"{env}/{base}", *map(_slug, variant.values())])


def chosen(option: str, names: Sequence[str] | None, known: Sequence[str]) -> frozenset[str]:
    """Those of ``known`` that an option names; None is all. Raises ValueError for anything but a list of some of them."""
    if names is None:
        return frozenset(known)
    unknown = [name for name in names if name not in known]
    if unknown or isinstance(names, str) or not names:
        raise ValueError(
            f"env.options.{option} must be a list of one or more of {', '.join(known)}; got {names!r}: try {list(known[:2])}"
        )
    return frozenset(names)


def _slug(value: int | float | str) -> str:
    """A parameter in an id: letters and digits, any other character by its code point."""
    return "".join(char if char.isalnum() else f"u{ord(char):x}" for char in str(value))


def compiled(source: str, function: str) -> Callable[..., object]:
    namespace: dict[str, Callable[..., object]] = {}
    exec(source, namespace)  # our own source, from our own table
    return namespace[function]
