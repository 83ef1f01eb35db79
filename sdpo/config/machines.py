"""What a run is computed with: learner, engines, verifiers, sandbox, cluster, trackers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from omegaconf import MISSING

from sdpo.config.rules import at_least, between, positive, probability
from sdpo.config.schedule import SCHEDULES, ConstantSchedule, ScheduleConfig
from sdpo.plugins.seams import WEIGHT_SYNCS


class Dtype(Enum):
    """A floating-point type, by torch's name."""

    bfloat16 = "bfloat16"
    float32 = "float32"


class Offload(Enum):
    """What leaves the GPU between its uses."""

    none = "none"
    optimizer = "optimizer"
    """Master weights and moments; the update runs on the CPU."""
    all = "all"
    """The parameters too (ZeRO stage 3)."""


class PackingChoice(Enum):
    """How rows lie in the learner's forward pass (``sdpo.types.Packing``)."""

    auto = "auto"
    """The first of the others that keeps the model's rows apart, tried at the start."""
    packed = "packed"
    """End to end, what rows begin with alike once."""
    joined = "joined"
    """End to end, every layer told where a row ends: for layers with kernels that take ``cu_seqlens`` or ``seq_idx``."""
    whole = "whole"
    """Side by side, padded."""


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
    """The sandbox in which environments run code that a model wrote, if they run any."""

    isolation: SandboxIsolation = SandboxIsolation.auto
    allow_weak: bool = False
    """Run it also where neither namespaces nor Landlock keep it from this machine's files; else such a machine refuses."""


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
        at_least("learner.lora.rank", self.rank, 0, "0 trains all weights")
        positive("learner.lora.alpha", self.alpha)
        if not self.target_modules:
            raise ValueError("learner.lora.target_modules must name a layer (without one nothing is trained); got [].")


@dataclass
class LearnerConfig:
    """DeepSpeed and AdamW."""

    num_ranks: int = 1
    """Processes of the learner, each with a GPU where there are any."""
    zero_stage: int = 1
    """ZeRO: what is split over the ranks. 0: nothing; 1: optimizer states; 2: gradients too; 3: parameters too."""
    offload: Offload = Offload.none
    sequence_parallel: int = 1
    """Ranks that share each row, every one with a part of its tokens and of the attention heads (Ulysses, arXiv 2309.14509)."""
    dtype: Dtype = Dtype.bfloat16
    """Type of parameters and activations; master weights, moments and the teacher's average are fp32 throughout."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    lr: float = 1e-5
    """Learning rate, after the first ``warmup_updates``."""
    warmup_updates: int = 2
    """Updates over which the rate rises in a straight line. The paper: 10 at 1e-5, over runs of hundreds of updates."""
    schedule: ScheduleConfig = MISSING
    """What the rate does besides: ``ConstantSchedule`` where nothing is said."""
    num_epochs: int = 1
    """Times that a step's samples are learned from. The log-probabilities of the importance ratios stay those from before the
    step's first update."""
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    grad_clip: float = 1.0
    gradient_checkpointing: bool = False
    packing: PackingChoice = PackingChoice.auto
    """How rows lie in a forward pass. Recurrent and convolutional layers need ``joined`` or ``whole``, which cost time."""
    logits_chunk_mib: float = 96.0
    """Size of one fp32 buffer of logits, MiB. Response tokens are scored in chunks whose logits fit it; there are two such
    buffers."""
    max_skipped_updates: int = 3
    """Updates in a row with a non-finite loss or gradient, each skipped, that end the run."""
    num_threads: int | None = None
    """CPU threads of a rank; None: the machine's cores, shared out among the ranks."""
    timeout_s: float = 1800.0
    """Longest wait for an answer of the learner; then it is lost, as if a rank had died."""
    max_restarts: int = 3
    """Times that the learner is rebuilt from the last checkpoint after one of its ranks died or fell silent. A new checkpoint
    sets the count back."""

    @property
    def num_data_ranks(self) -> int:
        """Ranks, or teams of ranks, that get rows of their own."""
        return self.num_ranks // self.sequence_parallel

    def over(self, num_steps: int) -> LearnerConfig:
        """The same for so many steps, which the schedule is stretched over unless it says how many itself.

        A run's config thus holds the number, and a run that is continued with another ``num_steps`` is refused by it.
        """
        return self if self.schedule.is_bounded else replace(self, schedule=self.schedule.over(num_steps))

    def rate(self, *, step: int, num_updates: int) -> float:
        """The learning rate of the next update, after ``step`` finished steps and ``num_updates`` taken updates.

        A pure function of what a checkpoint counts, so there is nothing else to restore.
        """
        warm = min(1.0, (num_updates + 1) / self.warmup_updates) if self.warmup_updates else 1.0
        return self.lr * warm * self.schedule.share(step)

    def __post_init__(self) -> None:
        self.schedule = ConstantSchedule() if self.schedule == MISSING else self.schedule
        if SCHEDULES.get(self.schedule.kind) is not type(self.schedule):
            raise ValueError(
                "learner.schedule.kind decides which fields there are, so it must be chosen where configs are chosen: as "
                f"learner.schedule.kind={self.schedule.kind} on the command line, in a YAML file as `override "
                f"/learner/schedule: {self.schedule.kind}` under defaults, in Python by its class; got "
                f"kind={self.schedule.kind} among the fields of another one."
            )
        at_least("learner.num_ranks", self.num_ranks, 1, "somebody has to learn")
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
        if self.zero_stage == 0 and self.dtype is Dtype.bfloat16:
            raise ValueError(
                "learner.zero_stage=0 needs learner.dtype=float32 (DeepSpeed keeps fp32 master weights of bf16 parameters from "
                "stage 1 on; on one rank stage 1 splits nothing); got dtype=bfloat16. Set learner.zero_stage=1."
            )
        at_least("learner.sequence_parallel", self.sequence_parallel, 1, "a row needs a rank")
        if self.num_ranks % self.sequence_parallel:
            raise ValueError(
                "learner.sequence_parallel must divide learner.num_ranks (teams of ranks share rows); got "
                f"{self.sequence_parallel} and {self.num_ranks}."
            )
        if self.sequence_parallel > 1 and self.packing in (PackingChoice.joined, PackingChoice.whole):
            raise ValueError(
                "learner.sequence_parallel above 1 needs learner.packing=packed (ranks share a row, and only attention joins its "
                f"parts); got packing={self.packing.value}. Set learner.sequence_parallel=1."
            )
        at_least("learner.lr", self.lr, 0.0, "a negative rate climbs")
        at_least("learner.weight_decay", self.weight_decay, 0.0, "a negative one grows the weights")
        for name, beta in (("beta1", self.beta1), ("beta2", self.beta2)):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"learner.{name} must lie in [0, 1) (it is the weight of the past); got {beta}.")
        positive("learner.timeout_s", self.timeout_s)
        positive("learner.logits_chunk_mib", self.logits_chunk_mib)
        at_least("learner.warmup_updates", self.warmup_updates, 0, "it counts updates")
        at_least("learner.num_epochs", self.num_epochs, 1, "samples are learned from once")
        at_least("learner.max_restarts", self.max_restarts, 0, "it counts restarts")
        at_least("learner.max_skipped_updates", self.max_skipped_updates, 1, "the run ends at that many")
        if not self.grad_clip > 0.0:
            raise ValueError(f"learner.grad_clip must be positive (it bounds the gradient's norm); got {self.grad_clip}.")


@dataclass
class RolloutConfig:
    """vLLM and the verifiers."""

    num_engines: int = 1
    """Engines of vLLM, each with a copy of the model."""
    staleness: int = 0
    """Steps that the weights which sampled a batch may lie behind the learner's. 0: strictly on-policy; k: up to k batches are
    generated ahead while the learner works."""
    partial: bool = False
    """A completion goes on across a weight update, each token with the version that sampled it. False: the update waits for the
    completions that are under way."""
    bucket_mib: int = 256
    """Weights travel in pieces of that size, so that neither side holds all of them twice."""
    weight_sync: str = "object_store"
    """How they travel: ``object_store``, Ray's; or a name of your own."""
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
    """Longest time that an engine with work may take no step; then it is replaced."""
    silence_s: float = 120.0
    """Longest time that an engine may not answer at all; then it is replaced. After a quarter of it, it is suspect and gets no
    new work."""
    max_restarts: int = 5
    """Restarts of an engine or verifier in a row, without a completion or verdict between them."""
    restart_backoff_s: float = 1.0
    """Pause before a second restart without work in between; doubles with each."""

    def __post_init__(self) -> None:
        at_least("rollout.num_engines", self.num_engines, 1, "somebody has to generate")
        at_least("rollout.staleness", self.staleness, 0, "it counts steps")
        if self.partial and self.staleness == 0:
            raise ValueError(
                "rollout.partial=true needs rollout.staleness of at least 1 (on-policy, no completion is under way when weights "
                "arrive); got 0. Raise it, or set rollout.partial=false."
            )
        WEIGHT_SYNCS.check("rollout.weight_sync", self.weight_sync)
        at_least("rollout.bucket_mib", self.bucket_mib, 1, "a bucket holds something")
        at_least("rollout.max_restarts", self.max_restarts, 0, "it counts restarts")
        positive("rollout.silence_s", self.silence_s)
        at_least("rollout.restart_backoff_s", self.restart_backoff_s, 0.0, "it is a pause")
        at_least("rollout.num_verifiers", self.num_verifiers, 1, "somebody has to verify")
        at_least("rollout.max_num_seqs", self.max_num_seqs, 1, "an engine runs a sequence")
        between("rollout.max_set_aside_share", self.max_set_aside_share, 0.0, 1.0)
        probability("rollout.gpu_memory_utilization", self.gpu_memory_utilization)
        at_least("rollout.tensor_parallel_size", self.tensor_parallel_size, 1, "an engine spans a GPU")
        at_least("rollout.kv_cache_gib", self.kv_cache_gib, 1, "vLLM takes whole GiB")
        positive("rollout.verify_timeout_s", self.verify_timeout_s)
        positive("rollout.start_timeout_s", self.start_timeout_s)
        positive("rollout.stall_timeout_s", self.stall_timeout_s)
