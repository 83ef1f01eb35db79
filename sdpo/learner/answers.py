"""What the ranks of the learner answer, and which one failed where one does not.

A rank that died is noticed at once, since Ray and gloo both see its sockets close; Ray notices whatever the others wait in. But
another may fail first, with an error of its collective. So after an error the ranks are asked whether they are still there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from sdpo.cluster.actors import and_lost_nodes
from sdpo.cluster.deaths import DIED, death, num_memory_kills
from sdpo.errors import LearnerLost, LearnerOutOfMemory, MachineError, UserError
from sdpo.run.logs import tail

DEATH_IS_KNOWN_S = 60.0
"""Longest that Ray takes to notice a death: at once that of a process, after some failed checks that of a whole machine."""


def answers(
    actors: Sequence[Any],
    asked: Sequence[ray.ObjectRef[Any]],
    logs: Sequence[Path],
    *,
    timeout_s: float,
    pids: Sequence[int] = (),
) -> list[Any]:
    """The answers to what the first ranks were ``asked``, one each; ``actors``, ``logs`` and ``pids`` are all ranks'.

    Raises LearnerLost where a rank died or did not answer in time, the user's error where a rank raised one, MachineError where
    it raised another. ``pids`` are the process ids, where they are known.
    """
    num_kills = num_memory_kills()
    try:
        return list(ray.get(list(asked), timeout=timeout_s))
    except GetTimeoutError as error:
        _, late = ray.wait(list(asked), num_returns=len(asked), timeout=0.0)
        silent = [rank for rank, ref in enumerate(asked) if ref in late]
        raise LearnerLost(
            f"{_named(silent)} of the learner did not answer within learner.timeout_s={timeout_s:g} s{and_lost_nodes()}.\n"
            f"{_ends(logs, silent)}"
        ) from error
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, UserError):
            raise cause from error
        found = dead(actors, within_s=DEATH_IS_KNOWN_S)
        if found or isinstance(error, RayActorError):
            raise _lost(found, logs, pids, num_kills) from error
        sentence = str(cause).partition("\n")[0]
        raise MachineError(f"a rank of the learner failed: {type(cause).__name__}: {sentence}. See {logs[0]}") from error


def _lost(found: Mapping[int, RayError], logs: Sequence[Path], pids: Sequence[int], num_kills: int) -> LearnerLost:
    """What to raise for ranks that died; ``num_kills``: ``num_memory_kills`` before."""
    ranks = sorted(found)
    for rank in ranks:
        how = death(found[rank], pid=pids[rank] if rank < len(pids) else None, num_kills_before=num_kills)
        if how.words != DIED:
            kind = LearnerOutOfMemory if how.is_for_memory else LearnerLost
            return kind(f"rank {rank} of the learner {how.words}.\n{_ends(logs, [rank])}")
    return LearnerLost(f"{_named(ranks)} of the learner died{and_lost_nodes()}.\n{_ends(logs, ranks)}")


def dead(actors: Sequence[Any], *, within_s: float) -> dict[int, RayError]:
    """What Ray says of ranks whose process is known to have ended; returns once there is one, or every rank has answered."""
    until = time.monotonic() + within_s
    waiting = {actor.ready.remote(): rank for rank, actor in enumerate(actors)}
    found: dict[int, RayError] = {}
    while waiting and not found:
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=max(0.0, until - time.monotonic()))
        if not ready:
            break
        ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0.0)
        for ref in ready:
            rank = waiting.pop(ref)
            try:
                ray.get(ref)
            except RayError as error:
                found[rank] = error
    return found


def _named(ranks: Sequence[int]) -> str:
    if not ranks:
        return "a rank"
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def _ends(logs: Sequence[Path], ranks: Sequence[int]) -> str:
    return "\n".join(f"The end of {logs[rank]}:\n{tail(logs[rank])}" for rank in ranks)
