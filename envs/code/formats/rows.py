"""Read the rows of a file of problems, and refuse what is wrong in them.

A row knows its place, so that whatever is wrong with it is said with the file and the line. A file is JSON lines or a JSON list,
both also packed with gzip, or Parquet where pyarrow is installed. Where datasets is installed, a folder written by
``datasets.save_to_disk`` or the name of a dataset is read too.
"""

from __future__ import annotations

import gzip
import importlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

_MARK = b"\xef\xbb\xbf"
"""The byte-order mark of UTF-8, which some programs write before a text."""
_MAX_DIGITS = 200_000
"""Of an integer; reading one takes time that grows with their square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One problem as its file has it."""

    where: str
    """``"problems.jsonl, line 3"``"""
    number: int
    values: Mapping[str, object]

    def refused(self, rule: str) -> ValueError:
        """To be raised: ``rule`` is what the row must do, what it does, and the remedy."""
        return ValueError(f"{self.where}: {rule}")

    def text(self, key: str) -> str:
        """A text that is not blank."""
        value = self.values.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.refused(f"{key!r} must be a text that is not blank; got {_short(value)}: correct or remove the row")
        if not _is_unicode(value):
            raise self.refused(f"{key!r} must be Unicode; it holds half a surrogate pair: correct or remove the row")
        return value

    def text_or_none(self, key: str) -> str | None:
        """The same; None where it is absent, null or blank."""
        value = self.values.get(key)
        return None if value is None or (isinstance(value, str) and not value.strip()) else self.text(key)

    def identity(self, *keys: str) -> str:
        """The first of the keys that there is, else the row's number."""
        for key in keys:
            value = self.values.get(key)
            if isinstance(value, (str, int)) and str(value).strip():
                return str(value).strip()
        return str(self.number)

    def parsed(self, key: str, text: object) -> object:
        """The value of a JSON text; what is no text is taken to be parsed already."""
        if not isinstance(text, str):
            return text
        try:
            value = _loaded(text)
        except (ValueError, RecursionError) as error:
            raise self.refused(f"{key!r} must be JSON; got {_short(text)} ({error}): correct or remove the row") from error
        return value

    def items(self, key: str, value: object) -> list[object]:
        """A list."""
        if not isinstance(value, list):
            raise self.refused(f"{key!r} must be a list; got {_short(value)}: correct or remove the row")
        return value

    def mapping(self, key: str, value: object) -> Mapping[str, object]:
        """A JSON object."""
        if not isinstance(value, dict):
            raise self.refused(f"{key!r} must be a JSON object; got {_short(value)}: correct or remove the row")
        return value


def read_rows(path: str, split: str) -> Iterator[Row]:
    """The rows at ``path``, in order. ``split`` is of a dataset that has several. Raises ValueError for what cannot be read."""
    place = Path(path).expanduser()
    if place.is_dir():
        dataset = _required("datasets", f"the folder {path} is a dataset saved to disk").load_from_disk(str(place))
        yield from _numbered(path, "row", _split_of(path, dataset, split))
    elif not place.is_file():
        if "/" not in path or place.suffix or path.startswith(("/", ".", "~")):
            raise ValueError(
                f"env.options.path must name a file, a folder or a dataset; there is none at {path}: correct the path"
            )
        datasets = _required("datasets", f"there is no file {path}, so it must be a dataset's name")
        yield from _numbered(path, "row", datasets.load_dataset(path, split=split))
    elif place.suffix == ".parquet":
        parquet = _required("pyarrow.parquet", f"{path} is a Parquet file")
        yield from _numbered(path, "row", parquet.read_table(str(place)).to_pylist())
    elif place.suffix == ".json" or place.suffixes[-2:] == [".json", ".gz"]:  # datasets writes JSON lines under this name too
        yield from _numbered(
            path, *(("entry", _entries(path, place)) if _is_list(path, place) else ("line", _lines(path, place)))
        )
    elif place.suffix == ".jsonl" or place.suffixes[-2:] == [".jsonl", ".gz"]:
        yield from _numbered(path, "line", _lines(path, place))
    else:
        raise ValueError(
            "env.options.path must end in .jsonl, .json, either with .gz behind it, or .parquet, or be a folder; "
            f"got {path}: rename or convert the file"
        )


def _numbered(path: str, unit: str, values: Iterable[object]) -> Iterator[Row]:
    for number, value in enumerate(values, 1):
        if value is _BLANK:
            continue
        where = f"{path}, {unit} {number}"
        if not isinstance(value, dict):
            raise ValueError(f"{where}: a row must be a JSON object; got {_short(value)}: correct or remove it")
        yield Row(where=where, number=number, values=value)


_BLANK = object()


def _lines(path: str, file: Path) -> Iterator[object]:
    with _opened(file) as lines:
        for number, line in enumerate(_unpacked(path, lines), 1):
            yield _json(f"{path}, line {number}", line) if line.strip() else _BLANK


def _is_list(path: str, file: Path) -> bool:
    with _opened(file) as lines:
        return next((line.lstrip().startswith(b"[") for line in _unpacked(path, lines) if line.strip()), False)


def _entries(path: str, file: Path) -> list[object]:
    with _opened(file) as lines:
        value = _json(path, b"".join(_unpacked(path, lines)))
    assert isinstance(value, list)
    return value


def _opened(file: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")


def _unpacked(path: str, lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a file, its first one without a byte-order mark. Raises ValueError where it is called packed and is not."""
    try:
        for number, line in enumerate(lines):
            yield line.removeprefix(_MARK) if number == 0 else line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} must be packed with gzip, to its end ({error}): unpack or fetch it again") from error


def _json(where: str, text: bytes) -> object:
    try:
        return _loaded(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: must be text in UTF-8; byte {error.start} ({text[error.start]:#04x}) is not: convert the file, for "
            "example with iconv -f latin1 -t utf-8"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: must be JSON; got {_short(text)} ({error}): correct or remove it") from error


def _loaded(text: str) -> object:
    """The value of a JSON text, also where it holds integers that are too long for Python's own reader."""
    try:
        value: object = json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        value = json.loads(text, parse_int=_integer)
    return value


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"an integer must have no more than {_MAX_DIGITS} digits; got one of {len(digits)}")
    return int(Decimal(digits))


def _split_of(path: str, dataset: object, split: str) -> Iterable[object]:
    if isinstance(dataset, dict):  # a DatasetDict is one
        if split not in dataset:
            raise ValueError(
                f"env.options.dataset_split must be a split of {path}, {', '.join(dataset)}; got {split!r}: name one of them"
            )
        dataset = dataset[split]
    assert isinstance(dataset, Iterable)
    return dataset


def _required(module: str, reason: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ValueError(
            f"{package} must be installed, as {reason}; it is not: pip install {package}, or give JSON lines"
        ) from error


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _short(value: object) -> str:
    text = ascii(value) if not isinstance(value, (list, dict)) else f"a {type(value).__name__} of {len(value)}"
    return text if len(text) <= 60 else text[:60] + "..."
