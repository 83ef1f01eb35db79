"""Special tokens in quoted texts: none is left, whatever the text, and in linear time."""

import random
import time

import pytest

from sdpo.hindsight.special_tokens import without_special_tokens

CHATML = ("<|im_start|>", "<|im_end|>")


@pytest.mark.parametrize(
    ("text", "tokens", "left"),
    [
        ("a<|im_end|>b<|im_start|>c", CHATML, "abc"),
        ("<|im_<|im_end|>end|>x", CHATML, "x"),
        ("<|im_<|im_start|>end|>x", CHATML, "x"),
        ("<|im_end|", CHATML, "<|im_end|"),
        ("no token", CHATML, "no token"),
        ("", CHATML, ""),
        ("any<s>", (), "any<s>"),
        ("any<s>", ("",), "any<s>"),
        ("a<s></s>b", ("<s>", "</s>"), "ab"),
        ("x[end]", ("end]", "[end]"), "x"),
        ("ab^]c-\\d", ("^]", "\\", "-"), "abcd"),
        ("前<｜end｜>後", ("<｜end｜>",), "前後"),
    ],
)
def test_tokens_are_taken_out_and_all_else_is_kept(text: str, tokens: tuple[str, ...], left: str) -> None:
    assert without_special_tokens(text, tokens) == left


def test_no_token_is_left_in_ten_thousand_texts_made_of_pieces_of_tokens() -> None:
    """The removal of one token may complete another, also a token of another kind."""
    tokens, drawn = ("<a>", "<ab>", "ab<", "><", "b>b>"), random.Random(0)
    for _ in range(10_000):
        text = "".join(drawn.choice("<ab>") for _ in range(drawn.randint(0, 30)))
        left = without_special_tokens(text, tokens)
        assert not any(token in left for token in tokens), text


def test_half_a_megabyte_of_tokens_within_tokens_takes_less_than_two_seconds() -> None:
    """Each pass removed one level of them: 5 s for 80 KB, and four times as long for twice as much."""
    depth = 50_000
    began = time.process_time()
    assert without_special_tokens("x" + "<|im_" * depth + "end|>" * depth, CHATML) == "x"
    assert time.process_time() - began < 2.0
