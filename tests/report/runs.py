"""Run folders made up for tests and pictures, written by the trainer's own hands: ``Tracker`` and ``RunFolder``.

``python -m tests.report.runs FOLDER`` writes the two that the pictures in docs/ show.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from sdpo.config import Config, Guard
from sdpo.config.compose import train_config
from sdpo.guards.alarms import Alarm
from sdpo.hindsight.hints import hint_of
from sdpo.metrics import of_groups
from sdpo.run.folder import RunFolder
from sdpo.tracking.tracker import Tracker
from sdpo.types import Attempt, Completion, Evaluation, Finish, Group, Hint, Message, Role, SetAside, Task, Verdict
from tests.report.credits import credit_line, tokens_of
from tests.report.exercises import EXERCISES, Exercise

HOSTILE = (
    "<img src=x onerror=\"window.hurt = 1\"><script>window.hurt = 2</script><svg onload='window.hurt = 3'>",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x00 \x7f \r carriage \x1e turn",
    "half a character \ud83d and \udc00, turned \u202eesrever\u202c, nothing\u200b\ufeff wide",
    "javascript:window.hurt=4 {{constructor.constructor('window.hurt=5')()}} ${window.hurt=6}",
)
"""Completions that want to be more than text."""


def write_run(
    folder: Path, *, num_steps: int = 8, group_size: int = 6, seed: int = 0, skill: float = 0.15, algorithm: str = "sdpo"
) -> Path:
    """A run that learns: success rises from ``skill``. Every second hinted attempt has its tokens recorded."""
    run, tracker = begun(
        folder, f"algorithm={algorithm}", f"seed={seed}", f"num_steps={num_steps + 4}", f"batch.group_size={group_size}"
    )
    draw = random.Random(seed)
    evaluate(tracker, 0, skill, draw)
    for step in range(1, num_steps + 1):
        write_step(tracker, step, skill + (0.75 - skill) * step / num_steps, group_size, draw, has_credit=algorithm == "sdpo")
        if step % 4 == 0:
            evaluate(tracker, step, skill + (0.7 - skill) * step / num_steps, draw)
    tracker.alarm(Alarm(guard=Guard.length, step=num_steps, sentence="Made up, so that there is one."))
    (run.checkpoints / f"step_{num_steps:06d}").mkdir()
    return run.path


def begun(folder: Path, *words: str) -> tuple[RunFolder, Tracker]:
    """A folder with its config, and nothing else."""
    config = replace(_config(*words), runs_dir=str(folder.parent), name=folder.name)
    run = RunFolder(folder)
    run.claim(config)
    return run, Tracker(run, config.tracking)


@cache
def _config(*words: str) -> Config:
    return train_config(["tracking.tensorboard=false", *words])


def write_step(
    tracker: Tracker, step: int, skill: float, group_size: int, draw: random.Random, *, has_credit: bool = True
) -> None:
    """Rollouts, credit and metrics, in the order of a run."""
    exercises = draw.sample(EXERCISES, 4)
    groups = [
        group_of(exercise, skill, group_size, step, draw, is_broken=step == 2 and place == 0)
        for place, exercise in enumerate(exercises)
    ]
    hints = [hints_of(group) for group in groups]
    tracker.rollouts(step, groups, hints)
    lines = [
        credit_line(exercise, group, hint, step=step, task_index=index, attempt=place, draw=draw)
        for index, (exercise, group, hints_G) in enumerate(zip(exercises, groups, hints, strict=True))
        for place, hint in enumerate(hints_G)
        if hint is not None and place % 2 == 0 and has_credit
    ]
    tracker.credit(step, lines)
    divergence = 0.9 / (1 + step / 3) * draw.uniform(0.9, 1.1)
    learned = {
        "divergence": divergence,
        "credit/solved": 0.5 * divergence,
        "credit/failed": -0.8 * divergence,
        "time/step_s": 12.5,
    }
    tracker.step(step, {**of_groups(groups, hints), **(learned if has_credit else {}), "entropy": 0.9 - step / 40})


def evaluate(tracker: Tracker, step: int, skill: float, draw: random.Random) -> None:
    groups = tuple(group_of(exercise, skill, 4, step, draw) for exercise in EXERCISES)
    shares = [sum(attempt.verdict.is_solved for attempt in group.attempts) / 4 for group in groups]
    metrics = {
        "heldout/success": sum(shares) / len(shares),
        "heldout/success_se": 0.07,
        "heldout/pass_at_k": sum(share > 0 for share in shares) / len(shares),
    }
    tracker.evaluation(step, Evaluation(num_attempts=4, groups=groups, metrics=metrics), None, seconds=3.0, num_alarms=0)


def group_of(exercise: Exercise, skill: float, size: int, step: int, draw: random.Random, *, is_broken: bool = False) -> Group:
    attempts = []
    for _ in range(size):
        is_solved = draw.random() < skill
        text, feedback = (exercise.right, None) if is_solved else draw.choice(exercise.wrong)
        attempts.append(
            Attempt(completion=completion_of(text, step), verdict=Verdict(reward=float(is_solved), feedback=feedback))
        )
    broken = SetAside(completion=completion_of(exercise.right, step), error="TimeoutError: the judge did not answer in 30 s")
    return group_with(exercise.task, exercise.question, attempts, (broken,) if is_broken else ())


def group_with(task: str, question: str, attempts: Sequence[Attempt], set_aside: Sequence[SetAside] = ()) -> Group:
    return Group(
        task=Task(id=task, env=task.partition("/")[0], messages=(Message(role=Role.user, content=question),)),
        prompt_ids=(1, 2, 3),
        attempts=tuple(attempts),
        set_aside=tuple(set_aside),
    )


def completion_of(text: str, step: int = 1) -> Completion:
    ids = tuple(range(len(tokens_of(text)) + 1))
    return Completion(token_ids=ids, logprobs=(-0.5,) * len(ids), text=text, finish=Finish.stop, weights_version=max(step - 1, 0))


def hints_of(group: Group) -> list[Hint | None]:
    """A solved sibling, or else the feedback."""
    solved = [attempt for attempt in group.attempts if attempt.verdict.is_solved]
    hints: list[Hint | None] = []
    for attempt in group.attempts:
        sibling = next((other for other in solved if other is not attempt), None)
        feedback = attempt.verdict.feedback
        known = sibling is not None or feedback is not None
        hints.append(hint_of(demonstration=sibling and sibling.completion.text, feedback=feedback) if known else None)
    return hints


def hostile_run(folder: Path) -> Path:
    """One step whose completions, tasks and feedback attack the reader, and one of whose lines is a megabyte."""
    run, tracker = begun(folder)
    texts = (*HOSTILE, "x" * 1_000_000)
    attempts = [Attempt(completion=completion_of(text), verdict=Verdict(reward=0.0, feedback=text)) for text in texts]
    group = group_with("code/<b>bold</b>\x1b[2J", HOSTILE[0], attempts)
    hints = [hint_of(demonstration=None, feedback=text) for text in texts]
    tracker.rollouts(1, [group], [hints])
    exercise = Exercise(task=group.task.id, question=HOSTILE[0], right=HOSTILE[1], wrong=())
    draw = random.Random(0)
    tracker.credit(
        1,
        [
            credit_line(exercise, group, hint, step=1, task_index=0, attempt=place, draw=draw)
            for place, hint in enumerate(hints[:4])
        ],
    )
    tracker.step(1, {"success": 0.0, "loss": float("nan"), "divergence": float("inf")})
    return run.path


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write_run(target / "sdpo-seed0", seed=3)
    write_run(target / "grpo-seed0", seed=4, skill=0.1, algorithm="grpo")
