"""The times of the scale model, from a run folder, a line of JSON, or docs/performance.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from sdpo.errors import UserError
from sdpo.planning.host_memory import payload_bytes
from sdpo.planning.learner_state import Learning
from sdpo.planning.request import PlanRequest
from sdpo.planning.scale import Workload
from sdpo.planning.shapes import ModelShape
from sdpo.report.phases import Phase, step_times, typical
from sdpo.report.record import RunRecord, run_record

DEFAULT = "default"
QUICKER_ALONE = 2.0
"""How much quicker a sequence is decoded alone than in the measured batch; assumed where ``longest_s`` is not given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What was measured."""

    source: str
    seconds: Mapping[Phase, float]
    ahead_s: float
    """Generation beside earlier steps."""
    longest_s: float | None
    num_nodes: int
    ranks_per_node: float
    """Ranks of a node that had rows of their own."""
    attempts: float
    learned_tokens: float | None
    """Tokens learned in a step, over all ranks."""
    updates: int


def workload(request: PlanRequest, shape: ModelShape) -> Workload:
    """Raises UserError where ``scale`` names no times."""
    assert request.scale is not None
    found, config = _times(request.scale, request), request.config
    learning = Learning(shape=shape, learner=config.learner, algorithm=config.algorithm)
    seconds = {phase: found.seconds.get(phase, 0.0) for phase in Phase}
    learn_s = seconds[Phase.teacher] + seconds[Phase.student] + seconds[Phase.learn]
    generate_s = seconds[Phase.generate] + found.ahead_s
    if found.ahead_s > 0.0:  # what was done ahead took no longer than what it was hidden beside
        generate_s = min(generate_s, seconds[Phase.generate] + learn_s + seconds[Phase.optimizer])
    longest = found.longest_s if found.longest_s is not None else generate_s / QUICKER_ALONE
    ranks = found.ranks_per_node * found.num_nodes
    passes = (found.learned_tokens or 0.0) / found.updates / ranks / config.batch.micro_batch_tokens
    return Workload(
        source=found.source,
        num_nodes=found.num_nodes,
        generate_s=generate_s,
        longest_s=min(longest, generate_s),
        verify_s=seconds[Phase.verify],
        learn_s=learn_s,
        optimizer_s=seconds[Phase.optimizer],
        sync_s=seconds[Phase.sync],
        driver_s=seconds[Phase.hindsight] + seconds[Phase.record] + seconds[Phase.rest],
        attempts=found.attempts,
        rows_per_update=found.attempts * config.learner.num_epochs / found.updates,
        updates=found.updates,
        ranks_per_node=found.ranks_per_node,
        passes=max(1, ceil(passes)),
        zero_stage=config.learner.zero_stage,
        gradient_bytes=4.0 * learning.num_trained,
        weight_bytes=payload_bytes(shape, config),
        overlaps=config.rollout.staleness > 0,
    )


def _times(word: str, request: PlanRequest) -> Times:
    if word == DEFAULT:
        return _of_json(DOCUMENTED, "the step of docs/performance.md", request)
    if word.lstrip().startswith("{"):
        try:
            found = json.loads(word)
        except (ValueError, RecursionError) as error:
            raise UserError(f"scale=JSON must be a JSON object of seconds; it cannot be read ({error}).") from error
        return _of_json(found, "the times given", request)
    try:
        return _of_run(run_record(Path(word)), request)
    except UserError:
        raise
    except (OSError, ValueError) as error:  # no file can have that name
        raise UserError(f"scale= names a run folder, JSON of seconds, or {DEFAULT}; got {word[:80]!r} ({error}).") from error


_KEYS = {phase.name: phase for phase in Phase}
_OTHERS = ("longest", "ahead", "nodes", "attempts", "learned_tokens")


def _of_json(found: Mapping[str, object], source: str, request: PlanRequest) -> Times:
    """``{"generate": 8.4, "student": 9.1, ...}``, phases by the names of ``sdpo profile``'s JSON."""
    for key, value in found.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value < 1e12
        if (key not in _KEYS and key not in _OTHERS) or not is_number:
            raise UserError(
                f"scale=JSON holds numbers of at least 0 under the keys {', '.join([*_KEYS, *_OTHERS])}; got {str(key)[:40]!r}: "
                f"{str(value)[:40]!r}."
            )
    numbers = {key: float(value) for key, value in found.items() if isinstance(value, int | float)}
    if not any(numbers.get(key, 0.0) > 0.0 for key in _KEYS):
        raise UserError(f"scale=JSON needs the seconds of a phase: one of {', '.join(_KEYS)}; got {sorted(found)}.")
    nodes = numbers.get("nodes", 1.0)
    if nodes < 1.0 or nodes != int(nodes) or numbers.get("attempts", 1.0) <= 0.0:
        raise UserError(f"scale=JSON is of whole nodes and of attempts above 0; got {found}.")
    batch = request.config.batch
    return Times(
        source=source,
        seconds={_KEYS[key]: value for key, value in numbers.items() if key in _KEYS},
        ahead_s=numbers.get("ahead", 0.0),
        longest_s=numbers.get("longest"),
        num_nodes=int(nodes),
        ranks_per_node=request.config.learner.num_data_ranks / request.config.cluster.nodes,
        attempts=numbers.get("attempts", float(batch.num_tasks * batch.group_size)),
        learned_tokens=numbers.get("learned_tokens"),
        updates=batch.num_tasks // (batch.tasks_per_update or batch.num_tasks) * request.config.learner.num_epochs,
    )


def _of_run(run: RunRecord, request: PlanRequest) -> Times:
    """The median step. Raises UserError where it recorded no times."""
    times = step_times(run.steps)
    if times is None or times.total_s <= 0.0:
        raise UserError(
            f"scale=RUN is a run folder with the times of a finished step (time/… in metrics.jsonl); {run.path} has none yet."
        )
    batch, nodes = request.config.batch, run.config.get("cluster.nodes", 1)
    num_nodes = nodes if isinstance(nodes, int) and nodes > 0 else 1
    updates = batch.num_tasks // (batch.tasks_per_update or batch.num_tasks) * request.config.learner.num_epochs
    return Times(
        source=f"{run.name}, {'its only step' if times.is_first_counted else f'the median of {times.num_steps} steps'}",
        seconds=times.seconds,
        ahead_s=typical(run.steps, "time/ahead_s") or 0.0,
        longest_s=_longest_s(run, times.seconds.get(Phase.generate, 0.0)),
        num_nodes=num_nodes,
        ranks_per_node=_data_ranks(run, request) / num_nodes,
        attempts=typical(run.steps, "attempts") or float(batch.num_tasks * batch.group_size),
        learned_tokens=typical(run.steps, "learned_tokens"),
        updates=max(1, round(typical(run.steps, "updates") or updates)),
    )


def _data_ranks(run: RunRecord, request: PlanRequest) -> int:
    """Ranks of the run that had rows of their own; as it is planned, where its config does not say."""
    ranks, team = (run.config.get(f"learner.{key}") for key in ("num_ranks", "sequence_parallel"))
    if isinstance(ranks, int) and isinstance(team, int) and 0 < team <= ranks:
        return ranks // team
    return request.config.learner.num_data_ranks


def _longest_s(run: RunRecord, generate_s: float) -> float | None:
    """Seconds of the longest response by itself; None where the run does not say enough.

    While all sequences run at once, each advances a token a pass, so the longest one lasts as long as generation does. Alone it
    would be quicker. Where sequences came in waves, it is a part of that. The lengths of the last step's attempts tell how much.
    """
    lengths = [attempt.num_tokens for attempt in run.attempts if attempt.num_tokens]
    at_once, engines = (run.config.get(f"rollout.{key}") for key in ("max_num_seqs", "num_engines"))
    if not lengths or not isinstance(at_once, int) or not isinstance(engines, int):
        return None
    waves = sum(lengths) / max(1, at_once * engines) / max(lengths)
    return generate_s / max(1.0, waves) / QUICKER_ALONE


DOCUMENTED: Mapping[str, float] = {
    "generate": 8.4, "learn": 16.4, "attempts": 48.0, "learned_tokens": 6656.0, "nodes": 1,
}  # fmt: skip
"""Sampling and update of docs/performance.md (SmolLM2-135M in bf16 on two cores); what else a step does was not timed there."""
