"""What does the learner keep of single tokens, so that people can see what hindsight changed?

The scores are the very ones that the loss was made of. The most probable tokens take logits of their own, of the drawn attempts
alone: a loss does not know them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdpo.learner.orders import Recording
from sdpo.learner.stopwatch import Stopwatch
from sdpo.objectives.comparison import Comparison
from sdpo.objectives.logits import PLAIN, Budget, HeadRule, Logits
from sdpo.objectives.scores import TokenScores
from sdpo.objectives.top_tokens import top_tokens
from sdpo.types import MicroBatch, TokenCredit, TopTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """Keeps what one update says of the attempts that are drawn."""

    recording: Recording
    step: int
    update_index: int
    stopwatch: Stopwatch
    kept: list[TokenCredit]
    """What was kept so far; added to."""

    @torch.no_grad()
    def keep(
        self,
        batch: MicroBatch,
        places_m: Tensor,
        scores: TokenScores,
        hidden_mH: Tensor,
        head_VH: Tensor,
        comparison: Comparison,
        budget: Budget,
        rule: HeadRule = PLAIN,
    ) -> None:
        """``places_m``: which of the micro-batch's N response tokens the m ``scores`` and ``hidden_mH`` are of, all of them
        distilled."""
        with self.stopwatch.timing("record"):
            rows_m = batch.rows_N[places_m]
            for row in rows_m.unique().tolist():
                key = batch.row_keys[row]
                if self.recording.draws(self.step, key):
                    here_n = (rows_m == row).nonzero()[:, 0]
                    places_n = places_m[here_n] - int((batch.rows_N == row).nonzero()[0, 0])
                    self.kept.append(self._credit(key, places_n, here_n, scores, hidden_mH, head_VH, comparison, budget, rule))

    def _credit(
        self,
        row_key: tuple[int, int],
        places_n: Tensor,
        here_n: Tensor,
        scores: TokenScores,
        hidden_mH: Tensor,
        head_VH: Tensor,
        comparison: Comparison,
        budget: Budget,
        rule: HeadRule,
    ) -> TokenCredit:
        there_n = here_n.to(hidden_mH.device)
        student = [Logits(hidden_NH=hidden_mH.detach()[there_n], head_VH=head_VH.detach(), rule=rule)]
        teacher = [replace(part, hidden_NH=part.hidden_NH[there_n]) for part in comparison.teacher]
        num_top, vocabulary = self.recording.num_top, len(head_VH)
        return TokenCredit(
            task_index=row_key[0],
            attempt_index=row_key[1],
            update_index=self.update_index,
            places_n=places_n,
            student_n=scores.student_N[there_n].float().cpu(),
            teacher_n=scores.teacher_N[there_n].float().cpu(),
            divergence_n=scores.divergence_N[there_n].float().cpu(),
            student_top=_on_cpu(top_tokens(student, vocabulary, num_top, budget=budget)),
            teacher_top=_on_cpu(top_tokens(teacher, vocabulary, num_top, budget=budget)),
        )


def _on_cpu(top: TopTokens) -> TopTokens:
    return TopTokens(ids_nk=top.ids_nk.cpu(), logprobs_nk=top.logprobs_nk.cpu())


def joined_credit(parts: Sequence[TokenCredit]) -> tuple[TokenCredit, ...]:
    """Attempts in order, each with all its tokens in order: ranks that share a row have each scored a part of it."""
    of_attempts: dict[tuple[int, int, int], list[TokenCredit]] = {}
    for part in parts:
        of_attempts.setdefault((part.task_index, part.attempt_index, part.update_index), []).append(part)
    return tuple(_joined(of_attempts[key]) for key in sorted(of_attempts))


def _joined(parts: Sequence[TokenCredit]) -> TokenCredit:
    places_n = torch.cat([part.places_n for part in parts])
    order_n = places_n.argsort()

    def in_order(values: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(values))[order_n]

    def top(of_parts: Sequence[TopTokens]) -> TopTokens:
        return TopTokens(
            ids_nk=in_order([part.ids_nk for part in of_parts]), logprobs_nk=in_order([part.logprobs_nk for part in of_parts])
        )

    return replace(
        parts[0],
        places_n=places_n[order_n],
        student_n=in_order([part.student_n for part in parts]),
        teacher_n=in_order([part.teacher_n for part in parts]),
        divergence_n=in_order([part.divergence_n for part in parts]),
        student_top=top([part.student_top for part in parts]),
        teacher_top=top([part.teacher_top for part in parts]),
    )
