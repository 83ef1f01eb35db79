"""Is a folder still what was written? It holds the SHA-256 of each of its files, as ``sha256sum`` writes them.

``sha256sum -c SHA256SUMS`` checks it without this program. SHA-256 of the standard library reads 1.2 GB/s on one core, more than
most disks write.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

FILE = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
_NUM_THREADS = 4
_WEIGHTS = ".safetensors"


def files_in(folder: Path) -> list[str]:
    """Names of the folder's files but for the digests, those of its folders included."""
    found = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    return sorted(name for name in found if name != FILE)


def sealed(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of these files by name, once each is on the disk. To be called where they were written."""

    def seal(name: str) -> str:
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
            return hashlib.file_digest(file, "sha256").hexdigest()

    wanted = list(names)
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        return dict(zip(wanted, threads.map(seal, wanted), strict=True))


def write(folder: Path, digests: Mapping[str, str], *, last: str) -> None:
    """Write the digests into the folder, and all names in it to the disk. The line of ``last`` ends the file, so that a file that
    was cut off at a line's end is known by its lack."""
    names = [*sorted(digests.keys() - {last}), last]
    with (folder / FILE).open("w", encoding="utf-8") as file:
        file.writelines(f"{digests[name]}  {name}\n" for name in names)
        file.flush()
        os.fsync(file.fileno())
    for inner in {folder, *((folder / name).parent for name in names)}:
        flush_folder(inner)


def flush_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, where its file system can."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def are_kept(folder: Path) -> bool:
    """Whether the folder has digests. What an earlier version wrote has none."""
    return os.path.lexists(folder / FILE)


def fault(folder: Path, *, last: str, within: str | None = None) -> str | None:
    """What is wrong with the first file that is not what was written: ``NAME is missing``. None: nothing is.

    ``within`` names a folder in it, which alone is looked at besides ``last``.
    """
    digests = _read(folder / FILE)
    if digests is None or last not in digests:
        return f"{FILE} cannot be read"
    wanted = {name: digest for name, digest in digests.items() if within is None or name == last or name.startswith(f"{within}/")}
    for name in wanted:
        if not (folder / name).is_file():
            return f"{name} is missing"
    for name in files_in(folder):  # the readers of weights take every file of this kind that they find
        if name.endswith(_WEIGHTS) and name not in digests:
            return f"{name} was not written with it"
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        found = threads.map(lambda name: _differs(folder / name, wanted[name]), wanted)
        return next((f"{name} {wrong}" for name, wrong in zip(wanted, found, strict=True) if wrong is not None), None)


def _differs(file: Path, digest: str) -> str | None:
    try:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if found == digest else "is not what was written (its SHA-256 is another)"


def _read(file: Path) -> dict[str, str] | None:
    """None for what is no list of digests."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    except (OSError, ValueError):
        return None
    matches = [_LINE.fullmatch(line) for line in lines]
    found = {match[2]: match[1] for match in matches if match is not None}
    if len(found) != len(lines) or any(".." in PurePosixPath(name).parts or name.startswith("/") for name in found):
        return None
    return found
