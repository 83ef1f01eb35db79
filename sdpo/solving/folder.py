"""What is kept of a search, so that a killed one goes on with the attempts that it would have made undisturbed?

``steps.jsonl``: a line a step, with every attempt and its verdict. ``states/step_NNNNNN/``: the learner after so many steps.
A step counts once its line is whole, and the line is written after the state. What a kill cut off is done again, with the same
seeds, by the same weights, in the same batch: the same attempts. ``solution.txt`` and ``solution.json``: what was found.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdpo.errors import UserError
from sdpo.learner import checkpoint
from sdpo.run.files import step_in, write_whole
from sdpo.solving.parts import SearchLearner
from sdpo.solving.search import Ending, Search, Step, Tried
from sdpo.types import Message, Role

STEPS, STATES = "steps.jsonl", "states"
SOLUTION, ABOUT = "solution.txt", "solution.json"


class SearchFolder:
    """The folder of one search."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def claimed(self) -> Iterator[bool]:
        """Whether nobody else is searching here; for the length of the block nobody else is."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True

    def steps(self) -> tuple[Step, ...]:
        """Those that are whole. Raises UserError for a line that is no step and not the last."""
        file = self.path / STEPS
        lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
        found = []
        for number, line in enumerate(lines, start=1):
            step = _step(line)
            if step is None and number == len(lines):
                break
            if step is None or step.number != number:
                raise UserError(
                    f"a search continues from what it has tried; line {number} of {file} is not its step {number}. Put the file "
                    "back as it was, or choose another name= to begin anew."
                )
            found.append(step)
        return tuple(found)

    def stand(self, learner: SearchLearner | None) -> tuple[Step, ...]:
        """The steps that count, with the learner brought to where they end; None: nobody learns. Else ``learner`` must be as it
        begins."""
        self.path.mkdir(parents=True, exist_ok=True)
        steps = self.steps()
        if learner is not None:
            states = [state for state in checkpoint.checkpoints(self._states) if _number(state) <= len(steps)]
            steps = steps[: _number(states[-1]) if states else 0]
            if states and (wrong := checkpoint.fault(states[-1])) is not None:
                raise UserError(
                    f"a search continues from a state that is what was written; {states[-1]} is damaged: {wrong}. Put the file "
                    "back as it was, or move the state away to go on from the one before it."
                )
            if states:
                learner.restore(states[-1])
        write_whole(self.path / STEPS, "".join(map(_line, steps)))
        return steps

    def add(self, step: Step, learner: SearchLearner | None) -> None:
        """A step is done; ``learner`` is to be kept with it, or None."""
        if learner is not None:
            learner.keep(self._states / f"{checkpoint.PREFIX}{step.number:06d}")
            checkpoint.prune(self._states, keep=2, keep_best=0)
        with (self.path / STEPS).open("a") as file:
            file.write(_line(step))
            file.flush()
            os.fsync(file.fileno())

    def finish(self, search: Search, ending: Ending, about: dict[str, object]) -> None:
        """What came of it, and what nobody needs any more away. ``about`` goes into the record too."""
        record = {**about, "ending": ending.value, "steps": search.num_steps, **asdict(search.spent)}
        record |= {"distinct_failures": len(search.memory), "repeated_attempts": search.num_repeats}
        record["best_reward"] = search.best.reward if search.best is not None else None
        record["learned_rows"] = search.num_learned
        if search.solution is not None and search.solved_at is not None:
            record |= {"solved_at": asdict(search.solved_at), "solution": search.solution.text}
            write_whole(self.path / SOLUTION, search.solution.text.encode("utf-8", "replace").decode("utf-8") + "\n")
        write_whole(self.path / ABOUT, json.dumps(record, indent=1) + "\n")
        for state in checkpoint.checkpoints(self._states) if ending is Ending.solved else []:
            checkpoint.remove(state)

    def found(self) -> dict[str, object] | None:
        """What ``finish`` recorded last; None where it has not."""
        file = self.path / ABOUT
        if not file.is_file():
            return None
        record: dict[str, object] = json.loads(file.read_text())
        return record

    @property
    def _states(self) -> Path:
        return self.path / STATES


def _number(state: Path) -> int:
    """Steps after which the learner stood so."""
    number = step_in(state.name)
    assert number is not None, state
    return number


def _line(step: Step) -> str:
    return json.dumps(asdict(step)) + "\n"


def _step(line: str) -> Step | None:
    """None for one that is no step, or was cut off."""
    if not line.endswith("\n"):
        return None
    try:
        record = json.loads(line)
        attempts = tuple(_tried(one) for one in record.pop("attempts"))
        return Step(**record, attempts=attempts)
    except (ValueError, KeyError, TypeError):
        return None


def _tried(record: dict[str, Any]) -> Tried:
    turns = (Message(role=Role(said["role"]), content=said["content"]) for said in record.pop("turns", ()))
    return Tried(**record, turns=tuple(turns))
