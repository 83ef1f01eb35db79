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

import torch
from torch import Tensor, distributed, nn
from transformers import PreTrainedModel

from sdpo.learner.forward import response_hidden
from sdpo.learner.output import Run
from sdpo.learner.shards import Shards
from sdpo.objectives.logits import PLAIN, HeadRule
from sdpo.types import Pack


class TeacherModel:
    """A model that scores and is not trained."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        rule: HeadRule = PLAIN,
        weight: float = 1.0,
        is_hinted: bool = True,
        adapter: str | None = None,
        mode: Callable[[], AbstractContextManager[None]] = nullcontext,
        run: Run | None = None,
    ) -> None:
        """``rule`` is how the model makes logits, ``weight`` that of its logits in the teacher's. ``is_hinted=False``: it sees
        the student's prompts. ``mode`` gives the context that it runs in. ``adapter`` is the one that is active then, where the
        model has adapters, if any."""
        self.model, self.rule, self.weight, self.is_hinted, self.adapter = model, rule, weight, is_hinted, adapter
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
        """What ``compute`` finds on the model; under ZeRO 3 all ranks must call."""
        with self._mode():
            return compute(self.model) if self.run is None else self.run(compute)


class Average:
    """average ← (1 - rate)·average + rate·policy, after every ``every``-th step, in fp32 shards."""

    def __init__(self, shards: Shards, ema_copy: Sequence[nn.Parameter], rate: float, *, on_host: bool, every: int = 1) -> None:
        """``ema_copy`` are the parameters that hold the average in the compute type, in the order of the trained ones."""
        self._shards, self._ema_copy, self._rate, self._every = shards, ema_copy, rate, every
        self.flats = [flat.detach().to("cpu" if on_host else flat.device, copy=True) for flat in shards.flats]

    @torch.no_grad()
    def follow(self, step: int, *, is_moved: bool) -> None:
        """Follow the policy after ``step`` finished steps, where it is the turn of that step.

        At a rate of 0 the average does not move until it is refreshed. ``is_moved``: the step has moved the policy. If it has
        not, an average that follows every step does not either; one whose turn comes seldom still has earlier steps to follow.
        """
        if self._rate == 0.0 or step % self._every or not (is_moved or self._every > 1):
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

    def follow(self, step: int, *, is_moved: bool) -> None:
        """After ``step`` finished steps of the policy, the last of which has moved it, or not."""
        if self.average is not None:
            self.average.follow(step, is_moved=is_moved)

    def refresh(self) -> None:
        """Become the policy as it is."""
        assert self.average is not None, "only a teacher with weights of its own can be refreshed"
        self.average.refresh()
