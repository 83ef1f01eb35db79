"""One rank of the learner: the policy under DeepSpeed, its optimizer and its teacher. No Ray here; ``group.py`` is the shell.

DeepSpeed keeps the fp32 master weights and, with ZeRO stage 1 and bf16, accumulates gradients in fp32 over micro-batches. The
losses are already divided by the update's global counts, so gradients are summed over ranks, not averaged.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from transformers import PreTrainedModel

from sdpo.config import AlgorithmConfig, Dtype, LearnerConfig, Offload, SDPOConfig, TeacherKind
from sdpo.learner import model as models
from sdpo.learner import shard_files
from sdpo.learner.forward import response_hidden, tokens_here
from sdpo.learner.loss import SUMS, Anchors, Scale, micro_batch_loss
from sdpo.learner.shards import shards_of
from sdpo.learner.teacher import Average, Teacher, Voice
from sdpo.objectives.fused import Budget, score_tokens
from sdpo.objectives.logits import Logits
from sdpo.packing import pack_rows
from sdpo.types import MicroBatch, Pack, Update

T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a rank stands among the others."""

    rank: int
    num_ranks: int
    rendezvous: str
    """``tcp://host:port`` or ``file:///path`` that all ranks reach."""


class _Head(nn.Module):
    """The output embedding, asked for scores instead of logits: a module, so that ZeRO 3 has its weight whole while it is."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, hidden_nH: Tensor, score: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return score(hidden_nH, self.weight)


class _Computes(nn.Module):
    """Gives DeepSpeed's engine a forward that runs whatever it is handed on the model, and returns what that returns."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.head = _Head(models.head(model))

    def forward(self, compute: Callable[[PreTrainedModel, _Head], Tensor]) -> Tensor:
        return compute(self.model, self.head)


class DeepSpeedLearner:
    """Holds one rank's policy, optimizer and teacher."""

    def __init__(
        self,
        model_path: str,
        teacher_path: str | None,
        config: LearnerConfig,
        algorithm: AlgorithmConfig,
        scale: Scale,
        place: Place,
    ) -> None:
        """``teacher_path`` is an external teacher's. Returns once all ranks have met."""
        if not torch.cuda.is_available():
            os.environ["DS_ACCELERATOR"] = "cpu"
        os.environ["LOCAL_RANK"] = "0"  # DeepSpeed asks for it; a rank sees one device, its own
        import deepspeed

        if config.num_threads is not None:
            torch.set_num_threads(config.num_threads)
        self._config, self._scale, self.place = config, scale, place
        self.step = 0
        self.num_updates = 0
        self._anchors: dict[int, list[Anchors]] = {}
        self._meet(deepspeed)
        torch.manual_seed(place.rank)
        policy = models.load(model_path, config, _deepspeed_config(config))
        keeps_average = isinstance(algorithm, SDPOConfig) and algorithm.teacher.kind is TeacherKind.ema
        if config.lora.rank:
            models.add_adapters(policy, config.lora, of_teacher=keeps_average)
        if config.gradient_checkpointing:
            policy.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        policy.train()
        if config.zero_stage < 3:
            nn.Module.to(policy, self._device)
        self._policy = policy
        self._trained = {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}
        self._computes = _Computes(policy)
        self._optimizer = _adamw(list(self._trained.values()), config)
        self._engine, *_ = deepspeed.initialize(
            model=self._computes, optimizer=self._optimizer, config=_deepspeed_config(config), dist_init_required=False
        )
        self._shards = shards_of(self._engine.optimizer, self._trained)
        self._teacher = self._make_teacher(model_path, teacher_path, algorithm)
        self._reference = self._frozen(model_path) if algorithm.reference_kl else None

    def state_dict(self, *, wanted: bool = True) -> dict[str, Tensor]:
        """The policy as Hugging Face would save it, adapters merged; under ZeRO 3 all ranks must call."""
        return models.state_dict(self._policy, wanted=wanted)

    @torch.no_grad()
    def anchor(self, updates: Sequence[Update]) -> None:
        """Keep what the policy says before the step's first update. With a single update that is what it says in it: free."""
        is_first_of_many = len(updates) > 1
        if not is_first_of_many and self._reference is None:
            self._anchors = {}
            return
        self._anchors = {
            update.index: [self._anchored(batch, is_first_of_many) for batch in self._mine(update)] for update in updates
        }

    def update(self, update: Update, algorithm: AlgorithmConfig) -> dict[str, float]:
        """One optimizer step over this rank's micro-batches; the metrics are global, the same on every rank.

        A loss or gradient that is not finite changes nothing: the update is skipped and says so.
        """
        if not self._mine(update):
            return {"updates": 0.0, "updates_without_lesson": 1.0, "updates_skipped": 0.0}
        sums = self.backward(update, algorithm)
        rate = self._set_rate()
        norm = self._step()
        if not math.isfinite(norm):
            return {"updates": 0.0, "updates_without_lesson": 0.0, "updates_skipped": 1.0}
        self.num_updates += 1
        return self._metrics(update, sums, rate, norm)

    def backward(self, update: Update, algorithm: AlgorithmConfig) -> Tensor:
        """Accumulate the update's gradient, summed over ranks, without a step. ``SUMS`` over all ranks."""
        batches = self._mine(update)
        anchors = self._anchors.get(update.index, [Anchors(old_n=None, reference_n=None)] * len(batches))
        sums = torch.zeros(len(SUMS), dtype=torch.float64)
        for position, (batch, anchor) in enumerate(zip(batches, anchors, strict=True)):
            self._engine.set_gradient_accumulation_boundary(position == len(batches) - 1)
            loss = self._engine(partial(self._share_of_loss, batch, self._heard(batch.teacher), anchor, update, algorithm, sums))
            if not math.isfinite(float(loss.detach())):
                loss = loss * math.nan  # reaches every gradient, so that every rank skips
            self._engine.backward(loss * self.place.num_ranks)  # DeepSpeed averages over ranks; the loss is a share of a sum
        return self._total(sums)

    @torch.no_grad()
    def look(self, update: Update, algorithm: AlgorithmConfig) -> list[dict[str, float]]:
        """``SUMS`` of each of this rank's micro-batches, by name, without learning from them."""
        found = []
        for batch in self._mine(update):
            sums = torch.zeros(len(SUMS), dtype=torch.float64)
            nothing = Anchors(old_n=None, reference_n=None)
            self._computes(partial(self._share_of_loss, batch, self._heard(batch.teacher), nothing, update, algorithm, sums))
            found.append(dict(zip(SUMS, sums.tolist(), strict=True)))
        return found

    def finish_step(self) -> None:
        """The teacher follows the policy; the step counts as done."""
        self._anchors = {}
        self._teacher.follow()
        self.step += 1

    def save(self, folder: Path) -> None:
        """This rank's shards, moments, average and random state."""
        shard_files.save(folder, self.place.rank, self._shards, self._teacher.average)

    def restore(self, folder: Path, *, step: int, num_updates: int) -> None:
        """What ``save`` wrote, on any number of ranks. Raises ValueError where something is missing."""
        shard_files.restore(folder, self.place.rank, self._shards, self._teacher.average, num_updates)
        self.step, self.num_updates = step, num_updates

    def _meet(self, deepspeed: object) -> None:
        """Join the other ranks, and the team that shares rows with this one."""
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        timeout = timedelta(seconds=self._config.timeout_s)
        if not distributed.is_initialized():
            distributed.init_process_group(
                backend,
                init_method=self.place.rendezvous,
                rank=self.place.rank,
                world_size=self.place.num_ranks,
                timeout=timeout,
            )
        deepspeed.init_distributed(dist_backend=backend, verbose=False)  # type: ignore[attr-defined]
        self._device = torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")
        size = self._config.sequence_parallel
        teams = [list(range(first, first + size)) for first in range(0, self.place.num_ranks, size)]
        groups = [distributed.new_group(team, timeout=timeout) for team in teams] if size > 1 else []  # all ranks make all groups
        self._team = groups[self.place.rank // size] if groups else None

    def _make_teacher(self, model_path: str, teacher_path: str | None, algorithm: AlgorithmConfig) -> Teacher:
        if not isinstance(algorithm, SDPOConfig):
            return Teacher([])
        config = algorithm.teacher
        live = Voice(self._policy, run=self._asking(self._engine, self._computes))
        match config.kind:
            case TeacherKind.live:
                return Teacher([live])
            case TeacherKind.frozen:
                return Teacher([self._frozen(model_path)])
            case TeacherKind.trust_region:
                frozen = self._frozen(model_path)
                frozen.weight, live.weight = 1.0 - config.live_weight, config.live_weight
                return Teacher([frozen, live])
            case TeacherKind.external:
                assert teacher_path is not None
                return Teacher([self._other(teacher_path)])
            case TeacherKind.ema:
                if self._config.lora.rank:
                    twin = [teacher for _, teacher in models.teacher_adapters(self._policy)]
                    voice = Voice(self._policy, mood=partial(models.speaking_as, self._policy, models.TEACHER), run=live.run)
                else:
                    voice = self._other(model_path)
                    twin = list(voice.model.parameters())
                return Teacher([voice], Average(self._shards, twin, config.ema_rate, on_host=config.offload))

    def _frozen(self, model_path: str) -> Voice:
        """The policy before its first update."""
        if self._config.lora.rank:
            run = self._asking(self._engine, self._computes)
            return Voice(self._policy, mood=partial(models.speaking_as, self._policy, None), run=run)
        return self._other(model_path)

    def _other(self, path: str) -> Voice:
        """A model of its own, which is never trained."""
        import deepspeed

        settings = _deepspeed_config(self._config)
        model = models.load(path, self._config, settings)
        model.eval()
        model.requires_grad_(False)
        if self._config.zero_stage < 3:
            nn.Module.to(model, self._device)
            return Voice(model)
        computes = _Computes(model)
        engine, *_ = deepspeed.initialize(model=computes, config=settings, dist_init_required=False)
        return Voice(model, run=self._asking(engine, computes))

    def _asking(self, engine: nn.Module, computes: nn.Module) -> Callable[[Callable[[PreTrainedModel], Tensor]], Tensor]:
        """Run something on the model: under ZeRO 3 through the engine, whose hooks bring the parameters."""
        through = engine if self._config.zero_stage == 3 else computes
        return lambda compute: through(lambda model, head: compute(model))

    @torch.no_grad()
    def _anchored(self, batch: MicroBatch, is_first_of_many: bool) -> Anchors:
        def logprobs(model: PreTrainedModel, head: _Head) -> Tensor:
            hidden_nH, mine_n = response_hidden(model, batch.student, self._team)
            return head(hidden_nH, partial(self._logprobs, batch, mine_n))

        old_n = (self._engine if self._config.zero_stage == 3 else self._computes)(logprobs) if is_first_of_many else None
        reference_n = None
        if self._reference is not None:
            mine_n = tokens_here(batch.student, self._team)
            hidden_NH = self._reference.hidden(batch.student, self._team)
            with models.gathered([models.head(self._reference.model)]):
                reference_n = self._logprobs(
                    batch, mine_n, hidden_NH[mine_n.to(hidden_NH.device)], models.head(self._reference.model)
                )
        return Anchors(old_n=old_n, reference_n=reference_n)

    def _logprobs(self, batch: MicroBatch, mine_n: Tensor, hidden_nH: Tensor, head_VH: Tensor) -> Tensor:
        ids_n = batch.response_ids_N[mine_n].to(self._device)
        budget = Budget(temperature=self._scale.temperature, chunk_mib=self._config.logits_chunk_mib)
        return score_tokens(hidden_nH, head_VH, ids_n, budget=budget).student_N

    def _heard(self, pack: Pack) -> list[Tensor]:
        """What each of the teacher's voices says of the pack; nothing where there is nothing to be said."""
        if not len(pack.ids_T):
            if self._config.zero_stage < 3:
                return []
            pack = pack_rows([[0]], [[]])  # parameters come by collectives, in which every rank takes part
        return [voice.hidden(pack, self._team) for voice in self._teacher.voices]

    def _share_of_loss(
        self,
        batch: MicroBatch,
        heard: Sequence[Tensor],
        anchors: Anchors,
        update: Update,
        algorithm: AlgorithmConfig,
        sums: Tensor,
        model: PreTrainedModel,
        head: _Head,
    ) -> Tensor:
        """The micro-batch's loss; its sums are added to ``sums``."""
        hidden_nH, mine_n = response_hidden(model, batch.student, self._team)

        def score(hidden_nH: Tensor, head_VH: Tensor) -> Tensor:
            heads = [models.head(voice.model) for voice in self._teacher.voices]
            others = [weight for weight in heads if weight is not head.weight] if heard else []
            with models.gathered(others):
                teacher = [
                    Logits(hidden_NH=hidden_MH, head_VH=weight.detach(), weight=voice.weight)
                    for voice, weight, hidden_MH in zip(self._teacher.voices, heads, heard, strict=bool(heard))
                ]
                loss, part = micro_batch_loss(
                    hidden_nH,
                    head_VH,
                    teacher,
                    batch,
                    mine_n,
                    anchors,
                    update,
                    algorithm,
                    self._scale,
                    self._config.logits_chunk_mib,
                )
            sums.add_(part)
            return loss

        loss: Tensor = head(hidden_nH, score)
        return loss

    def _mine(self, update: Update) -> tuple[MicroBatch, ...]:
        """An update that was cut to this rank's part holds nobody else's."""
        alone = len(update.micro_batches) == 1
        return update.micro_batches[0 if alone else self.place.rank // self._config.sequence_parallel]

    def _step(self) -> float:
        """The optimizer's step, skipped where the gradient is not finite; the norm of the gradient before clipping."""
        if self._config.zero_stage == 0:  # DeepSpeed neither checks nor tells it then
            norm = float(torch.nn.utils.get_total_norm([p.grad for p in self._trained.values() if p.grad is not None]))
            if not math.isfinite(norm):
                self._engine.zero_grad()
                return norm
            self._engine.step()
            return norm
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def _set_rate(self) -> float:
        """Linear warm-up, then constant: a pure function of the updates taken, so nothing to restore."""
        warmup = self._config.warmup_updates
        rate = self._config.lr * min(1.0, (self.num_updates + 1) / warmup) if warmup else self._config.lr
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _total(self, sums: Tensor) -> Tensor:
        if self.place.num_ranks > 1:
            on_device = sums.to(self._device)
            distributed.all_reduce(on_device)
            return on_device.cpu()
        return sums

    def _metrics(self, update: Update, sums: Tensor, rate: float, norm: float) -> dict[str, float]:
        named = dict(zip(SUMS, sums.tolist(), strict=True))
        learned = max(named["learned"], 1.0)
        of_teacher = {}
        if named["distilled"] > 0:
            of_teacher = {
                "divergence": named["divergence"] / named["distilled"],
                "credit": named["credit"] / named["distilled"],
            }
        return {
            "loss": named["loss"],
            "loss/distillation": named["distillation"],
            "loss/policy_gradient": named["policy_gradient"],
            **of_teacher,
            "entropy": named["entropy"] / learned,
            "mismatch": named["mismatch"] / learned,
            "grad_norm": norm,
            "lr": rate,
            "updates": 1.0,
            "updates_without_lesson": 0.0,
            "updates_skipped": 0.0,
            "learned_rows": float(update.num_learned_rows),
            "learned_tokens": float(update.num_learned_tokens),
        }


def _adamw(parameters: Sequence[nn.Parameter], config: LearnerConfig) -> torch.optim.AdamW:
    """torch's fused AdamW, on the CPU too: for 134 M parameters on two cores 51 ms a step, against 583 ms for torch's loop and
    157 ms for DeepSpeed's CPU Adam, which must be compiled first (93 s). Norms and biases do not decay."""
    decaying = [parameter for parameter in parameters if getattr(parameter, "ds_shape", parameter.shape)[1:]]
    others = [parameter for parameter in parameters if not getattr(parameter, "ds_shape", parameter.shape)[1:]]
    groups = [{"params": decaying, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.lr, betas=(config.beta1, config.beta2), fused=True
    )


def _deepspeed_config(config: LearnerConfig) -> dict[str, object]:
    zero: dict[str, object] = {"stage": config.zero_stage}
    if config.offload is not Offload.none:
        zero["offload_optimizer"] = {"device": "cpu"}
    if config.offload is Offload.all:
        zero["offload_param"] = {"device": "cpu"}
    if config.zero_stage == 3:
        zero["stage3_param_persistence_threshold"] = 0  # norms come with their layers: no second copy of them to keep in step
    return {
        "train_micro_batch_size_per_gpu": 1,  # unused: the learner's own packs are what it is fed
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.grad_clip,
        "bf16": {"enabled": config.dtype is Dtype.bfloat16},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",  # else DeepSpeed rounds the accumulated gradient to bf16, with a single rank too
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }
