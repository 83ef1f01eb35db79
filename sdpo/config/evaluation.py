"""When and how held-out tasks are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sdpo.config.rules import at_least, probability


class LiftSchedule(Enum):
    """Which evaluations also measure how much better the teacher answers: one more answer for each attempt with a hint."""

    never = "never"
    first = "first"
    """Before training, where it says whether there is something to distil."""
    first_and_last = "first_and_last"
    """Before training and after it."""
    always = "always"


@dataclass
class EvaluationConfig:
    """How held-out tasks are looked at."""

    every: int = 0
    """Steps between evaluations; the first and the last step are always looked at. 0: only those."""
    num_tasks: int = 48
    """Held-out tasks, the same ones each time; 0: none, no evaluation."""
    num_attempts: int = 4
    """k, attempts a task."""
    temperature: float = 0.6
    top_p: float = 0.95
    lift: LiftSchedule = LiftSchedule.first_and_last
    """When the teacher's lift is measured; only algorithms with hindsight have one."""
    num_constants: int = 4
    """The most common answers that are each tried on all held-out tasks, before and after training; 0: none. It says what an
    answer is worth that reads no question."""

    def __post_init__(self) -> None:
        at_least("evaluation.every", self.every, 0, "it counts steps")
        at_least("evaluation.num_tasks", self.num_tasks, 0, "it counts tasks")
        at_least("evaluation.num_attempts", self.num_attempts, 1, "a task needs an attempt")
        at_least("evaluation.num_constants", self.num_constants, 0, "it counts answers")
        at_least("evaluation.temperature", self.temperature, 0.0, "0 is greedy")
        probability("evaluation.top_p", self.top_p)

    def is_due(self, step: int, num_steps: int) -> bool:
        """Whether to look after ``step`` steps."""
        return self.num_tasks > 0 and (step in (0, num_steps) or (self.every > 0 and step % self.every == 0))

    def asks_for_constants(self, step: int, num_steps: int) -> bool:
        """Whether an evaluation after ``step`` steps says what a constant answer is worth."""
        return self.num_constants > 0 and step in (0, num_steps)

    def asks_for_lift(self, step: int, num_steps: int) -> bool:
        """Whether an evaluation after ``step`` steps measures the teacher's lift too."""
        match self.lift:
            case LiftSchedule.never:
                return False
            case LiftSchedule.first:
                return step == 0
            case LiftSchedule.first_and_last:
                return step in (0, num_steps)
            case LiftSchedule.always:
                return True
