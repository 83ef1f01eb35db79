"""Every logged number, declared once: name, unit, reduction over the updates of a step, meaning.

``metrics.jsonl`` has one line a step with these keys, TensorBoard, W&B and MLflow the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from sdpo.types import Draw, Finish, Group, Hint, Metrics


class Reduction(Enum):
    """How the values of a step's updates become one."""

    mean = "mean"
    sum = "sum"
    last = "last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One logged number."""

    unit: str
    meaning: str
    reduction: Reduction = Reduction.last


METRICS: Mapping[str, Metric] = {
    "step": Metric(unit="1", meaning="steps finished"),
    "success": Metric(unit="share", meaning="attempts that the environment calls solved"),
    "reward": Metric(unit="[0, 1]", meaning="mean reward of the attempts"),
    "hindsight": Metric(unit="share", meaning="attempts whose hint the teacher was shown"),
    "hindsight/demonstration": Metric(unit="share", meaning="attempts shown a demonstration (alone or with feedback)"),
    "hindsight/remembered": Metric(unit="share", meaning="attempts shown a demonstration of an earlier step"),
    "hindsight/feedback": Metric(unit="share", meaning="attempts shown their feedback (alone or with a demonstration)"),
    "groups/all_failed": Metric(unit="share", meaning="tasks that no attempt solved"),
    "groups/all_solved": Metric(unit="share", meaning="tasks that every attempt solved"),
    "groups/replaced": Metric(
        unit="groups", meaning="groups without signal that others were asked in place of (`algorithm.replacement_rounds`)"
    ),
    "groups/without_signal": Metric(unit="share", meaning="tasks from whose group nothing is learned, after the replacement"),
    "success/sampled": Metric(unit="share", meaning="success, with the attempts of replaced groups"),
    "tasks/tried": Metric(unit="share", meaning="training tasks that were tried before (`batch.order.name=adaptive`)"),
    "tasks/preference": Metric(
        unit="1", meaning="how probable the step's tasks were to be drawn first, over an even draw: 1 prefers none"
    ),
    "tasks/effective": Metric(
        unit="share", meaning="1/Σp² over the tasks there are: 1 draws evenly, near 0 is always the same few"
    ),
    "attempts": Metric(unit="attempts", meaning="attempts verified"),
    "attempts/replaced": Metric(unit="attempts", meaning="attempts at tasks whose group was replaced, those set aside included"),
    "set_aside": Metric(unit="attempts", meaning="attempts whose verification broke, neither failed nor rewarded"),
    "answers/distinct": Metric(unit="share", meaning="different answers to a task over its attempts, mean of the tasks"),
    "response_tokens": Metric(unit="tokens", meaning="mean length of a response"),
    "truncated": Metric(unit="share", meaning="responses cut off at the length limit"),
    "truncated/unlearned": Metric(
        unit="attempts", meaning="those from which nothing is learned for that reason (`algorithm.truncated`)"
    ),
    "generated_tokens": Metric(unit="tokens", meaning="tokens sampled this step"),
    "tokens_per_s": Metric(unit="tokens/s", meaning="tokens sampled over the time of generation and verification"),
    "staleness": Metric(unit="steps", meaning="mean age of the weights that sampled a token, in the learner's steps"),
    "staleness/max": Metric(unit="steps", meaning="the highest age among them"),
    "loss": Metric(unit="nats", reduction=Reduction.mean, meaning="what was minimised, over the update's loss tokens"),
    "loss/distillation": Metric(unit="nats", reduction=Reduction.mean, meaning="the distillation part of it"),
    "loss/policy_gradient": Metric(unit="1", reduction=Reduction.mean, meaning="the policy-gradient part of it"),
    "loss/supervised": Metric(
        unit="nats", reduction=Reduction.mean, meaning="the cross-entropy part of it, per supervised token (`sdpo warmup`)"
    ),
    "divergence": Metric(unit="nats", reduction=Reduction.mean, meaning="student to teacher per distilled token, unweighted"),
    "credit": Metric(
        unit="nats",
        reduction=Reduction.mean,
        meaning="mean log q(y) - log π(y) of the sampled tokens: hindsight credit",
    ),
    "credit/solved": Metric(
        unit="nats",
        reduction=Reduction.mean,
        meaning="the same on solved attempts: what hindsight adds to the log-probability of an answer that was verified",
    ),
    "credit/failed": Metric(unit="nats", reduction=Reduction.mean, meaning="the same on failed attempts"),
    "entropy": Metric(unit="nats", reduction=Reduction.mean, meaning="of the student, per learned-from token"),
    "mismatch": Metric(
        unit="nats",
        reduction=Reduction.mean,
        meaning="mean ratio - log ratio - 1 between learner and engine, per sampled token",
    ),
    "mismatch/p99": Metric(
        unit="nats",
        reduction=Reduction.mean,
        meaning="99th percentile of the same over an update's tokens",
    ),
    "grad_norm": Metric(unit="1", reduction=Reduction.mean, meaning="norm of the gradient before clipping"),
    "lr": Metric(unit="1", meaning="learning rate of the last update"),
    "updates": Metric(unit="updates", reduction=Reduction.sum, meaning="optimizer steps taken"),
    "updates_without_samples": Metric(
        unit="updates", reduction=Reduction.sum, meaning="updates skipped because nothing carried a gradient"
    ),
    "updates_skipped": Metric(
        unit="updates", reduction=Reduction.sum, meaning="updates skipped because the loss or the gradient was not finite"
    ),
    "learned_rows": Metric(unit="rows", reduction=Reduction.sum, meaning="attempts that carried a gradient, each once"),
    "learned_tokens": Metric(
        unit="tokens", reduction=Reduction.sum, meaning="tokens through the learner in all epochs, student and teacher together"
    ),
    "alarms": Metric(unit="alarms", meaning="raised by this step, or by this evaluation (alarms.jsonl says which)"),
    "policy_gradient_share": Metric(unit="share", meaning="λ of the blend, where alarms may raise it"),
    "teacher_refreshes": Metric(unit="refreshes", meaning="times the teacher became the policy, before this step"),
    "memory/learner_gib": Metric(
        unit="GiB", meaning="of the first rank: the most it has allocated on its GPU so far, or what it holds resident on the CPU"
    ),
    "time/generate_s": Metric(unit="s", meaning="generation, with the verification beside it, as far as the step waits for it"),
    "time/verify_s": Metric(unit="s", meaning="of time/generate_s: from the last completion until the last verdict"),
    "time/ahead_s": Metric(unit="s", meaning="generation before the step, beside earlier ones (`rollout.staleness` above 0)"),
    "time/hindsight_s": Metric(unit="s", meaning="hints, rendering and packing"),
    "time/learn_s": Metric(unit="s", meaning="the updates"),
    "time/teacher_s": Metric(
        unit="s", reduction=Reduction.sum, meaning="of time/learn_s: the teacher's forward passes, on the first rank"
    ),
    "time/student_s": Metric(
        unit="s", reduction=Reduction.sum, meaning="of time/learn_s: the student's forward and backward passes, on the first rank"
    ),
    "time/optimizer_s": Metric(unit="s", reduction=Reduction.sum, meaning="of time/learn_s: the optimizer, on the first rank"),
    "time/record_s": Metric(
        unit="s",
        reduction=Reduction.sum,
        meaning="what is kept of single tokens (tracking.credit_share), in and after the updates",
    ),
    "time/sync_s": Metric(unit="s", meaning="teacher update and weights to the engine"),
    "time/evaluate_s": Metric(unit="s", meaning="an evaluation (in evaluations.jsonl)"),
    "time/save_s": Metric(unit="s", meaning="the checkpoint before this step"),
    "time/step_s": Metric(unit="s", meaning="the whole step, without evaluation and checkpoint"),
    "heldout/success": Metric(unit="share", meaning="avg@k: held-out attempts solved"),
    "heldout/pass_at_k": Metric(unit="share", meaning="pass@k: held-out tasks with a solved attempt among k"),
    "heldout/success_se": Metric(unit="share", meaning="standard error of heldout/success over tasks"),
    "heldout/distinct": Metric(unit="share", meaning="answers/distinct of held-out attempts"),
    "heldout/constant": Metric(unit="share", meaning="held-out tasks that the best of the commonest answers solves"),
    "heldout/constant_by_kind": Metric(
        unit="share", meaning="likewise with an answer for each kind of question that comes twice"
    ),
    "heldout/set_aside": Metric(unit="attempts", meaning="held-out attempts whose verification broke"),
    "heldout/response_tokens": Metric(unit="tokens", meaning="mean length of a held-out response"),
    "lift": Metric(unit="share", meaning="teacher lift: lift/hindsight less lift/plain"),
    "lift/se": Metric(unit="share", meaning="standard error of lift over tasks"),
    "lift/plain": Metric(unit="share", meaning="success without a hint, of the attempts that had no part in choosing it"),
    "lift/hindsight": Metric(unit="share", meaning="success of one answer under each hinted attempt's hindsight prompt"),
    "lift/demonstration": Metric(unit="share", meaning="lift where the hint held a solved sibling"),
    "lift/feedback": Metric(unit="share", meaning="lift where the hint was feedback alone"),
    "lift/share": Metric(unit="share", meaning="held-out attempts with a hint"),
}
ENVIRONMENT_PREFIX = "env/"
"""The environment's own metrics, averaged over attempts, are logged under this prefix."""
MEMBER_SUCCESS = "/success"
"""How a mix of environments calls the success of a member: its label, and this."""


def lift_in_words(metrics: Metrics) -> str:
    """The teacher's lift, e.g. ``+12.5% ± 3.1% (demonstration +20.0%, feedback +3.0%)``."""
    if "lift" not in metrics:
        return "unknown, since no attempt had a hint"
    error = f" ± {metrics['lift/se']:.1%}" if "lift/se" in metrics else ""
    parts = [f"{kind} {metrics[f'lift/{kind}']:+.1%}" for kind in ("demonstration", "feedback") if f"lift/{kind}" in metrics]
    return f"{metrics['lift']:+.1%}{error} ({', '.join(parts)})"


def reduce(updates: Sequence[Metrics]) -> dict[str, float]:
    """One value a name from the updates of a step."""
    values: dict[str, list[float]] = {}
    for metrics in updates:
        for name, value in metrics.items():
            values.setdefault(name, []).append(value)
    return {name: _reduced(METRICS[name].reduction, column) for name, column in values.items()}


def _reduced(reduction: Reduction, column: Sequence[float]) -> float:
    match reduction:
        case Reduction.mean:
            return sum(column) / len(column)
        case Reduction.sum:
            return sum(column)
        case Reduction.last:
            return column[-1]


def of_groups(groups_P: Sequence[Group], hints_P_G: Sequence[Sequence[Hint | None]]) -> dict[str, float]:
    """What a step's attempts and hints say."""
    attempts = [attempt for group in groups_P for attempt in group.attempts]
    hints = [hint for hints_G in hints_P_G for hint in hints_G]
    lengths = [len(attempt.completion.token_ids) for attempt in attempts]
    sources = ["demonstration", "feedback"]
    sources += sorted({name for hint in hints if hint is not None for name in hint.names} - set(sources))
    tried = [group for group in groups_P if group.attempts]
    named: dict[str, list[float]] = {}
    for attempt in attempts:
        for name, value in attempt.verdict.metrics.items():
            named.setdefault(ENVIRONMENT_PREFIX + name, []).append(value)
    return {
        "success": _mean([attempt.verdict.is_solved for attempt in attempts]),
        "reward": _mean([attempt.verdict.reward for attempt in attempts]),
        "hindsight": _mean([hint is not None for hint in hints]),
        **{f"hindsight/{name}": _mean([hint is not None and name in hint.names for hint in hints]) for name in sources},
        "hindsight/remembered": _mean([hint is not None and hint.is_remembered for hint in hints]),
        "groups/all_failed": _mean([not any(a.verdict.is_solved for a in group.attempts) for group in tried]),
        "groups/all_solved": _mean([all(a.verdict.is_solved for a in group.attempts) for group in tried]),
        "attempts": float(len(attempts)),
        "set_aside": float(sum(len(group.set_aside) for group in groups_P)),
        "answers/distinct": distinct_share(tried),
        "response_tokens": _mean(lengths),
        "truncated": _mean([attempt.completion.finish is Finish.length for attempt in attempts]),
        **{name: _mean(column) for name, column in sorted(named.items())},
    }


def num_truncated(groups_P: Sequence[Group]) -> int:
    """Attempts that the length limit has cut off."""
    return sum(attempt.completion.finish is Finish.length for group in groups_P for attempt in group.attempts)


def of_draw(draw: Draw) -> dict[str, float]:
    """How a step came to its groups."""
    if draw.num_without_signal is None:
        return dict(draw.numbers)
    replaced = [one for one in draw.tried if one.is_replaced]
    return {
        **draw.numbers,
        "groups/replaced": float(len(replaced)),
        "groups/without_signal": draw.num_without_signal / max(len(draw.tried) - len(replaced), 1),
        "success/sampled": _mean([reward >= 1.0 for one in draw.tried for reward in one.rewards]),
        "attempts/replaced": float(sum(len(one.rewards) + one.num_set_aside for one in replaced)),
    }


def distinct_share(groups: Sequence[Group]) -> float:
    """The mean over tasks of different answers over attempts: 1 where no two are alike but for white space at their ends. Right
    answers count too."""
    answers = [[attempt.completion.text.strip() for attempt in group.attempts] for group in groups if group.attempts]
    return _mean([len(set(of_task)) / len(of_task) for of_task in answers])


def of_versions(groups_P: Sequence[Group], step: int) -> dict[str, float]:
    """How old the weights were that sampled a step's attempts, when the learner had finished ``step`` steps."""
    runs = [run for group in groups_P for attempt in group.attempts for run in attempt.completion.version_runs]
    num_tokens = sum(num for _, num in runs)
    return {
        "staleness": sum((step - version) * num for version, num in runs) / max(num_tokens, 1),
        "staleness/max": float(max((step - version for version, num in runs if num), default=0)),
    }


def _mean(values: Sequence[float]) -> float:
    """0 for none: a share of nothing."""
    return sum(values) / len(values) if values else 0.0
