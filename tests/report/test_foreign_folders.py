"""A run folder that somebody else made neither hangs nor fills what reads it, and the rest of it is shown."""

from __future__ import annotations

import gzip
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sdpo.report import answers
from sdpo.report.document import report_page
from sdpo.report.groups import grouped
from sdpo.report.index import RunIndex
from sdpo.report.reading import Run, parsed, plain_yaml
from sdpo.report.record import run_record

WITHIN_S = 20.0
MIB = 2**20
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)
)


def packed(block: bytes, times: int) -> bytes:
    """Gzipped, the block so often: members one after the other, of which each is packed once."""
    return gzip.compress(block) * times


def config(text: str) -> Callable[[Run], None]:
    def write(run: Run) -> None:
        run.files.config.write_text(text)

    return write


def pipe(run: Run) -> None:
    for file in (run.files.config, run.files.evaluations, run.files.alarms, run.files.rollouts_of(1), run.files.credit_of(1)):
        file.unlink(missing_ok=True)
        os.mkfifo(file)


def sockets(run: Run) -> None:
    run.files.alarms.unlink()
    here = os.getcwd()
    os.chdir(run.path)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(run.files.alarms.name)
    finally:
        os.chdir(here)


def endless_line(run: Run) -> None:
    for file in (run.files.metrics, run.files.evaluations, run.files.rollouts_of(1)):
        with file.open("ab") as stream:
            stream.truncate(2**38)  # of zeros that take no room on the disk


def packed_endless_line(run: Run) -> None:
    run.files.credit_of(2).write_bytes(packed(bytes(16 * MIB), 130))


def packed_lines(run: Run) -> None:
    run.files.credit_of(2).write_bytes(packed((b"0" * (MIB - 1) + b"\n") * 16, 130))


def packed_short_lines(run: Run) -> None:
    run.files.credit_of(2).write_bytes(packed(b"{}\n" * 2**20, 100))


def many_lines(run: Run) -> None:
    run.files.rollouts_of(2).write_bytes(b'{"task": "x"}\n' * 1_000_000)


def giants(run: Run) -> None:
    line = f'{{"step": 4, "loss": {"9" * 6000}, "task_index": {"8" * 4000}, "reward": {"7" * 300}}}\n'
    for file in (run.files.metrics, run.files.evaluations, run.files.alarms, run.files.rollouts_of(2)):
        with file.open("a") as stream:
            stream.write(line)


FOLDERS: dict[str, Callable[[Run], None]] = {
    "aliases": config(LAUGHS),
    "a mapping that holds itself": config("a: &a {b: *a}\n"),
    "a list that holds itself": config("env: &a [*a]\n"),
    "keys that are dates": config("2026-11-28: 1\nenv: {2026-11-28: 2026-11-28T10:00:00Z, 1.5: x, null: y, true: z}\n"),
    "giant numbers": config(f"seed: 0x{'f' * 6000}\n0x{'f' * 6000}: 1\nlr: {':'.join('1' * 400)}\n"),
    "a number of 6,000 digits": config(f"seed: {'9' * 6000}\n"),
    "tags": config("a: !!float ''\nb: !!int ''\nc: !!timestamp x\nd: !!python/object/apply:os.getcwd []\n"),
    "sexagesimal": config(f"a: {':'.join('1' * 400)}.5\n"),
    "deep": config("[" * 5000),
    "long": config("a: b\n" * 2**20),
    "pipes": pipe,
    "a socket": sockets,
    "endless lines": endless_line,
    "a packed endless line": packed_endless_line,
    "giants in lines": giants,
}
SLOW = {"packed lines": packed_lines, "packed short lines": packed_short_lines, "many lines": many_lines}


@pytest.mark.parametrize(
    "name", [*FOLDERS, *(pytest.param(name, marks=pytest.mark.full) for name in SLOW)], ids=lambda name: name.replace(" ", "-")
)
def test_viewer_and_report_show_the_rest_of_it_within_seconds(name: str, folder: Path) -> None:
    """Aliases took the memory of the machine, a pipe waited for ever, and 2 MB of gzip became 2 GB."""
    run = Run(folder)
    {**FOLDERS, **SLOW}[name](run)
    began = time.monotonic()
    record = run_record(folder)
    assert len(record.steps) >= 3
    assert len(report_page(grouped([record]))) < 4 * MIB
    index = RunIndex(run)
    while index.refresh(0.4):
        pass
    shown = json.loads(answers.as_json(answers.changes(index, 0, has_more=False)))
    assert [one["step"] for one in shown["metrics"]][:3] == [1, 2, 3]
    assert all(list(run.attempts(step)) for step in run.rollout_files() if run.files.rollouts_of(step).is_file())
    assert time.monotonic() - began < WITHIN_S


def test_a_config_reads_as_plain_values_or_not_at_all() -> None:
    assert plain_yaml(b"a: [1, 2.5, x, null, true]\nb: {c: 'd'}\n") == {"a": [1, 2.5, "x", None, True], "b": {"c": "d"}}
    assert plain_yaml(b"2026-11-28: 2026-11-28\n") == {"2026-11-28": "2026-11-28"}
    assert plain_yaml(f"seed: 0x{'f' * 6000}\n".encode()) == {"seed": "a number that is too large"}
    for refused in (b"a: &a 1\nb: *a\n", b"a: !!int ''\n", b"- a\n", b"\xff\xfe\x00", b"a: [", b"2026-13-45: 1\n", b""):
        assert plain_yaml(refused) == {}


def test_no_password_of_an_older_version_is_shown() -> None:
    assert plain_yaml(b"tracking: {mlflow: {uri: 'https://user:word@host/x'}}\n") == {
        "tracking": {"mlflow": {"uri": "https://host/x"}}
    }


def test_a_number_that_no_run_writes_is_none() -> None:
    """Python refuses to read more than 4,300 digits, and takes seconds for many below that."""
    assert parsed(b'{"a": %s, "b": -%s, "c": 12}' % (b"9" * 6000, b"9" * 20)) == {"a": None, "b": None, "c": 12}


def test_a_line_longer_than_any_run_writes_is_said_to_be_so(folder: Path) -> None:
    endless_line(Run(folder))
    assert "metrics.jsonl holds more than is read, or a line that no run writes" in run_record(folder).missing
