"""What lies where in a run's folder, whose config it belongs to, and what of it counts after a kill.

- ``config.yaml``, ``alarms.jsonl``, ``best.json``.
- ``metrics.jsonl`` has one line a step, ``evaluations.jsonl`` one line an evaluation.
- ``rollouts/step_NNNNNN.jsonl`` has one line an attempt.
- ``tasks.jsonl`` has one line a step, with the rewards of all that was tried, where tasks are chosen or replaced by them.
- ``credit/step_NNNNNN.jsonl.gz`` has one line for some of the attempts (``tracking/credit.py``).
- ``unfinished/`` (``journal.py``), ``checkpoints/step_NNNNNN/``, ``skipped/`` (updates that could not be taken).
- ``tensorboard/``, ``wandb/`` with ``wandb.json``, ``mlflow.json``, ``logs/``; ``tracking/identity.py`` has the two JSON files.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TextIO

import yaml

from sdpo.config import Config, Resume, SearchConfig, WarmupConfig
from sdpo.config.kinds import as_today
from sdpo.errors import UserError, without_credentials
from sdpo.run import stored
from sdpo.run.files import refuse_unwritable, step_in, write_whole

_MAY_DIFFER = (
    "num_steps", "resume", "dry_run", "runs_dir", "name", "cluster.", "tracking.", "checkpoint.", "rollout.", "evaluation.",
    "guards.", "learner.timeout_s", "learner.num_threads", "learner.num_ranks", "learner.zero_stage", "learner.offload",
    "learner.sequence_parallel", "learner.gradient_checkpointing", "learner.packing", "learner.logits_chunk_mib",
    "learner.max_skipped_updates", "learner.max_restarts", "algorithm.teacher.offload", "batch.micro_batch_tokens",
    "env.tasks_limit_s",
)  # fmt: skip
_MAY_NOT = ("rollout.dtype",)
"""Config keys that a continued run may change, and exceptions: they decide how it is run and watched, not what is learned."""


def may_change(key: str) -> bool:
    """Whether a continued run may have another value of this config key."""
    return key.startswith(_MAY_DIFFER) and key not in _MAY_NOT


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
    def tasks(self) -> Path:
        """What each step tried."""
        return self.path / "tasks.jsonl"

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
        try:
            for folder in (self.path, self.rollouts, self.checkpoints, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("w")
        except (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
            raise UserError(
                f"a run's folder must be one that can be written; {error.filename} in it is not as a run makes it "
                f"({error.strerror}). Nothing was removed. Move it away, or choose another name=."
            ) from error
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
        for folder in (self.rollouts, self.checkpoints, self.logs, self.unfinished, self.credit, self.skipped, self.tensorboard):
            if folder.exists():
                refuse_unwritable(folder)
        self._refuse_lacking()
        if not os.path.lexists(self.config):
            if config.resume is Resume.must:
                raise UserError(f"resume=must continues a run, and there is none in {self.path}. Check name= and runs_dir=.")
            return
        if config.resume is Resume.never:
            raise UserError(
                f"resume=never begins a new run, and {self.path} already holds one. Choose another name=, or resume=auto to "
                "continue it."
            )
        differences = [(key, old, new) for key, old, new in self._differing(config) if not may_change(key)]
        if differences:
            raise UserError(
                f"a run continues with the config it began with; {self.path} belongs to another one: "
                + "; ".join(f"{key} was {old!r} and is now {new!r}" for key, old, new in differences[:6])
                + ". Choose another name=, or repeat the command with the old values."
            )

    def _refuse_lacking(self) -> None:
        """Raises UserError where a part is gone without which the rest would be taken for another run's, or thrown away."""
        has_steps = self.checkpoints.is_dir() and any(step_in(path.name) is not None for path in self.checkpoints.iterdir())
        is_recorded = any(line.step for line in stored.lines(self.metrics))
        if (has_steps or is_recorded) and not os.path.lexists(self.config):
            raise UserError(
                f"a run continues with the config it began with; {self.path} holds a run, and {self.config.name} is gone. Put it "
                "back, or choose another name=."
            )
        if is_recorded and not self.checkpoints.exists():
            raise UserError(
                f"a run continues from its checkpoints; {self.path} holds the records of steps, and {self.checkpoints.name}/ is "
                "gone. Put it back, or choose another name=."
            )

    def _differing(self, config: Config) -> list[tuple[str, object, object]]:
        try:
            return differing(stored.config(self.config), config)
        except UserError:
            raise
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(
                f"a run's folder must hold the config it was started with; {self.config} is none of a run ({error}). Put it back "
                "as it was, or choose another name=."
            ) from error

    def refuse_damaged(self, step: int) -> list[str]:
        """What records of the first ``step`` steps are missing, in sentences. Touches nothing.

        Raises UserError where a record that is there cannot be read.
        """
        for file in (self.evaluations, self.alarms, self.tasks):
            stored.up_to(file, step)
        recorded = {line.step for line in stored.up_to(self.metrics, step)}
        missing = [number for number in range(1, step + 1) if number not in recorded]
        if not missing:
            return []
        return [
            f"{self.metrics} has no record of {len(missing)} of the {step} steps (step {missing[0]} is the first of them); the "
            "run goes on, and its guards judge by what is there"
        ]

    def forget_after(self, step: int) -> None:
        """Drop what was recorded of steps after ``step``: they will be run again. A line cut off by a kill goes too.

        Raises UserError, before anything is changed, where a record of an earlier step cannot be read.
        """
        files = (self.metrics, self.evaluations, self.alarms, self.tasks)
        kept = {file: stored.up_to(file, step) for file in files if file.is_file()}
        if self.best.is_file():
            self.best.unlink()
        for file, lines in kept.items():
            write_whole(file, "".join(line.text.decode() for line in lines))
        for folder, suffix in ((self.rollouts, ".jsonl"), (self.credit, ".jsonl.gz")):
            for file in folder.glob(f"step_*{suffix}"):
                if (number := step_in(file.name, suffix)) is not None and number > step and file.is_file():
                    file.unlink()


def records(file: Path) -> list[dict[str, Any]]:
    """A file's lines as JSON has them, without those that cannot be read; none where there is no file."""
    return [line.record for line in stored.lines(file) if line.record is not None]


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
            found[f"{prefix}{key}"] = value
    return found
