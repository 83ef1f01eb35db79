"""``sdpo report RUN [RUN …] [to=report.html]``: run folders as one HTML file, written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from sdpo.errors import UserError
from sdpo.report.document import report_page
from sdpo.report.groups import grouped
from sdpo.report.record import run_record
from sdpo.run.files import write_whole
from sdpo.terminal.printable import printable

DEFAULT = "report.html"


def run_report(words: Sequence[str]) -> int:
    """The exit code. Raises UserError where a word is no run folder, or the file cannot be written."""
    targets = [word.removeprefix("to=") for word in words if word.startswith("to=")]
    paths = [Path(word) for word in words if not word.startswith("to=")]
    if not paths or len(targets) > 1:
        raise UserError(
            "sdpo report takes run folders and at most one to=FILE, e.g. sdpo report runs/one runs/two to=report.html; got "
            f"{' '.join(words)!r}."
        )
    target = _target(targets[0] if targets else DEFAULT)
    runs = [run_record(path) for path in dict.fromkeys(path.resolve() for path in paths)]
    _write(target, report_page(grouped(runs)))
    screen = Console(highlight=False, markup=False, soft_wrap=True)
    for run in runs:
        for sentence in run.missing:
            screen.print(printable(f"{run.name}: {sentence}."))
    screen.print(printable(f"Wrote {target} ({target.stat().st_size / 1024:.0f} KiB)."))
    return 0


def _target(word: str) -> Path:
    target = Path(word)
    if not word or target.is_dir() or not target.parent.is_dir():
        raise UserError(f"to= names the file to write, in a folder that is there; {word!r} is no such file.")
    return target


def _write(file: Path, text: str) -> None:
    try:
        write_whole(file, text)
    except PermissionError as error:
        raise UserError(f"to= names a file that may be written; {file} may not ({error.strerror}).") from error
