"""Which rows does each update learn from? A function of the seed: pairs mixed by their shares, and plain rows beside them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from sdpo.batches.updates import pack
from sdpo.config import BatchConfig, WarmupConfig
from sdpo.errors import UserError
from sdpo.types import Group, Ranks, Sample, Update
from sdpo.warmup.pairs import Pair, Pairs

T = TypeVar("T")
SOURCES = ("demonstration", "feedback", "both")
"""Kinds of hint, in the words of ``Hint.kind``, whose shares ``pairs`` names."""


def updates(pairs: Pairs, groups: Sequence[Group], config: WarmupConfig, ranks: Ranks) -> Iterator[Update]:
    """``config.num_updates`` of them."""
    batch = BatchConfig(
        num_tasks=config.pairs_per_update + config.plain_per_update, group_size=1, micro_batch_tokens=config.micro_batch_tokens
    )
    taught = _mixed(pairs, config)
    plain = _in_turn([sample for group in groups for sample in _plain(group, config.kl_weight)], f"{config.seed}/plain")
    for _ in range(config.num_updates):
        samples = [_supervised(next(taught)) for _ in range(config.pairs_per_update)]
        samples += [next(plain) for _ in range(config.plain_per_update)]
        (update,) = pack([replace(sample, task_index=row) for row, sample in enumerate(samples)], batch, ranks, config.algorithm)
        yield update


def shares(pairs: Pairs, config: WarmupConfig) -> dict[str, float]:
    """Shares of the sources that have pairs, as the config weighs them. Raises UserError where it gives them nothing."""
    wanted = {source: float(getattr(config.pairs, source)) for source in SOURCES if source in pairs}
    total = sum(wanted.values())
    if total == 0.0:
        raise UserError(
            "pairs.demonstration, pairs.feedback and pairs.both must give a share to a source that has pairs; there are only "
            f"pairs with {' and '.join(wanted)}, whose shares are 0. Raise one of those."
        )
    return {source: share / total for source, share in wanted.items()}


def _mixed(pairs: Pairs, config: WarmupConfig) -> Iterator[Pair]:
    """Without end; after any number of pairs every source has had its share, to within a pair."""
    of_source = {source: _in_turn(found, f"{config.seed}/{source}") for source, found in pairs.items()}
    share, given = shares(pairs, config), dict.fromkeys(pairs, 0)
    while True:
        num = sum(given.values()) + 1
        most_owed = max(given, key=lambda source: share[source] * num - given[source])
        given[most_owed] += 1
        yield next(of_source[most_owed])


def _in_turn(things: Sequence[T], seed: str) -> Iterator[T]:
    """All of them in a new order each time, without end."""
    epoch = 0
    while things:
        order = list(things)
        random.Random(f"{seed}/{epoch}").shuffle(order)
        yield from order
        epoch += 1


def _supervised(pair: Pair) -> Sample:
    num = len(pair.response_ids)
    return Sample(
        prompt_ids=pair.prompt_ids,
        teacher_prompt_ids=None,
        response_ids=pair.response_ids,
        loss_mask=(True,) * num,
        sampled_logprobs=(0.0,) * num,
        advantage=0.0,
        supervised_weight=1.0,
    )


def _plain(group: Group, kl_weight: float) -> Iterator[Sample]:
    """The base's own answers, on which the policy is held to what the base says under the same prompt."""
    for attempt in group.attempts:
        completion = attempt.completion
        if completion.token_ids:
            yield Sample(
                prompt_ids=group.prompt_ids,
                teacher_prompt_ids=group.prompt_ids,
                response_ids=completion.token_ids,
                loss_mask=(True,) * len(completion.token_ids),
                sampled_logprobs=completion.logprobs,
                advantage=0.0,
                distillation_weight=kl_weight,
            )
