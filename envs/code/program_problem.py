"""What is a problem whose answer is a whole program, and how does it become tasks?

This module does for programs what ``problem.py`` does for functions, with tables of their own in ``programs/<family>.toml``. A
program reads standard input and prints. So its tests are inputs, and it must print what the reference prints.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from sdpo.envs.base import Message, Role, Task
from sdpo.envs.code.problem import Difficulty, Variant, task_id, variants_of
from sdpo.envs.code.trials import ProgramTests, ProgramTrial

SYSTEM_PROMPT = (
    "You are a Python programmer. Reply with one Python program, which reads standard input and prints, "
    "in a ```python block and nothing else."
)
_FOLDER = Path(__file__).with_name("programs")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramProblem:
    """The template of one base program."""

    family: str
    base: str
    """Unique among functions and programs; the stem of its tasks' ids."""
    is_heldout: bool
    difficulty: Difficulty
    text: str
    """What the program does, from its verb on: ``"reads an integer n and prints n times $k"``."""
    solution: str
    """The reference, where a ``$parameter`` is its literal. It reads with ``input`` and writes with ``print``, no other way."""
    visible: tuple[str, ...]
    hidden: tuple[str, ...]
    variants: tuple[Variant, ...]

    def reference(self, variant: Variant) -> str:
        """The source of a right answer to ``variant``."""
        return Template(self.solution).substitute({name: repr(value) for name, value in variant.items()}).strip() + "\n"

    def task(self, variant: Variant) -> Task:
        """The question and its tests; what each run must print is computed with the reference."""
        program = self.reference(variant)
        visible, hidden = (
            tuple(ProgramTrial(stdin=stdin, expected=_printed(program, stdin)) for stdin in inputs)
            for inputs in (self.visible, self.hidden)
        )
        example = f"Example input:\n{visible[0].stdin}\nIts output:\n{visible[0].expected}"
        question = f"Write a Python program that {Template(self.text).substitute(variant)}.\n\n{example}".rstrip()
        return Task(
            id=task_id(self.base, variant),
            env="code",
            messages=(Message(role=Role.system, content=SYSTEM_PROMPT), Message(role=Role.user, content=question)),
            payload=ProgramTests(visible=visible, hidden=hidden),
        )


def load_program_problems() -> tuple[ProgramProblem, ...]:
    """All problems of all families, in the order of their files and entries."""
    return tuple(
        _problem(path.stem, base, entry)
        for path in sorted(_FOLDER.glob("*.toml"))
        for base, entry in tomllib.loads(path.read_text(encoding="utf-8")).items()
    )


def _problem(family: str, base: str, entry: Mapping[str, object]) -> ProgramProblem:
    known = {"heldout", "difficulty", "text", "solution", "visible", "hidden", "variants"}
    assert entry.keys() <= known, f"{family}.{base} has an unknown key: {sorted(entry.keys() - known)}"
    visible, hidden, columns = entry["visible"], entry["hidden"], entry.get("variants", {})
    assert isinstance(visible, list)
    assert isinstance(hidden, list)
    assert isinstance(columns, dict)
    return ProgramProblem(
        family=family,
        base=base,
        is_heldout=entry.get("heldout") is True,
        difficulty=Difficulty(entry["difficulty"]),
        text=str(entry["text"]),
        solution=str(entry["solution"]),
        visible=tuple(visible),
        hidden=tuple(hidden),
        variants=variants_of(columns),
    )


def _printed(program: str, stdin: str) -> str:
    """What our own ``program`` prints, computed without a process and without touching this one's streams."""
    lines = iter(stdin.split("\n"))
    printed: list[str] = []

    def write(*values: object, sep: str = " ", end: str = "\n") -> None:
        printed.append(sep.join(map(str, values)) + end)

    exec(program, {"input": lambda: next(lines), "print": write})  # our own source, from our own table
    return "".join(printed)
