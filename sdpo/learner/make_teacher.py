"""The models whose logits make up the teacher of a policy."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from sdpo.config import AlgorithmConfig, LearnerConfig, SDPOConfig, TeacherKind
from sdpo.learner import model as models
from sdpo.learner.importing import import_deepspeed
from sdpo.learner.policy import Computes, Policy, deepspeed_config
from sdpo.learner.teacher import Average, Run, Teacher, TeacherModel


def make_teacher(
    policy: Policy, config: LearnerConfig, algorithm: AlgorithmConfig, model_path: str, teacher_path: str | None
) -> Teacher:
    """The teacher of a policy that has not been trained yet; ``teacher_path`` is an external one's."""
    if not isinstance(algorithm, SDPOConfig):
        return Teacher([])
    kind = algorithm.teacher.kind
    match kind:
        case TeacherKind.live:
            return Teacher([_live(policy)])
        case TeacherKind.frozen:
            return Teacher([frozen(policy, config, model_path)])
        case TeacherKind.trust_region:
            weight = algorithm.teacher.live_weight
            return Teacher([frozen(policy, config, model_path, weight=1.0 - weight), _live(policy, weight=weight)])
        case TeacherKind.external:
            assert teacher_path is not None
            return Teacher([_other(teacher_path, config, policy.device)])
        case TeacherKind.ema | TeacherKind.on_gain:
            if config.lora.rank:
                ema_copy = [teacher for _, teacher in models.teacher_adapters(policy.model)]
                mode = partial(models.using_adapter, policy.model, models.TEACHER)
                teacher_model = TeacherModel(policy.model, adapter=models.TEACHER, mode=mode, run=_asking(policy))
            else:
                teacher_model = _other(model_path, config, policy.device)
                ema_copy = list(teacher_model.model.parameters())
            rate = algorithm.teacher.ema_rate if kind is TeacherKind.ema else 0.0
            return Teacher([teacher_model], Average(policy.shards, ema_copy, rate, on_host=algorithm.teacher.offload))


def frozen(policy: Policy, config: LearnerConfig, model_path: str, *, weight: float = 1.0) -> TeacherModel:
    """The policy before its first update: with adapters its base, for free, else a model of its own."""
    if config.lora.rank:
        mode = partial(models.using_adapter, policy.model, None)
        return TeacherModel(policy.model, weight=weight, mode=mode, run=_asking(policy))
    return _other(model_path, config, policy.device, weight=weight)


def _live(policy: Policy, *, weight: float = 1.0) -> TeacherModel:
    return TeacherModel(policy.model, weight=weight, adapter=models.STUDENT, run=_asking(policy))


def _asking(policy: Policy) -> Run:
    return lambda compute: policy.run(lambda model, head: compute(model))


def _other(path: str, config: LearnerConfig, device: torch.device, *, weight: float = 1.0) -> TeacherModel:
    """A model of its own, which is never trained."""
    model = models.load(path, config, deepspeed_config(config))
    model.eval()
    model.requires_grad_(False)
    if config.zero_stage < 3:
        nn.Module.to(model, device)
        return TeacherModel(model, weight=weight)
    engine, *_ = import_deepspeed().initialize(model=Computes(model), config=deepspeed_config(config), dist_init_required=False)
    return TeacherModel(model, weight=weight, run=lambda compute: engine(lambda inner, head: compute(inner)))
