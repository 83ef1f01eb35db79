"""Hindsight credit: what does a run keep of single tokens, for people to look at?

Each attempt has one record (``credit/step_NNNNNN.jsonl.gz``): both prompts as text, with the hint's place in the teacher's, and
the response token by token. Each token has log π(y_t), log q(y_t), the divergence and the most probable tokens of student and
teacher. The credit itself is the difference log q(y_t) - log π(y_t).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from sdpo.hindsight.hints import places
from sdpo.protocols import Renderer
from sdpo.types import Group, Hint, Sample, TokenCredit, TopTokens

if TYPE_CHECKING:
    from torch import Tensor


def lines(
    step: int,
    groups_P: Sequence[Group],
    hints_P_G: Sequence[Sequence[Hint | None]],
    samples: Sequence[Sample],
    credits: Sequence[TokenCredit],
    renderer: Renderer,
) -> Iterator[Mapping[str, object]]:
    """What there is to keep of a step's attempts."""
    of_keys = {(sample.task_index, sample.attempt_index): sample for sample in samples}
    for credit in credits:
        sample = of_keys[credit.task_index, credit.attempt_index]
        group, hint = groups_P[credit.task_index], hints_P_G[credit.task_index][credit.attempt_index]
        assert sample.teacher_prompt_ids is not None
        hindsight_prompt = renderer.text(sample.teacher_prompt_ids)
        marks = {} if hint is None else places(hindsight_prompt, group.task.messages[-1].content, hint)
        yield {
            "step": step,
            "task_index": credit.task_index,
            "attempt": credit.attempt_index,
            "task": group.task.id,
            "update": credit.update_index,
            "prompt": renderer.text(sample.prompt_ids),
            "hindsight_prompt": hindsight_prompt,
            "marks": {part: list(place) for part, place in marks.items()},
            "tokens": list(renderer.words(sample.response_ids)),
            **_numbers(credit, len(sample.response_ids)),
            "pieces": _pieces(credit, renderer),
        }


def _numbers(credit: TokenCredit, num_tokens: int) -> dict[str, object]:
    """[R] each; None where the token is not the policy's own."""
    places_n = credit.places_n.tolist()

    def spread(values_n: Sequence[object]) -> list[object]:
        known = dict(zip(places_n, values_n, strict=True))
        return [known.get(place) for place in range(num_tokens)]

    return {
        "student": spread(_rounded(credit.student_n)),
        "teacher": spread(_rounded(credit.teacher_n)),
        "divergence": spread(_rounded(credit.divergence_n)),
        "student_top": spread(_pairs(credit.student_top)),
        "teacher_top": spread(_pairs(credit.teacher_top)),
    }


def _rounded(values_n: Tensor) -> list[float]:
    """A ten-thousandth of a nat is less than anybody sees."""
    return [round(value, 4) for value in values_n.tolist()]


def _pairs(top: TopTokens) -> list[list[list[float]]]:
    """[n][k] of token id and log-probability."""
    return [
        [[int(token_id), round(logprob, 4)] for token_id, logprob in zip(ids_k, logprobs_k, strict=True)]
        for ids_k, logprobs_k in zip(top.ids_nk.tolist(), top.logprobs_nk.tolist(), strict=True)
    ]


def _pieces(credit: TokenCredit, renderer: Renderer) -> dict[str, str]:
    ids = sorted(
        {int(token_id) for top in (credit.student_top, credit.teacher_top) for token_id in top.ids_nk.flatten().tolist()}
    )
    return {str(token_id): word for token_id, word in zip(ids, renderer.words(ids), strict=True)}
