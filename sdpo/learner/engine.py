"""One rank of the learner: the policy under DeepSpeed, its optimizer and its teacher. No Ray here; ``group.py`` is the shell.

DeepSpeed keeps the fp32 master weights and, with ZeRO stage 1 and bf16, accumulates gradients in fp32 over micro-batches. The
losses are already divided by the update's global counts, so gradients are summed over ranks, not averaged.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from sdpo.config import AlgorithmConfig, Dtype, LearnerConfig, SDPOConfig, TeacherConfig, TeacherKind
from sdpo.errors import MachineError
from sdpo.learner.forward import head, response_hidden, response_ids
from sdpo.learner.loss import SUMS, Scale, micro_batch_loss
from sdpo.learner.teacher import make_teacher
from sdpo.objectives.scores import policy_scores
from sdpo.types import MicroBatch, Update


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a rank stands among the others."""

    rank: int
    num_ranks: int
    rendezvous: str
    """``tcp://host:port`` or ``file:///path`` that all ranks reach."""


class _Computes(nn.Module):
    """Gives DeepSpeed's engine a forward that runs whatever it is handed on the model, and returns the loss."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[[PreTrainedModel], Tensor]) -> Tensor:
        return compute(self.model)


class DeepSpeedLearner:
    """Holds one rank's policy, optimizer and teacher."""

    def __init__(self, model_path: str, config: LearnerConfig, algorithm: AlgorithmConfig, scale: Scale, place: Place) -> None:
        if not torch.cuda.is_available():
            os.environ["DS_ACCELERATOR"] = "cpu"
        os.environ["LOCAL_RANK"] = "0"  # DeepSpeed asks for it; a rank sees one device, its own
        import deepspeed

        torch.manual_seed(place.rank)
        if config.num_threads is not None:
            torch.set_num_threads(config.num_threads)
        self._config, self._scale, self.place = config, scale, place
        self.step = 0
        self.num_updates = 0
        self._old_logprobs: dict[int, list[Tensor]] = {}
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        if not distributed.is_initialized():
            distributed.init_process_group(
                backend,
                init_method=place.rendezvous,
                rank=place.rank,
                world_size=place.num_ranks,
                timeout=timedelta(seconds=config.timeout_s),
            )
        deepspeed.init_distributed(dist_backend=backend, verbose=False)
        policy: PreTrainedModel = AutoModelForCausalLM.from_pretrained(model_path, dtype=getattr(torch, config.dtype.value))
        if config.gradient_checkpointing:
            policy.gradient_checkpointing_enable()
        policy.train()
        self._device = torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")
        nn.Module.to(policy, self._device)
        without_teacher = TeacherConfig(kind=TeacherKind.live)  # costs nothing
        self._teacher = make_teacher(policy, algorithm.teacher if isinstance(algorithm, SDPOConfig) else without_teacher)
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=_Computes(policy),
            optimizer=_adamw(policy, config),
            config=_deepspeed_config(config),
            dist_init_required=False,
        )
        self._policy = policy

    def parameters(self) -> dict[str, Tensor]:
        """The policy's parameters by their checkpoint names, in the compute type; tied ones once."""
        return {name: parameter.detach() for name, parameter in self._policy.named_parameters()}

    @torch.no_grad()
    def anchor(self, updates: Sequence[Update]) -> None:
        """Keep what the policy says before the step's first update. With a single update that is what it says in it: free."""
        self._old_logprobs = {}
        if len(updates) < 2:
            return
        for update in updates:
            self._old_logprobs[update.index] = [self._logprobs(batch) for batch in self._mine(update)]

    def update(self, update: Update, algorithm: AlgorithmConfig) -> dict[str, float]:
        """One optimizer step over this rank's micro-batches; the metrics are global, the same on every rank."""
        batches = self._mine(update)
        if not batches:
            return {"updates": 0.0, "updates_without_lesson": 1.0}
        old = self._old_logprobs.get(update.index)
        sums = torch.zeros(len(SUMS), dtype=torch.float64)
        for position, batch in enumerate(batches):
            self._engine.set_gradient_accumulation_boundary(position == len(batches) - 1)
            old_N = None if old is None else old[position]
            loss = self._engine(partial(self._share_of_loss, batch, old_N, update, algorithm, sums))
            self._engine.backward(loss * self.place.num_ranks)  # DeepSpeed averages over ranks; the loss is a share of a sum
        sums = self._total(sums)
        if not math.isfinite(float(sums[0])):
            raise MachineError(f"the loss of update {self.num_updates + 1} is {float(sums[0])}; nothing was changed by it")
        rate = self._set_rate()
        self._engine.step()
        norm = float(self._engine.get_global_grad_norm())
        if not math.isfinite(norm):  # DeepSpeed has skipped the step
            raise MachineError(f"the gradient of update {self.num_updates + 1} has norm {norm}; nothing was changed by it")
        self.num_updates += 1
        return self._metrics(update, sums, rate, norm)

    def finish_step(self) -> None:
        """The teacher follows the policy; the step counts as done."""
        self._old_logprobs = {}
        self._teacher.follow(self._master() if self._teacher.needs_master else {})
        self.step += 1

    def teacher_state(self) -> dict[str, Tensor]:
        return self._teacher.state()

    def restore_teacher(self, state: dict[str, Tensor]) -> None:
        self._teacher.restore(state)

    def save_optimizer(self, folder: Path) -> None:
        """DeepSpeed's own checkpoint: parameters, fp32 master weights and moments, a share a rank."""
        self._engine.save_checkpoint(str(folder), tag="state", save_latest=False)

    def load_optimizer(self, folder: Path) -> None:
        """Raises ValueError where DeepSpeed finds nothing to load."""
        found, _ = self._engine.load_checkpoint(str(folder), tag="state")
        if found is None:
            raise ValueError(f"DeepSpeed found no checkpoint in {folder}")

    def _share_of_loss(
        self,
        batch: MicroBatch,
        old_N: Tensor | None,
        update: Update,
        algorithm: AlgorithmConfig,
        sums: Tensor,
        model: PreTrainedModel,
    ) -> Tensor:
        """The micro-batch's loss; its sums are added to ``sums``."""
        loss, part = micro_batch_loss(model, self._teacher.model, batch, old_N, update, algorithm, self._scale)
        sums += part
        return loss

    def _mine(self, update: Update) -> tuple[MicroBatch, ...]:
        return update.micro_batches[self.place.rank]

    def _logprobs(self, batch: MicroBatch) -> Tensor:
        """[N] log π(y_t) of the policy as it is."""
        hidden_NH = response_hidden(self._policy, batch.student_ids_T, batch.student_offsets, batch.num_response_tokens_B)
        logprobs_N, _ = policy_scores(
            hidden_NH,
            head(self._policy),
            response_ids(batch).to(self._device),
            temperature=self._scale.temperature,
            chunk=self._scale.logits_chunk_tokens,
        )
        return logprobs_N

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
        every = [batch for batches in update.micro_batches for batch in batches if bool(batch.loss_mask_N.any())]  # no fillers
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
            "learned_rows": float(sum(batch.num_rows for batch in every)),
            "learned_tokens": float(sum(batch.student_offsets[-1] + batch.teacher_offsets[-1] for batch in every)),
        }

    def _master(self) -> dict[str, Tensor]:
        """The optimizer's fp32 weights by name, whole, on every rank."""
        from deepspeed.utils import safe_get_full_fp32_param

        return {name: safe_get_full_fp32_param(parameter) for name, parameter in self._policy.named_parameters()}


def _adamw(policy: PreTrainedModel, config: LearnerConfig) -> torch.optim.AdamW:
    """torch's fused AdamW: on the CPU too it needs no compiler. Norms and biases do not decay."""
    parameters = list(policy.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.lr, betas=(config.beta1, config.beta2), fused=True
    )


def _deepspeed_config(config: LearnerConfig) -> dict[str, object]:
    return {
        "train_micro_batch_size_per_gpu": 1,  # unused: the learner's own packs are what it is fed
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.grad_clip,
        "bf16": {"enabled": config.dtype is Dtype.bfloat16},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",  # else DeepSpeed rounds the accumulated gradient to bf16, with a single rank too
        "zero_optimization": {"stage": config.zero_stage},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }
