"""For each family of models: the learner's log-probabilities and gradients are those of transformers' own forward."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from sdpo.batches.packs import pack_rows
from sdpo.config import Dtype, FullSupport, LearnerConfig
from sdpo.errors import UserError
from sdpo.learner import attention
from sdpo.learner import model as models
from sdpo.learner.forward import response_hidden
from sdpo.learner.output import prove, read_rule
from sdpo.objectives.comparison import Comparison
from sdpo.objectives.divergence import ReverseKL
from sdpo.objectives.fused import fused_loss
from sdpo.objectives.logits import Budget, HeadRule, Logits
from sdpo.objectives.scores import TokenScores
from sdpo.types import Packing
from tests.families import FAMILIES, HEADS, SIZES, config, tiny_model, write_family
from tests.learner.launch import launch
from tests.learner.ranks import Setup, gradients
from tests.learner.samples import taught, update_of
from tests.learner.test_attention import ASKED, ROWS
from tests.learner.test_gradient import BLEND, difference

attention.install()
NEAR = 1e-5
every_family = pytest.mark.parametrize("name", list(FAMILIES))


def asking(model: PreTrainedModel) -> Callable[[Callable[[PreTrainedModel], Tensor]], Tensor]:
    return lambda compute: compute(model)


class Loss:
    """Asks for everything, with other weights for each token."""

    is_pointwise = True

    def __call__(self, scores: TokenScores, tokens: slice) -> Tensor:
        return weights(tokens) * (scores.student_N + 0.7 * scores.divergence_N) + 0.2 * scores.entropy_N


def asked() -> list[range]:
    """Positions whose next token is scored."""
    return [range(places.start, places.stop - 1) for places in ASKED]


def ids() -> Tensor:
    return torch.tensor([row[place + 1] for row, places in zip(ROWS, asked(), strict=True) for place in places])


def weights(tokens: slice) -> Tensor:
    return torch.linspace(-1.0, 2.0, len(ids()))[tokens]


def shifted(values: Tensor) -> Tensor:
    """What stands for the teacher's: those of the tokens before."""
    return values.detach().roll(1, 0)


def own_logits(model: PreTrainedModel) -> Tensor:
    return torch.cat(
        [
            model(input_ids=torch.tensor([row]), use_cache=False).logits[0][list(places)]
            for row, places in zip(ROWS, asked(), strict=True)
        ]
    )


@every_family
@pytest.mark.parametrize("packing", [Packing.packed, Packing.joined], ids=["shared", "row by row"])
def test_logprobs_and_gradients_are_those_of_the_models_own_forward(name: str, packing: Packing) -> None:
    """Phi's bias, Granite's and Cohere's scale and NanoChat's soft cap were left out, in silence: by 0.3 to 6 nats a token."""
    plain, packed = tiny_model(name).eval(), tiny_model(name, attention.NAME).eval()
    rule = read_rule(packed, asking(packed))
    prove(packed, rule, asking(packed))

    own_NV = own_logits(plain).log_softmax(-1)
    own_N = own_NV.gather(-1, ids()[:, None])[:, 0]
    entropy_N = -(own_NV.exp() * own_NV).sum(-1)
    divergence_N = (own_NV.exp() * (own_NV - shifted(own_NV))).sum(-1)
    expected = (weights(slice(None)) * (own_N + 0.7 * divergence_N) + 0.2 * entropy_N).sum()
    expected.backward()

    hidden_NH, _ = response_hidden(packed, pack_rows(ROWS, asked(), packing=packing))
    head = models.head(packed)
    teacher = (Logits(hidden_NH=shifted(hidden_NH), head_VH=head.detach(), rule=rule),)
    comparison = Comparison(teacher=teacher, support=FullSupport(), divergence=ReverseKL())
    found, scores = fused_loss(hidden_NH, head, ids(), Loss(), comparison=comparison, budget=Budget(), rule=rule)
    found.backward()

    assert float((scores.student_N - own_N).detach().abs().max()) < NEAR
    assert float((scores.entropy_N - entropy_N).detach().abs().max()) < NEAR
    by_plain = {of: parameter.grad for of, parameter in plain.named_parameters() if parameter.grad is not None}
    by_packed = {of: parameter.grad for of, parameter in packed.named_parameters() if parameter.grad is not None}
    assert by_packed.keys() == by_plain.keys()
    size = max(float(gradient.norm()) for gradient in by_plain.values())
    off = {of: float((by_packed[of] - gradient).norm()) / size for of, gradient in by_plain.items()}
    assert max(off.values()) < NEAR, max(off.items(), key=lambda item: item[1])


@pytest.mark.parametrize(
    ("name", "scale", "soft_cap", "has_bias"),
    [
        ("llama", 1.0, None, False),
        ("phi", 1.0, None, True),
        ("granite", 1 / 3.0, None, False),
        ("granitemoe", 1 / 3.0, None, False),
        ("cohere", 0.25, None, False),
        ("cohere2", 0.25, None, False),
        ("hyperclovax", 0.25, None, False),
        ("minicpm3", 0.25, None, False),
        ("gemma2", 1.0, 3.0, False),
        ("gemma3_text", 1.0, 3.0, False),
        ("nanochat", 1.0, 3.0, False),
    ],
)
def test_what_a_model_does_to_the_product_is_read_off_its_logits(
    name: str, scale: float, soft_cap: float | None, has_bias: bool
) -> None:
    """``logits_scaling`` divides in Granite and multiplies in HyperCLOVA X: names do not tell."""
    model = tiny_model(name, attention.NAME)
    rule = read_rule(model, asking(model))
    assert rule.scale == pytest.approx(scale, rel=1e-12)
    assert rule.soft_cap == (None if soft_cap is None else pytest.approx(soft_cap, rel=1e-12))
    assert (rule.bias_V is not None) is has_bias
    assert rule.closed_V is None
    assert rule.is_plain is (name == "llama")


def test_reading_and_proving_leave_the_model_as_it_was() -> None:
    model = tiny_model("phi", attention.NAME).train()
    before = {of: parameter.clone() for of, parameter in model.named_parameters()}
    prove(model, read_rule(model, asking(model)), asking(model))
    assert model.training
    assert model.config._attn_implementation == attention.NAME
    assert not model.get_output_embeddings()._forward_hooks
    assert not model.get_output_embeddings()._forward_pre_hooks
    assert not model.base_model._forward_hooks
    assert all(torch.equal(parameter, before[of]) for of, parameter in model.named_parameters())


def wrapped(model: PreTrainedModel, make: Callable[[Tensor], Tensor]) -> PreTrainedModel:
    """The model with logits that ``make`` makes of its own."""
    forward = model.forward

    def other(*args: object, **kwargs: object) -> object:
        output = forward(*args, **kwargs)
        output.logits = make(output.logits)
        return output

    model.forward = other
    return model


def test_ids_that_a_model_excludes_are_read_off_too() -> None:
    def padded(logits: Tensor) -> Tensor:
        return logits.index_fill(-1, torch.tensor([7, 20]), float(torch.finfo(torch.float32).min))[..., :-3]

    model = wrapped(tiny_model("llama", attention.NAME), padded)
    rule = read_rule(model, asking(model))
    assert rule.closed_V is not None
    assert rule.closed_V.nonzero()[:, 0].tolist() == [7, 20, 58, 59, 60]
    assert (rule.scale, rule.soft_cap) == (1.0, None)


@pytest.mark.parametrize(
    "make",
    [
        lambda logits: logits.clamp(-20.0, 20.0),
        lambda logits: logits + 1.0,
        lambda logits: logits * torch.linspace(1.0, 2.0, logits.shape[-1]),
        lambda logits: logits.softmax(-1),
    ],
    ids=["clamps", "shifts", "scales each id otherwise", "gives probabilities"],
)
def test_a_model_that_makes_logits_in_another_way_is_refused(make: Callable[[Tensor], Tensor]) -> None:
    model = wrapped(tiny_model("llama", attention.NAME), make)
    with pytest.raises(UserError, match=r"LlamaForCausalLM does something else: the first id's go 9\.5"):
        read_rule(model, asking(model))


def test_a_learner_that_is_off_is_refused_with_both_numbers() -> None:
    model = tiny_model("cohere", attention.NAME)
    with pytest.raises(UserError, match=r"finds -\d+\.\d+ a token, the learner -\d+\.\d+, and they are \d+\.\d+ apart"):
        prove(model, HeadRule(), asking(model))


def test_dropout_has_no_part_in_what_is_learned(tmp_path: Path) -> None:
    """Phi-2 drops a tenth of its residuals while it trains: old and new log-probabilities differed by what was dropped."""
    AutoModelForCausalLM.from_config(config("phi", **SIZES, resid_pdrop=0.5, embd_pdrop=0.5)).save_pretrained(tmp_path)
    model = models.load(str(tmp_path), LearnerConfig(dtype=Dtype.float32), {}).train()
    prove(model, read_rule(model, asking(model)), asking(model))


def test_a_model_whose_parts_transformers_does_not_name_is_refused_in_words() -> None:
    text = {**HEADS, "num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 48}
    settings = config("llama4", text_config=text, vision_config={})
    model = AutoModelForCausalLM.from_config(settings, attn_implementation=attention.NAME)
    with pytest.raises(UserError, match="Llama4ForCausalLM does not name them"):
        read_rule(model, asking(model))


def test_a_model_that_does_not_tell_its_attention_is_refused_in_words() -> None:
    """StableLM failed with a TypeError on an argument that nobody had heard of."""
    model = AutoModelForCausalLM.from_config(config("stablelm", **SIZES), attn_implementation=attention.NAME)
    with pytest.raises(UserError, match="a model must hand on what its forward is given; StableLmAttention is not told"):
        prove(model, read_rule(model, asking(model)), asking(model))


@pytest.mark.integration
@pytest.mark.parametrize("name", ["phi", pytest.param("gemma2", marks=pytest.mark.full)])
def test_the_gradient_through_a_rule_is_the_same_on_ranks_that_share_the_parameters(
    name: str, model: Path, tmp_path: Path
) -> None:
    """A bias is a parameter like others: it is whole only while the loss is computed, the frozen teacher's too."""
    folder, samples = write_family(tmp_path / name, name), taught(model)
    alone = Setup(model=folder, algorithm=BLEND).with_(zero_stage=0)
    (one,) = launch(1, gradients, [(alone, [update_of(samples, BLEND)])])[0][0]
    updates = [update_of(samples, BLEND, num_ranks=2, micro_batch_tokens=150)]
    for stages in launch(2, gradients, [(alone.with_(zero_stage=stage), updates) for stage in (1, 3)])[0]:
        (both,) = stages
        assert both.by_parameter.keys() == one.by_parameter.keys()
        assert difference(both.vector, one.vector) < 5e-6
        assert both.loss == pytest.approx(one.loss, rel=1e-5)
    if name == "phi":
        assert float(one.by_parameter["lm_head.bias"].norm()) > 0.01
