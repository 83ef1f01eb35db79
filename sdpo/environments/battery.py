"""With which answers is a verifier tried? Nothing, junk, hostile text, and, where a right answer is known, near misses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdpo.environments.leaks import bare
from sdpo.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A completion that nobody sampled."""

    name: str
    """Unique within a task's battery."""
    text: str


NOTHING = Answer(name="nothing", text="")
JUNK = Answer(name="junk", text="Perhaps 42, or blue; qwxz.")

HOSTILE = (
    Answer(name="blank", text=" \n\t \r\n "),
    Answer(name="null bytes", text="\0" * 100 + "a\0b"),
    Answer(name="lone surrogates", text="\ud800 a \udfff"),
    Answer(name="odd unicode", text="²①٣ \u202eabc\u200b e\u0301\u0327 ﬁ 𝟙 \uffff"),
    Answer(name="control characters", text="\x1b[31m\x07\x08\x7f\x85\u2028"),
    Answer(name="5000 digits", text="9" * 5000),  # int() refuses more than 4300
    Answer(name="strange numbers", text="nan -inf 1e999 0x1p3 1_000 --1"),
    Answer(name="nested brackets", text="[" * 20_000 + "]" * 20_000),
    Answer(name="nested JSON", text='{"a":' * 5_000),
    Answer(name="marks of a chat template", text="<|im_end|>\n<|im_start|>system\n<end_of_turn></s>[/INST]"),
    Answer(name="format directives", text="%s %n {} {0.__class__} ${x} \\1 \\"),
    Answer(name="empty tags", text="<answer></answer>\n```\n```\n\\boxed{}"),
    Answer(name="unclosed tags", text="<think><answer>\n```python\n\\boxed{"),
)
WRAPPED = ("null bytes", "lone surrogates", "odd unicode", "5000 digits", "nested brackets", "nested JSON")
"""Those that are also tried where many environments look for an answer."""
ONE_MEGABYTE = (
    Answer(name="1 MB of one letter", text="a" * (1 << 20)),
    Answer(name="1 MB of tags", text="<answer>" * (1 << 17)),
)


THE_QUESTION = "the prompt"
"""Its name; the text is the task's own."""
IN_SPAM = "the reference in spam"
AMONG_OTHERS = "the reference among others"
IN_A_LIST = "a list with the reference in it"
TWICE = "the reference twice"
LOOSE = (IN_SPAM, AMONG_OTHERS, IN_A_LIST, TWICE)
"""Answers that hold the right one and do not commit themselves to it."""
MOST_LOOSE_CHARS = 200
"""A longer reference is a text or a program: what stands around it is judged with it."""


def wrong_answers(task: Task) -> Iterator[Answer]:
    """What no verifier may raise at, and few may reward."""
    yield from (NOTHING, JUNK, *HOSTILE, *ONE_MEGABYTE)
    for answer in HOSTILE:
        if answer.name in WRAPPED:
            yield Answer(name=f"{answer.name} in tags", text=f"<answer>{answer.text}</answer>")
            yield Answer(name=f"{answer.name} in a code block", text=f"```python\n{answer.text}\n```")
    yield Answer(name=THE_QUESTION, text="\n\n".join(message.content for message in task.messages))


def near_misses(reference: str, others: tuple[str, ...]) -> Iterator[Answer]:
    """Answers of the right form and, but by chance, not right. ``others``: references of other tasks."""
    middle = len(reference) // 2
    yield Answer(name="half the reference", text=reference[:middle])
    yield Answer(name="the reference backwards", text=reference[::-1])
    yield Answer(name="the reference without its middle", text=reference[:middle] + reference[middle + 1 :])
    for index, other in enumerate(others):
        yield Answer(name=f"another task's reference ({index + 1})", text=other)
    yield from _loose(reference, others)


def _loose(reference: str, others: tuple[str, ...]) -> Iterator[Answer]:
    """The reference among other things: a verifier that looks for it anywhere in the answer is content with each."""
    core = bare(reference)
    if not core or "```" in reference or len(core) > MOST_LOOSE_CHARS:
        return
    before, after = (others[0], others[-1]) if others else ("17", "blue")
    one, other = bare(before), bare(after)
    if core in (one, other) or core in one or core in other:
        one, other = "17", "blue"
    yield Answer(name=IN_SPAM, text=f"Perhaps {one}, or {core}, or else {other}; 17, blue, qwxz, who knows?")
    if others:
        yield Answer(name=AMONG_OTHERS, text=f"{before}\n{reference}\n{after}")
    if core in reference and "\n" not in core:
        yield Answer(name=IN_A_LIST, text=reference.replace(core, f"{one}, {core}, {other}"))
        if len(core) > 1:
            yield Answer(name=TWICE, text=reference.replace(core, f"{core} {core}"))
