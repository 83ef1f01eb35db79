"""Metrics and rollouts out: JSON lines always, TensorBoard, W&B and MLflow by config."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from sdpo.attempts.tried import plain_tried
from sdpo.config import Config, TrackingConfig, WandbMode
from sdpo.guards.alarms import Alarm
from sdpo.run import journal
from sdpo.run.files import whole
from sdpo.run.folder import RunFolder, plain, records
from sdpo.tracking.background import BackgroundSink
from sdpo.tracking.mlflow import Mlflow
from sdpo.tracking.sink import About, Record, Sink
from sdpo.tracking.tensorboard import TensorBoard
from sdpo.tracking.wandb import Wandb
from sdpo.types import Completion, Evaluation, Group, Hint, Lift, Metrics, Tried


def trackers_of(config: Config, folder: RunFolder, on_event: Callable[[str], None]) -> tuple[BackgroundSink, ...]:
    """The run's trackers, started. Each is given what was recorded before and it does not have: a tracker may have been out of
    reach, or not asked for. ``on_event`` is called from threads of theirs."""
    about = About(name=config.name, tags=config.tracking.tags, config=plain(config))
    wandb, mlflow = config.tracking.wandb, config.tracking.mlflow
    late: list[BackgroundSink] = []
    if wandb.mode is not WandbMode.none:
        late.append(BackgroundSink("W&B", partial(Wandb, wandb, about, folder.path, folder.tracker("wandb")), on_event))
    if mlflow.enabled:
        uri = mlflow.uri or f"sqlite:///{folder.path.parent / 'mlflow.db'}"
        late.append(BackgroundSink("MLflow", partial(Mlflow, mlflow, uri, about, folder.tracker("mlflow")), on_event))
    for sink in late:
        for record in _recorded(folder):
            sink.record(record)
    local = (
        [BackgroundSink("TensorBoard", partial(TensorBoard, folder.tensorboard), on_event)] if config.tracking.tensorboard else []
    )
    return (*local, *late)


def _recorded(folder: RunFolder) -> list[Record]:
    """What stands in the run's folder, in order."""
    found = [
        Record(step=line["step"], is_evaluation=is_evaluation, metrics=_numbers(line))
        for is_evaluation, file in ((False, folder.metrics), (True, folder.evaluations))
        for line in records(file)
    ]
    return sorted(found, key=lambda record: record.row)


def _numbers(line: Mapping[str, object]) -> dict[str, float]:
    return {name: float(value) for name, value in line.items() if name not in ("step", "k") and isinstance(value, int | float)}


class Tracker:
    """Writes a run's records, each line whole and flushed before the next step begins."""

    def __init__(self, folder: RunFolder, config: TrackingConfig, sinks: Sequence[Sink] = ()) -> None:
        """``sinks`` get the numbers too."""
        self._folder = folder
        self._config = config
        self._sinks = sinks

    def go_back(self, step: int) -> None:
        """To be called before a run goes on after ``step`` steps: records of later ones are superseded by what is written now."""
        for sink in self._sinks:
            sink.go_back(step)

    def step(self, step: int, metrics: Metrics) -> None:
        _append(self._folder.metrics, {"step": step, **rounded(metrics)})
        self._on_event(Record(step=step, is_evaluation=False, metrics=rounded(metrics)))

    def rollouts(self, step: int, groups_P: Sequence[Group], hints_P_G: Sequence[Sequence[Hint | None]]) -> None:
        """Every attempt of a step, one line each, replacing what an interrupted try at the same step left."""
        if not self._config.rollouts:
            return
        text = "".join(
            json.dumps({"step": step, "task_index": task_index, **line}, ensure_ascii=True) + "\n"
            for task_index, (group, hints_G) in enumerate(zip(groups_P, hints_P_G, strict=True))
            for line in _attempts(group, hints_G)
        )
        file = self._folder.rollouts_of(step)
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)

    def tried(self, step: int, tried: Sequence[Tried]) -> None:
        """The groups of a step in short, those that were replaced first."""
        _append(self._folder.tasks, {"step": step, "tried": [plain_tried(one) for one in tried]})

    def credit(self, step: int, records: Sequence[Mapping[str, object]]) -> None:
        """What was kept of a step's tokens, gzipped: whole or not at all, and the same records are the same bytes."""
        file = self._folder.credit_of(step)
        if not records:
            file.unlink(missing_ok=True)
            return
        file.parent.mkdir(exist_ok=True)
        text = "".join(json.dumps(record, ensure_ascii=True, separators=(",", ":")) + "\n" for record in records)
        with whole(file) as scratch:
            scratch.write_bytes(gzip.compress(text.encode("ascii"), compresslevel=6, mtime=0))

    def evaluation(self, step: int, evaluation: Evaluation, lift: Lift | None, *, seconds: float, num_alarms: int) -> None:
        """One line, with every attempt and every answer under a hindsight prompt."""
        attempts = [line for group in evaluation.groups for line in _attempts(group, (None,) * len(group.attempts))]
        lifted = {} if lift is None else lift.metrics
        metrics = {**evaluation.metrics, **lifted, "alarms": float(num_alarms), "time/evaluate_s": seconds}
        record = {"step": step, "k": evaluation.num_attempts, **rounded(metrics), "attempts": attempts}
        if lift is not None:
            record["hindsight_attempts"] = [
                line for group, hints_G in zip(lift.groups, lift.hints, strict=True) for line in _attempts(group, hints_G)
            ]
        _append(self._folder.evaluations, record)
        self._on_event(Record(step=step, is_evaluation=True, metrics=rounded(metrics)))

    def alarm(self, alarm: Alarm) -> None:
        record = {"step": alarm.step, "guard": alarm.guard.value, "sentence": alarm.sentence}
        _append(self._folder.alarms, record)

    def saved(self, step: int) -> None:
        """A checkpoint stands: the first ``step`` steps will not be repeated."""
        journal.forget(self._folder.unfinished, step)

    def _on_event(self, record: Record) -> None:
        for sink in self._sinks:
            sink.record(record)


def _attempts(group: Group, hints_G: Sequence[Hint | None]) -> list[dict[str, object]]:
    question = group.task.messages[-1].content
    judged: list[dict[str, object]] = [
        {
            "task": group.task.id,
            "attempt": index,
            "question": question,
            "completion": attempt.completion.text,
            "finish": attempt.completion.finish.value,
            "num_tokens": len(attempt.completion.token_ids),
            **_conversation(attempt.completion),
            "weights_version": attempt.completion.weights_version,
            **({"versions": attempt.completion.versions} if attempt.completion.versions else {}),
            "reward": attempt.verdict.reward,
            "feedback": attempt.verdict.feedback,
            "hint": None if hint is None else hint.kind,
            "demonstration": None if hint is None else hint.of("demonstration"),
            "is_remembered": hint is not None and hint.is_remembered,
            **({} if hint is None else _of_other_sources(hint)),
        }
        for index, (attempt, hint) in enumerate(zip(group.attempts, hints_G, strict=True))
    ]
    broken: list[dict[str, object]] = [
        {"task": group.task.id, "question": question, "completion": outcome.completion.text, "set_aside": outcome.error}
        for outcome in group.set_aside
    ]
    return judged + broken


def _of_other_sources(hint: Hint) -> dict[str, object]:
    """What is shown besides a demonstration and feedback."""
    shown = {text.name: text.text for text in hint.texts if text.name not in ("demonstration", "feedback")}
    return {"shown": shown} if shown else {}


def _conversation(completion: Completion) -> dict[str, object]:
    """What was said in turn, where there was more than one."""
    if completion.own_mask is None or len(completion.turns) == 1:
        return {}
    return {
        "num_own_tokens": completion.num_own_tokens,
        "turns": [{"role": said.role.value, "content": said.content} for said in completion.turns],
    }


def rounded(metrics: Metrics) -> dict[str, float]:
    """Seven significant digits: what fp32 sums are worth, and what is recorded."""
    return {name: float(f"{value:.7g}") for name, value in metrics.items()}


def _append(file: Path, record: Mapping[str, object]) -> None:
    with file.open("a") as lines:
        lines.write(json.dumps(record, ensure_ascii=True) + "\n")
