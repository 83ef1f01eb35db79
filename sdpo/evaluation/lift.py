"""How much better would the teacher answer than the policy? Without that lift there is nothing to distil.

An attempt that failed was selected for failing: asked again, without any hint, it would succeed more often than "never". Success
after a hint less the attempt's own success is therefore mostly regression to the mean. So every task's attempts are split in
two halves. A hint is made from the attempts of one half. What it reaches is compared with the success of the *other* half,
which had no part in choosing it (cross-fitting, as in arXiv 1608.00060). Given the hints, the expected difference is what the
teacher gains, whatever the tasks' difficulty. A teacher that ignores its hint has an expected lift of 0.

The lift is a sum over attempts divided by their number, not a mean of the tasks' means. Within a task the number of hinted
attempts depends on both halves, so dividing by it task by task would bring the selection back.

Shapes: P tasks, G attempts a task.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sdpo.attempts.conversation import attempts
from sdpo.attempts.groups import refuse_broken_environment
from sdpo.attempts.survey import Survey
from sdpo.config import HindsightConfig
from sdpo.errors import UserError
from sdpo.hindsight.hints import choose_hints
from sdpo.metrics import lift_in_words
from sdpo.protocols import Renderer, Watcher
from sdpo.types import Attempt, Evaluation, Group, Hint, Lift, Prompt, SetAside

NUM_ERRORS = 2.0
"""Standard errors that a lift is given the benefit of."""
_FEWEST = 4
"""Tasks whose spread says something."""


def teacher_lift(survey: Survey, evaluation: Evaluation, hindsight: HindsightConfig, log: Watcher) -> Lift:
    """Sample one answer under the hindsight prompt of every attempt that has a hint, with the engine's present weights.

    ``evaluation`` is what ``evaluate`` found of the same survey. The engine needs room for hindsight prompts.

    Raises UserError for an evaluation with a single attempt a task, and where verification breaks too often.
    """
    if evaluation.num_attempts < 2:
        raise UserError(
            "teacher lift needs an evaluation with at least 2 attempts a task (a hint is made from one half of them and compared "
            f"with the other); got {evaluation.num_attempts}."
        )
    log.phase("lift")
    tasks_P = tuple(group.task for group in evaluation.groups)
    hints_P_G, prompts = _asked(evaluation.groups, survey.sampler.renderer, hindsight, survey.seed)
    answers: dict[tuple[int, int], Attempt | SetAside] = {}
    for prompt, answer in attempts(tasks_P, prompts, survey.sampler, survey.sampling, log):
        answers[prompt.task_index, prompt.attempt_index] = answer
    answers_P_G = [
        [answers.get((task_index, index)) for index in range(len(hints_G))] for task_index, hints_G in enumerate(hints_P_G)
    ]
    groups_P = tuple(
        replace(
            group,
            attempts=tuple(answer for answer in answers_G if isinstance(answer, Attempt)),
            set_aside=tuple(answer for answer in answers_G if isinstance(answer, SetAside)),
        )
        for group, answers_G in zip(evaluation.groups, answers_P_G, strict=True)
    )
    refuse_broken_environment(groups_P, survey.max_set_aside_share)
    reached_P_G = [
        [answer.verdict.is_solved if isinstance(answer, Attempt) else None for answer in answers_G] for answers_G in answers_P_G
    ]
    return Lift(
        groups=groups_P,
        hints=tuple(
            tuple(
                hint for hint, answer in zip(hints_G, answers_G, strict=True) if hint is not None and isinstance(answer, Attempt)
            )
            for hints_G, answers_G in zip(hints_P_G, answers_P_G, strict=True)
        ),
        metrics=lift_metrics(evaluation.groups, hints_P_G, reached_P_G),
    )


def cross_fitted_hints(group: Group, hindsight: HindsightConfig, seed: str) -> tuple[Hint | None, ...]:
    """[G] what would have helped each attempt, made from the attempts of its own half alone; a lone attempt gets none."""
    if len(group.attempts) < 2:
        return (None,) * len(group.attempts)
    chosen = [choose_hints(replace(group, attempts=group.attempts[half::2]), hindsight, seed) for half in (0, 1)]
    return tuple(chosen[index % 2][index // 2] for index in range(len(group.attempts)))


def lift_metrics(
    groups_P: Sequence[Group], hints_P_G: Sequence[Sequence[Hint | None]], reached_P_G: Sequence[Sequence[bool | None]]
) -> dict[str, float]:
    """What cross-fitted hints are worth. ``reached_P_G``: whether the answer under that attempt's hint solved the task; None
    where there is no hint or no verdict. A number without data is left out, the error of a few tasks too."""
    tried = [group for group in groups_P if len(group.attempts) > 1]
    if not tried:
        return {}
    pairs = [
        pair
        for task_index, (group, hints_G, reached_G) in enumerate(zip(groups_P, hints_P_G, reached_P_G, strict=True))
        for pair in _pairs(task_index, group, hints_G, reached_G)
    ]
    num_hints = sum(hint is not None for hints_G in hints_P_G for hint in hints_G)
    share = {"lift/share": num_hints / sum(len(group.attempts) for group in tried)}
    if not pairs:
        return share
    by_name: dict[str, list[_Pair]] = {}
    for pair in pairs:
        by_name.setdefault(pair.name, []).append(pair)
    lift, errors = _mean(pairs, _gain), _standard_error(pairs)
    return {
        "lift": lift,
        **({} if errors is None else {"lift/se": errors}),
        "lift/plain": _mean(pairs, lambda pair: pair.plain),
        "lift/hindsight": _mean(pairs, lambda pair: pair.hindsight),
        **{f"lift/{name}": _mean(of_name, _gain) for name, of_name in by_name.items()},
        **share,
    }


def low_lift(lift: Lift, min_lift: float) -> str | None:
    """The message for a lift that is too low even with two standard errors on top.

    None where the lift may be enough, and where nothing was measured. The error counts as one answer's at least, also where all
    answers agree: five failures in a row are no proof.
    """
    metrics = lift.metrics
    if "lift/se" not in metrics:
        return None
    num = sum(len(group.attempts) for group in lift.groups)
    error = max(metrics["lift/se"], 1.0 / num)
    if metrics["lift"] + NUM_ERRORS * error >= min_lift:
        return None
    return (
        f"the teacher must answer better than the policy, by at least algorithm.min_lift={min_lift:.1%} of the held-out answers; "
        f"its lift is {lift_in_words(metrics)}, from {metrics['lift/plain']:.1%} to {metrics['lift/hindsight']:.1%} over {num} "
        "answers. A model that cannot use a hint has nothing to teach itself. Teach it to first (sdpo warmup), let "
        "demonstrations do the work (algorithm.hindsight.choice=demonstration_only), blend in a policy gradient "
        "(algorithm.routing.policy_gradient_share=0.5), take a larger model, or go on as it is: algorithm.on_low_lift=ignore."
    )


def _asked(
    groups_P: Sequence[Group], renderer: Renderer, hindsight: HindsightConfig, seed: int
) -> tuple[list[list[Hint | None]], list[Prompt]]:
    """The hints, those left out that leave nothing in the prompt, and a prompt for each."""
    hints_P_G: list[list[Hint | None]] = []
    prompts = []
    for task_index, group in enumerate(groups_P):
        kept: list[Hint | None] = []
        for index, hint in enumerate(cross_fitted_hints(group, hindsight, f"{seed}/lift")):
            token_ids = None if hint is None else renderer.hindsight_prompt(group.task, hint)
            kept.append(None if token_ids is None else hint)
            if token_ids is not None:
                drawn = random.Random(f"{seed}/lift/{task_index}/{index}").getrandbits(31)
                prompts.append(Prompt(token_ids=token_ids, seed=drawn, task_index=task_index, attempt_index=index))
        hints_P_G.append(kept)
    return hints_P_G, prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """An answer under a hint, and the success of the half that had no part in the hint."""

    task_index: int
    hindsight: float
    plain: float
    name: str
    """Name of the first text that the hint shows."""


def _pairs(task_index: int, group: Group, hints_G: Sequence[Hint | None], reached_G: Sequence[bool | None]) -> list[_Pair]:
    if len(group.attempts) < 2:
        return []
    solved = [attempt.verdict.is_solved for attempt in group.attempts]
    halves = [solved[half::2] for half in (0, 1)]
    success = [sum(half) / len(half) for half in halves]
    return [
        _Pair(
            task_index=task_index,
            hindsight=float(reached),
            plain=success[1 - index % 2],
            name=hint.names[0],
        )
        for index, (hint, reached) in enumerate(zip(hints_G, reached_G, strict=True))
        if hint is not None and reached is not None
    ]


def _gain(pair: _Pair) -> float:
    return pair.hindsight - pair.plain


def _mean(pairs: Sequence[_Pair], value: Callable[[_Pair], float]) -> float:
    return sum(map(value, pairs)) / len(pairs)


def _standard_error(pairs: Sequence[_Pair]) -> float | None:
    """Standard error of the mean gain, a ratio of two sums over independent tasks: linearised, with what each task adds to it.

    None for fewer than ``_FEWEST`` tasks: two that go the same way by chance have a spread of 0.
    """
    lift = _mean(pairs, _gain)
    excess: dict[int, float] = {}
    for pair in pairs:
        excess[pair.task_index] = excess.get(pair.task_index, 0.0) + _gain(pair) - lift
    if len(excess) < _FEWEST:
        return None
    return math.sqrt(len(excess) / (len(excess) - 1) * sum(value**2 for value in excess.values())) / len(pairs)
