"""Run folders in a few lines, as a trainer would have left them, or as a kill did."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

Line = Mapping[str, object]


def write_folder(
    path: Path,
    *,
    config: Mapping[str, object] | None = None,
    steps: Sequence[Line] = (),
    evaluations: Sequence[Line] = (),
    alarms: Sequence[Line] = (),
    attempts: Sequence[Line] = (),
    credit: Sequence[Line] = (),
) -> Path:
    """Only what is given is there; ``metrics.jsonl`` always."""
    path.mkdir(parents=True)
    if config is not None:
        (path / "config.yaml").write_text(yaml.safe_dump(config))
    write_lines(path / "metrics.jsonl", steps)
    for name, lines in (("evaluations", evaluations), ("alarms", alarms)):
        if lines:
            write_lines(path / f"{name}.jsonl", lines)
    if attempts:
        (path / "rollouts").mkdir()
        write_lines(path / "rollouts" / "step_000001.jsonl", attempts)
    if credit:
        (path / "credit").mkdir()
        with gzip.open(path / "credit" / "step_000001.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(line) + "\n" for line in credit)
    return path


def write_lines(file: Path, lines: Sequence[Line]) -> None:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def config_of(algorithm: str, seed: int = 0, **others: object) -> dict[str, object]:
    return {"seed": seed, "name": f"{algorithm}-s{seed}", "algorithm": {"name": algorithm}, "learner": {"lr": 1e-3}, **others}


def step_of(step: int, success: float = 0.5, **others: float) -> dict[str, float]:
    """Ten generations, a hundred tokens and two seconds."""
    return {
        "step": step, "success": success, "attempts": 9.0, "set_aside": 1.0, "generated_tokens": 100.0,
        "time/generate_s": 1.0, "time/learn_s": 0.5, "time/step_s": 2.0, **others,
    }  # fmt: skip


def evaluation_of(step: int, success: float, **others: float) -> dict[str, float]:
    return {"step": step, "k": 4, "heldout/success": success, "heldout/success_se": 0.05, "heldout/pass_at_k": 0.9, **others}


def attempt_of(completion: str, *, reward: float = 0.0, feedback: str | None = None, task: str = "code/one") -> dict[str, object]:
    return {
        "step": 1, "task": task, "task_index": 0, "attempt": 0, "question": "What?", "completion": completion, "finish": "stop",
        "num_tokens": 3, "reward": reward, "feedback": feedback, "hint": None,
    }  # fmt: skip


def credit_of(tokens: Sequence[str], credit: Sequence[float | None], *, task: str = "code/one") -> dict[str, object]:
    nothing = [None] * len(tokens)
    return {
        "step": 1, "task_index": 0, "attempt": 0, "task": task, "update": 0, "prompt": "", "hindsight_prompt": "", "marks": {},
        "tokens": list(tokens), "student": [None if c is None else -1.0 for c in credit],
        "teacher": [None if c is None else c - 1.0 for c in credit],
        "divergence": nothing, "student_top": nothing, "teacher_top": nothing, "pieces": {},
    }  # fmt: skip
