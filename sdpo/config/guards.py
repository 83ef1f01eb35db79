"""What is watched while a run learns, from where on it is an alarm, and what an alarm does. docs/guards.md has the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from sdpo.config.algorithm import AlgorithmConfig, SDPOConfig
from sdpo.config.routing import Blend
from sdpo.config.rules import at_least, between


class Guard(Enum):
    """What is watched."""

    length = "length"
    """The mean response has become much shorter or longer, and success has not risen."""
    entropy = "entropy"
    """The policy has become sure of its tokens, and success has not risen."""
    variety = "variety"
    """Attempts at a task have become alike, whatever success does."""
    no_samples = "no_samples"
    """Nothing to learn from, several steps in a row."""
    no_hint = "no_hint"
    """SDPO without a hint for anybody, several steps in a row."""
    lift = "lift"
    """Hindsight does not make the teacher better."""
    credit = "credit"
    """Hindsight finds failures more probable than successes."""
    divergence = "divergence"
    """Student and teacher have come apart, or a number is not finite."""
    success = "success"
    """Success while training has fallen."""
    heldout = "heldout"
    """Success on held-out tasks has fallen."""
    mismatch = "mismatch"
    """Learner and engine disagree on what was sampled."""


class Response(Enum):
    """What an alarm does besides being told."""

    warn = "warn"
    """Nothing."""
    refresh_teacher = "refresh_teacher"
    """The teacher's average becomes the policy as it is."""
    freeze_teacher = "freeze_teacher"
    """The teacher's average stays as it is from now on."""
    raise_policy_gradient = "raise_policy_gradient"
    """λ of the blend rises by ``policy_gradient_step``."""
    stop_at_best = "stop_at_best"
    """The run ends; ``best.json`` names the checkpoint with the highest held-out success."""
    stop = "stop"
    """The run ends without a checkpoint of this step: the newest one is from before the alarm."""


@dataclass
class GuardsConfig:
    """Thresholds are wide: what crosses them is seldom chance (docs/guards.md says how seldom)."""

    response: Response = Response.warn
    responds_to: list[Guard] = field(
        default_factory=lambda: [
            Guard.length,
            Guard.entropy,
            Guard.credit,
            Guard.divergence,
            Guard.success,
            Guard.heldout,
        ]
    )
    """Alarms that ``response`` answers. The others speak of the set-up (tasks, hints, engine), which no other teacher mends.
    ``variety`` may be a policy that has learned what there is to say."""
    repeat_after: int = 10
    """Steps until the same alarm may be raised again."""
    early: int = 5
    """Steps at the start whose mean is what later ones are held against."""
    recent: int = 3
    """Steps whose median is looked at: one odd step alarms nobody."""
    window: int = 8
    """Steps of a window of success, and of ``credit``."""
    patience: int = 3
    """Steps in a row without training samples, or without a hint."""
    num_se: float = 2.0
    """Standard errors that a number must lie on the wrong side by (``credit``, ``lift``)."""
    num_heldout_se: float = 2.5
    """Standard errors for held-out success, which is held against the best of many evaluations."""
    num_success_se: float = 4.5
    """Standard errors for success while training, which is looked at every step and against the best of many windows."""
    min_length_factor: float = 0.4
    """Least mean length, as a factor of the early mean. Good SDPO runs get shorter too, but those solve more."""
    max_length_factor: float = 3.0
    min_entropy_factor: float = 0.2
    """Least entropy, as a factor of the early mean."""
    min_entropy: float = 0.01
    """Nats a token. Below it all attempts at a task are alike, unless the policy solves nearly everything."""
    min_variety_factor: float = 0.5
    """Least ``answers/distinct``, as a factor of its early mean. Only a policy that solves nearly everything may say the same
    each time."""
    max_divergence_factor: float = 5.0
    """Largest divergence, as a factor of the early mean."""
    min_success_factor: float = 0.6
    """Least success while training, as a factor of the best window's."""
    min_heldout_factor: float = 0.85
    """Least held-out success, as a factor of the best evaluation's: a third of the way to having halved."""
    min_lift: float = 0.0
    """Success with hindsight less success without; below it the teacher is the worse of the two."""
    max_mismatch: float = 0.05
    """Nats a token. bf16 gives 0.001; an engine with other weights gives ten times this."""
    max_mismatch_p99: float = 0.3
    """Nats, of the 99th percentile over tokens. bf16 gives 0.01; a ratio of 2, where importance weights are truncated, is 0.3."""
    policy_gradient_step: float = 0.25
    """What an alarm adds to algorithm.routing.policy_gradient_share, with ``response: raise_policy_gradient``."""
    max_policy_gradient_share: float = 0.75
    """Largest share that alarms raise algorithm.routing.policy_gradient_share to."""

    def __post_init__(self) -> None:
        for key in ("repeat_after", "early", "recent", "patience"):
            at_least(f"guards.{key}", getattr(self, key), 1, "it counts steps")
        at_least("guards.window", self.window, 2, "a standard error needs two steps")
        at_least("guards.num_se", self.num_se, 0.0, "it widens what counts as chance")
        at_least("guards.num_heldout_se", self.num_heldout_se, 0.0, "it widens what counts as chance")
        at_least("guards.num_success_se", self.num_success_se, 0.0, "it widens what counts as chance")
        for key in ("min_length_factor", "min_entropy_factor", "min_variety_factor", "min_success_factor", "min_heldout_factor"):
            between(f"guards.{key}", getattr(self, key), 0.0, 1.0)
        at_least("guards.max_length_factor", self.max_length_factor, 1.0, "the early mean is no alarm")
        at_least("guards.max_divergence_factor", self.max_divergence_factor, 1.0, "the early mean is no alarm")
        at_least("guards.min_entropy", self.min_entropy, 0.0, "0 never alarms")
        between("guards.min_lift", self.min_lift, -1.0, 1.0)
        at_least("guards.max_mismatch", self.max_mismatch, 0.0, "it is never negative")
        at_least("guards.max_mismatch_p99", self.max_mismatch_p99, 0.0, "it is never negative")
        between("guards.policy_gradient_step", self.policy_gradient_step, 0.0, 1.0)
        between("guards.max_policy_gradient_share", self.max_policy_gradient_share, 0.0, 1.0)


def refuse_senseless_response(
    guards: GuardsConfig,
    algorithm: AlgorithmConfig,
    *,
    group_size: int,
    keep_best: int,
    evaluate_every: int,
    save_every: int,
    sequence_parallel: int,
) -> None:
    """Raises ValueError where the response has nothing to act on. A run that only warns is never refused."""
    teacher = algorithm.taught_by
    match guards.response:
        case Response.refresh_teacher | Response.freeze_teacher if teacher is None or not teacher.keeps_average:
            raise ValueError(
                f"guards.response={guards.response.value} needs algorithm.teacher.kind=ema, on_gain or periodic (only these "
                f"teachers keep weights of their own); got {'no teacher' if teacher is None else teacher.kind}. Change one "
                "of the two."
            )
        case Response.raise_policy_gradient:
            _refuse_raise(guards, algorithm, group_size, sequence_parallel)
        case Response.stop_at_best:
            _refuse_best(keep_best, evaluate_every, save_every)
        case _:
            pass


def _refuse_raise(guards: GuardsConfig, algorithm: AlgorithmConfig, group_size: int, sequence_parallel: int) -> None:
    routing = algorithm.routing if isinstance(algorithm, SDPOConfig) else None
    if not isinstance(routing, Blend):
        found = f"algorithm.routing.kind={routing.kind}" if routing is not None else "a pure policy gradient"
        raise ValueError(
            "guards.response=raise_policy_gradient needs algorithm.routing.kind=blend (it raises the blend's λ, and the other "
            f"routings give an attempt the one loss or the other); got {found}. Set that or another "
            "guards.response."
        )
    if group_size < 2:
        raise ValueError(
            "batch.group_size must be at least 2 with guards.response=raise_policy_gradient (a lone attempt's advantage is "
            f"always 0); got {group_size}."
        )
    if algorithm.policy_gradient.needs_whole_rows and sequence_parallel > 1:
        raise ValueError(
            "guards.response=raise_policy_gradient with algorithm.policy_gradient.ratio=sequence, or rollout_correction="
            "sequence_truncate or sequence_mask, needs learner.sequence_parallel=1 (no rank sees a whole response); got "
            f"{sequence_parallel}."
        )
    if algorithm.replacement_rounds:
        raise ValueError(
            "guards.response=raise_policy_gradient changes which groups teach anything, and algorithm.replacement_rounds "
            "replaces those that do not by the algorithm of the start; got "
            f"replacement_rounds={algorithm.replacement_rounds}. Set it to 0, or another guards.response."
        )
    if routing.policy_gradient_share >= guards.max_policy_gradient_share:
        raise ValueError(
            "guards.max_policy_gradient_share must exceed algorithm.routing.policy_gradient_share (else no alarm raises "
            f"anything); got {guards.max_policy_gradient_share} and {routing.policy_gradient_share}."
        )


def _refuse_best(keep_best: int, evaluate_every: int, save_every: int) -> None:
    if keep_best < 1:
        raise ValueError(
            f"guards.response=stop_at_best needs checkpoint.keep_best of at least 1 (else the best is not kept); got {keep_best}."
        )
    if evaluate_every < 1 or evaluate_every % save_every:
        raise ValueError(
            "guards.response=stop_at_best needs evaluation.every to be a positive multiple of checkpoint.every (the best is the "
            f"best of the checkpoints that were evaluated); got {evaluate_every} and {save_every}."
        )
