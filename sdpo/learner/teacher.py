"""Whose weights does the teacher have? The policy's own, its first ones, or their moving average.

The average is kept in fp32 and taken from the optimizer's fp32 master weights: in bf16 a step of 1e-6 is lost in rounding
(measured over 400 such steps: an in-place bf16 average has cosine 0.57 with the true movement, an fp32 one 0.99). Each rank
keeps the average of its share of the parameters, and a copy of the whole in the compute type for the forward.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, distributed
from transformers import PreTrainedModel

from sdpo.config import TeacherConfig, TeacherKind

Master = Mapping[str, Tensor]
"""Parameters by name, fp32, whole, on every rank."""


class Teacher(Protocol):
    """A model that scores responses under the hindsight prompt."""

    @property
    def model(self) -> PreTrainedModel: ...

    @property
    def needs_master(self) -> bool:
        """Whether ``follow`` reads the fp32 weights (gathering them costs)."""
        ...

    def follow(self, master: Master) -> None:
        """After a step: the policy is now ``master``."""
        ...

    def state(self) -> dict[str, Tensor]:
        """This rank's share of what must survive a restart."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """What ``state`` gave on this rank. Raises ValueError if it is of another model or number of ranks."""
        ...


def make_teacher(policy: PreTrainedModel, config: TeacherConfig) -> Teacher:
    """The teacher of a policy that has not been trained yet."""
    match config.kind:
        case TeacherKind.live:
            return LiveTeacher(policy)
        case TeacherKind.frozen:
            return FrozenTeacher(policy)
        case TeacherKind.ema:
            return EmaTeacher(policy, config.ema_rate)


class LiveTeacher:
    """The policy itself."""

    needs_master = False

    def __init__(self, policy: PreTrainedModel) -> None:
        self.model = policy

    def follow(self, master: Master) -> None:
        """Nothing to do: it is the policy."""

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to restore."""


class FrozenTeacher(LiveTeacher):
    """The policy before its first update; made again from the model's files after a restart."""

    def __init__(self, policy: PreTrainedModel) -> None:
        super().__init__(_frozen_copy(policy))


class EmaTeacher:
    """average ← (1 - rate)·average + rate·policy, once a step."""

    needs_master = True

    def __init__(self, policy: PreTrainedModel, rate: float) -> None:
        self.model = _frozen_copy(policy)
        self._rate = rate
        self._parameters = dict(self.model.named_parameters())
        self._owners = _owners(self._parameters, _num_ranks())
        self._average = {
            name: parameter.detach().float().clone()
            for name, parameter in self._parameters.items()
            if self._owners[name] == _rank()
        }

    @torch.no_grad()
    def follow(self, master: Master) -> None:
        for name, average in self._average.items():
            average.lerp_(master[name].to(average.device), self._rate)
        self._refresh()

    def state(self) -> dict[str, Tensor]:
        return self._average

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        if state.keys() != self._average.keys():
            raise ValueError("the teacher's average must come from the same model on the same number of ranks; its names differ")
        for name, average in self._average.items():
            average.copy_(state[name])
        self._refresh()

    @torch.no_grad()
    def _refresh(self) -> None:
        """The copy in the compute type, on every rank, from the owners' averages."""
        for name, parameter in self._parameters.items():
            if name in self._average:
                parameter.copy_(self._average[name])
            if _num_ranks() > 1:
                distributed.broadcast(parameter, src=self._owners[name])


def _frozen_copy(policy: PreTrainedModel) -> PreTrainedModel:
    twin: PreTrainedModel = copy.deepcopy(policy)
    twin.eval()
    twin.requires_grad_(False)
    return twin


def _owners(parameters: Mapping[str, Tensor], num_ranks: int) -> dict[str, int]:
    """Which rank keeps the average of which parameter: largest first, each to the rank with the least."""
    load = [0] * num_ranks
    owners: dict[str, int] = {}
    for name, parameter in sorted(parameters.items(), key=lambda item: (-item[1].numel(), item[0])):
        owners[name] = load.index(min(load))
        load[owners[name]] += parameter.numel()
    return owners


def _rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def _num_ranks() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1
