"""How are several tasks asked several times each, outside of training steps?"""

from __future__ import annotations

from dataclasses import dataclass

from sdpo.attempts.conversation import attempts
from sdpo.attempts.groups import asked, grouped, refuse_broken_environment
from sdpo.protocols import Sampler, Watcher
from sdpo.types import Group, Sampling, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is asked of whom, and how often: the same questions with the same seeds each time."""

    sampler: Sampler
    tasks_P: tuple[Task, ...]
    num_attempts: int
    """At each task."""
    sampling: Sampling
    seed: int
    max_set_aside_share: float

    def groups(self, purpose: str, log: Watcher) -> tuple[Group, ...]:
        """[P] the attempts of the engine's present weights. ``purpose`` is part of the seeds.

        Raises UserError where more than ``max_set_aside_share`` of the verdicts broke.
        """
        prompts_P = tuple(map(self.sampler.renderer.prompt, self.tasks_P))
        prompts = asked(prompts_P, self.num_attempts, f"{self.seed}/{purpose}")
        answers = attempts(self.tasks_P, prompts, self.sampler, self.sampling, log)
        groups_P = grouped(self.tasks_P, prompts_P, answers)
        refuse_broken_environment(groups_P, self.max_set_aside_share)
        return groups_P
