"""Every knob once: its default, its unit and its reason.

Hydra composes these dataclasses from ``conf/`` (whose YAML files hold only deviations), refuses unknown keys and wrong types,
and ``OmegaConf.to_object`` then builds them, which runs the cross-field rules in ``__post_init__``. Nothing here imports torch.
The paper is arXiv 2601.20802; "section" below refers to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


class Divergence(Enum):
    """Which way student and teacher are compared."""

    reverse_kl = "reverse_kl"
    """KL(student‖teacher)"""
    forward_kl = "forward_kl"
    """KL(teacher‖student)"""
    jsd = "jsd"
    """(1-β)·KL(student‖m) + β·KL(teacher‖m), m = (1-β)·student + β·teacher"""


class Granularity(Enum):
    """What one comparison covers."""

    logits = "logits"
    """The whole support at every position."""
    token = "token"
    """The sampled token alone: the one-sample estimate of the reverse KL's gradient."""
    sequence = "sequence"
    """One scalar for the response: the sum of the sampled tokens' log-ratios."""


class SupportKind(Enum):
    """Whose most probable tokens the two distributions are compared over."""

    student = "student"
    teacher = "teacher"
    full = "full"


class TeacherKind(Enum):
    """Which weights the teacher has."""

    live = "live"
    """The policy's own, now."""
    frozen = "frozen"
    """The policy's at the start."""
    ema = "ema"
    """An exponential moving average of the policy's, kept in fp32."""
    trust_region = "trust_region"
    """The policy's at the start and now: their logits are mixed, so that the teacher never strays far."""
    external = "external"
    """Another model's, with the same vocabulary."""


class RatioLevel(Enum):
    """Over what the policy gradient's importance ratio is taken."""

    token = "token"
    sequence = "sequence"
    """GSPO (arXiv 2507.18071): the geometric mean over the response."""


class LossMean(Enum):
    """What the policy gradient's sum over tokens is divided by."""

    token = "token"
    """All response tokens of the update (DAPO, arXiv 2503.14476)."""
    sequence = "sequence"
    """Each response's length, then the number of responses (the original GRPO, arXiv 2402.03300)."""
    constant = "constant"
    """Responses times the longest possible one (Dr.GRPO, arXiv 2503.20783)."""


class Routing(Enum):
    """Which attempts are distilled and which get a policy gradient, where both are at hand."""

    blend = "blend"
    """Every attempt both: λ times the policy gradient, 1-λ times the distillation."""
    by_success = "by_success"
    """Solved attempts the policy gradient, failed ones the distillation."""
    by_hint = "by_hint"
    """Attempts with a hint the distillation, those without the policy gradient."""


class Normalisation(Enum):
    """What the sum of the distillation losses is divided by. Counted over the whole update, never over a micro-batch."""

    distilled = "distilled"
    """The tokens that are distilled."""
    reference = "reference"
    """Those of all attempts that a hint would have distilled, as the authors' code counts: few hints, small gradients."""


class Offload(Enum):
    """What leaves the GPU between its uses."""

    none = "none"
    optimizer = "optimizer"
    """Master weights and moments; the update runs on the CPU."""
    all = "all"
    """The parameters too (ZeRO stage 3)."""


class HintChoice(Enum):
    """Which hint an attempt gets when both kinds are at hand."""

    demonstration_first = "demonstration_first"
    """Feedback only where no sibling solved the task."""
    both = "both"
    demonstration_only = "demonstration_only"
    feedback_only = "feedback_only"
    none = "none"
    """The teacher sees the student's prompt: with an external teacher, generalised knowledge distillation (arXiv 2306.13649)."""


class Resume(Enum):
    """What to do with a run folder that is already there."""

    auto = "auto"
    """Continue it where it stopped; begin where there is none."""
    never = "never"
    """Refuse to touch it."""
    must = "must"
    """Refuse to begin anew."""


class ExportedWeights(Enum):
    """Which of a checkpoint's weights."""

    policy = "policy"
    average = "average"
    """The teacher's moving average; often the better model."""


class Dtype(Enum):
    """A floating-point type, by torch's name."""

    bfloat16 = "bfloat16"
    float32 = "float32"


@dataclass
class SupportConfig:
    """The token ids at a position over which the two distributions are compared."""

    kind: SupportKind = SupportKind.student
    num_ids: int = 100
    """K. The paper: 100 without environment feedback, 20 with."""
    tail: bool = True
    """Add one bucket with the rest of the probability; False: renormalise over the K."""

    def __post_init__(self) -> None:
        _at_least("algorithm.support.num_ids", self.num_ids, 1, "the support holds that many token ids a position")
        if self.num_ids == 1 and not self.tail and self.kind is not SupportKind.full:
            raise ValueError(
                "algorithm.support.num_ids must be at least 2 without a tail (one renormalised id has probability 1 in both, so "
                "there is nothing to learn); got 1. Raise it, or set algorithm.support.tail=true."
            )


@dataclass
class TeacherConfig:
    """The self-teacher."""

    kind: TeacherKind = TeacherKind.ema
    ema_rate: float = 0.05
    """Share of the policy mixed in once a step. The paper: 0.05 without environment feedback, 0.01 with."""
    live_weight: float = 0.05
    """Of the policy's logits in a trust region's mixture; the start's have the rest."""
    path: str | None = None
    """The external teacher: a folder, a hub id, or ``package:NAME``."""
    offload: bool = False
    """Keep the average in the host's memory instead of the GPU's."""

    def __post_init__(self) -> None:
        _between("algorithm.teacher.ema_rate", self.ema_rate, 0.0, 1.0)
        _between("algorithm.teacher.live_weight", self.live_weight, 0.0, 1.0)
        if (self.path is not None) != (self.kind is TeacherKind.external):
            raise ValueError(
                "algorithm.teacher.path names the external teacher, so it goes with algorithm.teacher.kind=external alone; "
                f"got path={self.path} and kind={self.kind.value}. Give both or neither."
            )


@dataclass
class HindsightConfig:
    """Which attempts get a hint, and how it is put to the teacher."""

    choice: HintChoice = HintChoice.demonstration_first
    solved_get_hints: bool = True
    """A solved attempt is shown a solved sibling too, and so reinforced where they agree."""
    max_prompt_tokens: int = 1024
    """Of the hindsight prompt. Over it the feedback and then the demonstration are cut, never the question."""
    demonstration_reward: float = 1.0
    """A sibling demonstrates from this reward on."""

    def __post_init__(self) -> None:
        _at_least("algorithm.hindsight.max_prompt_tokens", self.max_prompt_tokens, 1, "the question alone needs some")
        if not 0.0 < self.demonstration_reward <= 1.0:
            raise ValueError(
                "algorithm.hindsight.demonstration_reward must lie in (0, 1] (a worthless answer demonstrates nothing); got "
                f"{self.demonstration_reward}."
            )


@dataclass
class PolicyGradientConfig:
    """GRPO's loss (arXiv 2402.03300) with the switches of its descendants."""

    clip_low: float = 0.2
    clip_high: float = 0.28
    """Asymmetric, "clip higher" (DAPO)."""
    divide_by_std: bool = False
    """Divide the mean-centred rewards by their standard deviation, as the original does; Dr.GRPO does not."""
    ratio: RatioLevel = RatioLevel.token
    mean: LossMean = LossMean.token
    drop_uniform_groups: bool = False
    """Leave groups whose rewards do not differ out of the counts the loss is divided by (DAPO, which then samples others)."""
    overlong_tokens: int = 0
    """The last so many tokens before the length limit cost reward, linearly up to 1 (DAPO's overlong shaping); 0: none do."""
    rollout_clip: float = 2.0
    """Truncation of the detached weight π_learner/π_engine that corrects for the engine's arithmetic."""

    def __post_init__(self) -> None:
        _between("algorithm.policy_gradient.clip_low", self.clip_low, 0.0, 1.0)
        _at_least("algorithm.policy_gradient.clip_high", self.clip_high, 0.0, "it is a distance from 1")
        _at_least("algorithm.policy_gradient.overlong_tokens", self.overlong_tokens, 0, "it counts tokens")
        _at_least("algorithm.policy_gradient.rollout_clip", self.rollout_clip, 1.0, "it truncates a ratio around 1 from above")


@dataclass
class AlgorithmConfig:
    """What is minimised; ``algorithm=`` picks a subclass."""

    name: str = MISSING
    policy_gradient: PolicyGradientConfig = field(default_factory=PolicyGradientConfig)
    entropy_bonus: float = 0.0
    """Nats of the policy's entropy that are worth one nat of loss, per learned-from token."""
    reference_kl: float = 0.0
    """Weight of KL(policy‖policy at the start), estimated on the sampled tokens (the estimator k3: never negative, low variance,
    http://joschu.net/blog/kl-approx.html). The paper trains without. Takes the memory of a frozen copy."""

    @property
    def needs_whole_rows(self) -> bool:
        """Whether a token's loss depends on the other tokens of its response."""
        return self.policy_gradient.ratio is RatioLevel.sequence

    @property
    def has_terms_without_advantage(self) -> bool:
        """Whether an attempt with advantage 0 still has a gradient."""
        return self.entropy_bonus != 0.0 or self.reference_kl != 0.0

    def __post_init__(self) -> None:
        _at_least("algorithm.entropy_bonus", self.entropy_bonus, 0.0, "it rewards entropy")
        _at_least("algorithm.reference_kl", self.reference_kl, 0.0, "it punishes distance")


@dataclass
class GRPOConfig(AlgorithmConfig):
    """Group Relative Policy Optimization, the baseline."""

    name: str = "grpo"


@dataclass
class SDPOConfig(AlgorithmConfig):
    """Self-Distillation Policy Optimization (section 2)."""

    name: str = "sdpo"
    divergence: Divergence = Divergence.reverse_kl
    jsd_beta: float = 0.5
    """Weight of the teacher in the mixture; used by ``jsd`` alone."""
    granularity: Granularity = Granularity.logits
    support: SupportConfig = field(default_factory=SupportConfig)
    importance_clip: float = 2.0
    """Clamp from above of the detached ratio π_θ/π_old."""
    rollout_clip: float = 2.0
    """Truncation from above of the detached token-level weight π_old/π_rollout."""
    normalisation: Normalisation = Normalisation.distilled
    routing: Routing = Routing.blend
    policy_gradient_share: float = 0.0
    """λ in λ·GRPO + (1-λ)·SDPO, for ``routing: blend``."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    hindsight: HindsightConfig = field(default_factory=HindsightConfig)

    @property
    def needs_whole_rows(self) -> bool:
        """Likewise."""
        return self.granularity is Granularity.sequence or (
            self.has_policy_gradient and self.policy_gradient.ratio is RatioLevel.sequence
        )

    @property
    def has_policy_gradient(self) -> bool:
        """Whether some attempts may be learned from through their advantage."""
        return self.routing is not Routing.blend or self.policy_gradient_share > 0.0

    def __post_init__(self) -> None:
        AlgorithmConfig.__post_init__(self)
        if self.granularity is not Granularity.logits and self.divergence is not Divergence.reverse_kl:
            raise ValueError(
                f"algorithm.granularity={self.granularity.value} works with algorithm.divergence=reverse_kl only (the other "
                "divergences need the distribution, not just the sampled token); got "
                f"{self.divergence.value}. Set algorithm.granularity=logits or algorithm.divergence=reverse_kl."
            )
        if not 0.0 < self.jsd_beta < 1.0:
            raise ValueError(
                f"algorithm.jsd_beta must lie strictly between 0 and 1 (at its ends the divergence is 0 everywhere); got "
                f"{self.jsd_beta}. For a KL set algorithm.divergence=reverse_kl or forward_kl."
            )
        _at_least("algorithm.importance_clip", self.importance_clip, 1.0, "it clamps a ratio around 1 from above")
        _at_least("algorithm.rollout_clip", self.rollout_clip, 1.0, "it truncates a ratio around 1 from above")
        _between("algorithm.policy_gradient_share", self.policy_gradient_share, 0.0, 1.0)
        if self.routing is not Routing.blend and self.policy_gradient_share != 0.0:
            raise ValueError(
                "algorithm.policy_gradient_share is the λ of algorithm.routing=blend (the other routings give an attempt the one "
                f"loss or the other); got {self.policy_gradient_share} with routing={self.routing.value}."
            )
        if (self.hindsight.choice is HintChoice.none) and self.teacher.kind is not TeacherKind.external:
            raise ValueError(
                "algorithm.hindsight.choice=none needs algorithm.teacher.kind=external (a self-teacher without a hint says what "
                f"the student says); got {self.teacher.kind.value}."
            )


@dataclass
class ModelConfig:
    """Which language model is trained."""

    name: str = MISSING
    path: str = MISSING
    """A Hugging Face causal LM: a folder, a hub id, or ``package:NAME`` for one that a Python package carries."""
    chat_template_options: dict[str, bool] = field(default_factory=dict)
    """Passed to the chat template, e.g. ``{enable_thinking: false}``."""


@dataclass
class EnvConfig:
    """Where tasks come from and who verifies."""

    name: str = MISSING
    """An installed environment (``sdpo envs list``), ``module:Class`` or ``file.py:Class``."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the environment's class. Any, because OmegaConf knows no other word for it."""
    train_split: str = "train"
    heldout_split: str = "heldout"


class SandboxIsolation(Enum):
    """What untrusted code is run in, from the strongest; ``sdpo doctor`` says what this machine gives."""

    auto = "auto"
    """The strongest that works."""
    bubblewrap = "bubblewrap"
    namespaces = "namespaces"
    landlock = "landlock"
    weak = "weak"


@dataclass
class SandboxConfig:
    """Where code that a model wrote is run, by environments that run any."""

    isolation: SandboxIsolation = SandboxIsolation.auto
    allow_weak: bool = False
    """Run it also where neither namespaces nor Landlock keep it from this machine's files; else such a machine refuses."""


@dataclass
class BatchConfig:
    """How much is sampled a step, and how it is split."""

    num_tasks: int = 8
    """P, tasks a step."""
    group_size: int = 6
    """G, attempts a task."""
    tasks_per_update: int | None = None
    """Tasks an optimizer step; None: all of the step's."""
    micro_batch_tokens: int = 4096
    """Token budget of one forward pass, student and teacher counted together; a longer row goes alone."""

    def __post_init__(self) -> None:
        _at_least("batch.num_tasks", self.num_tasks, 1, "a step needs a task")
        _at_least("batch.group_size", self.group_size, 1, "a task needs an attempt")
        _at_least("batch.micro_batch_tokens", self.micro_batch_tokens, 1, "a forward pass needs a token")
        if self.tasks_per_update is not None:
            _at_least("batch.tasks_per_update", self.tasks_per_update, 1, "an update needs a task")
            if self.num_tasks % self.tasks_per_update:
                raise ValueError(
                    "batch.tasks_per_update must divide batch.num_tasks (every update learns from equally many tasks); got "
                    f"{self.tasks_per_update} and {self.num_tasks}."
                )


@dataclass
class SamplingConfig:
    """The distribution that training samples from; never truncated, since a learner scores every token."""

    temperature: float = 1.0
    max_prompt_tokens: int = 512
    max_response_tokens: int = 64
    """Of all turns together, the environment's replies included."""
    max_turns: int = 1
    """Turns of the policy; over 1 the environment is asked for a ``reply`` after each but the last."""

    def __post_init__(self) -> None:
        if not self.temperature > 0.0:
            raise ValueError(
                f"sampling.temperature must be positive (learning needs attempts that differ); got {self.temperature}."
            )
        _at_least("sampling.max_prompt_tokens", self.max_prompt_tokens, 1, "a prompt needs a token")
        _at_least("sampling.max_response_tokens", self.max_response_tokens, 1, "a response needs a token")
        _at_least("sampling.max_turns", self.max_turns, 1, "the policy speaks at least once")


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

    def __post_init__(self) -> None:
        _at_least("evaluation.every", self.every, 0, "it counts steps")
        _at_least("evaluation.num_tasks", self.num_tasks, 0, "it counts tasks")
        _at_least("evaluation.num_attempts", self.num_attempts, 1, "a task needs an attempt")
        _at_least("evaluation.temperature", self.temperature, 0.0, "0 is greedy")
        _probability("evaluation.top_p", self.top_p)

    def is_due(self, step: int, num_steps: int) -> bool:
        """Whether to look after ``step`` steps."""
        return self.num_tasks > 0 and (step in (0, num_steps) or (self.every > 0 and step % self.every == 0))


@dataclass
class CheckpointConfig:
    """What survives a kill."""

    every: int = 1
    """Steps between checkpoints: a kill loses at most that many. The last step always has one."""
    keep: int = 2
    """Newest checkpoints kept."""
    keep_best: int = 0
    """Checkpoints kept besides, those with the highest held-out success among the ones that were evaluated."""

    def __post_init__(self) -> None:
        _at_least("checkpoint.every", self.every, 1, "it counts steps")
        _at_least("checkpoint.keep_best", self.keep_best, 0, "it counts checkpoints")
        _at_least("checkpoint.keep", self.keep, 1, "without one there is nothing to resume from")

    def is_due(self, step: int, num_steps: int) -> bool:
        """Whether to save after ``step`` steps."""
        return step == num_steps or step % self.every == 0


@dataclass
class LoraConfig:
    """Low-rank adapters (arXiv 2106.09685) in place of all weights; the base is the frozen teacher for free."""

    rank: int = 0
    """0: train all weights."""
    alpha: int = 32
    """The adapter's product is scaled by alpha / rank."""
    target_modules: list[str] = field(default_factory=lambda: ["all-linear"])
    """Names of the layers that get one; ``all-linear``: every linear layer but the output embedding."""

    def __post_init__(self) -> None:
        _at_least("learner.lora.rank", self.rank, 0, "0 trains all weights")
        _positive("learner.lora.alpha", self.alpha)
        if not self.target_modules:
            raise ValueError("learner.lora.target_modules must name a layer (without one nothing is trained); got [].")


@dataclass
class LearnerConfig:
    """DeepSpeed and AdamW."""

    num_ranks: int = 1
    zero_stage: int = 1
    """ZeRO: what is split over the ranks. 0: nothing; 1: optimizer states; 2: gradients too; 3: parameters too."""
    offload: Offload = Offload.none
    sequence_parallel: int = 1
    """Ranks that share each row, every one with a part of its tokens and of the attention heads (Ulysses, arXiv 2309.14509)."""
    dtype: Dtype = Dtype.bfloat16
    """Of parameters and activations; master weights, moments and the teacher's average are fp32 throughout."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    lr: float = 1e-5
    warmup_updates: int = 2
    """Linear, then constant. The paper: 10 at 1e-5, over runs of hundreds of updates."""
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    grad_clip: float = 1.0
    gradient_checkpointing: bool = False
    logits_chunk_mib: float = 96.0
    """Of one fp32 buffer of logits. Response tokens are scored in chunks whose logits fit it; there are two such buffers."""
    max_skipped_updates: int = 3
    """Updates in a row with a non-finite loss or gradient, each skipped, that end the run."""
    num_threads: int | None = None
    """CPU threads of a rank; None: the machine's cores, shared out among the ranks."""
    timeout_s: float = 1800.0
    """Longest wait for a rank in a collective or for an answer of the learner."""

    @property
    def num_data_ranks(self) -> int:
        """Ranks, or teams of ranks, that get rows of their own."""
        return self.num_ranks // self.sequence_parallel

    def __post_init__(self) -> None:
        _at_least("learner.num_ranks", self.num_ranks, 1, "somebody has to learn")
        if self.zero_stage not in (0, 1, 2, 3):
            raise ValueError(f"learner.zero_stage must be 0, 1, 2 or 3; got {self.zero_stage}.")
        if self.offload is Offload.optimizer and self.zero_stage == 0:
            raise ValueError(
                "learner.offload=optimizer needs learner.zero_stage of 1, 2 or 3 (ZeRO moves the optimizer's shards); got 0."
            )
        if self.offload is Offload.all and self.zero_stage != 3:
            raise ValueError(
                "learner.offload=all needs learner.zero_stage=3 (only there can parameters leave the GPU); got "
                f"{self.zero_stage}. Set learner.zero_stage=3 or learner.offload=optimizer."
            )
        _at_least("learner.sequence_parallel", self.sequence_parallel, 1, "a row needs a rank")
        if self.num_ranks % self.sequence_parallel:
            raise ValueError(
                "learner.sequence_parallel must divide learner.num_ranks (teams of ranks share rows); got "
                f"{self.sequence_parallel} and {self.num_ranks}."
            )
        _at_least("learner.lr", self.lr, 0.0, "a negative rate climbs")
        _at_least("learner.weight_decay", self.weight_decay, 0.0, "a negative one grows the weights")
        for name, beta in (("beta1", self.beta1), ("beta2", self.beta2)):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"learner.{name} must lie in [0, 1) (it is the weight of the past); got {beta}.")
        _positive("learner.timeout_s", self.timeout_s)
        _positive("learner.logits_chunk_mib", self.logits_chunk_mib)
        _at_least("learner.warmup_updates", self.warmup_updates, 0, "it counts updates")
        _at_least("learner.max_skipped_updates", self.max_skipped_updates, 1, "the run ends at that many")
        if not self.grad_clip > 0.0:
            raise ValueError(f"learner.grad_clip must be positive (it bounds the gradient's norm); got {self.grad_clip}.")


@dataclass
class RolloutConfig:
    """vLLM and the verifiers."""

    num_engines: int = 1
    dtype: Dtype = Dtype.bfloat16
    max_num_seqs: int = 128
    """Sequences an engine runs at once."""
    kv_cache_gib: int = 2
    """KV cache of an engine on the CPU, GiB; vLLM takes whole ones."""
    gpu_memory_utilization: float = 0.5
    """Share of the GPU that an engine takes."""
    tensor_parallel_size: int = 1
    """GPUs an engine spans."""
    enforce_eager: bool = True
    """No graph capture and no compilation: starts in seconds and needs no compiler."""
    num_verifiers: int = 2
    """Processes that verify while others generate."""
    verify_timeout_s: float = 60.0
    """Longest verification of one attempt; over it the verifier is replaced and the attempt set aside."""
    max_set_aside_share: float = 0.2
    """Stop the run when a larger share of a step's attempts was set aside."""
    start_timeout_s: float = 600.0
    stall_timeout_s: float = 600.0
    """Longest wait for the next completion of an engine."""

    def __post_init__(self) -> None:
        _at_least("rollout.num_engines", self.num_engines, 1, "somebody has to generate")
        _at_least("rollout.num_verifiers", self.num_verifiers, 1, "somebody has to verify")
        _at_least("rollout.max_num_seqs", self.max_num_seqs, 1, "an engine runs a sequence")
        _between("rollout.max_set_aside_share", self.max_set_aside_share, 0.0, 1.0)
        _probability("rollout.gpu_memory_utilization", self.gpu_memory_utilization)
        _at_least("rollout.tensor_parallel_size", self.tensor_parallel_size, 1, "an engine spans a GPU")
        _at_least("rollout.kv_cache_gib", self.kv_cache_gib, 1, "vLLM takes whole GiB")
        _positive("rollout.verify_timeout_s", self.verify_timeout_s)
        _positive("rollout.start_timeout_s", self.start_timeout_s)
        _positive("rollout.stall_timeout_s", self.stall_timeout_s)


@dataclass
class ClusterConfig:
    """Where Ray runs."""

    address: str | None = None
    """None: start Ray on this machine; else join this cluster (``auto`` finds a running one)."""
    object_store_gib: float = 2.0
    """Ray's shared memory on this machine, GiB; holds a copy of the weights in flight."""


@dataclass
class TrackingConfig:
    """What is written beside ``metrics.jsonl``."""

    tensorboard: bool = True
    rollouts: bool = True
    """Every attempt, one JSON line each, under ``rollouts/``."""
    quiet: bool = False
    """No live view: one line a step."""


@dataclass
class Config:
    """A training run."""

    seed: int = 0
    num_steps: int = 10
    """With the other defaults, what two CPU cores do in a quarter of an hour."""
    runs_dir: str = "runs"
    name: str = ""
    """The run's folder under ``runs_dir``; empty: ENVIRONMENT-ALGORITHM-MODEL-sSEED."""
    resume: Resume = Resume.auto
    dry_run: bool = False
    """Resolve and check everything, start nothing."""
    algorithm: AlgorithmConfig = MISSING
    model: ModelConfig = field(default_factory=ModelConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        _at_least("num_steps", self.num_steps, 1, "a run takes a step")
        if not self.name:
            environment = self.env.name.rpartition(":")[2].lower()
            self.name = f"{environment}-{self.algorithm.name}-{self.model.name}-s{self.seed}"
        if "/" in self.name or self.name.startswith("."):
            raise ValueError(f"name must be a plain folder name (the run's folder under runs_dir); got {self.name!r}.")
        if self.batch.group_size < 2:
            if not isinstance(self.algorithm, SDPOConfig):
                raise ValueError(
                    "batch.group_size must be at least 2 with algorithm=grpo (a lone attempt has no sibling to be compared "
                    f"with, so its advantage is always 0); got {self.batch.group_size}."
                )
            if self.algorithm.has_policy_gradient:
                raise ValueError(
                    "batch.group_size must be at least 2 with a policy gradient (a lone attempt's advantage is "
                    f"always 0); got {self.batch.group_size}."
                )
            if self.algorithm.hindsight.choice is HintChoice.demonstration_only:
                raise ValueError(
                    "batch.group_size must be at least 2 with algorithm.hindsight.choice=demonstration_only (a lone attempt "
                    f"has no sibling to learn from); got {self.batch.group_size}."
                )
        if self.algorithm.policy_gradient.overlong_tokens > self.sampling.max_response_tokens:
            raise ValueError(
                "algorithm.policy_gradient.overlong_tokens must not exceed sampling.max_response_tokens (they are the last "
                f"before it); got {self.algorithm.policy_gradient.overlong_tokens} and {self.sampling.max_response_tokens}."
            )
        if self.checkpoint.keep_best > 0 and self.evaluation.num_tasks == 0:
            raise ValueError(
                "checkpoint.keep_best needs evaluation.num_tasks of at least 1 (the best is known by held-out success); got "
                f"keep_best={self.checkpoint.keep_best} and num_tasks=0."
            )
        if self.learner.sequence_parallel > 1 and self.algorithm.needs_whole_rows:
            raise ValueError(
                "learner.sequence_parallel must be 1 with a loss over whole responses (algorithm.policy_gradient.ratio=sequence, "
                "algorithm.granularity=sequence), because no rank sees one; got "
                f"{self.learner.sequence_parallel}."
            )
        if self.learner.zero_stage == 0 and self.learner.dtype is Dtype.bfloat16:
            raise ValueError(
                "learner.zero_stage=0 needs learner.dtype=float32 (DeepSpeed keeps fp32 master weights of bf16 parameters from "
                "stage 1 on; on one rank stage 1 splits nothing); got dtype=bfloat16. Set learner.zero_stage=1."
            )
        if (
            isinstance(self.algorithm, SDPOConfig)
            and self.algorithm.hindsight.choice is not HintChoice.none
            and self.algorithm.hindsight.max_prompt_tokens < self.sampling.max_prompt_tokens
        ):
            raise ValueError(
                "algorithm.hindsight.max_prompt_tokens must be at least sampling.max_prompt_tokens (the hindsight prompt "
                f"repeats the question); got {self.algorithm.hindsight.max_prompt_tokens} and {self.sampling.max_prompt_tokens}."
            )


@dataclass
class EvaluateConfig:
    """``sdpo evaluate``: a checkpoint, or a model as it is, on an environment's held-out tasks."""

    checkpoint: str | None = None
    """A checkpoint folder of a run; None: the model itself."""
    seed: int = 0
    k: int = 4
    """Attempts a task."""
    num_tasks: int = 48
    temperature: float = 0.6
    top_p: float = 0.95
    logs_dir: str = "runs/evaluate"
    """Where the engines' output goes."""
    model: ModelConfig = field(default_factory=ModelConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        _at_least("k", self.k, 1, "a task needs an attempt")
        _at_least("num_tasks", self.num_tasks, 1, "an evaluation needs a task")
        _at_least("temperature", self.temperature, 0.0, "0 is greedy")
        _probability("top_p", self.top_p)


@dataclass
class ReplayConfig:
    """``sdpo replay``: an update that a run could not take, through the learner alone."""

    batch: str = MISSING
    """``runs/NAME/skipped/step_NNNNNN-update_N.pt``"""
    checkpoint: str | None = None
    """Weights to replay it on; None: the run's newest from before the update, or the model as it is."""
    num_threads: int | None = None


@dataclass
class ExportConfig:
    """``sdpo export``: a checkpoint as a plain Hugging Face folder."""

    checkpoint: str = MISSING
    """``runs/NAME/checkpoints/step_NNNNNN``"""
    to: str = MISSING
    """The folder to make; it must not be there."""
    weights: ExportedWeights = ExportedWeights.policy
    dtype: Dtype | None = None
    """None: as it was trained."""


def register() -> None:
    """Put the schemas where hydra's YAML files name them."""
    store = ConfigStore.instance()
    store.store(name="config_schema", node=Config)
    store.store(name="evaluate_schema", node=EvaluateConfig)
    store.store(name="replay_schema", node=ReplayConfig)
    store.store(name="export_schema", node=ExportConfig)
    groups: dict[str, dict[str, type]] = {
        "algorithm": {"sdpo_schema": SDPOConfig, "grpo_schema": GRPOConfig},
        "model": {"model_schema": ModelConfig},
        "env": {"env_schema": EnvConfig},
        "learner": {"learner_schema": LearnerConfig},
        "rollout": {"rollout_schema": RolloutConfig},
        "cluster": {"cluster_schema": ClusterConfig},
        "tracking": {"tracking_schema": TrackingConfig},
    }
    for group, schemas in groups.items():
        for name, node in schemas.items():
            store.store(group=group, name=name, node=node)


def _at_least(key: str, value: float, bound: float, reason: str) -> None:
    if not value >= bound:
        raise ValueError(f"{key} must be at least {bound} ({reason}); got {value}.")


def _between(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{key} must lie between {low} and {high}; got {value}.")


def _positive(key: str, value: float) -> None:
    if not value > 0.0:
        raise ValueError(f"{key} must be positive; got {value}.")


def _probability(key: str, value: float) -> None:
    if not 0.0 < value <= 1.0:
        raise ValueError(f"{key} must lie in (0, 1]; got {value}.")
