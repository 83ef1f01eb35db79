"""Can this model be asked and trained? Its tokens have rows, a token ends an answer, and adapters find their layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sdpo.config import LoraConfig
from sdpo.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

ALL_LINEAR = "all-linear"


def refuse_no_causal_lm(settings: PretrainedConfig, path: str) -> None:
    """Raises UserError where transformers has no causal LM of this kind of model."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(settings) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return
    raise UserError(
        f"model.path must be a model that transformers loads as a causal LM (text in, text out); {path} is a "
        f"{settings.model_type}, and there is none of that kind. Take the family's text model."
    )


def refuse_tokens_without_rows(tokenizer: PreTrainedTokenizerBase, settings: PretrainedConfig, path: str) -> None:
    """Raises UserError where the tokenizer makes an id that the model has no row for.

    Special tokens that neither the chat template nor the tokenizer itself uses may lack one: they are taken out of texts.
    """
    rows = int(settings.get_text_config().vocab_size)
    template = str(tokenizer.chat_template)
    ends = {str(token) for token in (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) if token is not None}
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special} - ends
    beyond = sorted(
        (token_id, token)
        for token, token_id in tokenizer.get_vocab().items()
        if token_id >= rows and (token not in special or token in template)
    )
    if beyond:
        token_id, token = beyond[0]
        raise UserError(
            f"every token must have a row in the model's embedding; in {path} the tokenizer knows {len(beyond)} that do not, the "
            f"first {token!r} with id {token_id}, and the model has {rows} rows. Take the tokenizer that belongs to the model, "
            "or save the model after resize_token_embeddings."
        )


def refuse_endless(tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    """Raises UserError where no token ends an answer: neither the tokenizer nor the generation config names one."""
    from transformers import GenerationConfig

    if isinstance(tokenizer.eos_token_id, int):
        return
    try:
        declared = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:
        declared = None
    if declared is None or declared == []:
        raise UserError(
            f"a model must have a token that ends an answer (else every answer goes on to the length limit); {path} names none, "
            "neither eos_token in tokenizer_config.json nor eos_token_id in generation_config.json. Add one of them."
        )


def refuse_odd_targets(lora: LoraConfig, path: str) -> None:
    """Raises UserError where an adapter is to go to a layer that is not there, is not linear, or is the output embedding."""
    if lora.rank == 0 or lora.target_modules == [ALL_LINEAR]:
        return
    linear, others, output = _layers(path)
    names = sorted({name.rpartition(".")[2] for name in linear})
    for target in lora.target_modules:
        found = f"; got {target!r}. Name some of {', '.join(names)}, or {ALL_LINEAR} alone."
        if _matches(target, [output]):
            raise UserError(
                "learner.lora.target_modules must leave out the output embedding (the loss multiplies by its frozen weight)"
                + found
            )
        if _matches(target, others):
            raise UserError("learner.lora.target_modules must name linear layers (only their product can be merged)" + found)
        if not _matches(target, linear):
            raise UserError("learner.lora.target_modules must name layers that the model has (others would be left out)" + found)


def _matches(target: str, names: Sequence[str]) -> bool:
    """As peft finds them: the whole name, or its end."""
    return any(name == target or name.endswith(f".{target}") for name in names)


def _layers(path: str) -> tuple[list[str], list[str], str]:
    """Names of the linear layers, of the other layers with weights of their own, and of the output embedding."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):  # no memory is taken
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path))
    head = model.get_output_embeddings()
    output = next(name for name, module in model.named_modules() if module is head)
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not head]
    others = [name for name, module in model.named_modules() if name and name not in linear and name != output]
    return linear, others, output
