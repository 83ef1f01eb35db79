"""What a run came to, in sentences: its gain beside chance and constants, the warm-up's part, and other runs from the same start.

Two standard errors are the bound between what is said to be there and what is not; those over tasks, each compared with itself.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from sdpo.preflight.models import WARMUP_RECORD
from sdpo.run.folder import RunFolder, flat, records

_FEWEST = 4
"""Tasks that a standard error needs."""
_BOUND = 2.0
"""Standard errors."""
_SAME_START = ("model.path", "model.name", "seed", "num_steps", "env.", "sampling.", "batch.num_tasks", "batch.group_size")
"""Config keys that two runs share where they begin alike, meet the same tasks and sample as many answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Mean difference of the tasks' success and its standard error over tasks, None where they are too few to say."""

    mean: float
    error: float | None
    num_tasks: int

    @classmethod
    def between(cls, before: Mapping[str, object], after: Mapping[str, object]) -> Gain | None:
        """The gain between two lines of ``evaluations.jsonl``; None where they share no task."""
        old, new = _rates(before), _rates(after)
        changes = [new[task] - old[task] for task in new if task in old]
        if not changes:
            return None
        mean = sum(changes) / len(changes)
        spread = math.sqrt(sum((change - mean) ** 2 for change in changes) / (len(changes) - 1)) if len(changes) > 1 else 0.0
        return cls(mean=mean, error=spread / math.sqrt(len(changes)) if len(changes) >= _FEWEST else None, num_tasks=len(changes))

    @property
    def is_more_than_chance(self) -> bool:
        return self.error is not None and abs(self.mean) > _BOUND * self.error

    def in_points(self, *, signed: bool = False) -> str:
        """``16.7 ± 5.4 points``, and where it is ``signed``, with a plus or minus before."""
        size = f"{self.mean * 100:+.1f}" if signed else f"{abs(self.mean) * 100:.1f}"
        return f"{size}{'' if self.error is None else f' ± {self.error * 100:.1f}'} points"


def conclusion(folder: RunFolder, before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """All there is to say of a run whose first and last look at held-out tasks these are, lines of ``evaluations.jsonl``."""
    return [*filter(None, (of_warmup(folder), of_training(before, after))), *of_others(folder, after)]


def of_training(before: Mapping[str, object], after: Mapping[str, object]) -> str | None:
    """Whether held-out success rose or fell, and what explains it; None where the two looks share no task."""
    gain = Gain.between(before, after)
    if gain is None:
        return None
    tasks = f"{gain.num_tasks} held-out task{'' if gain.num_tasks == 1 else 's'}"
    if gain.error is None:
        return f"Training changed success on {tasks} by {gain.in_points(signed=True)}, on too few tasks to say more."
    if not gain.is_more_than_chance:
        return f"Training changed success on {tasks} by {gain.in_points(signed=True)}: chance explains that."
    if gain.mean < 0:
        return f"Training lost {gain.in_points()} of success on {tasks}, more than chance explains."
    return f"Training raised success on {tasks} by {gain.in_points()}, more than chance explains{_beside_constants(after)}."


def of_warmup(folder: RunFolder) -> str | None:
    """What the warm-up that made the run's model had changed; None where there was none that tells."""
    try:
        model = Path(str((_config(folder) or {})["model.path"]))
        told = json.loads((model / WARMUP_RECORD).read_text(encoding="utf-8"))
        before, after = told["before"], told["after"]
        old, new = (f"{evaluation['plain']:.1%} ± {evaluation['plain/se']:.1%}" for evaluation in (before, after))
        lifts = [
            f"of {word} from {before[f'{kind}/lift']:+.1%} to {after[f'{kind}/lift']:+.1%}"
            for kind, word in (("demonstration", "demonstrations"), ("feedback", "feedback"))
            if f"{kind}/lift" in before and f"{kind}/lift" in after
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return f"The warm-up before it took success from {old} to {new}" + (f", and the lift {', '.join(lifts)}." if lifts else ".")


def of_others(folder: RunFolder, after: Mapping[str, object]) -> list[str]:
    """Success of runs beside this one that began alike and ended at the same step, with another algorithm."""
    return [
        _beside(name, path, gain, last)
        for name, path, last in _others(folder, after)
        if (gain := Gain.between(last, after)) is not None
    ]


def _beside(name: str, path: Path, gain: Gain, theirs: Mapping[str, object]) -> str:
    said = f"{name} from the same start ({path.name}) ended at {_share(theirs, 'heldout/success'):.1%}: "
    if not gain.is_more_than_chance:
        return said + f"no difference is shown ({gain.in_points(signed=True)})."
    return said + f"this run is {'ahead' if gain.mean > 0 else 'behind'} by {gain.in_points()}."


def _beside_constants(after: Mapping[str, object]) -> str:
    """Success that reads no question is at most that of the best constant for each kind, or where there are no kinds, of one."""
    if "heldout/constant" not in after:
        return ""
    has_kinds = "heldout/constant_by_kind" in after
    constant = _share(after, "heldout/constant_by_kind" if has_kinds else "heldout/constant")
    words = f"the best constant answer{' of each kind of question' if has_kinds else ''} solves {constant:.1%}"
    reached = _share(after, "heldout/success")
    error = _share(after, "heldout/success_se") if "heldout/success_se" in after else 0.0
    if reached > constant + _BOUND * error:
        return f", and more than constants do: {words}, the policy {reached:.1%}"
    return f"; but constants may explain it: {words}, the policy {reached:.1%}"


def _others(folder: RunFolder, after: Mapping[str, object]) -> Iterator[tuple[str, Path, Mapping[str, object]]]:
    """The newest of each other algorithm: its name, its folder, its last look."""
    ours = _config(folder)
    if ours is None:
        return
    found: dict[str, tuple[float, RunFolder]] = {}
    for path in folder.path.parent.iterdir():
        other = RunFolder(path)
        if path == folder.path or not other.evaluations.is_file() or (theirs := _config(other)) is None:
            continue
        name, of_run = str(theirs.get("algorithm.name")), other.evaluations.stat().st_mtime
        if name != ours.get("algorithm.name") and _start(theirs) == _start(ours) and of_run > found.get(name, (0.0,))[0]:
            found[name] = (of_run, other)
    for name, (_, other) in sorted(found.items()):
        last = records(other.evaluations)[-1:]
        if last and last[0].get("step") == after.get("step"):
            yield name, other.path, last[0]


def _start(config: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in config.items() if key.startswith(_SAME_START)}


def _config(folder: RunFolder) -> dict[str, object] | None:
    try:
        loaded = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return flat(loaded) if isinstance(loaded, dict) else None


def _rates(evaluation: Mapping[str, object]) -> dict[str, float]:
    """Success of each task; attempts that were set aside do not count."""
    solved: dict[str, list[bool]] = defaultdict(list)
    attempts = evaluation.get("attempts", ())
    assert isinstance(attempts, list | tuple)
    for attempt in attempts:
        if "reward" in attempt:
            solved[attempt["task"]].append(attempt["reward"] >= 1.0)
    return {task: sum(of_task) / len(of_task) for task, of_task in solved.items()}


def _share(evaluation: Mapping[str, object], key: str) -> float:
    value = evaluation[key]
    assert isinstance(value, int | float)
    return float(value)
