"""What does an environment leave behind in its process? Folder, generators, files, threads, output: looked at around each call.

Python's own calls are noticed (``sys.addaudithook``); what a library of C or another process does is not.
"""

from __future__ import annotations

import decimal
import locale
import os
import random
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sdpo.environments.findings import Finding, error, warning

FEW = 3
"""Threads and open files that a verifier may keep for all its verdicts: a pool, a model's file."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_NOT_FILES = ("/dev/", "/proc/", "/sys/")


class _Change(NamedTuple):
    """What a part of the process's state is called, and what to do about it."""

    rule: str
    what: str
    remedy: str
    is_error: bool = False


_OWN_GENERATOR = "Draw from a generator of your own: random.Random(seed), numpy.random.default_rng(seed)."
_RESTORE = "Put it back, or pass it to the call that needs it: all that runs in the process shares it."
_CHANGES = {
    "folder": _Change(
        "changes-folder", "the current folder is another one afterwards", "Use absolute paths: relative ones change.", True
    ),
    "random": _Change("global-generator", "uses the global generator of random", _OWN_GENERATOR),
    "numpy": _Change("global-generator", "uses the global generator of numpy", _OWN_GENERATOR),
    "torch": _Change("global-generator", "uses the global generator of torch", _OWN_GENERATOR),
    "environment variables": _Change("process-state", "changes environment variables", _RESTORE),
    "recursion limit": _Change("process-state", "changes the recursion limit", _RESTORE),
    "digits": _Change("process-state", "changes how many digits an integer may have", _RESTORE),
    "locale": _Change("process-state", "changes the locale", _RESTORE),
    "socket timeout": _Change("process-state", "changes the time limit of all sockets", _RESTORE),
    "decimal": _Change("process-state", "changes the precision of decimal", _RESTORE),
}


@dataclass(slots=True)
class _Noticed:
    """What happened during one call."""

    written: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)


class Watch:
    """Watches calls of an environment, one after the other. One a process: an audit hook stays for good."""

    def __init__(self) -> None:
        self._noticed: _Noticed | None = None
        self._found: list[Finding] = []
        self._num_calls: dict[str, int] = {}
        self._in_scratch: dict[str, int] = {}
        self._scratch = f"{Path(tempfile.gettempdir()).resolve()}{os.sep}"
        self._threads_before = set(threading.enumerate())
        self._num_open_before = _num_open()
        sys.addaudithook(self._hear)

    @contextmanager
    def over(self, method: str, where: str, *, may_load: bool = False) -> Iterator[None]:
        """Watch one call of ``method``. ``may_load``: files and networks are its business."""
        before, num_printed = _state(), _num_printed()
        self._noticed = noticed = _Noticed()
        self._num_calls[method] = self._num_calls.get(method, 0) + 1
        try:
            yield
        finally:
            self._noticed = None
            self._found += _finds_in_state(where, before, _state())
            if _num_printed() != num_printed:
                remedy = "Say it in the feedback, or log it: the output of a verifier's process goes to a file that nobody reads."
                self._found.append(warning("prints", where, "prints", remedy))
            if not may_load:
                self._found += self._finds_in_calls(where, noticed)

    def take(self) -> Iterator[Finding]:
        """What was found since it was asked last."""
        yield from self._found
        self._found.clear()

    def finds_in_remains(self, method: str) -> Iterator[Finding]:
        """Threads and open files that grew in number with the calls of ``method``."""
        if method not in self._num_calls:
            return
        enough = max(FEW, self._num_calls.get(method, 0) // 4)
        num_threads = len([thread for thread in threading.enumerate() if thread not in self._threads_before])
        after = f"after {self._num_calls.get(method, 0)} calls"
        if num_threads > enough:
            what = f"{after} there are {num_threads} more threads"
            yield warning("leaves-threads", method, what, "Join every thread before the verdict: a run makes a million of them.")
        num_open = _num_open() - self._num_open_before
        if num_open > enough:
            what = f"{after} there are {num_open} more open files or sockets"
            yield warning("leaves-files-open", method, what, "Open files in a with statement: a process may have 1024.")

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        noticed = self._noticed
        if noticed is None:
            return
        with suppress(Exception):  # an audit hook that raises would forbid the call
            if event == "open":
                path, mode, flags = arguments
                if any(letter in "wax+" for letter in mode) if isinstance(mode, str) else int(str(flags)) & _WRITING:
                    _note_file(noticed.written, path)
            elif event in ("os.mkdir", "os.truncate"):
                _note_file(noticed.written, arguments[0])
            elif event in ("os.rename", "os.link", "os.symlink"):
                _note_file(noticed.written, arguments[1])
            elif event in ("os.remove", "os.rmdir"):
                _note_file(noticed.removed, arguments[0])
            elif event in ("socket.connect", "socket.sendto"):
                address = arguments[1]
                if isinstance(address, tuple) and len(address) > 1:
                    noticed.hosts.add(f"{address[0]}:{address[1]}")
            elif event == "socket.getaddrinfo" and arguments[0]:
                noticed.hosts.add(f"{arguments[0]}:{arguments[1]}")

    def _finds_in_calls(self, where: str, noticed: _Noticed) -> Iterator[Finding]:
        for host in sorted(noticed.hosts):
            remedy = "A verdict is then as reproducible, and as quick, as what answers; carry what judging needs in the payload."
            yield warning("network", where, f"asks {host} over the network", remedy)
        for file in sorted(noticed.written | noticed.removed):
            if not file.startswith(self._scratch):
                if Path(file).exists() or file not in noticed.written:
                    remedy = "Keep nothing between calls; scratch files go into tempfile.TemporaryDirectory()."
                    yield warning("writes-files", where, f"writes, makes or removes {file}", remedy)
                continue
            self._in_scratch[file] = self._in_scratch.get(file, 0) + 1
            if self._in_scratch[file] == 2:
                remedy = "Several processes judge at once: take names from tempfile.TemporaryDirectory()."
                yield warning("writes-files", where, f"writes {file} again and again", remedy)


def _note_file(files: set[str], path: object) -> None:
    if isinstance(path, (str, bytes, os.PathLike)):
        file = os.path.abspath(os.fsdecode(path))
        if not file.startswith(_NOT_FILES) and "__pycache__" not in file:
            files.add(file)


def _state() -> dict[str, object]:
    """What all that runs in a process shares, by the keys of ``_CHANGES``."""
    state: dict[str, object] = {
        "folder": _folder(),
        "random": random.getstate(),
        "environment variables": dict(os.environ),
        "recursion limit": sys.getrecursionlimit(),
        "digits": sys.get_int_max_str_digits(),
        "locale": locale.setlocale(locale.LC_ALL),
        "socket timeout": socket.getdefaulttimeout(),
        "decimal": decimal.getcontext().prec,
    }
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        with suppress(AttributeError):  # a module that only pretends, or is half imported
            state["numpy"] = repr(numpy.random.get_state(legacy=True)[1].tobytes()), numpy.random.get_state(legacy=True)[2]
    if torch is not None:
        with suppress(AttributeError):
            state["torch"] = torch.get_rng_state().numpy().tobytes()
    return state


def _finds_in_state(where: str, before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[Finding]:
    for part in before:
        if part in after and before[part] != after[part]:  # a library that was imported in between brings a new part
            change = _CHANGES[part]
            report = error if change.is_error else warning
            yield report(change.rule, where, change.what, change.remedy)
    if before["folder"] != after["folder"]:
        os.chdir(str(before["folder"]))


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


def _num_open() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def _num_printed() -> int:
    """Bytes in the file that an examination's output goes to, standard error included."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the environment may have replaced or closed it
            stream.flush()
    with suppress(OSError):
        return os.fstat(1).st_size
    return 0
