"""The environment ``chemistry``: small questions about small molecules, made by a procedure and judged by RDKit.

Six families, in three modules: ``counting`` (heavy_atoms, rings, functional_groups), ``formulas`` (formula, build) and
``bounds``. Which molecules there are and how the splits are kept apart: ``molecules``. How hostile text is read:
``answers``, ``smiles``.

Left out: reactions, names, stereochemistry and spectra; partial rewards, as the feedback is what carries the nuance.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache

from sdpo.envs.base import Message, Role, Task, Verdict
from sdpo.envs.chemistry.answers import CLOSE, OPEN, Unreadable, find_answer
from sdpo.envs.chemistry.bounds import bounds_questions
from sdpo.envs.chemistry.counting import functional_group_questions, heavy_atom_questions, ring_questions
from sdpo.envs.chemistry.formulas import build_questions, formula_questions
from sdpo.envs.chemistry.molecules import SPLITS, stable_hash
from sdpo.envs.chemistry.question import Question, unreadable

__all__ = ["FAMILIES", "Chemistry"]

FAMILIES: Mapping[str, Callable[[str, int], Sequence[Question]]] = {
    "heavy_atoms": heavy_atom_questions,
    "rings": ring_questions,
    "functional_groups": functional_group_questions,
    "formula": formula_questions,
    "build": build_questions,
    "bounds": bounds_questions,
}
"""Each gives its questions of a split, at most so many."""

MAX_TASKS_OF_FAMILY = {"train": 240, "heldout": 60}

SYSTEM_PROMPT = f"You are a chemist. Write your final answer between {OPEN} and {CLOSE}."


class Chemistry:
    """Counting, formulas and design of small molecules, judged by RDKit: reward 1 if right, else 0."""

    name = "chemistry"

    def __init__(self, *, families: Sequence[str] | None = None) -> None:
        """``families``: the names of those to ask, in any order; None for all of them."""
        asked = tuple(FAMILIES) if families is None else tuple(families)
        for family in asked:
            if family not in FAMILIES:
                near = get_close_matches(str(family), FAMILIES, n=1)
                raise ValueError(
                    f"chemistry's families must be among {', '.join(FAMILIES)}; got {family!r}"
                    + (f" (did you mean {near[0]!r}?)" if near else "")
                )
        if not asked:
            raise ValueError(f"chemistry needs at least one family (or None for all); got none of {', '.join(FAMILIES)}")
        self.families = tuple(family for family in FAMILIES if family in asked)

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        """The tasks of ``split`` in an order given by ``seed``; which tasks they are does not depend on it."""
        if split not in SPLITS:
            raise ValueError(f"chemistry's split must be one of {', '.join(SPLITS)}; got {split!r}")
        tasks = [task for family in self.families for task in _tasks_of(family, split)]
        random.Random(f"chemistry/{split}/{seed}").shuffle(tasks)
        return tasks

    def verify(self, task: Task, completion: str) -> Verdict:
        """1 for a right answer between tags, else 0 and what is wrong with it; no answer makes it raise."""
        question = task.payload
        if not isinstance(question, Question):
            raise ValueError(f"chemistry verifies its own tasks only; got {task.id!r} of {task.env!r}")
        answer = find_answer(completion)
        is_found = not isinstance(answer, Unreadable)
        judgement = question.judge(answer) if not isinstance(answer, Unreadable) else unreadable(answer)
        return Verdict(
            reward=1.0 if judgement.feedback is None else 0.0,
            feedback=judgement.feedback,
            metrics={"format_ok": float(is_found), "well_formed": float(judgement.is_well_formed)},
        )


@cache
def _tasks_of(family: str, split: str) -> tuple[Task, ...]:
    """Made once a process, as two calls for the same split differ in order only."""
    questions = FAMILIES[family](split, MAX_TASKS_OF_FAMILY[split])
    return tuple(
        Task(
            id=f"chemistry/{family}/{stable_hash(question.key):016x}",
            env=Chemistry.name,
            messages=(
                Message(role=Role.system, content=SYSTEM_PROMPT),
                Message(role=Role.user, content=question.prompt),
            ),
            payload=question,
        )
        for question in questions
    )
