"""What a file holds and an environment cannot use is said where one looks before a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdpo.cli import main
from tests.tiny import write_tiny_model

SAID = "Left out: 1 (it has no usable assert); 1 (a single test, as it cannot be run apart from an answer)."


@pytest.fixture
def path(tmp_path: Path) -> str:
    tests = [
        ["assert f(1) == 2", "assert f(2) == 4"],
        ["assert f(3) == 6", "assert f(4) == 8", "assert f(n=4) == 8"],
        ["assert f(root) == 1"],
    ]
    rows = [
        {"task_id": number, "text": f"Two times {number}", "code": "def f(n): return 2 * n", "test_list": asserts}
        for number, asserts in enumerate(tests)
    ]
    file = tmp_path / "problems.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


def test_show_says_how_many_were_left_out_and_why(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows of public files were left out without a word."""
    assert main(["envs", "show", "code_file", f"path={path}"]) == 0
    assert SAID in " ".join(capsys.readouterr().out.split())
    assert main(["envs", "show", "one_liners"]) == 0
    assert "Left out" not in capsys.readouterr().out


def test_a_dry_run_says_so_too(path: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = write_tiny_model(tmp_path / "model")
    words = [
        "train", "--dry-run", f"model.path={model}", "model.name=tiny", "env=code_file", f"env.options.path={path}",
        f"runs_dir={tmp_path / 'runs'}", "name=run", "sampling.max_prompt_tokens=400", "sampling.max_response_tokens=8",
        "algorithm.hindsight.max_prompt_tokens=480", "algorithm.support.num_ids=20",
    ]  # fmt: skip
    code = main(words)
    shown = capfd.readouterr()
    assert code == 0, shown.err
    assert SAID in " ".join(shown.out.split())
