"""What a first start has proved a second one takes over, and nothing that could have changed since."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdpo.preflight.proofs import Claim
from sdpo.types import Message, Role, Task
from tests.tiny import write_tiny_model

TASK = Task(id="a", env="letters", messages=(Message(role=Role.user, content="one"),), payload=None)
OTHERS = [
    Task(id="b", env="letters", messages=TASK.messages, payload=None),
    Task(id="a", env="letters", messages=(Message(role=Role.user, content="two"),), payload=None),
    Task(id="a", env="letters", messages=(Message(role=Role.system, content="one"), *TASK.messages), payload=None),
]
LETTERS = f"{Path(__file__).parent.parent / 'letters.py'}:Letters"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDPO_CACHE", str(tmp_path / "cache"))


def claim(folder: Path, task: Task = TASK, limit: int = 1) -> Claim:
    made = Claim(limit)
    made.about_files(folder)
    made.about_tasks([task])
    return made


def test_a_claim_is_remembered_with_the_tokenizers_class(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    assert claim(folder).tokenizer_class() is None
    claim(folder).remember("module:Class")
    assert claim(folder).tokenizer_class() == "module:Class"


def test_whatever_a_claim_depends_on_makes_it_another(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    claim(folder).remember("module:Class")
    assert all(claim(folder, task).tokenizer_class() is None for task in OTHERS)
    assert claim(folder, limit=2).tokenizer_class() is None
    os.utime(folder / "tokenizer.json", ns=(0, 1))
    assert claim(folder).tokenizer_class() is None


def test_a_link_to_nothing_in_a_models_folder_is_a_file_like_others(tmp_path: Path) -> None:
    """An editor's lock beside config.json ended the start with a traceback."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / ".#config.json").symlink_to("nowhere")
    claim(folder).remember("module:Class")
    assert claim(folder).tokenizer_class() == "module:Class"


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SDPO_CACHE", str(tmp_path / "file"))
    folder = tmp_path / "model"
    folder.mkdir()
    claim(folder).remember("module:Class")
    assert claim(folder).tokenizer_class() is None


def test_a_second_dry_run_imports_no_torch(tmp_path: Path) -> None:
    """The first one took 9 s, of which importing transformers, torch and DeepSpeed was nearly all."""
    model = write_tiny_model(tmp_path / "model")
    words = [
        f"model.path={model}", "model.name=tiny", "env=custom", f"env.name={LETTERS}", f"runs_dir={tmp_path / 'runs'}",
        "sampling.max_prompt_tokens=100", "sampling.max_response_tokens=8", "algorithm.hindsight.max_prompt_tokens=300",
        "algorithm.support.num_ids=20",
    ]  # fmt: skip
    code = "import sys\nfrom sdpo.cli import main\ncode = main(['train', '--dry-run', *sys.argv[1:]])\n"
    code += "print('torch' in sys.modules)\nsys.exit(code)"

    def dry_run() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)

    first, second = dry_run(), dry_run()
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout.splitlines()[-1] == "True"
    assert second.stdout.splitlines()[-1] == "False"
