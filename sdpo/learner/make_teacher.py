"""The models whose logits make up the teacher of a policy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from sdpo.config import AlgorithmConfig, LearnerConfig
from sdpo.learner import model as models
from sdpo.learner.importing import import_deepspeed
from sdpo.learner.output import prove, read_rule, rule_of
from sdpo.learner.policy import Computes, Policy, deepspeed_config
from sdpo.learner.teacher import Average, Teacher, TeacherModel


def make_teacher(
    policy: Policy, config: LearnerConfig, algorithm: AlgorithmConfig, model_path: str, teacher_path: str | None
) -> Teacher:
    """The teacher of a policy that has not been trained yet; ``teacher_path`` is another model's."""
    if algorithm.taught_by is None:
        return Teacher([])
    parts = _Parts(policy, config, model_path, teacher_path)
    return Teacher(list(algorithm.taught_by.models(parts)), parts.kept)


@dataclass(slots=True)
class _Parts:
    """The models that a kind of teacher asks for (``sdpo.config.TeacherParts``)."""

    policy: Policy
    config: LearnerConfig
    model_path: str
    teacher_path: str | None
    kept: Average | None = None
    """The average that one of them follows by."""

    def now(self, *, weight: float = 1.0, is_hinted: bool = True) -> TeacherModel:
        policy = self.policy
        return TeacherModel(
            policy.model, rule=policy.rule, weight=weight, is_hinted=is_hinted, adapter=models.STUDENT, run=policy.ask
        )

    def start(self, *, weight: float = 1.0, is_hinted: bool = True) -> TeacherModel:
        model = frozen(self.policy, self.config, self.model_path, weight=weight)
        model.is_hinted = is_hinted
        return model

    def average(self, *, rate: float, on_host: bool, every: int = 1) -> TeacherModel:
        policy = self.policy
        if self.config.lora.rank:
            copy = [teacher for _, teacher in models.teacher_adapters(policy.model)]
            mode = partial(models.using_adapter, policy.model, models.TEACHER)
            teacher_model = TeacherModel(policy.model, rule=policy.rule, adapter=models.TEACHER, mode=mode, run=policy.ask)
        else:
            teacher_model = _copy(policy, self.config, self.model_path)
            copy = list(teacher_model.model.parameters())
        self.kept = Average(policy.shards, copy, rate, on_host=on_host, every=every)
        return teacher_model

    def other(self) -> TeacherModel:
        assert self.teacher_path is not None, "whoever has another model is started with its path"
        teacher_model = _other(self.teacher_path, self.config, self.policy.device)
        model, run = teacher_model.model, teacher_model.ask
        teacher_model.rule = read_rule(model, run)
        prove(model, teacher_model.rule, run)
        return teacher_model


def frozen(policy: Policy, config: LearnerConfig, model_path: str, *, weight: float = 1.0) -> TeacherModel:
    """The policy before its first update: with adapters its base, for free, else a model of its own."""
    if config.lora.rank:
        mode = partial(models.using_adapter, policy.model, None)
        return TeacherModel(policy.model, rule=policy.rule, weight=weight, mode=mode, run=policy.ask)
    return _copy(policy, config, model_path, weight=weight)


def _copy(policy: Policy, config: LearnerConfig, model_path: str, *, weight: float = 1.0) -> TeacherModel:
    """The policy's own model once more."""
    teacher_model = _other(model_path, config, policy.device, weight=weight)
    teacher_model.rule = rule_of(teacher_model.model, policy.rule)
    return teacher_model


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
