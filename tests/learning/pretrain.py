"""The gym's model, from nothing, in minutes: a Llama of one million parameters that is right only sometimes, and knows better
when it is shown.

It is trained with the cross-entropy of answers under the very prompts that the trainer renders: plain, where the answer is drawn
from a mixture of the two ciphers, and with hindsight of each kind, where it is what the hint says.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sdpo.hindsight.hints import hindsight_message, hint_of
from sdpo.hindsight.rendering import ChatRenderer
from sdpo.types import Hint, Message, Role, Task
from tests.learning.cipher import NEW, OLD, Level, expected, levels, question
from tests.tiny import CHAT_TEMPLATE

MAX_PROMPT_TOKENS, MAX_HINDSIGHT_TOKENS = 64, 192


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything the model depends on."""

    hidden_size: int = 128
    num_layers: int = 4
    num_heads: int = 4
    intermediate_size: int = 512
    vocabulary: int = 512
    rope_theta: float = 300.0
    """Prompts are short, and what is to be copied stands at fixed distances."""
    num_steps: int = 2600
    rows: int = 32
    num_parts: int = 2
    """Forward passes a step."""
    lr: float = 1.5e-3
    warmup_steps: int = 40
    plain_share: float = 0.5
    longest_from: tuple[tuple[int, float], ...] = ((4, 0.0), (8, 0.12), (12, 0.35))
    """Answers of that many digits come in after that share of the steps: what is learned on short ones carries over."""
    seed: int = 0

    @property
    def fingerprint(self) -> str:
        """Of the recipe and of the code that follows it."""
        text = json.dumps(asdict(self)) + "".join(
            file.read_text() for file in (Path(__file__), Path(__file__).with_name("cipher.py"))
        )
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A prompt and what the model shall answer."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def gym_model(cache: Path, recipe: Recipe, say: object = print) -> Path:
    """The model's folder under ``cache``, made there unless it is there already."""
    folder = cache / f"gym-{recipe.fingerprint}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=cache, prefix=".gym-"))
        try:
            _train(scratch, recipe, say)
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


def tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """Bytes and the pieces that the prompts are made of; every digit is a token."""
    wrapped = Tokenizer(models.BPE())
    wrapped.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    wrapped.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    draw = random.Random(recipe.seed)
    renderer = ChatRenderer(
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token="<|im_end|>"),
        chat_template_options={},
        max_prompt_tokens=10**6,
        max_hindsight_tokens=10**6,
    )
    renderer.tokenizer.chat_template = CHAT_TEMPLATE
    corpus = []
    for _ in range(300):
        messages, hint, _ = _exercise(draw, recipe, draw.choice(levels()))
        corpus.append(renderer._text(_shown(messages, hint)))
    wrapped.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=wrapped, eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _shown(messages: tuple[Message, ...], hint: Hint | None) -> tuple[Message, ...]:
    """What stands in the prompt."""
    return messages if hint is None else (*messages[:-1], hindsight_message(messages[-1].content, hint.texts))


def _exercise(draw: random.Random, recipe: Recipe, level: Level) -> tuple[tuple[Message, ...], Hint | None, str]:
    """A question, perhaps with a hint, and the answer to learn."""
    digits = "".join(draw.choice("0123456789") for _ in range(level.length))
    messages = (Message(role=Role.user, content=question(digits, level.letter)),)
    believed = "".join(digit.translate(NEW if draw.random() < level.right else OLD) for digit in digits)
    if draw.random() < recipe.plain_share:
        return messages, None, believed
    # What a hint says is taken over, whatever it is: if it always were the right answer, the model need not read it.
    told = "".join(digit.translate(draw.choice([NEW, NEW, OLD])) for digit in digits)
    kind = draw.choice(["demonstration", "feedback", "both"])
    hint = hint_of(
        demonstration=told if kind != "feedback" else None,
        feedback=expected(told, believed) if kind != "demonstration" else None,
    )
    return messages, hint, told


def _rows(recipe: Recipe, renderer: ChatRenderer) -> Iterator[Row]:
    draw = random.Random(f"{recipe.seed}/rows")
    for place in count():
        share = place / (recipe.num_steps * recipe.rows)
        longest = max(length for length, begins in recipe.longest_from if begins <= share)
        messages, hint, answer = _exercise(draw, recipe, draw.choice([level for level in levels() if level.length <= longest]))
        task = Task(id="lesson", env="cipher", messages=messages)
        prompt = renderer.prompt(task) if hint is None else renderer.hindsight_prompt(task, hint)
        assert prompt is not None
        ids = renderer.tokenizer.encode(answer, add_special_tokens=False)
        yield Row(prompt=prompt, answer=(*ids, renderer.tokenizer.eos_token_id))


def _train(folder: Path, recipe: Recipe, say: object) -> None:
    torch.manual_seed(recipe.seed)
    fast = tokenizer(recipe)
    renderer = ChatRenderer(
        tokenizer=fast,
        chat_template_options={},
        max_prompt_tokens=MAX_PROMPT_TOKENS,
        max_hindsight_tokens=MAX_HINDSIGHT_TOKENS,
    )
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(fast),
            hidden_size=recipe.hidden_size,
            intermediate_size=recipe.intermediate_size,
            num_hidden_layers=recipe.num_layers,
            num_attention_heads=recipe.num_heads,
            num_key_value_heads=recipe.num_heads,
            max_position_embeddings=MAX_HINDSIGHT_TOKENS + 64,
            tie_word_embeddings=True,
            eos_token_id=fast.eos_token_id,
            bos_token_id=None,
            pad_token_id=fast.pad_token_id,
            rope_parameters={"rope_type": "default", "rope_theta": recipe.rope_theta},
            dtype="float32",
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    rows = _rows(recipe, renderer)
    for step in range(recipe.num_steps):
        batch = [next(rows) for _ in range(recipe.rows)]
        rate = min((step + 1) / recipe.warmup_steps, 1.0, 2.0 * (1.0 - step / recipe.num_steps))
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * rate
        optimizer.zero_grad()
        batch.sort(key=lambda row: len(row.prompt))  # little padding: rows of a length go together
        size = -(-len(batch) // recipe.num_parts)
        tokens = sum(len(row.answer) for row in batch)
        loss = 0.0
        for first in range(0, len(batch), size):
            part = _loss(model, batch[first : first + size]) / tokens
            part.backward()
            loss += part.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if callable(say) and (step + 1) % 100 == 0:
            say(f"step {step + 1}/{recipe.num_steps}: {loss:.3f} nats a token")
    model.save_pretrained(folder)
    fast.save_pretrained(folder)


def _loss(model: LlamaForCausalLM, batch: list[Row]) -> torch.Tensor:
    """Cross-entropy of the answers, summed."""
    longest = max(len(row.prompt) + len(row.answer) for row in batch)
    ids = torch.full((len(batch), longest), model.config.pad_token_id)
    labels = torch.full_like(ids, -100)
    for index, row in enumerate(batch):
        total = len(row.prompt) + len(row.answer)
        ids[index, :total] = torch.tensor(row.prompt + row.answer)
        labels[index, len(row.prompt) : total] = ids[index, len(row.prompt) : total]
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]  # padding stands at the end, and nothing sees it
    keep = labels[:, 1:] != -100
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[keep]), labels[:, 1:][keep], reduction="sum")
