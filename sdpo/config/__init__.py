"""Every knob once: its default, its unit and its reason.

Hydra composes these dataclasses from ``conf/`` (whose YAML files hold only deviations), refuses unknown keys and wrong types,
and ``OmegaConf.to_object`` then builds them, which runs the cross-field rules in ``__post_init__``. Nothing here imports torch.
The paper is arXiv 2601.20802.
"""

from __future__ import annotations

from sdpo.config.algorithm import (
    AlgorithmConfig,
    Divergence,
    Granularity,
    GRPOConfig,
    HindsightConfig,
    HintChoice,
    LossMean,
    Normalisation,
    PolicyGradientConfig,
    RatioLevel,
    Routing,
    SDPOConfig,
    SupportConfig,
    SupportKind,
    TeacherConfig,
    TeacherKind,
)
from sdpo.config.commands import EvaluateConfig, ExportConfig, ExportedWeights, ReplayConfig, register
from sdpo.config.machines import (
    ClusterConfig,
    Dtype,
    LearnerConfig,
    LoraConfig,
    Offload,
    RolloutConfig,
    SandboxConfig,
    SandboxIsolation,
    TrackingConfig,
)
from sdpo.config.run import (
    BatchConfig,
    CheckpointConfig,
    Config,
    EnvConfig,
    EvaluationConfig,
    ModelConfig,
    Resume,
    SamplingConfig,
)
from sdpo.config.warmup import PairsConfig, WarmupConfig

__all__ = [
    "AlgorithmConfig",
    "BatchConfig",
    "CheckpointConfig",
    "ClusterConfig",
    "Config",
    "Divergence",
    "Dtype",
    "EnvConfig",
    "EvaluateConfig",
    "EvaluationConfig",
    "ExportConfig",
    "ExportedWeights",
    "GRPOConfig",
    "Granularity",
    "HindsightConfig",
    "HintChoice",
    "LearnerConfig",
    "LoraConfig",
    "LossMean",
    "ModelConfig",
    "Normalisation",
    "Offload",
    "PairsConfig",
    "PolicyGradientConfig",
    "RatioLevel",
    "ReplayConfig",
    "Resume",
    "RolloutConfig",
    "Routing",
    "SDPOConfig",
    "SamplingConfig",
    "SandboxConfig",
    "SandboxIsolation",
    "SupportConfig",
    "SupportKind",
    "TeacherConfig",
    "TeacherKind",
    "TrackingConfig",
    "WarmupConfig",
    "register",
]
