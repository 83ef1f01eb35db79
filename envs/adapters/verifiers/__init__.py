"""The environment ``verifiers``: a single-turn taskset of the package verifiers (0.4), by its id.

A taskset gives tasks with a prompt, and each task scores a finished conversation: a prompt and one reply here. What a task
needs beyond that (tools, a runtime, set-up before or after the reply) is refused by name. Rewards are the taskset's own
functions, trusted like the package itself; feedback says how much each of them gave, and nothing else.

Left out: the interface of versions before 0.4 (``SingleTurnEnv``), harnesses, conversations of several turns.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec

from sdpo.envs.adapters.reward_function.function import Scale
from sdpo.envs.adapters.rows import SPLITS, digest, messages_of
from sdpo.envs.adapters.verifiers.taskset import Scores, load, records, score
from sdpo.envs.base import Task, Verdict

__all__ = ["Verifiers", "VerifiersTask"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiersTask:
    """A task's payload."""

    options: str
    """Options of the taskset it came from, as JSON: the held-out one may have others."""
    record: str
    """The task's own data, as JSON: it may hold the answer, so it is never shown."""


class Verifiers:
    """Tasks of one taskset, judged by its own rewards."""

    name = "verifiers"
    tasks_limit_s = 120.0

    def __init__(
        self,
        *,
        taskset: str,
        options: Mapping[str, object] | None = None,
        heldout_options: Mapping[str, object] | None = None,
        heldout_share: float | None = None,
        max_tasks: int = 10_000,
        scale: Sequence[float] | None = None,
    ) -> None:
        """``taskset``: its id, or an importable module that exports a ``Taskset``; ``options``: fields of its config.

        One of: ``heldout_options``, added to ``options`` for the held-out split (``{split: test}``), and ``heldout_share``,
        of the tasks by a hash. ``max_tasks``: read from each, as a taskset may be endless. ``scale``: the rewards that mean
        0 and 1; None for [0, 1]. Raises ValueError for anything out of range.
        """
        _check_package()
        if (heldout_options is None) == (heldout_share is None):
            raise ValueError(
                "one of env.options.heldout_options and env.options.heldout_share must say what is held out; "
                f"got {heldout_options!r} and {heldout_share!r}: give exactly one"
            )
        if heldout_share is not None and not 0 < heldout_share < 1:
            raise ValueError(f"env.options.heldout_share must lie between 0 and 1; got {heldout_share!r}: try 0.1")
        if max_tasks < 1:
            raise ValueError(f"env.options.max_tasks must be at least 1; got {max_tasks!r}: try 10000")
        self._taskset = taskset
        train = dict(options or {})
        self._options = {"train": train, "heldout": {**train, **(heldout_options or {})}}
        self._heldout_share = heldout_share
        self._max_tasks = max_tasks
        self._scale = Scale.of(scale)
        for split in SPLITS:
            load(taskset, json.dumps(self._options[split]))

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        """The tasks of ``split`` in an order given by ``seed``. Raises ValueError for a task that needs more than one reply."""
        if split not in SPLITS:
            raise ValueError(f"verifiers' split must be one of {', '.join(SPLITS)}; got {split!r}")
        options = json.dumps(self._options[split])
        by_id: dict[str, Task] = {}
        for number, (prompt, record) in enumerate(records(self._taskset, options, self._max_tasks), start=1):
            key = digest(prompt)
            is_heldout = self._heldout_share is not None and int(key, 16) < self._heldout_share * 2**64
            if self._heldout_share is None or is_heldout == (split == "heldout"):
                messages = messages_of({"prompt": prompt}, number, prompt="prompt")
                payload = VerifiersTask(options=options, record=record)
                by_id.setdefault(
                    key, Task(id=f"verifiers/{self._taskset}/{key}", env=self.name, messages=messages, payload=payload)
                )
        if not by_id:
            raise ValueError(f"a split needs a task; the taskset {self._taskset!r} has none for {split!r}")
        tasks = list(by_id.values())
        random.Random(f"verifiers/{split}/{seed}").shuffle(tasks)
        return tasks

    def verify(self, task: Task, completion: str) -> Verdict:
        """The sum of the taskset's weighted rewards. What its functions raise is not caught: that is their author's to see."""
        payload = task.payload
        if not isinstance(payload, VerifiersTask):
            raise ValueError(f"verifiers verifies its own tasks only; got {task.id!r} of {task.env!r}")
        scores = score(self._taskset, payload.options, payload.record, completion)
        reward = self._scale.to_unit(scores.total, f"the taskset {self._taskset}")
        return Verdict(
            reward=reward,
            feedback=None if reward >= 1.0 else _feedback(scores, reward),
            metrics={**scores.metrics, **{f"reward_{name}": value for name, value in scores.rewards.items()}},
        )


def _check_package() -> None:
    if find_spec("verifiers") is None:
        raise ValueError("the environment verifiers needs the package verifiers, 0.4 or newer: install it")
    installed = version("verifiers")
    if tuple(int(part) for part in installed.split(".")[:2]) < (0, 4):
        raise ValueError(f"the environment verifiers needs the package verifiers, 0.4 or newer; got {installed}: upgrade it")


def _feedback(scores: Scores, reward: float) -> str:
    """``The answer earned 0.5 of 1. By criterion: exact_match 0, format 1.``"""
    shown = int(reward * 100) / 100  # cut, so that nothing short of 1 reads as 1
    criteria = ", ".join(f"{name} {value:.3g}" for name, value in list(scores.rewards.items())[:8])
    return f"The answer earned {shown:g} of 1." + (f" By criterion: {criteria}." if criteria else "")
