"""How would the policy have written a given text? As token ids that end where its turn ends."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import GenerationConfig, PreTrainedTokenizerBase

from sdpo.errors import UserError
from sdpo.protocols import Renderer
from sdpo.types import Completion, Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Texts to completions, as an engine would return them."""

    tokenizer: PreTrainedTokenizerBase
    end_of_turn: int

    def completion(self, text: str) -> Completion:
        """``text`` is read back from its tokens, so that what is verified is what is learned."""
        token_ids = (*self.tokenizer.encode(text, add_special_tokens=False), self.end_of_turn)
        return Completion(
            token_ids=token_ids,
            logprobs=(0.0,) * len(token_ids),
            text=str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True)),
            finish=Finish.stop,
            weights_version=0,
        )


def writer(model_path: str, tokenizer: PreTrainedTokenizerBase, renderer: Renderer) -> Writer:
    """Raises UserError for a model that no token stops."""
    return Writer(tokenizer=tokenizer, end_of_turn=_end_of_turn(model_path, tokenizer, renderer))


def _end_of_turn(model_path: str, tokenizer: PreTrainedTokenizerBase, renderer: Renderer) -> int:
    """What the chat template puts after the policy's turn, if the engine stops there; else where it stops anyway.

    A template may end a turn with another token than the tokenizer's end of sequence, and put a line break after it.
    """
    stops = _stop_ids(model_path, tokenizer)
    if not stops:
        raise UserError(
            f"model.path must stop somewhere (a warm-up teaches whole answers); {model_path!r} names no end of sequence, neither "
            "in its tokenizer nor in its generation config. Add eos_token_id to generation_config.json."
        )
    following = renderer.reply("-", after=-1)
    return next((token_id for token_id in following if token_id in stops), stops[0])


def _stop_ids(model_path: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """As the engine has them, the tokenizer's first."""
    try:
        declared = GenerationConfig.from_pretrained(model_path).eos_token_id
    except OSError:
        declared = None
    several = [declared] if isinstance(declared, int) else list(declared or ())
    return [token_id for token_id in (tokenizer.eos_token_id, *several) if isinstance(token_id, int)]
