"""How do messages become token ids? The only user of the chat template.

Text is tokenised once, before sampling; what the engine returns is never tokenised again, so that engine, student and teacher
score the very same tokens.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sdpo.envs.judging import unreadable_part
from sdpo.errors import UserError
from sdpo.hindsight.hints import hindsight_message, question_after
from sdpo.hindsight.special_tokens import without_special_tokens
from sdpo.types import Hint, HintText, Message, Role, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ELISION = "\n[…]\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRenderer:
    """The Renderer of a Hugging Face tokenizer with a chat template."""

    tokenizer: PreTrainedTokenizerBase
    chat_template_options: Mapping[str, bool]
    max_prompt_tokens: int
    max_hindsight_tokens: int

    def prompt(self, task: Task) -> tuple[int, ...]:
        """[S] the student's prompt. Raises UserError if it is longer than ``max_prompt_tokens``, or no text that can be read."""
        unreadable = unreadable_part(task)
        if unreadable:
            raise UserError(
                f"a task must be text that a tokenizer can read; of task {task.id!r}, {unreadable} is none, or holds half of a "
                "surrogate pair. Mend the environment's tasks(), or leave that task out."
            )
        from jinja2 import TemplateError  # transformers imports it too, where it renders

        try:
            token_ids = self._ids(task.messages)
        except TemplateError as error:
            roles = ", ".join(message.role.value for message in task.messages)
            raise UserError(
                f"the model's chat template must take every task's messages; that of {self.tokenizer.name_or_path} refuses those "
                f"of task {task.id!r} ({roles}): {error}. Choose a model whose template takes them, or let the environment put "
                "what the system message says into the user's."
            ) from error
        if len(token_ids) > self.max_prompt_tokens:
            raise UserError(
                f"sampling.max_prompt_tokens must hold every task's prompt; task {task.id!r} has {len(token_ids)} tokens and "
                f"the limit is {self.max_prompt_tokens}. Raise sampling.max_prompt_tokens or leave that task out."
            )
        return token_ids

    def text(self, token_ids: Sequence[int]) -> str:
        """What the tokens spell, special ones as they are written. For people to read: nothing of it is tokenised again."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def words(self, token_ids: Sequence[int]) -> tuple[str, ...]:
        """The same token by token; U+FFFD stands for a part of a character."""
        pieces = self.tokenizer.convert_ids_to_tokens(list(token_ids))
        return tuple(_with_space(piece, self.text([token_id])) for piece, token_id in zip(pieces, token_ids, strict=True))

    def reply(self, text: str, *, after: int) -> tuple[int, ...]:
        """The tokens between the policy's turn, whose last token is ``after``, and its next one.

        They are the environment's ``text`` among the template's own tokens, read off a conversation that holds a mark where the
        policy spoke. The mark is drawn anew each time: a text that holds it would be cut there.
        """
        quoted, mark = self._quoted(text), _mark()
        messages = (
            Message(role=Role.user, content="-"),
            Message(role=Role.assistant, content=mark),
            Message(role=Role.user, content=quoted),
        )
        following = self._text(messages).rpartition(mark)[2]
        token_ids = tuple(self.tokenizer.encode(following, add_special_tokens=False))
        return token_ids[1:] if token_ids[0] == after else token_ids

    def hindsight_prompt(self, task: Task, hint: Hint) -> tuple[int, ...] | None:
        """[Q] the teacher's prompt. Over the limit the hint's texts lose their middle, the last one first: feedback before the
        demonstration.

        None where nothing of the hint is left. The hint's texts quote what a model wrote, so the template's own markers are
        taken out of them. An answer must not be able to end the message it is quoted in.
        """
        question = task.messages[-1].content
        texts = [replace(text, text=self._quoted(text.text)) for text in hint.texts]

        def render(texts: Sequence[HintText]) -> tuple[int, ...]:
            return self._ids((*task.messages[:-1], hindsight_message(question, texts)))

        def fits(texts: Sequence[HintText]) -> bool:
            return len(render(texts)) <= self.max_hindsight_tokens

        for place in reversed(range(len(texts))):
            if fits(texts):
                break
            texts = _cut(texts, place, fits)
        token_ids = render(texts)
        if len(token_ids) > self.max_hindsight_tokens:
            raise UserError(
                "algorithm.hindsight.max_prompt_tokens must hold the question and the closing instruction; those of task "
                f"{task.id!r} alone have {len(token_ids)} tokens and the limit is {self.max_hindsight_tokens}. Raise it."
            )
        return token_ids if any(text.text for text in texts) else None

    def with_feedback(self, task: Task, feedbacks: Sequence[str]) -> Task:
        """The task with its question followed by those of ``feedbacks`` that fit into ``max_prompt_tokens``.

        The oldest, which come first, are left out first. The latest loses its middle where it alone is too long.
        """
        quoted = [self._quoted(feedback) for feedback in feedbacks]

        def told(shown: Sequence[str]) -> Task:
            question = question_after(task.messages[-1].content, [text for text in shown if text])
            return replace(task, messages=(*task.messages[:-1], Message(role=Role.user, content=question)))

        def fits(shown: Sequence[str]) -> bool:
            return len(self._ids(told(shown).messages)) <= self.max_prompt_tokens

        first = len(quoted)
        while first > 0 and fits(quoted[first - 1 :]):
            first -= 1
        if first == len(quoted) and quoted:
            return told([_longest_cut(quoted[-1], lambda cut: fits([cut]))])
        return told(quoted[first:])

    def _quoted(self, text: str) -> str:
        """``text`` without special tokens, also not such as arise when others are removed."""
        added = (str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special)
        special = {*self.tokenizer.all_special_tokens, *added}  # some tokenizers name only few of them among the first
        return without_special_tokens(text, special).strip()

    def _ids(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(self._text(messages), add_special_tokens=False))

    def _text(self, messages: tuple[Message, ...]) -> str:
        text = self.tokenizer.apply_chat_template(
            [{"role": message.role.value, "content": message.content} for message in messages],
            tokenize=False,
            add_generation_prompt=True,
            **dict[str, Any](self.chat_template_options),
        )
        return str(text)


def _mark() -> str:
    """A word that no text holds: nobody can guess it."""
    return f"the-policy-spoke-here-{secrets.token_hex(16)}"


def _with_space(piece: str | None, text: str) -> str:
    """Tokenizers in the style of sentencepiece leave out the space before a token that is decoded alone."""
    return " " + text if piece is not None and piece.startswith("\u2581") and not text.startswith(" ") else text


def _cut(texts: Sequence[HintText], place: int, fits: Callable[[Sequence[HintText]], bool]) -> list[HintText]:
    """``texts`` with as much of the middle of the one at ``place`` left out as it takes to fit."""

    def with_text(text: str) -> list[HintText]:
        return [*texts[:place], replace(texts[place], text=text), *texts[place + 1 :]]

    return with_text(_longest_cut(texts[place].text, lambda cut: fits(with_text(cut))))


def _longest_cut(text: str, fits: Callable[[str], bool]) -> str:
    """``text`` with as much of its middle left out as it takes to fit, found by bisection; "" where no part of it fits."""
    best = ""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        candidate = _elided(text, middle)
        if fits(candidate):
            best, low = candidate, middle
        else:
            high = middle - 1
    return best


def _elided(text: str, num_chars: int) -> str:
    """The first and last ``num_chars // 2`` characters, the middle marked as left out."""
    if num_chars >= len(text):
        return text
    head, tail = (num_chars + 1) // 2, num_chars // 2
    return text[:head] + ELISION + (text[-tail:] if tail else "")
