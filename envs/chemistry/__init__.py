"""The environment ``chemistry``: small questions about small molecules, made by a procedure and judged by RDKit.

Sixteen families in three difficulties, each in a module that says its question: ``counting``, ``formulas``, ``bounds``,
``weighing``, ``isomers``, ``repair``, ``stereo``, ``oxidation``, ``balancing``, ``stoichiometry``, ``synthesis``. What they are
asked about: ``molecules``, ``equations``, ``reactions``; how the splits are kept apart is said there. How hostile text is
read: ``answers``, ``smiles``.

Left out: names, spectra, mechanisms, equilibria; partial rewards, as the feedback is what carries the nuance.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache

from sdpo.envs.answers import CLOSE, OPEN, NoAnswer, tagged_answer, undecorated
from sdpo.envs.base import Message, Role, Task, Verdict
from sdpo.envs.chemistry.answers import MAX_ANSWER_CHARACTERS, Unreadable
from sdpo.envs.chemistry.balancing import balance_questions
from sdpo.envs.chemistry.bounds import bounds_questions
from sdpo.envs.chemistry.counting import functional_group_questions, heavy_atom_questions, ring_questions, unsaturation_questions
from sdpo.envs.chemistry.formulas import build_questions, formula_questions
from sdpo.envs.chemistry.goal import read_goal
from sdpo.envs.chemistry.isomers import isomer_questions
from sdpo.envs.chemistry.molecules import SPLITS, stable_hash
from sdpo.envs.chemistry.oxidation import oxidation_state_questions
from sdpo.envs.chemistry.question import Difficulty, Question, unreadable
from sdpo.envs.chemistry.repair import repair_questions
from sdpo.envs.chemistry.stereo import stereocentre_questions
from sdpo.envs.chemistry.stoichiometry import stoichiometry_questions
from sdpo.envs.chemistry.synthesis import product_questions, retrosynthesis_questions
from sdpo.envs.chemistry.weighing import weight_questions

__all__ = ["FAMILIES", "Chemistry"]

FAMILIES: Mapping[str, Callable[[str, int], Sequence[Question]]] = {
    "heavy_atoms": heavy_atom_questions,
    "rings": ring_questions,
    "functional_groups": functional_group_questions,
    "formula": formula_questions,
    "build": build_questions,
    "bounds": bounds_questions,
    "weight": weight_questions,
    "unsaturation": unsaturation_questions,
    "isomers": isomer_questions,
    "repair": repair_questions,
    "stereocentres": stereocentre_questions,
    "oxidation_state": oxidation_state_questions,
    "balance": balance_questions,
    "stoichiometry": stoichiometry_questions,
    "product": product_questions,
    "retrosynthesis": retrosynthesis_questions,
}
"""Each gives its questions of a split, at most so many of each difficulty."""

MAX_TASKS = {"train": 80, "heldout": 20}
"""Most tasks of each family and difficulty, by split."""

SYSTEM_PROMPT = f"You are a chemist. Write your final answer between {OPEN} and {CLOSE}."


class Chemistry:
    """Counting, formulas, reactions and design of small molecules, judged by RDKit: reward 1 if right, else 0."""

    name = "chemistry"
    tasks_limit_s = 120.0

    def __init__(self, *, families: Sequence[str] | None = None, difficulties: Sequence[str] | None = None) -> None:
        """The names of those to ask, in any order; None for all of them. Difficulties: easy, medium, hard."""
        self.families = _chosen("families", families, tuple(FAMILIES))
        self.difficulties = _chosen("difficulties", difficulties, tuple(difficulty.value for difficulty in Difficulty))

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        """The tasks of ``split`` in an order given by ``seed``; which tasks they are does not depend on it."""
        if split not in SPLITS:
            raise ValueError(f"chemistry's split must be one of {', '.join(SPLITS)}; got {split!r}")
        tasks = [
            task
            for family in self.families
            for difficulty, task in _tasks_of(family, split)
            if difficulty.value in self.difficulties
        ]
        random.Random(f"chemistry/{split}/{seed}").shuffle(tasks)
        return tasks

    def from_file(self, path: str) -> Sequence[Task]:
        """A goal of the user's own (``goal.py``). Raises ValueError for another file."""
        return (_task("goal", read_goal(path)),)

    def reference(self, task: Task) -> str:
        """A right answer."""
        assert isinstance(task.payload, Question)
        return f"{OPEN}{task.payload.reference}{CLOSE}"

    def verify(self, task: Task, completion: str) -> Verdict:
        """1 for a right answer between tags, else 0 and what is wrong with it; no answer makes it raise."""
        question = task.payload
        if not isinstance(question, Question):
            raise ValueError(f"chemistry verifies its own tasks only; got {task.id!r} of {task.env!r}")
        is_found = True
        try:
            judgement = question.judge(undecorated(tagged_answer(completion, max_chars=MAX_ANSWER_CHARACTERS)))
        except NoAnswer as reason:
            is_found, judgement = False, unreadable(Unreadable(str(reason)))
        return Verdict(
            reward=1.0 if judgement.feedback is None else 0.0,
            feedback=judgement.feedback,
            metrics={"format_ok": float(is_found), "well_formed": float(judgement.is_well_formed)},
        )


@cache
def _tasks_of(family: str, split: str) -> tuple[tuple[Difficulty, Task], ...]:
    """Made once a process, as two calls for the same split differ in order only."""
    questions = FAMILIES[family](split, MAX_TASKS[split])
    return tuple((question.difficulty, _task(family, question)) for question in questions)


def _task(family: str, question: Question) -> Task:
    return Task(
        id=f"chemistry/{family}/{question.difficulty.value}/{stable_hash(question.key):016x}",
        env=Chemistry.name,
        messages=(
            Message(role=Role.system, content=SYSTEM_PROMPT),
            Message(role=Role.user, content=question.prompt),
        ),
        payload=question,
    )


def _chosen(option: str, names: Sequence[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """``names`` in the order of those known; all of them for None."""
    if names is None:
        return known
    if isinstance(names, str):
        raise ValueError(f"chemistry's {option} must be a list of names; got the text {names!r}: write [{names}]")
    for name in names:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            raise ValueError(
                f"chemistry's {option} must be among {', '.join(known)}; got {name!r}"
                + (f" (did you mean {near[0]!r}?)" if near else "")
            )
    if not names:
        raise ValueError(f"chemistry needs at least one of its {option} (or None for all); got none of {', '.join(known)}")
    return tuple(name for name in known if name in names)
