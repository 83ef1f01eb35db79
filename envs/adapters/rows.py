"""How is a file of questions read? JSON lines, JSON, Parquet, or a dataset of the library ``datasets``: rows, and which
split they are in.

A row is a mapping of columns. Parquet needs pyarrow, ``hf:`` and folders need ``datasets``: both are asked for only when used.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import ModuleType

from sdpo.envs.base import Message, Role

Row = Mapping[str, object]
SPLITS = ("train", "heldout")
_HUB = "hf:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The source of each split's rows. Raises ValueError for a share out of range, or for two ways to hold out."""

    path: str
    """A ``.jsonl``, ``.json`` or ``.parquet`` file, a folder written by ``save_to_disk``, or ``hf:name``, ``hf:name:split``."""
    heldout_path: str | None = None
    """The same for the held-out split."""
    heldout_share: float | None = None
    """Without ``heldout_path``: the share of the rows that is held out, by a hash of their prompt."""

    def __post_init__(self) -> None:
        if (self.heldout_path is None) == (self.heldout_share is None):
            raise ValueError(
                "one of env.options.heldout_path (another file) and env.options.heldout_share (of this one) must "
                "say what is held out; "
                f"got {self.heldout_path!r} and {self.heldout_share!r}: give exactly one"
            )
        if self.heldout_share is not None and not 0 < self.heldout_share < 1:
            raise ValueError(f"env.options.heldout_share must lie between 0 and 1; got {self.heldout_share!r}: try 0.1")

    def rows(self, split: str, *, prompt: str) -> list[tuple[int, Row]]:
        """The rows of ``split`` with their number in the file, from 1. ``prompt``: the column that is hashed, and must be
        there."""
        if split not in SPLITS:
            raise ValueError(f"the split must be one of {', '.join(SPLITS)}; got {split!r}")
        path = self.heldout_path if split == "heldout" and self.heldout_path is not None else self.path
        rows = list(enumerate(read_rows(path), start=1))
        for number, row in rows:
            if not row.get(prompt):
                raise ValueError(
                    f"every row must have a column {prompt!r} that is not empty; row {number} of {path} has {sorted(row)}"
                )
        if self.heldout_share is not None:
            rows = [(number, row) for number, row in rows if self._is_heldout(row[prompt]) == (split == "heldout")]
        if not rows:
            raise ValueError(f"a split needs a row; {path} has none for {split!r}: give more rows, or another heldout_share")
        return rows

    def _is_heldout(self, prompt: object) -> bool:
        assert self.heldout_share is not None
        return int(digest(prompt), 16) < self.heldout_share * 2**64


def digest(value: object) -> str:
    """16 hexadecimal digits that are the same in every process."""
    text = json.dumps(value, sort_keys=True, default=str)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def read_rows(path: str) -> list[Row]:
    """Raises ValueError for a file that is not there or cannot be read, with its line where there are lines."""
    if path.startswith(_HUB):
        name, _, split = path.removeprefix(_HUB).partition(":")
        datasets = _library("datasets", path)
        try:
            return [dict(row) for row in datasets.load_dataset(name, split=split or "train")]
        except Exception as error:
            raise ValueError(
                f"the dataset {path!r} must be loadable; loading it raised {type(error).__name__}: {error}"
            ) from error
    file = Path(path).expanduser()
    if file.is_dir():
        return [dict(row) for row in _library("datasets", path).load_from_disk(str(file))]
    if not file.is_file():
        raise ValueError(f"there must be a file of rows; there is none at {file.resolve()}: correct the path")
    is_parquet = file.suffix == ".parquet"
    rows = _library("pyarrow.parquet", path).read_table(file).to_pylist() if is_parquet else _json_rows(file)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"every row must be a mapping of columns; row {number} of {path} is a {type(row).__name__}")
    return rows


def _json_rows(file: Path) -> list[Row]:
    """A JSON array, or one JSON object a line, whichever suffix the file has."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"rows must be text in UTF-8; {file} is not, at byte {error.start}: convert the file") from error
    if text.lstrip().startswith("["):
        try:
            rows: list[Row] = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{file} must hold a JSON array of rows; {error}") from error
        return rows
    lines = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"{file} must hold one JSON object a line; line {number}: {error}") from error
    return lines


def messages_of(row: Row, number: int, *, prompt: str) -> tuple[Message, ...]:
    """The column ``prompt``, a text or a list of messages, after the text of a column ``system`` if there is one."""
    asked = row[prompt]
    system = row.get("system")
    messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    if isinstance(system, str) and system:
        messages = [{"role": "system", "content": system}, *(messages if isinstance(messages, Sequence) else ())]
    made = []
    for message in messages if isinstance(messages, Sequence) else ():
        match message:
            case {"role": str(role), "content": str(content)} if role in {known.value for known in Role}:
                made.append(Message(role=Role(role), content=content))
            case _:
                raise ValueError(
                    f"a message must have a role (system, user, assistant) and a text; row {number} has {message!r:.200}"
                )
    if not made or made[-1].role is not Role.user:
        raise ValueError(f"a prompt must be a text, or messages of which the last is the user's; row {number} has {asked!r:.200}")
    return tuple(made)


def _library(name: str, path: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"reading {path!r} needs the package {name.partition('.')[0]}: install it, or give JSON lines"
        ) from error
