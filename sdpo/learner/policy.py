"""The model that is trained, under DeepSpeed: how it is wrapped, run, differentiated and stepped.

DeepSpeed keeps the fp32 master weights and, with ZeRO stage 1 and bf16, accumulates gradients in fp32 over micro-batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sdpo.config import Dtype, LearnerConfig, Offload
from sdpo.learner import model as models
from sdpo.learner.importing import import_deepspeed
from sdpo.learner.output import prove, read_rule
from sdpo.learner.shards import shards_of


class Head(nn.Module):
    """The output embedding, asked for scores instead of logits: a module, so that ZeRO 3 has it whole while it is."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, hidden_nH: Tensor, score: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return score(hidden_nH, self.weight)


class Computes(nn.Module):
    """Gives DeepSpeed's engine a forward that runs whatever it is handed on the model, and returns what that returns."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.head = Head(*models.head_parameters(model))

    def forward(self, compute: Callable[[PreTrainedModel, Head], Tensor]) -> Tensor:
        return compute(self.model, self.head)


class Policy:
    """One rank's part of it."""

    def __init__(self, model_path: str, config: LearnerConfig, device: torch.device, *, of_teacher: bool) -> None:
        """``of_teacher``: where adapters are trained, keep a second set of them for a teacher."""
        self._config, self.device = config, device
        model = models.load(model_path, config, deepspeed_config(config))
        if config.lora.rank:
            models.add_adapters(model, config.lora, of_teacher=of_teacher)
        if config.gradient_checkpointing:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        model.train()
        if config.zero_stage < 3:
            nn.Module.to(model, device)
        self.model = model
        self.trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._computes = Computes(model)
        self._optimizer = _adamw(list(self.trained.values()), config)
        self._engine, *_ = import_deepspeed().initialize(
            model=self._computes, optimizer=self._optimizer, config=deepspeed_config(config), dist_init_required=False
        )
        self.shards = shards_of(self._engine.optimizer, self.trained)
        self.rule = read_rule(model, self.ask)
        prove(model, self.rule, self.ask)

    def ask(self, compute: Callable[[PreTrainedModel], Tensor]) -> Tensor:
        """What ``compute`` finds on the model, without gradient and without the head; under ZeRO 3 all ranks must call."""
        return self.run(lambda model, head: compute(model))

    @torch.no_grad()
    def run(self, compute: Callable[[PreTrainedModel, Head], Tensor]) -> Tensor:
        """Without gradient. Under ZeRO 3 all ranks must call: the engine's hooks bring the parameters."""
        found: Tensor = (self._engine if self._config.zero_stage == 3 else self._computes)(compute)
        return found

    def backward(self, compute: Callable[[PreTrainedModel, Head], Tensor], *, num_ranks: int, is_last: bool) -> None:
        """Add the gradient of what ``compute`` returns, summed over ranks. ``is_last``: the optimizer's step comes next."""
        self._engine.set_gradient_accumulation_boundary(is_last)
        loss = self._engine(compute)
        if not math.isfinite(float(loss.detach())):
            loss = loss * math.nan  # reaches every gradient, so that every rank skips
        self._engine.backward(loss * num_ranks)  # DeepSpeed averages over ranks; the loss is a share of a sum

    def step(self, rate: float) -> float:
        """The optimizer's step, skipped where the gradient is not finite; the norm of the gradient before clipping."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        if self._config.zero_stage == 0:  # DeepSpeed neither checks nor tells it then
            norm = float(torch.nn.utils.get_total_norm([p.grad for p in self.trained.values() if p.grad is not None]))
            if not math.isfinite(norm):
                self._engine.zero_grad()
                return norm
            self._engine.step()
            return norm
        self._engine.step()
        norm = float(self._engine.get_global_grad_norm())
        if not math.isfinite(norm) and self._config.offload is not Offload.none and self._config.zero_stage < 3:
            # DeepSpeed 0.19 keeps the sums of a step that it skipped there, and adds the next step's to them.
            sums = self._engine.optimizer.averaged_gradients
            sums.update(dict.fromkeys(sums))
        return norm


def _adamw(parameters: Sequence[nn.Parameter], config: LearnerConfig) -> torch.optim.AdamW:
    """torch's fused AdamW, on the CPU too. Norms and biases do not decay.

    For 134 M parameters on two cores it takes 51 ms a step, against 583 ms for torch's loop. DeepSpeed's CPU Adam takes 157 ms
    and must be compiled first (93 s).
    """
    decaying = [parameter for parameter in parameters if getattr(parameter, "ds_shape", parameter.shape)[1:]]
    others = [parameter for parameter in parameters if not getattr(parameter, "ds_shape", parameter.shape)[1:]]
    groups = [{"params": decaying, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.lr, betas=(config.beta1, config.beta2), fused=True
    )


def deepspeed_config(config: LearnerConfig) -> dict[str, object]:
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
