"""Edits of a right answer: small, different, the same for the same seed, and never of the markup."""

from __future__ import annotations

import pytest

from sdpo.warmup.perturbation import perturbed

CODE = "```python\ndef clamp(x, low, high):\n    return max(low, min(x, high)) if x >= 2 else x and True\n```"
TEXTS = [CODE, "<answer>C6H12O</answer>", '{"name": "search", "n": 10}', "42", "The capital is Paris.", "x"]


@pytest.mark.parametrize("text", TEXTS)
def test_edits_are_different_texts_and_the_same_for_the_same_seed(text: str) -> None:
    edits = perturbed(text, 6, "seed")
    assert edits == perturbed(text, 6, "seed")
    assert len(set(edits)) == len(edits) <= 6
    assert text not in edits
    assert all(edit.strip() for edit in edits)
    if len(text) > 20:
        assert len(edits) == 6
        assert edits != perturbed(text, 6, "another")


def test_a_fence_and_a_tag_stay_as_they_are() -> None:
    for edit in perturbed(CODE, 50, "seed"):
        assert edit.startswith("```python\n")
        assert edit.endswith("\n```")
    for edit in perturbed("<answer>C6H12O</answer>", 50, "seed"):
        assert edit.startswith("<answer>")
        assert edit.endswith("</answer>")


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("max(a, b)", "min(a, b)"),
        ("a <= b", "a < b"),
        ("a and b", "a or b"),
        ("n - 3", "n - 4"),
        ("n - 3", "n + 3"),
        ("f(a, b)", "f(b, b)"),
        ("f(a, b)", "f(a b)"),
    ],
)
def test_what_a_small_model_gets_wrong_is_among_the_edits(text: str, edit: str) -> None:
    assert edit in perturbed(text, 100, "seed")


def test_numbers_stay_natural_and_nothing_gives_nothing() -> None:
    assert "-1" not in perturbed("0", 100, "seed")
    assert perturbed("", 5, "seed") == perturbed("x", 0, "seed") == ()
