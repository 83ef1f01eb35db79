"""``sdpo warmup``: which pairs a model learns to use hindsight from, and how far it may move."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from sdpo.config.algorithm import Granularity, Normalisation, QuestionWeight, SDPOConfig
from sdpo.config.cluster import ClusterConfig
from sdpo.config.evaluation import EvaluationConfig
from sdpo.config.machines import LearnerConfig, RolloutConfig, SandboxConfig
from sdpo.config.rules import at_least, between, finite_throughout, seed_within
from sdpo.config.run import EnvConfig, ModelConfig, SamplingConfig
from sdpo.config.teacher import FrozenTeacher


@dataclass
class PairsConfig:
    """The source of verified pairs (hindsight prompt, correct answer), and how they are mixed."""

    num_tasks: int = 96
    """Training tasks, a seeded draw; held-out tasks are never used."""
    num_attempts: int = 4
    """The model's own attempts a task: its successes are answers, its failures bring feedback, and all of them are plain rows."""
    num_edits: int = 4
    """Edited references a task; those that fail bring feedback. 0 in effect where the environment has no reference."""
    demonstration: float = 0.4
    """Share of the pairs whose prompt shows a correct answer."""
    feedback: float = 0.4
    """Share of those that show a failure's feedback."""
    both: float = 0.2

    def __post_init__(self) -> None:
        at_least("pairs.num_tasks", self.num_tasks, 1, "pairs are made from training tasks")
        at_least("pairs.num_attempts", self.num_attempts, 1, "plain rows are the model's own attempts")
        at_least("pairs.num_edits", self.num_edits, 0, "it counts edits")
        for name in ("demonstration", "feedback", "both"):
            between(f"pairs.{name}", getattr(self, name), 0.0, 1.0)
        total = self.demonstration + self.feedback + self.both
        if abs(total - 1.0) > 1e-6:
            raise ValueError(
                f"pairs.demonstration, pairs.feedback and pairs.both must add up to 1 (they are shares of pairs); got {total:g}."
            )


@dataclass
class WarmupConfig:
    """Supervised training that teaches a model to use hindsight, and changes what it says without any as little as possible."""

    to: str = MISSING
    """The model folder to make; it must not be there."""
    seed: int = 0
    """Seed of all draws."""
    num_updates: int = 40
    """Updates of the weights."""
    lr: float = 2e-5
    """Learning rate, which ``learner.lr`` follows: a warm-up is a few dozen updates, so it takes larger steps than a run."""
    kl_weight: float = 1.0
    """Nats of cross-entropy that a nat of KL(base‖policy) a token on plain prompts is worth; 0: none."""
    pairs_per_update: int = 12
    plain_per_update: int = 4
    """Rows of the base's own attempts under plain prompts, which the KL is taken over."""
    micro_batch_tokens: int = 4096
    """As in ``batch.micro_batch_tokens``."""
    pairs: PairsConfig = field(default_factory=PairsConfig)
    quiet: bool = False
    """No live view: one line an update, and one every half minute of what takes longer."""
    logs_dir: str = "runs/warmup"
    """Folder of the engines' and the learner's output."""
    algorithm: SDPOConfig = MISSING
    """Settings of the KL (support, divergence) and of hindsight prompts; ``algorithm.hindsight`` should be the coming run's."""
    model: ModelConfig = field(default_factory=ModelConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """What is measured before and after."""
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        finite_throughout(self)
        seed_within(self.seed)
        at_least("num_updates", self.num_updates, 1, "a warm-up takes an update")
        self.learner = self.learner.over(self.num_updates)
        at_least("kl_weight", self.kl_weight, 0.0, "it punishes distance")
        at_least("pairs_per_update", self.pairs_per_update, 1, "an update needs a pair")
        at_least("plain_per_update", self.plain_per_update, 0, "it counts rows")
        at_least("micro_batch_tokens", self.micro_batch_tokens, 1, "a forward pass needs a token")
        if self.learner.lr != self.lr:
            raise ValueError(
                f"a warm-up's learning rate is lr, and learner.lr follows it; got {self.lr} and {self.learner.lr}. Set lr."
            )
        if self.learner.num_epochs != 1:
            raise ValueError(
                "learner.num_epochs must be 1 in a warm-up (each update draws rows of its own, and num_updates says how many); "
                f"got {self.learner.num_epochs}. Raise num_updates."
            )
        if (self.kl_weight > 0.0) != (self.plain_per_update > 0):
            raise ValueError(
                "kl_weight and plain_per_update go together (the KL is taken over plain rows); got "
                f"{self.kl_weight} and {self.plain_per_update}. Set both to 0, or neither."
            )
        if not isinstance(self.algorithm.teacher, FrozenTeacher):
            raise ValueError(
                "a warm-up needs algorithm.teacher.kind=frozen (its KL is to the model as it was); got "
                f"{self.algorithm.teacher.kind}. Leave it; which teacher a run has is that run's own config."
            )
        if self.algorithm.has_policy_gradient or self.algorithm.entropy_bonus or self.algorithm.reference_kl:
            raise ValueError(
                "a warm-up's losses are the cross-entropy of pairs and a KL on plain prompts (kl_weight); got one with a "
                "policy gradient, an entropy bonus or a reference KL. Leave those to the run that follows."
            )
        self._refuse_weighed_kl()
        if self.sampling.max_turns > 1:
            raise ValueError(
                "sampling.max_turns must be 1 in a warm-up (a pair's answer is a single turn); got "
                f"{self.sampling.max_turns}. Warm up on the first turn, and train with several."
            )
        if self.evaluation.num_tasks > 0:
            at_least("evaluation.num_attempts", self.evaluation.num_attempts, 2, "lift compares one half of them with the other")
        if self.algorithm.hindsight.max_prompt_tokens < self.sampling.max_prompt_tokens:
            raise ValueError(
                "algorithm.hindsight.max_prompt_tokens must be at least sampling.max_prompt_tokens (the hindsight prompt repeats "
                f"the question); got {self.algorithm.hindsight.max_prompt_tokens} and {self.sampling.max_prompt_tokens}."
            )

    def _refuse_weighed_kl(self) -> None:
        """The base's rows stay while the policy moves, so nothing may correct for who sampled them, or weigh their tokens."""
        algorithm = self.algorithm
        if algorithm.advantage_clip is not None:
            raise ValueError(
                "a warm-up's KL counts all of its support as it is: algorithm.advantage_clip must be null; got "
                f"{algorithm.advantage_clip}. Leave it out."
            )
        if algorithm.loss != "divergence" or algorithm.normalisation is not Normalisation.distilled:
            raise ValueError(
                "a warm-up minimises a KL over the tokens that have one: algorithm.loss must be divergence, and "
                f"algorithm.normalisation distilled; got {algorithm.loss} and {algorithm.normalisation.value}. Leave them out."
            )
        plain = (None, None, Granularity.logits, 0.0, 0.0, QuestionWeight.none)
        found = (
            algorithm.rollout_clip,
            algorithm.pointwise_clip,
            algorithm.granularity,
            algorithm.entropy_weight,
            algorithm.future_credit,
            algorithm.question_weight,
        )
        if found != plain:
            raise ValueError(
                "a warm-up's KL counts every token of the plain rows alike, over all of its support: algorithm.rollout_clip and "
                "algorithm.pointwise_clip must be null, algorithm.granularity logits, algorithm.entropy_weight and "
                f"algorithm.future_credit 0, algorithm.question_weight none; got {found[0]}, {found[1]}, {found[2].value}, "
                f"{found[3]}, {found[4]} and {found[5].value}. Leave algorithm=warmup, and give algorithm.hindsight alone."
            )
