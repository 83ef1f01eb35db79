"""What lies where in a run's folder, whose config it belongs to, and what of it counts after a kill.

- ``config.yaml``, ``alarms.jsonl``, ``best.json``.
- ``metrics.jsonl`` has one line a step, ``evaluations.jsonl`` one line an evaluation.
- ``rollouts/step_NNNNNN.jsonl`` has one line an attempt.
- ``credit/step_NNNNNN.jsonl.gz`` has one line for some of the attempts (``tracking/credit.py``).
- ``unfinished/`` (``journal.py``), ``checkpoints/step_NNNNNN/``, ``skipped/`` (updates that could not be taken).
- ``tensorboard/``, ``wandb/`` with ``wandb.json``, ``mlflow.json``, ``logs/``; ``tracking/identity.py`` has the two JSON files.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TextIO

import yaml

from sdpo.config import Config, Resume, SearchConfig, WarmupConfig
from sdpo.config.kinds import as_today
from sdpo.errors import UserError, without_credentials
from sdpo.run.files import refuse_unwritable, write_whole

_MAY_DIFFER = (
    "num_steps", "resume", "dry_run", "runs_dir", "name", "cluster.", "tracking.", "checkpoint.", "rollout.", "evaluation.",
    "guards.", "learner.timeout_s", "learner.num_threads", "learner.num_ranks", "learner.zero_stage", "learner.offload",
    "learner.sequence_parallel", "learner.gradient_checkpointing", "learner.logits_chunk_mib", "learner.max_skipped_updates",
    "learner.max_restarts", "algorithm.teacher.offload", "batch.micro_batch_tokens", "env.tasks_limit_s",
)  # fmt: skip
_MAY_NOT = ("rollout.dtype",)
"""Config keys that a continued run may change, and exceptions: they decide how it is run and watched, not what is learned."""


@dataclass(slots=True)
class RunFolder:
    """The folder of one run."""

    path: Path
    _lock: TextIO | None = field(default=None, repr=False)

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations.jsonl"

    @property
    def alarms(self) -> Path:
        return self.path / "alarms.jsonl"

    @property
    def best(self) -> Path:
        """The file that says which checkpoint a run that an alarm ended was best at."""
        return self.path / "best.json"

    @property
    def rollouts(self) -> Path:
        return self.path / "rollouts"

    @property
    def credit(self) -> Path:
        """What student and teacher said of single tokens."""
        return self.path / "credit"

    @property
    def unfinished(self) -> Path:
        """Attempts of steps that may have to be repeated."""
        return self.path / "unfinished"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def skipped(self) -> Path:
        """Updates whose loss or gradient was not finite, for ``sdpo replay``."""
        return self.path / "skipped"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def tracker(self, name: str) -> Path:
        """The file that says which of a tracker's runs this one is (``tracking/identity.py``)."""
        return self.path / f"{name}.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def rollouts_of(self, step: int) -> Path:
        return self.rollouts / f"step_{step:06d}.jsonl"

    def credit_of(self, step: int) -> Path:
        return self.credit / f"step_{step:06d}.jsonl.gz"

    def rollouts_up_to(self, step: int) -> tuple[Path, ...]:
        """The rollout files of the steps 1 to ``step``, in order."""
        return tuple(self.rollouts_of(number) for number in range(1, step + 1))

    def claim(self, config: Config) -> None:
        """Make the folder this run's, or find that it is. Raises UserError where it belongs to another config or process."""
        self.check(config)
        for folder in (self.path, self.rollouts, self.checkpoints, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"a run folder has one writer; another process is training in {self.path}. Wait for it, or choose another name=."
            ) from error
        write_whole(self.config, yaml.safe_dump(plain(config), sort_keys=False))

    def check(self, config: Config) -> None:
        """Raises UserError where the folder is not writable, or ``resume=`` or its config forbids this run. Touches nothing."""
        refuse_unwritable(self.path)
        if not self.config.is_file():
            if config.resume is Resume.must:
                raise UserError(f"resume=must continues a run, and there is none in {self.path}. Check name= and runs_dir=.")
            return
        if config.resume is Resume.never:
            raise UserError(
                f"resume=never begins a new run, and {self.path} already holds one. Choose another name=, or resume=auto to "
                "continue it."
            )
        differences = [
            (key, old, new)
            for key, old, new in differing(yaml.safe_load(self.config.read_text()), config)
            if key in _MAY_NOT or not key.startswith(_MAY_DIFFER)
        ]
        if differences:
            raise UserError(
                f"a run continues with the config it began with; {self.path} belongs to another one: "
                + "; ".join(f"{key} was {old!r} and is now {new!r}" for key, old, new in differences[:6])
                + ". Choose another name=, or repeat the command with the old values."
            )

    def forget_after(self, step: int) -> None:
        """Drop what was recorded of steps after ``step``: they will be run again. A line cut off by a kill goes too."""
        self.best.unlink(missing_ok=True)
        for file in (self.metrics, self.evaluations, self.alarms):
            if file.is_file():
                lines = file.read_text().splitlines(keepends=True)
                kept = [line for line in lines if step > 0 and _step_of(line) <= step]  # before the first step, nothing counts
                write_whole(file, "".join(kept))
        for file in (*self.rollouts.glob("step_*.jsonl"), *self.credit.glob("step_*.jsonl.gz")):
            if int(file.name.partition(".")[0].removeprefix("step_")) > step:
                file.unlink()


def records(file: Path) -> list[dict[str, Any]]:
    """A file's lines as JSON has them, without one that a kill cut off; none where there is no file."""
    lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
    return [json.loads(line) for line in lines if _step_of(line) < float("inf")]


def plain(config: Config | WarmupConfig | SearchConfig) -> dict[str, object]:
    """The config as nested dicts of plain values, for YAML, trackers and comparison; without passwords in addresses."""
    converted = _plain(dataclasses.asdict(config))
    assert isinstance(converted, dict)
    return converted


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return without_credentials(value) if isinstance(value, str) else value


def differing(stored: Mapping[str, object], config: Config | WarmupConfig | SearchConfig) -> list[tuple[str, object, object]]:
    """Keys with the value that is stored and the one that ``config`` has, where they are not the same.

    A key that a config of an older version does not have had today's default.
    """
    today = _plain(as_today(stored))  # an older version kept passwords
    assert isinstance(today, dict)
    old, new = flat(today), flat(plain(config))
    for key in new.keys() - old.keys():
        old[key] = _plain(_default(config, key.split(".")))
    return [(key, old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]


def _default(config: object, path: Sequence[str]) -> object:
    """That of the field which ``path`` leads to; None for what is no field."""
    name, *rest = path
    known = {field.name: field for field in dataclasses.fields(config)} if dataclasses.is_dataclass(config) else {}
    if name not in known:
        return None
    if rest:
        return _default(getattr(config, name), rest)
    field = known[name]
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def flat(nested: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested values by their whole keys: ``{"a.b": 1}``."""
    found: dict[str, object] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = value
    return found


def _step_of(line: str) -> float:
    """The step a line belongs to; infinity for one that was cut off."""
    try:
        return float(json.loads(line)["step"]) if line.endswith("\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")
