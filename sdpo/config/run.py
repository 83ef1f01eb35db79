"""What a run is: its model, its tasks, its steps, and the rules that hold between the parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

from sdpo.config.algorithm import AlgorithmConfig, OnLowLift, QuestionWeight, SDPOConfig
from sdpo.config.cluster import ClusterConfig, Placement
from sdpo.config.evaluation import EvaluationConfig, LiftSchedule
from sdpo.config.guards import GuardsConfig, Response, refuse_senseless_response
from sdpo.config.hindsight import HindsightConfig, HintChoice
from sdpo.config.machines import LearnerConfig, RolloutConfig, SandboxConfig
from sdpo.config.rules import at_least, finite_throughout, folder_name, positive, seed_within
from sdpo.config.tracking import TrackingConfig
from sdpo.plugins.seams import TASK_ORDERS
from sdpo.types import Sampling


class Resume(Enum):
    """What to do with a run folder that is already there."""

    auto = "auto"
    """Continue it where it stopped; begin where there is none."""
    never = "never"
    """Refuse to touch it."""
    must = "must"
    """Refuse to begin anew."""


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
    """The environment: it gives the tasks and verifies the answers."""

    name: str = MISSING
    """An installed environment (``sdpo envs list``), ``module:Class`` or ``file.py:Class``."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the environment's class. Any, because OmegaConf knows no other word for it."""
    train_split: str = "train"
    heldout_split: str = "heldout"
    tasks_limit_s: float = 5.0
    """Seconds that ``tasks()`` may compute before it counts as endless; it may wait (for a disk, a network) 12 times that."""

    def __post_init__(self) -> None:
        positive("env.tasks_limit_s", self.tasks_limit_s)


@dataclass
class TaskOrderConfig:
    """Which tasks a step asks."""

    name: str = "epochs"
    """``epochs``: all tasks, again and again, each time in another order. ``adaptive``: rather those whose success is neither 0
    nor 1. Or a task order of your own: module:Class, path/to/file.py:Class, or an installed package's name."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of its class."""

    def __post_init__(self) -> None:
        TASK_ORDERS.check("batch.order.name", self.name)


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
    order: TaskOrderConfig = field(default_factory=TaskOrderConfig)

    def __post_init__(self) -> None:
        at_least("batch.num_tasks", self.num_tasks, 1, "a step needs a task")
        at_least("batch.group_size", self.group_size, 1, "a task needs an attempt")
        at_least("batch.micro_batch_tokens", self.micro_batch_tokens, 1, "a forward pass needs a token")
        if self.tasks_per_update is not None:
            at_least("batch.tasks_per_update", self.tasks_per_update, 1, "an update needs a task")
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
    """Longest prompt; a task with a longer one is refused."""
    max_response_tokens: int = 64
    """Longest response, all turns together and the environment's replies included."""
    max_turns: int = 1
    """Turns of the policy; over 1 the environment is asked for a ``reply`` after each but the last."""

    def __post_init__(self) -> None:
        if not self.temperature > 0.0:
            raise ValueError(
                f"sampling.temperature must be positive (learning needs attempts that differ); got {self.temperature}."
            )
        at_least("sampling.max_prompt_tokens", self.max_prompt_tokens, 1, "a prompt needs a token")
        at_least("sampling.max_response_tokens", self.max_response_tokens, 1, "a response needs a token")
        at_least("sampling.max_turns", self.max_turns, 1, "the policy speaks at least once")

    def drawn(self, *, temperature: float | None = None, top_p: float = 1.0) -> Sampling:
        """What an engine is asked for: training's distribution, or with another temperature and truncation, an evaluation's."""
        return Sampling(
            temperature=self.temperature if temperature is None else temperature,
            top_p=top_p,
            max_response_tokens=self.max_response_tokens,
            max_turns=self.max_turns,
        )


@dataclass
class CheckpointConfig:
    """What survives a kill."""

    every: int = 1
    """Steps between checkpoints: a kill loses at most that many. The last step always has one."""
    keep: int = 2
    """Newest checkpoints kept."""
    keep_best: int = 1
    """Checkpoints kept besides, those with the highest held-out success among the ones that were evaluated; where nothing is
    evaluated there is none."""

    def __post_init__(self) -> None:
        at_least("checkpoint.every", self.every, 1, "it counts steps")
        at_least("checkpoint.keep_best", self.keep_best, 0, "it counts checkpoints")
        at_least("checkpoint.keep", self.keep, 1, "without one there is nothing to resume from")

    def is_due(self, step: int, num_steps: int) -> bool:
        """Whether to save after ``step`` steps."""
        return step == num_steps or step % self.every == 0


@dataclass
class Config:
    """A training run."""

    seed: int = 0
    """Seed of all draws: tasks, attempts, hints."""
    num_steps: int = 10
    """Steps of the run; with the other defaults, what two CPU cores do in a quarter of an hour."""
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
    guards: GuardsConfig = field(default_factory=GuardsConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    @property
    def hindsight_answered(self) -> HindsightConfig | None:
        """The hindsight config of the prompts that the engine is asked when lift is measured; None where it never is."""
        if not isinstance(self.algorithm, SDPOConfig) or not self.algorithm.hindsight.is_measurable:
            return None
        is_measured = self.evaluation.num_tasks > 0 and self.evaluation.lift is not LiftSchedule.never
        return self.algorithm.hindsight if is_measured else None

    @property
    def max_model_tokens(self) -> int:
        """The longest prompt that the engine is asked, with its response."""
        hindsight = self.hindsight_answered
        prompt = max(self.sampling.max_prompt_tokens, 0 if hindsight is None else hindsight.max_prompt_tokens)
        return prompt + self.sampling.max_response_tokens

    def _refuse_lone_attempts(self) -> None:
        """Raises ValueError where a single attempt at a task teaches nothing."""
        algorithm = self.algorithm
        has_baseline = algorithm.policy_gradient.advantage == "batch"  # the whole step
        if not isinstance(algorithm, SDPOConfig):
            if not has_baseline:
                raise ValueError(
                    "batch.group_size must be at least 2 with algorithm=grpo (a lone attempt has no sibling to be compared "
                    f"with, so its advantage is always 0); got {self.batch.group_size}."
                )
            return
        if algorithm.has_policy_gradient and not has_baseline:
            raise ValueError(
                "batch.group_size must be at least 2 with a policy gradient (a lone attempt's advantage is "
                f"always 0); got {self.batch.group_size}."
            )
        if algorithm.question_weight is QuestionWeight.uncertainty:
            raise ValueError(
                "batch.group_size must be at least 2 with algorithm.question_weight=uncertainty (a lone attempt solves all "
                f"or nothing of its task, which weighs 0 either way); got {self.batch.group_size}."
            )
        hindsight = algorithm.hindsight
        has_others = hindsight.success_buffer or hindsight.sources
        if hindsight.choice is HintChoice.demonstration_only and not has_others:
            raise ValueError(
                "batch.group_size must be at least 2 with algorithm.hindsight.choice=demonstration_only (a lone attempt "
                f"has no sibling to learn from); got {self.batch.group_size}."
            )

    def __post_init__(self) -> None:
        if not isinstance(self.algorithm, AlgorithmConfig):
            raise ValueError(f"algorithm must be given, as SDPOConfig() or GRPOConfig(); got {self.algorithm!r}.")
        finite_throughout(self)
        seed_within(self.seed)
        at_least("num_steps", self.num_steps, 1, "a run takes a step")
        self.learner = self.learner.over(self.num_steps)
        if not self.name:
            environment = self.env.name.rpartition(":")[2].lower()
            self.name = f"{environment}-{self.algorithm.name}-{self.model.name}-s{self.seed}"
        folder_name(self.name, "run")
        if self.batch.group_size < 2:
            self._refuse_lone_attempts()
        if self.algorithm.policy_gradient.overlong_tokens > self.sampling.max_response_tokens:
            raise ValueError(
                "algorithm.policy_gradient.overlong_tokens must not exceed sampling.max_response_tokens (they are the last "
                f"before it); got {self.algorithm.policy_gradient.overlong_tokens} and {self.sampling.max_response_tokens}."
            )
        refuse_senseless_response(
            self.guards,
            self.algorithm,
            group_size=self.batch.group_size,
            keep_best=self.checkpoint.keep_best,
            evaluate_every=self.evaluation.every,
            save_every=self.checkpoint.every,
            sequence_parallel=self.learner.sequence_parallel,
        )
        wants_best = self.checkpoint.keep_best > 1 or self.guards.response is Response.stop_at_best
        if wants_best and self.evaluation.num_tasks == 0:
            raise ValueError(
                "a checkpoint.keep_best above 1 and guards.response=stop_at_best need evaluation.num_tasks of at least 1 (the "
                f"best is known by held-out success); got keep_best={self.checkpoint.keep_best}, "
                f"response={self.guards.response.value} and num_tasks=0."
            )
        answered, num_attempts = self.hindsight_answered, self.evaluation.num_attempts
        if answered is not None and num_attempts < answered.least_attempts:
            raise ValueError(
                f"evaluation.lift needs evaluation.num_attempts of at least {answered.least_attempts} with "
                f"algorithm.hindsight.choice={answered.choice.value} (a hint is made from one half of a task's attempts and "
                f"compared with the other); got {num_attempts}. Raise it, or set evaluation.lift=never."
            )
        if (
            isinstance(self.algorithm, SDPOConfig)
            and self.algorithm.on_low_lift is OnLowLift.refuse
            and self.hindsight_answered is None
        ):
            raise ValueError(
                "algorithm.on_low_lift=refuse needs a lift to look at; none is measured with "
                f"evaluation.lift={self.evaluation.lift.value}, evaluation.num_tasks={self.evaluation.num_tasks} and "
                f"algorithm.hindsight.choice={self.algorithm.hindsight.choice.value}. Have it measured, or set "
                "algorithm.on_low_lift=warn."
            )
        self.algorithm.refuse_split_rows(self.learner.sequence_parallel)
        hints = self.algorithm.hints
        if hints is not None and hints.success_buffer > 0 and not self.tracking.rollouts:
            raise ValueError(
                "algorithm.hindsight.success_buffer above 0 needs tracking.rollouts=true (a continued run reads the successes it "
                f"remembers from there); got success_buffer={hints.success_buffer} and rollouts=false."
            )
        if (
            self.algorithm.replacement_rounds > 0
            and self.rollout.staleness > 0
            and hints is not None
            and hints.success_buffer > 0
        ):
            raise ValueError(
                "algorithm.replacement_rounds above 0 with algorithm.hindsight.success_buffer above 0 needs rollout.staleness=0 "
                "(whether a group is distilled depends on what is remembered then, and a batch that is generated ahead does not "
                f"know that); got {self.rollout.staleness}. Set one of the three to 0."
            )
        if self.cluster.placement is Placement.colocated and self.rollout.staleness > 0:
            raise ValueError(
                "cluster.placement=colocated needs rollout.staleness=0 (where they share GPUs, engines rest while the learner "
                f"works); got {self.rollout.staleness}. Set it to 0, or give the engines GPUs of their own."
            )
        if hints is not None and hints.max_prompt_tokens < self.sampling.max_prompt_tokens:
            raise ValueError(
                "algorithm.hindsight.max_prompt_tokens must be at least sampling.max_prompt_tokens (the hindsight prompt "
                f"repeats the question); got {hints.max_prompt_tokens} and {self.sampling.max_prompt_tokens}."
            )
