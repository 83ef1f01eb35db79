"""``sdpo profile`` prints the phases, the advice and a line of JSON, and refuses what has no times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdpo.cli import main
from tests.report.folders import config_of, evaluation_of, step_of, write_folder

TIMES = {
    "time/generate_s": 1.5, "time/verify_s": 0.5, "time/learn_s": 0.4, "time/sync_s": 0.1, "tokens_per_s": 66.0,
    "learned_tokens": 800.0, "time/save_s": 0.1,
}  # fmt: skip


def profiled(capsys: pytest.CaptureFixture[str], path: Path) -> tuple[str, dict[str, object]]:
    assert main(["profile", str(path)]) == 0
    text, _, last = capsys.readouterr().out.rstrip("\n").rpartition("\n")
    record = json.loads(last)
    assert isinstance(record, dict)
    return text, record


def test_the_steps_after_the_first_are_what_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow_start = step_of(1, **{**TIMES, "time/generate_s": 100.0, "time/step_s": 101.0})
    run = write_folder(
        tmp_path / "run",
        config=config_of("sdpo", rollout={"num_verifiers": 2}),
        steps=[slow_start, step_of(2, **TIMES), step_of(3, **TIMES)],
        evaluations=[{**evaluation_of(0, 0.5), "time/evaluate_s": 3.0}],
    )
    text, record = profiled(capsys, run)
    assert record["steps"] == 2
    assert record["step_s"] == 2.0
    assert record["seconds"] == {"generate": 1.0, "verify": 0.5, "learn": 0.4, "sync": 0.1, "rest": 0.0}
    assert record["share"] == {"generate": 0.5, "verify": 0.25, "learn": 0.2, "sync": 0.05, "rest": 0.0}
    assert record["generated_tokens_per_s"] == 66.0
    assert record["learned_tokens_per_s"] == 2000.0
    assert [one["rule"] for one in record["advice"]] == ["verification_tail", "sync"]  # type: ignore[attr-defined]
    assert "raise rollout.num_verifiers (now 2)" in text
    assert "median of 2 steps after the first" in text
    assert "evaluations: 3.0 s in all" in text


def test_a_step_that_is_in_balance_gets_no_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [step_of(1, **{"time/generate_s": 1.0, "time/learn_s": 1.0})]
    text, record = profiled(capsys, write_folder(tmp_path / "run", steps=steps))
    assert record["advice"] == []
    assert "Nothing stands out" in text
    assert "its only step" in text


def test_a_name_that_would_drive_a_terminal_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_folder(tmp_path / "\x1b]0;title\x07[bold]x", steps=[step_of(1), step_of(2)])
    text, record = profiled(capsys, run)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]x" in text
    assert record["run"] == "\x1b]0;title\x07[bold]x"


@pytest.mark.parametrize("words", [[], ["one", "two"], ["nowhere"], ["BARE"]])
def test_what_has_no_times_is_refused(tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    bare = write_folder(tmp_path / "bare", steps=[{"step": 1, "success": 0.5}])
    assert main(["profile", *(str(bare) if word == "BARE" else word for word in words)]) == 2
    assert "error:" in capsys.readouterr().err
