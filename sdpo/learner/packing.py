"""How must rows lie so that a model keeps them apart? Tried on the model itself, at the start.

Layers that mix neighbouring tokens in another way than through attention carry one row of a pack into the next, in silence:
recurrences, convolutions, and distances that are counted through the pack. What transformers says of a model is not relied on.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sdpo.batches.packs import pack_rows
from sdpo.config import Dtype, LearnerConfig, PackingChoice
from sdpo.errors import UserError
from sdpo.learner.forward import response_hidden
from sdpo.learner.output import Run
from sdpo.types import Pack, Packing

ROUNDING: Mapping[Dtype, float] = {Dtype.float32: 1e-3, Dtype.bfloat16: 0.05}
"""Largest relative change of a row's hidden states, when it lies elsewhere, that is taken for rounding.

Measured: 0.0 for SmolLM2-135M and for random models of 6 layers (Llama, Qwen3, Olmo 3, Gemma 2, gpt-oss) in both types, on one
thread of a CPU, since both sides have the same lengths. With other lengths and bundles the fp32 models moved by up to 3.6e-6.
In bf16 kernels that sum in another order move a model of that depth by 1.6 to 1.8 %.
"""


def choose_packing(models: Mapping[str, Run], config: LearnerConfig) -> Packing:
    """The packing that was asked for, or the first that keeps the rows of all ``models`` apart, which go by their names.

    Raises UserError where none does. Under ZeRO 3 all ranks must call.
    """
    faults: list[str] = []
    for packing in _choices(config):
        found = [
            f"with learner.packing={packing.value} {fault} in {name}"
            for name, run in models.items()
            if (fault := fault_of(run, packing, config.dtype)) is not None
        ]
        if not found:
            return packing
        faults += found
    if config.sequence_parallel > 1:
        remedy = "Set learner.sequence_parallel=1: layers that mix neighbouring tokens need rows whole."
    elif config.packing is PackingChoice.auto:
        remedy = "Choose another model."
    else:
        remedy = "Set learner.packing=auto."
    raise UserError(f"the rows of a forward pass must not affect each other; {'; '.join(faults)}. {remedy}")


def _choices(config: LearnerConfig) -> tuple[Packing, ...]:
    if config.packing is not PackingChoice.auto:
        return (Packing(config.packing.value),)
    if config.sequence_parallel > 1:
        return (Packing.packed,)
    # Kernels that know borders run on GPUs alone, and all models that use them have a convolution.
    has_kernels = torch.cuda.is_available() and importlib.util.find_spec("causal_conv1d") is not None
    return (Packing.packed, *((Packing.joined,) if has_kernels else ()), Packing.whole)


def fault_of(run: Run, packing: Packing, dtype: Dtype) -> str | None:
    """What is wrong with rows that lie so in a model that computes in ``dtype``; None where they are kept apart."""
    try:
        leaked, moved = leak(run, packing), movement(run, packing)
    except ValueError as error:
        if packing is not Packing.joined:
            raise
        return f"borders are refused ({error})"  # so transformers does where it has no kernel for them
    if leaked > 0.0:
        return f"a row depends on its neighbours ({leaked:.2%} of its gradient)"
    if not moved < ROUNDING[dtype]:
        return f"a row's hidden states move by {moved:.2%} with its place"
    return None


def leak(run: Run, packing: Packing) -> float:
    """The share that tokens which a row does not see have in the norm of its gradient by what is embedded.

    It is exactly 0 where attention alone mixes tokens, in any type: what is masked gets a weight of 0.
    """
    _, pack = _probes(packing)
    norms_T = run(partial(_gradient_norms, pack))
    place = int(pack.predicts_N[-1])
    (own,) = [segment for segment in pack.segments if segment.first <= place < segment.last]
    is_seen_T = torch.zeros(len(pack.ids_T), dtype=torch.bool)
    is_seen_T[own.first : place + 1] = True
    for index in own.before:
        is_seen_T[pack.segments[index].first : pack.segments[index].last] = True
    return float(norms_T[~is_seen_T.to(norms_T.device)].norm() / norms_T.norm())


def movement(run: Run, packing: Packing) -> float:
    """How far a row's hidden states move, relative, when other rows lie around it, with the same lengths."""
    with torch.no_grad():
        one, other = (run(partial(_only_hidden, pack)).float() for pack in _probes(packing))
    return float((one - other).norm() / one.norm())


def _probes(packing: Packing) -> tuple[Pack, Pack]:
    """Two packs that ask for the same tokens of a row, which stands first and last. Both have segments of the same lengths.

    Side by side, what differs is the other row and what comes after the tokens that are asked for.
    """
    shared, own, asked = list(range(1, 17)), [20, 21, 22, 23] * 4, range(16, 20)
    low, high = [9, 10, 11, 12] * 4, [30, 29, 28, 27] * 4
    if packing is Packing.whole:
        return (
            pack_rows([shared + own + low, shared + high], [asked, []], packing=packing),
            pack_rows([high + low, shared + own + high], [[], asked], packing=packing),
        )
    # A packed row of higher ids comes later, since beginnings are found in order.
    return (
        pack_rows([shared + own, shared + high], [asked, []], packing=packing),
        pack_rows([shared + low, shared + own], [[], asked], packing=packing),
    )


def _only_hidden(pack: Pack, model: PreTrainedModel) -> Tensor:
    return response_hidden(model, pack)[0]


def _gradient_norms(pack: Pack, model: PreTrainedModel) -> Tensor:
    """[T] of the gradient that hidden states which are asked for have by each token's embedding."""
    embedded: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[0]

    handle = model.get_input_embeddings().register_forward_hook(keep)
    try:
        with torch.enable_grad():
            hidden_nH = response_hidden(model, pack)[0].float()
            # Uneven weights: the plain sum of normed states hardly has a gradient.
            weights_nH = torch.linspace(-1.0, 2.0, hidden_nH.numel(), device=hidden_nH.device).cos().view_as(hidden_nH)
            (gradient_BTH,) = torch.autograd.grad((hidden_nH * weights_nH).sum(), embedded[:1])
    finally:
        handle.remove()
    norms_T: Tensor = gradient_BTH.float().flatten(0, 1).norm(dim=1)
    return norms_T
