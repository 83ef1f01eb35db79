"""Every knob once: its default, its unit and its reason.

Hydra composes these dataclasses from ``conf/``, whose YAML files hold only deviations, and refuses unknown keys and wrong types.
``OmegaConf.to_object`` then builds them, which runs the cross-field rules in ``__post_init__``. Nothing here imports torch.
The paper is arXiv 2601.20802.
"""

from __future__ import annotations

from sdpo.config.algorithm import (
    AlgorithmConfig,
    ClipSide,
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
    Truncated,
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
from sdpo.config.policy_gradient import Deviation, LossMean, PolicyGradientConfig, RatioLevel, RolloutCorrection
from sdpo.config.routing import Auxiliary, Blend, ByGroup, ByHint, BySuccess, BySuccessAndHint, RoutingConfig
from sdpo.config.run import (
    BatchConfig,
    CheckpointConfig,
    Config,
    EnvConfig,
    ModelConfig,
    Resume,
    SamplingConfig,
    TaskOrderConfig,
)
from sdpo.config.schedule import ConstantSchedule, CosineSchedule, LinearSchedule, ScheduleConfig
from sdpo.config.solving import BudgetConfig, DiscoveryConfig, HardSetConfig, SearchConfig, SolveConfig
from sdpo.config.teacher import (
    AnchoredTeacher,
    EmaTeacher,
    ExternalTeacher,
    FrozenTeacher,
    LiveTeacher,
    OnGainTeacher,
    PeriodicTeacher,
    TeacherConfig,
    TeacherParts,
    TrustRegionTeacher,
)
from sdpo.config.tracking import MlflowConfig, TrackingConfig, WandbConfig, WandbMode
from sdpo.config.warmup import PairsConfig, WarmupConfig

__all__ = [
    "AlgorithmConfig",
    "AllocationKind",
    "AnchoredTeacher",
    "Auxiliary",
    "BatchConfig",
    "Blend",
    "BudgetConfig",
    "ByGroup",
    "ByHint",
    "BySuccess",
    "BySuccessAndHint",
    "CheckpointConfig",
    "ClipSide",
    "ClusterConfig",
    "Config",
    "ConstantSchedule",
    "CosineSchedule",
    "Deviation",
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
    "LinearSchedule",
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
    "PeriodicTeacher",
    "Placement",
    "PolicyGradientConfig",
    "QuestionWeight",
    "RatioLevel",
    "ReplayConfig",
    "Response",
    "Resume",
    "RolloutConfig",
    "RolloutCorrection",
    "RoutingConfig",
    "SDPOConfig",
    "SamplingConfig",
    "SandboxConfig",
    "SandboxIsolation",
    "ScheduleConfig",
    "SearchConfig",
    "SlurmLauncherConfig",
    "SolveConfig",
    "SupportConfig",
    "SupportKind",
    "TaintEffect",
    "TaskOrderConfig",
    "TeacherConfig",
    "TeacherParts",
    "TolerationConfig",
    "TolerationOperator",
    "TopSupport",
    "TrackingConfig",
    "Truncated",
    "TrustRegionTeacher",
    "WandbConfig",
    "WandbMode",
    "WarmupConfig",
    "register",
]
