"""The language model that a rank trains or asks: loaded, given adapters, and read back by its Hugging Face names.

Under ZeRO 3 a model is cut up while it is loaded (``zero.Init``), so that it never lies whole on a rank. A parameter is there
only inside ``gathered``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.integrations.deepspeed import HfDeepSpeedConfig
from transformers.utils.logging import disable_progress_bar

from sdpo.config import LearnerConfig, LoraConfig
from sdpo.errors import UserError
from sdpo.learner import attention
from sdpo.learner.importing import import_deepspeed

STUDENT = "default"
"""peft's name for the first adapter."""
TEACHER = "teacher"


def load(path: str, config: LearnerConfig, deepspeed_config: Mapping[str, object]) -> PreTrainedModel:
    """The model in ``path``, in the compute type. Under ZeRO 3 every rank must call, for each gets its part.

    Raises UserError for one whose attention cannot be replaced.
    """
    attention.install()
    disable_progress_bar()  # they are written to a log, where each of their states stays
    # While this object lives, transformers loads into zero.Init.
    partitioning = HfDeepSpeedConfig(dict(deepspeed_config)) if config.zero_stage == 3 else None
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        path, dtype=getattr(torch, config.dtype.value), attn_implementation=attention.NAME
    )
    del partitioning
    if not model._can_set_attn_implementation():
        raise UserError(
            "the learner has its own attention over packed rows, so a model must go through transformers' attention interface; "
            f"{type(model).__name__} does not. Choose another model."
        )
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # the ratio of new and old log-probabilities would measure what was dropped
    return model


def add_adapters(model: PreTrainedModel, config: LoraConfig, *, of_teacher: bool) -> None:
    """Give the model's linear layers low-rank adapters and freeze the rest; ``of_teacher`` adds a second, untrained set."""
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    torch.manual_seed(0)  # the same adapters on every rank
    targets = config.target_modules
    for name in (STUDENT, TEACHER) if of_teacher else (STUDENT,):
        settings = PeftConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            target_modules=targets[0] if targets == ["all-linear"] else targets,
            task_type="CAUSAL_LM",
        )
        inject_adapter_in_model(settings, model, adapter_name=name)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(model.dtype)
        parameter.requires_grad_(f".{STUDENT}." in name)
    if of_teacher:
        with torch.no_grad():
            for student, teacher in teacher_adapters(model):
                teacher.copy_(student)
    with using_adapter(model, STUDENT):
        pass


def teacher_adapters(model: PreTrainedModel) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Student's and teacher's adapter weights in pairs, in the order of the trained parameters."""
    named = dict(model.named_parameters())
    return [
        (parameter, named[name.replace(f".{STUDENT}.", f".{TEACHER}.")])
        for name, parameter in named.items()
        if parameter.requires_grad
    ]


@contextmanager
def using_adapter(model: PreTrainedModel, adapter: str | None) -> Iterator[None]:
    """The model with that adapter, or as its bare base; afterwards the student's is active again.

    peft's own ``set_adapter`` also decides what is trained, which here is settled.
    """
    from peft.tuners.lora import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer._active_adapter = [adapter] if adapter else []
    try:
        yield
    finally:
        for layer in layers:
            layer._active_adapter = [STUDENT]


def head(model: PreTrainedModel) -> nn.Parameter:
    """[V, H] the output embedding's weight."""
    weight = model.get_output_embeddings().weight
    assert isinstance(weight, nn.Parameter)
    return weight


def head_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """The output embedding's weight, and its bias where it has one."""
    bias = model.get_output_embeddings().bias if hasattr(model.get_output_embeddings(), "bias") else None
    return [head(model)] if bias is None else [head(model), bias]


@contextmanager
def gathered(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Whole, on every rank, within the block. All ranks must enter."""
    partitioned = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not partitioned:
        yield
        return
    with import_deepspeed().zero.GatheredParameters(partitioned):
        yield


@torch.no_grad()
def parameters(model: PreTrainedModel, *, adapter: str | None = STUDENT, wanted: bool = True) -> Iterator[tuple[str, Tensor]]:
    """The parameters one after the other, by their Hugging Face names, in the compute type.

    ``adapter`` is merged (None: the bare base). Tied ones come once. They are copied where they are not whole on this rank. Under
    ZeRO 3 all ranks must go through all of them, also those that do not want any and get none.
    """
    from peft.tuners.lora import LoraLayer

    adapted = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            continue
        layer = adapted.get(name.removesuffix(".base_layer.weight"))
        factors: list[nn.Parameter] = []
        if layer is not None and adapter is not None:
            factors = [part[adapter].get_parameter("weight") for part in (layer.lora_A, layer.lora_B)]
        with gathered([parameter, *factors]):
            if not wanted:
                continue
            value = parameter.detach()
            if layer is not None and adapter is not None:
                down, up = (factor.detach().float() for factor in factors)
                value = (value.float() + layer.scaling[adapter] * (up @ down)).to(parameter.dtype)
            elif hasattr(parameter, "ds_id"):
                value = value.to("cpu", copy=True)
        yield name.replace(".base_layer.", "."), value
