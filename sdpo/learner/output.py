"""What stands between a model's last hidden states and its logits, and does the learner have it right?

The loss multiplies hidden states by the output embedding itself, so it must know what the model does besides. Phi adds a bias,
Granite and Cohere scale, Gemma 2 and NanoChat cap. transformers writes that in each model's own forward, under names that mean
one thing here and another there. So it is measured: the forward runs with known numbers in place of the last hidden states and
of the product. What it makes of them is read off its logits.

Then the whole path is proved. The log-probabilities of a short text, through the learner's packs, attention and scores, are
compared with those of the model's own forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sdpo.batches.packs import pack_rows
from sdpo.errors import UserError
from sdpo.learner import attention
from sdpo.learner import model as models
from sdpo.learner.forward import response_hidden
from sdpo.objectives.fused import score_tokens
from sdpo.objectives.logits import Budget, HeadRule

PROBE = tuple(range(3, 19))
"""Ids of the text. Every vocabulary has them."""
NEAR = {torch.float32: 1e-3, torch.bfloat16: 0.25}
"""Nats a token that the learner may be off on average. Kernels and types differ: in bf16 a logit of 30 is off by up to 0.1."""
TINY, HUGE = 2.0**-20, 2.0**17
_PRODUCTS = (TINY, HUGE, -1.0, 4.0, 15.0, -30.0, 60.0, -150.0)
"""What stands for ``hidden @ head.T``, one for each token. No soft cap is felt at the first, every one is at the second."""
EXACT = 1e-5
CLOSED_BELOW = -1e30

Run = Callable[[Callable[[PreTrainedModel], Tensor]], Tensor]
"""Runs something on a model: straight, or through the DeepSpeed engine that has its parts, where all ranks must call."""


def read_rule(model: PreTrainedModel, run: Run) -> HeadRule:
    """How ``model``, on which ``run`` runs things, makes logits.

    Raises UserError for a model that makes them in a way that the loss does not know.
    """
    name = type(model).__name__
    layer = model.get_output_embeddings()
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, nn.Parameter) or getattr(weight, "ds_shape", weight.shape)[1:] == () or model.base_model is model:
        raise UserError(
            "the learner's loss multiplies the last hidden states by the output embedding, so a model must have both; "
            f"{name} does not name them (base_model and get_output_embeddings). Choose another model."
        )
    measured = _Measured()
    with torch.no_grad():
        logits_nV = run(partial(_measure, measured)).double()
    bias = models.head_parameters(model)[1:]
    vocabulary = int(getattr(weight, "ds_shape", weight.shape)[0])
    return _rule(logits_nV, measured, vocabulary, bias[0] if bias else None, name)


def prove(model: PreTrainedModel, rule: HeadRule, run: Run) -> None:
    """Raise UserError, with both numbers, where the learner's log-probabilities are not the model's own."""
    with torch.no_grad():
        hidden_nH, own_n = run(_hidden), run(_own)
        with models.gathered(models.head_parameters(model)):
            ours_n = score_tokens(hidden_nH, models.head(model), _asked(hidden_nH.device), budget=Budget(), rule=rule).student_N
    off = float((ours_n - own_n).abs().mean())
    near = NEAR.get(model.dtype, NEAR[torch.bfloat16])
    if not off <= near:
        raise UserError(
            f"the learner must find a text as probable as the model itself does, to {near:g} nats a token in "
            f"{str(model.dtype).removeprefix('torch.')}; of {len(PROBE) - 1} tokens {type(model).__name__} finds {_mean(own_n)} "
            f"a token, the learner {_mean(ours_n)}, and they are {off:.3g} apart. Its forward does something that the learner "
            "does not know. Choose another model."
        )


def rule_of(copy: PreTrainedModel, rule: HeadRule) -> HeadRule:
    """The rule of a model's copy, whose bias is its own."""
    bias = models.head_parameters(copy)[1:]
    return replace(rule, bias_V=bias[0] if bias else None)


def _mean(logprobs_n: Tensor) -> str:
    return f"{float(logprobs_n.mean()):.4g}"


# What is measured.


@dataclass(slots=True)
class _Measured:
    before: float = 1.0
    """What hidden states of 1 are when they meet the output embedding (MiniCPM 3 scales there)."""


def _measure(measured: _Measured, model: PreTrainedModel) -> Tensor:
    """[n, V] the model's logits where its products are ``_PRODUCTS``."""
    layer = model.get_output_embeddings()

    def ones(module: nn.Module, args: object, output: object) -> object:
        hidden_1nH = output["last_hidden_state"]  # type: ignore[index]
        output["last_hidden_state"] = torch.ones_like(hidden_1nH, dtype=torch.float64)  # type: ignore[index]
        return output

    def met(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        first = args[0].double()
        measured.before = float(first.flatten()[0]) if bool((first == first.flatten()[0]).all()) else torch.nan
        return (torch.zeros_like(args[0], dtype=layer.weight.dtype), *args[1:])

    def products(module: nn.Module, args: object, output: Tensor) -> Tensor:
        values_n = torch.tensor(_PRODUCTS, dtype=torch.float64, device=output.device)
        return values_n[None, :, None].expand(output.shape).clone()

    with ExitStack() as stack:
        for handle in (
            model.base_model.register_forward_hook(ones),
            layer.register_forward_pre_hook(met),
            layer.register_forward_hook(products),
        ):
            stack.callback(handle.remove)
        return _own_logits(model, PROBE[: len(_PRODUCTS)])


def _rule(logits_nV: Tensor, measured: _Measured, vocabulary: int, bias_V: nn.Parameter | None, name: str) -> HeadRule:
    missing = vocabulary - logits_nV.shape[1]
    if missing < 0:
        raise _unknown(name, f"it has {logits_nV.shape[1]} logits for {vocabulary} rows of its output embedding")
    logits_nV = torch.nn.functional.pad(logits_nV, (0, missing), value=-torch.inf)
    closed_V = (logits_nV <= CLOSED_BELOW).all(0)
    if bool(closed_V.all()):
        raise _unknown(name, "it excludes every id")
    open_nV = logits_nV[:, ~closed_V]
    made_n = open_nV[:, 0]
    scale = float(made_n[0]) / TINY
    scale = 1.0 if abs(scale - 1.0) < EXACT else scale
    top = float(made_n[1])
    soft_cap = None if abs(top - scale * HUGE) <= EXACT * abs(scale * HUGE) else top
    products_n1 = torch.tensor(_PRODUCTS, dtype=torch.float64, device=logits_nV.device)[:, None] * scale
    expected_n1 = products_n1 if soft_cap is None else soft_cap * torch.tanh(products_n1 / soft_cap)
    off_nV = (open_nV - expected_n1).abs() / expected_n1.abs().clamp(min=1.0)
    if not bool((off_nV <= EXACT).all()):
        told = ", ".join(f"{value:g} -> {float(made):.4g}" for value, made in zip(_PRODUCTS, made_n, strict=True))
        raise _unknown(name, f"the first id's go {told}")
    if not abs(measured.before) > 0.0 or (measured.before != 1.0 and bias_V is not None):
        raise _unknown(name, f"hidden states of 1 are {measured.before:g} when they meet it")
    return HeadRule(
        bias_V=bias_V,
        scale=scale * measured.before,
        soft_cap=soft_cap,
        closed_V=closed_V if bool(closed_V.any()) else None,
    )


def _unknown(name: str, found: str) -> UserError:
    return UserError(
        "the learner knows models that add a bias to the product of hidden states and output embedding, scale it, cap it as "
        f"cap·tanh(x/cap), and exclude ids; {name} does something else: {found}. Choose another model."
    )


# What is proved.


def _asked(device: torch.device) -> Tensor:
    """[n] the tokens that are predicted."""
    return torch.tensor(PROBE[1:], device=device)


def _hidden(model: PreTrainedModel) -> Tensor:
    """[n, H] as the learner has them."""
    return response_hidden(model, pack_rows([PROBE], [range(len(PROBE) - 1)]))[0]


def _own(model: PreTrainedModel) -> Tensor:
    """[n] the model's own log-probabilities."""
    logits_nV = _own_logits(model, PROBE).float()
    return logits_nV[:-1].log_softmax(-1).gather(-1, _asked(logits_nV.device)[:, None])[:, 0]


def _own_logits(model: PreTrainedModel, ids: tuple[int, ...]) -> Tensor:
    """[n, V] of the model's own forward."""
    with _as_it_is(model):
        logits_1nV: Tensor = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits
    return logits_1nV[0]


@contextmanager
def _as_it_is(model: PreTrainedModel) -> Iterator[None]:
    """The model as whoever samples from it would have it: with its own attention, and nothing dropped out."""
    was_training = model.training
    model.eval()
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(attention.NAME)
        model.train(was_training)
