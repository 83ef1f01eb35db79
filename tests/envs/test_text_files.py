"""Files of rows as other programs write them: every loader takes a byte-order mark, and names a file that is not UTF-8."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sdpo.envs.adapters.rows import read_rows as read_scored_rows
from sdpo.envs.code.formats.rows import read_rows as read_problems
from sdpo.envs.multiple_choice.rows import read_rows as read_choices

ROW = {
    "dataset": "letters", "idx": "1", "system": "Be brief.", "prompt": "Größe?", "answer": "A", "kind": "mcq",
}  # fmt: skip
LOADERS: dict[str, Callable[[Path], list[object]]] = {
    "code_file": lambda path: list(read_problems(str(path), "test")),
    "reward_function": lambda path: list(read_scored_rows(str(path))),
    "multiple_choice": lambda path: list(read_choices(path)),
}


@pytest.mark.parametrize("loader", LOADERS)
def test_a_byte_order_mark_is_no_part_of_the_text(loader: str, tmp_path: Path) -> None:
    """One loader read it and another refused it as no JSON."""
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROW, ensure_ascii=False).encode())
    assert len(LOADERS[loader](file)) == 1


@pytest.mark.parametrize("loader", LOADERS)
def test_a_file_in_another_encoding_is_named(loader: str, tmp_path: Path) -> None:
    """A Latin-1 file was reported as a fault of ``env.train_split``, without its name."""
    file = tmp_path / "latin.jsonl"
    file.write_bytes(json.dumps(ROW, ensure_ascii=False).encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.jsonl.*(UTF-8|is not).*convert the file"):
        LOADERS[loader](file)
