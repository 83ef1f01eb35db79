"""What would make a run fit? Keys to turn, each way checked by the same formulas before it is suggested.

Only keys that leave what is learned as it is, but for adapters, which are named last. Ways of one key come before ways of two and
three; among those, what costs less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product
from math import ceil
from typing import Any, cast

from sdpo.config import Config, Offload
from sdpo.planning.host_memory import object_store_bytes
from sdpo.planning.shapes import ModelShape
from sdpo.planning.terms import GIB

MOST = 4
"""Ways that are suggested."""
_Value = int | float | bool | Offload


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A key, what to set it to, and what that costs."""

    key: str
    value: _Value
    cost: str

    @property
    def word(self) -> str:
        """As on a command line."""
        value = self.value.value if isinstance(self.value, Offload) else self.value
        return f"{self.key}={str(value).lower() if isinstance(value, bool) else value}"


def suggestions(
    config: Config,
    shape: ModelShape,
    fits: Callable[[Config], bool],
    *,
    is_gpu: bool,
    may_turn: Callable[[str], bool] = lambda key: True,
) -> tuple[tuple[Turn, ...], ...]:
    """Ways of at most three turns of keys that may be turned; where the object store is too small, that is turned besides."""
    needed, given = object_store_bytes(shape, config) / GIB, config.cluster.object_store_gib
    base: tuple[Turn, ...] = ()
    if given is not None and needed > given:
        base = (Turn(key="cluster.object_store_gib", value=ceil(needed), cost="shared memory of every node"),)
    if base and (found := turned(config, base)) is not None and fits(found):
        return (base,)
    ladders = [ladder for ladder in _ladders(config, is_gpu=is_gpu) if ladder and may_turn(ladder[0].key)]
    ways: list[tuple[Turn, ...]] = []
    for num in (1, 2, 3):
        for picked in combinations(ladders, num):
            # The first value that helps is the least: the others of a ladder go further.
            for turns in product(*picked):
                changed = turned(config, (*base, *turns))
                if changed is not None and fits(changed):
                    ways.append((*base, *turns))
                    break
            if len(ways) == MOST:
                return tuple(ways)
        if ways:
            return tuple(ways)
    return tuple(ways)


def turned(config: Config, turns: tuple[Turn, ...]) -> Config | None:
    """None where the config's own rules refuse it."""
    try:
        for turn in turns:
            config = cast(Config, _with(config, turn.key.split("."), turn.value))
    except ValueError:
        return None
    return config


def _with(part: Any, keys: list[str], value: _Value) -> Any:
    """A dataclass with one of its values changed, and its rules asked again."""
    first, *others = keys
    return replace(part, **{first: _with(getattr(part, first), others, value) if others else value})


def _ladders(config: Config, *, is_gpu: bool) -> Iterator[list[Turn]]:
    """Values of each key that go further and further, the cheapest key first."""
    learner, rollout, batch = config.learner, config.rollout, config.batch
    yield [Turn(key="learner.zero_stage", value=stage, cost=cost) for stage, cost in _STAGES if stage > learner.zero_stage]
    if not learner.gradient_checkpointing:
        yield [Turn(key="learner.gradient_checkpointing", value=True, cost="one more forward pass of the student")]
    row = config.sampling.max_prompt_tokens + config.sampling.max_response_tokens  # below it, passes do not get smaller
    shorter = [batch.micro_batch_tokens // 2**power for power in (1, 2, 3, 4)]
    yield [Turn(key="batch.micro_batch_tokens", value=tokens, cost="smaller passes") for tokens in shorter if tokens >= row]
    if is_gpu:
        shares = [share / 20 for share in range(4, 20) if share / 20 != rollout.gpu_memory_utilization]
        yield [
            Turn(key="rollout.gpu_memory_utilization", value=share, cost="another KV cache")
            for share in sorted(shares, key=lambda share: abs(share - rollout.gpu_memory_utilization))
        ]
        widths = [width for width in (2, 4, 8) if width > rollout.tensor_parallel_size]
        yield [Turn(key="rollout.tensor_parallel_size", value=width, cost="engines that talk in every layer") for width in widths]
        more = [learner.num_ranks * factor for factor in (2, 4, 8)]
        yield [Turn(key="learner.num_ranks", value=ranks, cost="more GPUs for the learner") for ranks in more]
        if learner.offload is Offload.none:
            yield [
                Turn(key="learner.offload", value=kind, cost="the optimizer's step on the host's CPU")
                for kind in (Offload.optimizer, Offload.all)
            ]
    if learner.sequence_parallel == 1 and is_gpu:
        yield [
            Turn(key="learner.sequence_parallel", value=size, cost="an all-to-all in every layer")
            for size in (2, 4, 8)
            if learner.num_ranks % size == 0
        ]
    if not is_gpu:
        smaller = range(1, rollout.kv_cache_gib)
        yield [Turn(key="rollout.kv_cache_gib", value=gib, cost="fewer sequences at once") for gib in reversed(smaller)]
    if not learner.lora.rank:
        yield [Turn(key="learner.lora.rank", value=32, cost="adapters instead of all weights; ten times the learning rate")]


_STAGES = ((2, "gradients are reduced at every pass"), (3, "parameters come by collectives in every pass"))
