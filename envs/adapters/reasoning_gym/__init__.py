"""The environment ``reasoning_gym``: any dataset of the package reasoning-gym, by name.

Reward is the dataset's own score, in [0, 1]. Its scorers return nothing but a number. Feedback therefore says only what is known
without the answer: that none was found, what was wrong with its form, or how much it scored. No code of the package runs in this
process, nor does an answer: see ``scoring.py``, ``worker.py``, ``plain.py``.

Left out: curricula, and ``composite``, which mixes datasets.
"""

from __future__ import annotations

import json
import math
import random
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from hashlib import blake2b
from importlib.util import find_spec

from sdpo.envs.adapters.reasoning_gym.known import EASILY_FOOLED, NEEDING, NOT_REPEATABLE, REFUSED
from sdpo.envs.adapters.reasoning_gym.plain import refusal
from sdpo.envs.adapters.reasoning_gym.scoring import Puzzle, Unscored, dataset_names, puzzles, score
from sdpo.envs.answers import CLOSE, OPEN, NoAnswer, plain_answer, tagged_answer
from sdpo.envs.base import Message, Role, Task, Verdict
from sdpo.envs.sandbox.helpers import Limits

__all__ = ["ReasoningGym"]

_SPLITS = ("train", "heldout")
_OWN_OPTIONS = ("seed", "size")
_SYSTEM_PROMPT = (
    f"Solve the problem. Write your final answer, and nothing else, between {OPEN} and {CLOSE}, "
    "exactly in the format that is asked for."
)


class ReasoningGym:
    """Puzzles of one dataset, judged by its own scorer."""

    name = "reasoning_gym"
    tasks_limit_s = 120.0

    def __init__(
        self,
        *,
        dataset: str,
        options: Mapping[str, object] | None = None,
        size: int = 500,
        seed: int = 0,
        heldout_share: float = 0.2,
        threshold: float | None = None,
        tags: bool = True,
        timeout_s: float = 10.0,
        memory_bytes: int = 1 << 30,
    ) -> None:
        """``dataset``: its name; ``options``: fields of its config other than seed and size.

        ``size``: puzzles made, both splits together; questions that come twice count once. ``seed``: which ones.
        ``heldout_share``: of them. ``threshold``: the score from which on the reward is 1, below it 0; None for the score itself.
        ``tags``: the answer stands in ``<answer>`` tags; else the whole completion is the answer.
        ``timeout_s``, ``memory_bytes``: what scoring one answer may use. Raises ValueError for anything out of range.
        """
        if find_spec("reasoning_gym") is None:
            raise ValueError(
                "the environment reasoning_gym needs the package reasoning-gym: install sdpo[gym], or reasoning-gym itself"
            )
        options = dict(options or {})
        _check_dataset(dataset)
        for option in _OWN_OPTIONS:
            if option in options:
                raise ValueError(
                    f"env.options.options may not hold {option!r}, which has a place of its own: env.options.{option}"
                )
        try:
            json.dumps(options)
        except TypeError as error:
            raise ValueError(
                f"env.options.options must be texts, numbers, and lists and mappings of them; got {options!r}"
            ) from error
        if not 2 <= size <= 1_000_000:
            raise ValueError(f"env.options.size must lie in [2, 1000000] puzzles; got {size!r}: try 500")
        if not 0 < heldout_share < 1:
            raise ValueError(f"env.options.heldout_share must lie between 0 and 1; got {heldout_share!r}: try 0.2")
        if threshold is not None and not 0 < threshold <= 1:
            raise ValueError(
                f"env.options.threshold must lie in (0, 1], or be null for the score itself; got {threshold!r}: try 1"
            )
        if not (math.isfinite(timeout_s) and 0.1 <= timeout_s <= 600):
            raise ValueError(f"env.options.timeout_s must lie in [0.1, 600] seconds; got {timeout_s!r}: try 10")
        if memory_bytes < 1 << 26:
            raise ValueError(f"env.options.memory_bytes must be at least {1 << 26} (64 MB); got {memory_bytes!r}: try {1 << 30}")
        if dataset in NOT_REPEATABLE:
            warnings.warn(f"reasoning-gym's dataset {dataset!r} is not repeatable: {NOT_REPEATABLE[dataset]}", stacklevel=2)
        if dataset in EASILY_FOOLED:
            warnings.warn(f"reasoning-gym's dataset {dataset!r} is easily fooled: {EASILY_FOOLED[dataset]}", stacklevel=2)
        self._dataset = dataset
        self._options = {**options, "seed": seed, "size": size}
        self._heldout_share = heldout_share
        self._threshold = threshold
        self._has_tags = tags
        self._limits = Limits(wall_s=timeout_s, memory_bytes=memory_bytes)

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        """The puzzles of ``split`` in an order given by ``seed``; which puzzles they are does not depend on it."""
        if split not in _SPLITS:
            raise ValueError(f"reasoning_gym's split must be one of {', '.join(_SPLITS)}; got {split!r}")
        try:
            made = puzzles(self._dataset, self._options, split, self._heldout_share)
        except ValueError as error:
            raise ValueError(
                f"reasoning-gym must be able to make the dataset {self._dataset!r} with {self._options!r}; it "
                f"said {error}: correct "
                "env.options.options"
            ) from error
        # Two in a hundred of intermediate_integration's own answers still hold an integral, which is no answer.
        made = [(question, puzzle) for question, puzzle in made if _is_answerable(puzzle)]
        if not made:
            raise ValueError(
                f"no puzzle of {self._dataset!r} falls into the split {split!r} ({self._options['size']} made, a share of "
                f"{self._heldout_share} held out): raise env.options.size"
            )
        tasks = [self._task(question, puzzle) for question, puzzle in made]
        random.Random(f"reasoning_gym/{split}/{seed}").shuffle(tasks)
        return tasks

    def verify(self, task: Task, completion: str) -> Verdict:
        """The dataset's score; no answer makes it raise. Raises RuntimeError where scoring itself is broken."""
        puzzle = task.payload
        if not isinstance(puzzle, Puzzle):
            raise ValueError(f"reasoning_gym verifies its own tasks only; got {task.id!r} of {task.env!r}")
        try:
            answer = tagged_answer(completion) if self._has_tags else plain_answer(completion)
        except NoAnswer as reason:
            return _unscored(str(reason), has_answer=False)
        if (reason_against := refusal(puzzle.dataset, answer)) is not None:
            return _unscored(reason_against, has_answer=True)
        scored = score(puzzle, self._options, answer, self._limits)
        if isinstance(scored, Unscored):
            return _unscored(
                f"The answer could not be scored: the scorer stopped, as {scored.reason}. Keep to the format that "
                "the question asks for.",
                has_answer=True,
            )
        value = min(max(scored.value, 0.0), 1.0) if math.isfinite(scored.value) else 0.0
        reward = value if self._threshold is None else float(value >= self._threshold)
        return Verdict(
            reward=reward,
            feedback=None if reward >= 1.0 else _feedback(value),
            metrics={"format_ok": 1.0, "scored": 1.0, "score": value},
        )

    def _task(self, question: str, puzzle: Puzzle) -> Task:
        digest = blake2b(question.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        asked = Message(role=Role.user, content=question)
        system = Message(role=Role.system, content=_SYSTEM_PROMPT)
        return Task(
            id=f"reasoning_gym/{self._dataset}/{digest}",
            env=self.name,
            messages=(system, asked) if self._has_tags else (asked,),
            payload=puzzle,
        )


def _is_answerable(puzzle: Puzzle) -> bool:
    return puzzle.reference is None or refusal(puzzle.dataset, puzzle.reference) is None


def _check_dataset(dataset: str) -> None:
    if dataset in REFUSED:
        raise ValueError(f"reasoning-gym's dataset {dataset!r} is not served: {REFUSED[dataset]}")
    if dataset in NEEDING and find_spec(NEEDING[dataset]) is None:
        raise ValueError(
            f"reasoning-gym's dataset {dataset!r} needs the package {NEEDING[dataset]}: install it (it needs a C compiler)"
        )
    names = [name for name in dataset_names() if name not in REFUSED]
    if dataset not in names:
        near = get_close_matches(str(dataset), names, n=1)
        raise ValueError(
            f"env.options.dataset must be a dataset of reasoning-gym; got {dataset!r}"
            + (f" (did you mean {near[0]!r}?)" if near else "")
            + f"; there are {', '.join(names)}"
        )


def _unscored(feedback: str, *, has_answer: bool) -> Verdict:
    return Verdict(reward=0.0, feedback=feedback, metrics={"format_ok": float(has_answer), "scored": 0.0, "score": 0.0})


def _feedback(value: float) -> str:
    """Feedback that tells the score alone, cut and not rounded, so that nothing short of 1 reads as 1."""
    shown = math.floor(value * 100) / 100
    if shown > 0.1:
        return (
            f"The answer is not fully right: it scored {shown:g} of 1. Check each part of it, and that its "
            "format is the one asked for."
        )
    return "The answer is wrong. Check the reasoning step by step, and that the answer's format is the one asked for."
