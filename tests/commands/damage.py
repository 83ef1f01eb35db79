"""Made-up folders of a run that stopped after step 5, with checkpoints of steps 2 and 4, and all the ways to damage one."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from sdpo.config import BatchConfig, Config, EnvConfig, EvaluationConfig, HindsightConfig, ModelConfig, SDPOConfig
from sdpo.learner.checkpoint import Counters, begin, commit
from sdpo.run import digests
from sdpo.run.folder import RunFolder

STEPS = 5


def config(runs: Path, *, success_buffer: int = 0) -> Config:
    return Config(
        num_steps=6,
        name="run",
        runs_dir=str(runs),
        algorithm=SDPOConfig(hindsight=HindsightConfig(success_buffer=success_buffer)),
        model=ModelConfig(name="fake", path="fake"),
        env=EnvConfig(name="fake"),
        batch=BatchConfig(num_tasks=2, group_size=4),
        evaluation=EvaluationConfig(every=2, num_tasks=2, num_attempts=2),
    )


def write_checkpoint(folder: Path, step: int, *, score: float | None = None) -> Path:
    """As a run writes one, of weights that are the step."""
    path = folder / f"step_{step:06d}"
    scratch = begin(path)
    (scratch / "policy").mkdir()
    save_file({"master/0/w": np.full(64, step, np.float32)}, scratch / "rank-00000.safetensors")
    save_file({"w": np.full(64, step, np.float16)}, scratch / "policy" / "model.safetensors")
    (scratch / "policy" / "config.json").write_text("{}\n")
    commit(path, Counters(step=step, num_updates=2 * step, score=score))
    return path


def write_run(path: Path, of: Config) -> RunFolder:
    folder = RunFolder(path)
    folder.claim(of)
    assert folder._lock is not None
    folder._lock.close()
    attempt = {"task": "t", "attempt": 0, "question": "q", "completion": "c", "reward": 1.0, "feedback": "f"}
    rows = [
        {"step": step, "success": 0.5, "response_tokens": 9.0, "reward": 0.5, "attempts": 8.0} for step in range(1, STEPS + 1)
    ]
    evaluations = [
        {
            "step": step,
            "k": 2,
            "heldout/success": 0.5,
            "heldout/success_se": 0.1,
            "heldout/response_tokens": 9.0,
            "time/evaluate_s": 1.0,
            "attempts": [attempt],
        }
        for step in (0, 2, 4)
    ]
    write_lines(folder.metrics, rows)
    write_lines(folder.evaluations, evaluations)
    write_lines(folder.alarms, [{"step": 3, "guard": "length", "sentence": "longer"}])
    folder.credit.mkdir()
    folder.unfinished.mkdir()
    for step in range(1, STEPS + 1):
        write_lines(folder.rollouts_of(step), [{"step": step, "task_index": 0, **attempt}])
        folder.credit_of(step).write_bytes(gzip.compress(b"{}\n", mtime=0))
    for step in (2, 4):
        write_checkpoint(folder.checkpoints, step, score=0.5)
    return folder


def write_lines(file: Path, records: Iterable[Mapping[str, object]]) -> None:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One kind, and what the run must do about it."""

    do: Callable[[RunFolder], object]
    after: int | None = None
    """The step that the run continues after; None: it is refused."""
    says: str = ""
    """A pattern in its notice or refusal; empty: there is nothing to be said."""


def flip(file: Path) -> None:
    """Change bytes in the middle of a file."""
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = bytes(byte ^ 0xFF for byte in content[middle : middle + 8])
    file.write_bytes(content)


def zeros(file: Path) -> None:
    """Keep the header of a file of weights; its payload becomes zeros."""
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    file.write_bytes(content[:start] + bytes(len(content) - start))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def break_line(file: Path, index: int, text: bytes) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    lines[index] = text
    file.write_bytes(b"".join(lines))


def becomes_folder(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.mkdir()


def becomes_file(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("mine\n")


def becomes_pipe(file: Path) -> None:
    file.unlink(missing_ok=True)
    os.mkfifo(file)


def counted(checkpoint: Path, **changes: object) -> None:
    """Other counters, under digests that fit them."""
    file = checkpoint / "learner.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    digests.write(checkpoint, digests.sealed(checkpoint, digests.files_in(checkpoint)), last="learner.json")


def without_digests_cut(checkpoint: Path) -> None:
    (checkpoint / digests.FILE).unlink()
    cut(checkpoint / RANK)


def last(folder: RunFolder) -> Path:
    return folder.checkpoints / "step_000004"


def both(folder: RunFolder, do: Callable[[Path], object], name: str) -> None:
    for step in (2, 4):
        do(folder.checkpoints / f"step_{step:06d}" / name)


RANK, POLICY, COUNTERS = "rank-00000.safetensors", "policy/model.safetensors", "learner.json"
FALLS_BACK = r"step_000004 is damaged: {}.* step_000002 takes its place"
CONFIG = r"must hold the config it was started with"
LINE = r"line {} of .*{} is no record of a step"

DAMAGES: Mapping[str, Damage] = {
    # checkpoints
    "bytes of a rank's file are flipped": Damage(do=lambda run: flip(last(run) / RANK), after=2, says=FALLS_BACK.format(RANK)),
    "the payload of a rank's file is zeros": Damage(
        do=lambda run: zeros(last(run) / RANK), after=2, says=FALLS_BACK.format(RANK)
    ),
    "a rank's file is cut off": Damage(do=lambda run: cut(last(run) / RANK), after=2, says=FALLS_BACK.format(RANK)),
    "a rank's file is gone": Damage(
        do=lambda run: (last(run) / RANK).unlink(), after=2, says=FALLS_BACK.format(f"{RANK} is missing")
    ),
    "a rank's file is a pipe": Damage(do=lambda run: becomes_pipe(last(run) / RANK), after=2, says=FALLS_BACK.format(RANK)),
    "a rank's file of another run lies there": Damage(
        do=lambda run: shutil.copy(last(run) / RANK, last(run) / "rank-00001.safetensors"),
        after=2,
        says=FALLS_BACK.format("rank-00001.safetensors was not written with it"),
    ),
    "the policy's weights are flipped": Damage(do=lambda run: flip(last(run) / POLICY), after=2, says=FALLS_BACK.format(POLICY)),
    "the policy is gone": Damage(
        do=lambda run: shutil.rmtree(last(run) / "policy"), after=2, says=FALLS_BACK.format("policy/config.json is missing")
    ),
    "the policy's config is another": Damage(
        do=lambda run: (last(run) / "policy/config.json").write_text("[]\n"),
        after=2,
        says=FALLS_BACK.format("policy/config.json"),
    ),
    "the counters are no JSON": Damage(
        do=lambda run: (last(run) / COUNTERS).write_bytes(b'{"step": \xff'), after=2, says=FALLS_BACK.format(COUNTERS)
    ),
    "the counters are gone": Damage(do=lambda run: (last(run) / COUNTERS).unlink(), after=2, says=FALLS_BACK.format(COUNTERS)),
    "the counters are a folder": Damage(
        do=lambda run: becomes_folder(last(run) / COUNTERS), after=2, says=FALLS_BACK.format(COUNTERS)
    ),
    "the counters are a pipe": Damage(
        do=lambda run: becomes_pipe(last(run) / COUNTERS), after=2, says=FALLS_BACK.format(COUNTERS)
    ),
    "the counters are of another step": Damage(
        do=lambda run: counted(last(run), step=1), after=2, says=FALLS_BACK.format(rf"{COUNTERS} is of step 1")
    ),
    "the counters' step is true": Damage(
        do=lambda run: counted(last(run), step=True), after=2, says=FALLS_BACK.format(f"{COUNTERS}: step is True")
    ),
    "the counters' score is not a number": Damage(
        do=lambda run: counted(last(run), score=float("nan")), after=2, says=FALLS_BACK.format(f"{COUNTERS}: score is nan")
    ),
    "the digests are no digests": Damage(
        do=lambda run: (last(run) / digests.FILE).write_bytes(b"\xff\n"), after=2, says=FALLS_BACK.format(digests.FILE)
    ),
    "the digests are cut off at a line": Damage(
        do=lambda run: break_line(last(run) / digests.FILE, -1, b""), after=2, says=FALLS_BACK.format(digests.FILE)
    ),
    "there are no digests, as in an earlier version": Damage(
        do=lambda run: (last(run) / digests.FILE).unlink(), after=4, says=r"has no SHA256SUMS .* not verified"
    ),
    "there are no digests, and a file is cut off": Damage(
        do=lambda run: without_digests_cut(last(run)), after=2, says=FALLS_BACK.format(RANK)
    ),
    "every checkpoint is damaged": Damage(
        do=lambda run: both(run, flip, RANK), says=r"there is none: step_000004: rank-00000.* step_000002: rank-00000"
    ),
    "a copy lies beside the checkpoints": Damage(
        do=lambda run: shutil.copytree(last(run), run.checkpoints / "step_backup"), after=4
    ),
    "a copy is called like a later checkpoint": Damage(
        do=lambda run: shutil.copytree(last(run), run.checkpoints / "step_000009"),
        after=4,
        says=r"step_000009 is damaged: learner.json is of step 4, and the folder's name says 9",
    ),
    "a checkpoint was renamed": Damage(do=lambda run: last(run).rename(run.checkpoints / "step_000004 (copy)"), after=2),
    "a file is called like a checkpoint": Damage(do=lambda run: (run.checkpoints / "step_000009").write_text("mine\n"), after=4),
    "an empty folder is called like a checkpoint": Damage(do=lambda run: (run.checkpoints / "step_000009").mkdir(), after=4),
    "the checkpoints are gone": Damage(do=lambda run: shutil.rmtree(run.checkpoints), says=r"checkpoints/ is gone"),
    "the checkpoints are a file": Damage(do=lambda run: becomes_file(run.checkpoints), says=r"checkpoints is no folder"),
    # the config
    "the config is not UTF-8": Damage(do=lambda run: run.config.write_bytes(b"name: \xff\xfe\n"), says=CONFIG),
    "the config is empty": Damage(do=lambda run: run.config.write_text(""), says=f"{CONFIG}.*it is empty"),
    "the config is a list": Damage(do=lambda run: run.config.write_text("- name\n- run\n"), says=CONFIG),
    "the config is broken YAML": Damage(do=lambda run: run.config.write_text("name: [run\nseed: {\n"), says=CONFIG),
    "the config refers to itself": Damage(do=lambda run: run.config.write_text("name: &a\n  b: *a\n"), says=CONFIG),
    "the config's keys are numbers": Damage(do=lambda run: run.config.write_text("1: 2\n"), says=CONFIG),
    "the config has an unheard-of kind": Damage(
        do=lambda run: run.config.write_text("algorithm:\n  teacher:\n    kind: nobody\n"),
        says=r"algorithm\.teacher\.kind was 'nobody'",
    ),
    "the config is a folder": Damage(do=lambda run: becomes_folder(run.config), says=CONFIG),
    "the config is a pipe": Damage(do=lambda run: becomes_pipe(run.config), says=CONFIG),
    "the config is gone": Damage(do=lambda run: run.config.unlink(), says=r"config.yaml is gone"),
    # records
    "a line of metrics has bad bytes": Damage(
        do=lambda run: break_line(run.metrics, 1, b'{"step": 2, "success": \xff}\n'), says=LINE.format(2, "metrics.jsonl")
    ),
    "a line of metrics is broken in the middle": Damage(
        do=lambda run: break_line(run.metrics, 1, b'{"step": 2, "suc\n'), says=LINE.format(2, "metrics.jsonl")
    ),
    "two lines of metrics became one": Damage(
        do=lambda run: break_line(run.metrics, 1, b'{"step": 2, "suc'), says=LINE.format(2, "metrics.jsonl")
    ),
    "a line of metrics has a step that is true": Damage(
        do=lambda run: break_line(run.metrics, 0, b'{"step": true, "success": 0.5}\n'), says=LINE.format(1, "metrics.jsonl")
    ),
    "a line of metrics has a step of 6,000 digits": Damage(
        do=lambda run: break_line(run.metrics, 0, b'{"step": 1' + b"0" * 6000 + b"}\n"), says=LINE.format(1, "metrics.jsonl")
    ),
    "a line of metrics has a number of 400 digits": Damage(
        do=lambda run: break_line(run.metrics, 0, b'{"step": 1, "success": 1' + b"0" * 400 + b"}\n"),
        says=LINE.format(1, "metrics.jsonl"),
    ),
    "a line of metrics has no success": Damage(
        do=lambda run: break_line(run.metrics, 1, b'{"step": 2}\n'), says=LINE.format(2, "metrics.jsonl")
    ),
    "a line of metrics is nested without end": Damage(
        do=lambda run: break_line(run.metrics, 1, b'{"step": 2, "a": ' + b"[" * 100_000 + b"\n"),
        says=LINE.format(2, "metrics.jsonl"),
    ),
    "a block of metrics is zeros": Damage(
        do=lambda run: break_line(run.metrics, 2, bytes(40) + b"\n"), says=LINE.format(3, "metrics.jsonl")
    ),
    "the last line of metrics is cut off": Damage(do=lambda run: cut(run.metrics), after=4),
    "a line of metrics after the last checkpoint is broken": Damage(
        do=lambda run: break_line(run.metrics, 4, b'{"step": 5, "suc\n'), after=4
    ),
    "a line of metrics is gone": Damage(
        do=lambda run: break_line(run.metrics, 1, b""), after=4, says=r"has no record of 1 of the 4 steps \(step 2"
    ),
    "the metrics are gone": Damage(
        do=lambda run: run.metrics.unlink(), after=4, says=r"has no record of 4 of the 4 steps \(step 1"
    ),
    "the metrics are a folder": Damage(do=lambda run: becomes_folder(run.metrics), says=r"metrics.jsonl is none"),
    "a line of evaluations is a list": Damage(
        do=lambda run: break_line(run.evaluations, 1, b"[2, 0.5]\n"), says=LINE.format(2, "evaluations.jsonl")
    ),
    "a line of evaluations has a text for a number": Damage(
        do=lambda run: break_line(run.evaluations, 1, b'{"step": 2, "k": 2, "heldout/success": "half", "attempts": []}\n'),
        says=LINE.format(2, "evaluations.jsonl"),
    ),
    "the evaluations are gone": Damage(do=lambda run: run.evaluations.unlink(), after=4),
    "a line of alarms has no guard": Damage(
        do=lambda run: break_line(run.alarms, 0, b'{"step": 3}\n'), says=LINE.format(1, "alarms.jsonl")
    ),
    # the rest
    "a stranger's file lies beside the rollouts": Damage(
        do=lambda run: (run.rollouts / "step_foo.jsonl").write_text("mine\n"), after=4
    ),
    "a stranger's file lies beside the credit": Damage(
        do=lambda run: (run.credit / "step_foo.jsonl.gz").write_text("mine\n"), after=4
    ),
    "a stranger's file lies beside the unfinished steps": Damage(
        do=lambda run: (run.unfinished / "step_foo.jsonl").write_text("mine\n"), after=4
    ),
    "an unfinished step has bad bytes": Damage(
        do=lambda run: (run.unfinished / "step_000005.jsonl").write_bytes(b'{"step": \xff}\n[1]\n{"completion": 3}\n'), after=4
    ),
    "the rollouts are gone": Damage(do=lambda run: shutil.rmtree(run.rollouts), after=4),
    "the rollouts are a file": Damage(do=lambda run: becomes_file(run.rollouts), says=r"rollouts is no folder"),
    "the logs are a file": Damage(do=lambda run: becomes_file(run.logs), says=r"logs is no folder"),
    "the lock is a folder": Damage(
        do=lambda run: becomes_folder(run.path / ".lock"), says=r"\.lock in it is not as a run makes it"
    ),
    "the best is a folder": Damage(do=lambda run: becomes_folder(run.best), after=4),
}
