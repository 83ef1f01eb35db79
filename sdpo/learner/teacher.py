"""Whose weights does the teacher have? The policy's own, its first ones, their moving average, a copy, a mixture, or another
model's.

The average is kept in fp32, laid out as the optimizer's own shards, and follows the optimizer's fp32 master weights. In bf16 a
step of 1e-6 is lost in rounding. After 400 such steps an in-place bf16 average has lost the direction of the true movement
(tests/learner/test_average.py). For the forward it is cast into a copy of the model in the compute type. With LoRA it is cast
into a second set of adapters, and the base without adapters is the frozen teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, distributed, nn
from transformers import PreTrainedModel

from sdpo.learner.forward import response_hidden
from sdpo.learner.shards import Shards
from sdpo.types import Pack


class Run(Protocol):
    """How a model is called: straight, or through the DeepSpeed engine that has its parameters in parts."""

    def __call__(self, compute: Callable[[PreTrainedModel], Tensor]) -> Tensor: ...


class TeacherModel:
    """A model that scores and is not trained."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        weight: float = 1.0,
        adapter: str | None = None,
        mode: Callable[[], AbstractContextManager[None]] = nullcontext,
        run: Run | None = None,
    ) -> None:
        """``weight`` is that of its logits in the teacher's. ``mode`` gives the context that it runs in. ``adapter`` is
        the one that is active then, where the model has adapters, if any."""
        self.model, self.weight, self.adapter = model, weight, adapter
        self._mode, self.run = mode, run

    @torch.no_grad()
    def hidden(self, pack: Pack, team: distributed.ProcessGroup | None) -> Tensor:
        """[M, H] the last hidden states that predict the pack's response tokens, all of them on every rank of the team."""

        def compute(model: PreTrainedModel) -> Tensor:
            hidden_mH, mine_m = response_hidden(model, pack, team)
            if team is None:
                return hidden_mH
            hidden_MH = hidden_mH.new_zeros(len(pack.predicts_N), hidden_mH.shape[1])
            hidden_MH[mine_m.to(hidden_mH.device)] = hidden_mH
            distributed.all_reduce(hidden_MH, group=team)
            return hidden_MH

        return self.ask(compute)

    def ask(self, compute: Callable[[PreTrainedModel], Tensor]) -> Tensor:
        """What ``compute`` returns of the model."""
        with self._mode():
            return compute(self.model) if self.run is None else self.run(compute)


class Average:
    """average ← (1 - rate)·average + rate·policy, once a step, in fp32 shards."""

    def __init__(self, shards: Shards, ema_copy: Sequence[nn.Parameter], rate: float, *, on_host: bool) -> None:
        """``ema_copy`` are the parameters that hold the average in the compute type, in the order of the trained ones."""
        self._shards, self._ema_copy, self._rate = shards, ema_copy, rate
        self.flats = [flat.detach().to("cpu" if on_host else flat.device, copy=True) for flat in shards.flats]

    @torch.no_grad()
    def follow(self) -> None:
        """Follow a step of the policy. At a rate of 0 the average does not move until it is refreshed."""
        if self._rate == 0.0:
            return
        for average, master in zip(self.flats, self._shards.flats, strict=True):
            average.lerp_(master.detach().to(average.device), self._rate)
        self.publish()

    @torch.no_grad()
    def refresh(self) -> None:
        """average ← policy."""
        for average, master in zip(self.flats, self._shards.flats, strict=True):
            average.copy_(master.detach())
        self.publish()

    def publish(self) -> None:
        """Copy the average as it is into the ema_copy."""
        self._shards.publish_to(self._ema_copy, self.flats)


class Teacher:
    """What the student is compared with: the weighted sum of its models' logits."""

    def __init__(self, models: Sequence[TeacherModel], average: Average | None = None) -> None:
        self.models, self.average = tuple(models), average

    def follow(self) -> None:
        """After a step of the policy."""
        if self.average is not None:
            self.average.follow()

    def refresh(self) -> None:
        """Become the policy as it is."""
        assert self.average is not None, "only a teacher with weights of its own can be refreshed"
        self.average.refresh()
