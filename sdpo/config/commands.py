"""The other commands' configs, and the names under which hydra's YAML files find the schemas."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import cache

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from sdpo.config.algorithm import FullSupport, GRPOConfig, SDPOConfig, TopSupport
from sdpo.config.cluster import ClusterConfig
from sdpo.config.hindsight import HindsightConfig
from sdpo.config.kinds import register_installed_teachers
from sdpo.config.kubernetes import KubernetesConfig
from sdpo.config.launcher import SlurmLauncherConfig
from sdpo.config.machines import Dtype, LearnerConfig, RolloutConfig, SandboxConfig
from sdpo.config.native import native_dtype
from sdpo.config.routing import ROUTINGS
from sdpo.config.rules import at_least, finite_throughout, probability, seed_within
from sdpo.config.run import Config, EnvConfig, ModelConfig, SamplingConfig
from sdpo.config.schedule import SCHEDULES
from sdpo.config.solving import DiscoveryConfig, SolveConfig
from sdpo.config.teacher import teacher_class
from sdpo.config.tracking import TrackingConfig
from sdpo.config.warmup import WarmupConfig
from sdpo.plugins.seams import TEACHERS


class ExportedWeights(Enum):
    """Which of a checkpoint's weights."""

    policy = "policy"
    average = "average"
    """The teacher's moving average; often the better model."""


@dataclass
class EvaluateConfig:
    """``sdpo evaluate``: a checkpoint, or a model as it is, on an environment's held-out tasks."""

    checkpoint: str | None = None
    """A checkpoint folder of a run; None: the model itself."""
    seed: int = 0
    """Seed of all draws."""
    k: int = 4
    """Attempts a task."""
    num_tasks: int = 48
    """Held-out tasks, at most."""
    temperature: float = 0.6
    """Sampling temperature; 0: greedy."""
    top_p: float = 0.95
    """Share of the probability that is sampled from, the most probable tokens first."""
    lift: bool = False
    """Measure how much better the model answers under hindsight prompts: one more answer for each attempt with a hint."""
    quiet: bool = False
    """No live view: a line every half minute."""
    logs_dir: str = "runs/evaluate"
    """Folder of the engines' output."""
    model: ModelConfig = field(default_factory=ModelConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    hindsight: HindsightConfig = field(default_factory=HindsightConfig)
    """For ``lift`` alone."""

    @property
    def hindsight_tokens(self) -> int:
        """Tokens of the longest hindsight prompt; 0 where none is asked."""
        return self.hindsight.max_prompt_tokens if self.lift else 0

    def __post_init__(self) -> None:
        finite_throughout(self)
        seed_within(self.seed)
        at_least("k", self.k, 1, "a task needs an attempt")
        if self.lift:
            at_least("k", self.k, self.hindsight.least_attempts, "lift compares one half of a task's attempts with the other")
            at_least(
                "hindsight.max_prompt_tokens",
                self.hindsight.max_prompt_tokens,
                self.sampling.max_prompt_tokens,
                "the hindsight prompt repeats the question",
            )
            if not self.hindsight.is_measurable:
                raise ValueError(
                    "lift=true needs hints that are made from attempts; got hindsight.choice="
                    f"{self.hindsight.choice.value}. Choose another, or lift=false."
                )
        at_least("num_tasks", self.num_tasks, 1, "an evaluation needs a task")
        at_least("temperature", self.temperature, 0.0, "0 is greedy")
        probability("top_p", self.top_p)


@dataclass
class ReplayConfig:
    """``sdpo replay``: an update that a run could not take, through the learner alone."""

    batch: str = MISSING
    """``runs/NAME/skipped/step_NNNNNN-update_N.pt``"""
    checkpoint: str | None = None
    """Weights to replay it on; None: the run's newest from before the update, or the model as it is."""
    num_threads: int | None = None
    """CPU threads; None: all cores."""


@dataclass
class ExportConfig:
    """``sdpo export``: a checkpoint as a plain Hugging Face folder."""

    checkpoint: str = MISSING
    """``runs/NAME/checkpoints/step_NNNNNN``"""
    to: str = MISSING
    """The folder to make; it must not be there."""
    weights: ExportedWeights = ExportedWeights.policy
    """``policy``, or ``average`` for the teacher's."""
    dtype: Dtype | None = None
    """Type of the weights; None: as it was trained."""


@cache
def register() -> None:
    """Put the schemas where hydra's YAML files name them, and what they ask of the machine; once a process."""
    OmegaConf.register_new_resolver("native_dtype", native_dtype, replace=True)
    store = ConfigStore.instance()
    store.store(name="config_schema", node=Config)
    store.store(name="evaluate_schema", node=EvaluateConfig)
    store.store(name="replay_schema", node=ReplayConfig)
    store.store(name="export_schema", node=ExportConfig)
    store.store(name="warmup_schema", node=WarmupConfig)
    store.store(name="solve_schema", node=SolveConfig)
    store.store(name="discovery_schema", node=DiscoveryConfig)
    groups: dict[str, dict[str, type]] = {
        "hydra/launcher": {"slurm": SlurmLauncherConfig},
        "algorithm": {"sdpo_schema": SDPOConfig, "grpo_schema": GRPOConfig},
        "algorithm/teacher": {name: teacher_class(name) for name in TEACHERS.built_in},
        "algorithm/support": {"top": TopSupport, "full": FullSupport},
        "algorithm/routing": dict(ROUTINGS),
        "model": {"model_schema": ModelConfig},
        "env": {"env_schema": EnvConfig},
        "learner": {"learner_schema": LearnerConfig},
        "learner/schedule": dict(SCHEDULES),
        "rollout": {"rollout_schema": RolloutConfig},
        "cluster": {"cluster_schema": ClusterConfig, "kubernetes_schema": KubernetesConfig},
        "tracking": {"tracking_schema": TrackingConfig},
    }
    for group, schemas in groups.items():
        for name, node in schemas.items():
            store.store(group=group, name=name, node=node)
    register_installed_teachers()
