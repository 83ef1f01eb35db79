"""What the learner has to agree with, in fp64 and as plainly as it can be said: one row at a time, autograd, nothing shared,
nothing chunked, nothing packed, and none of the learner's own code: the objectives are those of ``sdpo/objectives/plain.py``.

transformers computes norms and rotations in fp32 whatever the model's type is, so the model is written out here (Llama). The
angles of the rotation are constants of the model, and taken from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from sdpo.config import AlgorithmConfig, EmaTeacher, LearnerConfig, LossMean, PeriodicTeacher, SDPOConfig
from sdpo.objectives import plain
from sdpo.types import Sample

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama:
    """A model as a function of its weights."""

    config: LlamaConfig

    def logprobs(self, weights: Weights, prompt: Sequence[int], response: Sequence[int], temperature: float) -> Tensor:
        """[R, V] under which each token of the response was drawn."""
        return (self.logits(weights, [*prompt, *response])[len(prompt) - 1 : -1] / temperature).log_softmax(-1)

    def logits(self, weights: Weights, ids: Sequence[int]) -> Tensor:
        """[T, V]"""
        c = self.config
        hidden = weights["model.embed_tokens.weight"][torch.tensor(ids)]
        is_padding = (torch.tensor(ids) == c.pad_token_id)[:, None]  # whose embedding does not learn as an input
        hidden = torch.where(is_padding, hidden.detach(), hidden)
        angles = LlamaRotaryEmbedding(c)(torch.zeros(1), torch.arange(len(ids))[None])
        cos, sin = (part[0].to(hidden.dtype) for part in angles)
        for index in range(c.num_hidden_layers):
            at = f"model.layers.{index}."
            normed = self._norm(hidden, weights[f"{at}input_layernorm.weight"])
            query, key, value = (
                (normed @ weights[f"{at}self_attn.{part}_proj.weight"].T).unflatten(-1, (-1, c.head_dim)).transpose(0, 1)
                for part in "qkv"
            )
            query, key = (part * cos + _half_turned(part) * sin for part in (query, key))
            key, value = (part.repeat_interleave(len(query) // len(part), 0) for part in (key, value))
            scores = query @ key.transpose(1, 2) / math.sqrt(c.head_dim)
            future = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
            seen = scores.masked_fill(future, -math.inf).softmax(-1) @ value
            hidden = hidden + seen.transpose(0, 1).flatten(1) @ weights[f"{at}self_attn.o_proj.weight"].T
            normed = self._norm(hidden, weights[f"{at}post_attention_layernorm.weight"])
            gate, up = (normed @ weights[f"{at}mlp.{part}_proj.weight"].T for part in ("gate", "up"))
            hidden = hidden + (functional.silu(gate) * up) @ weights[f"{at}mlp.down_proj.weight"].T
        head = weights["model.embed_tokens.weight" if c.tie_word_embeddings else "lm_head.weight"]
        return self._norm(hidden, weights["model.norm.weight"]) @ head.T

    def _norm(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return weight * hidden / (hidden.square().mean(-1, keepdim=True) + self.config.rms_norm_eps).sqrt()


def _half_turned(part: Tensor) -> Tensor:
    first, second = part.chunk(2, -1)
    return torch.cat([-second, first], -1)


def read(path: Path) -> tuple[Llama, dict[str, Tensor]]:
    """The model in a folder and its weights, fp64, ready for autograd."""
    stored = load_file(path / "model.safetensors")
    weights = {name: weight.double().requires_grad_() for name, weight in stored.items()}
    return Llama(config=LlamaConfig.from_pretrained(path)), weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """Weights and shares of the models whose logits are summed."""

    models: tuple[tuple[Weights, float, bool], ...]
    """The last: whether it sees the hindsight prompt, or the student's."""
    model: Llama | None = None
    """None: the student's."""

    def logprobs(
        self, model: Llama, hindsight: Sequence[int], plain: Sequence[int], response: Sequence[int], temperature: float
    ) -> Tensor:
        with torch.no_grad():
            model = self.model or model
            parts = []
            for weights, share, is_hinted in self.models:
                prompt = hindsight if is_hinted else plain
                parts.append(share * model.logits(weights, [*prompt, *response])[len(prompt) - 1 : -1])
            return (sum(parts[1:], start=parts[0]) / temperature).log_softmax(-1)


def loss(
    model: Llama,
    weights: Weights,
    teacher: Teacher | None,
    samples: Sequence[Sample],
    algorithm: AlgorithmConfig,
    *,
    temperature: float,
    max_response_tokens: int,
    old: Weights | None = None,
    first: Weights | None = None,
) -> Tensor:
    """The loss of one update. ``old``: the weights before the step's first update (None: these), ``first``: the run's first."""
    pg = algorithm.policy_gradient
    graded = [s for s in samples if s.policy_gradient_weight != 0.0]
    distilled = [s for s in samples if s.teacher_prompt_ids is not None and s.distillation_weight != 0.0]
    is_used = {
        id(s): any(s.loss_mask)
        and (
            (isinstance(algorithm, SDPOConfig) and s in distilled)
            or s.supervised_weight != 0.0
            or (s.policy_gradient_weight != 0.0 and (s.advantage != 0.0 or algorithm.entropy_bonus or algorithm.reference_kl))
        )
        for s in samples
    }
    num_used_tokens = sum(sum(s.loss_mask) for s in samples if is_used[id(s)])
    num_graded_tokens = sum(sum(s.loss_mask) for s in graded)
    num_distilled_tokens = sum(sum(s.loss_mask) for s in distilled)
    num_supervised_tokens = sum(sum(s.loss_mask) for s in samples if s.supervised_weight != 0.0)
    theirs = {
        id(s): teacher.logprobs(model, s.teacher_prompt_ids, s.prompt_ids, s.response_ids, temperature)[torch.tensor(s.loss_mask)]
        for s in distilled
        if teacher is not None and s.teacher_prompt_ids is not None
    }
    sure = (
        dict(zip(theirs, plain.certainties(list(theirs.values()), algorithm), strict=True))
        if isinstance(algorithm, SDPOConfig) and theirs
        else {}
    )
    total = torch.zeros((), dtype=torch.float64)
    for s in samples:
        mask, at = torch.tensor(s.loss_mask), (range(len(s.response_ids)), list(s.response_ids))
        if not is_used[id(s)]:
            continue
        every = model.logprobs(weights, s.prompt_ids, s.response_ids, temperature)
        own = every[at][mask]
        with torch.no_grad():
            before = own if old is None else model.logprobs(old, s.prompt_ids, s.response_ids, temperature)[at][mask]
        sampled = torch.tensor(s.sampled_logprobs, dtype=torch.float64)[mask]
        if isinstance(algorithm, SDPOConfig) and s in distilled:
            own_ids = torch.tensor(s.response_ids)[mask]
            total = (
                total
                + plain.distillation(
                    every[mask], theirs[id(s)], own_ids, before.detach(), sampled, algorithm, s.distillation_weight * sure[id(s)]
                ).sum()
                / num_distilled_tokens
            )
        if s.policy_gradient_weight != 0.0:
            surrogate = plain.policy_gradient(own, before.detach(), sampled, s.advantage, pg)
            divisor = {
                LossMean.token: num_graded_tokens,
                LossMean.sequence: len(own) * len(graded),
                LossMean.constant: len(graded) * max_response_tokens,
            }[pg.mean]
            total = total + (s.policy_gradient_weight * surrogate).sum() / divisor
        if s.supervised_weight != 0.0:
            total = total - s.supervised_weight * own.sum() / num_supervised_tokens
        total = total - algorithm.entropy_bonus * plain.entropy(every[mask]).sum() / num_used_tokens
        if algorithm.reference_kl:
            assert first is not None
            with torch.no_grad():
                start = model.logprobs(first, s.prompt_ids, s.response_ids, temperature)[at][mask]
            total = total + algorithm.reference_kl * plain.reference_kl(own, start).sum() / num_used_tokens
    return total


class AdamW:
    """Loshchilov and Hutter's (arXiv 1711.05101), with clipping by the norm, warm-up, and no decay of what is no matrix."""

    def __init__(self, weights: Mapping[str, Tensor], config: LearnerConfig) -> None:
        self._config = config
        self.num_updates = 0
        self.exp_avg = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self.exp_avg_sq = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    @torch.no_grad()
    def step(self, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> float:
        """In place; the norm of the gradient."""
        c = self._config
        self.num_updates += 1
        t = self.num_updates
        rate = c.lr * (min(1.0, t / c.warmup_updates) if c.warmup_updates else 1.0)
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients.values()))
        for name, weight in weights.items():
            gradient = gradients[name] * min(1.0, c.grad_clip / norm)
            mean = self.exp_avg[name].mul_(c.beta1).add_((1.0 - c.beta1) * gradient)
            square = self.exp_avg_sq[name].mul_(c.beta2).add_((1.0 - c.beta2) * gradient.square())
            decay = c.weight_decay if weight.dim() > 1 else 0.0
            weight.mul_(1.0 - rate * decay)
            weight.sub_(rate * (mean / (1.0 - c.beta1**t)) / ((square / (1.0 - c.beta2**t)).sqrt() + 1e-8))
        return norm


@dataclass(frozen=True, kw_only=True)
class Adapters:
    """How trained weights and the model's become the weights that it runs with: LoRA's product added, or nothing at all."""

    scaling: float = 0.0
    """alpha / rank; 0: no adapters, what is trained are the weights."""

    def onto(self, base: Weights, trained: Weights) -> dict[str, Tensor]:
        if self.scaling == 0.0:
            return dict(trained)
        merged = dict(base)
        for name, down in trained.items():
            if ".lora_A." in name:
                layer, up = name.partition(".lora_A.")[0], trained[name.replace(".lora_A.", ".lora_B.")]
                merged[f"{layer}.weight"] = base[f"{layer}.weight"] + self.scaling * up @ down
        return merged


@dataclass(frozen=True, kw_only=True)
class Course:
    """What became of the trained weights, the moments and the average, and what each update said."""

    losses: Sequence[float]
    norms: Sequence[float]
    trained: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    exp_avg: Mapping[str, Tensor]
    exp_avg_sq: Mapping[str, Tensor]


def course(
    path: Path,
    steps: Sequence[Sequence[Sequence[Sample]]],
    algorithm: AlgorithmConfig,
    config: LearnerConfig,
    *,
    temperature: float,
    max_response_tokens: int,
    begins: Mapping[str, Tensor] | None = None,
    other: Path | None = None,
) -> Course:
    """The samples of each update of each step, through AdamW. ``begins``: the adapters, where such are trained; ``other``: an
    external teacher."""
    model, base = read(path)
    base = {name: weight.detach() for name, weight in base.items()}
    adapters = Adapters(scaling=config.lora.alpha / config.lora.rank if config.lora.rank else 0.0)
    start = {name: weight.double() for name, weight in (begins or base).items()}
    trained = {name: weight.clone().requires_grad_() for name, weight in start.items()}
    average = {name: weight.clone() for name, weight in start.items()}
    optimizer = AdamW(trained, config)
    losses, norms = [], []
    for step, updates in enumerate(steps, start=1):
        old = {name: weight.detach().clone() for name, weight in adapters.onto(base, trained).items()}
        for samples in updates:
            weights = adapters.onto(base, trained)
            total = loss(
                model,
                weights,
                _teacher(algorithm, weights, base, adapters.onto(base, average), other),
                samples,
                algorithm,
                temperature=temperature,
                max_response_tokens=max_response_tokens,
                old=old,
                first=base,
            )
            found = torch.autograd.grad(total, list(trained.values()))
            norms.append(optimizer.step(trained, dict(zip(trained, found, strict=True))))
            losses.append(total.item())
        if isinstance(algorithm, SDPOConfig):
            teacher = algorithm.teacher
            rate = teacher.ema_rate if isinstance(teacher, EmaTeacher) else 0.0
            if isinstance(teacher, PeriodicTeacher) and step % teacher.refresh_every == 0:
                rate = 1.0
            average = {name: (1.0 - rate) * average[name] + rate * trained[name].detach() for name in trained}
    return Course(
        losses=losses,
        norms=norms,
        trained={name: weight.detach() for name, weight in trained.items()},
        average=average,
        exp_avg=optimizer.exp_avg,
        exp_avg_sq=optimizer.exp_avg_sq,
    )


def _teacher(algorithm: AlgorithmConfig, live: Weights, first: Weights, average: Weights, other: Path | None) -> Teacher | None:
    if not isinstance(algorithm, SDPOConfig):
        return None
    parts = algorithm.teacher.models(_Parts(live, first, average, None if other is None else read(other)))
    return Teacher(models=tuple(weights for _, *weights in parts), model=parts[0][0])  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Parts:
    """[model of its own, weights, weight, whether it sees the hint] of what a kind is made of."""

    live: Weights
    first: Weights
    kept: Weights
    elsewhere: tuple[Llama, Weights] | None

    def now(self, *, weight: float = 1.0, is_hinted: bool = True) -> tuple[Llama | None, Weights, float, bool]:
        return None, self.live, weight, is_hinted

    def start(self, *, weight: float = 1.0, is_hinted: bool = True) -> tuple[Llama | None, Weights, float, bool]:
        return None, self.first, weight, is_hinted

    def average(self, *, rate: float, on_host: bool, every: int = 1) -> tuple[Llama | None, Weights, float, bool]:
        return None, self.kept, 1.0, True

    def other(self) -> tuple[Llama | None, Weights, float, bool]:
        assert self.elsewhere is not None
        return *self.elsewhere, 1.0, True
