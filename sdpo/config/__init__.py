"""Every knob once: its default, its unit and its reason.

Hydra composes these dataclasses from ``conf/``, whose YAML files hold only deviations, and refuses unknown keys and wrong types.
``OmegaConf.to_object`` then builds them, which runs the cross-field rules in ``__post_init__``. Nothing here imports torch.
The paper is arXiv 2601.20802.
"""

from __future__ import annotations

from sdpo.config.algorithm import (
    AlgorithmConfig,
    FilterConfig,
    FullSupport,
    Granularity,
    GRPOConfig,
    Normalisation,
    OnLowLift,
    QuestionWeight,
    SDPOConfig,
    SupportConfig,
    SupportKind,
    TopSupport,
)
from sdpo.config.cluster import AllocationKind, ClusterConfig, Placement
from sdpo.config.commands import EvaluateConfig, ExportConfig, ExportedWeights, ReplayConfig, register
from sdpo.config.evaluation import EvaluationConfig, LiftSchedule
from sdpo.config.guards import Guard, GuardsConfig, Response
from sdpo.config.hindsight import HindsightConfig, HintChoice
from sdpo.config.kubernetes import KubernetesConfig, TaintEffect, TolerationConfig, TolerationOperator
from sdpo.config.launcher import SlurmLauncherConfig
from sdpo.config.machines import (
    Dtype,
    LearnerConfig,
    LoraConfig,
    Offload,
    PackingChoice,
    RolloutConfig,
    SandboxConfig,
    SandboxIsolation,
)
from sdpo.config.policy_gradient import LossMean, PolicyGradientConfig, RatioLevel
from sdpo.config.routing import Blend, ByGroup, ByHint, BySuccess, RoutingConfig
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
from sdpo.config.teacher import (
    EmaTeacher,
    ExternalTeacher,
    FrozenTeacher,
    LiveTeacher,
    OnGainTeacher,
    TeacherConfig,
    TeacherParts,
    TrustRegionTeacher,
)
from sdpo.config.tracking import MlflowConfig, TrackingConfig, WandbConfig, WandbMode
from sdpo.config.warmup import PairsConfig, WarmupConfig

__all__ = [
    "AlgorithmConfig",
    "AllocationKind",
    "BatchConfig",
    "Blend",
    "BudgetConfig",
    "ByGroup",
    "ByHint",
    "BySuccess",
    "CheckpointConfig",
    "ClusterConfig",
    "Config",
    "DiscoveryConfig",
    "Dtype",
    "EmaTeacher",
    "EnvConfig",
    "EvaluateConfig",
    "EvaluationConfig",
    "ExportConfig",
    "ExportedWeights",
    "ExternalTeacher",
    "FilterConfig",
    "FrozenTeacher",
    "FullSupport",
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
    "LiveTeacher",
    "LoraConfig",
    "LossMean",
    "MlflowConfig",
    "ModelConfig",
    "Normalisation",
    "Offload",
    "OnGainTeacher",
    "OnLowLift",
    "PackingChoice",
    "PairsConfig",
    "Placement",
    "PolicyGradientConfig",
    "QuestionWeight",
    "RatioLevel",
    "ReplayConfig",
    "Response",
    "Resume",
    "RolloutConfig",
    "RoutingConfig",
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
    "TeacherParts",
    "TolerationConfig",
    "TolerationOperator",
    "TopSupport",
    "TrackingConfig",
    "TrustRegionTeacher",
    "WandbConfig",
    "WandbMode",
    "WarmupConfig",
    "register",
]
