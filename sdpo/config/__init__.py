"""Every knob once: its default, its unit and its reason.

Hydra composes these dataclasses from ``conf/``, whose YAML files hold only deviations, and refuses unknown keys and wrong types.
``OmegaConf.to_object`` then builds them, which runs the cross-field rules in ``__post_init__``. Nothing here imports torch.
The paper is arXiv 2601.20802.
"""

from __future__ import annotations

from sdpo.config.algorithm import (
    AlgorithmConfig,
    FilterConfig,
    Granularity,
    GRPOConfig,
    Normalisation,
    OnLowLift,
    QuestionWeight,
    Routing,
    SDPOConfig,
    SupportConfig,
    SupportKind,
)
from sdpo.config.cluster import AllocationKind, ClusterConfig, Placement
from sdpo.config.commands import EvaluateConfig, ExportConfig, ExportedWeights, ReplayConfig, register
from sdpo.config.evaluation import EvaluationConfig, LiftSchedule
from sdpo.config.guards import Guard, GuardsConfig, Response
from sdpo.config.kubernetes import KubernetesConfig, TaintEffect, TolerationConfig, TolerationOperator
from sdpo.config.launcher import SlurmLauncherConfig
from sdpo.config.machines import (
    Dtype,
    LearnerConfig,
    LoraConfig,
    Offload,
    RolloutConfig,
    SandboxConfig,
    SandboxIsolation,
    TrackingConfig,
)
from sdpo.config.policy_gradient import LossMean, PolicyGradientConfig, RatioLevel
from sdpo.config.run import (
    BatchConfig,
    CheckpointConfig,
    Config,
    EnvConfig,
    ModelConfig,
    Resume,
    SamplingConfig,
)
from sdpo.config.solving import BudgetConfig, DiscoveryConfig, HardSetConfig, SearchConfig, SolveConfig
from sdpo.config.teacher import HindsightConfig, HintChoice, TeacherConfig, TeacherKind
from sdpo.config.tracking import MlflowConfig, WandbConfig, WandbMode
from sdpo.config.warmup import PairsConfig, WarmupConfig

__all__ = [
    "AlgorithmConfig",
    "AllocationKind",
    "BatchConfig",
    "BudgetConfig",
    "CheckpointConfig",
    "ClusterConfig",
    "Config",
    "DiscoveryConfig",
    "Dtype",
    "EnvConfig",
    "EvaluateConfig",
    "EvaluationConfig",
    "ExportConfig",
    "ExportedWeights",
    "FilterConfig",
    "GRPOConfig",
    "Granularity",
    "Guard",
    "GuardsConfig",
    "HardSetConfig",
    "HindsightConfig",
    "HintChoice",
    "KubernetesConfig",
    "LearnerConfig",
    "LiftSchedule",
    "LoraConfig",
    "LossMean",
    "MlflowConfig",
    "ModelConfig",
    "Normalisation",
    "Offload",
    "OnLowLift",
    "PairsConfig",
    "Placement",
    "PolicyGradientConfig",
    "QuestionWeight",
    "RatioLevel",
    "ReplayConfig",
    "Response",
    "Resume",
    "RolloutConfig",
    "Routing",
    "SDPOConfig",
    "SamplingConfig",
    "SandboxConfig",
    "SandboxIsolation",
    "SearchConfig",
    "SlurmLauncherConfig",
    "SolveConfig",
    "SupportConfig",
    "SupportKind",
    "TaintEffect",
    "TeacherConfig",
    "TeacherKind",
    "TolerationConfig",
    "TolerationOperator",
    "TrackingConfig",
    "WandbConfig",
    "WandbMode",
    "WarmupConfig",
    "register",
]
