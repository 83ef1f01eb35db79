"""What the gym runs: algorithms over base success, answer length and learning rate, and SDPO with one thing changed."""

from __future__ import annotations

from dataclasses import dataclass

from tests.learning.cipher import BASE_SUCCESS
from tests.learning.runs import Case

RATES = ("1e-4", "3e-4", "1e-3", "3e-3", "1e-2")
NUM_SEEDS, NUM_LENGTH_SEEDS, NUM_ABLATION_SEEDS = 5, 3, 2
TUNING_SEEDS = range(100, 105)
"""Rates are chosen on seeds that nothing else uses."""
TUNING_SUCCESS = (0.001, 0.05, 0.3)
ATTEMPTS_PER_STEP = 64
"""As the experiments gym_sdpo and gym_grpo say."""
CURVE_SUCCESS = BASE_SUCCESS
CURVE_LENGTH = 8
OTHER_LENGTHS = (4, 12)
LENGTHS_SUCCESS = 0.001
STEPS = 256
TUNING_STEPS = 96
ABLATION_STEPS = 32
ABLATION_SUCCESS = 0.01

ABLATIONS: dict[str, tuple[str, ...]] = {
    "as it is (reverse KL, K 20, tail, EMA 0.05, demonstration first)": (),
    "forward KL": ("algorithm.divergence=forward_kl",),
    "JSD": ("algorithm.divergence=jsd",),
    "K 5": ("algorithm.support.num_ids=5",),
    "K 100": ("algorithm.support.num_ids=100",),
    "whole vocabulary": ("algorithm.support.kind=full",),
    "without tail": ("algorithm.support.tail=false",),
    "support of the teacher": ("algorithm.support.kind=teacher",),
    "sampled token alone": ("algorithm.granularity=token",),
    "whole response": ("algorithm.granularity=sequence",),
    "teacher live": ("algorithm.teacher.kind=live",),
    "teacher frozen": ("algorithm.teacher.kind=frozen",),
    "teacher trust region": ("algorithm.teacher.kind=trust_region",),
    "teacher EMA 0.01": ("algorithm.teacher.ema_rate=0.01",),
    "teacher EMA 0.5": ("algorithm.teacher.ema_rate=0.5",),
    "demonstration only": ("algorithm.hindsight.choice=demonstration_only",),
    "feedback only": ("algorithm.hindsight.choice=feedback_only",),
    "demonstration and feedback": ("algorithm.hindsight.choice=both",),
    "two updates a step": ("batch.tasks_per_update=4",),
    "a step stale": ("rollout.staleness=1",),
    "four steps stale": ("rollout.staleness=4",),
    "routed: solved to GRPO, failed to SDPO": ("algorithm.routing.kind=by_success",),
    "routed: where rewards differ to GRPO, where all are alike to SDPO": ("algorithm.routing.kind=by_group",),
    "blend with GRPO, half and half": ("algorithm.routing.policy_gradient_share=0.5",),
    "routed, entropy weights (SRPO)": (
        "algorithm.routing.kind=by_success_and_hint",
        "algorithm.entropy_weight=1.0",
        "algorithm.normalisation=joint",
    ),
    "question weights (SC-SDPO)": ("algorithm.question_weight=uncertainty",),
    "reference, frozen, clipped (OPSD)": (
        "algorithm.hindsight.choice=reference",
        "algorithm.teacher.kind=frozen",
        "algorithm.support.kind=full",
        "algorithm.pointwise_clip=0.05",
        "algorithm.pointwise_clip_side=above",
    ),
    "teacher refreshed on gain (CGTR)": ("algorithm.teacher.kind=on_gain",),
    "learner in bf16": ("learner.dtype=bfloat16",),
    "engine in bf16": ("rollout.dtype=bfloat16",),
    "learner and engine in bf16": ("learner.dtype=bfloat16", "rollout.dtype=bfloat16"),
    "forward KL, future credit (DistIL)": ("algorithm.divergence=forward_kl", "algorithm.future_credit=1.0"),
}
GRPO_BESIDE_ABLATIONS: dict[str, tuple[str, ...]] = {
    "GRPO": (),
    "GRPO, a step stale": ("rollout.staleness=1",),
    "GRPO, four steps stale": ("rollout.staleness=4",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Runs that differ in their seeds alone."""

    name: str
    words: tuple[str, ...]

    def cases(self, seeds: range) -> list[Case]:
        return [Case(name=self.name, words=self.words, seed=seed) for seed in seeds]


def cell(algorithm: str, length: int, success: float, rate: str, *words: str, label: str = "", steps: int = STEPS) -> Cell:
    """``algorithm`` is ``sdpo`` or ``grpo``, ``rate`` its learning rate; ``label`` tells variants apart."""
    return Cell(
        name="-".join(filter(None, [algorithm, f"l{length}", f"p{success:g}", f"lr{rate}", label])),
        words=(
            f"experiment=gym_{algorithm}",
            f"env.options.length={length}",
            f"env.options.base_success={success}",
            f"learner.lr={rate}",
            f"num_steps={steps}",
            *words,
        ),
    )


def ablations(rates: dict[str, str]) -> dict[str, Cell]:
    """By what is changed; SDPO's first. All have the same number of generations."""
    changed = [("sdpo", what, words) for what, words in ABLATIONS.items()]
    changed += [("grpo", what, words) for what, words in GRPO_BESIDE_ABLATIONS.items()]
    return {
        what: cell(
            algorithm, CURVE_LENGTH, ABLATION_SUCCESS, rates[algorithm], *words, label=f"ablation{number}", steps=ABLATION_STEPS
        )
        for number, (algorithm, what, words) in enumerate(changed)
    }
