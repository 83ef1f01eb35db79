"""What hindsight does a run have on a group? Its config, the environment's answers and the remembered successes, together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sdpo.config import Config
from sdpo.hindsight.hints import choose_hints, no_reference
from sdpo.hindsight.success_buffer import NOTHING_REMEMBERED, SuccessBuffer
from sdpo.types import Group, Hint, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Hindsight:
    """The hints of a run."""

    run: Config
    references: Callable[[Task], str | None] = no_reference
    successes: SuccessBuffer = NOTHING_REMEMBERED

    def hints(self, group: Group, step: int) -> tuple[Hint | None, ...]:
        """[G] None where the algorithm shows nothing, as GRPO. ``step``: steps finished before."""
        run = self.run
        if run.algorithm.hints is None:
            return (None,) * len(group.attempts)
        reference, remembered = self.references(group.task), self.successes.of(group.task.id)
        return choose_hints(group, run.algorithm.hints, f"{run.seed}/{step}", reference=reference, remembered=remembered)
